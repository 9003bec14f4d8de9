//! Pods choose a GPU by labels of its Node, under names that GPU Feature Discovery made common; a node may set them on itself.
//!
//! What the Node was registered with came from the PCI bus, before any driver; this is what NVML says.

mod of_gpus;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use async_trait::async_trait;

use super::driver::without_gpus;
use super::gpus;
use super::node;
use crate::host::apply::Failure;
use crate::host::cluster::{ClusterError, Node};
use crate::look::Look;
use crate::step::{Change, Finding, Lane, Stage, Status, Step};
use of_gpus::{PRODUCT, of_gpus};

/// Labels that GPU Feature Discovery sets and this agent never does: the first can be switched off there (`--no-timestamp`).
const OF_FEATURE_DISCOVERY: [&str; 2] = ["nvidia.com/gfd.timestamp", "nvidia.com/gpu.replicas"];

/// The Node's labels say what its GPUs are.
pub struct Labels;

#[async_trait(?Send)]
impl Step for Labels {
    fn name(&self) -> &'static str {
        "labels"
    }

    fn purpose(&self) -> &'static str {
        "the node's labels say what its GPUs are"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["gpus", "node"]
    }

    fn limit(&self) -> Duration {
        gpus::LIMIT
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        let (name, node) = match node::own(look).await? {
            Ok(found) => found,
            Err(status) => return Ok(status),
        };
        if let Some(label) = OF_FEATURE_DISCOVERY.into_iter().find(|label| node.labels.contains_key(*label)) {
            return Ok(Status::Ready(format!("GPU Feature Discovery labels Node {name} (it has {label}): left to it")));
        }
        let reading = gpus::reading(look).await?;
        let reading = reading.ok_or_else(|| anyhow!("NVML does not say what the GPUs are: no driver is loaded"))?;
        let mut labels = of_gpus(look, &reading)?;
        labels.retain(|label, _| !look.config.node.labels.contains_key(label));
        Ok(compared(name, &node, labels))
    }

    /// That a node may not set them at all (an admission policy of the cluster's own) does not pass by trying again.
    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        let Failure::Other(error) = failure else { return None };
        let Some(ClusterError::Refused(403, why)) = error.downcast_ref() else { return None };
        Some(Status::Broken(Finding::new(
            "labels-refused",
            "The API server does not let this node label itself",
            why.as_str(),
            "gpuk-agent plan   (names the labels; as an administrator: kubectl label node NAME --overwrite LABEL=VALUE ...; or deploy NVIDIA's gpu-feature-discovery)",
        )))
    }
}

/// What of these labels the Node lacks or has otherwise.
fn compared(name: String, node: &Node, labels: BTreeMap<String, String>) -> Status {
    let product = labels.get(PRODUCT).map_or_else(String::new, |product| format!(": {PRODUCT}={product} and others"));
    let differing: BTreeMap<String, String> =
        labels.into_iter().filter(|(label, value)| node.labels.get(label) != Some(value)).collect();
    if differing.is_empty() {
        return Status::Ready(format!("Node {name} is labelled with its GPUs{product}"));
    }
    let others = differing.keys().filter_map(|label| Some(format!("{label}={}", node.labels.get(label)?)));
    let others: Vec<String> = others.collect();
    let others = if others.is_empty() { String::new() } else { format!("; it has {}", others.join(", ")) };
    let why = format!("Node {name} is not labelled with what NVML says of its GPUs{others}");
    Status::pending(why, vec![Change::NodeLabels { node: name, labels: differing }])
}
