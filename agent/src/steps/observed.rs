//! A managed node belongs to its platform, which joins, configures and repairs it: all that is left to do is to look.

use anyhow::Result;
use async_trait::async_trait;

use super::{kubelet, node};
use crate::host::cluster::ClusterError;
use crate::identity;
use crate::look::Look;
use crate::step::{Finding, Stage, Status, Step};

/// A node that someone else manages is well. Never answers with a change.
pub struct Observed;

#[async_trait(?Send)]
impl Step for Observed {
    fn name(&self) -> &'static str {
        "observed"
    }

    fn purpose(&self) -> &'static str {
        "the node that its platform manages is well"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        // One after the other: what cannot be looked at must not hide what an earlier part found.
        let runtime = match runtime(look).await {
            Ok(words) => words,
            Err(finding) => return Ok(Status::Waiting(finding)),
        };
        let kubelet = match kubelet(look).await? {
            Ok(words) => words,
            Err(finding) => return Ok(Status::Waiting(finding)),
        };
        Ok(match node(look).await? {
            Ok(node) => Status::Ready(format!("{runtime}; {kubelet}; {node}")),
            Err(finding) => Status::Waiting(finding),
        })
    }
}

/// The container runtime answers on its socket.
async fn runtime(look: Look<'_>) -> Result<String, Finding> {
    let socket = look.config.containerd.socket.display().to_string();
    let trouble = |why: String| {
        Err(Finding::new(
            "runtime-not-ready",
            "The container runtime is not ready",
            why,
            "journalctl --boot --unit containerd --lines 100",
        ))
    };
    match look.runtime_status(&socket).await {
        Err(error) => trouble(format!("{socket}: {error:#}")),
        Ok(status) if status.runtime_ready => Ok(format!("{socket} answers RuntimeReady")),
        Ok(status) => trouble(format!("{socket}: {}", status.messages.join("; "))),
    }
}

/// systemd runs the kubelet.
async fn kubelet(look: Look<'_>) -> Result<Result<String, Finding>> {
    let unit = look.unit(kubelet::UNIT).await?;
    if unit.as_ref().is_some_and(|unit| unit.is_running()) {
        return Ok(Ok(format!("{} runs", kubelet::UNIT)));
    }
    let why = unit.map_or_else(|| "systemd knows no such unit".to_owned(), |unit| format!("systemd says {}", unit.active));
    let remedy = format!("journalctl --boot --unit {} --lines 100", kubelet::UNIT);
    Ok(Err(Finding::new("kubelet-not-running", "The kubelet does not run", format!("{}: {why}", kubelet::UNIT), remedy)))
}

/// The API server calls the node Ready, where the kubelet's credential lets us ask.
async fn node(look: Look<'_>) -> Result<Result<String, Finding>> {
    let name = match identity::of(look)? {
        Ok(identity) => identity.name,
        Err(finding) => return Ok(Err(finding)),
    };
    Ok(match look.node(&name).await {
        Ok(Some(object)) => match node::judge(look, &name, &object) {
            Status::Waiting(finding) | Status::Broken(finding) => Err(finding),
            Status::Ready(words) | Status::Pending { why: words, .. } => Ok(words),
        },
        Ok(None) => Err(node::not_registered(look, &name)),
        Err(ClusterError::NoCredential(why)) => Ok(format!("the API server was not asked: {why}")),
        Err(error) => Err(node::unreachable(look, &error)),
    })
}

#[cfg(test)]
mod tests;
