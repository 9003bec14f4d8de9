//! Each file is one thing that must be true of a node.

pub mod containerd;
pub mod gpu_faults;
pub mod hostname;
pub mod identity;
pub mod join;
pub mod kernel;
pub mod kubelet;
pub mod node;
pub mod observed;
pub mod redirects;

#[cfg(test)]
mod tests;
