//! A GPU that works is of use to nobody until the cluster's scheduler counts it: that is the device plugin's doing, not the node's.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use gpuk_nvml::Reading;

use super::cdi;
use super::driver::without_gpus;
use super::gpus;
use super::node;
use crate::config::Runtime;
use crate::host::cluster::{Node, Offered};
use crate::look::Look;
use crate::step::{Finding, Lane, Stage, Status, Step};

/// Where device plugins register with the kubelet, each by a socket of its own (Kubernetes documentation, "Device Plugins").
const SOCKETS: &str = "/var/lib/kubelet/device-plugins";

/// The name by which pods ask for the runtime that hands over GPUs.
const RUNTIME_CLASS: &str = "nvidia";

/// The cluster hands out this node's GPUs.
pub struct Allocatable;

#[async_trait(?Send)]
impl Step for Allocatable {
    fn name(&self) -> &'static str {
        "allocatable"
    }

    fn purpose(&self) -> &'static str {
        "the cluster hands out this node's GPUs"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["trial", "node"]
    }

    fn limit(&self) -> Duration {
        gpus::LIMIT
    }

    /// A cluster may have no device plugin at all: a fleet that waits for one must cost its API server nothing.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        let node = match node::own(look).await? {
            Ok((_, node)) => node,
            Err(status) => return Ok(status),
        };
        if let Some(finding) = without_runtime_class(look).await? {
            return Ok(Status::Waiting(finding));
        }
        let reading = gpus::reading(look).await?.unwrap_or_default();
        offered(look, &node, &Present::of(look, &reading)?)
    }
}

/// Pods that name the class are refused where there is none; a worker may not make one.
async fn without_runtime_class(look: Look<'_>) -> Result<Option<Finding>> {
    if look.config.containerd.default_runtime == Runtime::Nvidia {
        return Ok(None);
    }
    let why = match look.runtime_class(RUNTIME_CLASS).await {
        Ok(Some(handler)) if handler == RUNTIME_CLASS => return Ok(None),
        Ok(Some(handler)) => format!("RuntimeClass {RUNTIME_CLASS} has the handler {handler:?}"),
        Ok(None) => format!("there is no RuntimeClass {RUNTIME_CLASS}"),
        Err(error) => return Ok(Some(node::unreachable(look, &error))),
    };
    Ok(Some(Finding::new(
        "runtime-class-missing",
        "Pods cannot ask for the runtime that hands over GPUs",
        why,
        "kubectl create -f - <<< '{\"apiVersion\": \"node.k8s.io/v1\", \"kind\": \"RuntimeClass\", \"metadata\": {\"name\": \"nvidia\"}, \"handler\": \"nvidia\"}'   (or default-runtime = \"nvidia\" under [containerd])",
    )))
}

/// What there is to hand out: of a divided GPU its instances, under whatever name the device plugin's MIG strategy gives them.
struct Present {
    all: u64,
    instances: u64,
}

impl Present {
    fn of(look: Look<'_>, reading: &Reading) -> Result<Self> {
        let gpus = cdi::device_numbers(look)?.len() as u64;
        let (divided, instances) = cdi::instances::count(reading)?;
        Ok(Self { all: gpus.saturating_sub(divided) + instances, instances })
    }
}

/// `14, 14 of them MIG instances, which it counts with its MIG strategy single or mixed alone`
impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.all)?;
        if self.instances > 0 {
            write!(f, ", {} of them MIG instances, which it counts with its MIG strategy single or mixed alone", self.instances)?;
        }
        Ok(())
    }
}

fn offered(look: Look<'_>, node: &Node, present: &Present) -> Result<Status> {
    let finding = match node.gpus.unwrap_or_default() {
        Offered { capacity: 0, .. } => uncounted(look, node, present)?,
        Offered { capacity, .. } if capacity < present.all => Finding::new(
            "gpus-uncounted",
            "The cluster counts fewer GPUs than there are",
            format!("the device plugin offers {capacity} of {present}"),
            RESTART,
        ),
        Offered { capacity, allocatable } if allocatable < capacity => Finding::new(
            "gpus-unhealthy",
            "The device plugin calls GPUs unhealthy",
            format!("{allocatable} of {capacity} are allocatable"),
            "gpuk-agent doctor says what the GPUs have; once cured, the device plugin's pod must start anew: kubectl delete pod ...",
        ),
        Offered { capacity, allocatable } => {
            return Ok(Status::Ready(format!("the cluster hands out {allocatable} of {capacity}")));
        }
    };
    Ok(Status::Waiting(finding))
}

const RESTART: &str = "kubectl get pods --all-namespaces --output wide | grep device-plugin   (its log says why; deleting its pod makes it look again)";

fn uncounted(look: Look<'_>, node: &Node, present: &Present) -> Result<Finding> {
    let sockets = look.list(SOCKETS)?;
    let socket = sockets.iter().find(|name| name.contains("nvidia"));
    Ok(match socket {
        Some(socket) => Finding::new(
            "device-plugin-registers-none",
            "The device plugin runs and offers no GPU",
            format!("{SOCKETS}/{socket} is there, and Node {} has no nvidia.com/gpu; there are {present}", node.name),
            RESTART,
        ),
        None => {
            let taints = if node.taints.is_empty() { "none".to_owned() } else { node.taints.join(" ") };
            Finding::new(
                "device-plugin-missing",
                "No device plugin runs on this node, so the cluster counts no GPU",
                format!(
                    "{SOCKETS} has no socket of NVIDIA's; taints of Node {}, which its DaemonSet must tolerate: {taints}",
                    node.name
                ),
                "kubectl get daemonsets --all-namespaces | grep device-plugin   (deploy NVIDIA's k8s-device-plugin, or give it the tolerations)",
            )
        }
    })
}
