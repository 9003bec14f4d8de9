//! A CDI specification names what a container is given of a device; each of its paths must be there, or no container with the device starts.
//!
//! Container Device Interface (CDI) specification 1.1, "SPEC.md"; as `nvidia-ctk cdi generate` writes it.

use std::collections::BTreeSet;

use serde::Deserialize;

/// The part of a specification that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// `nvidia.com/gpu`, or somebody else's.
    pub kind: String,
    /// What can be asked for.
    pub devices: Vec<Device>,
    /// What every container is given that asks for one of them.
    pub container_edits: Edits,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// `0`, `all`, a UUID, `0:1` for a MIG instance.
    pub name: String,
    /// What a container is given that asks for it.
    pub container_edits: Edits,
}

/// What is done to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Edits {
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    host_path: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    host_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hook {
    path: String,
}

impl Spec {
    /// Every path of the host that a container with any of the devices needs, sorted.
    pub fn host_paths(&self) -> BTreeSet<&str> {
        let all = self.devices.iter().map(|device| &device.container_edits).chain([&self.container_edits]);
        all.flat_map(Edits::host_paths).collect()
    }

    /// The numbers N of the nodes `/dev/nvidiaN` that containers can be given: one a GPU.
    pub fn gpus(&self) -> BTreeSet<u32> {
        let number = |path: &str| path.strip_prefix("/dev/nvidia").and_then(|number| number.parse().ok());
        self.host_paths().into_iter().filter_map(number).collect()
    }

    /// The driver's version, as the names of its libraries have it (`libcuda.so.535.261.03`).
    pub fn driver_version(&self) -> Option<&str> {
        let start_of_version = |path: &str| {
            let (_, name) = path.rsplit_once('/')?;
            let version = name.strip_prefix("libcuda.so.").or_else(|| name.strip_prefix("libnvidia-ml.so."))?;
            version.contains('.').then_some(path.len() - version.len())
        };
        self.host_paths().into_iter().find_map(|path| start_of_version(path).map(|start| &path[start..]))
    }
}

impl Device {
    /// Whether a container that asks for it is given a device node in this directory.
    pub fn has_node_in(&self, directory: &str) -> bool {
        self.container_edits.device_nodes.iter().any(|node| node.path.starts_with(directory))
    }
}

impl Edits {
    fn host_paths(&self) -> impl Iterator<Item = &str> {
        let nodes = self.device_nodes.iter().map(|node| node.host_path.as_ref().unwrap_or(&node.path).as_str());
        let mounts = self.mounts.iter().map(|mount| mount.host_path.as_str());
        nodes.chain(mounts).chain(self.hooks.iter().map(|hook| hook.path.as_str()))
    }
}
