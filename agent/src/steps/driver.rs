//! A GPU is of no use without NVIDIA's driver: kernel modules and libraries of one version, for the kernel that runs and the next one.

pub mod decision;
pub mod names;
pub mod rules;
pub mod table;
#[cfg(test)]
mod tests;
