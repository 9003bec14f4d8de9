//! The agent bakes what GPUs need into an image: real apt, real DKMS, and a second run that changes nothing.

use anyhow::Result;
use vm_tests::scene::Stage;

/// All of it is looked at while the image is made, once for what it is made of: see `image/baked.rs`. That the agent of today finds
/// nothing to do in it is seen in `gpu_pod.rs`.
#[test]
fn the_agent_bakes_the_driver_and_the_toolkit_into_an_image() -> Result<()> {
    Stage::baked_image().map(drop)
}
