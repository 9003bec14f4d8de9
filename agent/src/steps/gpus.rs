//! A driver that is loaded is no proof: NVML must answer for every GPU of the bus, and call none of them broken.

mod health;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use async_trait::async_trait;
use gpuk_nvml::{Answer, Failure, Gpu, Reading, ReturnCode};

use super::driver::without_gpus;
use crate::host::gpus::{GpuReading, HelperTrouble};
use crate::look::Look;
use crate::step::{Finding, Lane, Stage, Status, Step};
use health::{Fault, said};

/// How long a look takes that asks NVML. The helper's own limit is a minute: NVML may have to initialise every GPU first.
pub const LIMIT: Duration = Duration::from_secs(75);

/// Every GPU answers, and none is broken.
pub struct Gpus;

#[async_trait(?Send)]
impl Step for Gpus {
    fn name(&self) -> &'static str {
        "gpus"
    }

    fn purpose(&self) -> &'static str {
        "every GPU answers and is healthy"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["modules"]
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        Ok(match look.gpus().await? {
            GpuReading::NoDriver => Status::Waiting(Finding::new(
                "driver-not-loaded",
                "Without a driver no GPU answers",
                "there is no /proc/driver/nvidia/version",
                "gpuk-agent doctor   (the step modules says what keeps it from loading)",
            )),
            GpuReading::Failed(failure) => Status::Broken(of_library(&failure)),
            GpuReading::NotAsked(HelperTrouble::NotEmbedded) => bail!("{}", HelperTrouble::NotEmbedded),
            GpuReading::NotAsked(trouble) => Status::Broken(of_helper(&trouble)),
            GpuReading::Reading(reading) => judged(look, &reading),
        })
    }
}

/// What NVML says, for steps that come after this one; `None` where no driver is loaded. An error where NVML says nothing: `gpus` has the
/// finding.
pub async fn reading(look: Look<'_>) -> Result<Option<Reading>> {
    let why = match look.gpus().await? {
        GpuReading::Reading(reading) => return Ok(Some(*reading)),
        GpuReading::NoDriver => return Ok(None),
        GpuReading::Failed(failure) => failure.to_string(),
        GpuReading::NotAsked(trouble) => trouble.to_string(),
    };
    bail!("NVML does not say what the GPUs are: {why}; gpuk-agent doctor has the cause");
}

/// The answer to one question, `None` where there is no such thing. An error where NVML could not say it.
pub fn told<'a, T>(what: &str, answer: &'a Answer<T>) -> Result<Option<&'a T>> {
    answer.get().map_err(|failure| anyhow!("NVML does not say {what}: {failure}"))
}

/// NVML as a whole does not answer.
fn of_library(failure: &Failure) -> Finding {
    let (code, what, remedy) = match failure.code {
        ReturnCode::LIB_RM_VERSION_MISMATCH => (
            "driver-version-mismatch",
            "The loaded module and the libraries of the driver are of two versions, and no GPU program starts",
            "drain the node, then: systemctl reboot",
        ),
        ReturnCode::LIBRARY_NOT_FOUND => (
            "nvml-missing",
            "The driver's module is loaded, and its library NVML is not installed",
            "install the libraries of the driver's version (Debian: libnvidia-ml1), then: gpuk-agent up",
        ),
        ReturnCode::DRIVER_NOT_LOADED => (
            "gpu-does-not-initialise",
            "The driver is loaded, and no GPU could be initialised",
            "journalctl --dmesg --grep NVRM | gpuk-agent explain",
        ),
        _ => ("nvml-failed", "NVML does not answer", "journalctl --dmesg --grep NVRM | gpuk-agent explain"),
    };
    let finding = Finding::new(code, what, failure.to_string(), remedy);
    if failure.code == ReturnCode::LIB_RM_VERSION_MISMATCH { finding.cured_by_reboot() } else { finding }
}

/// NVML could not be asked, or said nothing.
fn of_helper(trouble: &HelperTrouble) -> Finding {
    let (code, what) = match trouble {
        HelperTrouble::Hung(_) | HelperTrouble::Stuck(_) => ("nvml-hangs", "NVML hangs, and with it every GPU program"),
        HelperTrouble::Crashed(_) => ("nvml-crashes", "NVML crashes"),
        _ => ("nvml-not-asked", "NVML could not be asked"),
    };
    Finding::new(
        code,
        what,
        trouble.to_string(),
        "journalctl --dmesg --grep NVRM | gpuk-agent explain   (drain and reboot the node when that says nothing)",
    )
}

fn judged(look: Look<'_>, reading: &Reading) -> Status {
    let mut faults: Vec<(String, Fault)> = Vec::new();
    let mut answering: Vec<&Gpu> = Vec::new();
    for (index, gpu) in reading.gpus.iter().enumerate() {
        match gpu.get() {
            Err(failure) => faults.push((format!("GPU {index}"), health::of_silent(failure))),
            Ok(Some(gpu)) => {
                answering.push(gpu);
                faults.extend(health::fault(gpu).map(|fault| (name(gpu), fault)));
            }
            Ok(None) => {}
        }
    }
    if let Some(finding) = of_faults(&faults) {
        return Status::Broken(finding);
    }
    if let Some(finding) = missing(look, &answering) {
        return Status::Broken(finding);
    }
    if let Some(gpu) = answering.iter().find(|gpu| health::is_joining_fabric(gpu)) {
        return Status::Waiting(Finding::new(
            "gpu-joins-fabric",
            "The fabric manager has not connected every GPU yet",
            format!("{}: its fabric is not set up", name(gpu)),
            health::Cure::Fabric.remedy(""),
        ));
    }
    Status::Ready(evidence(reading, &answering))
}

/// The first fault, and how many GPUs have another one.
fn of_faults(faults: &[(String, Fault)]) -> Option<Finding> {
    let (gpu, fault) = faults.first()?;
    let others: Vec<String> = faults.iter().skip(1).map(|(gpu, fault)| format!("; {gpu}: {}", fault.code)).collect();
    let address = gpu.split_whitespace().nth(1).unwrap_or_default();
    let why = format!("{gpu}: {}{}", fault.why, others.concat());
    let finding = Finding::new(fault.code, fault.what, why, fault.cure.remedy(address));
    Some(if fault.cure == health::Cure::Reboot { finding.cured_by_reboot() } else { finding })
}

/// `GPU 0000:00:1e.0 (Tesla T4, GPU-8f2a1c3e-...)`
fn name(gpu: &Gpu) -> String {
    format!("GPU {} ({}, {})", said(&gpu.address), said(&gpu.name), said(&gpu.uuid))
}

/// GPUs of the bus for which NVML does not answer.
fn missing(look: Look<'_>, answering: &[&Gpu]) -> Option<Finding> {
    let known = |address: &String| answering.iter().any(|gpu| gpu.address.value() == Some(address));
    let gpus = look.facts.gpus_for_containers();
    let missing: Vec<&str> = gpus.iter().map(|gpu| &gpu.address).filter(|address| !known(address)).map(String::as_str).collect();
    if missing.is_empty() {
        return None;
    }
    Some(Finding::new(
        "gpus-missing",
        "NVML does not know every GPU of the PCI bus",
        format!("{} of {} are missing: {}", missing.len(), gpus.len(), missing.join(", ")),
        "journalctl --dmesg --grep NVRM | gpuk-agent explain   (says why the driver does not take them)",
    ))
}

fn evidence(reading: &Reading, gpus: &[&Gpu]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        let kind = said(&gpu.name);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let remarks =
        gpus.iter().flat_map(|gpu| health::remarks(gpu).into_iter().map(|remark| format!("; {}: {remark}", said(&gpu.address))));
    format!("{}, driver {}, CUDA {}{}", kinds.join(", "), said(&reading.driver), said(&reading.cuda), remarks.collect::<String>())
}
