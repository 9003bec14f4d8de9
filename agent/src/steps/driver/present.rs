//! What there is of a driver shows in files: its library carries the version in its name, and each kernel lists the module it would load.

use anyhow::Result;

use super::changes::PIN;
use super::dnf::YUM;
use super::kernels::{self, Standing};
use super::packages::{self, Installed};
use super::rules::Flavour;
use super::run_file::SUM;
use crate::facts::loaded_module::loaded_module;
use crate::look::Look;

/// NVML, which every driver has.
const LIBRARY: &str = "libnvidia-ml.so.";

/// Where the GPU Operator's driver container shows its root.
const CONTAINER: &str = "/run/nvidia/driver/usr";

/// What there is of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The version of its libraries, e.g. `535.261.03`.
    pub version: Option<String>,
    /// The flavour of its modules, where something tells.
    pub flavour: Option<Flavour>,
    /// The kernels that need it, the one to run first.
    pub kernels: Vec<Standing>,
    /// Its packages, where dpkg is at home.
    pub packages: Vec<Installed>,
    /// It is in a container of somebody else.
    pub in_container: bool,
    /// This agent installed it, or began to.
    pub is_ours: bool,
}

impl Present {
    /// Looks at the machine or the image.
    pub fn look(look: Look<'_>) -> Result<Self> {
        let packages = packages::installed(look)?;
        let modules = packages.iter().find(|package| package.is_installed() && package.has_modules());
        let of_packages = modules.map(|package| if package.is_open() { Flavour::Open } else { Flavour::Proprietary });
        let loaded = if look.running_system() { loaded_module(look)? } else { None };
        Ok(Self {
            version: library(look)?,
            flavour: of_packages.or(loaded.map(|module| module.flavour)),
            kernels: kernels::kernels(look)?,
            packages,
            in_container: look.exists(CONTAINER)?,
            is_ours: look.exists(PIN)? || look.exists(YUM)? || look.exists(SUM)?,
        })
    }

    /// Whether a kernel would load the module of the libraries' version.
    pub fn has_module(&self, standing: &Standing) -> bool {
        standing.module.is_some() && standing.built.as_ref().is_none_or(|built| Some(built) == self.version.as_ref())
    }

    /// The kernel to run first lacks its module.
    pub fn lacks_module(&self) -> Option<&Standing> {
        self.kernels.first().filter(|standing| !self.has_module(standing))
    }

    /// Packages that dpkg did not finish.
    pub fn half_done(&self) -> Vec<&Installed> {
        self.packages.iter().filter(|package| package.is_half_done()).collect()
    }

    /// Everything is there, for the kernel to run first.
    pub fn is_complete(&self) -> bool {
        self.version.is_some() && !self.kernels.is_empty() && self.lacks_module().is_none() && self.half_done().is_empty()
    }
}

/// The version in the name of the library; where there are several, of the one that its link points at.
fn library(look: Look<'_>) -> Result<Option<String>> {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut directories = vec![multiarch.clone(), "/usr/lib64".to_owned()];
    // Debian keeps each branch in a directory of its own, and links the one in use through /etc/alternatives.
    for branch in look.list(format!("{multiarch}/nvidia"))? {
        directories.push(format!("{multiarch}/nvidia/{branch}"));
    }
    let mut found = None;
    for directory in directories {
        if let Some(target) = look.link(format!("{directory}/{LIBRARY}1"))?
            && let Some(version) = target.file_name().and_then(|name| version_of(&name.to_string_lossy()))
        {
            return Ok(Some(version));
        }
        if found.is_none() {
            found = look.list(&directory)?.iter().find_map(|name| version_of(name));
        }
    }
    Ok(found)
}

fn version_of(name: &str) -> Option<String> {
    let version = name.strip_prefix(LIBRARY)?;
    version.contains('.').then(|| version.to_owned())
}
