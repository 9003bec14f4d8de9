//! Stands for the kubelet and its unit as far as a join goes: TLS bootstrap with a real request that the real controller manager signs, its
//! files, and its Node (Kubernetes documentation, "TLS bootstrapping"). It runs no pods and sends no heartbeats: its Node is never Ready.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gpuk_agent::host::units::UnitState;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::Machine;
use super::api::{Api, Refused};

/// kubeadm's and the kubelet's files.
pub const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// The credential in use.
pub const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The cluster's CA.
pub const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// The kubelet's configuration.
pub const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// The kubelet's flags.
pub const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The link to the certificate with its key.
pub const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// systemd's unit with what runs in it.
pub struct Kubelet {
    /// As systemd tells it.
    pub state: UnitState,
    /// Its journal.
    pub log: Vec<String>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Default for Kubelet {
    fn default() -> Self {
        let word = |word: &str| word.to_owned();
        let state = UnitState {
            load: word("loaded"),
            active: word("inactive"),
            sub: word("dead"),
            file: word("enabled"),
            ..UnitState::default()
        };
        Self { state, log: Vec::new(), task: None }
    }
}

/// Stops what runs, and starts it anew.
pub fn start(machine: &Rc<Machine>) {
    stop(machine);
    // The task does not keep the machine alive.
    let weak = Rc::downgrade(machine);
    let task = tokio::task::spawn_local(async move {
        loop {
            let Some(machine) = weak.upgrade() else { return };
            enter(&machine, "active", "running");
            let why = run(&machine).await;
            fail(&machine, &why);
            drop(machine);
            // The unit's RestartSec is 10 s.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    machine.kubelet.borrow_mut().task = Some(task);
    // systemd's job ends when the process runs.
    enter(machine, "active", "running");
}

/// Stops it.
pub fn stop(machine: &Rc<Machine>) {
    if let Some(task) = machine.kubelet.borrow_mut().task.take() {
        task.abort();
    }
    let mut kubelet = machine.kubelet.borrow_mut();
    (kubelet.state.restarts, kubelet.state.exit_status) = (0, 0);
    drop(kubelet);
    enter(machine, "inactive", "dead");
}

/// It died, and systemd will start it again.
fn fail(machine: &Machine, why: &str) {
    let mut kubelet = machine.kubelet.borrow_mut();
    kubelet.log.push(format!("E1 1 run.go:72] \"command failed\" err={why:?}"));
    kubelet.state.restarts += 1;
    kubelet.state.exit_status = 1;
    drop(kubelet);
    enter(machine, "activating", "auto-restart");
}

fn enter(machine: &Machine, active: &str, sub: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let mut kubelet = machine.kubelet.borrow_mut();
    kubelet.state.active = active.to_owned();
    kubelet.state.sub = sub.to_owned();
    if active == "active" {
        kubelet.state.active_since = Duration::from_secs_f64(seconds).as_micros().try_into().unwrap_or(0);
    }
}

/// For one request.
const LIMIT: Duration = Duration::from_secs(5);

/// Until it dies, of what it says.
async fn run(machine: &Rc<Machine>) -> String {
    match become_node(machine).await {
        // From here on it would send heartbeats.
        Ok(()) => std::future::pending().await,
        Err(why) => why,
    }
}

async fn become_node(machine: &Rc<Machine>) -> Result<(), String> {
    let configuration = machine.text(CONFIGURATION).unwrap_or_default();
    if !configuration.contains("kind: KubeletConfiguration") {
        return Err(format!("failed to load kubelet config file, path: {CONFIGURATION}, error: it is missing or cut"));
    }
    if !machine.text(AUTHORITY).unwrap_or_default().contains("-----END CERTIFICATE-----") {
        return Err(format!("unable to load client CA file {AUTHORITY}: data does not contain any valid certificates"));
    }
    let pem = match machine.text(CERTIFICATE) {
        Some(pem) if Api::of_kubelet(&machine.text(KUBECONFIG).unwrap_or_default(), &pem).is_ok() => pem,
        found => {
            let bootstrap = machine.text(BOOTSTRAP);
            let bootstrap =
                bootstrap.ok_or_else(|| format!("unable to load bootstrap kubeconfig: stat {BOOTSTRAP}: no such file"))?;
            if found.is_some_and(|pem| !pem.contains("-----END PRIVATE KEY-----")) {
                return Err(
                    "failed to initialize client certificate manager: could not convert data into cert/key pair".to_owned()
                );
            }
            bootstrap_certificate(machine, &bootstrap).await?
        }
    };
    let kubeconfig = machine.text(KUBECONFIG).unwrap_or_default();
    register(machine, &Api::of_kubelet(&kubeconfig, &pem)?).await;
    Ok(())
}

async fn bootstrap_certificate(machine: &Rc<Machine>, bootstrap: &str) -> Result<String, String> {
    let api = Api::of_bootstrap(bootstrap)?;
    // Before the certificate exists: the file proves nothing.
    machine.write_in_place(KUBECONFIG, &kubeconfig(bootstrap)?);
    let (request, key) = request(&machine.orders.name)?;
    let name = posted(machine, &api, &request).await;
    let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}");
    let certificate = loop {
        match api.get(&path, "certificatesigningrequests", LIMIT).await {
            Ok(object) if object["status"]["certificate"].is_string() => {
                break object["status"]["certificate"].as_str().unwrap_or_default().to_owned();
            }
            Ok(_) => {}
            Err(refused) => log(machine, &refused),
        }
        tokio::time::sleep(machine.orders.kubelet_pause).await;
    };
    let certificate = STANDARD.decode(certificate).map_err(|error| error.to_string())?;
    let pem = String::from_utf8_lossy(&certificate).into_owned() + &key.serialize_pem();
    let dated = "/var/lib/kubelet/pki/kubelet-client-2026-01-01.pem";
    machine.write_in_place(dated, &pem);
    let (link, new) = (machine.path(CERTIFICATE), machine.path(&format!("{CERTIFICATE}.tmp")));
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(dated.rsplit('/').next().unwrap_or_default(), &new).map_err(|error| error.to_string())?;
    machine.points.reached("before the link to the certificate");
    std::fs::rename(new, link).map_err(|error| error.to_string())?;
    machine.points.reached("after the link to the certificate");
    Ok(pem)
}

async fn posted(machine: &Machine, api: &Api, request: &str) -> String {
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    loop {
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        match api.post(path, "certificatesigningrequests", &object, LIMIT).await {
            Ok(created) => return created["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            Err(refused) => log(machine, &refused),
        }
        tokio::time::sleep(machine.orders.kubelet_pause).await;
    }
}

async fn register(machine: &Rc<Machine>, api: &Api) {
    let name = &machine.orders.name;
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "nodeInfo": {
                "machineID": machine.machine_id(), "systemUUID": "", "bootID": "b", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
                "kubeletVersion": "v1.34.4", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
            "conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no CNI"}],
        },
    });
    loop {
        machine.points.reached("before the Node");
        match api.post("/api/v1/nodes", "nodes", &node, LIMIT).await {
            Ok(_) | Err(Refused { status: Some(409), .. }) => break,
            Err(refused) => log(machine, &refused),
        }
        tokio::time::sleep(machine.orders.kubelet_pause).await;
    }
    machine.points.reached("after the Node");
    machine.kubelet.borrow_mut().log.push(REGISTERED.to_owned());
}

/// What the kubelet logs when its Node is there.
const REGISTERED: &str = "Successfully registered node";

/// Whether this start of the machine's kubelet saw its Node.
pub fn is_registered(machine: &Machine) -> bool {
    machine.kubelet.borrow().log.iter().any(|line| line == REGISTERED)
}

fn log(machine: &Machine, refused: &Refused) {
    machine
        .kubelet
        .borrow_mut()
        .log
        .push(format!("E1 1 kubelet.go:1] \"Unable to register or bootstrap\" err={:?}", refused.text));
}

fn request(name: &str) -> Result<(String, KeyPair), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(|error| error.to_string())?;
    Ok((request, key))
}

/// The bootstrap file with the certificate instead of the token.
fn kubeconfig(bootstrap: &str) -> Result<String, String> {
    let mut file: Value = serde_json::from_str(bootstrap).map_err(|error| error.to_string())?;
    file["users"] = json!([{"name": "bootstrap", "user": {"client-certificate": CERTIFICATE, "client-key": CERTIFICATE}}]);
    serde_json::to_string_pretty(&file).map_err(|error| error.to_string())
}
