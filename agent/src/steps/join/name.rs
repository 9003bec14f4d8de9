//! kubeadm refuses a name under which a node is Ready, and takes any other node's name over without asking whose it was.

use anyhow::Result;

use super::target::Target;
use super::verdict::{Observation, Verdict};
use crate::config::NameTaken;
use crate::facts::Facts;
use crate::host::cluster::Node;
use crate::identity;
use crate::identity::decision::Decision;
use crate::look::Look;
use crate::step::{Change, Status};
use crate::steps::hostname;

/// The `metadata.uid` of the Node that this machine joined onto. What a Node registered with cannot be seen of it; that it was there
/// before can, for as long as it has this uid.
pub const JOINED_ONTO: &str = "/var/lib/gpuk-agent/joined-onto";

/// A Node of the name that a join leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Whose it was, and what that means.
    pub words: String,
    /// Its `metadata.uid`.
    pub uid: String,
}

/// What it means for the join that there is a Node of the name: nothing, that it stays, or a verdict.
pub fn judge(node: Node, target: &Target, facts: &Facts) -> Result<Option<Existing>, Verdict> {
    let existing = |words: String| Existing { words: format!("{words}; {}", keeps(&target.name)), uid: node.uid.clone() };
    match identity::is_ours(&node.machine_id, &node.system_uuid, facts) {
        Some(true) if target.is_node => Ok(None),
        Some(true) if node.is_ready() => Err(Verdict::OwnNodeStillReady(Box::new(node))),
        Some(true) => Ok(Some(existing(format!("Node {} is this machine's own from before", target.name)))),
        // An object that somebody made, and no machine has reported to. kubeadm would refuse one that is Ready.
        None if !node.is_ready() => Ok(None),
        _ if target.name_taken == NameTaken::TakeOver && !node.is_ready() => {
            Ok(Some(existing(format!("the name {} is taken over: {}", target.name, saw(&node, target)))))
        }
        _ => Err(Verdict::NameTaken(Box::new(node))),
    }
}

/// What a kubelet that finds a Node of its name leaves as it is (its `tryRegisterWithAPIServer`).
fn keeps(name: &str) -> String {
    format!("the join keeps that Node's labels, taints and provider id; for ours first: kubectl delete node {name}")
}

/// Keeps which Node the machine joins onto, or forgets an earlier one.
pub fn remember(look: Look<'_>, existing: Option<&Existing>) -> Result<Option<Change>> {
    let before = look.text(JOINED_ONTO)?;
    Ok(match existing {
        Some(existing) if before.as_deref().map(str::trim) != Some(&existing.uid) => {
            Some(Change::write(JOINED_ONTO, format!("{}\n", existing.uid)))
        }
        None if before.is_some() => Some(Change::Remove { path: JOINED_ONTO.into(), secret: false }),
        _ => None,
    })
}

/// What stays to be said of a Node that was there before this machine joined.
pub fn joined_onto(look: Look<'_>, node: &Node) -> Result<Option<String>> {
    let uid = look.text(JOINED_ONTO)?.unwrap_or_default();
    let is_same = !node.uid.is_empty() && uid.trim() == node.uid;
    Ok(is_same.then(|| {
        format!(
            "it was there before this machine joined and keeps its own labels, taints and provider id; for ours: \
             kubectl delete node {}, then: systemctl restart kubelet",
            node.name
        )
    }))
}

/// The token may not read nodes, which kubeadm's tokens may.
pub fn unknown(target: &Target, message: &str) -> String {
    format!("whether another machine has the name {} cannot be known: HTTP 403: {message}", target.name)
}

/// Both machines, for a person to tell them apart.
pub fn saw(node: &Node, target: &Target) -> String {
    identity::both_machines(node, &target.machine_id, target.product_uuid.as_deref())
}

/// With `node.name-taken = "suffix"`: the decision for another name, and the system's name after it. `None` when that is not wanted,
/// not the trouble, or was done already.
pub fn change_to_another(look: Look<'_>, target: &Target, observations: &[Observation]) -> Result<Option<Status>> {
    let holder = observations.iter().find_map(|observation| match &observation.verdict {
        Verdict::NameTaken(node) => Some(node),
        _ => None,
    });
    let (Some(holder), Some(decision), NameTaken::Suffix) = (holder, &target.instead, target.name_taken) else {
        return Ok(None);
    };
    to_another(look, decision, &target.name, &saw(holder, target)).map(Some)
}

/// The decision for another name than this one, which another machine has, and the system's name after it.
pub fn to_another(look: Look<'_>, decision: &Decision, taken: &str, saw: &str) -> Result<Status> {
    let mut changes = vec![decision.change()?];
    let differences: Vec<(String, Change)> = hostname::differences(look, &decision.node, &decision.others())?;
    changes.extend(differences.into_iter().map(|(_, change)| change));
    Ok(Status::pending(format!("the name should be {}: another machine has {taken}: {saw}", decision.node), changes))
}
