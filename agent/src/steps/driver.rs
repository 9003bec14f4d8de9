//! A GPU is of no use without NVIDIA's driver: kernel modules and libraries of one version, for the kernel that runs and the next one.

mod blacklist;
pub(super) mod changes;
mod decision;
pub(super) mod dnf;
pub(super) mod failures;
mod grounds;
mod installing;
mod keeping;
mod kernels;
mod names;
mod packages;
pub(super) mod present;
mod refusals;
pub(super) mod rules;
mod run_file;
mod table;
#[cfg(test)]
mod tests;

use anyhow::Result;
use async_trait::async_trait;

use crate::config::{self, Enabled};
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Finding, Lane, Stage, Status, Step, Watched};
use decision::{Situation, decide};
use installing::installing;
use keeping::kept;
use present::Present;

/// The driver that the GPUs need is installed, for the kernels that will run, and stays as it is.
pub struct Driver;

#[async_trait(?Send)]
impl Step for Driver {
    fn name(&self) -> &'static str {
        "driver"
    }

    fn purpose(&self) -> &'static str {
        "the NVIDIA driver that the GPUs need is installed"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn may_drift(&self) -> bool {
        false
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/lib/modules")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        let present = Present::look(look)?;
        if present.in_container && present.version.is_none() {
            return Ok(Status::Ready("somebody else's driver container has it (/run/nvidia/driver)".to_owned()));
        }
        let install = look.config.gpu.driver.install;
        let is_somebody_elses = has_anything(&present) && !present.is_ours && install != Enabled::Always;
        if install == Enabled::Never || is_somebody_elses {
            return Ok(only_verified(look, &present));
        }
        let unsuitable = unsuitable(look, &present);
        let asked = match unsuitable {
            None => as_it_is(&look.config.gpu.driver, &present),
            Some(_) => look.config.gpu.driver.clone(),
        };
        let kernels: Vec<_> = present.kernels.iter().map(|standing| standing.kernel.clone()).collect();
        let situation = Situation {
            gpus: look.facts.gpus_for_containers(),
            has_nvswitches: !look.facts.nvswitches.is_empty(),
            os: &look.facts.os,
            kernels: &kernels,
            secure_boot: grounds::secure_boot(look)?,
            asked: &asked,
        };
        match unsuitable {
            None if present.is_complete() => kept(look, &present),
            why => match decide(&situation) {
                Ok(decision) => installing(look, &present, &decision, why),
                Err(finding) => Ok(Status::Broken(finding)),
            },
        }
    }

    fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
        failures::judge(failure, look)
    }
}

/// Why the machine needs no driver, or none yet.
pub(super) fn without_gpus(look: Look<'_>) -> Option<String> {
    left_alone(look, "gpu.driver", look.config.gpu.driver.install)
}

/// Why the machine needs nothing for GPUs, or not yet, where a section says of its part that it is installed so.
pub(super) fn left_alone(look: Look<'_>, section: &str, install: Enabled) -> Option<String> {
    let config = &look.config.gpu;
    if config.enabled == Enabled::Never {
        return Some("GPUs are left alone (gpu.enabled)".to_owned());
    }
    if !look.running_system() {
        let left = install != Enabled::Always;
        return left
            .then(|| format!("left for the boot, when GPUs show ({section}.install = \"always\" puts it into the image)"));
    }
    look.facts.gpus_for_containers().is_empty().then(|| "no NVIDIA GPU for containers".to_owned())
}

/// What is asked for where there is a driver that suits: that one, whatever would be chosen for a machine without.
fn as_it_is(asked: &config::Driver, present: &Present) -> config::Driver {
    let mut asked = asked.clone();
    if let Some(branch) = present.version.as_ref().and_then(|version| version.split('.').next()) {
        let line = if present.packages.iter().any(|package| package.name.contains("-server")) { "-server" } else { "" };
        if let Ok(branch) = format!("{branch}{line}").parse() {
            asked.branch = if asked.branch.version.is_some() { asked.branch } else { branch };
        }
    }
    asked.flavour = present.flavour.map_or(asked.flavour, Into::into);
    asked
}

fn has_anything(present: &Present) -> bool {
    present.version.is_some() || !present.half_done().is_empty()
}

/// The driver as it is: `535.261.03, proprietary modules, for kernel 6.1.0-50-amd64`.
fn evidence(present: &Present) -> String {
    let flavour = present.flavour.map(|flavour| format!(", {} modules", flavour.word())).unwrap_or_default();
    let with =
        present.kernels.iter().filter(|standing| present.has_module(standing)).map(|standing| standing.kernel.release.as_str());
    let version = present.version.as_deref().unwrap_or("no version");
    let without = present.kernels.iter().skip(1).filter(|standing| !present.has_module(standing));
    let without = without.map(|standing| {
        let why = standing.failure.as_deref().unwrap_or("not built yet");
        format!("; not for {}: {why}", standing.kernel.release)
    });
    format!("{version}{flavour}, for kernel {}{}", with.collect::<Vec<_>>().join(" and "), without.collect::<String>())
}

/// Why the driver that is there is not what GPUs and configuration ask for. `None` where it is, or where there is none.
fn unsuitable(look: Look<'_>, present: &Present) -> Option<String> {
    let version = present.version.as_ref()?;
    let branch = version.split('.').next()?.parse().ok()?;
    let asked = &look.config.gpu.driver;
    if let Some(flavour) = present.flavour {
        if let Some(why) = look.facts.gpus_for_containers().into_iter().find_map(|gpu| rules::refusal(gpu, branch, flavour)) {
            return Some(why);
        }
        if asked.flavour.named().is_some_and(|asked| asked != flavour) {
            return Some(format!("its modules are the {} ones, and gpu.driver.flavour asks for the others", flavour.word()));
        }
    }
    let is_other = asked.branch.version.as_ref().is_some_and(|asked| asked != version)
        || asked.branch.number.is_some_and(|asked| asked != branch);
    if is_other {
        return Some(format!("it is version {version}, and gpu.driver.branch asks for {}", asked.branch));
    }
    let of_file = asked.run_file.as_ref().and_then(|file| decision::version_of_run_file(&file.to_string_lossy()));
    let of_file = of_file.filter(|of_file| of_file != version && asked.branch.number.is_none());
    of_file.map(|of_file| format!("it is version {version}, and gpu.driver.run-file is of {of_file}"))
}

/// What there is is not touched: it is right, or a person has to mend it.
fn only_verified(look: Look<'_>, present: &Present) -> Status {
    let wrong = unsuitable(look, present);
    match wrong {
        Some(why) => Status::Broken(as_somebody_wanted(present, &why)),
        None if present.is_complete() => Status::Ready(evidence(present)),
        None => {
            let why = match (&present.version, present.lacks_module()) {
                (None, _) => "there is no libnvidia-ml.so".to_owned(),
                (Some(version), Some(standing)) => format!("{version} has no module for kernel {}", standing.kernel.release),
                (Some(version), None) => format!("dpkg did not finish {version}"),
            };
            let (because, word) = match look.config.gpu.driver.install {
                Enabled::Never => ("gpu.driver.install is \"never\"", "auto"),
                _ => ("somebody else than this agent installed what there is", "always"),
            };
            let why = format!("{why}, and {because}");
            let remedy = format!("install the driver into the image, or write install = \"{word}\" under [gpu.driver]");
            Status::Waiting(Finding::new("driver-missing", "The GPUs have no driver", why, remedy))
        }
    }
}

fn as_somebody_wanted(present: &Present, why: &str) -> Finding {
    let version = present.version.as_deref().unwrap_or_default();
    Finding::new(
        "driver-not-as-configured",
        "The driver that somebody else installed does not suit",
        format!("driver {version}: {why}"),
        "write install = \"always\" under [gpu.driver] to have it replaced, or ask for what is there",
    )
}
