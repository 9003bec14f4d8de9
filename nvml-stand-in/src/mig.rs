//! NVML's MIG mode and profiles (nvml.h, "Multi Instance GPU Management"), with places as a real GPU's are; it cannot show a reset.
//!
//! `migProfiles` of a GPU lists `{"number", "id", "name", "slices", "most", "memory", "size", "starts"}`: number is nvml.h's, memory is in MiB,
//! an absent name is a library that is older than the question, and `called` is what names of devices end in. With `"migReset": true` MIG
//! mode waits for a reset, with `"migBusy": true` something that is no process holds the GPU, with `"migFull": true` no instance can be
//! made. `processes` lists `{"pid", "instance"}`, instance being the id of one.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::*;
use serde_json::{Value, json};

use crate::described::{change, device, gpu_of, put, text};

/// An absent or small number.
pub fn small(value: &Value) -> c_uint {
    value.as_u64().unwrap_or_default() as c_uint
}

/// Whether a GPU is divided now.
pub fn is_on(gpu: &Value) -> bool {
    gpu["mig"][0] == 1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMigMode(of: nvmlDevice_t, mode: c_uint, activation: *mut nvmlReturn_t) -> nvmlReturn_t {
    let gpu = device(of);
    if gpu["mig"].is_null() {
        return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
    }
    let instances = gpu["migInstances"].as_array().is_some_and(|all| all.iter().any(|instance| !instance.is_null()));
    let is_held = gpu["migBusy"] == true || instances || !gpu["processes"].is_null();
    let status = match gpu["mig"][0] == mode {
        true => nvmlReturn_enum_NVML_SUCCESS,
        false if is_held => nvmlReturn_enum_NVML_ERROR_IN_USE,
        false if gpu["migReset"] == true => nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
        false => nvmlReturn_enum_NVML_SUCCESS,
    };
    change(gpu_of(of), |gpu| {
        gpu["mig"][1] = json!(mode);
        if status == nvmlReturn_enum_NVML_SUCCESS {
            gpu["mig"][0] = json!(mode);
        }
    });
    unsafe { put(activation, status) }
}

fn profile(gpu: &'static Value, field: &str, number: c_uint) -> Option<&'static Value> {
    gpu["migProfiles"].as_array()?.iter().find(|profile| profile[field] == number)
}

/// The profile of this id.
pub fn profile_by_id(gpu: &'static Value, id: c_uint) -> Option<&'static Value> {
    profile(gpu, "id", id)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    of: nvmlDevice_t,
    number: c_uint,
    info: *mut nvmlGpuInstanceProfileInfo_t,
) -> nvmlReturn_t {
    if number >= NVML_GPU_INSTANCE_PROFILE_COUNT {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    }
    let Some(profile) = profile(device(of), "number", number) else { return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED };
    let info = unsafe { &mut *info };
    info.id = small(&profile["id"]);
    info.sliceCount = small(&profile["slices"]);
    info.instanceCount = small(&profile["most"]);
    info.memorySizeMB = u64::from(small(&profile["memory"]));
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    of: nvmlDevice_t,
    number: c_uint,
    info: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> nvmlReturn_t {
    let Some(profile) = profile(device(of), "number", number) else { return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED };
    if profile["name"].is_null() {
        return nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND;
    }
    // nvml.h, `nvmlGpuInstanceProfileInfo_v2_t`: 152 bytes, version 2.
    if unsafe { (*info).version } != 0x0200_0098 {
        return nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    unsafe { text(profile, "name", (&raw mut (*info).name).cast::<c_char>(), 96) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    of: nvmlDevice_t,
    id: c_uint,
    placements: *mut nvmlGpuInstancePlacement_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    let Some(profile) = profile_by_id(device(of), id) else { return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT };
    let starts = profile["starts"].as_array().map_or(&[][..], Vec::as_slice);
    if starts.len() > unsafe { *count } as usize {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (place, start) in starts.iter().enumerate() {
        let placement = nvmlGpuInstancePlacement_t { start: small(start), size: small(&profile["size"]) };
        unsafe { placements.add(place).write(placement) };
    }
    unsafe { put(count, starts.len() as c_uint) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    processes: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // Those of an instance are told of the GPU, as NVML does for root.
    let listed = device(of)["processes"].as_array().map_or(&[][..], Vec::as_slice);
    if listed.len() > unsafe { *count } as usize {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (place, process) in listed.iter().enumerate() {
        let instance = process["instance"].as_u64().map_or(c_uint::MAX, |id| id as c_uint);
        let info = nvmlProcessInfo_t {
            pid: small(&process["pid"]),
            usedGpuMemory: 0,
            gpuInstanceId: instance,
            computeInstanceId: c_uint::MAX,
        };
        unsafe { processes.add(place).write(info) };
    }
    unsafe { put(count, listed.len() as c_uint) }
}
