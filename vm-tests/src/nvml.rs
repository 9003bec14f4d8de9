//! NVML's library is NVIDIA's and answers only for real GPUs; the stand-in takes its place in an image whose driver is real.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::run;
use crate::image::File;

/// What describes the GPUs for which it answers, in the machine.
pub const DESCRIPTION: &str = "/etc/nvml-stand-in.json";

/// The driver that the baked image has.
pub const DRIVER: &str = "550.163.01";

/// Its library there.
pub const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550.163.01";

/// The GPUs of a fixture (`nvml-stand-in/fixtures`) as that driver's, the first of them at this address of the PCI bus.
pub fn described(repository: &Path, fixture: &str, address: &str) -> Result<Value> {
    let path = repository.join(format!("nvml-stand-in/fixtures/{fixture}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut description: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    description["driver"] = DRIVER.into();
    if let Some(gpu) = description["gpus"].get_mut(0).filter(|gpu| gpu.get("code").is_none()) {
        gpu["busId"] = format!("0000{address}").into();
    }
    Ok(description)
}

/// The library and its description, for an image.
pub fn files(repository: &Path, description: &Value) -> Result<[File; 2]> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository).args(["build", "--quiet", "--locked", "--package", "nvml-stand-in"]);
    run(&mut cargo, Duration::from_secs(900))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), Into::into);
    Ok([File::program(LIBRARY, &target.join("debug/libnvml_stand_in.so"))?, File::text(DESCRIPTION, description.to_string())])
}
