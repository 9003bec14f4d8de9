//! A pod asks for a runtime by the name of a RuntimeClass, which is the cluster's: no node may make one (Kubernetes documentation, "Runtime Class").

use anyhow::Result;
use async_trait::async_trait;
use serde_json::json;

use super::k3s;
use super::node::unreachable;
use crate::host::cluster::ADMINISTRATOR_KUBECONFIG;
use crate::look::Look;
use crate::step::{Change, Finding, Stage, Status, Step};

/// Its name, and the handler that nodes have in containerd's configuration (NVIDIA GPU Operator and container toolkit use the same).
const NVIDIA: &str = "nvidia";

/// Makes the RuntimeClass for GPUs where there is none; one that is there stays, whoever made it.
pub struct RuntimeClass;

#[async_trait(?Send)]
impl Step for RuntimeClass {
    fn name(&self) -> &'static str {
        "runtime-class"
    }

    fn purpose(&self) -> &'static str {
        "pods can ask for the runtime that hands them GPUs"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    fn needs(&self) -> &'static [&'static str] {
        &["join"]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if k3s::is_wanted(look.config) {
            return Ok(Status::Ready("k3s brings its own RuntimeClasses".to_owned()));
        }
        if !look.config.wants_join() || !look.config.cluster.runtime_class {
            return Ok(Status::Ready("not asked to make a RuntimeClass".to_owned()));
        }
        match look.runtime_class(NVIDIA).await {
            Ok(Some(handler)) if handler == NVIDIA => {
                Ok(Status::Ready(format!("RuntimeClass {NVIDIA} has the handler {NVIDIA}")))
            }
            // A handler cannot be changed, and whoever chose another one knows why.
            Ok(Some(handler)) => {
                Ok(Status::Ready(format!("RuntimeClass {NVIDIA} is somebody else's, with the handler {handler}: it stays")))
            }
            Ok(None) if look.exists(ADMINISTRATOR_KUBECONFIG)? => Ok(Status::pending(
                format!("there is no RuntimeClass {NVIDIA}"),
                vec![Change::ClusterObject {
                    path: format!("/apis/node.k8s.io/v1/runtimeclasses/{NVIDIA}"),
                    object: json!({
                        "apiVersion": "node.k8s.io/v1",
                        "kind": "RuntimeClass",
                        "metadata": {"name": NVIDIA},
                        "handler": NVIDIA,
                    }),
                }],
            )),
            Ok(None) => Ok(Status::Broken(no_administrator())),
            Err(error) => Ok(Status::Waiting(unreachable(look, &error))),
        }
    }
}

fn no_administrator() -> Finding {
    Finding::new(
        "no-administrator-credential",
        "There is no RuntimeClass for GPUs, and nothing here that may make one",
        format!("{ADMINISTRATOR_KUBECONFIG} is missing"),
        format!(
            "as an administrator: kubectl create -f - <<< '{{\"apiVersion\":\"node.k8s.io/v1\",\"kind\":\"RuntimeClass\",\"metadata\":{{\"name\":\"{NVIDIA}\"}},\
             \"handler\":\"{NVIDIA}\"}}'; if there is to be none: [cluster] runtime-class = false"
        ),
    )
}

#[cfg(test)]
mod tests;
