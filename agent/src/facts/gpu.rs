//! What a GPU is follows from its ids on the PCI bus; whether a container can get it follows from who holds it.

use serde::Serialize;

use super::Facts;

/// One NVIDIA GPU on the PCI bus. What the bus does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// PCI address, e.g. `0000:00:1e.0`.
    pub address: String,
    /// PCI device id, e.g. `0x1eb8`.
    pub device: u16,
    /// PCI vendor id of the board, e.g. `0x10de`; with the next it tells products apart that share a device id.
    pub subsystem_vendor: Option<u16>,
    /// The board's id among those of its vendor.
    pub subsystem_device: Option<u16>,
    /// Revision of the chip, e.g. `0xa1`.
    pub revision: Option<u8>,
    /// The model, e.g. `Tesla T4`, from our table or the system's pci.ids.
    pub model: Option<String>,
    /// The generation of the chip, from the same places.
    pub architecture: Option<Architecture>,
    /// NUMA node that it is near to.
    pub numa_node: Option<u16>,
    /// The kernel driver that is bound to it.
    pub driver: Option<String>,
    /// It is a virtual function (it has a `physfn`).
    pub is_virtual: bool,
    /// Virtual functions that it can be divided into (SR-IOV).
    pub virtual_functions: Option<VirtualFunctions>,
}

/// How far a physical function is divided (kernel documentation, "PCI Express I/O Virtualization Howto").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualFunctions {
    /// Those there can be (`sriov_totalvfs`).
    pub possible: u16,
    /// Those there are (`sriov_numvfs`).
    pub enabled: u16,
}

/// The generations of NVIDIA's GPUs, older ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Chips GK…, e.g. Tesla K80.
    Kepler,
    /// Chips GM…, e.g. Tesla M60.
    Maxwell,
    /// Chips GP…, e.g. Tesla P100.
    Pascal,
    /// Chips GV…, e.g. Tesla V100.
    Volta,
    /// Chips TU…, e.g. Tesla T4.
    Turing,
    /// Chips GA…, e.g. A100.
    Ampere,
    /// Chips AD…, e.g. L4.
    Ada,
    /// Chips GH…, e.g. H100.
    Hopper,
    /// Chips GB…, e.g. B200.
    Blackwell,
}

impl Architecture {
    /// From a chip's code name, e.g. `TU104GL`: two letters for the generation, then a number.
    pub fn of_chip(code_name: &str) -> Option<Self> {
        let (letters, rest) = code_name.split_at_checked(2)?;
        if !rest.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        Some(match letters {
            "GK" => Self::Kepler,
            "GM" => Self::Maxwell,
            "GP" => Self::Pascal,
            "GV" => Self::Volta,
            "TU" => Self::Turing,
            "GA" => Self::Ampere,
            "AD" => Self::Ada,
            "GH" => Self::Hopper,
            "GB" => Self::Blackwell,
            _ => return None,
        })
    }
}

impl Gpu {
    /// Whether containers of this node can get it: one bound to `vfio-pci` is kept for a virtual machine, and one whose
    /// virtual functions exist is used through them.
    pub fn is_for_containers(&self) -> bool {
        let is_divided = self.virtual_functions.is_some_and(|functions| functions.enabled > 0);
        self.driver.as_deref() != Some("vfio-pci") && !is_divided
    }
}

impl Facts {
    /// The GPUs that containers of this node can get, in the order of their addresses: they are what names, labels, the role and the
    /// NVIDIA runtime go by.
    pub fn gpus_for_containers(&self) -> Vec<&Gpu> {
        self.gpus.iter().filter(|gpu| gpu.is_for_containers()).collect()
    }
}

/// Words of a model's name that say which brand, form or market it is of, not which GPU.
const SIDE_WORDS: [&str; 26] = [
    "nvidia",
    "corporation",
    "tesla",
    "geforce",
    "quadro",
    "grid",
    "hgx",
    "dgxs",
    "pcie",
    "sxm",
    "sxm2",
    "sxm3",
    "sxm4",
    "sxm5",
    "nvl",
    "fhhl",
    "sff",
    "hbm2",
    "hbm2e",
    "hbm3",
    "hbm3e",
    "generation",
    "edition",
    "server",
    "workstation",
    "gpu",
];

/// The model in short, for labels and names: `t4`, `rtx4000ada`, `h100`. Lower-case letters and digits, 63 at most.
/// `None` when the model is unknown, or when its name stands for several (`A2 / A16`).
pub fn short_model(gpu: &Gpu) -> Option<String> {
    let model = gpu.model.as_ref().filter(|model| !model.contains('/'))?.to_ascii_lowercase();
    let words = model.split(|letter: char| !letter.is_ascii_alphanumeric());
    let telling = words.filter(|word| !SIDE_WORDS.contains(word) && !is_memory_size(word));
    let short: String = telling.flat_map(str::chars).take(63).collect();
    (!short.is_empty()).then_some(short)
}

/// The short model that most of the GPUs are of; of equally many, the one that comes first on the bus.
pub fn most_frequent_model(gpus: &[&Gpu]) -> Option<String> {
    let models: Vec<String> = gpus.iter().filter_map(|gpu| short_model(gpu)).collect();
    let count = |model: &String| models.iter().filter(|other| *other == model).count();
    // `max_by_key` takes the last of several greatest ones.
    models.iter().rev().max_by_key(|model| count(model)).cloned()
}

/// `80gb`
fn is_memory_size(word: &str) -> bool {
    word.strip_suffix("gb").is_some_and(|size| !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(model: &str) -> Option<String> {
        short_model(&Gpu { model: Some(model.to_owned()), ..Gpu::default() })
    }

    #[test]
    fn a_short_model_names_the_gpu_and_not_its_brand_form_or_memory() {
        for (model, expected) in [
            ("Tesla V100 SXM2 16GB", "v100"),
            ("GeForce RTX 4090", "rtx4090"),
            ("HGX GB200", "gb200"),
            ("GH200 120GB / 480GB", ""),
            ("A2 / A16", ""),
            ("RTX PRO 6000 Blackwell Server Edition", "rtxpro6000blackwell"),
            ("A30 PCIe", "a30"),
            ("Tesla", ""),
            ("", ""),
            ("Ü-é ✂", ""),
        ] {
            assert_eq!(short(model).unwrap_or_default(), expected, "{model}");
        }
        assert_eq!(short(&"x1 ".repeat(100)).map(|short| short.len()), Some(63));
        assert_eq!(short_model(&Gpu::default()), None);
    }

    #[test]
    fn the_model_is_that_of_most_gpus() {
        let model = |models: &[Option<&str>]| {
            let gpu = |model: &Option<&str>| Gpu { model: model.map(str::to_owned), ..Gpu::default() };
            let gpus: Vec<Gpu> = models.iter().map(gpu).collect();
            most_frequent_model(&gpus.iter().collect::<Vec<_>>()).unwrap_or_default()
        };
        assert_eq!((model(&[]), model(&[None])), (String::new(), String::new()));
        assert_eq!(model(&[Some("L4"), Some("A10"), Some("A10")]), "a10");
        assert_eq!(model(&[Some("L4"), Some("A10"), Some("A10"), Some("L4"), None]), "l4");
    }

    #[test]
    fn an_architecture_is_in_the_chips_code_name() {
        use Architecture::{Ada, Ampere, Blackwell, Hopper, Kepler, Maxwell, Pascal, Turing, Volta};
        for (chip, expected) in [
            ("GK210GL", Kepler),
            ("GM204GL", Maxwell),
            ("GP100GL", Pascal),
            ("GV100GL", Volta),
            ("TU104GL", Turing),
            ("GA102GL", Ampere),
            ("AD104GL", Ada),
            ("GH100", Hopper),
            ("GB202GL", Blackwell),
        ] {
            assert_eq!(Architecture::of_chip(chip), Some(expected), "{chip}");
        }
        for chip in ["", "G", "GA", "GAB", "GF100", "GT200", "NV44", "MCP61", "é1", "€100"] {
            assert_eq!(Architecture::of_chip(chip), None, "{chip}");
        }
        assert!(Volta < Turing && Turing < Blackwell, "a driver step compares generations");
    }
}
