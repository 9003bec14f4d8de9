//! Dividing a GPU is the one thing that NVML is asked to do, and not to say.

use std::fmt;
use std::path::PathBuf;

use crate::config::MigLayout;

/// How one GPU is to be divided.
#[derive(Clone, Debug, PartialEq)]
pub struct DivideGpu {
    /// The GPU's UUID.
    pub gpu: String,
    /// Its PCI address, for people.
    pub address: String,
    /// How it is to be divided.
    pub layout: MigLayout,
    /// Used in place of the program that the agent carries.
    pub helper: Option<PathBuf>,
    /// Used in place of the `libnvidia-ml.so.1` that the loader finds.
    pub library: Option<PathBuf>,
}

/// `divide GPU 0000:1b:00.0 by MIG into 1g.10gb:4,3g.40gb:1`
impl fmt::Display for DivideGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layout {
            MigLayout::Off => write!(f, "switch MIG mode of GPU {} off", self.address),
            layout => write!(f, "divide GPU {} by MIG into {layout}", self.address),
        }
    }
}
