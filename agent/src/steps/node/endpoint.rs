//! A kubelet knows one address of its cluster for ever; where the API server is at another one of those configured, it has to be told.
//!
//! A load balancer that was taken away over night and made again in the morning has another address.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;

use crate::config::Role;
use crate::host::cluster::KUBELET_KUBECONFIG;
use crate::host::network::{Answer, Get, Trust, Unreachable, UnreachableKind};
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};
use crate::steps::join::{AUTHORITY, SKEW, rebuilt, server, skew, skew_text};
use crate::steps::kubelet;

/// How long one address may take to prove itself.
const LIMIT: Duration = Duration::from_secs(5);

/// What the configured addresses of a cluster answer.
pub enum Asked {
    /// The one that the node uses proves itself.
    Current,
    /// It does not, and this one does.
    Moved(String),
    /// None does, for this reason.
    Status(Status),
    /// None does, and there is no more to say.
    Nothing,
}

/// The kubelet's address does not answer: what about the others? `None` where there is no more to say than that.
pub async fn elsewhere(look: Look<'_>) -> Result<Option<Status>> {
    // On a control plane node it is the node's own API server.
    if look.config.node.role == Role::ControlPlane {
        return Ok(None);
    }
    let (Some(kubeconfig), Some(authority)) = (look.text(KUBELET_KUBECONFIG)?, look.text(AUTHORITY)?) else { return Ok(None) };
    let Some(current) = server(&kubeconfig) else { return Ok(None) };
    Ok(match ask(look, &current, &authority, "/readyz").await {
        Asked::Current | Asked::Nothing => None,
        Asked::Moved(address) => Some(moved(&kubeconfig, &current, &address)),
        Asked::Status(status) => Some(status),
    })
}

/// Asks the address that the node uses, and those of the configuration, for something that anyone may see.
pub async fn ask(look: Look<'_>, current: &str, authority: &str, path: &str) -> Asked {
    let mut addresses = vec![current.to_owned()];
    for endpoint in look.config.cluster.endpoints.iter().map(ToString::to_string) {
        if !addresses.contains(&endpoint) {
            addresses.push(endpoint);
        }
    }
    // Whoever has a certificate of the cluster's CA is it, whatever the answer says.
    let asked = join_all(addresses.iter().map(|address| prove(look, address, path, Trust::Only(authority.to_owned())))).await;
    match addresses.iter().zip(&asked).find(|(_, answer)| answer.is_ok()) {
        Some((address, _)) if *address == current => return Asked::Current,
        Some((address, _)) => return Asked::Moved(address.clone()),
        None => {}
    }
    let failures: Vec<(&String, &Unreachable)> =
        addresses.iter().zip(&asked).filter_map(|(address, answer)| Some((address, answer.as_ref().err()?))).collect();
    let evidence = failures.iter().map(|(address, failure)| format!("{address}: {failure}")).collect::<Vec<_>>().join("; ");
    if failures.iter().all(|(_, failure)| failure.kind == UnreachableKind::UnknownAuthority) {
        return Asked::Status(Status::Broken(rebuilt(evidence)));
    }
    let out_of_date = failures.iter().find(|(_, failure)| failure.kind == UnreachableKind::CertificateDates);
    let Some((address, failure)) = out_of_date else { return Asked::Nothing };
    // The time stands in any answer, and nothing else in it is believed.
    let answer = prove(look, address, path, Trust::Anyone).await;
    let skew = answer.ok().and_then(|answer| answer.date).map_or(0, |date| skew(date, look.now()));
    if skew.abs() > SKEW { Asked::Status(Status::Waiting(clock_wrong(skew, &failure.text))) } else { Asked::Nothing }
}

async fn prove(look: Look<'_>, address: &str, path: &str, trust: Trust) -> Result<Answer, Unreachable> {
    look.get(Get { url: format!("{address}{path}"), trust, bearer: None, headers: Vec::new(), limit: LIMIT }).await
}

fn moved(kubeconfig: &str, current: &str, address: &str) -> Status {
    // Anything else in the file stays as it is.
    let text: String = kubeconfig.split_inclusive('\n').map(|line| told(line, current, address)).collect();
    let why = format!("the API server does not answer at {current}, and proves itself at {address}");
    let restart = Change::Unit(UnitVerb::Restart, kubelet::UNIT.to_owned());
    Status::pending(why, vec![Change::write_secret(KUBELET_KUBECONFIG, text), restart])
}

fn told(line: &str, current: &str, address: &str) -> String {
    if line.trim_start().starts_with("server:") { line.replace(current, address) } else { line.to_owned() }
}

fn clock_wrong(skew: i64, saw: &str) -> Finding {
    Finding::new(
        "clock-wrong",
        "This machine's clock is wrong",
        format!("it is {} the API server's; {saw}", skew_text(skew)),
        "timedatectl timesync-status (or: chronyc tracking), then repair time synchronisation; everything else goes on by itself",
    )
}
