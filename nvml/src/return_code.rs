//! NVML answers every call with a number, whose meaning never changes (nvml.h, `nvmlReturn_t`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a call of NVML came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReturnCode(pub u32);

/// The names of the numbers from 0 on, without their `NVML_` (nvml.h of CUDA 13).
const NAMES: [&str; 31] = [
    "SUCCESS",
    "ERROR_UNINITIALIZED",
    "ERROR_INVALID_ARGUMENT",
    "ERROR_NOT_SUPPORTED",
    "ERROR_NO_PERMISSION",
    "ERROR_ALREADY_INITIALIZED",
    "ERROR_NOT_FOUND",
    "ERROR_INSUFFICIENT_SIZE",
    "ERROR_INSUFFICIENT_POWER",
    "ERROR_DRIVER_NOT_LOADED",
    "ERROR_TIMEOUT",
    "ERROR_IRQ_ISSUE",
    "ERROR_LIBRARY_NOT_FOUND",
    "ERROR_FUNCTION_NOT_FOUND",
    "ERROR_CORRUPTED_INFOROM",
    "ERROR_GPU_IS_LOST",
    "ERROR_RESET_REQUIRED",
    "ERROR_OPERATING_SYSTEM",
    "ERROR_LIB_RM_VERSION_MISMATCH",
    "ERROR_IN_USE",
    "ERROR_MEMORY",
    "ERROR_NO_DATA",
    "ERROR_VGPU_ECC_NOT_SUPPORTED",
    "ERROR_INSUFFICIENT_RESOURCES",
    "ERROR_FREQ_NOT_SUPPORTED",
    "ERROR_ARGUMENT_VERSION_MISMATCH",
    "ERROR_DEPRECATED",
    "ERROR_NOT_READY",
    "ERROR_GPU_NOT_FOUND",
    "ERROR_INVALID_STATE",
    "ERROR_RESET_TYPE_NOT_SUPPORTED",
];

impl ReturnCode {
    /// The call did what it was to do.
    pub const SUCCESS: Self = Self(0);
    /// An argument is none that there can be.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// The GPU, or the driver's version, has no such thing.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// There is no such thing here.
    pub const NOT_FOUND: Self = Self(6);
    /// The kernel module is not loaded.
    pub const DRIVER_NOT_LOADED: Self = Self(9);
    /// libnvidia-ml.so.1 cannot be loaded.
    pub const LIBRARY_NOT_FOUND: Self = Self(12);
    /// The library is older than the question.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The InfoROM is corrupted.
    pub const CORRUPTED_INFOROM: Self = Self(14);
    /// The GPU has fallen off the bus.
    pub const GPU_IS_LOST: Self = Self(15);
    /// The GPU must be reset before it is used again.
    pub const RESET_REQUIRED: Self = Self(16);
    /// The library and the kernel module are of two versions.
    pub const LIB_RM_VERSION_MISMATCH: Self = Self(18);
    /// Somebody uses it.
    pub const IN_USE: Self = Self(19);
    /// There is no room for it.
    pub const INSUFFICIENT_RESOURCES: Self = Self(23);
    /// NVML itself does not know.
    pub const UNKNOWN: Self = Self(999);

    /// As in nvml.h, e.g. `NVML_ERROR_GPU_IS_LOST`; `None` where this version does not know the number.
    pub fn name(self) -> Option<String> {
        let known = usize::try_from(self.0).ok().and_then(|index| NAMES.get(index)).copied();
        known.or((self == Self::UNKNOWN).then_some("ERROR_UNKNOWN")).map(|name| format!("NVML_{name}"))
    }
}

/// `NVML_ERROR_GPU_IS_LOST (15)`
impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "NVML's return code {}", self.0),
        }
    }
}

/// Why NVML did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The number.
    pub code: ReturnCode,
    /// Its name in nvml.h, where it is known.
    pub name: Option<String>,
    /// What the library says of it, or why there is no library.
    pub text: String,
}

impl Failure {
    /// A failure of this number.
    pub fn new(code: ReturnCode, text: impl Into<String>) -> Self {
        Self { code, name: code.name(), text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_code_is_said_by_name_and_number() {
        for (code, said) in [
            (ReturnCode::DRIVER_NOT_LOADED, "NVML_ERROR_DRIVER_NOT_LOADED (9)"),
            (ReturnCode::GPU_IS_LOST, "NVML_ERROR_GPU_IS_LOST (15)"),
            (ReturnCode::LIB_RM_VERSION_MISMATCH, "NVML_ERROR_LIB_RM_VERSION_MISMATCH (18)"),
            (ReturnCode(30), "NVML_ERROR_RESET_TYPE_NOT_SUPPORTED (30)"),
            (ReturnCode::UNKNOWN, "NVML_ERROR_UNKNOWN (999)"),
            (ReturnCode(31), "NVML's return code 31"),
            (ReturnCode(u32::MAX), "NVML's return code 4294967295"),
        ] {
            assert_eq!(code.to_string(), said);
        }
    }
}
