//! Stands for the instances of a divided GPU (nvml.h, "Multi Instance GPU Management"); it cannot show what a program in one sees.
//!
//! `migInstances` of a GPU has at each place `null` or `{"uuid", "name", "id", "profile", "start", "size", "compute"}`: profile is the id of
//! one in `migProfiles`, compute the number of slices of the one compute instance, absent where there is none.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;
use serde_json::{Value, json};

use crate::described::{change, described, device, gpu_of, put};
use crate::mig::{is_on, profile_by_id, small};

/// An instance's handle, and its compute instance's: the GPU's and the place, both from 1 on, and a bit that tells them apart.
fn handle<T>(gpu: usize, place: usize, bit: usize) -> *mut T {
    std::ptr::without_provenance_mut((gpu + 1) << 16 | bit | (place + 1))
}

const INSTANCE: usize = 0x4000;
const COMPUTE: usize = 0x8000;

fn place_of<T>(handle: *mut T) -> usize {
    (handle.addr() & 0x0fff).wrapping_sub(1)
}

fn instance_of<T>(handle: *mut T) -> &'static Value {
    &described()["gpus"][gpu_of(handle)]["migInstances"][place_of(handle)]
}

fn all(gpu: &'static Value) -> &'static [Value] {
    gpu["migInstances"].as_array().map_or(&[][..], Vec::as_slice)
}

fn is_used(gpu: &Value, instance: &Value) -> bool {
    gpu["processes"].as_array().is_some_and(|all| all.iter().any(|process| process["instance"] == instance["id"]))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    of: nvmlDevice_t,
    profile: c_uint,
    to: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    let of_profile = all(device(of)).iter().enumerate().filter(|(_, instance)| instance["profile"] == profile);
    let mut found = 0;
    for (place, _) in of_profile {
        unsafe { to.add(found).write(handle(gpu_of(of), place, INSTANCE)) };
        found += 1;
    }
    unsafe { put(count, found as c_uint) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetInfo(of: nvmlGpuInstance_t, info: *mut nvmlGpuInstanceInfo_t) -> nvmlReturn_t {
    let instance = instance_of(of);
    let info = unsafe { &mut *info };
    info.id = small(&instance["id"]);
    info.profileId = small(&instance["profile"]);
    info.placement = nvmlGpuInstancePlacement_t { start: small(&instance["start"]), size: small(&instance["size"]) };
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(of: nvmlDevice_t, id: *mut c_uint) -> nvmlReturn_t {
    unsafe { put(id, small(&device(of)["id"])) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    of: nvmlDevice_t,
    id: c_uint,
    placement: *const nvmlGpuInstancePlacement_t,
    to: *mut nvmlGpuInstance_t,
) -> nvmlReturn_t {
    let gpu = device(of);
    let (start, size) = unsafe { ((*placement).start, (*placement).size) };
    let Some(profile) = profile_by_id(gpu, id).filter(|_| is_on(gpu)) else { return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED };
    let is_place = profile["starts"].as_array().is_some_and(|starts| starts.iter().any(|known| *known == start));
    if !is_place || profile["size"] != size {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    }
    let instances = all(gpu).iter().filter(|instance| !instance.is_null());
    let meets = |other: &Value| {
        let (other_start, other_size) = (small(&other["start"]), small(&other["size"]));
        start < other_start + other_size && other_start < start + size
    };
    let alike = instances.clone().filter(|instance| instance["profile"] == id).count();
    if gpu["migFull"] == true || alike >= small(&profile["most"]) as usize || instances.clone().any(meets) {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES;
    }
    let number = instances.map(|instance| small(&instance["id"])).max().unwrap_or_default() + 1;
    let place = all(gpu).iter().position(Value::is_null).unwrap_or(all(gpu).len());
    change(gpu_of(of), |gpu| {
        let instance = json!({"id": number, "profile": id, "start": start, "size": size});
        if gpu["migInstances"].is_null() {
            gpu["migInstances"] = json!([]);
        }
        if let Some(all) = gpu["migInstances"].as_array_mut() {
            all.resize((place + 1).max(all.len()), Value::Null);
            all[place] = instance;
        }
    });
    unsafe { put(to, handle(gpu_of(of), place, INSTANCE)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceDestroy(of: nvmlGpuInstance_t) -> nvmlReturn_t {
    if !instance_of(of)["compute"].is_null() {
        return nvmlReturn_enum_NVML_ERROR_IN_USE;
    }
    change(gpu_of(of), |gpu| gpu["migInstances"][place_of(of)] = Value::Null);
    nvmlReturn_enum_NVML_SUCCESS
}

/// The slices of the instance's profile.
fn slices_of<T>(of: *mut T) -> c_uint {
    let gpu = &described()["gpus"][gpu_of(of)];
    profile_by_id(gpu, small(&instance_of(of)["profile"])).map_or(0, |profile| small(&profile["slices"]))
}

/// nvml.h, `NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE` and those after it.
const COMPUTE_SLICES: [c_uint; 7] = [1, 2, 3, 4, 7, 8, 6];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    of: nvmlGpuInstance_t,
    number: c_uint,
    _engines: c_uint,
    info: *mut nvmlComputeInstanceProfileInfo_t,
) -> nvmlReturn_t {
    let slices = COMPUTE_SLICES.get(number as usize).copied().filter(|slices| *slices <= slices_of(of));
    let Some(slices) = slices else { return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED };
    let info = unsafe { &mut *info };
    (info.id, info.sliceCount, info.multiprocessorCount) = (number, slices, 16 * slices);
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstances(
    of: nvmlGpuInstance_t,
    id: c_uint,
    to: *mut nvmlComputeInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    let is_there = COMPUTE_SLICES.get(id as usize).is_some_and(|slices| instance_of(of)["compute"] == *slices);
    if is_there {
        unsafe { to.write(handle(gpu_of(of), place_of(of), COMPUTE)) };
    }
    unsafe { put(count, c_uint::from(is_there)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    of: nvmlGpuInstance_t,
    id: c_uint,
    to: *mut nvmlComputeInstance_t,
) -> nvmlReturn_t {
    let Some(slices) = COMPUTE_SLICES.get(id as usize) else { return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT };
    let (gpu, place) = (&described()["gpus"][gpu_of(of)], place_of(of));
    let name = gpu["name"].as_str().unwrap_or_default();
    let profile = profile_by_id(gpu, small(&instance_of(of)["profile"]));
    let profile = profile.and_then(|profile| profile["called"].as_str().or(profile["name"].as_str())).unwrap_or_default();
    let (gpu_number, id, start) = (gpu_of(of), small(&instance_of(of)["id"]), small(&instance_of(of)["start"]));
    change(gpu_number, |gpu| {
        let instance = &mut gpu["migInstances"][place];
        instance["compute"] = json!(slices);
        instance["name"] = json!(format!("{name} MIG {profile}"));
        instance["uuid"] = json!(format!("MIG-{gpu_number:08x}-{id:04x}-5000-8000-{start:012x}"));
    });
    unsafe { put(to, handle(gpu_number, place, COMPUTE)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlComputeInstanceDestroy(of: nvmlComputeInstance_t) -> nvmlReturn_t {
    let gpu = &described()["gpus"][gpu_of(of)];
    if gpu["migBusy"] == true || is_used(gpu, instance_of(of)) {
        return nvmlReturn_enum_NVML_ERROR_IN_USE;
    }
    change(gpu_of(of), |gpu| gpu["migInstances"][place_of(of)]["compute"] = Value::Null);
    nvmlReturn_enum_NVML_SUCCESS
}
