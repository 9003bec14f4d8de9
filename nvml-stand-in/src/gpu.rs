//! NVML's questions about one GPU (nvml.h, "Device Queries").

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use nvml_wrapper_sys::bindings::*;

use crate::described::{code_of, described, device, handle, number, put, text};

/// Questions whose answer is one number, or two or more numbers, each at its place in the description.
macro_rules! numbers {
    ($($function:ident ( $($answer:ident : $type:ty = $place:expr),+ ))+) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(of: nvmlDevice_t, $($answer: *mut $type),+) -> nvmlReturn_t {
            $(
                let code = unsafe { number(device(of), &$place, $answer) };
                if code != 0 {
                    return code;
                }
            )+
            0
        }
    )+};
}

numbers! {
    nvmlDeviceGetMinorNumber(minor: c_uint = ["minor"])
    nvmlDeviceGetBrand(brand: nvmlBrandType_t = ["brand"])
    nvmlDeviceGetArchitecture(architecture: nvmlDeviceArchitecture_t = ["architecture"])
    nvmlDeviceGetCudaComputeCapability(major: c_int = ["computeCapability", "0"], minor: c_int = ["computeCapability", "1"])
    nvmlDeviceGetMigMode(current: c_uint = ["mig", "0"], pending: c_uint = ["mig", "1"])
    nvmlDeviceGetMaxMigDeviceCount(count: c_uint = ["mostMigInstances"])
    nvmlDeviceGetEccMode(current: nvmlEnableState_t = ["ecc", "0"], pending: nvmlEnableState_t = ["ecc", "1"])
    nvmlDeviceGetRemappedRows(
        correctable: c_uint = ["remappedRows", "0"],
        uncorrectable: c_uint = ["remappedRows", "1"],
        pending: c_uint = ["remappedRows", "2"],
        failure: c_uint = ["remappedRows", "3"]
    )
    nvmlDeviceGetRetiredPagesPendingStatus(pending: nvmlEnableState_t = ["retiredPagesPending"])
    nvmlDeviceGetCurrentClocksEventReasons(reasons: c_ulonglong = ["clockEventReasons"])
    nvmlDeviceGetCurrPcieLinkGeneration(generation: c_uint = ["pcieGeneration", "0"])
    nvmlDeviceGetMaxPcieLinkGeneration(generation: c_uint = ["pcieGeneration", "1"])
    nvmlDeviceGetCurrPcieLinkWidth(width: c_uint = ["pcieWidth", "0"])
    nvmlDeviceGetMaxPcieLinkWidth(width: c_uint = ["pcieWidth", "1"])
    nvmlDeviceGetPowerUsage(milliwatts: c_uint = ["power", "0"])
    nvmlDeviceGetEnforcedPowerLimit(milliwatts: c_uint = ["power", "1"])
    nvmlDeviceGetPersistenceMode(mode: nvmlEnableState_t = ["persistence"])
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut nvmlDevice_t) -> nvmlReturn_t {
    match described()["gpus"].get(index as usize) {
        Some(gpu) => code_of(gpu).unwrap_or_else(|| unsafe { put(to, handle(index, None)) }),
        None => nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    of: nvmlDevice_t,
    place: c_uint,
    to: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let gpu = (of.addr() >> 16).wrapping_sub(1) as u32;
    match device(of)["migInstances"].get(place as usize) {
        // An instance without a compute instance in it is no device.
        Some(instance) if !instance.is_null() && !instance["compute"].is_null() => {
            code_of(instance).unwrap_or_else(|| unsafe { put(to, handle(gpu, Some(place))) })
        }
        _ => nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(of: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { text(device(of), "uuid", uuid, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(of: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { text(device(of), "name", name, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(of: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    // The other fields stay as the caller left them.
    unsafe { text(device(of), "busId", (&raw mut (*pci).busId).cast(), 32) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(of: nvmlDevice_t, memory: *mut nvmlMemory_t) -> nvmlReturn_t {
    unsafe { number(device(of), &["memory"], &raw mut (*memory).total) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    of: nvmlDevice_t,
    _sensor: nvmlTemperatureSensors_t,
    celsius: *mut c_uint,
) -> nvmlReturn_t {
    unsafe { number(device(of), &["temperature"], celsius) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    of: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    if kind != nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED {
        return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
    }
    let place = if counter == nvmlEccCounterType_enum_NVML_VOLATILE_ECC { "0" } else { "1" };
    unsafe { number(device(of), &["eccUncorrected", place], count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    of: nvmlDevice_t,
    link: c_uint,
    is_active: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    let links = device(of)["nvlinks"].as_array();
    match links {
        Some(links) if links.len() <= link as usize => nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
        _ => unsafe { number(device(of), &["nvlinks", &link.to_string()], is_active) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(of: nvmlDevice_t, fabric: *mut nvmlGpuFabricInfoV_t) -> nvmlReturn_t {
    // nvml.h, `nvmlGpuFabricInfo_v2`: 36 bytes, version 2.
    if unsafe { (*fabric).version } != 0x0200_0024 {
        return nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    let code = unsafe { number(device(of), &["fabric", "0"], &raw mut (*fabric).state) };
    if code != 0 {
        return code;
    }
    unsafe { number(device(of), &["fabric", "1"], &raw mut (*fabric).status) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(of: nvmlDevice_t, count: c_int, fields: *mut nvmlFieldValue_t) -> nvmlReturn_t {
    for place in 0..usize::try_from(count).unwrap_or_default() {
        let field = unsafe { &mut *fields.add(place) };
        field.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
        field.nvmlReturn = if field.fieldId == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION {
            unsafe { number(device(of), &["recoveryAction"], &raw mut field.value.uiVal) }
        } else {
            nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED
        };
    }
    nvmlReturn_enum_NVML_SUCCESS
}
