//! A GPU's generation decides which branches of the driver know it, and which flavour of the kernel modules can drive it.
//!
//! Sources: "Kernel Modules" in NVIDIA's Driver Installation Guide (releases 590 and 620), the lists of supported GPUs in the driver's
//! README, and the release notes of CUDA 11.8 (Ada and Hopper from 520) and 12.8 (Blackwell from 570).

pub use crate::facts::loaded_module::Flavour;
use crate::facts::{Architecture, Gpu};

/// The last branch before each point at which something ends: what no driver of these can do, no other can.
pub const LAST_BRANCHES: &[u16] = &[470, 580, PROPRIETARY_BEFORE - 1, 999];

/// The first branch with open modules, and the last one with proprietary ones (610; the guide of release 620 has none).
const OPEN_FROM: u16 = 515;
const PROPRIETARY_BEFORE: u16 = 620;

/// From here on NVIDIA installs the open flavour where it can ("Kernel Modules").
const OPEN_BY_DEFAULT_FROM: u16 = 560;

/// Amazon lists the T4 with open modules from here on (Amazon EKS documentation, accelerated images).
const OPEN_ON_TURING_FROM: u16 = 575;

/// Why a GPU cannot be driven by the modules of a branch; `None` where it can, or where its generation is not known.
pub fn refusal(gpu: &Gpu, branch: u16, flavour: Flavour) -> Option<String> {
    use Architecture::{Ada, Ampere, Blackwell, Hopper, Kepler, Maxwell, Pascal, Turing, Volta};
    let last = |last: u16| (branch > last).then(|| format!("is known to branches up to {last}, and this is {branch}"));
    let first = |first: u16| (branch < first).then(|| format!("is known from branch {first} on, and this is {branch}"));
    let closed = || (flavour == Flavour::Open).then(|| "has no open modules: they begin with Turing".to_owned());
    let why = match gpu.architecture? {
        Kepler => closed().or_else(|| last(470)),
        Maxwell | Pascal | Volta => closed().or_else(|| last(580)),
        Turing | Ampere => None,
        Ada | Hopper => first(520),
        Blackwell if flavour == Flavour::Proprietary => {
            Some("has no proprietary modules: only the open ones drive Blackwell".to_owned())
        }
        Blackwell if is_ultra(gpu) => first(580),
        Blackwell => first(570),
    };
    Some(format!("{} {}", name(gpu), why?))
}

/// Why a branch has no modules of a flavour.
pub fn not_published(branch: u16, flavour: Flavour) -> Option<String> {
    match flavour {
        Flavour::Open if branch < OPEN_FROM => Some(format!("open modules begin with branch {OPEN_FROM}")),
        Flavour::Proprietary if branch >= PROPRIETARY_BEFORE => {
            Some(format!("proprietary modules end before branch {PROPRIETARY_BEFORE}"))
        }
        _ => None,
    }
}

/// Which flavour to prefer where both would do, and why.
pub fn preferred(gpus: &[&Gpu], branch: u16) -> (Flavour, String) {
    let has_turing = gpus.iter().any(|gpu| gpu.architecture == Some(Architecture::Turing));
    if branch < OPEN_BY_DEFAULT_FROM {
        (Flavour::Proprietary, format!("they are NVIDIA's default before branch {OPEN_BY_DEFAULT_FROM}"))
    } else if has_turing && branch < OPEN_ON_TURING_FROM {
        (Flavour::Proprietary, format!("Turing GPUs are run with open ones only from branch {OPEN_ON_TURING_FROM} on"))
    } else {
        (Flavour::Open, format!("they are NVIDIA's default from branch {OPEN_BY_DEFAULT_FROM} on"))
    }
}

/// A GPU for a sentence: its model, generation and address.
pub fn name(gpu: &Gpu) -> String {
    let model = gpu.model.clone().unwrap_or_else(|| format!("the GPU with device id {:#06x}", gpu.device));
    match gpu.architecture {
        Some(architecture) => format!("{model} ({architecture:?}) at {}", gpu.address),
        None => format!("{model} at {}", gpu.address),
    }
}

/// Blackwell Ultra: B300 and GB300.
fn is_ultra(gpu: &Gpu) -> bool {
    gpu.model.as_ref().is_some_and(|model| model.contains("B300"))
}
