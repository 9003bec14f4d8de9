//! A node agent is proven by nodes: these are real machines, a real control
//! plane and the real programs between them.
//!
//! [`Parts`] builds the programs, [`Image`] the disk, [`Cluster`] runs a control
//! plane on this machine's loopback interface and [`Machine`] a virtual machine
//! that can reach it. All but the running parts is cached: see [`Cache`].

pub mod cache;
pub mod clouds;
pub mod cluster;
pub mod command;
pub mod image;
pub mod ingress;
pub mod machine;
pub mod network;
pub mod nvml;
pub mod oci;
pub mod packages;
pub mod parts;
pub mod process;
pub mod progress;
pub mod scene;

pub use cache::Cache;
pub use cluster::{Cluster, ClusterOptions};
pub use image::Image;
pub use machine::{Disc, Gpu, Machine, MachineOptions, Output};
pub use network::Network;
pub use packages::Packages;
pub use parts::{Containerd, ContainerdBinaries, Parts, Qemu};
