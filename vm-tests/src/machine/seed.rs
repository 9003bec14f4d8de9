//! A disc can hold the files that a cloud's metadata service would serve; its label says whose they are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Disc, MachineOptions};
use crate::command::run;

/// Writes `seed.iso` into the machine's folder, if it is to have one.
pub(super) fn write(options: &MachineOptions, directory: &Path) -> Result<()> {
    let (label, files) = match &options.disc {
        Disc::None => return Ok(()),
        Disc::ConfigDrive(files) => ("config-2", files.clone()),
        Disc::NoCloud => {
            let meta_data = format!("instance-id: {}\n{}", options.instance_id, options.meta_data);
            let files = [("user-data", &options.user_data), ("meta-data", &meta_data)];
            ("cidata", files.map(|(name, text)| (name.to_owned(), text.clone().into_bytes())).to_vec())
        }
    };
    let folder = directory.join("seed");
    for (path, bytes) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&folder)).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-rational-rock", "-joliet", "-volid", label, "-output"]);
    command.arg(directory.join("seed.iso")).arg(&folder);
    run(&mut command, Duration::from_secs(60)).map(drop)
}
