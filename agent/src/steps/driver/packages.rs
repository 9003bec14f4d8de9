//! dpkg keeps what is installed, held or half-installed in one text file that anyone may read (dpkg(1), "/var/lib/dpkg/status").

use anyhow::{Context, Result};

use crate::look::Look;

/// dpkg's status file.
const STATUS: &str = "/var/lib/dpkg/status";

/// A package of the driver that dpkg knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version; empty where only its configuration is left.
    pub version: String,
    /// It is to stay as it is (`hold`).
    pub is_held: bool,
    /// dpkg's word for its state, e.g. `installed`, `half-configured`, `config-files`.
    pub state: String,
}

impl Installed {
    /// All of it is there and set up.
    pub fn is_installed(&self) -> bool {
        self.state == "installed"
    }

    /// dpkg was interrupted in it, or a script of it failed: `dpkg --configure` or a removal has to end that.
    pub fn is_half_done(&self) -> bool {
        ["half-configured", "half-installed", "unpacked", "triggers-awaited", "triggers-pending"].contains(&self.state.as_str())
    }

    /// The driver's version that it belongs to, from its own: `535.261.03-1` and `1:535.261.03-0ubuntu1` are of `535.261.03`.
    pub fn driver(&self) -> Option<&str> {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, version)| version);
        let upstream = version.split(['-', '~', '+']).next()?;
        let mut parts = upstream.split('.');
        let is_branch = parts.next().is_some_and(|first| first.len() == 3 && first.bytes().all(|byte| byte.is_ascii_digit()));
        (is_branch && parts.next().is_some()).then_some(upstream)
    }

    /// It holds the kernel modules or builds them.
    pub fn has_modules(&self) -> bool {
        let name = self.name.as_str();
        name.ends_with("kernel-dkms")
            || name.contains("kernel-open-dkms")
            || name.starts_with("nvidia-dkms-")
            || name.starts_with("linux-modules-nvidia-")
    }

    /// Its kernel modules are the open ones.
    pub fn is_open(&self) -> bool {
        self.name.split('-').any(|part| part == "open")
    }
}

/// The packages of the driver in dpkg's status, whatever their state; none where dpkg is not at home.
pub fn installed(look: Look<'_>) -> Result<Vec<Installed>> {
    let bytes = look.read(STATUS)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split("\n\n").filter(|paragraph| paragraph.contains("nvidia") || paragraph.contains("cuda")).filter_map(read).collect()
}

/// A paragraph of the status file; `None` where it is of no package of the driver.
fn read(paragraph: &str) -> Option<Result<Installed>> {
    let field = |name: &str| {
        let mut lines = paragraph.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let name = field("Package").filter(|name| is_of_driver(name))?;
    let words: Vec<&str> = field("Status").unwrap_or_default().split_whitespace().collect();
    let [want, _, state] = words.as_slice() else {
        return Some(Err(anyhow::anyhow!("package {name} has no state")).context(format!("reading {STATUS}")));
    };
    Some(Ok(Installed {
        name: name.to_owned(),
        version: field("Version").unwrap_or_default().to_owned(),
        is_held: *want == "hold",
        state: (*state).to_owned(),
    }))
}

/// The container toolkit and CUDA's compiler are named alike, and no part of the driver.
fn is_of_driver(name: &str) -> bool {
    let is_other =
        ["nvidia-container", "libnvidia-container", "nvidia-cuda-", "nvidia-docker"].iter().any(|other| name.starts_with(other));
    !is_other && (name.contains("nvidia") || name.starts_with("libcuda") || name.starts_with("libnvcuvid"))
}

#[cfg(test)]
mod tests {
    use super::{Installed, is_of_driver, read};

    fn package(name: &str, version: &str, status: &str) -> Installed {
        let paragraph = format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\nDescription: a: b");
        read(&paragraph).unwrap().unwrap()
    }

    #[test]
    fn a_paragraph_tells_state_hold_and_version() {
        let held = package("nvidia-smi", "535.261.03-1", "hold ok installed");
        assert!(held.is_held && held.is_installed() && !held.is_half_done());
        assert_eq!(held.driver(), Some("535.261.03"));
        let broken = package("nvidia-open-kernel-dkms", "550.163.01-2", "install ok half-configured");
        assert!(broken.is_half_done() && !broken.is_installed() && broken.has_modules() && broken.is_open());
        for (version, driver) in [
            ("535.183.01-0ubuntu0.22.04.1", Some("535.183.01")),
            ("1:580.82.07-1", Some("580.82.07")),
            ("610.57-1~deb13u1", Some("610.57")),
            ("20240109+1", None),
            ("1.17.8-1", None),
            ("6.8.0-1014.15", None),
            ("", None),
        ] {
            assert_eq!(package("nvidia-x", version, "install ok installed").driver(), driver, "{version}");
        }
        assert!(read("Package: nvidia-smi\nVersion: 1").unwrap().is_err());
        assert!(read("Package: bash\nStatus: install ok installed").is_none());
    }

    #[test]
    fn the_toolkit_is_no_part_of_the_driver() {
        for name in ["nvidia-kernel-dkms", "libcuda1", "libnvcuvid1", "linux-modules-nvidia-535-aws", "firmware-nvidia-gsp"] {
            assert!(is_of_driver(name), "{name}");
        }
        for name in ["nvidia-container-toolkit", "libnvidia-container1", "nvidia-cuda-toolkit", "bash"] {
            assert!(!is_of_driver(name), "{name}");
        }
    }
}
