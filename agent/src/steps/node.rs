//! A join is done when the Node object exists with our machine id and boot id and is Ready, not when a program exits 0.

pub mod endpoint;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;

use super::join::joined_onto;
use super::{k3s, kubelet};
use crate::host::cluster::{ClusterError, K3S_CERTIFICATE, KUBELET_CERTIFICATE, Node as NodeObject};
use crate::identity;
use crate::look::Look;
use crate::show::utc;
use crate::step::{Change, Finding, Stage, Status, Step, UnitVerb};

/// A running kubelet registers within 4 s of its start; one whose Node was deleted never does, until it is restarted.
const REGISTERS_WITHIN: Duration = Duration::from_secs(60);

/// When a kubelet was last restarted because it had no Node.
const RESTARTED: &str = "/run/gpuk-agent/node-missing";

/// How long such a restart is not repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// How long a Node is left to its kubelet after it was given up.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// The API server knows this machine and says it is Ready.
pub struct Node;

#[async_trait(?Send)]
impl Step for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn purpose(&self) -> &'static str {
        "the cluster knows this machine and calls it Ready"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    fn needs(&self) -> &'static [&'static str] {
        &["join"]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if !look.config.wants_join() {
            return Ok(Status::Ready("not asked to join a cluster".to_owned()));
        }
        let name = match identity::of(look)? {
            Ok(identity) => identity.name,
            Err(finding) => return Ok(Status::Broken(finding)),
        };
        match look.node(&name).await {
            Ok(Some(node)) if is_given_up(look, &node).await? => Ok(Status::pending(
                format!(
                    "the cluster gave up Node {name} while it did not answer, and its kubelet is slow to notice that it does again"
                ),
                vec![Change::Unit(UnitVerb::Restart, unit_of(look).to_owned())],
            )),
            Ok(Some(node)) => Ok(match (judge(look, &name, &node), joined_onto(look, &node)?) {
                (Status::Ready(evidence), Some(kept)) => Status::Ready(format!("{evidence}; {kept}")),
                (status, _) => status,
            }),
            Ok(None) => missing(look, &name).await,
            Err(error @ ClusterError::Unreachable(_)) => {
                let is_k3s = k3s::is_wanted(look.config);
                let more = if is_k3s { k3s::elsewhere(look).await? } else { endpoint::elsewhere(look).await? };
                Ok(more.unwrap_or_else(|| Status::Waiting(unreachable(look, &error))))
            }
            Err(error) => Ok(Status::Waiting(unreachable(look, &error))),
        }
    }
}

/// The unit that runs the kubelet.
fn unit_of(look: Look<'_>) -> &'static str {
    if k3s::is_wanted(look.config) { k3s::unit(look.config) } else { kubelet::UNIT }
}

/// A kubelet that runs and says nothing, though the API server answers: after an outage it comes back by itself 49 s later, after a
/// restart 2 s later. Once is enough.
async fn is_given_up(look: Look<'_>, node: &NodeObject) -> Result<bool> {
    let is_unknown = node.condition("Ready").is_some_and(|ready| ready.status == "Unknown");
    if !is_unknown || node.boot_id != look.facts.boot_id {
        return Ok(false);
    }
    let Ok(since) = node.ready_since.parse::<jiff::Timestamp>().map(SystemTime::from) else { return Ok(false) };
    let unit = look.unit(unit_of(look)).await?.unwrap_or_default();
    let up = look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since));
    let now = look.now();
    let started = now.checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(unit.is_running() && started < since && since + SILENT_FOR <= now)
}

/// This machine's Node for a step that is about it, by its name; how that step ends where there is none to speak of.
pub(super) async fn own(look: Look<'_>) -> Result<Result<(String, NodeObject), Status>> {
    if !look.config.wants_join() {
        return Ok(Err(Status::Ready("not asked to join a cluster".to_owned())));
    }
    let name = match identity::of(look)? {
        Ok(identity) => identity.name,
        Err(finding) => return Ok(Err(Status::Broken(finding))),
    };
    Ok(match look.node(&name).await {
        Ok(Some(node)) => Ok((name, node)),
        Ok(None) => Err(Status::Waiting(not_registered(look, &name))),
        Err(error) => Err(Status::Waiting(unreachable(look, &error))),
    })
}

/// What the Node object says of this machine. Never `Pending`.
pub(super) fn judge(look: Look<'_>, name: &str, node: &NodeObject) -> Status {
    let facts = look.facts;
    if identity::is_ours(&node.machine_id, &node.system_uuid, facts) != Some(true) {
        return Status::Waiting(Finding::new(
            "node-is-another-machine",
            "Another machine uses this node's name",
            identity::both_machines(node, &facts.machine_id, facts.dmi.product_uuid.as_deref()),
            format!(
                "if the other machine is gone: kubectl delete node {name}, then: systemctl restart {}; if it lives: give one of them another [node] name",
                unit_of(look).trim_end_matches(".service")
            ),
        ));
    }
    if node.boot_id != facts.boot_id {
        return Status::Waiting(Finding::new(
            "node-not-seen-since-boot",
            "The kubelet has not reported since this boot",
            format!("Node {name} still shows boot {:?}", node.boot_id),
            format!("journalctl -b -u {}", unit_of(look)),
        ));
    }
    if node.is_ready() {
        let cordoned = if node.unschedulable { ", but cordoned" } else { "" };
        return Status::Ready(format!("Node {name} is Ready{cordoned}"));
    }
    match node.condition("Ready") {
        Some(ready) => Status::Waiting(Finding::new(
            "node-not-ready",
            "The node is registered but not Ready",
            format!("{}: {}", ready.reason, ready.message),
            format!("kubectl describe node {name}; a CNI that is not installed yet shows as NetworkPluginNotReady"),
        )),
        None => Status::Waiting(Finding::new(
            "node-not-ready",
            "The node is registered but has not reported yet",
            format!("Node {name} has no condition Ready"),
            format!("journalctl -b -u {}", unit_of(look)),
        )),
    }
}

async fn missing(look: Look<'_>, name: &str) -> Result<Status> {
    let unit = look.unit(unit_of(look)).await?.unwrap_or_default();
    let up = look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since));
    // Where it did not help it is not done again at once; a server of k3s takes its API server along.
    let restarted = look.modified(RESTARTED)?.and_then(|when| look.now().duration_since(when).ok());
    let is_server = unit_of(look) == k3s::SERVER_UNIT;
    if unit.is_running() && up > REGISTERS_WITHIN && !is_server && restarted.is_none_or(|ago| ago > AGAIN_AFTER) {
        let why = format!("there is no Node {name}: it was deleted while its kubelet ran, which never registers again by itself");
        let mark = Change::write(RESTARTED, format!("{name}\n{}\n", utc(look.now())));
        return Ok(Status::pending(why, vec![mark, Change::Unit(UnitVerb::Restart, unit_of(look).to_owned())]));
    }
    Ok(Status::Waiting(not_registered(look, name)))
}

/// The API server has no such Node.
pub(super) fn not_registered(look: Look<'_>, name: &str) -> Finding {
    Finding::new(
        "node-not-registered",
        "The kubelet has not registered yet",
        format!("the API server has no Node {name}"),
        format!("journalctl -b -u {}", unit_of(look)),
    )
}

/// The API server could not be asked.
pub(super) fn unreachable(look: Look<'_>, error: &ClusterError) -> Finding {
    let is_k3s = k3s::is_wanted(look.config);
    let (see_server, certificate) = if is_k3s {
        ("grep server: /etc/rancher/k3s/config.yaml.d/50-gpuk-agent.yaml", K3S_CERTIFICATE)
    } else {
        ("grep server: /etc/kubernetes/kubelet.conf", KUBELET_CERTIFICATE)
    };
    match error {
        ClusterError::NoCredential(why) => {
            Finding::new("no-node-credential", "The node has no usable credential", why.as_str(), "gpuk-agent up   (joins again)")
        }
        ClusterError::Unreachable(why) => Finding::new(
            "api-unreachable",
            "The API server does not answer the node",
            why.as_str(),
            format!("{see_server}   (is that address up, and reachable from here?)"),
        ),
        ClusterError::Refused(status, why) => Finding::new(
            "api-refuses",
            "The API server refuses the node's credential",
            format!("HTTP {status}: {why}"),
            format!("openssl x509 -noout -dates -subject -in {certificate}"),
        ),
    }
}

#[cfg(test)]
mod tests;
