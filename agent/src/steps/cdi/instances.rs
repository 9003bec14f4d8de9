//! Each instance of a divided GPU is a device of its own in a specification, which must be made anew when GPUs are divided anew.
//!
//! Names as nvidia-ctk gives them (NVIDIA container toolkit, `nvidia-ctk cdi generate --device-name-strategy`): `0:1`, `mig0:1` or the UUID.

use anyhow::Result;
use gpuk_nvml::{Gpu, Mig, Reading};

use super::spec::Spec;
use crate::steps::gpus::told;

/// Where an instance's own device nodes are: without them a container is given the whole GPU's node, which is of no use to it (NVIDIA, MIG
/// User Guide, "Device Nodes and Capabilities").
const NODES: &str = "/dev/nvidia-caps/";

/// An instance, by all the names that it can have.
struct Instance([Option<String>; 3]);

impl Instance {
    fn is_called(&self, name: &str) -> bool {
        self.0.iter().flatten().any(|own| own == name)
    }
}

/// The GPUs that are divided, with how.
fn divided(reading: &Reading) -> Result<Vec<(&Gpu, &Mig)>> {
    let mut divided = Vec::new();
    for gpu in &reading.gpus {
        let Some(gpu) = told("what a GPU is", gpu)? else { continue };
        divided.extend(told("how a GPU is divided", &gpu.mig)?.filter(|mig| mig.mode.current).map(|mig| (gpu, mig)));
    }
    Ok(divided)
}

/// How many GPUs are divided, and into how many instances.
pub fn count(reading: &Reading) -> Result<(u64, u64)> {
    let divided = divided(reading)?;
    let instances: usize = divided.iter().map(|(_, mig)| mig.instances.len()).sum();
    Ok((divided.len() as u64, instances as u64))
}

/// The numbers N of `/dev/nvidiaN` of GPUs in MIG mode without an instance: there is nothing of them to be given.
pub fn of_empty_gpus(reading: &Reading) -> Result<Vec<u32>> {
    let divided = divided(reading)?;
    Ok(divided
        .into_iter()
        .filter(|(_, mig)| mig.instances.is_empty())
        .filter_map(|(gpu, _)| gpu.minor.value().copied())
        .collect())
}

/// The first instance that is not in it as it should be, or that is in it and gone.
pub fn wrong(spec: &Spec, reading: &Reading) -> Result<Option<String>> {
    let mut present = Vec::new();
    for (gpu, mig) in divided(reading)? {
        for instance in &mig.instances {
            let Some(instance) = told("what an instance is", instance)? else { continue };
            let place = format!("{}:{}", gpu.index, instance.index);
            let uuid = told("the UUID of an instance", &instance.uuid)?.cloned();
            present.push(Instance([uuid, Some(format!("mig{place}")), Some(place)]));
        }
    }
    for instance in &present {
        let name = instance.0.iter().flatten().last().map_or("", String::as_str);
        let mut devices = spec.devices.iter().filter(|device| instance.is_called(&device.name)).peekable();
        if devices.peek().is_none() {
            return Ok(Some(format!("MIG instance {name} is not in it")));
        }
        if devices.any(|device| !device.has_node_in(NODES)) {
            return Ok(Some(format!("MIG instance {name} is in it without its nodes in {NODES}")));
        }
    }
    let gone = spec.devices.iter().map(|device| device.name.as_str());
    let mut gone = gone.filter(|name| is_of_instance(name) && !present.iter().any(|instance| instance.is_called(name)));
    Ok(gone.next().map(|name| format!("{name} is in it, and there is no such MIG instance")))
}

fn is_of_instance(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let place = name.strip_prefix("mig").unwrap_or(name);
    name.starts_with("MIG-") || place.split_once(':').is_some_and(|(gpu, instance)| is_number(gpu) && is_number(instance))
}
