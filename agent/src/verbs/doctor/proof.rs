//! That a GPU is usable is proven by using it: in a container, and by computing. A person asks for that; no look does it by itself.

use gpuk_nvml::{CudaCheck, CudaFailure};

use crate::host::gpus::HelperTrouble;
use crate::look::Look;
use crate::step::{Finding, Status};
use crate::steps::trial;
use crate::verbs::survey::Seen;

/// Tries a container where everything before it holds, in place of what the step `trial` remembers.
pub async fn in_container(look: Look<'_>, seen: &mut [Seen]) {
    let holds = |need: &&'static str| seen.iter().any(|step| step.name == *need && step.verdict.is_settled());
    let Some(place) = seen.iter().position(|step| step.name == "trial") else { return };
    if look.wants_gpus() && look.running_system() && seen[place].needs.iter().all(holds) {
        seen[place].found(trial::now(look).await.map_err(|error| format!("{error:#}")));
    }
}

/// Computes on every GPU.
pub async fn by_computing(look: Look<'_>) -> Result<Status, String> {
    let devices = match look.compute().await {
        Ok(CudaCheck::Devices(devices)) => devices,
        Ok(CudaCheck::Failed(failure)) => return Ok(Status::Broken(does_not_compute(failure.to_string()))),
        Err(trouble @ (HelperTrouble::NotEmbedded | HelperTrouble::CannotStart(_))) => return Err(trouble.to_string()),
        Err(trouble) => return Ok(Status::Broken(does_not_compute(trouble.to_string()))),
    };
    let name = |address: &Option<String>, ordinal: u32| address.clone().unwrap_or_else(|| format!("CUDA device {ordinal}"));
    let told = |failure: &CudaFailure, of: String| format!("{of}: {failure}");
    let failed = devices.iter().filter_map(|device| Some(told(device.failure.as_ref()?, name(&device.address, device.ordinal))));
    let failed: Vec<String> = failed.collect();
    Ok(match (failed.is_empty(), devices.is_empty()) {
        (false, _) => Status::Broken(does_not_compute(failed.join("; "))),
        (true, true) => Status::Broken(does_not_compute("CUDA finds no device".to_owned())),
        (true, false) => {
            let names: Vec<String> = devices.iter().map(|device| name(&device.address, device.ordinal)).collect();
            Status::Ready(format!("what was written to {} was read back", names.join(", ")))
        }
    })
}

fn does_not_compute(why: String) -> Finding {
    let remedy = "journalctl --dmesg --grep NVRM | gpuk-agent explain   (drain and reboot the node when that says nothing)";
    Finding::new("gpu-does-not-compute", "A GPU does not compute", why, remedy)
}
