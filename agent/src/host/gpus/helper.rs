//! A program that another one carries must be a file before it can be started, and not every machine lets programs start from everywhere.
//!
//! A file comes first, in the state directory where there is one (a look makes none on a machine that the agent does not keep): a
//! program that is in memory only looks like an attack to those who watch for that (Falco, "Fileless execution"), and
//! `vm.memfd_noexec=2` forbids it. A `noexec` mount forbids the file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::{Child, Command};

use super::HelperTrouble;
use crate::digest::sha256;
use crate::host::files::Files;

/// The helper, packed by gzip; empty where the build had none.
const EMBEDDED: &[u8] = include_bytes!(env!("GPUK_NVML_HELPER_FILE"));

/// Where the agent keeps what outlives a boot.
const STATE: &str = "/var/lib/gpuk-agent";

/// Where the helper is kept from boot to boot.
const KEPT: &str = "/var/lib/gpuk-agent/helper";

/// Where it is put for this boot.
const RUNTIME: &str = "/run/gpuk-agent/helper";

/// `MFD_EXEC` of linux/memfd.h: the file is to be a program.
const MFD_EXEC: u32 = 0x10;

/// Starts the configured helper, or else the one that the agent carries, from the first place that lets it start, with these
/// arguments.
pub(super) fn start(files: &Files, configured: Option<&Path>, words: &[&OsStr]) -> Result<Child, HelperTrouble> {
    if let Some(path) = configured {
        return spawn(path, words).map_err(|error| HelperTrouble::CannotStart(format!("{}: {error}", path.display())));
    }
    if EMBEDDED.is_empty() {
        return Err(HelperTrouble::NotEmbedded);
    }
    let mut program = Vec::new();
    flate2::read::GzDecoder::new(EMBEDDED)
        .read_to_end(&mut program)
        .map_err(|error| HelperTrouble::CannotStart(format!("unpacking it: {error}")))?;
    start_carried(files, &program, words)
}

/// Starts this program from the first place that lets it start.
pub(super) fn start_carried(files: &Files, program: &[u8], words: &[&OsStr]) -> Result<Child, HelperTrouble> {
    let from_file = |directory| {
        let path = put(files, Path::new(directory), program)?;
        spawn(&path, words).with_context(|| path.display().to_string())
    };
    let from_memory = || {
        let memory = in_memory(program).context("a file in memory")?;
        spawn(&path_of(&memory), words).context("a file in memory")
    };
    let kept = || if files.exists(Path::new(STATE))? { from_file(KEPT) } else { from_file(RUNTIME) };
    kept()
        .or_else(|first| from_memory().map_err(|second| vec![first, second]))
        .or_else(|former| from_file(RUNTIME).map_err(|last| former.into_iter().chain([last]).collect::<Vec<_>>()))
        .map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
            HelperTrouble::CannotStart(errors.join("; "))
        })
}

/// The program as a file named by its digest; those of former versions are taken away.
fn put(files: &Files, directory: &Path, program: &[u8]) -> Result<PathBuf> {
    let name = format!("gpuk-nvml-{}", &sha256(program)[..16]);
    let path = directory.join(&name);
    if files.mode(&path)? != Some(0o500) || files.read(&path)?.as_deref() != Some(program) {
        files.write(&path, program, 0o500)?;
        for other in files.list(directory)?.iter().filter(|other| **other != name) {
            files.remove(&directory.join(other))?;
        }
    }
    let relative = path.strip_prefix("/").map_err(|_| anyhow!("{} is not a path from the root", path.display()))?;
    Ok(files.root().join(relative))
}

/// The program in a file that has no name and is opened for reading only: the kernel starts none that somebody may write to.
fn in_memory(program: &[u8]) -> Result<OwnedFd> {
    let create = |flags| memfd_create("gpuk-nvml", flags | MFdFlags::MFD_CLOEXEC);
    // Before Linux 6.3 there is no such flag, and no need for it.
    let writable = match create(MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(Errno::EINVAL) => create(MFdFlags::empty()),
        other => other,
    }?;
    let mut writable = File::from(writable);
    writable.write_all(program)?;
    let readable = File::open(path_of(&writable))?;
    Ok(readable.into())
}

/// How an open file is named to execve(2); the name is looked up before the file is closed there.
fn path_of(file: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// The helper itself gives up what it may not do, so that this also holds where somebody starts it by hand.
fn spawn(program: &Path, words: &[&OsStr]) -> std::io::Result<Child> {
    Command::new(program)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
