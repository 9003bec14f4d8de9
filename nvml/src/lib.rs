//! What NVML and CUDA say of the GPUs travels as one JSON document from the helper, which may hang or crash, to the agent, which may not.

mod answer;
mod cuda;
mod division;
#[cfg(feature = "helper")]
pub mod helper;
mod layout;
mod reading;
mod return_code;

use serde::{Deserialize, Serialize};

pub use answer::Answer;
pub use cuda::{CudaCheck, CudaDevice, CudaFailure};
pub use division::{Division, Refusal, RefusalReason};
pub use layout::{MigLayout, counted};
pub use reading::{
    ClockEventReasons, ComputeCapability, Ecc, EccErrors, Fabric, FabricState, Gpu, Mig, MigInstance, Mode, NvLinks, Range,
    Reading, RecoveryAction, RemappedRows,
};
pub use return_code::{Failure, ReturnCode};

/// What the helper prints when it is asked for NVML's view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Printed {
    /// NVML could be asked.
    Reading(Reading),
    /// NVML as a whole did not answer, e.g. because the library and the kernel module are of two versions.
    Failed(Failure),
}
