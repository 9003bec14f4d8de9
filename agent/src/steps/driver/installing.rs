//! What is missing of a driver decides what is done: all of it, the rest of what was cut off, or only the modules of a kernel.

use anyhow::Result;

use super::changes::{self, Ground};
use super::decision::{Decision, Source};
use super::names::{Package, numbers};
use super::packages::Installed;
use super::present::Present;
use super::rules::Flavour;
use super::table::{Manager, Modules};
use super::{blacklist, dnf, grounds};
use crate::look::Look;
use crate::step::{Change, Status};

const DKMS: &str = "/usr/sbin/dkms";

/// What is to be done until the driver is there.
pub fn installing(look: Look<'_>, present: &Present, decision: &Decision, unsuitable: Option<String>) -> Result<Status> {
    if let Some(status) = grounds::missing(look, decision, present)? {
        return Ok(status);
    }
    let wanted: Vec<&str> = match &decision.source {
        Source::Packages { packages, .. } => packages.iter().map(|package| package.name.as_str()).collect(),
        Source::RunFile(_) => Vec::new(),
    };
    let is_of_other = |package: &Installed| {
        let other = package.driver().is_some_and(|version| !version.starts_with(&decision.version_start()));
        // Modules of the same version for other kernels are what there is to go back to.
        let other_flavour = package.has_modules() && package.is_open() != (decision.flavour == Flavour::Open);
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
    let changes = all_of_it(look, present, decision, remove)?;
    let why = match unsuitable {
        Some(why) => format!("the driver that is there is replaced: {why}; {decision}"),
        None => match &present.version {
            Some(version) => format!("driver {version} is not complete; {decision}"),
            None => format!("no driver is installed; {decision}"),
        },
    };
    Ok(Status::pending(why, changes))
}

/// What installs a decided driver from the beginning.
fn all_of_it(look: Look<'_>, present: &Present, decision: &Decision, remove: Vec<&Installed>) -> Result<Vec<Change>> {
    let image = present.kernels.first().map(|standing| standing.kernel.release.as_str()).filter(|_| !look.running_system());
    let ground = Ground { remove, release: image, has_dkms: look.exists(DKMS)? };
    let mut changes = blacklist::changes(look)?;
    changes.extend(changes::install(look, decision, &ground)?);
    Ok(changes)
}

/// What gives a kernel its modules while the driver itself is there.
fn modules_for(look: Look<'_>, present: &Present, decision: &Decision, release: &str) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if let Source::Packages { manager, packages, .. } = &decision.source {
        let is_there = |name: &str| present.packages.iter().any(|package| package.name == name && package.is_installed());
        let is_for = |package: &&Package| package.name.contains(numbers(release)) && !is_there(&package.name);
        let absent: Vec<_> = packages.iter().filter(is_for).cloned().collect();
        if !absent.is_empty() {
            changes.push(match manager {
                Manager::Apt => changes::apt_install(&absent),
                Manager::Dnf => dnf::add(&absent),
            });
        }
    }
    if decision.modules == Modules::Dkms && look.exists(DKMS)? {
        changes.push(changes::build(release));
    }
    // NVIDIA's installer without DKMS makes modules for the running kernel only.
    if changes.is_empty() { all_of_it(look, present, decision, Vec::new()) } else { Ok(changes) }
}
