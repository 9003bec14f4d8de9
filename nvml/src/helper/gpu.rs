//! Every value of a GPU is asked for by itself: one that fails says nothing of the others.
#![allow(unsafe_code, reason = "the calls of `nvml.rs`, and one union that NVML answers with")]

use std::mem;

use crate::{ComputeCapability, EccErrors, Fabric, Failure, Gpu, Mode, NvLinks, Range, RecoveryAction, RemappedRows, ReturnCode};
use nvml_wrapper_sys::bindings::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use nvml_wrapper_sys::bindings::*;

use super::nvml::{Nvml, answer, ask, ask_text, text};
use super::{mig, words};

/// The GPU of this index; an error when it cannot be spoken to at all.
pub fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, Failure> {
    let device = ask!(nvml.nvmlDeviceGetHandleByIndex_v2(index) -> device: std::ptr::null_mut())?;
    let memory: nvmlMemory_t = nvmlMemory_t { total: 0, free: 0, used: 0 };
    Ok(Gpu {
        index,
        address: answer(address(nvml, device)),
        minor: answer(ask!(nvml.nvmlDeviceGetMinorNumber(device) -> minor: 0)),
        uuid: answer(ask_text!(nvml.nvmlDeviceGetUUID(device), 96)),
        name: answer(ask_text!(nvml.nvmlDeviceGetName(device), 96)),
        brand: optional(ask!(nvml.nvmlDeviceGetBrand(device) -> brand: 0).map(words::brand)),
        architecture: optional(ask!(nvml.nvmlDeviceGetArchitecture(device) -> number: 0).map(words::architecture)),
        compute_capability: answer(
            ask!(nvml.nvmlDeviceGetCudaComputeCapability(device) -> major: 0, minor: 0)
                .map(|(major, minor)| ComputeCapability { major: major.cast_unsigned(), minor: minor.cast_unsigned() }),
        ),
        memory: answer(ask!(nvml.nvmlDeviceGetMemoryInfo(device) -> memory: memory).map(|memory| memory.total)),
        mig: answer(mig::mig(nvml, device)),
        ecc: answer(ask!(nvml.nvmlDeviceGetEccMode(device) -> current: 0, pending: 0).map(mode)),
        ecc_uncorrected: answer(ecc_errors(nvml, device)),
        remapped_rows: answer(remapped_rows(nvml, device)),
        retired_pages_pending: answer(
            ask!(nvml.nvmlDeviceGetRetiredPagesPendingStatus(device) -> pending: 0).map(|pending| pending != 0),
        ),
        clock_event_reasons: answer(clock_event_reasons(nvml, device)),
        pcie_generation: answer(range(
            ask!(nvml.nvmlDeviceGetCurrPcieLinkGeneration(device) -> current: 0),
            ask!(nvml.nvmlDeviceGetMaxPcieLinkGeneration(device) -> max: 0),
        )),
        pcie_width: answer(range(
            ask!(nvml.nvmlDeviceGetCurrPcieLinkWidth(device) -> current: 0),
            ask!(nvml.nvmlDeviceGetMaxPcieLinkWidth(device) -> max: 0),
        )),
        power_draw: answer(ask!(nvml.nvmlDeviceGetPowerUsage(device) -> power: 0)),
        power_limit: answer(ask!(nvml.nvmlDeviceGetEnforcedPowerLimit(device) -> limit: 0)),
        temperature: answer(
            ask!(nvml.nvmlDeviceGetTemperature(device, nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU) -> temperature: 0),
        ),
        persistence: answer(ask!(nvml.nvmlDeviceGetPersistenceMode(device) -> mode: 0).map(|mode| mode != 0)),
        nvlinks: answer(nvlinks(nvml, device)),
        fabric: optional(fabric(nvml, device)),
        recovery_action: answer(recovery_action(nvml, device)),
    })
}

/// An answer that may mean that there is no such thing.
fn optional<T>(result: Result<Option<T>, Failure>) -> crate::Answer<T> {
    crate::Answer(answer(result).0.map(Option::flatten))
}

/// NVML's pair of switches.
pub fn mode((current, pending): (u32, u32)) -> Mode {
    Mode { current: current != 0, pending: pending != 0 }
}

fn range(current: Result<u32, Failure>, max: Result<u32, Failure>) -> Result<Range, Failure> {
    Ok(Range { current: current?, max: max? })
}

fn address(nvml: &Nvml, device: nvmlDevice_t) -> Result<String, Failure> {
    let initial =
        nvmlPciInfo_t { busIdLegacy: [0; 16], domain: 0, bus: 0, device: 0, pciDeviceId: 0, pciSubSystemId: 0, busId: [0; 32] };
    ask!(nvml.nvmlDeviceGetPciInfo_v3(device) -> pci: initial).map(|pci| words::address(&text(&pci.busId)))
}

fn ecc_errors(nvml: &Nvml, device: nvmlDevice_t) -> Result<EccErrors, Failure> {
    let uncorrected = nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
    let errors = |counter| ask!(nvml.nvmlDeviceGetTotalEccErrors(device, uncorrected, counter) -> errors: 0);
    let volatile = errors(nvmlEccCounterType_enum_NVML_VOLATILE_ECC)?;
    Ok(EccErrors { volatile, aggregate: errors(nvmlEccCounterType_enum_NVML_AGGREGATE_ECC)? })
}

fn remapped_rows(nvml: &Nvml, device: nvmlDevice_t) -> Result<RemappedRows, Failure> {
    let (correctable, uncorrectable, pending, failure) =
        ask!(nvml.nvmlDeviceGetRemappedRows(device) -> correctable: 0, uncorrectable: 0, pending: 0, failure: 0)?;
    Ok(RemappedRows { correctable, uncorrectable, pending: pending != 0, failure: failure != 0 })
}

/// The call got its present name with 535; the old one goes on to work.
fn clock_event_reasons(nvml: &Nvml, device: nvmlDevice_t) -> Result<crate::ClockEventReasons, Failure> {
    let mask = match &nvml.library.nvmlDeviceGetCurrentClocksEventReasons {
        Ok(_) => ask!(nvml.nvmlDeviceGetCurrentClocksEventReasons(device) -> mask: 0),
        Err(_) => ask!(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device) -> mask: 0),
    };
    mask.map(words::clock_event_reasons)
}

/// A GPU with fewer links than there can be calls the number of the first further one an invalid argument.
fn nvlinks(nvml: &Nvml, device: nvmlDevice_t) -> Result<NvLinks, Failure> {
    let mut links = NvLinks { count: 0, active: 0 };
    for link in 0..NVML_NVLINK_MAX_LINKS {
        match ask!(nvml.nvmlDeviceGetNvLinkState(device, link) -> active: 0) {
            Ok(active) => {
                links.count += 1;
                links.active += u32::from(active == nvmlEnableState_enum_NVML_FEATURE_ENABLED);
            }
            Err(failure) if link == 0 => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(links)
}

/// Drivers before 545 have the question without a version only.
fn fabric(nvml: &Nvml, device: nvmlDevice_t) -> Result<Option<Fabric>, Failure> {
    let (state, status) = if nvml.library.nvmlDeviceGetGpuFabricInfoV.is_ok() {
        // nvml.h, `NVML_STRUCT_VERSION`: the size, and the version in the highest byte. The third version only adds to the second one.
        let version = mem::size_of::<nvmlGpuFabricInfo_v2_t>() as u32 | 2 << 24;
        let none = nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        let fabric = ask!(nvml.nvmlDeviceGetGpuFabricInfoV(device) -> fabric: none)?;
        (fabric.state, fabric.status)
    } else {
        let none = nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
        let fabric = ask!(nvml.nvmlDeviceGetGpuFabricInfo(device) -> fabric: none)?;
        (fabric.state, fabric.status)
    };
    let is_complete = u32::from(state) == NVML_GPU_FABRIC_STATE_COMPLETED;
    let failure = if is_complete { nvml.checked(status).err() } else { None };
    Ok(words::fabric_state(state).map(|state| Fabric { state, failure }))
}

/// A driver that is older than the field calls it unsupported or an invalid argument.
fn recovery_action(nvml: &Nvml, device: nvmlDevice_t) -> Result<RecoveryAction, Failure> {
    let field = nvmlFieldValue_t {
        fieldId: NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        scopeId: 0,
        timestamp: 0,
        latencyUsec: 0,
        valueType: 0,
        nvmlReturn: ReturnCode::NOT_SUPPORTED.0,
        value: nvmlValue_t { ullVal: 0 },
    };
    let field = ask!(nvml.nvmlDeviceGetFieldValues(device, 1) -> field: field)?;
    if field.nvmlReturn == nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT {
        return Err(nvml.failure(ReturnCode::NOT_SUPPORTED.0));
    }
    nvml.checked(field.nvmlReturn)?;
    // SAFETY: every bit pattern of the union is an integer of each of its sizes.
    Ok(words::recovery_action(unsafe { field.value.uiVal }))
}
