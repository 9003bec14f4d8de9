//! A driver from a signed archive, installed by this machine's real apt and dpkg in a root of its own: an overlay over the machine.
//!
//! The packages have the names, versions and dependencies of Debian's, and of their files only those by which a driver is known: they
//! cannot show a build.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "driver/archive.rs"]
mod archive;
#[path = "driver/image.rs"]
mod image;
#[allow(dead_code, reason = "other tests need the rest")]
#[path = "driver/keys.rs"]
mod keys;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use archive::{Archive, KERNEL, NEW, OLD, PARTS};
use image::{Image, code, run};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MsFlags, mount};

/// Debian 12 as an image with a signed archive.
struct Debian {
    image: Image,
    archive: Archive,
}

impl Debian {
    fn new(version: &str) -> Result<Self> {
        vm_tests::Packages::of_archives().install()?;
        let driver =
            format!("branch = \"{version}\"\nrepository = \"file:/srv/archive\"\nrepository-key = \"/etc/keys/archive.asc\"\n");
        let image = Image::new("ID=debian\nVERSION_ID=12\n", KERNEL, &driver)?;
        let archive = Archive::new(&image.root.join("srv/archive"))?;
        archive.export_key(&image.root.join("etc/keys/archive.asc"))?;
        Ok(Self { image, archive })
    }

    /// Name, version and selection of every part of the driver.
    fn parts(&self) -> Result<String> {
        let format = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n"];
        run(&mut self.image.command(&[&format[..], &PARTS[..]].concat()))
    }
}

#[test]
fn all_parts_are_of_one_version_and_stay_so() -> Result<()> {
    let debian = Debian::new(OLD)?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    ensure!(step["text"] == format!("{OLD}, proprietary modules, for kernel {KERNEL}, held"), "{step:#}");
    let parts = debian.parts()?;
    ensure!(parts.lines().count() == PARTS.len(), "{parts}");
    ensure!(parts.lines().all(|line| line.ends_with(&format!(" {OLD}-1 hold installed"))), "{parts}");
    debian.image.up_again()?;
    // What unattended-upgrades and people do.
    for words in [&["apt-get", "--yes", "dist-upgrade"][..], &["apt-get", "--yes", "install", "libcuda1", "nvidia-smi"]] {
        run(&mut debian.image.command(words))?;
        ensure!(debian.parts()? == parts, "{words:?} moved the driver: {}", debian.parts()?);
    }
    let refused = debian.image.command(&["apt-get", "--yes", "install", &format!("nvidia-smi={NEW}-1")]).output()?;
    ensure!(!refused.status.success() && debian.parts()? == parts, "the hold does not hold");
    // Another version is wanted now: all parts move together.
    debian.image.reconfigure(OLD, NEW)?;
    let moved = debian.image.up()?;
    ensure!(moved["verdict"] == "ready", "{moved:#}");
    let parts = debian.parts()?;
    ensure!(parts.lines().all(|line| line.ends_with(&format!(" {NEW}-1 hold installed"))), "{parts}");
    Ok(())
}

#[test]
fn an_archive_of_another_key_is_refused() -> Result<()> {
    let debian = Debian::new(OLD)?;
    let other = Archive::new(&debian.image.root.join("srv/other"))?;
    other.export_key(&debian.image.root.join("etc/keys/archive.asc"))?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "repository-key-wrong", "{step:#}");
    ensure!(debian.parts().is_err(), "packages came from an archive that nobody vouches for");
    Ok(())
}

#[test]
fn a_truncated_package_is_not_installed() -> Result<()> {
    let debian = Debian::new(OLD)?;
    let file = OpenOptions::new().write(true).open(debian.archive.file("libnvidia-ml1", OLD))?;
    file.set_len(file.metadata()?.len() / 2)?;
    let step = debian.image.up()?;
    ensure!(code(&step) == "package-damaged", "{step:#}");
    // The archive is whole again, and nobody has to clean up.
    Archive::new(&debian.image.root.join("srv/archive"))?.export_key(&debian.image.root.join("etc/keys/archive.asc"))?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    Ok(())
}

#[test]
fn another_process_with_the_lock_is_waited_for() -> Result<()> {
    let debian = Debian::new(OLD)?;
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(debian.image.root.join("var/lib/dpkg/lock-frontend"))?;
    let lock = write_lock();
    fcntl(&file, FcntlArg::F_SETLK(&lock)).with_context(|| format!("locking file {}", file.as_raw_fd()))?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "waiting" && code(&step) == "package-lock-held", "{step:#}");
    drop(file);
    ensure!(debian.image.up()?["verdict"] == "ready", "it does not go on");
    Ok(())
}

/// The whole file, as dpkg locks it.
fn write_lock() -> nix::libc::flock {
    nix::libc::flock { l_type: nix::libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

#[test]
fn a_full_disk_is_named_and_what_was_left_half_done_is_ended() -> Result<()> {
    let debian = Debian::new(OLD)?;
    let place = debian.image.root.join("usr/lib/x86_64-linux-gnu/nvidia");
    std::fs::create_dir_all(&place)?;
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "disk-full", "{step:#}");
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=64m"))?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    Ok(())
}

#[test]
fn a_version_that_the_archive_lacks_is_named() -> Result<()> {
    let debian = Debian::new("535.999.01")?;
    let step = debian.image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "driver-not-available", "{step:#}");
    ensure!(step["finding"]["why"].as_str().unwrap_or_default().contains("535.999.01"), "{step:#}");
    Ok(())
}
