//! An NVIDIA GPU shows on the PCI bus before any driver exists: vendor 0x10de, class VGA (0x0300) or 3D controller (0x0302).

use anyhow::Result;

use super::Gpu;
use crate::look::Look;

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: u16 = 0x10de;

/// Models this agent is made for, by PCI device id (pci.ids). Ids are not ordered by generation.
const MODELS: &[(u16, &str)] = &[
    (0x1eb8, "Tesla T4"),
    (0x2236, "A10"),
    (0x2237, "A10G"),
    (0x25b6, "A16"),
    (0x2235, "A40"),
    (0x27b8, "L4"),
    (0x26b5, "L40"),
    (0x26b9, "L40S"),
    (0x27b0, "RTX 4000 SFF Ada Generation"),
    (0x27b2, "RTX 4000 Ada Generation"),
    (0x26b1, "RTX 6000 Ada Generation"),
    (0x20b0, "A100-SXM4-40GB"),
    (0x20b2, "A100-SXM4-80GB"),
    (0x20f1, "A100-PCIE-40GB"),
    (0x20b5, "A100 80GB PCIe"),
    (0x2330, "H100 80GB HBM3"),
    (0x2331, "H100 PCIe"),
    (0x2335, "H200"),
    (0x2901, "B200"),
    (0x2941, "GB200"),
];

/// The NVIDIA GPUs on the bus, in the order of their addresses. Audio functions and NVSwitches are no GPUs.
pub fn gpus(look: Look<'_>) -> Result<Vec<Gpu>> {
    let mut gpus = Vec::new();
    for address in look.list(DEVICES)? {
        let device = format!("{DEVICES}/{address}");
        let number = |name: &str| -> Result<Option<u32>> {
            let text = look.text(format!("{device}/{name}"))?;
            Ok(text.and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()))
        };
        let class = number("class")?.unwrap_or_default() >> 8;
        if number("vendor")? != Some(u32::from(NVIDIA)) || !matches!(class, 0x0300 | 0x0302) {
            continue;
        }
        let id = number("device")?.and_then(|id| u16::try_from(id).ok()).unwrap_or_default();
        gpus.push(Gpu {
            device: id,
            model: MODELS.iter().find(|(known, _)| *known == id).map(|(_, name)| (*name).to_owned()),
            driver: look
                .link(format!("{device}/driver"))?
                .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
            is_virtual: look.link(format!("{device}/physfn"))?.is_some(),
            address,
        });
    }
    Ok(gpus)
}

/// The model in one short lower-case word for names, e.g. `t4`; `None` when the device is not in our table.
pub fn short_model(gpu: &Gpu) -> Option<String> {
    let model = gpu.model.as_deref()?;
    Some(model.trim_start_matches("Tesla ").split([' ', '-']).next()?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

    use super::*;
    use crate::facts::Facts;
    use crate::host::Host;

    #[test]
    fn a_gpu_is_told_from_its_audio_function_a_switch_and_a_virtual_function() {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("sys/bus/pci/devices");
        for (address, vendor, class, device) in [
            ("0000:00:1e.0", "0x10de", "0x030200", "0x1eb8"),
            ("0000:01:00.0", "0x10de", "0x030000", "0xffff"),
            ("0000:01:00.1", "0x10de", "0x040300", "0x10f7"),
            ("0000:02:00.0", "0x10de", "0x068000", "0x22a3"),
            ("0000:03:00.0", "0x1234", "0x030000", "0x1111"),
        ] {
            let directory = devices.join(address);
            std::fs::create_dir_all(&directory).unwrap();
            for (name, text) in [("vendor", vendor), ("class", class), ("device", device)] {
                std::fs::write(directory.join(name), format!("{text}\n")).unwrap();
            }
        }
        std::os::unix::fs::symlink("../../../bus/pci/drivers/nvidia", devices.join("0000:00:1e.0/driver")).unwrap();
        std::os::unix::fs::symlink("../0000:00:1e.0", devices.join("0000:01:00.0/physfn")).unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        let found = gpus(Look::new(&host, &config, &Facts::default())).unwrap();
        let gpu = |address: &str, device, model: Option<&str>, driver: Option<&str>, is_virtual| Gpu {
            address: address.to_owned(),
            device,
            model: model.map(str::to_owned),
            driver: driver.map(str::to_owned),
            is_virtual,
        };
        let expected =
            [gpu("0000:00:1e.0", 0x1eb8, Some("Tesla T4"), Some("nvidia"), false), gpu("0000:01:00.0", 0xffff, None, None, true)];
        assert_eq!(found, expected);
    }
}
