//! NVML's numbers (nvml.h of CUDA 13) in words; an unknown number stays a number.

use crate::{ClockEventReasons, FabricState, RecoveryAction};
use nvml_wrapper_sys::bindings::*;

/// The generation, e.g. `turing`.
pub fn architecture(number: u32) -> Option<String> {
    Some(match number {
        NVML_DEVICE_ARCH_UNKNOWN => return None,
        NVML_DEVICE_ARCH_KEPLER => "kepler".to_owned(),
        NVML_DEVICE_ARCH_MAXWELL => "maxwell".to_owned(),
        NVML_DEVICE_ARCH_PASCAL => "pascal".to_owned(),
        NVML_DEVICE_ARCH_VOLTA => "volta".to_owned(),
        NVML_DEVICE_ARCH_TURING => "turing".to_owned(),
        NVML_DEVICE_ARCH_AMPERE => "ampere".to_owned(),
        NVML_DEVICE_ARCH_ADA => "ada".to_owned(),
        NVML_DEVICE_ARCH_HOPPER => "hopper".to_owned(),
        NVML_DEVICE_ARCH_BLACKWELL => "blackwell".to_owned(),
        other => other.to_string(),
    })
}

/// `nvmlBrandType_t` from 1 on.
const BRANDS: [&str; 16] = [
    "quadro",
    "tesla",
    "nvs",
    "grid",
    "geforce",
    "titan",
    "nvidia vapps",
    "nvidia vpc",
    "nvidia vcs",
    "nvidia vws",
    "nvidia cloud gaming",
    "quadro rtx",
    "nvidia rtx",
    "nvidia",
    "geforce rtx",
    "titan rtx",
];

/// Who it was made for, e.g. `tesla`.
pub fn brand(number: u32) -> Option<String> {
    let index = number.checked_sub(1)?;
    let word = usize::try_from(index).ok().and_then(|index| BRANDS.get(index));
    Some(word.map_or_else(|| number.to_string(), |word| (*word).to_owned()))
}

/// `nvmlClocksEventReason…` from the lowest bit on.
const CLOCK_EVENT_REASONS: [&str; 9] = [
    "idle",
    "applications' clocks setting",
    "software power cap",
    "hardware slowdown",
    "sync boost",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "hardware power brake",
    "display clock setting",
];

/// Why the clocks are not higher.
pub fn clock_event_reasons(mask: u64) -> ClockEventReasons {
    let set = CLOCK_EVENT_REASONS.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
    ClockEventReasons { mask, words: set.map(|(_, word)| (*word).to_owned()).collect() }
}

/// `None` where there is no fabric.
pub fn fabric_state(number: u8) -> Option<FabricState> {
    Some(match u32::from(number) {
        NVML_GPU_FABRIC_STATE_NOT_SUPPORTED => return None,
        NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
        NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
        NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::Completed,
        other => FabricState::Unknown(other),
    })
}

/// What the driver asks for.
pub fn recovery_action(number: u32) -> RecoveryAction {
    #[allow(non_upper_case_globals, reason = "names of nvml.h")]
    match number {
        nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NONE => RecoveryAction::None,
        nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_GPU_RESET => RecoveryAction::GpuReset,
        nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NODE_REBOOT => RecoveryAction::NodeReboot,
        nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_P2P => RecoveryAction::DrainP2p,
        nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET => RecoveryAction::DrainAndReset,
        other => RecoveryAction::Unknown(other),
    }
}

/// NVML writes the PCI domain with eight digits and in capitals (`NVML_DEVICE_PCI_BUS_ID_FMT`), CUDA with four; sysfs has four and small ones.
pub fn address(bus_id: &str) -> String {
    let bus_id = bus_id.to_ascii_lowercase();
    match bus_id.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 && domain.bytes().take(domain.len() - 4).all(|digit| digit == b'0') => {
            format!("{}:{rest}", &domain[domain.len() - 4..])
        }
        _ => bus_id,
    }
}

/// CUDA's version number, `1000 * major + 10 * minor` (nvml.h, `nvmlSystemGetCudaDriverVersion_v2`).
pub fn cuda_version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_sysfs() {
        for (bus_id, expected) in [
            ("00000000:00:1E.0", "0000:00:1e.0"),
            ("0000:3B:00.0", "0000:3b:00.0"),
            ("0000ABCD:00:1E.0", "abcd:00:1e.0"),
            ("00010000:01:00.0", "00010000:01:00.0"),
            ("", ""),
            ("é0000000:1", "é0000000:1"),
        ] {
            assert_eq!(address(bus_id), expected, "{bus_id}");
        }
    }

    #[test]
    fn an_unknown_number_stays_a_number() {
        assert_eq!(
            (architecture(6).as_deref(), architecture(77).as_deref(), architecture(u32::MAX)),
            (Some("turing"), Some("77"), None)
        );
        assert_eq!((brand(2).as_deref(), brand(16).as_deref()), (Some("tesla"), Some("titan rtx")));
        assert_eq!((brand(17).as_deref(), brand(0)), (Some("17"), None));
        assert_eq!((recovery_action(1), recovery_action(9)), (RecoveryAction::GpuReset, RecoveryAction::Unknown(9)));
        assert_eq!(
            (fabric_state(0), fabric_state(3), fabric_state(9)),
            (None, Some(FabricState::Completed), Some(FabricState::Unknown(9)))
        );
        let reasons = clock_event_reasons(0x8000_0000_0000_0048);
        assert_eq!(reasons.words, ["hardware slowdown", "hardware thermal slowdown"]);
        assert_eq!(reasons.mask, 0x8000_0000_0000_0048, "no bit is dropped");
        assert_eq!(
            (cuda_version(12_020), cuda_version(13_010), cuda_version(0)),
            ("12.2".to_owned(), "13.1".to_owned(), "0.0".to_owned())
        );
    }
}
