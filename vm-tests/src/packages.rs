//! A machine that has never built anything lacks programs; they come from its own package archive.
//!
//! No archive is named here: whatever the machine's apt is configured for is what is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::run;
use crate::progress::{say, timed};

/// Programs and the package that has each.
const NEEDED: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("genisoimage", "genisoimage"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("setpriv", "util-linux"),
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
];

/// What writes a node's packet filter rules, and what tests of them are set up with.
const PACKET_FILTERS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("nft", "nftables"),
    ("iptables-nft", "iptables"),
    ("iptables-legacy", "iptables"),
    ("portmap", "containernetworking-plugins"),
];

/// What makes and signs a package archive.
const ARCHIVES: &[(&str, &str)] = &[("gpg", "gpg"), ("gpgconf", "gpgconf"), ("dpkg-scanpackages", "dpkg-dev")];

/// What makes and signs a repository for dnf, and dnf itself with its plugin `versionlock`.
const REPOSITORIES: &[(&str, &str)] = &[
    ("gpg", "gpg"),
    ("gpgconf", "gpgconf"),
    ("rpmbuild", "rpm"),
    ("createrepo_c", "createrepo-c"),
    ("dnf", "dnf"),
    ("/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py", "dnf-plugins-core"),
];

/// OpenSSH, with everything that a thief would try.
const SSH: &[(&str, &str)] = &[
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("scp", "openssh-client"),
    ("sftp", "openssh-client"),
    ("openssl", "openssl"),
    ("setpriv", "util-linux"),
];

/// QEMU's programs and their packages.
const QEMU: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils")];

/// The oldest QEMU that will do. 7.2 emulates `cmpxchg16b` with wrong flags: Linux 6.12 dies of it within a minute.
const OLDEST_QEMU: u32 = 10;

/// Toolchains that are presupposed, and where to read how to get them.
const PRESUPPOSED: &[(&str, &str)] = &[("go", "Go 1.26.6 or newer"), ("cargo", "Rust 1.95 or newer, with rustup")];

/// The Debian packages that building and running needs.
#[derive(Debug)]
pub struct Packages {
    missing: Vec<&'static str>,
    qemu: Vec<&'static str>,
}

impl Packages {
    /// Looks which programs are missing.
    pub fn look() -> Self {
        let missing = missing_of(NEEDED);
        let qemu = if qemu_version().is_some_and(|version| version >= OLDEST_QEMU) && find("qemu-img").is_some() {
            Vec::new()
        } else {
            QEMU.iter().map(|(_, package)| *package).collect()
        };
        Self { missing, qemu }
    }

    /// Looks only for what tests with packet filters need.
    pub fn of_packet_filters() -> Self {
        Self { missing: missing_of(PACKET_FILTERS), qemu: Vec::new() }
    }

    /// Looks only for what tests with a package archive of their own need.
    pub fn of_archives() -> Self {
        Self { missing: missing_of(ARCHIVES), qemu: Vec::new() }
    }

    /// Looks only for what tests with a repository for dnf need.
    pub fn of_repositories() -> Self {
        Self { missing: missing_of(REPOSITORIES), qemu: Vec::new() }
    }

    /// Looks only for what tests with OpenSSH and a web server need.
    pub fn of_ssh() -> Self {
        Self { missing: missing_of(SSH), qemu: Vec::new() }
    }

    /// The packages that are missing or too old.
    pub fn missing(&self) -> Vec<&'static str> {
        [&self.missing[..], &self.qemu[..]].concat()
    }

    /// Installs what is missing, after saying so.
    pub fn install(&self) -> Result<()> {
        for (program, what) in PRESUPPOSED {
            ensure!(find(program).is_some(), "{program} is not installed: {what} is needed");
        }
        let list = self.missing().join(" ");
        if !list.is_empty() {
            ensure!(
                nix::unistd::geteuid().is_root(),
                "these packages are missing or too old, and only root can install them:\n  apt-get install --no-install-recommends {list}"
            );
            say(format_args!("installing Debian packages: {list}"));
            timed("installing packages", || {
                apt(&["update"])?;
                let install = ["install", "-y", "--no-install-recommends"];
                apt(&[&install[..], &self.missing[..]].concat())?;
                if self.qemu.is_empty() { Ok(()) } else { install_qemu(&self.qemu) }
            })?;
        }
        Ok(())
    }
}

fn missing_of(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = needed.iter().filter(|(program, _)| find(program).is_none());
    let mut missing: Vec<_> = missing.map(|(_, package)| *package).collect();
    missing.dedup();
    missing
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command, Duration::from_secs(900)).map(drop)
}

fn qemu_version() -> Option<u32> {
    let mut command = Command::new(find("qemu-system-x86_64")?);
    let text = run(command.arg("--version"), Duration::from_secs(30)).ok()?;
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// An older release has a newer QEMU among its backports, which are offered to apt for this one time.
fn install_qemu(packages: &[&str]) -> Result<()> {
    let suite = suite_of_this_machine()?;
    let backports = format!("{suite}-backports");
    let usual = fs::read_to_string(MAIN_CONFIGURATION).unwrap_or_default();
    let sources = tempfile::NamedTempFile::with_suffix(".list")?;
    fs::write(sources.path(), format!("{usual}\n{}\n", Archive::of_this_machine()?.line(&backports)))?;
    let option = format!("Dir::Etc::SourceList={}", sources.path().display());
    apt(&["-o", &option, "update"])?;
    apt(&[&["-o", &option, "install", "-y", "--no-install-recommends", "-t", &backports], packages].concat())?;
    ensure!(
        qemu_version().is_some_and(|version| version >= OLDEST_QEMU),
        "QEMU {OLDEST_QEMU} or newer is needed, and neither {suite} nor {backports} has it"
    );
    Ok(())
}

/// Where a program lies: in `$PATH`, where only root's `$PATH` leads, or where Debian has CNI plugins.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = ["/usr/sbin", "/sbin", "/usr/lib/cni"].map(PathBuf::from);
    std::env::split_paths(&path).chain(others).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The machine's package archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where it is.
    pub address: String,
    /// The key that signs it.
    pub keyring: PathBuf,
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Archive {
    /// Reads apt's configuration for the archive that the machine itself is made from.
    pub fn of_this_machine() -> Result<Self> {
        let suite = &suite_of_this_machine()?;
        for file in configuration_files()? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let found = match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => in_stanzas(&text, suite),
                _ => in_lines(&text, suite),
            };
            if let Some(address) = found {
                ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install debian-archive-keyring");
                return Ok(Self { address, keyring: KEYRING.into() });
            }
        }
        bail!("no file in /etc/apt names an archive for {suite}")
    }

    /// An entry for a `sources.list` that offers another release of the same archive.
    pub fn line(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main", self.keyring.display(), self.address)
    }
}

const MAIN_CONFIGURATION: &str = "/etc/apt/sources.list";

/// The name of the release that this machine runs, for example `bookworm`.
pub fn suite_of_this_machine() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no VERSION_CODENAME: is this Debian?")?.to_owned())
}

fn configuration_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in folder {
            files.push(entry?.path());
        }
    }
    let known = |path: &PathBuf| path.extension().is_some_and(|end| end == "sources" || end == "list");
    files.retain(known);
    files.sort();
    let main = PathBuf::from(MAIN_CONFIGURATION);
    if main.exists() {
        files.push(main);
    }
    Ok(files)
}

/// deb822: stanzas of `Key: value`.
fn in_stanzas(text: &str, suite: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let words = |key: &str| -> Vec<&str> {
            let value = stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            value.unwrap_or_default().split_whitespace().collect()
        };
        let fits = words("Types").contains(&"deb") && words("Suites").contains(&suite);
        let fits = fits && !words("Enabled").contains(&"no");
        fits.then(|| words("URIs").first().map(|address| (*address).to_owned()))?
    })
}

/// One line an archive: `deb [options] address suite components`.
fn in_lines(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        let address = words.next()?;
        (words.next()? == suite).then(|| address.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stanzas() {
        let text = "Types: deb\n# note\nURIs: http://archive.example/debian\nSuites: bookworm bookworm-updates\n\n\
                    Types: deb\nURIs: http://archive.example/security\nSuites: bookworm-security\n";
        assert_eq!(in_stanzas(text, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(in_stanzas(text, "trixie"), None);
    }

    #[test]
    fn reads_lines() {
        let text = "# deb http://old.example/ bookworm main\ndeb [arch=amd64 signed-by=/k] http://archive.example/debian bookworm main\n";
        assert_eq!(in_lines(text, "bookworm").as_deref(), Some("http://archive.example/debian"));
    }
}
