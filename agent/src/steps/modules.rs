//! An installed driver is of use once its modules are in the kernel, of the libraries' version, and every GPU has its device node.

mod failures;
mod nodes;
mod services;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::driver::{present::Present, without_gpus};
use crate::facts::Gpu;
use crate::facts::loaded_module::loaded_module;
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Change, Command, Finding, Lane, Stage, Status, Step};

/// The modules that containers need (the driver, unified memory, and modes, which Vulkan asks for), and the sign that each is loaded.
const MODULES: [(&str, &str); 3] = [
    ("nvidia", "/sys/module/nvidia"),
    ("nvidia-uvm", "/sys/module/nvidia_uvm"),
    ("nvidia-modeset", "/sys/module/nvidia_modeset"),
];

/// The kernel's own drivers for these GPUs, without case and underscores.
const KERNELS_OWN: [&str; 2] = ["nouveau", "novacore"];

/// Loading takes seconds, with many GPUs tens of them.
const LIMIT: Duration = Duration::from_secs(180);

/// The driver's modules are loaded, and the GPUs' device nodes are there.
pub struct Modules;

#[async_trait(?Send)]
impl Step for Modules {
    fn name(&self) -> &'static str {
        "modules"
    }

    fn purpose(&self) -> &'static str {
        "the driver's modules are loaded and every GPU has its device node"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["driver"]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        let gpus = look.facts.gpus_for_containers();
        if let Some(finding) = taken(look, &gpus)? {
            return Ok(Status::Broken(finding));
        }
        let present = Present::look(look)?;
        if present.in_container && present.version.is_none() {
            return Ok(Status::Ready("somebody else's driver container has them (/run/nvidia/driver)".to_owned()));
        }
        let mut absent = Vec::new();
        for (name, path) in MODULES {
            if !look.exists(path)? {
                absent.push(name);
            }
        }
        let loaded = loaded_module(look)?.map(|module| module.version);
        // Modules of another version than the libraries' are not joined by more of them.
        if let (Some(loaded), Some(library)) = (&loaded, &present.version)
            && loaded != library
        {
            return Ok(Status::Broken(mismatch(loaded, library)));
        }
        if !absent.is_empty() {
            let words: Vec<&str> = ["modprobe", "--all"].into_iter().chain(absent.iter().copied()).collect();
            return Ok(Status::pending(format!("{} not loaded", absent.join(" and ")), vec![run(&words)]));
        }
        if let Some(finding) = not_driven(look, &gpus)? {
            return Ok(Status::Broken(finding));
        }
        if let Some((why, changes)) = nodes::missing(look).await? {
            return Ok(Status::pending(why, changes));
        }
        let loaded = loaded.unwrap_or_default();
        Ok(match services::check(look, &present, &loaded).await? {
            services::Services::Fine(words) => {
                Status::Ready(format!("{loaded} loaded, {} of {} GPUs driven, device nodes there{words}", gpus.len(), gpus.len()))
            }
            services::Services::Other(status) => status,
        })
    }

    fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
        failures::judge(failure, look)
    }
}

/// A command on the running system.
fn run(words: &[&str]) -> Change {
    let mut command = Command::new([], LIMIT).on_running_system();
    command.argv = words.iter().map(|word| (*word).to_owned()).collect();
    Change::Run(command)
}

fn mismatch(loaded: &str, library: &str) -> Finding {
    Finding::new(
        "driver-version-mismatch",
        "The loaded module and the libraries of the driver are of two versions, and no GPU program starts",
        format!("/proc/driver/nvidia/version says {loaded}, and the library is libnvidia-ml.so.{library}"),
        "drain the node and reboot it: systemctl reboot; the packages that moved were not held: apt-mark showhold",
    )
    .cured_by_reboot()
}

/// Who drives a GPU now.
fn driver_of(look: Look<'_>, gpu: &Gpu) -> Result<Option<String>> {
    let target = look.link(format!("/sys/bus/pci/devices/{}/driver", gpu.address))?;
    Ok(target.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned())))
}

/// The kernel's own driver holds a GPU.
fn taken(look: Look<'_>, gpus: &[&Gpu]) -> Result<Option<Finding>> {
    for gpu in gpus {
        let Some(driver) = driver_of(look, gpu)? else { continue };
        if KERNELS_OWN.contains(&driver.to_ascii_lowercase().replace('_', "").as_str()) {
            let finding = Finding::new(
                "nouveau-bound",
                format!("The kernel's own driver {driver} holds a GPU, and NVIDIA's cannot have it"),
                format!("/sys/bus/pci/devices/{}/driver is {driver}", gpu.address),
                "drain the node and reboot it: systemctl reboot; the agent has blacklisted that driver, in the initramfs too",
            );
            return Ok(Some(finding.cured_by_reboot()));
        }
    }
    Ok(None)
}

/// The module is loaded, and leaves a GPU alone.
fn not_driven(look: Look<'_>, gpus: &[&Gpu]) -> Result<Option<Finding>> {
    let mut without = Vec::new();
    for gpu in gpus {
        if driver_of(look, gpu)?.is_none() {
            without.push(super::driver::rules::name(gpu));
        }
    }
    let finding = || {
        Finding::new(
            "gpu-not-supported",
            "The driver is loaded and does not take a GPU",
            format!("{} has no driver bound", without.join(", ")),
            "journalctl --dmesg --grep NVRM tells why: another flavour or branch (see gpu.driver), or a GPU that is broken",
        )
    };
    Ok((!without.is_empty()).then(finding))
}
