//! containerd "started" is not "ready": only its CRI socket can say that pods can run (image-builder#173).

mod cri;
mod trial;

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;

/// The runtime's answer to `RuntimeService/Status` (Kubernetes CRI API, `runtime.v1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Condition `RuntimeReady`: containers can be started.
    pub runtime_ready: bool,
    /// Condition `NetworkReady`: a CNI configuration is loaded. False on a node before its CNI is installed.
    pub network_ready: bool,
    /// The messages of conditions that are not true.
    pub messages: Vec<String>,
    /// Names of the runtime handlers (filled by containerd 2.x; empty before).
    pub handlers: Vec<String>,
}

/// The container runtime.
#[async_trait(?Send)]
pub trait ContainerRuntime {
    /// Asks the CRI socket at `socket` (an absolute path); an error when nobody answers within 5 s.
    async fn status(&self, socket: &str) -> Result<RuntimeStatus>;

    /// Starts a container that ends with the call, and answers what it was given; a minute at most.
    async fn try_container(&self, trial: &Trial) -> Result<Tried>;

    /// How many pods there are, running or not.
    async fn pods(&self, socket: &str) -> Result<usize>;

    /// Stops and removes every pod, within two minutes.
    async fn remove_pods(&self, socket: &str) -> Result<()>;
}

/// A container that is started to see what it is given, and is gone afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The CRI socket.
    pub socket: String,
    /// The runtime handler that starts it, e.g. `nvidia`.
    pub handler: String,
    /// Environment variables of the container, e.g. `NVIDIA_VISIBLE_DEVICES`.
    pub environment: Vec<(&'static str, &'static str)>,
}

/// What a container was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// The sorted names in its `/dev`.
    pub devices: Vec<String>,
}

impl Tried {
    /// Those of `devices` that it was not given, told; `None` where it was given all.
    pub fn lacks(&self, trial: &Trial, devices: &[String]) -> Option<String> {
        let missing: Vec<&str> = devices.iter().filter(|device| !self.devices.contains(device)).map(String::as_str).collect();
        let told = || {
            let (missing, given) = (missing.join(", "), self.devices.join(", "));
            format!("a container of the runtime {} was not given {missing}; its /dev has {given}", trial.handler)
        };
        (!missing.is_empty()).then(told)
    }
}

/// The real socket.
pub struct CriSocket;

/// Who is asked answers at once.
const LIMIT: Duration = Duration::from_secs(5);

/// Each pod has a grace period of its own.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);

async fn list(client: &mut cri::Client) -> Result<Vec<cri::PodSandboxId>> {
    let answer: cri::ListPodSandboxResponse = client.call("ListPodSandbox", cri::ListPodSandboxRequest { filter: None }).await?;
    Ok(answer.items)
}

#[async_trait(?Send)]
impl ContainerRuntime for CriSocket {
    async fn status(&self, socket: &str) -> Result<RuntimeStatus> {
        let asking = async { cri::Client::connect(socket).await?.call("Status", cri::StatusRequest {}).await };
        let response: cri::StatusResponse = tokio::time::timeout(LIMIT, asking)
            .await
            .with_context(|| format!("asking {socket} for its CRI status: no answer in {} s", LIMIT.as_secs()))?
            .with_context(|| format!("asking {socket} for its CRI status"))?;
        let mut status = RuntimeStatus::default();
        for condition in response.status.unwrap_or_default().conditions {
            match condition.kind.as_str() {
                "RuntimeReady" => status.runtime_ready = condition.status,
                "NetworkReady" => status.network_ready = condition.status,
                _ => {}
            }
            if !condition.status {
                status.messages.push(format!("{}: {} {}", condition.kind, condition.reason, condition.message));
            }
        }
        status.handlers =
            response.runtime_handlers.into_iter().map(|handler| handler.name).filter(|name| !name.is_empty()).collect();
        Ok(status)
    }

    async fn try_container(&self, trial: &Trial) -> Result<Tried> {
        trial::run(trial).await
    }

    async fn pods(&self, socket: &str) -> Result<usize> {
        let asking = async { list(&mut cri::Client::connect(socket).await?).await };
        let pods = tokio::time::timeout(LIMIT, asking).await;
        let pods = pods.with_context(|| format!("asking {socket} for its pods: no answer in {} s", LIMIT.as_secs()))?;
        Ok(pods.with_context(|| format!("asking {socket} for its pods"))?.len())
    }

    async fn remove_pods(&self, socket: &str) -> Result<()> {
        let removing = async {
            let mut client = cri::Client::connect(socket).await?;
            for pod in list(&mut client).await? {
                let _: cri::Done = client.call("StopPodSandbox", pod.clone()).await?;
                let _: cri::Done = client.call("RemovePodSandbox", pod).await?;
            }
            anyhow::Ok(())
        };
        let removed = tokio::time::timeout(REMOVAL_LIMIT, removing).await;
        removed
            .with_context(|| format!("removing the pods: not done in {} s", REMOVAL_LIMIT.as_secs()))?
            .context("removing the pods")
    }
}

/// A fake: always the same answers, or nobody there.
#[derive(Default)]
pub struct ScriptedRuntime {
    /// What it says of itself.
    pub status: Option<RuntimeStatus>,
    /// What containers are given.
    pub tried: Option<Tried>,
    /// How many pods there are.
    pub pods: Cell<usize>,
}

#[async_trait(?Send)]
impl ContainerRuntime for ScriptedRuntime {
    async fn status(&self, socket: &str) -> Result<RuntimeStatus> {
        self.status.clone().with_context(|| format!("asking {socket} for its CRI status: connection refused"))
    }

    async fn try_container(&self, trial: &Trial) -> Result<Tried> {
        self.tried.clone().with_context(|| format!("no runtime for {:?} is configured", trial.handler))
    }

    async fn pods(&self, _socket: &str) -> Result<usize> {
        Ok(self.pods.get())
    }

    async fn remove_pods(&self, _socket: &str) -> Result<()> {
        self.pods.set(0);
        Ok(())
    }
}
