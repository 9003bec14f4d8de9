//! A machine is what it is given: a disc or a service that tells it who it is, firmware, a network, memory.

use std::sync::Arc;

use super::{Gpu, Listener};
use crate::network::Network;
use crate::process::Life;

/// The disc that tells a machine who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disc {
    /// A NoCloud seed with the machine's instance id, user-data and meta-data; the kernel line says so too.
    NoCloud,
    /// An OpenStack config drive with these files by their paths.
    ConfigDrive(Vec<(String, Vec<u8>)>),
    /// None: a metadata service must tell it.
    None,
}

/// What a machine is given.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Its instance id, which is also the name of its folder.
    pub instance_id: String,
    /// Its user-data.
    pub user_data: String,
    /// More lines of its meta-data, for example `local-hostname: web`.
    pub meta_data: String,
    /// The disc that tells it so.
    pub disc: Disc,
    /// What its firmware says, e.g. `type=1,manufacturer=Amazon EC2` (QEMU's option `-smbios`).
    pub firmware: Vec<String>,
    /// More words of the kernel line, e.g. `cloud-init=disabled`.
    pub kernel_line: String,
    /// A network of its own in place of this machine's.
    pub network: Option<Arc<Network>>,
    /// Ports of this machine's 127.0.0.1 that lead to ports of the machine, as from its network.
    pub forwards: Vec<(u16, u16)>,
    /// Ports under which the machine is found at its own address, 10.0.2.15: only in a network where that address is local.
    pub own_ports: Vec<u16>,
    /// In MiB; 1.5 GiB are enough for a worker.
    pub memory: u32,
    /// Virtual processors.
    pub processors: u32,
    /// Cards on its PCI bus, in the order of their addresses; they are played by this program.
    pub gpus: Vec<Gpu>,
    /// How long it lives.
    pub life: Life,
    /// Sees each line of the serial console as it comes.
    pub listener: Listener,
}

impl MachineOptions {
    /// A worker with this instance id and user-data.
    pub fn new(instance_id: &str, user_data: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            user_data: user_data.to_owned(),
            meta_data: String::new(),
            disc: Disc::NoCloud,
            firmware: Vec::new(),
            kernel_line: String::new(),
            network: None,
            forwards: Vec::new(),
            own_ports: Vec::new(),
            memory: 1536,
            processors: 2,
            gpus: Vec::new(),
            life: Life::default(),
            listener: Listener::default(),
        }
    }
}
