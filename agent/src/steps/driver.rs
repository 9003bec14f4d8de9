//! A GPU is of no use without NVIDIA's driver: kernel modules and libraries of one version, for the kernel that runs and the next one.

mod blacklist;
pub(super) mod changes;
mod decision;
pub(super) mod failures;
mod grounds;
mod kernels;
mod names;
mod packages;
pub(super) mod present;
mod refusals;
pub(super) mod rules;
mod table;
#[cfg(test)]
mod tests;

use anyhow::Result;
use async_trait::async_trait;

use crate::config::{self, Enabled};
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Change, Finding, Lane, Stage, Status, Step, Watched};
use changes::Ground;
use decision::{Decision, Situation, Source, decide};
use present::Present;
use table::{Manager, Modules};

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
    is_other.then(|| format!("it is version {version}, and gpu.driver.branch asks for {}", asked.branch))
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

/// The driver is there and right. What the agent installed is also kept at its version.
/// The next kernel gets its module from the packages' own hooks; that it has none yet is told and takes nothing from the running one.
fn kept(look: Look<'_>, present: &Present) -> Result<Status> {
    let version = present.version.clone().unwrap_or_default();
    if present.is_ours && look.exists(changes::PIN)? {
        let packages: Vec<_> = present.packages.iter().filter(|package| package.is_installed()).collect();
        let parts: Vec<_> = packages.iter().copied().filter(|package| package.driver() == Some(&version)).collect();
        let is_pinned = look.text(changes::PIN)?.as_deref() == Some(&changes::pin(&format!("{version}*")));
        if !is_pinned || parts.iter().any(|package| !package.is_held) {
            let why = format!("driver {version} is installed, and not kept at that version");
            return Ok(Status::pending(why, changes::keep(&version, &parts)));
        }
        let blacklist = blacklist::changes(look)?;
        if !blacklist.is_empty() {
            return Ok(Status::pending("nouveau may still take the GPUs", blacklist));
        }
        return Ok(Status::Ready(format!("{}, held", evidence(present))));
    }
    Ok(Status::Ready(evidence(present)))
}

/// What is to be done until the driver is there.
fn installing(look: Look<'_>, present: &Present, decision: &Decision, unsuitable: Option<String>) -> Result<Status> {
    if let Some(status) = grounds::missing(look, decision, present)? {
        return Ok(status);
    }
    let wanted: Vec<&str> = match &decision.source {
        Source::Packages { packages, .. } => packages.iter().map(|package| package.name.as_str()).collect(),
        Source::RunFile(_) => Vec::new(),
    };
    let is_of_other = |package: &packages::Installed| {
        let other = package.driver().is_some_and(|version| !version.starts_with(&decision.version_start()));
        // Modules of the same version for other kernels are what there is to go back to.
        let other_flavour = package.has_modules() && package.is_open() != (decision.flavour == rules::Flavour::Open);
        package.state != "config-files" && (other_flavour || other) && !wanted.contains(&package.name.as_str())
    };
    let remove: Vec<_> = present.packages.iter().filter(|package| is_of_other(package)).collect();
    let half_done = present.half_done();
    let resumes = half_done.iter().any(|package| !remove.contains(package));
    if resumes && remove.is_empty() {
        let names: Vec<&str> = half_done.iter().map(|package| package.name.as_str()).collect();
        let failure = present.kernels.first().and_then(|standing| standing.failure.as_ref());
        let failure = failure.map(|failure| format!(" ({failure})")).unwrap_or_default();
        let why = format!("dpkg did not finish {}{failure}; {decision}", names.join(", "));
        return Ok(Status::pending(why, vec![changes::configure_rest()]));
    }
    if let (None, Some(standing), Some(version), true) =
        (&unsuitable, present.lacks_module(), &present.version, remove.is_empty())
    {
        let release = &standing.kernel.release;
        let changes = modules_for(look, present, decision, release)?;
        let failure = standing.failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default();
        return Ok(Status::pending(format!("driver {version} has no module for kernel {release}{failure}; {decision}"), changes));
    }
    let image = present.kernels.first().map(|standing| standing.kernel.release.as_str()).filter(|_| !look.running_system());
    let ground = Ground { remove, release: image, has_dkms: look.exists("/usr/sbin/dkms")? };
    let mut changes = changes::install(decision, &look.config.gpu.driver, &ground);
    changes.splice(0..0, blacklist::changes(look)?);
    let why = match unsuitable {
        Some(why) => format!("the driver that is there is replaced: {why}; {decision}"),
        None => match &present.version {
            Some(version) => format!("driver {version} is not complete; {decision}"),
            None => format!("no driver is installed; {decision}"),
        },
    };
    Ok(Status::pending(why, changes))
}

/// What gives a kernel its modules while the driver itself is there.
fn modules_for(look: Look<'_>, present: &Present, decision: &Decision, release: &str) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if let Source::Packages { manager: Manager::Apt, packages, .. } = &decision.source {
        let is_there = |name: &str| present.packages.iter().any(|package| package.name == name && package.is_installed());
        let absent: Vec<_> =
            packages.iter().filter(|package| package.name.contains(release) && !is_there(&package.name)).cloned().collect();
        if !absent.is_empty() {
            changes.push(changes::apt_install(&absent));
        }
    }
    if decision.modules == Modules::Dkms && look.exists("/usr/sbin/dkms")? {
        changes.push(changes::build(release));
    }
    Ok(changes)
}
