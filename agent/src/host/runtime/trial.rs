//! Whether pods get GPUs shows in a container alone: a small one is started as the kubelet would do it, looked into, and removed.
//!
//! It is made of the pause image, which every node has, so nothing is fetched; it runs in the node's own network, so no CNI is needed.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::cri::{
    Client, ContainerConfig, ContainerId, ContainerMetadata, CreateContainerRequest, Done, ImageSpec, KeyValue,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest, ListPodSandboxResponse, NamespaceOption,
    PodSandboxConfig, PodSandboxFilter, PodSandboxId, PodSandboxMetadata, RunPodSandboxRequest, VerboseStatusRequest,
    VerboseStatusResponse,
};
use super::{Trial, Tried};

/// For everything together: the pause image may have to be fetched.
const LIMIT: Duration = Duration::from_secs(60);

/// For the removal.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// The label by which what an agent left behind is found again.
const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "gpuk-agent");

/// `NamespaceMode.NODE`.
const NODE: i32 = 2;

/// Starts it, looks, removes it.
pub async fn run(trial: &Trial) -> Result<Tried> {
    let mut client = tokio::time::timeout(LIMIT, Client::connect(&trial.socket))
        .await
        .with_context(|| format!("connecting to {}: no answer in {} s", trial.socket, LIMIT.as_secs()))?
        .with_context(|| format!("connecting to {}", trial.socket))?;
    let tried = tokio::time::timeout(LIMIT, async {
        remove(&mut client).await?;
        start(&mut client, trial).await
    });
    let tried = tried
        .await
        .with_context(|| format!("a container of the runtime {} had not started after {} s", trial.handler, LIMIT.as_secs()));
    // What could not be removed now is removed before the next one.
    let _ = tokio::time::timeout(REMOVAL_LIMIT, remove(&mut client)).await;
    tried?.with_context(|| format!("starting a container with the runtime {}", trial.handler))
}

async fn start(client: &mut Client, trial: &Trial) -> Result<Tried> {
    let sandbox = sandbox();
    let request = RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: trial.handler.clone() };
    let PodSandboxId { id } = client.call("RunPodSandbox", request).await?;
    let status: VerboseStatusResponse =
        client.call("PodSandboxStatus", VerboseStatusRequest { id: id.clone(), verbose: true }).await?;
    let image = told(&status, "image")?;
    let image = image.as_str().context("the runtime does not say which image a pod's sandbox is made of")?.to_owned();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "trial".to_owned() }),
        image: Some(ImageSpec { image }),
        envs: trial
            .environment
            .iter()
            .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() })
            .collect(),
    };
    let request = CreateContainerRequest { pod_sandbox_id: id, config: Some(config), sandbox_config: Some(sandbox) };
    let container: ContainerId = client.call("CreateContainer", request).await?;
    let _: Done = client.call("StartContainer", container.clone()).await?;
    let status: VerboseStatusResponse =
        client.call("ContainerStatus", VerboseStatusRequest { id: container.id, verbose: true }).await?;
    let process = told(&status, "pid")?.as_u64().context("the runtime does not say which process the container has")?;
    let directory = format!("/proc/{process}/root/dev");
    let entries = fs::read_dir(&directory).with_context(|| format!("looking into the container at {directory}"))?;
    let mut devices: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    devices.sort();
    Ok(Tried { devices })
}

/// Removes every sandbox with our label, with its containers.
async fn remove(client: &mut Client) -> Result<()> {
    let filter = PodSandboxFilter { label_selector: labels() };
    let listed: ListPodSandboxResponse = client.call("ListPodSandbox", ListPodSandboxRequest { filter: Some(filter) }).await?;
    for sandbox in listed.items {
        let _: Done = client.call("StopPodSandbox", sandbox.clone()).await?;
        let _: Done = client.call("RemovePodSandbox", sandbox).await?;
    }
    Ok(())
}

fn sandbox() -> PodSandboxConfig {
    let name = "gpuk-agent-trial".to_owned();
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: name.clone(), uid: name, namespace: "gpuk-agent".to_owned() }),
        labels: labels(),
        linux: Some(LinuxPodSandboxConfig {
            // As systemd's cgroup driver wants it: a slice.
            cgroup_parent: "system.slice".to_owned(),
            security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(NamespaceOption { network: NODE }) }),
        }),
    }
}

fn labels() -> HashMap<String, String> {
    HashMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])
}

/// One value of what containerd says of a sandbox or a container.
fn told(status: &VerboseStatusResponse, name: &str) -> Result<Value> {
    let info = status.info.get("info").context("the runtime does not say what it knows (info)")?;
    let info: Value = serde_json::from_str(info).context("reading what the runtime says (info)")?;
    Ok(info.get(name).cloned().unwrap_or_default())
}
