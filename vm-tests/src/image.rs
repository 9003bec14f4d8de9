//! A node image is a distribution, the Kubernetes packages, and nothing that makes it a node yet.
//!
//! What the agent must put right is left as Debian ships it: containerd's
//! configuration, the host name `localhost`, no kernel modules, no kernel
//! settings, no running kubelet.

mod baked;
mod control_plane;
mod overlay;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Recipe};
use crate::command::run;
use crate::packages::Archive;
use crate::parts::{Parts, Program};
use crate::progress::timed;
pub use overlay::{Content, File};

/// The release of Debian that an image is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    #[default]
    Trixie,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// What a node needs of Debian.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "ca-certificates",
    "cloud-init",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "dbus",
    "e2fsprogs",
    "ethtool",
    "iproute2",
    "iptables",
    "kmod",
    "netbase",
    "nftables",
    "openssl",
    "pciutils",
    "procps",
    "qemu-guest-agent",
    "runc",
    "socat",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// What a node is to be, as far as its image must have it.
enum Purpose<'a> {
    Worker,
    Gpus { agent: &'a Path, repository: &'a Path },
    ControlPlane,
}

impl Purpose<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Worker => "image",
            Self::Gpus { .. } => "baked",
            Self::ControlPlane => "control-plane",
        }
    }
}

/// A disk to boot from, and its kernel.
#[derive(Clone, Debug)]
pub struct Image {
    cache: Cache,
    disk: PathBuf,
    kernel: PathBuf,
}

impl Image {
    /// The image of a blank node: Debian 13 with containerd and the Kubernetes packages.
    pub fn blank(parts: &Parts) -> Result<Self> {
        Self::of(parts, Suite::default())
    }

    /// The image of a blank node with another release of Debian.
    pub fn of(parts: &Parts, suite: Suite) -> Result<Self> {
        Self::made(parts, suite, &Purpose::Worker)
    }

    /// The image of a node for GPUs: `agent` bakes Debian 13's own driver and NVIDIA's container toolkit into the blank one. `repository`
    /// is the folder with the agent's source.
    pub fn baked(parts: &Parts, agent: &Path, repository: &Path) -> Result<Self> {
        Self::made(parts, Suite::default(), &Purpose::Gpus { agent, repository })
    }

    /// The image of a node that may run a control plane: the blank one with the programs of Kubernetes and etcd as container images.
    pub fn control_plane(parts: &Parts) -> Result<Self> {
        Self::made(parts, Suite::default(), &Purpose::ControlPlane)
    }

    fn made(parts: &Parts, suite: Suite, purpose: &Purpose) -> Result<Self> {
        let cache = parts.cache();
        let programs = [parts.program(Program::Kubelet)?, parts.program(Program::Kubeadm)?];
        let toolkit = if let Purpose::Gpus { .. } = purpose { parts.toolkit()? } else { Vec::new() };
        let containers = if let Purpose::ControlPlane = purpose { control_plane::programs(parts)? } else { Vec::new() };
        let archive = Archive::of_this_machine()?;
        let distribution = root::distribution(cache, &archive, suite.name(), PACKAGES)?;
        let mut recipe = root::ingredients(Recipe::new().with(distribution.to_string_lossy().as_bytes()));
        recipe = recipe.with(include_str!("image.rs"));
        for program in programs.iter().chain(containers.iter().map(|(_, program)| program)) {
            // Their folder's name is a digest of what they are made from.
            recipe = recipe.with(program.to_string_lossy().as_bytes());
        }
        let name = purpose.name();
        if let Purpose::Gpus { repository, .. } = purpose {
            recipe = baked::ingredients(recipe, repository, &toolkit)?;
        }
        let directory = cache.entry(&format!("{name}-{}", suite.name()), recipe, |directory| {
            timed(&format!("making the {name} image of a node (Debian {})", suite.name()), || {
                let root = directory.join("root");
                root::unpack(&distribution, &root)?;
                root::customize(&root, &programs, &control_plane::images(&root, &containers))?;
                if let Purpose::Gpus { agent, .. } = purpose {
                    baked::bake(cache, &archive, suite.name(), agent, &toolkit, &root)?;
                }
                fs::copy(root::kernel(&root)?, directory.join("vmlinuz")).context("copying the kernel")?;
                file_system(&root, &directory.join("disk.ext4"))?;
                fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))
            })
        })?;
        for (kind, keep) in [("debian", 2), ("image", 3), ("baked", 2), ("control-plane", 2)] {
            cache.prune(&format!("{kind}-{}", suite.name()), keep)?;
        }
        Ok(Self { cache: cache.clone(), disk: directory.join("disk.ext4"), kernel: directory.join("vmlinuz") })
    }

    /// The disk: a raw ext4 file system without a partition table.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The kernel.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// The same image with the agent in it, enabled and not configured.
    pub fn with_agent(&self, binary: &Path, unit: &Path) -> Result<Self> {
        self.with_files(&[
            File::program("/usr/bin/gpuk-agent", binary)?,
            File::text("/usr/lib/systemd/system/gpuk-agent.service", fs::read_to_string(unit)?),
            File::link(
                "/etc/systemd/system/multi-user.target.wants/gpuk-agent.service",
                "/usr/lib/systemd/system/gpuk-agent.service",
            ),
        ])
    }

    /// The same image with more files in it. The last few of these copies are kept.
    pub fn with_files(&self, files: &[File]) -> Result<Self> {
        let recipe =
            files.iter().fold(Recipe::new().with(self.disk.to_string_lossy().as_bytes()), |recipe, file| file.add_to(recipe));
        let directory = self.cache.entry("image-with", recipe, |directory| {
            timed("adding files to the image", || overlay::write(&self.disk, files, &directory.join("disk.ext4")))
        })?;
        self.cache.prune("image-with", 4)?;
        Ok(Self { disk: directory.join("disk.ext4"), ..self.clone() })
    }
}

/// A sparse ext4 file system with the content of a folder, made without mounting anything.
fn file_system(root: &Path, disk: &Path) -> Result<()> {
    let file = fs::File::create(disk).with_context(|| format!("creating {}", disk.display()))?;
    file.set_len(6 << 30)?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-m", "0", "-L", "root", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    command.args(["-J", "size=16", "-d"]).arg(root).arg(disk);
    command.env("PATH", administrators_path());
    run(&mut command, Duration::from_secs(300)).map(drop)
}

/// `mke2fs`, `debugfs` and `chroot` lie where only root's `$PATH` leads.
fn administrators_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
