//! k3s comes with the image: its program, a unit for its role, and what the node registers with must be right before it starts.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::configuration::{self, Cluster, DROP_IN};
use crate::config::Role;
use crate::host::units::{UNIT_DIRECTORIES, UnitState};
use crate::identity;
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};
use crate::steps::kubelet::differences::differences;

/// The step `kubelet` of a k3s node.
pub async fn kubelet(look: Look<'_>) -> Result<Status> {
    let (name, unit_file, unit_text) = match installed(look)? {
        Ok((file, text)) => (super::unit(look.config), file, text),
        Err(finding) => return Ok(Status::Broken(finding)),
    };
    let node = match identity::of(look)? {
        Ok(identity) => identity.name,
        Err(finding) => return Ok(Status::Broken(finding)),
    };
    let registered = configuration::registered(look)?;
    let written = look.text(DROP_IN)?;
    // Server and token come with the join.
    let text = configuration::text(look, &node, &registered.registration, &Cluster::written(look)?);
    if let Some(finding) = configuration::overridden(look, &unit_file, &unit_text, &text)? {
        return Ok(Status::Broken(finding));
    }
    let (mut wrong, mut changes) = (Vec::new(), Vec::new());
    if written.as_deref() != Some(&text) {
        wrong.push("its settings are not written down");
        changes.push(Change::write(DROP_IN, text));
    }
    if look.running_system() {
        let unit = look.unit(name).await?.unwrap_or_default();
        if unit.needs_reload {
            wrong.push("systemd has not read its unit");
            changes.push(Change::Unit(UnitVerb::Reload, name.to_owned()));
        }
        if unit.is_running() && (!changes.is_empty() || is_older(look, &unit)?) {
            wrong.push("k3s runs with other settings");
            changes.push(Change::Unit(UnitVerb::Restart, name.to_owned()));
        }
    }
    if !changes.is_empty() {
        return Ok(Status::pending(wrong.join(", "), changes));
    }
    let flags = registered.registration.flags();
    let flags = if flags.is_empty() { "no labels, taints or provider id of ours".to_owned() } else { flags.join(" ") };
    let now = registered.wanted_now.as_ref();
    let differing = now.and_then(|now| differences(&registered.registration, now, look.config, &node, (DROP_IN, name)));
    let set_again = " (labels in the file are set again at every start of k3s)";
    Ok(Status::Ready(match differing {
        Some(differing) => format!("{unit_file}; {flags}; {differing}{set_again}"),
        None => format!("{unit_file}; {flags}"),
    }))
}

/// The unit's file and its text, once the program that it starts is there, too.
fn installed(look: Look<'_>) -> Result<Result<(String, String), Finding>> {
    let name = super::unit(look.config);
    let is_server = look.config.node.role == Role::ControlPlane;
    let word = if is_server { "server" } else { "agent" };
    let missing = |why: String| {
        Finding::new(
            "k3s-not-installed",
            format!("k3s is not installed as {word}"),
            why,
            format!(
                "in the image, with the cluster's release of k3s: INSTALL_K3S_SKIP_START=true INSTALL_K3S_SKIP_ENABLE=true INSTALL_K3S_VERSION=VERSION \
                 sh install.sh {word}   (the script of https://get.k3s.io), then: gpuk-agent up"
            ),
        )
    };
    for directory in UNIT_DIRECTORIES {
        let file = format!("{directory}/{name}");
        let Some(text) = look.text(&file)? else { continue };
        let start = text.lines().find_map(|line| line.trim().strip_prefix("ExecStart="));
        let program = start.and_then(|start| start.split_whitespace().next()).unwrap_or_default();
        let program = program.trim_start_matches(['-', '@', ':', '+', '!']);
        if program.is_empty() || !look.exists(program)? {
            return Ok(Err(missing(format!("{file} starts {program:?}, which is not there"))));
        }
        return Ok(Ok((file, text)));
    }
    Ok(Err(missing(format!("there is no {name} in {}", UNIT_DIRECTORIES.join(", ")))))
}

/// Whether k3s was started clearly before its settings were written down.
fn is_older(look: Look<'_>, unit: &UnitState) -> Result<bool> {
    let Some(written) = look.modified(DROP_IN)? else { return Ok(false) };
    let age = look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since));
    let started = look.now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    // Both times are rounded on the way, and a join starts k3s right after it wrote.
    Ok(started + Duration::from_secs(2) < written)
}
