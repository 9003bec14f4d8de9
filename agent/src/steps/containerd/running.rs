//! "Active" says that a process runs; only the CRI socket says that pods can start (image-builder#173).

use anyhow::Result;

use super::changes::{RESTART_DUE, UNIT, restart};
use super::view::View;
use super::wanted::Wanted;
use crate::host::programs::Question;
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};

/// Whether containerd runs with this configuration and answers.
pub async fn examine(look: Look<'_>, wanted: &Wanted, view: &View, evidence: String) -> Result<Status> {
    let Some(unit) = look.unit(UNIT).await? else { return Ok(Status::Broken(unit_absent())) };
    if unit.load == "masked" {
        return Ok(Status::Broken(Finding::new(
            "containerd-masked",
            format!("{UNIT} is masked"),
            "systemd refuses to start a masked unit",
            format!("systemctl unmask {UNIT} && systemctl start {UNIT}"),
        )));
    }
    let enable = (unit.file == "disabled").then(|| Change::Unit(UnitVerb::Enable, UNIT.to_owned()));
    if look.exists(RESTART_DUE)? {
        let changes = restart().into_iter().chain(enable).collect();
        return Ok(Status::pending("containerd's files changed and it was not restarted since", changes));
    }
    if unit.active == "activating" || unit.sub == "auto-restart" {
        let why = format!("systemd says {} ({}); {}", unit.active, unit.sub, last_words(look).await);
        return Ok(Status::Waiting(Finding::new(
            "containerd-starting",
            "containerd is being started",
            why,
            format!("journalctl -u {UNIT} -n 50 --no-pager"),
        )));
    }
    if !unit.is_running() {
        let mut why = format!("{UNIT} is {}", unit.active);
        if unit.active == "failed" {
            why = format!("{why} (exit status {}); {}", unit.exit_status, last_words(look).await);
        }
        let start = Change::Unit(UnitVerb::Start, UNIT.to_owned());
        return Ok(Status::pending(why, [start].into_iter().chain(enable).collect()));
    }
    if let Some(enable) = enable {
        return Ok(Status::pending(format!("{UNIT} is not started at boot"), vec![enable]));
    }
    let socket = &wanted.socket;
    let status = match look.runtime_status(socket).await {
        Ok(status) => status,
        Err(error) => {
            return Ok(Status::Waiting(Finding::new(
                "containerd-silent",
                format!("{UNIT} is active, but nobody answers CRI calls on {socket}"),
                format!("{error:#}"),
                format!("journalctl -u {UNIT} -n 50 --no-pager; ls -l {socket}"),
            )));
        }
    };
    if !status.runtime_ready {
        return Ok(Status::Waiting(Finding::new(
            "containerd-not-ready",
            "containerd answers CRI calls, but cannot start pods",
            status.messages.join("; "),
            format!("journalctl -u {UNIT} -n 50 --no-pager"),
        )));
    }
    // Since 2.0 containerd lists its runtimes, so one that reads older files than these is seen.
    let missing: Vec<&str> =
        view.runtimes.keys().map(String::as_str).filter(|name| !status.handlers.iter().any(|one| one == name)).collect();
    if !status.handlers.is_empty() && !missing.is_empty() {
        let why = format!("the running containerd does not know {}, which its files define", missing.join(", "));
        return Ok(Status::pending(why, vec![Change::Unit(UnitVerb::Restart, UNIT.to_owned())]));
    }
    let network = if status.network_ready { "" } else { "; no CNI configuration yet" };
    Ok(Status::Ready(format!("{evidence}; {socket} answers RuntimeReady{network}")))
}

async fn last_words(look: Look<'_>) -> String {
    // The journal is a convenience here: without it the state alone must do.
    let log =
        look.ask(Question::UnitLog { unit: UNIT.to_owned(), lines: 20 }).await.map(|output| output.stdout).unwrap_or_default();
    match log.lines().map(str::trim).rfind(|line| line.contains("level=fatal") || line.contains("containerd: ")) {
        Some(line) => format!("containerd said: {line}"),
        None => format!("see journalctl -u {UNIT}"),
    }
}

fn unit_absent() -> Finding {
    Finding::new(
        "containerd-unit-absent",
        format!("containerd is installed, but there is no {UNIT}"),
        "systemd knows no unit of that name",
        "install the distribution's containerd package, or containerd.service of the release archive into /usr/local/lib/systemd/system, \
         then: systemctl daemon-reload",
    )
}
