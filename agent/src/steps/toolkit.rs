//! NVIDIA's container toolkit stands in front of runc and puts GPUs into the containers that ask for them.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;
use toml_edit::{DocumentMut, Item, Table, value};

use super::driver::changes::{INSTALL_LIMIT, apt, apt_source, apt_update, run};
use super::driver::dnf::yum_source;
use super::driver::{failures, left_alone};
use crate::config::{Enabled, ToolkitMode};
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Change, Finding, Lane, Stage, Status, Step, Watched};

/// Where the runtime lies: from a package, by hand, or brought by the GPU Operator, which also keeps it.
pub const PLACES: [&str; 2] = ["/usr/bin", "/usr/local/bin"];
const OPERATOR: &str = "/usr/local/nvidia/toolkit";

/// The programs that a container with GPUs needs: the runtime, and what makes and applies CDI specifications.
const PROGRAMS: [&str; 3] = ["nvidia-container-runtime", "nvidia-ctk", "nvidia-cdi-hook"];

/// The package of all of them (NVIDIA Container Toolkit, "Installing the NVIDIA Container Toolkit").
const PACKAGE: &str = "nvidia-container-toolkit";

/// The toolkit's own configuration.
pub const CONFIGURATION: &str = "/etc/nvidia-container-runtime/config.toml";

const APT_SOURCE: &str = "/etc/apt/sources.list.d/gpuk-agent-nvidia-container-toolkit.sources";
const YUM_NAME: &str = "gpuk-agent-nvidia-container-toolkit";
const YUM: &str = "/etc/yum.repos.d/gpuk-agent-nvidia-container-toolkit.repo";

/// The runtime that hands over GPUs is there and configured.
pub struct Toolkit;

#[async_trait(?Send)]
impl Step for Toolkit {
    fn name(&self) -> &'static str {
        "toolkit"
    }

    fn purpose(&self) -> &'static str {
        "NVIDIA's container runtime is installed"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/etc/nvidia-container-runtime")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = left_alone(look, "gpu.toolkit", look.config.gpu.toolkit.install) {
            return Ok(Status::Ready(why));
        }
        if is_operators(look)? {
            return Ok(Status::Ready(format!("the GPU Operator's, in {OPERATOR}, which configures it")));
        }
        let mut missing = Vec::new();
        let mut found = PLACES[0];
        for program in PROGRAMS {
            match place(look, program)? {
                Some(place) => found = place,
                None => missing.push(program),
            }
        }
        if !missing.is_empty() {
            return absent(look, &missing);
        }
        match mode(look)? {
            Some(change) => {
                let mode = look.config.gpu.toolkit.mode.word();
                Ok(Status::pending(format!("{CONFIGURATION} does not say mode {mode:?}"), vec![change]))
            }
            None => Ok(Status::Ready(format!("{} in {found}", PROGRAMS[0]))),
        }
    }

    fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
        failures::judge(failure, look)
    }
}

/// Whether the GPU Operator brings the toolkit, and keeps it.
pub fn is_operators(look: Look<'_>) -> Result<bool> {
    look.exists(format!("{OPERATOR}/{}", PROGRAMS[0]))
}

/// The folder in which one of the programs lies; `None` where it is not installed.
pub fn place(look: Look<'_>, program: &str) -> Result<Option<&'static str>> {
    for place in PLACES {
        if look.exists(format!("{place}/{program}"))? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn absent(look: Look<'_>, missing: &[&str]) -> Result<Status> {
    let toolkit = &look.config.gpu.toolkit;
    let why = format!("there is no {} in {}", missing.join(" and no "), PLACES.join(" or "));
    let finding = |why: String| {
        let remedy = format!("install the package {PACKAGE} into the image, or name its repository under [gpu.toolkit]");
        Status::Broken(Finding::new(
            "toolkit-missing",
            "Containers cannot be given GPUs: NVIDIA's container toolkit is not installed",
            why,
            remedy,
        ))
    };
    if toolkit.install == Enabled::Never {
        return Ok(finding(format!("{why}, and gpu.toolkit.install is \"never\"")));
    }
    let key = toolkit.repository_key.as_ref();
    let source = |path: &str, text: &dyn Fn(&crate::config::Repository, Option<&PathBuf>) -> String| {
        toolkit.repository.iter().map(|repository| Change::write(path, text(repository, key))).collect::<Vec<_>>()
    };
    let mut changes;
    if look.exists("/usr/bin/apt-get")? {
        changes = source(APT_SOURCE, &apt_source);
        changes.extend([apt_update(), apt(INSTALL_LIMIT, &["--no-install-recommends", "install", PACKAGE], &[])]);
    } else if look.exists("/usr/bin/dnf")? {
        changes = source(YUM, &|repository, key| yum_source(YUM_NAME, repository, key));
        let enable = format!("--enablerepo={YUM_NAME}");
        let enable: Vec<&str> = toolkit.repository.iter().map(|_| enable.as_str()).collect();
        let words = [&["dnf", "--assumeyes"], enable.as_slice(), &["install", PACKAGE]].concat();
        changes.push(run(INSTALL_LIMIT, &words, &[]));
    } else {
        return Ok(finding(format!("{why}, and neither apt-get nor dnf")));
    }
    Ok(Status::pending(why, changes))
}

/// What makes the toolkit hand over GPUs in the configured way; `None` where it does. Everything else in the file stays.
fn mode(look: Look<'_>) -> Result<Option<Change>> {
    let wanted = look.config.gpu.toolkit.mode;
    if wanted == ToolkitMode::Auto {
        return Ok(None);
    }
    let text = look.text(CONFIGURATION)?.unwrap_or_default();
    let mut document: DocumentMut = text.parse().with_context(|| format!("reading {CONFIGURATION}"))?;
    let section = document.entry("nvidia-container-runtime").or_insert_with(|| Item::Table(Table::new()));
    let section =
        section.as_table_like_mut().with_context(|| format!("{CONFIGURATION}: nvidia-container-runtime is no table"))?;
    if section.get("mode").and_then(Item::as_str) == Some(wanted.word()) {
        return Ok(None);
    }
    section.insert("mode", value(wanted.word()));
    Ok(Some(Change::write(CONFIGURATION, document.to_string())))
}
