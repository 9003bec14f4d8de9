//! An instance of a GPU is used through a compute instance in it; this agent makes one that spans it.
#![allow(unsafe_code, reason = "the calls of `nvml.rs`")]

use std::ptr;

use crate::{Failure, ReturnCode};
use nvml_wrapper_sys::bindings::*;

use super::nvml::{Nvml, ask};
use super::placement::Placement;
use super::profiles::Profile;

/// More instances of one profile than any GPU has (NVIDIA, MIG User Guide: 7).
const MOST_INSTANCES: usize = 64;

/// More processes than can use one GPU at a time in practice; NVML says so where there are more.
const MOST_PROCESSES: usize = 1024;

/// What NVML gives in place of an instance's id where a process uses the whole GPU.
const WHOLE_GPU: u32 = u32::MAX;

/// An instance of a GPU.
#[derive(Clone, Debug)]
pub struct Instance {
    handle: nvmlGpuInstance_t,
    /// NVML's number of it.
    pub id: u32,
    /// The id of its profile.
    pub profile: u32,
    /// Where it lies.
    pub place: Placement,
    computes: Vec<nvmlComputeInstance_t>,
    /// It has one compute instance, which spans it.
    pub is_whole: bool,
}

/// The instances that there are.
pub fn instances(nvml: &Nvml, device: nvmlDevice_t, profiles: &[Profile]) -> Result<Vec<Instance>, Failure> {
    let mut instances = Vec::new();
    for profile in profiles {
        let mut handles: [nvmlGpuInstance_t; MOST_INSTANCES] = [ptr::null_mut(); MOST_INSTANCES];
        let count =
            ask!(nvml.nvmlDeviceGetGpuInstances(device, profile.id, handles.as_mut_ptr()) -> count: MOST_INSTANCES as u32)?;
        for handle in handles.into_iter().take(count as usize) {
            instances.push(instance(nvml, device, profile, handle)?);
        }
    }
    Ok(instances)
}

fn instance(nvml: &Nvml, device: nvmlDevice_t, profile: &Profile, handle: nvmlGpuInstance_t) -> Result<Instance, Failure> {
    let none = nvmlGpuInstanceInfo_t { device, id: 0, profileId: 0, placement: nvmlGpuInstancePlacement_t { start: 0, size: 0 } };
    let info = ask!(nvml.nvmlGpuInstanceGetInfo(handle) -> info: none)?;
    let (mut computes, mut is_whole) = (Vec::new(), false);
    for compute in compute_profiles(nvml, handle)? {
        let mut handles: [nvmlComputeInstance_t; MOST_INSTANCES] = [ptr::null_mut(); MOST_INSTANCES];
        let count = ask!(nvml.nvmlGpuInstanceGetComputeInstances(handle, compute.id, handles.as_mut_ptr()) -> count: MOST_INSTANCES as u32)?;
        is_whole |= count == 1 && compute.sliceCount == profile.slices;
        computes.extend(handles.into_iter().take(count as usize));
    }
    let is_whole = is_whole && computes.len() == 1;
    Ok(Instance { handle, id: info.id, profile: profile.id, place: info.placement.into(), computes, is_whole })
}

/// The sizes that compute instances in this instance can have.
fn compute_profiles(nvml: &Nvml, instance: nvmlGpuInstance_t) -> Result<Vec<nvmlComputeInstanceProfileInfo_t>, Failure> {
    // nvml.h: the one way in which compute instances share engines is 0, `NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`.
    let engines = 0;
    let none = nvmlComputeInstanceProfileInfo_t {
        id: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        sharedCopyEngineCount: 0,
        sharedDecoderCount: 0,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
    };
    let mut profiles = Vec::new();
    for number in 0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
        match ask!(nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, engines) -> info: none) {
            Ok(info) => profiles.push(info),
            Err(Failure { code: ReturnCode::NOT_SUPPORTED | ReturnCode::INVALID_ARGUMENT, .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(profiles)
}

/// Makes an instance with a compute instance that spans it.
pub fn create(nvml: &Nvml, device: nvmlDevice_t, profile: &Profile, place: Placement) -> Result<(), Failure> {
    let place = nvmlGpuInstancePlacement_t::from(place);
    let instance =
        ask!(nvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile.id, &raw const place) -> instance: ptr::null_mut())?;
    let spanning = compute_profiles(nvml, instance)?.into_iter().filter(|compute| compute.sliceCount == profile.slices);
    let spanning = spanning.max_by_key(|compute| compute.multiprocessorCount);
    let spanning = spanning.ok_or_else(|| nvml.failure(ReturnCode::NOT_SUPPORTED.0))?;
    ask!(nvml.nvmlGpuInstanceCreateComputeInstance(instance, spanning.id) -> compute: ptr::null_mut()).map(|_| ())
}

/// Takes an instance away, with the compute instances in it.
pub fn destroy(nvml: &Nvml, instance: &Instance) -> Result<(), Failure> {
    for compute in &instance.computes {
        match &nvml.library.nvmlComputeInstanceDestroy {
            // SAFETY: the handle comes from this library, and is not used again.
            Ok(destroy) => nvml.checked(unsafe { destroy(*compute) })?,
            Err(_) => return Err(nvml.failure(super::nvml::MISSING)),
        }
    }
    match &nvml.library.nvmlGpuInstanceDestroy {
        // SAFETY: as above.
        Ok(destroy) => nvml.checked(unsafe { destroy(instance.handle) }),
        Err(_) => Err(nvml.failure(super::nvml::MISSING)),
    }
}

/// A process that uses a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub id: u32,
    instance: u32,
}

impl Process {
    /// Whether it uses this instance, as far as is known.
    pub fn uses(self, instance: &Instance) -> bool {
        self.instance == instance.id || self.instance == WHOLE_GPU
    }
}

/// The processes that use the GPU or an instance of it, `places` of which there can be.
pub fn processes(nvml: &Nvml, device: nvmlDevice_t, places: u32) -> Result<Vec<Process>, Failure> {
    let mut processes = of_device(nvml, device)?;
    for place in 0..places.min(MOST_INSTANCES as u32) {
        match ask!(nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place) -> instance: ptr::null_mut()) {
            Ok(instance) => {
                let id = ask!(nvml.nvmlDeviceGetGpuInstanceId(instance) -> id: 0)?;
                let found = of_device(nvml, instance)?;
                processes.extend(found.into_iter().map(|process| Process { instance: id, ..process }));
            }
            Err(Failure { code: ReturnCode::NOT_FOUND, .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(processes)
}

fn of_device(nvml: &Nvml, device: nvmlDevice_t) -> Result<Vec<Process>, Failure> {
    let none = nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
    let mut found = vec![none; MOST_PROCESSES];
    let mut count = MOST_PROCESSES as u32;
    match &nvml.library.nvmlDeviceGetComputeRunningProcesses_v3 {
        // SAFETY: no more are written than the count says there is room for.
        Ok(running) => nvml.checked(unsafe { running(device, &raw mut count, found.as_mut_ptr()) })?,
        Err(_) => return Err(nvml.failure(super::nvml::MISSING)),
    }
    let found = found.into_iter().take(count as usize);
    Ok(found.map(|process| Process { id: process.pid, instance: process.gpuInstanceId }).collect())
}
