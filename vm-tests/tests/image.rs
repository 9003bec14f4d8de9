//! The image can be made, and files put into it.

use anyhow::Result;
use vm_tests::{Image, Packages, Parts, image};

#[test]
fn files_are_added_to_a_copy() -> Result<()> {
    Packages::look().install()?;
    let blank = Image::blank(&Parts::open()?)?;
    let image = blank.with_files(&[image::File::text("/etc/new/note", "read me\n")])?;
    assert_ne!(image.disk(), blank.disk());
    assert!(image.kernel().exists());
    Ok(())
}
