//! Stands for `kubeadm join` 1.34 with a discovery file: its phases, its files, its words and when it gives up (kubeadm, "Implementation
//! details", "kubeadm join phases internal design"). It cannot show the real preflight checks, nor a container runtime, and its limits
//! may be shorter than the configured ones.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::{Api, Refused};
use super::kubelet::{self, AUTHORITY, BOOTSTRAP, CERTIFICATE, CONFIGURATION, FLAGS, KUBECONFIG};
use super::{Machine, until};

/// Runs to its end; an error is what it says on standard error.
pub async fn join(machine: &Rc<Machine>, configuration: &str) -> Result<(), String> {
    let (started, ended) = machine.kubeadm.get();
    machine.kubeadm.set((started + 1, ended));
    let text = machine.text(configuration).ok_or("unable to read the configuration")?;
    let configuration: Value = serde_json::from_str(&text).map_err(|error| format!("strict decoding error: {error}"))?;
    let in_phase = |phase: &'static str| move |said: String| format!("error: error execution phase {phase}: {said}");
    let limits = Limits::of(&configuration, machine.orders.pace);
    let (api, discovered) = preflight(machine, &configuration, &limits).await.map_err(in_phase("preflight"))?;
    kubelet_start(machine, &configuration, &api, &discovered).await.map_err(in_phase("kubelet-start"))?;
    wait_bootstrap(machine, &limits).await.map_err(in_phase("kubelet-wait-bootstrap"))?;
    let (started, ended) = machine.kubeadm.get();
    machine.kubeadm.set((started, ended + 1));
    Ok(())
}

struct Limits {
    discovery: Duration,
    call: Duration,
    health: Duration,
    bootstrap: Duration,
}

impl Limits {
    fn of(configuration: &Value, pace: u32) -> Self {
        let limit = |name: &str| {
            let text = configuration["timeouts"][name].as_str().unwrap_or_default();
            Duration::from_secs(text.trim_end_matches('s').parse().unwrap_or(240)) / pace
        };
        Self {
            discovery: limit("discovery"),
            call: limit("kubernetesAPICall"),
            health: limit("kubeletHealthCheck"),
            bootstrap: limit("tlsBootstrap"),
        }
    }
}

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const CONFIGMAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

async fn preflight(machine: &Rc<Machine>, configuration: &Value, limits: &Limits) -> Result<(Api, String), String> {
    let ignored = configuration.pointer("/nodeRegistration/ignorePreflightErrors").and_then(Value::as_array);
    let is_ignored = |check: &str| ignored.is_some_and(|ignored| ignored.iter().any(|name| name == check));
    for path in [BOOTSTRAP, KUBECONFIG, AUTHORITY] {
        let check = format!("FileAvailable-{}", path.replace('/', "-"));
        if machine.path(path).exists() && !is_ignored(&check) {
            return Err(format!("[preflight] Some fatal errors occurred:\n\t[ERROR {check}]: {path} already exists"));
        }
    }
    let file = configuration.pointer("/discovery/file/kubeConfigPath").and_then(Value::as_str).unwrap_or_default();
    let discovered = machine.text(file).ok_or("couldn't validate the identity of the API Server: no discovery file")?;
    let api = Api::of_bootstrap(&discovered)?;
    // With the token, which may not read it: that is answer enough.
    let began = Instant::now();
    while let Err(refused) = api.get(CLUSTER_INFO, "configmaps cluster-info", limits.call).await {
        if refused.status == Some(403) {
            break;
        }
        if began.elapsed() > limits.discovery {
            let why =
                format!("Abort reading the cluster-info ConfigMap after timeout of {:?}: {}", limits.discovery, refused.text);
            return Err(format!("couldn't validate the identity of the API Server: {why}"));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for name in ["kubeadm-config", "kubelet-config"] {
        let asked = api.get(&format!("{CONFIGMAPS}/{name}"), &format!("configmaps {name}"), limits.call).await;
        asked.map_err(|refused| format!("unable to fetch the {name} ConfigMap: failed to get config map: {}", refused.text))?;
    }
    Ok((api, discovered))
}

async fn kubelet_start(machine: &Rc<Machine>, configuration: &Value, api: &Api, discovered: &str) -> Result<(), String> {
    machine.write_in_place(BOOTSTRAP, discovered);
    if !machine.path(AUTHORITY).exists() {
        machine.write_in_place(AUTHORITY, &authority(discovered)?);
    }
    let name = configuration.pointer("/nodeRegistration/name").and_then(Value::as_str).unwrap_or_default();
    match api.get(&format!("/api/v1/nodes/{name}"), &format!("nodes {name}"), Duration::from_secs(1)).await {
        Ok(node) if vm_tests::cluster::objects::is_ready(&node) => {
            return Err(format!(
                "a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete it"
            ));
        }
        Ok(_) | Err(Refused { status: Some(404), .. }) => {}
        Err(refused) => return Err(format!("cannot get Node {name:?}: {}", refused.text)),
    }
    kubelet::stop(machine);
    machine.write_in_place(
        CONFIGURATION,
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nrotateCertificates: true\n",
    );
    machine.write_in_place(FLAGS, "KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=registry.k8s.io/pause:3.10\"\n");
    kubelet::start(machine);
    Ok(())
}

async fn wait_bootstrap(machine: &Rc<Machine>, limits: &Limits) -> Result<(), String> {
    let healthy = until(limits.health, || machine.kubelet.borrow().state.is_running().then_some(())).await;
    healthy.ok_or("failed while waiting for the kubelet to start: The HTTP call equal to 'curl -sSL http://127.0.0.1:10248/healthz' returned error")?;
    // An old kubelet.conf with an old certificate would be the end of it too.
    let issued = || machine.text(KUBECONFIG).filter(|text| !text.is_empty()).and_then(|_| machine.text(CERTIFICATE)).map(drop);
    let issued = until(limits.bootstrap, issued).await;
    issued.ok_or("failed while waiting for TLS bootstrap: context deadline exceeded")?;
    machine.points.reached("before kubeadm removes the bootstrap file");
    std::fs::remove_file(machine.path(BOOTSTRAP)).map_err(|error| error.to_string())?;
    machine.points.reached("after kubeadm removed the bootstrap file");
    Ok(())
}

fn authority(kubeconfig: &str) -> Result<String, String> {
    use base64::Engine as _;
    let file: Value = serde_json::from_str(kubeconfig).map_err(|error| error.to_string())?;
    let data = file.pointer("/clusters/0/cluster/certificate-authority-data").and_then(Value::as_str).unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(data).map_err(|error| error.to_string())?;
    String::from_utf8(pem).map_err(|error| error.to_string())
}
