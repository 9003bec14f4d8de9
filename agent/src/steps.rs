//! Each file is one thing that must be true of a node.

pub mod allocatable;
pub mod cdi;
pub mod containerd;
pub mod driver;
pub mod gpu_faults;
pub mod gpus;
pub mod hostname;
pub mod identity;
pub mod join;
pub mod k3s;
pub mod kernel;
pub mod kubelet;
pub mod labels;
pub mod mig;
pub mod modules;
pub mod node;
pub mod observed;
pub mod redirects;
pub mod runtime_class;
pub mod toolkit;
pub mod trial;

#[cfg(test)]
mod tests;
