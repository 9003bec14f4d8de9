//! A divided GPU is used through its instances, and by itself no more.
#![allow(unsafe_code, reason = "the calls of `nvml.rs`")]

use crate::{Answer, Failure, Mig, MigInstance, ReturnCode};
use nvml_wrapper_sys::bindings::nvmlDevice_t;

use super::gpu::mode;
use super::nvml::{Nvml, answer, ask, ask_text};

/// More instances than any GPU has (NVIDIA, MIG User Guide: 7).
const MOST_INSTANCES: u32 = 64;

/// How a GPU is divided.
pub fn mig(nvml: &Nvml, device: nvmlDevice_t) -> Result<Mig, Failure> {
    let mode = ask!(nvml.nvmlDeviceGetMigMode(device) -> current: 0, pending: 0).map(mode)?;
    let places = if mode.current { ask!(nvml.nvmlDeviceGetMaxMigDeviceCount(device) -> count: 0)? } else { 0 };
    let instances = (0..places.min(MOST_INSTANCES)).filter_map(|place| instance(nvml, device, place)).collect();
    Ok(Mig { mode, instances })
}

/// The instance in a place; `None` where the place is free.
fn instance(nvml: &Nvml, device: nvmlDevice_t, place: u32) -> Option<Answer<MigInstance>> {
    let instance = match ask!(nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place) -> instance: std::ptr::null_mut()) {
        Ok(instance) => instance,
        Err(Failure { code: ReturnCode::NOT_FOUND, .. }) => return None,
        Err(failure) => return Some(Answer(Err(failure))),
    };
    // The name ends in the profile, e.g. `NVIDIA H100 80GB HBM3 MIG 1g.10gb` (nvml.h, `nvmlDeviceGetName`).
    let profile = ask_text!(nvml.nvmlDeviceGetName(instance), 96)
        .map(|name| name.rsplit_once("MIG ").map(|(_, profile)| profile.to_owned()));
    Some(Answer::from(MigInstance {
        index: place,
        uuid: answer(ask_text!(nvml.nvmlDeviceGetUUID(instance), 96)),
        profile: Answer(answer(profile).0.map(Option::flatten)),
    }))
}
