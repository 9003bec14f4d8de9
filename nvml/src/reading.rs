//! NVML knows of a GPU what the PCI bus does not: whether it is healthy, what holds it back, and what it is divided into.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Answer, Failure};

/// One look at NVML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// The driver's version, e.g. `535.161.07`.
    pub driver: Answer<String>,
    /// The library's version, e.g. `12.535.161.07`.
    pub nvml: Answer<String>,
    /// The newest CUDA version that this driver can serve, e.g. `12.2`.
    pub cuda: Answer<String>,
    /// The GPUs in the order of NVML's indices. One that cannot be spoken to is its failure; never `null`.
    pub gpus: Vec<Answer<Gpu>>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// NVML's number of it, which changes with the order of the bus.
    pub index: u32,
    /// PCI address as in sysfs, e.g. `0000:00:1e.0`.
    pub address: Answer<String>,
    /// N of `/dev/nvidiaN`.
    pub minor: Answer<u32>,
    /// E.g. `GPU-8f2a1c3e-...`.
    pub uuid: Answer<String>,
    /// E.g. `Tesla T4`.
    pub name: Answer<String>,
    /// Who it was made for, in lower case, e.g. `tesla`; NVML's number where this version does not know it.
    pub brand: Answer<String>,
    /// The generation as NVML counts it, in lower case, e.g. `turing`; its number where this version does not know it.
    pub architecture: Answer<String>,
    /// What CUDA code it runs.
    pub compute_capability: Answer<ComputeCapability>,
    /// All of its memory, in bytes.
    pub memory: Answer<u64>,
    /// How it is divided.
    pub mig: Answer<Mig>,
    /// Whether memory errors are corrected.
    pub ecc: Answer<Ecc>,
    /// Memory errors that could not be corrected.
    pub ecc_uncorrected: Answer<EccErrors>,
    /// Memory rows replaced by spare ones (Ampere and later).
    pub remapped_rows: Answer<RemappedRows>,
    /// Memory pages wait for a reboot to be taken out of use (before Ampere).
    pub retired_pages_pending: Answer<bool>,
    /// Why its clocks are not higher.
    pub clock_event_reasons: Answer<ClockEventReasons>,
    /// Generation of the PCIe link; an idle link goes down to a lower one.
    pub pcie_generation: Answer<Range>,
    /// Lanes of the PCIe link.
    pub pcie_width: Answer<Range>,
    /// Power that it draws now, in milliwatts.
    pub power_draw: Answer<u32>,
    /// Power that it may draw, in milliwatts.
    pub power_limit: Answer<u32>,
    /// Temperature of the chip, in degrees Celsius.
    pub temperature: Answer<u32>,
    /// The driver stays initialised while nobody uses the GPU.
    pub persistence: Answer<bool>,
    /// Links to other GPUs and switches.
    pub nvlinks: Answer<NvLinks>,
    /// Its part in the fabric of NVSwitches.
    pub fabric: Answer<Fabric>,
    /// What the driver asks for so that the GPU works again.
    pub recovery_action: Answer<RecoveryAction>,
}

/// What CUDA code a GPU runs, e.g. 7.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComputeCapability {
    /// 7 of 7.5.
    pub major: u32,
    /// 5 of 7.5.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A setting that takes a reset or a reboot to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// It is on now.
    pub current: bool,
    /// It is on after the next reset.
    pub pending: bool,
}

/// Whether memory errors are corrected.
pub type Ecc = Mode;

/// How a GPU is divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mig {
    /// Whether it is divided at all.
    pub mode: Mode,
    /// Its parts, in NVML's order; one that cannot be spoken to is its failure.
    pub instances: Vec<Answer<MigInstance>>,
}

impl Mig {
    /// How many instances of each profile there are; the first failure where one of them cannot be told.
    pub fn counts(&self) -> Result<BTreeMap<String, u32>, Failure> {
        let mut counts = BTreeMap::new();
        for instance in &self.instances {
            let Some(instance) = instance.get().map_err(Clone::clone)? else { continue };
            let profile = instance.profile.get().map_err(Clone::clone)?;
            *counts.entry(profile.map_or("unknown", String::as_str).to_owned()).or_insert(0) += 1;
        }
        Ok(counts)
    }
}

/// One part of a divided GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigInstance {
    /// NVML's number of it among those of its GPU; numbers in between may be free.
    pub index: u32,
    /// E.g. `MIG-4d5c...`.
    pub uuid: Answer<String>,
    /// E.g. `1g.10gb`.
    pub profile: Answer<String>,
}

/// Memory errors that could not be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EccErrors {
    /// Since the driver was loaded or the GPU was reset.
    pub volatile: u64,
    /// In the GPU's life.
    pub aggregate: u64,
}

/// Memory rows replaced by spare ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemappedRows {
    /// For errors that could be corrected.
    pub correctable: u32,
    /// For errors that could not.
    pub uncorrectable: u32,
    /// Some will be replaced at the next reset.
    pub pending: bool,
    /// One could not be replaced: the GPU is to be exchanged.
    pub failure: bool,
}

/// Why the clocks are not higher (nvml.h, `nvmlClocksEventReason…`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockEventReasons {
    /// All of them, a bit each.
    pub mask: u64,
    /// Those that this version has words for, e.g. `hardware thermal slowdown`.
    pub words: Vec<String>,
}

/// What is, and what could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// Now.
    pub current: u32,
    /// At most.
    pub max: u32,
}

/// Links to other GPUs and switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NvLinks {
    /// Those there are.
    pub count: u32,
    /// Those that are up.
    pub active: u32,
}

/// A GPU's part in the fabric of NVSwitches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fabric {
    /// How far it has come.
    pub state: FabricState,
    /// Why the GPU is complete and yet not part of it.
    pub failure: Option<Failure>,
}

/// How far a GPU has come on its way into the fabric (nvml.h, `NVML_GPU_FABRIC_STATE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricState {
    /// The fabric manager has not begun.
    NotStarted,
    /// It is at it.
    InProgress,
    /// It is done, for better or worse.
    Completed,
    /// A number that this version does not know.
    Unknown(u32),
}

/// What the driver asks for so that a GPU works again (nvml.h, `nvmlDeviceGpuRecoveryAction_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// A reset of the GPU.
    GpuReset,
    /// A reboot of the node.
    NodeReboot,
    /// An end of all traffic between GPUs, then another look.
    DrainP2p,
    /// No new work, and a reset once the old work has ended.
    DrainAndReset,
    /// A number that this version does not know.
    Unknown(u32),
}
