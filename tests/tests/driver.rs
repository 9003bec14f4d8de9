//! A driver from a signed archive, installed by this machine's real apt and dpkg in a root of its own: an overlay over the machine.
//!
//! The packages have the names, versions and dependencies of Debian's, and of their files only those by which a driver is known: they
//! cannot show a build.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "driver/archive.rs"]
mod archive;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use archive::{Archive, KERNEL, NEW, OLD, PARTS, put, run};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Debian 12 as an image, over this machine's own files. Its mounts end with the thread of the test.
struct Image {
    root: PathBuf,
    archive: Archive,
    _folder: tempfile::TempDir,
}

impl Image {
    fn new(version: &str) -> Result<Self> {
        vm_tests::Packages::of_archives().install()?;
        let folder = tempfile::tempdir()?;
        let (none, place): (Option<&str>, _) = (None, folder.path());
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace (root only)")?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=1g"))?;
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(place.join(name))?;
        }
        let root = place.join("root");
        let layers = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", place.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))?;
        for name in ["dev", "proc"] {
            mount(Some(&Path::new("/").join(name)), &root.join(name), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        }
        // Nothing of this machine's own sources, kernels and configuration.
        for path in ["etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists", "usr/lib/modules", "etc/gpuk"] {
            let _ = std::fs::remove_dir_all(root.join(path));
            std::fs::create_dir_all(root.join(path))?;
        }
        put(&root, "etc/apt/sources.list", "")?;
        put(&root, "etc/os-release", "ID=debian\nVERSION_ID=12\n")?;
        put(&root, &format!("usr/lib/modules/{KERNEL}/modules.builtin"), "")?;
        let configuration = format!(
            "[cluster]\npatience = \"1s\"\n[gpu.driver]\ninstall = \"always\"\nbranch = \"{version}\"\n\
             repository = \"file:/srv/archive\"\nrepository-key = \"/etc/keys/archive.gpg\"\n"
        );
        put(&root, "etc/gpuk/agent.toml", &configuration)?;
        let archive = Archive::new(&root.join("srv/archive"))?;
        archive.export_key(&root.join("etc/keys/archive.gpg"))?;
        Ok(Self { root, archive, _folder: folder })
    }

    /// What `up` says of the driver.
    fn up(&self) -> Result<Value> {
        let mut agent = Command::new(integration::agent());
        let ran = agent.arg("--root").arg(&self.root).args(["up", "--json"]).env_clear().env("PATH", PATH).output()?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&ran.stdout).context(said)?;
        let steps = answer["steps"].as_array().context("steps")?;
        steps.iter().find(|step| step["name"] == "driver").cloned().context("no step for the driver")
    }

    /// A command in the image, with nothing of the machine's environment.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words).env_clear().env("PATH", PATH).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Name, version and selection of every part of the driver.
    fn parts(&self) -> Result<String> {
        let format = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n"];
        run(&mut self.command(&[&format[..], &PARTS[..]].concat()))
    }
}

/// The code of a step's finding.
fn code(step: &Value) -> &str {
    step["finding"]["code"].as_str().unwrap_or_default()
}

#[test]
fn all_parts_are_of_one_version_and_stay_so() -> Result<()> {
    let image = Image::new(OLD)?;
    let step = image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    ensure!(step["text"] == format!("{OLD}, proprietary modules, for kernel {KERNEL}, held"), "{step:#}");
    let parts = image.parts()?;
    ensure!(parts.lines().count() == PARTS.len(), "{parts}");
    ensure!(parts.lines().all(|line| line.ends_with(&format!(" {OLD}-1 hold installed"))), "{parts}");
    let again = image.up()?;
    ensure!(
        again["verdict"] == "ready" && again["changes"] == Value::Array(Vec::new()),
        "a second run changes something: {again:#}"
    );
    // What unattended-upgrades and people do.
    for words in [&["apt-get", "--yes", "dist-upgrade"][..], &["apt-get", "--yes", "install", "libcuda1", "nvidia-smi"]] {
        run(&mut image.command(words))?;
        ensure!(image.parts()? == parts, "{words:?} moved the driver: {}", image.parts()?);
    }
    let refused = image.command(&["apt-get", "--yes", "install", &format!("nvidia-smi={NEW}-1")]).output()?;
    ensure!(!refused.status.success() && image.parts()? == parts, "the hold does not hold");
    // Another version is wanted now: all parts move together.
    let file = image.root.join("etc/gpuk/agent.toml");
    std::fs::write(&file, std::fs::read_to_string(&file)?.replace(OLD, NEW))?;
    let moved = image.up()?;
    ensure!(moved["verdict"] == "ready", "{moved:#}");
    let parts = image.parts()?;
    ensure!(parts.lines().all(|line| line.ends_with(&format!(" {NEW}-1 hold installed"))), "{parts}");
    Ok(())
}

#[test]
fn an_archive_of_another_key_is_refused() -> Result<()> {
    let image = Image::new(OLD)?;
    let other = Archive::new(&image.root.join("srv/other"))?;
    other.export_key(&image.root.join("etc/keys/archive.gpg"))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "repository-key-wrong", "{step:#}");
    ensure!(image.parts().is_err(), "packages came from an archive that nobody vouches for");
    Ok(())
}

#[test]
fn a_truncated_package_is_not_installed() -> Result<()> {
    let image = Image::new(OLD)?;
    let file = OpenOptions::new().write(true).open(image.archive.file("libnvidia-ml1", OLD))?;
    file.set_len(file.metadata()?.len() / 2)?;
    let step = image.up()?;
    ensure!(code(&step) == "package-damaged", "{step:#}");
    // The archive is whole again, and nobody has to clean up.
    Archive::new(&image.root.join("srv/archive"))?.export_key(&image.root.join("etc/keys/archive.gpg"))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    Ok(())
}

#[test]
fn another_process_with_the_lock_is_waited_for() -> Result<()> {
    let image = Image::new(OLD)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(image.root.join("var/lib/dpkg/lock-frontend"))?;
    let lock = write_lock();
    fcntl(&file, FcntlArg::F_SETLK(&lock)).with_context(|| format!("locking file {}", file.as_raw_fd()))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "waiting" && code(&step) == "package-lock-held", "{step:#}");
    drop(file);
    ensure!(image.up()?["verdict"] == "ready", "it does not go on");
    Ok(())
}

/// The whole file, as dpkg locks it.
fn write_lock() -> nix::libc::flock {
    nix::libc::flock { l_type: nix::libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

#[test]
fn a_full_disk_is_named_and_what_was_left_half_done_is_ended() -> Result<()> {
    let image = Image::new(OLD)?;
    let place = image.root.join("usr/lib/x86_64-linux-gnu/nvidia");
    std::fs::create_dir_all(&place)?;
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "disk-full", "{step:#}");
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=64m"))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    Ok(())
}

#[test]
fn a_version_that_the_archive_lacks_is_named() -> Result<()> {
    let image = Image::new("535.999.01")?;
    let step = image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "driver-not-available", "{step:#}");
    ensure!(step["finding"]["why"].as_str().unwrap_or_default().contains("535.999.01"), "{step:#}");
    Ok(())
}
