//! Driver, device nodes, specification and runtime can all be right and no pod gets a GPU; only a container tells.

#[cfg(test)]
mod tests;

use anyhow::Result;
use async_trait::async_trait;

use super::cdi;
use super::driver::without_gpus;
use super::k3s;
use super::toolkit;
use crate::digest::sha256;
use crate::facts::loaded_module::loaded_module;
use crate::host::apply::Failure;
use crate::host::runtime::Trial as Container;
use crate::look::Look;
use crate::step::{Change, Finding, Lane, Stage, Status, Step};

/// What a container was last given, and with what; it lives as long as the boot. It is compared, never believed: what it names must be as it was.
const FILE: &str = "/run/gpuk-agent/gpu-trial";

/// The name under which pods ask for it (containerd's runtime, RuntimeClass' handler).
const HANDLER: &str = "nvidia";

/// As images of CUDA ask for GPUs (NVIDIA container toolkit, "Environment variables").
const ENVIRONMENT: [(&str, &str); 2] = [("NVIDIA_VISIBLE_DEVICES", "all"), ("NVIDIA_DRIVER_CAPABILITIES", "utility")];

/// A container that asks for GPUs is given them.
pub struct Trial;

#[async_trait(?Send)]
impl Step for Trial {
    fn name(&self) -> &'static str {
        "trial"
    }

    fn purpose(&self) -> &'static str {
        "a container that asks for GPUs is given them"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["containerd", "cdi"]
    }

    fn may_drift(&self) -> bool {
        false
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        if k3s::is_wanted(look.config)
            && let Some(status) = k3s::runtime_for_gpus(look).await?
        {
            return Ok(status);
        }
        let devices = devices(look)?;
        let circumstances = circumstances(look, &devices)?;
        if look.text(FILE)?.as_deref() == Some(&circumstances) {
            return Ok(Status::Ready(format!("a container was given {}", devices.join(", "))));
        }
        Ok(Status::pending(
            "no container has tried them as they are now",
            vec![Change::TryContainer { container: container(look), devices }, Change::write(FILE, circumstances)],
        ))
    }

    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        Some(match failure {
            Failure::NotGiven(lacking) => Status::Broken(without_gpu(lacking.clone())),
            other => Status::Waiting(not_started(other.to_string())),
        })
    }
}

fn container(look: Look<'_>) -> Container {
    let socket = look.config.containerd.socket.display().to_string();
    Container { socket, handler: HANDLER.to_owned(), environment: ENVIRONMENT.to_vec() }
}

fn without_gpu(why: String) -> Finding {
    let remedy = "mend what is named above, then: gpuk-agent up";
    Finding::new("container-without-gpu", "A container that asks for GPUs is not given them", why, remedy)
}

fn not_started(why: String) -> Finding {
    let remedy = "crictl info, journalctl --unit containerd   (say why no container starts), then: gpuk-agent up";
    Finding::new("container-not-started", "A container that asks for GPUs did not start", why, remedy)
}

/// Tries a container now, whatever an earlier one was given.
pub async fn now(look: Look<'_>) -> Result<Status> {
    let (container, devices) = (container(look), devices(look)?);
    Ok(match look.try_container(&container).await {
        Err(error) => Status::Waiting(not_started(format!("{error:#}"))),
        Ok(tried) => match tried.lacks(&container, &devices) {
            Some(lacking) => Status::Broken(without_gpu(lacking)),
            None => Status::Ready(format!("a container was given {}", devices.join(", "))),
        },
    })
}

/// The names in `/dev` of what a container needs: the nodes of the GPUs, and the one of the driver.
fn devices(look: Look<'_>) -> Result<Vec<String>> {
    let numbers = cdi::device_numbers(look)?;
    Ok(["nvidiactl".to_owned()].into_iter().chain(numbers.iter().map(|number| format!("nvidia{number}"))).collect())
}

/// What a container's luck depends on.
fn circumstances(look: Look<'_>, devices: &[String]) -> Result<String> {
    let digest = |text: Option<String>| text.map(|text| sha256(text.as_bytes())).unwrap_or_default();
    Ok(format!(
        "driver {}\ndevices {}\nspecification {}\ncontainerd {}\ntoolkit {}\n",
        loaded_module(look)?.map(|module| module.version).unwrap_or_default(),
        devices.join(" "),
        digest(cdi::of_gpus(look)?.map(|found| found.text)),
        digest(look.text(&look.config.containerd.config_file)?),
        digest(look.text(toolkit::CONFIGURATION)?),
    ))
}
