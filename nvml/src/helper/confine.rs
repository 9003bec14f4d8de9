//! As root, NVML makes device nodes and starts `nvidia-modprobe`; a look must not change a machine.

use std::os::fd::OwnedFd;

use rustix::io::{Result, fcntl_dupfd_cloexec};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdout, stderr, stdout};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// Standard output for us alone: whoever writes to it from now on writes to standard error.
pub fn standard_output() -> Result<OwnedFd> {
    let document = fcntl_dupfd_cloexec(stdout(), 3)?;
    dup2_stdout(stderr())?;
    Ok(document)
}

/// Ends with the one who asked, however that one ends: nobody else waits for the answer.
pub fn end_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
}

/// What a look keeps: the driver asks for CAP_SYS_ADMIN before it tells of a divided GPU (NVIDIA, MIG User Guide, "Device Nodes and
/// Capabilities").
pub const TO_LOOK: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// What dividing keeps. With CAP_SYS_ADMIN goes every one of the driver's own capabilities, `mig/config` among them (as above), so that
/// `/dev/nvidia-caps/nvidia-cap1` need not be opened; with CAP_MKNOD the library makes the new instances' nodes beside it, without which
/// no container is given them (NVIDIA/mig-parted#82).
pub const TO_DIVIDE: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::MKNOD);

/// Gives up every capability but these, for good: no program that is started gets one back (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub fn give_up_capabilities_but(kept: CapabilitySet) -> Result<()> {
    set_no_new_privs(true)?;
    let kept = kept & capabilities(None)?.permitted;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
}
