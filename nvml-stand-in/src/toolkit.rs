//! What NVIDIA's container toolkit asks besides (nvml.h, "Device Queries").

use std::ffi::{CStr, c_char, c_uint};

use nvml_wrapper_sys::bindings::*;

use crate::described::{described, device, handle, put};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut nvmlDevice_t) -> nvmlReturn_t {
    let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
    let gpus = described()["gpus"].as_array();
    let place = gpus.and_then(|gpus| gpus.iter().position(|gpu| gpu["uuid"] == *uuid));
    match place {
        Some(place) => unsafe { put(to, handle(place as u32, None)) },
        None => nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(of: nvmlDevice_t, index: *mut c_uint) -> nvmlReturn_t {
    unsafe { put(index, ((of.addr() >> 16) as c_uint).wrapping_sub(1)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(of: nvmlDevice_t, is_mig: *mut c_uint) -> nvmlReturn_t {
    unsafe { put(is_mig, c_uint::from(of.addr() & 0xffff != 0)) }
}

/// The GPUs have neither displays nor addressing modes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAddressingMode(of: nvmlDevice_t, _mode: *mut nvmlDeviceAddressingMode_t) -> nvmlReturn_t {
    let _ = device(of);
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED
}
