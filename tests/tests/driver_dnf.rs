//! A driver from a signed repository, installed by real dnf and rpm in a root of its own, which says that it is of the RHEL family.
//!
//! The packages have the names, versions, streams and dependencies of NVIDIA's, and of their files only those by which a driver is known:
//! they cannot show a build, nor what Red Hat's own packages would bring along.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "driver/image.rs"]
mod image;
#[path = "driver/keys.rs"]
mod keys;
#[path = "driver/repository.rs"]
mod repository;

use std::fs::OpenOptions;

use anyhow::{Result, ensure};
use image::{Image, code, put, run};
use repository::{KERNEL, NEW, OLD, Repository};

/// Where the image has its repository.
const REPOSITORY: &str = "srv/repository";

/// Rocky Linux 9 as an image with a signed repository.
struct Rocky {
    image: Image,
}

impl Rocky {
    fn new(version: &str, more: &str) -> Result<Self> {
        vm_tests::Packages::of_repositories().install()?;
        let driver = format!(
            "branch = \"{version}\"\n{more}repository = \"file:///srv/repository\"\nrepository-key = \"/etc/keys/repository.asc\"\n"
        );
        let os = "ID=rocky\nVERSION_ID=9.5\nID_LIKE=\"rhel centos fedora\"\nPLATFORM_ID=\"platform:el9\"\n";
        let image = Image::new(os, KERNEL, &driver)?;
        // The plugins that Red Hat's dnf begins with; Debian's has more.
        put(
            &image.root,
            "etc/dnf/plugins/versionlock.conf",
            "[main]\nenabled = 1\nlocklist = /etc/dnf/plugins/versionlock.list\n",
        )?;
        put(&image.root, "etc/dnf/plugins/versionlock.list", "# Of somebody else.\nzlib-0:1.2.11-40.el9.*\n")?;
        Repository::copy(&image.root.join(REPOSITORY), &image.root.join("etc/keys/repository.asc"))?;
        Ok(Self { image })
    }

    /// Name and version of every package of the driver.
    fn parts(&self) -> Result<Vec<String>> {
        let all =
            run(&mut self.image.command(&["rpm", "--query", "--all", "--queryformat", "%{NAME} %{VERSION}\\n", "*nvidia*"]))?;
        let mut parts: Vec<String> = all.lines().map(str::to_owned).collect();
        parts.sort();
        Ok(parts)
    }

    /// All parts, of this version, with these modules.
    fn expected(version: &str, kmod: &str) -> Vec<String> {
        let others =
            ["libnvidia-ml", "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-kmod-common", "nvidia-persistenced"];
        let mut parts: Vec<String> = others.into_iter().chain([kmod]).map(|name| format!("{name} {version}")).collect();
        parts.sort();
        parts
    }
}

#[test]
fn all_parts_are_of_one_version_and_stay_so() -> Result<()> {
    let rocky = Rocky::new(OLD, "")?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    ensure!(step["text"] == format!("{OLD}, for kernel {KERNEL}, held"), "{step:#}");
    let parts = Rocky::expected(OLD, "kmod-nvidia-open-dkms");
    ensure!(rocky.parts()? == parts, "{:?}", rocky.parts()?);
    rocky.image.up_again()?;
    // What dnf-automatic and people do, with a repository of somebody else that is on and has newer packages.
    let other = "[other]\nname=other\nbaseurl=file:///srv/repository\nenabled=1\ngpgcheck=0\n";
    put(&rocky.image.root, "etc/yum.repos.d/other.repo", other)?;
    for words in
        [&["upgrade"][..], &["upgrade", "nvidia-driver-cuda"], &["--enablerepo=*", "upgrade"], &["install", "nvidia-driver-cuda"]]
    {
        run(&mut rocky.image.command(&[&["dnf", "--assumeyes"][..], words].concat()))?;
        ensure!(rocky.parts()? == parts, "{words:?} moved the driver: {:?}", rocky.parts()?);
    }
    let locks = std::fs::read_to_string(rocky.image.root.join("etc/dnf/plugins/versionlock.list"))?;
    ensure!(locks.starts_with("# Of somebody else.\nzlib-0:1.2.11-40.el9.*\n"), "{locks}");
    // Another version is wanted now, and then the first one again: all parts move together.
    for (from, to) in [(OLD, NEW), (NEW, OLD)] {
        rocky.image.reconfigure(from, to)?;
        let moved = rocky.image.up()?;
        ensure!(moved["verdict"] == "ready", "{moved:#}");
        ensure!(rocky.parts()? == Rocky::expected(to, "kmod-nvidia-open-dkms"), "{:?}", rocky.parts()?);
        rocky.image.up_again()?;
    }
    Ok(())
}

#[test]
fn packages_of_another_key_are_refused() -> Result<()> {
    let rocky = Rocky::new(OLD, "")?;
    let other = keys::Keys::new("rsa3072")?;
    other.export(&rocky.image.root.join("etc/keys/repository.asc"))?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "repository-key-wrong", "{step:#}");
    ensure!(rocky.parts()?.is_empty(), "packages came from a repository that nobody vouches for");
    Ok(())
}

#[test]
fn a_truncated_package_is_not_installed() -> Result<()> {
    let rocky = Rocky::new(OLD, "")?;
    let path = rocky.image.root.join(REPOSITORY).join(format!("libnvidia-ml-{OLD}-1.el9.x86_64.rpm"));
    let whole = std::fs::read(&path)?;
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(file.metadata()?.len() / 2)?;
    let step = rocky.image.up()?;
    ensure!(code(&step) == "package-damaged", "{step:#}");
    ensure!(rocky.parts()?.is_empty(), "a part of it was installed");
    // The repository is whole again, and nobody has to clean up.
    std::fs::write(&path, whole)?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    Ok(())
}

#[test]
fn a_version_that_the_repository_lacks_is_named() -> Result<()> {
    let rocky = Rocky::new("580.999.01", "")?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "driver-not-available", "{step:#}");
    ensure!(step["finding"]["why"].as_str().unwrap_or_default().contains("580.999.01"), "{step:#}");
    Ok(())
}

#[test]
fn a_repository_that_is_not_there_is_waited_for() -> Result<()> {
    let rocky = Rocky::new(OLD, "")?;
    std::fs::rename(rocky.image.root.join(REPOSITORY), rocky.image.root.join("srv/elsewhere"))?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "waiting" && code(&step) == "packages-unreachable", "{step:#}");
    std::fs::rename(rocky.image.root.join("srv/elsewhere"), rocky.image.root.join(REPOSITORY))?;
    ensure!(rocky.image.up()?["verdict"] == "ready", "it does not go on");
    Ok(())
}

#[test]
fn precompiled_modules_come_from_the_stream_without_a_suffix() -> Result<()> {
    let rocky = Rocky::new(OLD, "kernel-modules = \"precompiled\"\n")?;
    let step = rocky.image.up()?;
    ensure!(step["verdict"] == "ready", "{step:#}");
    let parts = Rocky::expected(OLD, &format!("kmod-nvidia-{OLD}-5.14.0-503.11.1"));
    ensure!(rocky.parts()? == parts, "{:?}", rocky.parts()?);
    rocky.image.up_again()
}
