//! A NoCloud seed is a disc named `cidata` with the files that a cloud's metadata service would serve.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::MachineOptions;
use crate::command::run;

/// Writes `seed.iso` into the machine's folder.
pub(super) fn write(options: &MachineOptions, directory: &Path) -> Result<()> {
    let folder = directory.join("seed");
    fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join("user-data"), &options.user_data)?;
    fs::write(folder.join("meta-data"), format!("instance-id: {}\n{}", options.instance_id, options.meta_data))?;
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-rational-rock", "-joliet", "-volid", "cidata", "-output"]);
    command.arg(directory.join("seed.iso")).arg(&folder);
    run(&mut command, Duration::from_secs(60)).map(drop)
}
