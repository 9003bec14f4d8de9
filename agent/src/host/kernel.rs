//! The running kernel has state of its own (host name, parameters, unwritten pages) that no file holds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

use super::files::Files;
use crate::facts::Disk;

/// Changing the running kernel.
pub trait Kernel {
    /// sethostname(2).
    fn set_hostname(&self, name: &str) -> Result<()>;

    /// sync(2): returns when everything is written.
    fn sync(&self);

    /// Whether this program may change the machine.
    fn is_root(&self) -> bool;

    /// Memory of the machine in bytes; 0 when it cannot be told.
    fn memory(&self) -> u64;

    /// Mounted disks; network file systems are left out, because asking one can hang.
    fn disks(&self) -> Vec<Disk>;

    /// Major and minor number of a device node; `None` when it is absent.
    fn device_number(&self, path: &Path) -> Result<Option<(u64, u64)>>;

    /// The named files at the top of a disk that is not mounted. Other processes never see the mount.
    fn files_of_disk(&self, device: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>>;
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

    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn memory(&self) -> u64 {
        let wanted = MemoryRefreshKind::nothing().with_ram();
        System::new_with_specifics(RefreshKind::nothing().with_memory(wanted)).map_or(0, |system| system.total_memory())
    }

    fn disks(&self) -> Vec<Disk> {
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage());
        let disk = |disk: &sysinfo::Disk| Disk {
            mount: disk.mount_point().to_string_lossy().into_owned(),
            size: disk.total_space(),
            free: disk.available_space(),
        };
        disks.iter().flat_map(|disks| disks.iter()).map(disk).collect()
    }

    fn device_number(&self, path: &Path) -> Result<Option<(u64, u64)>> {
        match nix::sys::stat::stat(path) {
            Ok(found) => Ok(Some((nix::sys::stat::major(found.st_rdev), nix::sys::stat::minor(found.st_rdev)))),
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
        }
    }

    fn files_of_disk(&self, device: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
        let (device, names) = (device.to_owned(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let reading = format!("reading the files of {device}");
        // A thread may leave the others' mount namespace alone; what it mounts ends with it.
        let thread = std::thread::spawn(move || private_mount(&device, &names));
        thread.join().map_err(|_| anyhow!("the reader ended early")).flatten().context(reading)
    }
}

fn private_mount(device: &str, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("a private mount namespace (root only)")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
    let place = "/run";
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = ["iso9660", "vfat"].iter().find_map(|kind| mount(Some(device), place, Some(*kind), flags, none).ok());
    mounted.with_context(|| format!("{device} is neither an ISO 9660 nor a FAT file system"))?;
    let files = Files::below(Path::new(place))?;
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(bytes) = files.read(Path::new(name))? {
            found.insert(name.clone(), bytes);
        }
    }
    Ok(found)
}

/// A fake: remembers what was asked of it, and has disks of a few files. It cannot show a file system.
#[derive(Default)]
pub struct RecordingKernel {
    /// The files of each disk, by its device.
    pub disks: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The numbers of device nodes, by their paths.
    pub devices: BTreeMap<String, (u64, u64)>,
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

    fn is_root(&self) -> bool {
        true
    }

    fn memory(&self) -> u64 {
        0
    }

    fn disks(&self) -> Vec<Disk> {
        Vec::new()
    }

    fn device_number(&self, path: &Path) -> Result<Option<(u64, u64)>> {
        Ok(self.devices.get(&path.display().to_string()).copied())
    }

    fn files_of_disk(&self, device: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
        let Some(files) = self.disks.get(device) else { bail!("the fake has no disk {device}") };
        let named = files.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Ok(named.map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    }
}
