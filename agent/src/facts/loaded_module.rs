//! The loaded NVIDIA kernel module says its version, its flavour and its GPUs in `/proc/driver/nvidia`, NVML or not
//! (NVIDIA driver README, "Using the /proc File System Interface").

use anyhow::{Result, bail};
use serde::Serialize;

pub use crate::host::gpus::LOADED_MODULE as PLACE;
use crate::look::Look;

const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The kernel module as it runs, which may be another one than is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadedModule {
    /// E.g. `535.161.07`.
    pub version: String,
    /// Which of NVIDIA's two kinds of modules it is.
    pub flavour: Flavour,
}

/// NVIDIA's two kinds of kernel modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Built from published source; they need the GPU System Processor, which came with Turing.
    Open,
    /// For all GPUs up to Hopper.
    Proprietary,
}

impl Flavour {
    /// As NVIDIA and the configuration call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Proprietary => "proprietary",
        }
    }
}

/// A GPU as the kernel module knows it. What it does not say (yet) is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleGpu {
    /// PCI address, e.g. `0000:00:1e.0`.
    pub address: String,
    /// E.g. `Tesla T4`; the module does not know it of every GPU.
    pub model: Option<String>,
    /// `GPU-...`, once the GPU was initialised.
    pub uuid: Option<String>,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
}

/// The loaded kernel module; `None` where none is loaded.
pub fn loaded_module(look: Look<'_>) -> Result<Option<LoadedModule>> {
    look.text(PLACE)?.map(|text| parse(&text)).transpose()
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build ...`, or
/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 ...`
fn parse(text: &str) -> Result<LoadedModule> {
    let line = text.lines().find_map(|line| line.strip_prefix("NVRM version:")).unwrap_or_default();
    let Some(version) = line.split_whitespace().find(|word| is_version(word)) else {
        bail!("{PLACE} names no version: {:?}", text.lines().next().unwrap_or_default());
    };
    let flavour = if line.contains(" Open Kernel Module") { Flavour::Open } else { Flavour::Proprietary };
    Ok(LoadedModule { version: version.to_owned(), flavour })
}

/// Two or three numbers with dots, e.g. `535.161.07`.
fn is_version(word: &str) -> bool {
    let numbers: Vec<&str> = word.split('.').collect();
    let is_number = |number: &&str| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    (2..=3).contains(&numbers.len()) && numbers.iter().all(is_number)
}

/// The GPUs that the loaded module has taken, in the order of their addresses.
pub async fn gpus(look: Look<'_>) -> Result<Vec<ModuleGpu>> {
    let mut gpus = Vec::new();
    for address in look.list(GPUS)? {
        // A GPU may leave the bus between the two looks.
        if let Some(text) = look.text_of_driver(format!("{GPUS}/{address}/information")).await? {
            gpus.push(information(address, &text));
        }
    }
    Ok(gpus)
}

/// `NAME:  VALUE` lines.
fn information(address: String, text: &str) -> ModuleGpu {
    let value = |name: &str| {
        let named = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
        named.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty() && value != "Unknown")
    };
    ModuleGpu {
        address,
        model: value("Model"),
        // Before the GPU was initialised it is written with question marks.
        uuid: value("GPU UUID").filter(|uuid| !uuid.contains('?')),
        minor: value("Device Minor").and_then(|minor| minor.parse().ok()),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::host::Host;

    #[test]
    fn version_and_flavour_of_the_loaded_module() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16-I2-C05-15-3)  \
                    Tue Mar  5 22:10:30 UTC 2024\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        let proprietary = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024\n\
                           GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n";
        let arm = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95  Release Build\n";
        for (text, version, flavour) in [
            (open, "550.54.15", Flavour::Open),
            (proprietary, "535.161.07", Flavour::Proprietary),
            (arm, "580.95", Flavour::Open),
        ] {
            assert_eq!(parse(text).unwrap(), LoadedModule { version: version.to_owned(), flavour });
        }
        for wrong in ["", "NVRM version: NVIDIA UNIX x86_64 Kernel Module\n", "GCC version:  gcc version 12.2.0\n"] {
            assert!(parse(wrong).is_err_and(|error| error.to_string().contains(PLACE)), "{wrong}");
        }
    }

    #[tokio::test]
    async fn gpus_of_the_loaded_module() {
        let root = tempfile::tempdir().unwrap();
        let (host, config) = (Host::of_fakes(root.path()).unwrap(), crate::config::load(Vec::new()).unwrap().config);
        let facts = Facts::default();
        let look = Look::new(&host, &config, &facts);
        assert_eq!((loaded_module(look).unwrap(), gpus(look).await.unwrap()), (None, Vec::new()), "no module");
        let write = |address: &str, text: &str| {
            let directory = root.path().join("proc/driver/nvidia/gpus").join(address);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("information"), text).unwrap();
        };
        write(
            "0000:3b:00.0",
            "Model: \t\t NVIDIA L40S\nIRQ:   \t\t 98\nGPU UUID: \t GPU-11111111-2222-3333-4444-555555555555\nVideo BIOS: \t 95.02\n\
             Bus Location: \t 0000:3b:00.0\nDevice Minor: \t 1\nGPU Excluded:\t No\n",
        );
        write("0000:00:1e.0", "Model: \t\t Unknown\nGPU UUID: \t GPU-????????-????-????-????-????????????\nDevice Minor: \t 0\n");
        let found = gpus(look).await.unwrap();
        let unknown = ModuleGpu { address: "0000:00:1e.0".to_owned(), minor: Some(0), ..ModuleGpu::default() };
        let known = ModuleGpu {
            address: "0000:3b:00.0".to_owned(),
            model: Some("NVIDIA L40S".to_owned()),
            uuid: Some("GPU-11111111-2222-3333-4444-555555555555".to_owned()),
            minor: Some(1),
        };
        assert_eq!(found, [unknown, known]);
    }
}
