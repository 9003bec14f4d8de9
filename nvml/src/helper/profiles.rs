//! A GPU offers profiles: sizes that its instances can have, each with a name, a number of places, and an id for NVML's calls.
#![allow(unsafe_code, reason = "the calls of `nvml.rs`")]

use std::mem;

use crate::{Failure, ReturnCode};
use nvml_wrapper_sys::bindings::*;

use super::nvml::{Nvml, ask, text};
use super::placement::Placement;

/// More profiles than NVML has (nvml.h, `NVML_GPU_INSTANCE_PROFILE_COUNT`: 17 in CUDA 13).
const MOST_PROFILES: u32 = 32;

/// More places than a profile has on any GPU (8 slices of memory).
const MOST_PLACES: usize = 32;

/// A size that instances of a GPU can have.
#[derive(Clone, Debug)]
pub struct Profile {
    /// NVML's id of it on this GPU.
    pub id: u32,
    /// E.g. `1g.10gb+me`.
    pub name: String,
    /// How many the GPU can have at most.
    pub most: u32,
    /// Slices of the GPU's compute.
    pub slices: u32,
    /// Where such an instance can lie; all are of one size.
    pub places: Vec<Placement>,
}

impl Profile {
    /// Slices of memory.
    pub fn size(&self) -> u32 {
        self.places.first().map_or(0, |place| place.size)
    }
}

/// What the GPU offers, whether it is divided already or not.
pub fn profiles(nvml: &Nvml, device: nvmlDevice_t) -> Result<Vec<Profile>, Failure> {
    let mut profiles = Vec::new();
    for number in 0..MOST_PROFILES {
        match profile(nvml, device, number) {
            Ok(profile) => profiles.push(profile),
            Err(Failure { code: ReturnCode::NOT_SUPPORTED | ReturnCode::INVALID_ARGUMENT, .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(profiles)
}

fn profile(nvml: &Nvml, device: nvmlDevice_t, number: u32) -> Result<Profile, Failure> {
    let none = nvmlGpuInstanceProfileInfo_t {
        id: 0,
        isP2pSupported: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        copyEngineCount: 0,
        decoderCount: 0,
        encoderCount: 0,
        jpegCount: 0,
        ofaCount: 0,
        memorySizeMB: 0,
    };
    let info = ask!(nvml.nvmlDeviceGetGpuInstanceProfileInfo(device, number) -> info: none)?;
    let name = match name(nvml, device, number) {
        Ok(name) if !name.is_empty() => name,
        Ok(_) | Err(Failure { code: ReturnCode::FUNCTION_NOT_FOUND, .. }) => {
            let none = nvmlMemory_t { total: 0, free: 0, used: 0 };
            let memory = ask!(nvml.nvmlDeviceGetMemoryInfo(device) -> memory: none)?;
            derived_name(number, info.sliceCount, info.memorySizeMB, memory.total)
        }
        Err(failure) => return Err(failure),
    };
    let places = places(nvml, device, info.id)?;
    Ok(Profile { id: info.id, name, most: info.instanceCount, slices: info.sliceCount, places })
}

/// NVML's own name; a library before CUDA 11.5 has no such question.
fn name(nvml: &Nvml, device: nvmlDevice_t, number: u32) -> Result<String, Failure> {
    let none = nvmlGpuInstanceProfileInfo_v2_t {
        // nvml.h, `NVML_STRUCT_VERSION`: the size, and the version in the highest byte.
        version: mem::size_of::<nvmlGpuInstanceProfileInfo_v2_t>() as u32 | 2 << 24,
        id: 0,
        isP2pSupported: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        copyEngineCount: 0,
        decoderCount: 0,
        encoderCount: 0,
        jpegCount: 0,
        ofaCount: 0,
        memorySizeMB: 0,
        name: [0; 96],
    };
    let info = ask!(nvml.nvmlDeviceGetGpuInstanceProfileInfoV(device, number) -> info: none)?;
    let name = text(&info.name);
    Ok(name.rsplit_once("MIG ").map_or(name.as_str(), |(_, name)| name).to_owned())
}

/// As NVIDIA's go-nvlib makes it (`pkg/nvlib/device/mig_profile.go`): the memory is the profile's eighths of the GPU's whole GiB.
fn derived_name(number: u32, slices: u32, profile_mebibytes: u64, gpu_bytes: u64) -> String {
    let eighths = (u128::from(profile_mebibytes) << 23).div_ceil(u128::from(gpu_bytes.max(1)));
    let gigabytes = (eighths * u128::from(gpu_bytes.div_ceil(1 << 30)) + 4) / 8;
    let attribute = match number {
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1 | NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1 => "+me",
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME | NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME => "+me.all",
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX | NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX | NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX => {
            "+gfx"
        }
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME | NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME => "-me",
        _ => "",
    };
    format!("{slices}g.{gigabytes}gb{attribute}")
}

/// Where instances of this profile can lie, whatever lies there now.
fn places(nvml: &Nvml, device: nvmlDevice_t, id: u32) -> Result<Vec<Placement>, Failure> {
    let mut places = [nvmlGpuInstancePlacement_t { start: 0, size: 0 }; MOST_PLACES];
    let count = ask!(nvml.nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, places.as_mut_ptr())
        -> count: MOST_PLACES as u32)?;
    Ok(places.into_iter().take(count as usize).map(Placement::from).collect())
}

#[cfg(test)]
mod tests {
    use super::derived_name;

    /// Sizes as `nvidia-smi mig -lgip` lists them.
    #[test]
    fn a_name_is_made_of_slices_and_rounded_memory() {
        let (a100, h100) = (42_505_273_344, 85_520_809_984);
        for (number, slices, mebibytes, gpu, name) in [
            (0, 1, 4_864, a100, "1g.5gb"),
            (7, 1, 4_864, a100, "1g.5gb+me"),
            (9, 1, 9_856, a100, "1g.10gb"),
            (1, 2, 9_856, a100, "2g.10gb"),
            (2, 3, 19_968, a100, "3g.20gb"),
            (4, 7, 40_192, a100, "7g.40gb"),
            (0, 1, 9_728, h100, "1g.10gb"),
            (2, 3, 40_192, h100, "3g.40gb"),
            (15, 1, 9_728, h100, "1g.10gb+me.all"),
            (13, 1, 9_728, h100, "1g.10gb-me"),
        ] {
            assert_eq!(derived_name(number, slices, mebibytes, gpu), name);
        }
        assert_eq!(derived_name(0, 1, 0, 0), "1g.0gb", "nonsense is no crash");
    }
}
