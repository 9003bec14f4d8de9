//! The running kernel has state of its own (host name, parameters, unwritten pages) that no file holds.

use std::cell::RefCell;

use anyhow::{Context, Result};

/// Changing the running kernel.
pub trait Kernel {
    /// sethostname(2).
    fn set_hostname(&self, name: &str) -> Result<()>;

    /// sync(2): returns when everything is written.
    fn sync(&self);
}

/// The kernel this program runs on.
pub struct RunningKernel;

impl Kernel for RunningKernel {
    fn set_hostname(&self, name: &str) -> Result<()> {
        nix::unistd::sethostname(name).with_context(|| format!("setting the kernel's host name to {name}"))
    }

    fn sync(&self) {
        nix::unistd::sync();
    }
}

/// A fake: remembers what was asked of it.
#[derive(Default)]
pub struct RecordingKernel {
    /// Every change in order, e.g. `hostname gpu-1`, `sync`.
    pub seen: RefCell<Vec<String>>,
}

impl Kernel for RecordingKernel {
    fn set_hostname(&self, name: &str) -> Result<()> {
        self.seen.borrow_mut().push(format!("hostname {name}"));
        Ok(())
    }

    fn sync(&self) {
        self.seen.borrow_mut().push("sync".to_owned());
    }
}
