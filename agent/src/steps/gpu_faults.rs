//! A GPU that failed stays failed, whatever runs on it next, until it is reset or the machine starts again.

use anyhow::{Result, bail};
use async_trait::async_trait;

use super::driver::without_gpus;
use crate::config::Enabled;
use crate::identity;
use crate::kernel_log::standing::{self, Remembered, Standing, Told};
use crate::look::Look;
use crate::state::{STATE_FILE, State};
use crate::step::{Finding, Lane, Stage, Status, Step};

/// The step's name; its findings in the history are the memory of faults.
const NAME: &str = "gpu-faults";

const INSPECT: &str = "the same fault came back after two reboots: nvidia-bug-report.sh, and have the hardware looked at (seat, power, \
    cooling, the card itself) before this node gets work again";

/// The kernel's log tells of no fault that keeps a GPU from its work.
pub struct GpuFaults;

#[async_trait(?Send)]
impl Step for GpuFaults {
    fn name(&self) -> &'static str {
        NAME
    }

    fn purpose(&self) -> &'static str {
        "no GPU has failed since the machine started"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = &look.facts.gpus_unseen {
            bail!("whether there are GPUs was not seen: {why}");
        }
        if let Some(why) = without_gpus(look).filter(|_| !has_switches_of_ours(look)) {
            return Ok(Status::Ready(why));
        }
        let verdict = standing::judge(&look.facts.boot_id, &look.kernel_log()?, &remembered(look));
        Ok(match verdict.standing.as_slice() {
            [] if verdict.warnings.is_empty() => Status::Ready("no fault of a GPU in the kernel's log".to_owned()),
            [] => Status::Ready(format!("nothing that keeps work off a GPU; warnings: {}", named(&verdict.warnings))),
            [worst, others @ ..] => Status::Broken(finding(worst, others)),
        })
    }
}

/// Switches without GPUs: all of these have fallen off the bus, or are another machine's.
fn has_switches_of_ours(look: Look<'_>) -> bool {
    look.facts.gpus.is_empty() && !look.facts.nvswitches.is_empty() && look.config.gpu.enabled != Enabled::Never
}

/// Each once, with how often the log has it.
fn named(warnings: &[(Told, usize)]) -> String {
    let name = |(told, times): &(Told, usize)| match times {
        1 => told.fault.to_string(),
        _ => format!("{} ({times} times)", told.fault),
    };
    warnings.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn finding(worst: &Standing, others: &[Standing]) -> Finding {
    let fault = &worst.told.fault;
    let more = match others.len() {
        0 => String::new(),
        1 => ", and another fault".to_owned(),
        number => format!(", and {number} other faults"),
    };
    let lines: Vec<&str> = [worst].into_iter().chain(others).map(|standing| standing.told.line.as_str()).collect();
    let remedy = if worst.is_hardware { INSPECT } else { &fault.remedy };
    Finding::new(&fault.id(), format!("{fault}{more}"), lines.join("\n"), remedy)
}

/// What the history has of this instance: what stood at the last look in this boot, and all that stood in earlier ones.
/// A state that cannot be read remembers nothing; the log itself decides.
fn remembered(look: Look<'_>) -> Vec<Remembered> {
    let text = look.text(STATE_FILE).ok().flatten().unwrap_or_default();
    let state: State = serde_json::from_str(&text).unwrap_or_default();
    if state.instance_id != identity::instance_id(look) {
        return Vec::new();
    }
    let boot_id = look.facts.boot_id.as_str();
    let now = state.last_of(NAME, boot_id).map(|record| (boot_id, record));
    let earlier = state.rounds.iter().filter(|round| round.boot_id != boot_id);
    let earlier = earlier.flat_map(|round| round.steps.iter().map(|record| (round.boot_id.as_str(), record)));
    let records = now.into_iter().chain(earlier).filter(|(_, record)| record.name == NAME);
    let lines = records.flat_map(|(boot_id, record)| record.finding.iter().map(move |finding| (boot_id, finding.why.as_str())));
    lines
        .flat_map(|(boot_id, why)| why.lines().filter_map(standing::told).map(move |told| (boot_id, told)))
        .map(|(boot_id, told)| Remembered { boot_id: boot_id.to_owned(), told })
        .collect()
}

#[cfg(test)]
mod tests;
