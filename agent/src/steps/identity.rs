//! A copied disk brings another node's name and credentials along: two machines that use them at once are one broken node.

use anyhow::Result;
use async_trait::async_trait;

use super::k3s;
use super::kubelet::UNIT as KUBELET;
use crate::digest::sha256;
use crate::host::cluster::{
    K3S_CERTIFICATE, K3S_KEY, K3S_KUBECONFIG, KUBELET_CERTIFICATE, KUBELET_CERTIFICATES, KUBELET_KUBECONFIG,
};
use crate::identity::decision::{DECISION_FILE, Origin};
use crate::identity::{self, Identity};
use crate::look::Look;
use crate::step::{Change, Finding, Stage, Status, Step, UnitVerb};

/// What a kubelet starts from, besides its certificates (kubeadm, "Implementation details").
const KUBECONFIGS: [&str; 2] = [KUBELET_KUBECONFIG, "/etc/kubernetes/bootstrap-kubelet.conf"];

/// What k3s starts from; the password binds a name to a machine, and another machine needs its own.
const OF_K3S: [&str; 6] = [
    K3S_KUBECONFIG,
    "/etc/rancher/node/password",
    "/var/lib/rancher/k3s/agent/serving-kubelet.crt",
    "/var/lib/rancher/k3s/agent/serving-kubelet.key",
    K3S_KEY,
    K3S_CERTIFICATE,
];

/// The node's name is decided and kept, and nobody else's credentials are on its disk.
pub struct OwnIdentity;

#[async_trait(?Send)]
impl Step for OwnIdentity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn purpose(&self) -> &'static str {
        "the node's name is decided, and no other node's credentials are on its disk"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn may_drift(&self) -> bool {
        false
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        let identity = match identity::of(look)? {
            Ok(identity) => identity,
            Err(finding) => return Ok(Status::Broken(finding)),
        };
        let Some(decision) = &identity.decision else { return Ok(Status::Ready(evidence(look, &identity))) };
        let keep = (identity.kept.as_ref() != Some(decision)).then(|| decision.change()).transpose()?;
        let foreign = match &decision.copied_from {
            Some(origin) => foreign_credentials(look, origin, identity.is_new_copy())?,
            None => Vec::new(),
        };
        if let Some(origin) = decision.copied_from.as_ref().filter(|_| identity.is_new_copy() || !foreign.is_empty())
            && let Some(finding) = copied_control_plane(look, origin)
        {
            return Ok(Status::Broken(finding));
        }
        if foreign.is_empty() {
            return Ok(match keep {
                Some(change) => {
                    Status::pending(format!("the name {} is not kept yet ({})", identity.name, identity.because), vec![change])
                }
                None => Status::Ready(evidence(look, &identity)),
            });
        }
        let mut changes = Vec::new();
        if look.running_system() {
            let service = if k3s::is_wanted(look.config) { k3s::unit(look.config) } else { KUBELET };
            let kubelet = look.unit(service).await?.unwrap_or_default();
            if kubelet.is_running() || kubelet.active == "activating" || kubelet.cannot_start() {
                changes.push(Change::Unit(UnitVerb::Stop, service.to_owned()));
            }
        }
        let removals = foreign.into_iter().map(|path| Change::Remove { path: path.into(), secret: true });
        // With the certificate's digest kept, what is left of a drop that was cut off is known by it. Without a certificate it is known
        // by the decision alone, which is then replaced last.
        if decision.copied_from.as_ref().is_some_and(|origin| origin.certificate.is_some()) {
            changes.extend(keep.into_iter().chain(removals));
        } else {
            changes.extend(removals.collect::<Vec<_>>().into_iter().chain(keep));
        }
        let why = decision.copied_from.as_ref().map_or_else(String::new, |origin| {
            format!("this disk was copied from {}, whose credentials are on it; this node is {}", words(origin), identity.name)
        });
        Ok(Status::pending(why, changes))
    }
}

/// "instance i-1 (node gpu-1)".
fn words(origin: &Origin) -> String {
    format!("instance {} (node {})", origin.instance_id, origin.node)
}

/// Which instance this is, and what would have given the node another name. Why it has its name says the step `hostname`.
fn evidence(look: Look<'_>, identity: &Identity) -> String {
    let named = look.facts.instance.as_ref().filter(|instance| Some(&instance.id) == identity.instance_id.as_ref());
    let mut evidence = match (named, &identity.instance_id) {
        (Some(instance), _) => format!("instance {}, from {}", instance.id, instance.source),
        (None, Some(kept)) => format!("instance {kept}, as {DECISION_FILE} has it"),
        (None, None) => "nothing names the instance".to_owned(),
    };
    let decision = identity.decision.as_ref();
    if let Some(origin) = decision.and_then(|decision| decision.copied_from.as_ref()) {
        evidence.push_str(&format!("; the disk was copied from {}", words(origin)));
    }
    let instead_of = decision.and_then(|decision| decision.instead_of.as_ref());
    if let Some(taken) = instead_of {
        evidence.push_str(&format!("; another machine has the name {taken}"));
    }
    if let Some(other) = identity.would_be.as_ref().filter(|other| Some(*other) != instead_of) {
        let joined = decision.is_some_and(|decision| decision.joined);
        let why = if joined { "a joined node keeps its name" } else { "a name once chosen is kept" };
        evidence.push_str(&format!("; node.name would now give {other}; {why}"));
    }
    evidence
}

/// The files of the other node's membership that are still here, in the order in which they go: what tells that they are the other
/// node's (its client certificate) last, and a link before the file that it leads to.
fn foreign_credentials(look: Look<'_>, origin: &Origin, is_new: bool) -> Result<Vec<String>> {
    if k3s::is_wanted(look.config) {
        return foreign_to_k3s(look, origin, is_new);
    }
    let mut others = Vec::new();
    let mut telling = Vec::new();
    for name in look.list(KUBELET_CERTIFICATES)? {
        let path = format!("{KUBELET_CERTIFICATES}/{name}");
        let digest = look.read(&path)?.map(|bytes| sha256(&bytes));
        let is_telling = digest.is_some() && digest == origin.certificate;
        if is_telling { telling.push(path) } else { others.push(path) }
    }
    if telling.is_empty() && !is_new {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for path in KUBECONFIGS {
        if look.exists(path)? {
            paths.push(path.to_owned());
        }
    }
    telling.sort_by_key(|path| path != KUBELET_CERTIFICATE);
    paths.extend(others.into_iter().chain(telling));
    Ok(paths)
}

/// The same on a node of k3s.
fn foreign_to_k3s(look: Look<'_>, origin: &Origin, is_new: bool) -> Result<Vec<String>> {
    let digest = look.read(K3S_CERTIFICATE)?.map(|bytes| sha256(&bytes));
    let is_telling = digest.is_some() && digest == origin.certificate;
    let mut paths = Vec::new();
    for path in OF_K3S.into_iter().filter(|_| is_telling || is_new) {
        if look.exists(path)? {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// A second etcd member of one name would take the cluster down: that is for a person to decide.
fn copied_control_plane(look: Look<'_>, origin: &Origin) -> Option<Finding> {
    let path = look.facts.marks.control_plane.as_ref()?;
    Some(Finding::new(
        "control-plane-copied",
        "This disk is a copy of a control plane node, and is not touched",
        format!("{DECISION_FILE} is of {}, this is another instance, and there is {path}", words(origin)),
        format!(
            "if that node lives, make this one a new one: kubeadm reset, then gpuk-agent up; \
             if this machine takes the place of that node, which is gone: rm {DECISION_FILE}, then gpuk-agent up"
        ),
    ))
}

#[cfg(test)]
mod tests;
