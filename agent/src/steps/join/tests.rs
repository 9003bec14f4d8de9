//! A cluster made of answers, and a machine made of a folder.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

mod controlling;
mod discovering;
mod joining;
mod leaving;
mod naming;
mod page;
mod renewing;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::bootstrap_token::tests::sign;
use super::fixtures::{CA, CA_PIN};
use super::{Join, KUBELET};
use crate::config::{Config, Source};
use crate::facts::{Dmi, Facts, Instance};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::host::cluster::{ClusterError, ScriptedCluster};
use crate::host::files::Files;
use crate::host::gpus::ScriptedGpus;
use crate::host::kernel::RecordingKernel;
use crate::host::kernel_log::ScriptedKernelLog;
use crate::host::network::{
    Answer, Get, Network, PlainAnswer, PlainRequest, ScriptedNetwork, Trust, Unreachable, UnreachableKind,
};
use crate::host::programs::{Output, ScriptedPrograms};
use crate::host::runtime::ScriptedRuntime;
use crate::host::units::{ScriptedUnits, UnitState};
use crate::look::Look;
use crate::step::{Change, Finding, Status, Step};

pub const TOKEN: &str = "abcdef.0123456789abcdef";
pub const SECRET: &str = "0123456789abcdef";
/// 2026-06-01T00:00:00Z, inside every certificate of the fixtures.
pub const NOW: u64 = 1_780_272_000;
pub const A: &str = "https://10.0.0.1:6443";
pub const B: &str = "https://10.0.0.2:6443";
pub const KUBEADM_CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
pub const CLUSTER_INFO: &str = super::cluster_info::CLUSTER_INFO;

/// An API server: what it answers to each path, with and without a token.
#[derive(Clone)]
pub struct Server {
    pub ca: &'static str,
    /// cluster-info's signatures by key.
    pub signatures: Vec<(String, String)>,
    /// Fails a verified connection this way.
    pub tls: Option<UnreachableKind>,
    /// Seconds that its clock is ahead of the machine's.
    pub ahead: i64,
    /// Answers instead of the usual ones, by the end of the path.
    pub instead: Vec<(&'static str, u16, Value)>,
    /// The kubeconfig differs when the connection is verified.
    pub two_faced: bool,
}

impl Server {
    /// A healthy one that knows the token.
    pub fn good() -> Self {
        let mut server = Self { ca: CA, signatures: Vec::new(), tls: None, ahead: 0, instead: Vec::new(), two_faced: false };
        server.sign_with(TOKEN);
        server
    }

    pub fn sign_with(&mut self, token: &str) {
        let key = format!("jws-kubeconfig-{}", token.split('.').next().unwrap_or_default());
        self.signatures = vec![(key, sign(token, self.kubeconfig(false).as_bytes()))];
    }

    /// Instead of the usual answer to a path that ends so.
    pub fn answering(mut self, path: &'static str, status: u16, body: Value) -> Self {
        self.instead.push((path, status, body));
        self
    }

    fn kubeconfig(&self, verified: bool) -> String {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.encode(self.ca);
        let name = if verified && self.two_faced { "other" } else { "inside" };
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {data}\n    server: https://{name}:6443\n  \
             name: \"\"\nkind: Config\n"
        )
    }

    pub fn get(&self, request: &Get) -> Result<Answer, Unreachable> {
        let verified = request.trust != Trust::Anyone;
        assert!(verified || request.bearer.is_none(), "a token went to a server that is not verified");
        if let Trust::Only(pem) = &request.trust {
            assert!(pem.contains("BEGIN CERTIFICATE"));
            if let Some(kind) = self.tls {
                return Err(Unreachable { kind, text: format!("certificate: {kind:?}") });
            }
        }
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.saturating_add_signed(self.ahead));
        let answer = |status: u16, body: Value| {
            Ok(Answer { status, date: Some(date), retry_after: None, body: body.to_string().into_bytes() })
        };
        if let Some((_, status, body)) = self.instead.iter().find(|(path, ..)| request.url.ends_with(path)) {
            return answer(*status, body.clone());
        }
        if request.url.ends_with(CLUSTER_INFO) {
            let mut data = serde_json::Map::new();
            data.insert("kubeconfig".to_owned(), self.kubeconfig(verified).into());
            data.extend(self.signatures.iter().map(|(key, signature)| (key.clone(), signature.clone().into())));
            return answer(200, json!({"kind": "ConfigMap", "data": data}));
        }
        if request.url.ends_with("/readyz") {
            return answer(200, Value::Null);
        }
        assert!(request.bearer.as_ref().is_some_and(|token| token.expose() == TOKEN), "{} without the token", request.url);
        if request.url.ends_with(KUBEADM_CONFIG) {
            answer(200, json!({"kind": "ConfigMap"}))
        } else {
            answer(404, refusal("not found"))
        }
    }
}

/// The API's error object.
pub fn refusal(message: &str) -> Value {
    json!({"kind": "Status", "message": message})
}

/// Endpoints that never answer, beside those of a script.
struct Tarpit {
    offline: bool,
    urls: Vec<&'static str>,
    script: ScriptedNetwork,
}

#[async_trait(?Send)]
impl Network for Tarpit {
    async fn get(&self, request: Get) -> Result<Answer, Unreachable> {
        assert!(!self.offline, "{} was asked for", request.url);
        if self.urls.iter().any(|url| request.url.starts_with(url)) {
            std::future::pending::<()>().await;
        }
        self.script.get(request).await
    }

    async fn plain(&self, _request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
        std::future::pending().await
    }

    async fn connect(&self, to: SocketAddr, namespace: Option<&Path>, limit: Duration) -> Result<(), Unreachable> {
        self.script.connect(to, namespace, limit).await
    }

    fn own_address(&self) -> Option<IpAddr> {
        self.script.own_address()
    }
}

/// A machine with a folder for a disk.
pub struct Machine {
    folder: tempfile::TempDir,
    pub servers: Vec<(&'static str, Server)>,
    pub hanging: Vec<&'static str>,
    /// Asking anything over the network is a mistake.
    pub offline: bool,
    pub flags: Vec<(&'static str, String)>,
    pub kubelet: UnitState,
    pub log: String,
    pub now: u64,
    pub product_uuid: Option<&'static str>,
    /// What further programs answer, by the beginning of their command lines.
    pub programs: Vec<(&'static str, Output)>,
}

impl Machine {
    /// Never joined, told to join through these endpoints.
    pub fn fresh(endpoints: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            servers: Vec::new(),
            hanging: Vec::new(),
            offline: false,
            flags: vec![
                ("cluster.endpoints", endpoints.join(",")),
                ("cluster.token", TOKEN.to_owned()),
                ("cluster.ca-cert-hashes", CA_PIN.to_owned()),
            ],
            kubelet: UnitState {
                load: "loaded".to_owned(),
                active: "inactive".to_owned(),
                file: "enabled".to_owned(),
                ..UnitState::default()
            },
            log: String::new(),
            now: NOW,
            product_uuid: None,
            programs: Vec::new(),
        }
    }

    pub fn with(mut self, endpoint: &'static str, server: Server) -> Self {
        self.servers.push((endpoint, server));
        self
    }

    /// Replaces a value of the configuration, or takes it away.
    pub fn set(mut self, key: &'static str, value: Option<&str>) -> Self {
        self.flags.retain(|(name, _)| *name != key);
        self.flags.extend(value.map(|value| (key, value.to_owned())));
        self
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn config(&self) -> Config {
        let pairs = self.flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        crate::config::load(vec![Source::flags(pairs)]).unwrap().config
    }

    pub fn facts(&self) -> Facts {
        let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
        let dmi = Dmi { product_uuid: self.product_uuid.map(str::to_owned), ..Dmi::default() };
        Facts { machine_id: "0a".repeat(16), instance: Some(instance), dmi, ..Facts::default() }
    }

    pub fn host(&self) -> Host {
        let mut script = ScriptedNetwork::default();
        for (endpoint, server) in self.servers.clone() {
            script = script.answering(endpoint, move |request| server.get(request));
        }
        let output = Output { code: Some(0), stdout: self.log.clone(), stderr: String::new() };
        let version = Output { code: Some(0), stdout: "v1.34.4\n".to_owned(), stderr: String::new() };
        let programs = ScriptedPrograms::default().answering("journalctl", output).answering("kubeadm version", version);
        let programs = self.programs.iter().fold(programs, |programs, (prefix, said)| programs.answering(prefix, said.clone()));
        Host {
            files: Files::below(self.folder.path()).unwrap(),
            programs: Box::new(programs),
            units: Box::new(ScriptedUnits::with([(KUBELET, self.kubelet.clone())])),
            kernel: Box::new(RecordingKernel::default()),
            kernel_log: Box::new(ScriptedKernelLog::default()),
            network: Box::new(Tarpit { offline: self.offline, urls: self.hanging.clone(), script }),
            runtime: Box::new(ScriptedRuntime::default()),
            gpus: Box::new(ScriptedGpus::default()),
            cluster: Box::new(ScriptedCluster::answering(Err(ClusterError::NoCredential(String::new())))),
            clock: Box::new(FixedClock::at(self.now)),
        }
    }

    /// One look at the step.
    pub async fn check(&self) -> Status {
        Join.check(Look::new(&self.host(), &self.config(), &self.facts())).await.unwrap()
    }

    pub async fn waiting(&self) -> Finding {
        match self.check().await {
            Status::Waiting(finding) => finding,
            other => panic!("not waiting: {other:?}"),
        }
    }

    pub async fn broken(&self) -> Finding {
        match self.check().await {
            Status::Broken(finding) => finding,
            other => panic!("not broken: {other:?}"),
        }
    }

    pub async fn pending(&self) -> (String, Vec<Change>) {
        match self.check().await {
            Status::Pending { why, changes } => (why, changes),
            other => panic!("not pending: {other:?}"),
        }
    }
}
