//! A joined node may read and report on itself with the kubelet's own credential, and needs no other.

mod administrator;
mod drain;
mod node;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::causes;
use super::files::Files;
pub use node::{Condition, Node, NodeEvent, Offered};

/// Where kubeadm puts the node's own credential.
pub const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Where kubeadm puts the administrator's credential on a control plane node.
pub const ADMINISTRATOR_KUBECONFIG: &str = "/etc/kubernetes/admin.conf";

/// What tells k3s to join, written by the agent alone.
pub const K3S_DROP_IN: &str = "/etc/rancher/k3s/config.yaml.d/50-gpuk-agent.yaml";

/// Where managed platforms put it (EKS, GKE, AKS).
const MANAGED_KUBECONFIG: &str = "/var/lib/kubelet/kubeconfig";

/// Where k3s puts it, on agents and servers (k3s, `pkg/agent/config`).
pub const K3S_KUBECONFIG: &str = "/var/lib/rancher/k3s/agent/kubelet.kubeconfig";

/// The client certificate of the kubelet in k3s, and CA certificates behind it.
pub const K3S_CERTIFICATE: &str = "/var/lib/rancher/k3s/agent/client-kubelet.crt";

/// The key to it.
pub const K3S_KEY: &str = "/var/lib/rancher/k3s/agent/client-kubelet.key";

/// Where the kubelet keeps its certificates and keys (kubelet, `--cert-dir`).
pub const KUBELET_CERTIFICATES: &str = "/var/lib/kubelet/pki";

/// The kubelet's certificate and key: a link to a dated file (kubelet, `--cert-dir`, `kubelet-client-current.pem`).
pub const KUBELET_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Why the API server could not be asked, or what it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// There is no usable credential in the kubelet's kubeconfig yet.
    NoCredential(String),
    /// No answer.
    Unreachable(String),
    /// An answer that is neither 200 nor 404: its HTTP status and message.
    Refused(u16, String),
}

impl std::fmt::Display for ClusterError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCredential(text) | Self::Unreachable(text) => formatter.write_str(text),
            Self::Refused(status, text) => write!(formatter, "{text} (HTTP {status})"),
        }
    }
}

impl std::error::Error for ClusterError {}

/// The API server, with the node's own credential.
#[async_trait(?Send)]
pub trait Cluster {
    /// Whether there is a file that may hold the node's credential.
    fn has_credential(&self) -> bool;

    /// The Node object, or `None` when the API server has none of that name.
    async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError>;

    /// The handler of a RuntimeClass, or `None` when there is none of that name.
    async fn runtime_class(&self, name: &str) -> Result<Option<String>, ClusterError>;

    /// Sets one condition in the Node's status; `now` is RFC 3339; `transition` when its status (not only its words) changes.
    async fn set_condition(&self, name: &str, condition: &Condition, now: &str, transition: bool) -> Result<(), ClusterError>;

    /// Sets these labels of the Node and leaves its others as they are. A node may set only some on itself (Kubernetes documentation,
    /// "Using Node Authorization", section on the admission plugin NodeRestriction).
    async fn set_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError>;

    /// Keeps new pods off the node, or lets them come again. A node may do that to itself.
    async fn cordon(&self, name: &str, cordoned: bool) -> Result<(), ClusterError>;

    /// Cordons the node and evicts its pods, but for those of DaemonSets and those that come from files, and waits until they are gone.
    async fn drain(&self, name: &str, limit: Duration) -> Result<(), ClusterError>;
    /// Applies an object at this path of the API (server-side apply, no force), with the administrator's credential of a control plane node.
    async fn apply_object(&self, path: &str, object: &Value) -> Result<(), ClusterError>;

    /// How many pods of the node somebody waits for: not those of DaemonSets, those that come from files, and those that are over.
    async fn busy_pods(&self, name: &str) -> Result<usize, ClusterError>;

    /// Records an event of type `Warning` about the Node; `now` is RFC 3339.
    async fn record_event(&self, name: &str, event: &NodeEvent, now: &str) -> Result<(), ClusterError>;
}

/// The real API server, at the address and with the certificate that the kubelet's kubeconfig names.
pub struct ApiServer {
    files: Files,
    /// The client, and what it was made from: its address and its certificate may change under way.
    client: Mutex<Option<(Credential, kube::Client)>>,
}

/// The kubelet's kubeconfig, and its certificate with the key.
#[derive(PartialEq, Eq)]
struct Credential {
    path: &'static str,
    kubeconfig: String,
    certificate: Option<Vec<u8>>,
}

/// Who reports, as the API server is told.
const AGENT: &str = "gpuk-agent";

const LIMIT: Duration = Duration::from_secs(10);

impl ApiServer {
    /// Reads `kubelet.conf` at each question.
    pub fn new(files: &Files) -> Self {
        Self { files: files.clone(), client: Mutex::new(None) }
    }

    fn kubeconfig(&self) -> Option<&'static str> {
        // What is left of another cluster than k3s's does not count where the agent told k3s to join.
        let is_k3s = self.files.exists(K3S_DROP_IN.as_ref()).unwrap_or(false);
        let first = if is_k3s { [K3S_KUBECONFIG; 2] } else { [KUBELET_KUBECONFIG, MANAGED_KUBECONFIG] };
        first.into_iter().chain([K3S_KUBECONFIG]).find(|path| self.files.exists(path.as_ref()).unwrap_or(false))
    }

    fn credential(&self) -> Result<Credential, ClusterError> {
        let path = self.kubeconfig().unwrap_or(KUBELET_KUBECONFIG);
        let broken = |why: String| ClusterError::NoCredential(format!("{path}: {why}"));
        let text = self.files.text(path.as_ref()).map_err(|error| broken(format!("{error:#}")))?;
        let kubeconfig = text.ok_or_else(|| broken("there is no such file".to_owned()))?;
        let certificate = if path == K3S_KUBECONFIG { K3S_CERTIFICATE } else { KUBELET_CERTIFICATE };
        let certificate = self.files.read(certificate.as_ref()).map_err(|error| broken(format!("{error:#}")))?;
        Ok(Credential { path, kubeconfig, certificate })
    }

    async fn client(&self) -> Result<kube::Client, ClusterError> {
        let credential = self.credential()?;
        let mut kept = self.client.lock().await;
        if let Some((made_from, client)) = kept.as_ref()
            && *made_from == credential
        {
            return Ok(client.clone());
        }
        let client = client_from(credential.path.as_ref(), &credential.kubeconfig).await?;
        *kept = Some((credential, client.clone()));
        Ok(client)
    }

    async fn request(&self, request: http::Request<Vec<u8>>) -> Result<Option<Value>, ClusterError> {
        ask(&self.client().await?, request).await
    }

    /// Merges these fields into a Node; `part` is empty or a subresource, e.g. `/status`.
    async fn patch(&self, name: &str, part: &str, fields: &Value) -> Result<(), ClusterError> {
        let request = http::Request::patch(format!("/api/v1/nodes/{name}{part}?fieldManager={AGENT}"))
            .header("content-type", "application/strategic-merge-patch+json")
            .body(fields.to_string().into_bytes())
            .map_err(|error| ClusterError::Unreachable(format!("node name {name:?}: {error}")))?;
        match self.request(request).await? {
            Some(_) => Ok(()),
            None => Err(ClusterError::Refused(404, format!("node {name:?} not found"))),
        }
    }
}

/// A client with the address and the certificate that a kubeconfig names.
pub(super) async fn client_of(files: &Files, path: &Path) -> Result<kube::Client, ClusterError> {
    let broken = |why: String| ClusterError::NoCredential(format!("{}: {why}", path.display()));
    let text = files.text(path).map_err(|error| broken(format!("{error:#}")))?;
    let text = text.ok_or_else(|| broken("there is no such file".to_owned()))?;
    client_from(path, &text).await
}

async fn client_from(path: &Path, kubeconfig: &str) -> Result<kube::Client, ClusterError> {
    let broken = |why: String| ClusterError::NoCredential(format!("{}: {why}", path.display()));
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(|error| broken(error.to_string()))?;
    // EKS has one. A look starts no program of someone else's.
    let asks_program = |user: &kube::config::NamedAuthInfo| user.auth_info.as_ref().is_some_and(|user| user.exec.is_some());
    if kubeconfig.auth_infos.iter().any(asks_program) {
        return Err(broken("its credential comes from another program (exec)".to_owned()));
    }
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.map_err(|error| broken(error.to_string()))?;
    // Never through a proxy of the shell that happened to start this.
    config.proxy_url = None;
    config.connect_timeout = Some(LIMIT);
    config.read_timeout = Some(LIMIT);
    kube::Client::try_from(config).map_err(|error| broken(error.to_string()))
}

/// One request; `None` is 404.
async fn ask(client: &kube::Client, request: http::Request<Vec<u8>>) -> Result<Option<Value>, ClusterError> {
    match tokio::time::timeout(LIMIT, client.request::<Value>(request)).await {
        Ok(Ok(object)) => Ok(Some(object)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused(status.code, status.message.clone())),
        Ok(Err(error)) => Err(ClusterError::Unreachable(causes(&error))),
        Err(_) => Err(ClusterError::Unreachable(format!("the API server did not answer in {} s", LIMIT.as_secs()))),
    }
}

#[async_trait(?Send)]
impl Cluster for ApiServer {
    fn has_credential(&self) -> bool {
        self.kubeconfig().is_some()
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError> {
        let request = http::Request::get(format!("/api/v1/nodes/{name}")).body(Vec::new());
        let request = request.map_err(|error| ClusterError::Unreachable(format!("node name {name:?}: {error}")))?;
        Ok(self.request(request).await?.map(|object| Node::from_json(&object)))
    }

    async fn runtime_class(&self, name: &str) -> Result<Option<String>, ClusterError> {
        let request = http::Request::get(format!("/apis/node.k8s.io/v1/runtimeclasses/{name}")).body(Vec::new());
        let request = request.map_err(|error| ClusterError::Unreachable(format!("RuntimeClass {name:?}: {error}")))?;
        let handler = |object: Value| object["handler"].as_str().unwrap_or_default().to_owned();
        Ok(self.request(request).await?.map(handler))
    }

    async fn set_condition(&self, name: &str, condition: &Condition, now: &str, transition: bool) -> Result<(), ClusterError> {
        // A strategic merge of one element: conditions are merged by their `type`.
        let mut element = json!({
            "type": condition.kind, "status": condition.status, "reason": condition.reason, "message": condition.message,
            "lastHeartbeatTime": now,
        });
        if transition {
            element["lastTransitionTime"] = now.into();
        }
        self.patch(name, "/status", &json!({"status": {"conditions": [element]}})).await
    }

    async fn set_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        self.patch(name, "", &json!({"metadata": {"labels": labels}})).await
    }

    async fn cordon(&self, name: &str, cordoned: bool) -> Result<(), ClusterError> {
        self.patch(name, "", &json!({"spec": {"unschedulable": cordoned}})).await
    }

    async fn drain(&self, name: &str, limit: Duration) -> Result<(), ClusterError> {
        self.cordon(name, true).await?;
        match tokio::time::timeout(limit, drain::evict_all(self, name)).await {
            Ok(done) => done,
            Err(_) => Err(ClusterError::Unreachable(format!("some of its pods were still there after {} s", limit.as_secs()))),
        }
    }

    async fn apply_object(&self, path: &str, object: &Value) -> Result<(), ClusterError> {
        administrator::apply(&self.files, path, object).await
    }

    async fn busy_pods(&self, name: &str) -> Result<usize, ClusterError> {
        drain::staying(self, name).await
    }

    async fn record_event(&self, name: &str, event: &NodeEvent, now: &str) -> Result<(), ClusterError> {
        // As the kubelet's own: in the namespace `default`, and with the name in place of the uid ("kubectl describe node" looks for both).
        let object = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": "default", "name": format!("{name}.{:016x}", fastrand::u64(..))},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name},
            "type": "Warning", "reason": event.reason, "message": event.message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": AGENT, "host": name},
            "reportingComponent": AGENT, "reportingInstance": name,
        });
        let request = http::Request::post(format!("/api/v1/namespaces/default/events?fieldManager={AGENT}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .map_err(|error| ClusterError::Unreachable(format!("an event of node {name:?}: {error}")))?;
        match self.request(request).await? {
            Some(_) => Ok(()),
            None => Err(ClusterError::Refused(404, "the namespace default was not found".to_owned())),
        }
    }
}

/// A fake: one Node (or none), which keeps the labels that are set on it, and the conditions that were set.
pub struct ScriptedCluster {
    /// What `node` answers.
    pub answer: RefCell<Result<Option<Node>, ClusterError>>,
    /// The handler of every RuntimeClass that is asked for.
    pub runtime_class: Option<String>,
    /// Every condition that was set.
    pub conditions: Rc<RefCell<Vec<Condition>>>,
    /// Every object that was applied, by its path.
    pub objects: Rc<RefCell<BTreeMap<String, Value>>>,
    /// Every event that was recorded.
    pub events: Rc<RefCell<Vec<NodeEvent>>>,
    /// Whether it was cordoned, each time that it was set.
    pub cordoned: Rc<RefCell<Vec<bool>>>,
    /// How many pods somebody waits for.
    pub busy_pods: usize,
}

impl ScriptedCluster {
    /// A cluster that answers this.
    pub fn answering(answer: Result<Option<Node>, ClusterError>) -> Self {
        Self {
            answer: RefCell::new(answer),
            runtime_class: None,
            conditions: Rc::default(),
            events: Rc::default(),
            cordoned: Rc::default(),
            busy_pods: 0,
            objects: Rc::default(),
        }
    }
}

#[async_trait(?Send)]
impl Cluster for ScriptedCluster {
    fn has_credential(&self) -> bool {
        true
    }

    async fn node(&self, _name: &str) -> Result<Option<Node>, ClusterError> {
        self.answer.borrow().clone()
    }

    async fn runtime_class(&self, name: &str) -> Result<Option<String>, ClusterError> {
        let objects = self.objects.borrow();
        let applied = objects.get(&format!("/apis/node.k8s.io/v1/runtimeclasses/{name}"));
        Ok(applied.and_then(|object| Some(object["handler"].as_str()?.to_owned())).or_else(|| self.runtime_class.clone()))
    }

    async fn apply_object(&self, path: &str, object: &Value) -> Result<(), ClusterError> {
        self.objects.borrow_mut().insert(path.to_owned(), object.clone());
        Ok(())
    }

    async fn set_condition(&self, _name: &str, condition: &Condition, _now: &str, _transition: bool) -> Result<(), ClusterError> {
        self.conditions.borrow_mut().push(condition.clone());
        Ok(())
    }

    async fn set_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        match self.answer.borrow_mut().as_mut() {
            Ok(Some(node)) => node.labels.extend(labels.clone()),
            Ok(None) => return Err(ClusterError::Refused(404, format!("node {name:?} not found"))),
            Err(error) => return Err(error.clone()),
        }
        Ok(())
    }

    async fn cordon(&self, _name: &str, cordoned: bool) -> Result<(), ClusterError> {
        self.cordoned.borrow_mut().push(cordoned);
        Ok(())
    }

    async fn drain(&self, name: &str, _limit: Duration) -> Result<(), ClusterError> {
        self.node(name).await?;
        self.cordon(name, true).await
    }

    async fn busy_pods(&self, name: &str) -> Result<usize, ClusterError> {
        self.node(name).await.map(|_| self.busy_pods)
    }

    async fn record_event(&self, _name: &str, event: &NodeEvent, _now: &str) -> Result<(), ClusterError> {
        self.events.borrow_mut().push(event.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
