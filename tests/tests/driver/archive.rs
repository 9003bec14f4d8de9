//! A package archive with a signed Release, as apt-secure(8) and the "Debian Repository Format" describe it, made for one test.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::{put, run};
use crate::keys::Keys;

/// Two versions of branch 535.
pub const OLD: &str = "535.261.03";
/// The one that an upgrade would take.
pub const NEW: &str = "535.274.02";
/// The kernel of the image.
pub const KERNEL: &str = "6.1.0-99-amd64";

/// Debian 12's packages of the driver that have its version.
pub const PARTS: [&str; 7] = [
    "nvidia-kernel-dkms",
    "libcuda1",
    "libnvidia-ml1",
    "libnvidia-ptxjitcompiler1",
    "libnvidia-nvvm4",
    "libnvidia-cfg1",
    "nvidia-smi",
];

/// An archive below a folder.
pub struct Archive {
    folder: PathBuf,
    keys: Keys,
}

impl Archive {
    /// All packages, signed.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let archive = Self { folder: folder.to_owned(), keys: Keys::new("ed25519")? };
        for version in [OLD, NEW] {
            for name in PARTS {
                // The libraries need the others of their very version, as Debian's do.
                let depends =
                    if name == "libcuda1" { format!("libnvidia-ptxjitcompiler1 (= {version}-1)") } else { String::new() };
                archive.package(name, &format!("{version}-1"), &depends, &|root| match name {
                    "libnvidia-ml1" => library(root, version),
                    "nvidia-kernel-dkms" => module(root),
                    _ => Ok(()),
                })?;
            }
        }
        for (name, version) in
            [("nvidia-persistenced", "535.171.04-1"), ("nvidia-modprobe", "535.161.07-1"), ("linux-headers-amd64", "6.1.99")]
        {
            archive.package(name, version, "", &|_| Ok(()))?;
        }
        archive.package(&format!("linux-headers-{KERNEL}"), "6.1.99", "", &|root| {
            put(root, &format!("usr/lib/modules/{KERNEL}/build/Makefile"), "")
        })?;
        archive.sign()?;
        Ok(archive)
    }

    /// Writes the public key of the archive.
    pub fn export_key(&self, file: &Path) -> Result<()> {
        self.keys.export(file)
    }

    /// The file of a package.
    pub fn file(&self, name: &str, version: &str) -> PathBuf {
        self.folder.join(format!("{name}_{version}-1_all.deb"))
    }

    fn package(&self, name: &str, version: &str, depends: &str, fill: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
        let root = tempfile::tempdir()?;
        let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.com>\n{depends}Description: x\n"
        );
        put(root.path(), "DEBIAN/control", &control)?;
        fill(root.path())?;
        let file = self.folder.join(format!("{name}_{version}_all.deb"));
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(root.path()).arg(file)).map(drop)
    }

    /// Lists the packages and signs the list.
    fn sign(&self) -> Result<()> {
        let packages = run(Command::new("dpkg-scanpackages").args(["--multiversion", "."]).current_dir(&self.folder))?;
        std::fs::write(self.folder.join("Packages"), &packages)?;
        let sum = run(Command::new("sha256sum").arg("Packages").current_dir(&self.folder))?;
        let sum = sum.split_whitespace().next().context("a sum")?;
        let date = run(Command::new("date").args(["--utc", "--rfc-email"]))?;
        let release =
            format!("Origin: test\nSuite: test\nDate: {date}Architectures: all\nSHA256:\n {sum} {} Packages\n", packages.len());
        std::fs::write(self.folder.join("Release"), release)?;
        let (from, to) = (self.folder.join("Release").display().to_string(), self.folder.join("InRelease").display().to_string());
        self.keys.gpg(&["--yes", "--output", &to, "--clearsign", &from])
    }
}

/// NVML's file, large enough to fill a small disk.
fn library(root: &Path, version: &str) -> Result<()> {
    let folder = "usr/lib/x86_64-linux-gnu/nvidia/current";
    put(root, &format!("{folder}/libnvidia-ml.so.{version}"), &"x".repeat(256 << 10))?;
    Ok(symlink(format!("libnvidia-ml.so.{version}"), root.join(folder).join("libnvidia-ml.so.1"))?)
}

/// A module that is there already, where DKMS would put the one that it built.
fn module(root: &Path) -> Result<()> {
    put(root, &format!("usr/lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko"), "")?;
    put(root, &format!("usr/lib/modules/{KERNEL}/modules.dep"), "updates/dkms/nvidia-current.ko:\n")
}
