//! GPU Feature Discovery has a rule for each of its labels (`internal/lm` of NVIDIA/k8s-device-plugin); these are the same.
//!
//! Left to it are how GPUs are shared and divided (`gpu.replicas`, `mig.strategy`, `mig-...`): the device plugin's configuration decides
//! that, and a node does not know it. A divided GPU is described as a whole, as there with the strategy `none`.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use gpuk_nvml::{ComputeCapability, Gpu, Reading};

use crate::config::label_value;
use crate::look::Look;
use crate::steps::gpus::told;

/// What the GPUs are called.
pub const PRODUCT: &str = "nvidia.com/gpu.product";

const UNKNOWN: &str = "unknown";

/// The labels of a node whose GPUs NVML describes so. What NVML has no answer for has no label.
pub fn of_gpus(look: Look<'_>, reading: &Reading) -> Result<BTreeMap<String, String>> {
    let gpus = reading.gpus.iter().map(|gpu| told("what a GPU is", gpu)).collect::<Result<Vec<_>>>()?;
    let gpus: Vec<&Gpu> = gpus.into_iter().flatten().collect();
    let mut labels = BTreeMap::new();
    if gpus.is_empty() {
        return Ok(labels);
    }
    let mut add = |name: &str, value: String| labels.insert(format!("nvidia.com/{name}"), value);
    if let Some(Kind { name, gpu, count }) = most_frequent(&gpus)? {
        if let Some(product) = sanitised(name) {
            add("gpu.product", product);
        }
        add("gpu.count", count.to_string());
        // One that shares the memory of its processor has none of its own.
        if let Some(memory @ 1..) = told("how much memory a GPU has", &gpu.memory)?.map(|bytes| bytes / MEBIBYTE) {
            add("gpu.memory", memory.to_string());
        }
        if let Some(capability) = told("what code a GPU runs", &gpu.compute_capability)? {
            add("gpu.family", family(*capability).to_owned());
            add("gpu.compute.major", capability.major.to_string());
            add("gpu.compute.minor", capability.minor.to_string());
        }
    }
    let machine = look.facts.dmi.product_name.as_deref().and_then(sanitised);
    add("gpu.machine", machine.unwrap_or_else(|| UNKNOWN.to_owned()));
    add("gpu.mode", mode(look, &gpus)?.to_owned());
    let divisible = gpus.iter().map(|gpu| told("how a GPU is divided", &gpu.mig)).collect::<Result<Vec<_>>>()?;
    add("mig.capable", divisible.iter().any(Option::is_some).to_string());
    if let Some(version) = told("the driver's version", &reading.driver)? {
        let parts: Vec<&str> = version.split('.').collect();
        ensure!((2..=3).contains(&parts.len()), "the driver's version {version:?} is not of the form X.Y or X.Y.Z");
        let names = ["major", "minor", "revision"];
        for (position, name) in names.into_iter().enumerate() {
            add(&format!("cuda.driver-version.{name}"), parts.get(position).copied().unwrap_or_default().to_owned());
        }
        add("cuda.driver-version.full", version.clone());
    }
    if let Some(version) = told("the newest CUDA version", &reading.cuda)?
        && let Some((major, minor)) = version.split_once('.')
    {
        add("cuda.runtime-version.major", major.to_owned());
        add("cuda.runtime-version.minor", minor.to_owned());
        add("cuda.runtime-version.full", version.clone());
    }
    Ok(labels)
}

const MEBIBYTE: u64 = 1024 * 1024;

/// GPUs of one name.
struct Kind<'a> {
    name: &'a str,
    /// The first of them.
    gpu: &'a Gpu,
    count: usize,
}

/// Labels have room for one kind, and Feature Discovery takes any. Here it is the one of most GPUs, of equally many the first in NVML's
/// order, so that it stays the same from look to look.
fn most_frequent<'a>(gpus: &[&'a Gpu]) -> Result<Option<Kind<'a>>> {
    let mut kinds: Vec<Kind<'a>> = Vec::new();
    for gpu in gpus {
        let Some(name) = told("a GPU's name", &gpu.name)? else { continue };
        match kinds.iter_mut().find(|kind| kind.name == name) {
            Some(kind) => kind.count += 1,
            None => kinds.push(Kind { name, gpu, count: 1 }),
        }
    }
    // `max_by_key` takes the last of several greatest ones.
    Ok(kinds.into_iter().rev().max_by_key(|kind| kind.count))
}

/// Other characters than `A-Za-z0-9-_. ` are dropped, and one hyphen stands for all blanks in a row. Where that is no value of a label
/// yet, Feature Discovery would have none.
fn sanitised(text: &str) -> Option<String> {
    let kept = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ' ');
    let text: String = text.chars().filter(kept).collect();
    label_value(&text.split_whitespace().collect::<Vec<_>>().join("-"))
}

/// The generation in Feature Discovery's words.
fn family(capability: ComputeCapability) -> &'static str {
    match (capability.major, capability.minor) {
        (1, _) => "tesla",
        (2, _) => "fermi",
        (3, _) => "kepler",
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, ..5) => "volta",
        (7, _) => "turing",
        (8, ..9) => "ampere",
        (8, _) => "ada-lovelace",
        (9, _) => "hopper",
        (10 | 12, _) => "blackwell",
        (13, _) => "rubin",
        _ => "undefined",
    }
}

/// Whether they are made for displays too, by the class that all of them have on the PCI bus.
fn mode(look: Look<'_>, gpus: &[&Gpu]) -> Result<&'static str> {
    let mut modes = Vec::new();
    for gpu in gpus {
        let Some(address) = told("a GPU's PCI address", &gpu.address)? else { return Ok(UNKNOWN) };
        modes.push(match look.text(format!("/sys/bus/pci/devices/{address}/class"))?.as_deref().map(str::trim) {
            Some("0x030000") => "graphics",
            Some("0x030200") => "compute",
            _ => UNKNOWN,
        });
    }
    modes.dedup();
    Ok(if let [mode] = modes[..] { mode } else { UNKNOWN })
}
