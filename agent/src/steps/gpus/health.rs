//! What NVML says of a GPU is either a reason not to give it work, or a reason to look at it when there is time.

use gpuk_nvml::{Answer, FabricState, Gpu, RecoveryAction, ReturnCode};

/// Something that is wrong with one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable name for programs.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub what: &'static str,
    /// The evidence.
    pub why: String,
    /// What to do.
    pub cure: Cure,
}

/// What cures a fault, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// The GPU alone is started anew.
    Reset,
    /// The node is.
    Reboot,
    /// Its power goes off and on.
    PowerCycle,
    /// Another GPU takes its place.
    Replace,
    /// The services of the fabric are looked at.
    Fabric,
}

impl Cure {
    /// What a person types, or has done.
    pub fn remedy(self, address: &str) -> String {
        match self {
            Self::Reset => format!("drain the node, end what uses the GPU, then: nvidia-smi --gpu-reset --id={address}   (or reboot the node)"),
            Self::Reboot => "drain the node, then: systemctl reboot".to_owned(),
            Self::PowerCycle => "drain the node, then stop and start the machine (a reboot may not be enough); when it comes back so: have the hardware looked at".to_owned(),
            Self::Replace => "drain the node and have the GPU replaced (in a cloud: stop and start the instance, or replace it)".to_owned(),
            Self::Fabric => "journalctl --unit nvidia-fabricmanager".to_owned(),
        }
    }
}

/// Why a GPU that NVML knows by this number says nothing.
pub fn of_silent(failure: &gpuk_nvml::Failure) -> Fault {
    let (code, what, cure) = match failure.code {
        ReturnCode::GPU_IS_LOST => ("gpu-lost", "A GPU has fallen off the bus", Cure::PowerCycle),
        ReturnCode::RESET_REQUIRED => ("gpu-reset-required", "A GPU must be reset before it is used again", Cure::Reset),
        ReturnCode::CORRUPTED_INFOROM => ("gpu-inforom-corrupted", "A GPU's InfoROM is corrupted", Cure::Replace),
        _ => ("gpu-does-not-answer", "A GPU does not answer", Cure::Reboot),
    };
    Fault { code, what, why: failure.to_string(), cure }
}

/// The fault for which a GPU must not be given work.
pub fn fault(gpu: &Gpu) -> Option<Fault> {
    CHECKS.iter().find_map(|check| check(gpu))
}

/// In the order in which one explains the next.
const CHECKS: [fn(&Gpu) -> Option<Fault>; 5] = [rows, pages, recovery, fabric, inforom];

fn rows(gpu: &Gpu) -> Option<Fault> {
    let rows = gpu.remapped_rows.value()?;
    let counts =
        format!("{} rows remapped for uncorrectable errors, {} for correctable ones", rows.uncorrectable, rows.correctable);
    if rows.failure {
        let what = "A GPU's memory has a row that could not be replaced by a spare one";
        return Some(Fault { code: "gpu-row-remap-failed", what, why: counts, cure: Cure::Replace });
    }
    let what = "A GPU's memory has rows that are replaced at its next reset";
    rows.pending.then_some(Fault { code: "gpu-row-remap-pending", what, why: counts, cure: Cure::Reset })
}

fn pages(gpu: &Gpu) -> Option<Fault> {
    let is_pending = gpu.retired_pages_pending.value().copied().unwrap_or(false);
    let what = "A GPU's memory has pages that are taken out of use at the next reboot";
    is_pending.then(|| Fault {
        code: "gpu-pages-pending",
        what,
        why: "pages wait for their retirement".to_owned(),
        cure: Cure::Reboot,
    })
}

fn recovery(gpu: &Gpu) -> Option<Fault> {
    let (code, what, cure) = match gpu.recovery_action.value()? {
        RecoveryAction::None => return None,
        RecoveryAction::GpuReset => ("gpu-reset-required", "A GPU must be reset before it is used again", Cure::Reset),
        RecoveryAction::NodeReboot => ("gpu-reboot-required", "A GPU works again only after a reboot", Cure::Reboot),
        RecoveryAction::DrainP2p => {
            ("gpu-drain-required", "A GPU's traffic with others must end before it is looked at again", Cure::Reset)
        }
        RecoveryAction::DrainAndReset => {
            ("gpu-drain-required", "A GPU must be given no new work, and be reset once the old has ended", Cure::Reset)
        }
        RecoveryAction::Unknown(_) => {
            ("gpu-recovery-required", "A GPU's driver asks for something that this agent does not know", Cure::Reboot)
        }
    };
    Some(Fault { code, what, why: format!("the driver's recovery action is {:?}", gpu.recovery_action.value()?), cure })
}

fn fabric(gpu: &Gpu) -> Option<Fault> {
    let fabric = gpu.fabric.value()?;
    let failure = fabric.failure.as_ref().filter(|_| fabric.state == FabricState::Completed)?;
    let what = "A GPU is not part of the fabric of NVSwitches";
    Some(Fault { code: "gpu-fabric-failed", what, why: failure.to_string(), cure: Cure::Fabric })
}

/// NVML answers other questions, and this one with a corrupted InfoROM.
fn inforom(gpu: &Gpu) -> Option<Fault> {
    let failures = [gpu.ecc.failure(), gpu.ecc_uncorrected.failure(), gpu.memory.failure(), gpu.uuid.failure()];
    let failure = failures.into_iter().flatten().find(|failure| failure.code == ReturnCode::CORRUPTED_INFOROM)?;
    Some(of_silent(failure))
}

/// A GPU's fabric is still being set up: waiting helps.
pub fn is_joining_fabric(gpu: &Gpu) -> bool {
    gpu.fabric.value().is_some_and(|fabric| matches!(fabric.state, FabricState::NotStarted | FabricState::InProgress))
}

/// What is worth a look when there is time; each in a few words.
pub fn remarks(gpu: &Gpu) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(width) = gpu.pcie_width.value().filter(|width| width.current < width.max) {
        remarks.push(format!("its PCIe link has {} of {} lanes", width.current, width.max));
    }
    if let Some(errors) = gpu.ecc_uncorrected.value().filter(|errors| errors.volatile > 0) {
        remarks.push(format!("{} uncorrectable memory errors since the driver was loaded", errors.volatile));
    }
    let slow = gpu.clock_event_reasons.value().into_iter().flat_map(|reasons| &reasons.words);
    remarks.extend(slow.filter(|word| is_slowdown(word)).map(|word| format!("slowed down: {word}")));
    if gpu.persistence.value() == Some(&false) {
        remarks.push("persistence mode is off".to_owned());
    }
    for (name, mode) in [("ECC", gpu.ecc.value()), ("MIG", gpu.mig.value().map(|mig| &mig.mode))] {
        if mode.is_some_and(|mode| mode.current != mode.pending) {
            remarks.push(format!("{name} mode changes at the next reset"));
        }
    }
    remarks
}

/// The reasons that are a fault of cooling or power; the others are how a GPU saves energy or keeps a limit that somebody set.
fn is_slowdown(word: &str) -> bool {
    word.contains("hardware") || word.contains("thermal") || word.contains("brake")
}

/// A value in words, for evidence.
pub fn said<T: ToString>(answer: &Answer<T>) -> String {
    answer.value().map_or_else(|| "unknown".to_owned(), ToString::to_string)
}
