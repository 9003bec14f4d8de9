//! A GPU that MIG divides is several GPUs to those who use it, until somebody divides it otherwise or the machine is rebooted.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use gpuk_nvml::{Gpu, Mig as Divided, Mode, Reading, RefusalReason, counted};

use super::driver::without_gpus;
use super::gpus::{self, told};
use crate::config::MigLayout;
use crate::host::apply::Failure;
use crate::host::gpus::DivideGpu;
use crate::look::Look;
use crate::step::{Change, Finding, Lane, Stage, Status, Step};

/// Every GPU that can be divided is divided as configured.
pub struct Mig;

#[async_trait(?Send)]
impl Step for Mig {
    fn name(&self) -> &'static str {
        "mig"
    }

    fn purpose(&self) -> &'static str {
        "GPUs are divided as configured"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["gpus"]
    }

    fn limit(&self) -> Duration {
        gpus::LIMIT
    }

    /// Whoever uses a GPU ends when they end: no round waits for that.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        let Some(layout) = &look.config.gpu.mig_layout else {
            return Ok(Status::Ready("left as it is: there is no mig-layout under [gpu]".to_owned()));
        };
        let reading = gpus::reading(look).await?;
        let reading = reading.ok_or_else(|| anyhow!("without a driver no GPU says how it is divided"))?;
        compared(look, layout, &reading)
    }

    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        let Failure::NotDivided(_, refusal) = failure else { return None };
        match refusal.reason {
            RefusalReason::InUse => Some(Status::Waiting(in_use(failure.to_string()))),
            RefusalReason::Impossible => Some(Status::Broken(impossible(failure.to_string()))),
            RefusalReason::NeedsReset => Some(Status::Broken(needs_reset(failure.to_string()))),
            RefusalReason::Failed => None,
        }
    }
}

fn in_use(why: String) -> Finding {
    Finding::new(
        "mig-in-use",
        "A GPU is used and is therefore not divided anew",
        why,
        "kubectl drain NODE --ignore-daemonsets; end what else holds the GPU (DCGM, a device plugin), then: gpuk-agent up",
    )
}

fn impossible(why: String) -> Finding {
    Finding::new(
        "mig-layout-impossible",
        "A GPU cannot be divided as configured",
        why,
        "write under [gpu] a mig-layout of what the GPU offers, or leave the key out; then: gpuk-agent up",
    )
}

fn needs_reset(why: String) -> Finding {
    Finding::new(
        "mig-needs-reset",
        "A GPU's MIG mode changes only when the GPU is reset",
        why,
        "drain the node, then: systemctl reboot",
    )
    .cured_by_reboot()
}

fn compared(look: Look<'_>, layout: &MigLayout, reading: &Reading) -> Result<Status> {
    let asked = match layout {
        MigLayout::Off => BTreeMap::new(),
        MigLayout::Instances(counts) => counts.clone(),
    };
    let asked_mode = Mode { current: layout.is_on(), pending: layout.is_on() };
    let (mut right, mut differing, mut changes, mut until_reset) = (0, Vec::new(), Vec::new(), Vec::new());
    for gpu in &reading.gpus {
        let Some(gpu) = told("what a GPU is", gpu)? else { continue };
        let Some(divided) = told("how a GPU is divided", &gpu.mig)? else { continue };
        let counts = divided.counts().map_err(|failure| anyhow!("NVML does not say what a GPU's instances are: {failure}"))?;
        let address = told("a GPU's PCI address", &gpu.address)?.map_or("unknown", String::as_str);
        if divided.mode == asked_mode && counts == asked {
            right += 1;
        } else if divided.mode.current != asked_mode.current && divided.mode.pending == asked_mode.pending {
            until_reset.push(address.to_owned());
        } else {
            differing.push(format!("GPU {address} has {}", described(divided, &counts)));
            changes.push(Change::DivideGpu(division(look, layout, gpu, address)?));
        }
    }
    Ok(if !changes.is_empty() {
        Status::pending(format!("{}, and is to have {}", differing.join(", "), words(layout)), changes)
    } else if until_reset.is_empty() {
        Status::Ready(match right {
            0 => "no GPU of this machine can be divided by MIG".to_owned(),
            1 => format!("1 GPU has {}", words(layout)),
            _ => format!("{right} GPUs have {}", words(layout)),
        })
    } else {
        let on = if layout.is_on() { "on" } else { "off" };
        Status::Broken(needs_reset(format!("MIG mode goes {on} at the next reset of GPU {}", until_reset.join(", "))))
    })
}

fn division(look: Look<'_>, layout: &MigLayout, gpu: &Gpu, address: &str) -> Result<DivideGpu> {
    let uuid = told("a GPU's UUID", &gpu.uuid)?.ok_or_else(|| anyhow!("GPU {address} has no UUID to be divided by"))?;
    Ok(DivideGpu {
        gpu: uuid.clone(),
        address: address.to_owned(),
        layout: layout.clone(),
        helper: look.config.gpu.nvml_helper.clone(),
        library: look.config.gpu.nvml_library.clone(),
    })
}

fn words(layout: &MigLayout) -> String {
    match layout {
        MigLayout::Off => "MIG mode off".to_owned(),
        layout => format!("the MIG instances {layout}"),
    }
}

fn described(divided: &Divided, counts: &BTreeMap<String, u32>) -> String {
    match (divided.mode.current, counts.is_empty()) {
        (false, _) => "MIG mode off".to_owned(),
        (true, true) => "no MIG instances".to_owned(),
        (true, false) => format!("the MIG instances {}", counted(counts)),
    }
}
