//! A PCI device id mostly stands for one model, but some are shared and told apart by the board's subsystem id.
//!
//! Names and ids are NVIDIA's own ("Compatible GPUs" in the README of NVIDIA/open-gpu-kernel-modules), those missing there pci.ids'.

use super::Architecture::{self, Ada, Ampere, Blackwell, Hopper, Turing};

/// One model.
pub struct Model {
    device: u16,
    /// A board of NVIDIA's own; `None` for every board.
    subsystem: Option<u16>,
    /// As NVIDIA writes it, without the company's name.
    pub name: &'static str,
    /// The generation of its chip.
    pub architecture: Architecture,
}

/// The models this agent is made for. Ids are not ordered by generation. A row with a subsystem comes before one without.
const MODELS: &[Model] = &[
    any_board(0x1eb8, "Tesla T4", Turing),
    any_board(0x2235, "A40", Ampere),
    any_board(0x2236, "A10", Ampere),
    any_board(0x2237, "A10G", Ampere),
    board(0x25b6, 0x14a9, "A16", Ampere),
    board(0x25b6, 0x157e, "A2", Ampere),
    any_board(0x25b6, "A2 / A16", Ampere),
    any_board(0x20b0, "A100-SXM4-40GB", Ampere),
    any_board(0x20b1, "A100 PCIe 40GB", Ampere),
    any_board(0x20b2, "A100-SXM4-80GB", Ampere),
    any_board(0x20b3, "A100-SXM-64GB", Ampere),
    any_board(0x20b5, "A100 80GB PCIe", Ampere),
    any_board(0x20f1, "A100-PCIE-40GB", Ampere),
    any_board(0x26b1, "RTX 6000 Ada Generation", Ada),
    any_board(0x26b5, "L40", Ada),
    any_board(0x26b9, "L40S", Ada),
    any_board(0x27b0, "RTX 4000 SFF Ada Generation", Ada),
    any_board(0x27b2, "RTX 4000 Ada Generation", Ada),
    any_board(0x27b8, "L4", Ada),
    any_board(0x2321, "H100 NVL", Hopper),
    any_board(0x2330, "H100 80GB HBM3", Hopper),
    any_board(0x2331, "H100 PCIe", Hopper),
    any_board(0x2339, "H100", Hopper),
    any_board(0x2335, "H200", Hopper),
    any_board(0x233b, "H200 NVL", Hopper),
    any_board(0x2901, "B200", Blackwell),
    any_board(0x2941, "GB200", Blackwell),
];

const fn any_board(device: u16, name: &'static str, architecture: Architecture) -> Model {
    Model { device, subsystem: None, name, architecture }
}

const fn board(device: u16, subsystem: u16, name: &'static str, architecture: Architecture) -> Model {
    Model { device, subsystem: Some(subsystem), name, architecture }
}

/// The model of a device id and a board of NVIDIA's own; `None` for a board of anyone else's.
pub fn find(device: u16, subsystem: Option<u16>) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.device == device && (model.subsystem.is_none() || model.subsystem == subsystem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Gpu;
    use crate::facts::gpu::short_model;

    #[test]
    fn every_model_has_its_short_form() {
        let short =
            |model: &Model| short_model(&Gpu { model: Some(model.name.to_owned()), ..Gpu::default() }).unwrap_or_default();
        let forms: Vec<String> = MODELS.iter().map(short).collect();
        let expected = "t4 a40 a10 a10g a16 a2  a100 a100 a100 a100 a100 a100 rtx6000ada l40 l40s rtx4000ada rtx4000ada l4 \
                        h100 h100 h100 h100 h200 h200 b200 gb200";
        assert_eq!(forms.join(" "), expected);
    }

    #[test]
    fn a_shared_id_is_told_apart_by_the_board() {
        let name = |device, subsystem| find(device, subsystem).map(|model| model.name);
        assert_eq!(name(0x25b6, Some(0x14a9)), Some("A16"));
        assert_eq!(name(0x25b6, Some(0x157e)), Some("A2"));
        assert_eq!(name(0x25b6, None), Some("A2 / A16"));
        assert_eq!(name(0x1eb8, Some(0x12a2)), Some("Tesla T4"));
        assert_eq!(name(0xffff, None), None);
    }
}
