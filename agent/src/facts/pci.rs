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
