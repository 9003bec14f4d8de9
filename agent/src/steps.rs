//! Each file is one thing that must be true of a node.

pub mod containerd;
