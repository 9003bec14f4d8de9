//! A release's packages can be unpacked beside a running system: nothing of it is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Recipe};
use crate::command::run;
use crate::packages::{Archive, suite_of_this_machine};
use crate::progress::{say, timed};

const PACKAGES: [&str; 2] = ["containerd", "runc"];
const PROGRAMS: [&str; 4] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc"];
const LIMIT: Duration = Duration::from_secs(300);

/// The folder with a release's own containerd and runc.
pub(super) fn containerd(cache: &Cache, suite: &str) -> Result<PathBuf> {
    let archive = Archive::of_this_machine()?;
    let recipe = Recipe::new().with(include_str!("debian.rs")).with(archive.line(suite));
    let directory = cache.entry(&format!("containerd-{suite}"), recipe, |directory| {
        timed(&format!("fetching containerd of Debian {suite}"), || unpack(&archive, suite, directory))
    })?;
    Ok(directory.join("bin"))
}

fn unpack(archive: &Archive, suite: &str, directory: &Path) -> Result<()> {
    let root = directory.join("root");
    fetch(archive, suite, &PACKAGES, Choice::Alone, &root)?;
    fs::create_dir(directory.join("bin"))?;
    for program in PROGRAMS {
        let places = ["usr/bin", "usr/sbin"].map(|folder| Path::new("../root").join(folder).join(program));
        let place = places.iter().find(|place| directory.join("bin").join(place).exists());
        let place = place.with_context(|| format!("Debian {suite}'s packages have no {program}"))?;
        symlink(place, directory.join("bin").join(program))?;
    }
    if run(Command::new(directory.join("bin/runc")).arg("--version"), LIMIT).is_err() {
        // A newer release's runc wants a newer C library than this machine has, and containerd does not.
        let own = suite_of_this_machine()?;
        say(format_args!("the runc of Debian {suite} does not run here; {own}'s takes its place"));
        fetch(archive, &own, &["runc"], Choice::Alone, &root)?;
    }
    Ok(())
}

/// Which packages to fetch besides those that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// None: this machine's libraries will do.
    Alone,
    /// All that they depend on, the C library included.
    WithAllTheyNeed,
}

/// Unpacks a release's packages into `root`, with an apt that knows nothing of this machine's packages.
pub(super) fn fetch(archive: &Archive, suite: &str, packages: &[&str], choice: Choice, root: &Path) -> Result<()> {
    let state = tempfile::tempdir().context("making a folder for apt's state")?;
    let downloads = state.path().join("downloads");
    for folder in ["lists/partial", "cache/archives/partial", "downloads"] {
        fs::create_dir_all(state.path().join(folder))?;
    }
    fs::write(state.path().join("sources.list"), archive.line(suite) + "\n")?;
    fs::write(state.path().join("status"), "")?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (option, file) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", state.path().join(file).display()));
        }
        command.args(["-o", "APT::Sandbox::User=root"]).args(arguments).current_dir(&downloads);
        run(&mut command, LIMIT)
    };
    apt(&["update"])?;
    let fetched = match choice {
        Choice::Alone => {
            apt(&[&["download"], packages].concat())?;
            downloads.clone()
        }
        Choice::WithAllTheyNeed => {
            apt(&[&["install", "-y", "--download-only", "--no-install-recommends"], packages].concat())?;
            state.path().join("cache/archives")
        }
    };
    for file in fs::read_dir(&fetched)? {
        let package = file?.path();
        if package.extension().is_some_and(|end| end == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(package).arg(root), LIMIT)?;
        }
    }
    Ok(())
}
