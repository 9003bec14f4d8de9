//! Stands for sysfs with plain files and links, written from its documentation; it cannot show a device that leaves the bus.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use std::path::{Path, PathBuf};

use super::{Devices, devices};
use crate::facts::gpu::short_model;
use crate::facts::{Architecture, Facts, VirtualFunctions};
use crate::host::Host;
use crate::look::Look;

/// A machine whose PCI bus is a directory.
struct Bus(tempfile::TempDir);

impl Bus {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directory(&self, address: &str) -> PathBuf {
        self.0.path().join("sys/bus/pci/devices").join(address)
    }

    /// A device with what every device has. `ids` are its vendor, device, and the vendor and device of its board.
    fn device(&self, address: &str, class: &str, ids: [u16; 4]) {
        std::fs::create_dir_all(self.directory(address)).unwrap();
        for (name, id) in ["vendor", "device", "subsystem_vendor", "subsystem_device"].into_iter().zip(ids) {
            self.attribute(address, name, &format!("0x{id:04x}"));
        }
        for (name, text) in [("class", class), ("revision", "0xa1"), ("numa_node", "-1")] {
            self.attribute(address, name, text);
        }
    }

    fn gpu(&self, address: &str, device: u16, board: u16) {
        self.device(address, "0x030200", [0x10de, device, 0x10de, board]);
    }

    fn attribute(&self, address: &str, name: &str, text: &str) {
        std::fs::write(self.directory(address).join(name), format!("{text}\n")).unwrap();
    }

    /// A directory cannot be read as a file by anyone, root included.
    fn unreadable(&self, address: &str, name: &str) {
        std::fs::create_dir_all(self.directory(address).join(name)).unwrap();
    }

    fn link(&self, address: &str, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.directory(address).join(name)).unwrap();
    }

    fn list(&self, place: &str, text: &[u8]) {
        let path = self.0.path().join(place);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn look(&self) -> Devices {
        let host = Host::of_fakes(self.0.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        devices(Look::new(&host, &config, &Facts::default()))
    }
}

fn texts(errors: &[anyhow::Error]) -> String {
    errors.iter().map(|error| format!("{error:#}\n")).collect()
}

fn models(devices: &Devices) -> Vec<Option<&str>> {
    devices.gpus.iter().map(|gpu| gpu.model.as_deref()).collect()
}

#[test]
fn a_t4_is_found_with_all_that_the_bus_says() {
    let bus = Bus::empty();
    bus.device("0000:00:03.0", "0x030000", [0x1234, 0x1111, 0x1af4, 0x1100]);
    bus.gpu("0000:00:1e.0", 0x1eb8, 0x12a2);
    bus.attribute("0000:00:1e.0", "numa_node", "1");
    bus.link("0000:00:1e.0", "driver", "../../../bus/pci/drivers/nvidia");
    let found = bus.look();
    let [gpu] = found.gpus.as_slice() else { unreachable!("{found:?}") };
    assert_eq!((gpu.address.as_str(), gpu.device, gpu.revision, gpu.numa_node), ("0000:00:1e.0", 0x1eb8, Some(0xa1), Some(1)));
    assert_eq!((gpu.subsystem_vendor, gpu.subsystem_device), (Some(0x10de), Some(0x12a2)));
    assert_eq!((gpu.model.as_deref(), gpu.architecture), (Some("Tesla T4"), Some(Architecture::Turing)));
    assert_eq!((gpu.driver.as_deref(), gpu.is_virtual, gpu.virtual_functions), (Some("nvidia"), false, None));
    assert!(gpu.is_for_containers() && found.nvswitches.is_empty() && found.unseen.is_empty());
}

#[test]
fn an_a16_is_four_gpus_and_told_from_an_a2_by_its_board() {
    let bus = Bus::empty();
    for address in ["0000:41:00.0", "0000:42:00.0", "0000:43:00.0", "0000:44:00.0"] {
        bus.gpu(address, 0x25b6, 0x14a9);
    }
    bus.gpu("0000:51:00.0", 0x25b6, 0x157e);
    bus.device("0000:52:00.0", "0x030200", [0x10de, 0x25b6, 0x1028, 0x14a9]);
    let found = bus.look();
    assert_eq!(models(&found), [Some("A16"), Some("A16"), Some("A16"), Some("A16"), Some("A2"), Some("A2 / A16")]);
    assert_eq!(found.gpus[0].numa_node, None, "-1 is no node");
}

#[test]
fn a_divided_a100_counts_by_its_virtual_functions() {
    let bus = Bus::empty();
    for address in ["0000:3b:00.0", "0000:3b:00.4", "0000:3b:00.5", "0000:5e:00.0"] {
        bus.gpu(address, 0x20b5, 0x1533);
    }
    for (address, enabled) in [("0000:3b:00.0", "2"), ("0000:5e:00.0", "0")] {
        bus.attribute(address, "sriov_totalvfs", "20");
        bus.attribute(address, "sriov_numvfs", enabled);
    }
    bus.link("0000:3b:00.4", "physfn", "../0000:3b:00.0");
    bus.link("0000:3b:00.5", "physfn", "../0000:3b:00.0");
    let found = bus.look();
    let seen: Vec<_> = found.gpus.iter().map(|gpu| (gpu.is_virtual, gpu.is_for_containers())).collect();
    assert_eq!(seen, [(false, false), (true, true), (true, true), (false, true)]);
    assert_eq!(found.gpus[0].virtual_functions, Some(VirtualFunctions { possible: 20, enabled: 2 }));
    assert_eq!(found.gpus[1].virtual_functions, None);
}

#[test]
fn an_h100_node_has_eight_gpus_and_four_switches() {
    let bus = Bus::empty();
    for number in 0..8 {
        bus.gpu(&format!("0000:{number}b:00.0"), 0x2330, 0x16c1);
    }
    for number in 0..4 {
        bus.device(&format!("0000:0{number}:00.0"), "0x068000", [0x10de, 0x22a3, 0x10de, 0x1796]);
    }
    // A bridge of someone else's is no switch of NVIDIA's.
    bus.device("0000:00:1f.0", "0x068000", [0x8086, 0x1234, 0x8086, 0x1234]);
    let found = bus.look();
    assert_eq!(models(&found), [Some("H100 80GB HBM3"); 8]);
    assert_eq!(found.nvswitches, ["0000:00:00.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]);
}

#[test]
fn sound_usb_and_other_displays_of_a_graphics_card_are_no_gpus() {
    let bus = Bus::empty();
    bus.device("0000:01:00.0", "0x030000", [0x10de, 0x26b1, 0x103c, 0x16a1]);
    for (function, class) in [(1, "0x040300"), (2, "0x0c0330"), (3, "0x0c8000"), (4, "0x038000")] {
        bus.device(&format!("0000:01:00.{function}"), class, [0x10de, 0x22ba, 0x103c, 0x16a1]);
    }
    assert_eq!(models(&bus.look()), [Some("RTX 6000 Ada Generation")]);
}

#[test]
fn a_gpu_that_is_kept_for_a_virtual_machine_is_not_for_containers() {
    let bus = Bus::empty();
    bus.gpu("0000:01:00.0", 0x27b8, 0x16ca);
    bus.link("0000:01:00.0", "driver", "../../../../bus/pci/drivers/vfio-pci");
    let found = bus.look();
    assert_eq!(found.gpus[0].driver.as_deref(), Some("vfio-pci"));
    assert!(!found.gpus[0].is_for_containers());
}

#[test]
fn a_model_that_is_not_in_our_table_is_named_by_the_systems_list() {
    const LIST: &[u8] = b"10de  NVIDIA Corporation\n\t1db6  GV100GL [Tesla V100 PCIe 32GB]\n\t1eb8  TU104GL [Another Name]\n";
    for place in ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"] {
        let bus = Bus::empty();
        bus.gpu("0000:01:00.0", 0x1db6, 0x124a);
        bus.gpu("0000:02:00.0", 0x1eb8, 0x12a2);
        bus.gpu("0000:03:00.0", 0xffff, 0x0001);
        let found = bus.look();
        assert_eq!(models(&found), [None, Some("Tesla T4"), None], "without a list");
        assert!(found.unseen.is_empty());
        bus.list(place, LIST);
        let found = bus.look();
        assert_eq!(models(&found), [Some("Tesla V100 PCIe 32GB"), Some("Tesla T4"), None], "{place}");
        assert_eq!(found.gpus[0].architecture, Some(Architecture::Volta));
        assert_eq!(short_model(&found.gpus[0]).as_deref(), Some("v100"));
        bus.list(place, b"\xff\x00 not a list");
        let found = bus.look();
        assert_eq!(models(&found), [None, Some("Tesla T4"), None], "a broken list");
    }
}

#[test]
fn a_list_that_cannot_be_read_costs_the_names_and_nothing_else() {
    let bus = Bus::empty();
    bus.gpu("0000:01:00.0", 0x1db6, 0x124a);
    std::fs::create_dir_all(bus.0.path().join("usr/share/misc/pci.ids")).unwrap();
    let found = bus.look();
    assert_eq!(models(&found), [None]);
    assert!(texts(&found.unseen).contains("/usr/share/misc/pci.ids") && found.unread.is_empty());
}

#[test]
fn an_attribute_that_cannot_be_read_costs_nothing_else_and_is_named() {
    let bus = Bus::empty();
    bus.gpu("0000:01:00.0", 0x1eb8, 0x12a2);
    bus.attribute("0000:01:00.0", "numa_node", "one");
    bus.unreadable("0000:01:00.0", "sriov_totalvfs");
    bus.gpu("0000:02:00.0", 0x1eb8, 0x12a2);
    let found = bus.look();
    assert_eq!(models(&found), [Some("Tesla T4"), Some("Tesla T4")]);
    assert_eq!((found.gpus[0].numa_node, found.gpus[0].virtual_functions, found.gpus[0].revision), (None, None, Some(0xa1)));
    let unseen = texts(&found.unseen);
    assert!(unseen.contains("/sys/bus/pci/devices/0000:01:00.0/numa_node") && unseen.contains("\"one\""), "{unseen}");
    assert!(unseen.contains("/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs") && found.unread.is_empty(), "{unseen}");
}

#[test]
fn a_device_that_may_be_a_gpu_hides_no_other_and_is_told_from_none() {
    for (name, path) in
        [("vendor", "/sys/bus/pci/devices/0000:01:00.0/vendor"), ("class", "/sys/bus/pci/devices/0000:01:00.0/class")]
    {
        let bus = Bus::empty();
        for address in ["0000:00:1e.0", "0000:01:00.0", "0000:02:00.0"] {
            bus.gpu(address, 0x1eb8, 0x12a2);
        }
        std::fs::remove_file(bus.directory("0000:01:00.0").join(name)).unwrap();
        assert!(bus.look().unread.is_empty(), "it left the bus meanwhile");
        bus.unreadable("0000:01:00.0", name);
        let found = bus.look();
        assert_eq!(found.gpus.iter().map(|gpu| gpu.address.as_str()).collect::<Vec<_>>(), ["0000:00:1e.0", "0000:02:00.0"]);
        assert!(texts(&found.unread).contains(path) && found.unseen.is_empty(), "{:?}", found.unread);
    }
    let bus = Bus::empty();
    bus.list("sys/bus/pci/devices", b"not a directory");
    assert!(texts(&bus.look().unread).contains("/sys/bus/pci/devices"));
}

#[test]
fn a_machine_without_a_bus_has_no_gpus() {
    assert!(Bus::empty().look().gpus.is_empty());
}
