//! The libraries of the driver are code that nobody here has read: they are called in a process of its own, with little that it may do.

pub mod confine;
pub mod cuda;
pub mod divide;
mod gpu;
mod instances;
mod mig;
pub mod nvml;
mod placement;
mod profiles;
mod words;
