//! An NVIDIA GPU shows on the PCI bus before any driver exists: vendor 0x10de, class VGA (0x0300) or 3D controller (0x0302).
//!
//! Those two are what NVIDIA's kernel driver binds as a GPU and 0x0680 as an NVSwitch (`nv-pci-table.c` of
//! NVIDIA/open-gpu-kernel-modules); a GPU's audio, USB and UCSI functions are of other classes. Attributes: kernel
//! documentation, "Accessing PCI device resources through sysfs" and ABI/testing/sysfs-bus-pci.

#[cfg(test)]
mod tests;

use std::cell::RefCell;

use anyhow::{Context, Error, Result};

use super::{Gpu, VirtualFunctions, models, pci_ids};
use crate::look::Look;

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: u16 = 0x10de;

/// What NVIDIA made on the bus.
#[derive(Debug, Default)]
pub struct Devices {
    /// The GPUs, virtual functions among them, in the order of their addresses.
    pub gpus: Vec<Gpu>,
    /// Addresses of the NVSwitches, sorted.
    pub nvswitches: Vec<String>,
    /// Why there may be more of them: the bus, or the vendor or class of a device, could not be read.
    pub unread: Vec<Error>,
    /// What could not be read of those that are known, their names in the system's pci.ids among it.
    pub unseen: Vec<Error>,
}

/// Looks at the bus. A device that leaves it meanwhile is left out; one that cannot be read does not hide the others.
pub fn devices(look: Look<'_>) -> Devices {
    let mut devices = Devices::default();
    let addresses = look.list(DEVICES).unwrap_or_else(|error| {
        devices.unread.push(error);
        Vec::new()
    });
    for address in addresses {
        let device = Device { look, path: format!("{DEVICES}/{address}"), unseen: RefCell::default() };
        match device.class() {
            Ok(Some(0x0300 | 0x0302)) => devices.gpus.push(device.gpu(address)),
            Ok(Some(0x0680)) => devices.nvswitches.push(address),
            Ok(_) => {}
            Err(error) => devices.unread.push(error),
        }
        devices.unseen.append(&mut device.unseen.take());
    }
    devices.unseen.extend(name(look, &mut devices.gpus).err());
    devices
}

/// Names the models that our table does not know, from the system's list.
fn name(look: Look<'_>, gpus: &mut [Gpu]) -> Result<()> {
    let mut unknown: Vec<u16> = gpus.iter().filter(|gpu| gpu.model.is_none()).map(|gpu| gpu.device).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.is_empty() {
        return Ok(());
    }
    let names = pci_ids::names(look, NVIDIA, &unknown)?;
    for gpu in gpus.iter_mut().filter(|gpu| gpu.model.is_none()) {
        if let Some(name) = names.get(&gpu.device) {
            (gpu.model, gpu.architecture) = (name.model.clone(), name.architecture);
        }
    }
    Ok(())
}

/// One device's directory in sysfs.
struct Device<'a> {
    look: Look<'a>,
    path: String,
    /// Why optional attributes could not be read.
    unseen: RefCell<Vec<Error>>,
}

impl Device<'_> {
    /// The class without its programming interface, of a device of NVIDIA's alone.
    fn class(&self) -> Result<Option<u32>> {
        if self.hexadecimal("vendor")? != Some(u32::from(NVIDIA)) {
            return Ok(None);
        }
        Ok(self.hexadecimal("class")?.map(|class| class >> 8))
    }

    fn gpu(&self, address: String) -> Gpu {
        let id = |name: &str| self.optional(self.hexadecimal(name)).and_then(|id| u16::try_from(id).ok());
        let device = id("device").unwrap_or_default();
        let (subsystem_vendor, subsystem_device) = (id("subsystem_vendor"), id("subsystem_device"));
        let model = models::find(device, subsystem_device.filter(|_| subsystem_vendor == Some(NVIDIA)));
        Gpu {
            device,
            subsystem_vendor,
            subsystem_device,
            revision: self.optional(self.hexadecimal("revision")).and_then(|revision| u8::try_from(revision).ok()),
            model: model.map(|model| model.name.to_owned()),
            architecture: model.map(|model| model.architecture),
            // -1 where the firmware names none.
            numa_node: self.optional(self.decimal("numa_node")).and_then(|node| u16::try_from(node).ok()),
            driver: self.optional(self.link("driver")),
            is_virtual: self.optional(self.link("physfn")).is_some(),
            virtual_functions: self.optional(self.virtual_functions()),
            address,
        }
    }

    /// The attribute, or a note of why it could not be read.
    fn optional<T>(&self, read: Result<Option<T>>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.unseen.borrow_mut().push(error);
            None
        })
    }

    /// The attributes are there on physical functions that can be divided, and nowhere else.
    fn virtual_functions(&self) -> Result<Option<VirtualFunctions>> {
        let Some(possible) = self.decimal("sriov_totalvfs")? else { return Ok(None) };
        let count = |number: i64| u16::try_from(number).unwrap_or_default();
        Ok(Some(VirtualFunctions {
            possible: count(possible),
            enabled: count(self.decimal("sriov_numvfs")?.unwrap_or_default()),
        }))
    }

    /// `0x10de`
    fn hexadecimal(&self, name: &str) -> Result<Option<u32>> {
        self.number(name, |text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok())
    }

    /// `16`, `-1`
    fn decimal(&self, name: &str) -> Result<Option<i64>> {
        self.number(name, |text| text.parse().ok())
    }

    fn number<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let path = format!("{}/{name}", self.path);
        let Some(text) = self.look.text(&path)? else { return Ok(None) };
        let text = text.trim();
        parse(text).map(Some).with_context(|| format!("reading {path}: {text:?} is not the number that the kernel writes there"))
    }

    /// The last part of where a link points.
    fn link(&self, name: &str) -> Result<Option<String>> {
        let target = self.look.link(format!("{}/{name}", self.path))?;
        Ok(target.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned())))
    }
}
