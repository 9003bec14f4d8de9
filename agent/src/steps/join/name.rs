//! kubeadm refuses a name under which a node is Ready, and takes any other node's name over without asking whose it was.

use anyhow::Result;

use super::target::Target;
use super::verdict::{Observation, Verdict};
use crate::config::NameTaken;
use crate::facts::Facts;
use crate::host::cluster::Node;
use crate::identity;
use crate::look::Look;
use crate::step::{Change, Status};
use crate::steps::hostname;

/// What it means for the join that there is a Node of the name: nothing, a warning, or a verdict.
pub fn judge(node: Node, target: &Target, facts: &Facts) -> Result<Option<String>, Verdict> {
    match identity::is_ours(&node.machine_id, &node.system_uuid, facts) {
        Some(true) if is_ready(&node) => Err(Verdict::OwnNodeStillReady),
        Some(true) => Ok(None),
        // An object that somebody made, and no machine has reported to. kubeadm would refuse one that is Ready.
        None if !is_ready(&node) => Ok(None),
        _ if target.name_taken == NameTaken::TakeOver && !is_ready(&node) => {
            Ok(Some(format!("the name {} is taken over: {}", target.name, saw(&node, target))))
        }
        _ => Err(Verdict::NameTaken(Box::new(node))),
    }
}

/// The token may not read nodes, which kubeadm's tokens may.
pub fn unknown(target: &Target, message: &str) -> String {
    format!("whether another machine has the name {} cannot be known: HTTP 403: {message}", target.name)
}

/// Both machines, for a person to tell them apart.
pub fn saw(node: &Node, target: &Target) -> String {
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let ready = match (is_ready(node), node.ready_since.as_str()) {
        (true, _) => "Ready".to_owned(),
        (false, "") => "never Ready".to_owned(),
        (false, since) => format!("not Ready since {since}"),
    };
    format!(
        "Node {} has machine id {}, system UUID {}, address {} and is {ready}; this machine has machine id {}, product UUID {}",
        target.name,
        or_none(&node.machine_id),
        or_none(&node.system_uuid),
        or_none(&node.address),
        or_none(&target.machine_id),
        or_none(target.product_uuid.as_deref().unwrap_or_default()),
    )
}

fn is_ready(node: &Node) -> bool {
    node.condition("Ready").is_some_and(|ready| ready.status == "True")
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
    let mut changes = vec![decision.change()?];
    let differences: Vec<(String, Change)> = hostname::differences(look, &decision.node)?;
    changes.extend(differences.into_iter().map(|(_, change)| change));
    let why = format!("the name should be {}: another machine has {}: {}", decision.node, target.name, saw(holder, target));
    Ok(Some(Status::pending(why, changes)))
}
