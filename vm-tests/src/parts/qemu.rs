//! PCI devices that another process plays need QEMU 10.1 or newer; a newer release's QEMU runs beside the machine's own,
//! with the C library that it came with.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::debian::{Choice, fetch};
use crate::cache::{Cache, Recipe};
use crate::packages::Archive;
use crate::progress::timed;

/// The release whose QEMU is taken: Debian 14, the first with QEMU 10.1.
const SUITE: &str = "forky";

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// How a QEMU is started.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// The words before all others.
    pub words: Vec<String>,
}

impl Qemu {
    /// A program of this machine.
    pub fn installed(program: PathBuf) -> Self {
        Self { program, words: Vec::new() }
    }

    /// A program in a folder with everything that it needs, C library and its loader included.
    fn unpacked(root: &Path) -> Result<Self> {
        let (program, libraries) = (root.join("usr/bin/qemu-system-x86_64"), root.join(LIBRARIES));
        let loader = libraries.join("ld-linux-x86-64.so.2");
        ensure!(
            program.exists() && loader.exists(),
            "Debian {SUITE}'s packages have no {} or no {}",
            program.display(),
            loader.display()
        );
        let mut words = vec!["--library-path".to_owned(), format!("{0}:{0}/qemu", libraries.display())];
        words.extend(["--argv0".to_owned(), "qemu-system-x86_64".to_owned(), program.display().to_string()]);
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            words.extend(["-L".to_owned(), root.join(data).display().to_string()]);
        }
        Ok(Self { program: loader, words })
    }
}

/// The QEMU for machines with devices that are played.
pub(super) fn newer(cache: &Cache) -> Result<Qemu> {
    let archive = Archive::of_this_machine()?;
    let recipe = Recipe::new().with(include_str!("qemu.rs")).with(archive.line(SUITE));
    let directory = cache.entry(&format!("qemu-{SUITE}"), recipe, |directory| {
        timed(&format!("fetching QEMU of Debian {SUITE}"), || {
            fetch(&archive, SUITE, &["qemu-system-x86"], Choice::WithAllTheyNeed, &directory.join("root"))
        })
    })?;
    Qemu::unpacked(&directory.join("root"))
}
