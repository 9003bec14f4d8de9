//! What can be found out about a machine without asking anyone's opinion: gathered once, never changed on the way.

mod gather;
pub mod gpu;
pub mod loaded_module;
pub mod marks;
mod models;
pub mod pci;
mod pci_ids;
mod system_uuid;

use std::collections::BTreeMap;

use serde::Serialize;

pub use gather::{Gathered, gather};
pub use gpu::{Architecture, Gpu, VirtualFunctions};
pub use marks::Marks;
pub use system_uuid::unique_uuid;

/// Everything known about this machine. Absent is `None` or empty; each source is in the field's comment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// `/etc/os-release`.
    pub os: OperatingSystem,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `/sys/class/dmi/id`.
    pub dmi: Dmi,
    /// NVIDIA GPUs on the PCI bus (`/sys/bus/pci/devices`), in the order of their addresses.
    pub gpus: Vec<Gpu>,
    /// Why there may be GPUs and NVSwitches that were not seen.
    pub gpus_unseen: Option<String>,
    /// PCI addresses of NVSwitches (the same place), sorted.
    pub nvswitches: Vec<String>,
    /// Whether `/sys/fs/cgroup` is the unified hierarchy.
    pub cgroup: Option<CgroupVersion>,
    /// Memory in bytes.
    pub memory: u64,
    /// Mounted disks.
    pub disks: Vec<Disk>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The kernel's host name, `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// Who the platform says this machine is.
    pub instance: Option<Instance>,
    /// What the files on the disk tell about its part in a cluster.
    pub marks: Marks,
    /// What could not be looked at, and why (e.g. without root).
    pub unseen: Vec<String>,
    /// How long each source took.
    pub sources: Vec<SourceTiming>,
}

/// How long it took to look somewhere. Two looks never take equally long, so this never makes facts differ.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTiming {
    /// What was looked at, e.g. `firmware`, `files`, `pci`, `metadata`.
    pub name: &'static str,
    /// Microseconds from the first to the last look at it.
    pub took_microseconds: u64,
}

impl PartialEq for SourceTiming {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The distribution (os-release(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatingSystem {
    /// `ID`, e.g. `debian`.
    pub id: String,
    /// `ID_LIKE`, e.g. `debian`.
    pub like: Vec<String>,
    /// `VERSION_ID`, e.g. `13`.
    pub version: String,
    /// `PRETTY_NAME`.
    pub name: String,
}

/// The firmware's description of the machine; a field that may not be read (no root) is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dmi {
    /// `sys_vendor`.
    pub system_vendor: Option<String>,
    /// `product_name`.
    pub product_name: Option<String>,
    /// `product_uuid` (root only).
    pub product_uuid: Option<String>,
    /// `product_serial` (root only).
    pub product_serial: Option<String>,
    /// `board_asset_tag`.
    pub board_asset_tag: Option<String>,
    /// `chassis_asset_tag`.
    pub chassis_asset_tag: Option<String>,
}

/// Which cgroup hierarchy the system runs with (cgroups(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// The unified hierarchy alone.
    V2,
    /// Version 1, or version 1 with a version 2 hierarchy beside it.
    V1,
}

/// One mounted disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Its size in bytes.
    pub size: u64,
    /// What is free for everyone, in bytes.
    pub free: u64,
}

/// Who the platform says this machine is. What it did not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The cloud's row in the table, e.g. `nocloud`; without a row the platform as cloud-init calls it, e.g. `hetzner`, or `cloud-init`;
    /// `none` for a machine on no cloud.
    pub cloud: &'static str,
    /// The instance id. A changed one is a new node.
    pub id: String,
    /// Where that was read.
    pub source: String,
    /// What the platform calls the machine, e.g. the name of a virtual machine, a label, `local-hostname`.
    pub name: Option<String>,
    /// The region, e.g. `eu-west-1`.
    pub region: Option<String>,
    /// The availability zone, e.g. `eu-west-1a`.
    pub zone: Option<String>,
    /// The instance type, e.g. `g4dn.xlarge`.
    pub instance_type: Option<String>,
    /// The address in the platform's own network.
    pub address: Option<String>,
    /// What its owner wrote on it: tags, attributes, metadata. Values that may hold secrets are never among them.
    pub tags: BTreeMap<String, String>,
    /// `spec.providerID` as the cloud's controller expects it, e.g. `aws:///eu-west-1a/i-0abc`.
    pub provider_id: Option<String>,
    /// Why this is a node that the platform manages by itself, e.g. `GKE: attribute cluster-name is "prod"`.
    pub managed: Option<String>,
}
