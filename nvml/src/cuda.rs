//! Only a program that computes shows that a GPU computes: memory is taken, written, read back and compared on every device.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the helper prints when it is asked for the CUDA check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CudaCheck {
    /// Each device in CUDA's order.
    Devices(Vec<CudaDevice>),
    /// CUDA as a whole does not work, e.g. because the fabric manager is not there.
    Failed(CudaFailure),
}

/// One device as CUDA sees it. With MIG it is an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CudaDevice {
    /// CUDA's number of it.
    pub ordinal: u32,
    /// PCI address as in sysfs, e.g. `0000:00:1e.0`.
    pub address: Option<String>,
    /// What stood in the way; `None` when what was written was read back unchanged.
    pub failure: Option<CudaFailure>,
}

/// The first call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CudaFailure {
    /// What was being done, e.g. `cuInit`, `comparing what was read back`.
    pub doing: String,
    /// CUDA's number (cuda.h, `CUresult`); `None` where no call of CUDA's failed.
    pub code: Option<u32>,
    /// CUDA's name for the number, or why there is none.
    pub text: String,
}

impl fmt::Display for CudaFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}: {} ({code})", self.doing, self.text),
            None => write!(f, "{}: {}", self.doing, self.text),
        }
    }
}

impl std::error::Error for CudaFailure {}
