//! A machine made of a folder, and a k3s server made of answers: it stands for the server's documented protocol, and shows nothing of how
//! k3s itself behaves.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

mod discovering;
mod joining;
mod keeping;
mod preparing;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::config::{Config, Source};
use crate::facts::{Facts, Instance};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::host::network::{Answer, Get, ScriptedNetwork, Trust, Unreachable, UnreachableKind};
use crate::host::programs::{Output, ScriptedPrograms};
use crate::host::units::{ScriptedUnits, UnitState};
use crate::look::Look;
use crate::step::{Change, Finding, Status, Step};
use crate::steps::join::Join;
use crate::steps::join::fixtures::{CA, NODE_CERTIFICATE, NODE_KEY};

/// 2026-06-01T00:00:00Z, inside every certificate of the fixtures.
const NOW: u64 = 1_780_272_000;
const A: &str = "https://10.0.0.1:6443";
const B: &str = "https://10.0.0.2:6443";
/// `sha256sum ca.crt` of the fixture.
const HASH: &str = "983ddd7dc43f06a3b9f92908dd4be929d98c37eae1cae99124c61dccdaf2cadf";
/// `openssl x509 -outform der | sha256sum` of it.
const ROOT_HASH: &str = "b10c22d78bf4c3f5c80aa6a4586e8ba11aee775053de8f3415ede5b0b7dff42d";
const PASSWORD: &str = "hunter2";
const DROP_IN: &str = super::configuration::DROP_IN;
const TOKEN_FILE: &str = super::configuration::TOKEN_FILE;

fn token() -> String {
    format!("K10{HASH}::server:{PASSWORD}")
}

/// A server: what it answers to each path.
#[derive(Clone)]
struct Server {
    cacerts: String,
    /// Fails a verified connection this way.
    tls: Option<UnreachableKind>,
    /// Seconds that its clock is ahead of the machine's.
    ahead: i64,
    /// Answers instead of the usual ones, by the end of the path.
    instead: Vec<(&'static str, u16, Value)>,
    /// `/cacerts` differs when the connection is verified.
    two_faced: bool,
    /// What it takes in `Authorization`.
    takes: Vec<String>,
    /// The password to which the node's name is bound.
    bound: Option<&'static str>,
    /// Every path that was asked, in order.
    asked: Rc<RefCell<Vec<String>>>,
}

impl Server {
    fn good() -> Self {
        use base64::Engine;
        let basic = |user: &str| base64::engine::general_purpose::STANDARD.encode(format!("{user}:{PASSWORD}"));
        Self {
            cacerts: CA.to_owned(),
            tls: None,
            ahead: 0,
            instead: Vec::new(),
            two_faced: false,
            takes: vec![format!("Basic {}", basic("node")), format!("Basic {}", basic("server"))],
            bound: None,
            asked: Rc::default(),
        }
    }

    /// Instead of the usual answer to a path that ends so.
    fn answering(mut self, path: &'static str, status: u16, body: Value) -> Self {
        self.instead.push((path, status, body));
        self
    }

    fn get(&self, request: &Get) -> Result<Answer, Unreachable> {
        let path = request.url.splitn(4, '/').last().unwrap_or_default().to_owned();
        self.asked.borrow_mut().push(format!("/{path}"));
        let is_verified = request.trust != Trust::Anyone;
        assert!(
            is_verified || request.bearer.is_none() && request.headers.is_empty(),
            "a credential went to a server that is not verified"
        );
        if let (Trust::Only(pem), Some(kind)) = (&request.trust, self.tls) {
            assert!(pem.contains("BEGIN CERTIFICATE"));
            return Err(Unreachable { kind, text: format!("certificate: {kind:?}") });
        }
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.saturating_add_signed(self.ahead));
        let answer = |status: u16, body: Vec<u8>| Ok(Answer { status, date: Some(date), retry_after: None, body });
        if let Some((_, status, body)) = self.instead.iter().find(|(end, ..)| request.url.ends_with(end)) {
            return answer(*status, body.to_string().into_bytes());
        }
        match path.as_str() {
            "cacerts" if is_verified && self.two_faced => return answer(200, b"another".to_vec()),
            "cacerts" => return answer(200, self.cacerts.clone().into_bytes()),
            "ping" => return answer(200, b"pong".to_vec()),
            // Anonymous requests are off in k3s.
            "readyz" => return answer(401, said("Unauthorized").to_string().into_bytes()),
            _ => {}
        }
        let header =
            |name: &str| request.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.expose().to_owned());
        let shown = header("authorization").or(request.bearer.as_ref().map(|token| format!("Bearer {}", token.expose())));
        if !shown.is_some_and(|shown| self.takes.contains(&shown)) {
            return answer(401, said("not authorized").to_string().into_bytes());
        }
        match path.as_str() {
            "v1-k3s/config" | "v1-k3s/encrypt/status" => answer(200, b"{}".to_vec()),
            "v1-k3s/readyz" => answer(200, b"ok".to_vec()),
            "v1-k3s/apiservers" => answer(200, json!(["10.0.0.1:6443"]).to_string().into_bytes()),
            "v1-k3s/client-kubelet.crt" => match (header("k3s-node-name"), header("k3s-node-password")) {
                (Some(_), Some(password)) if self.bound.is_none_or(|bound| bound == password) => answer(200, b"PEM".to_vec()),
                (Some(_), Some(_)) => answer(403, said("hash does not match").to_string().into_bytes()),
                _ => answer(400, said("node name not set").to_string().into_bytes()),
            },
            _ => answer(404, Vec::new()),
        }
    }

    fn was_asked(&self, path: &str) -> bool {
        self.asked.borrow().iter().any(|asked| asked == path)
    }
}

/// The error object that k3s answers with, like an API server.
fn said(message: &str) -> Value {
    json!({"kind": "Status", "message": message})
}

/// A machine with k3s in its image.
struct Machine {
    folder: tempfile::TempDir,
    flags: Vec<(&'static str, String)>,
    servers: Vec<(&'static str, Server)>,
    /// Connections that are accepted, as `tcp://ADDRESS`.
    open: Vec<String>,
    unit: UnitState,
    log: String,
    now: u64,
    host: Host,
}

impl Machine {
    /// Never joined, told to join through these servers as an agent.
    fn new(servers: &[(&'static str, Server)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let endpoints: Vec<&str> = servers.iter().map(|(endpoint, _)| *endpoint).collect();
        let machine = Self {
            host: Host::of_fakes(folder.path()).unwrap(),
            folder,
            flags: vec![
                ("cluster.kind", "k3s".to_owned()),
                ("cluster.endpoints", if endpoints.is_empty() { A.to_owned() } else { endpoints.join(",") }),
                ("cluster.token", token()),
            ],
            servers: servers.to_vec(),
            open: Vec::new(),
            unit: UnitState {
                load: "loaded".to_owned(),
                active: "inactive".to_owned(),
                file: "disabled".to_owned(),
                ..UnitState::default()
            },
            log: String::new(),
            now: NOW,
        };
        for unit in [super::AGENT_UNIT, super::SERVER_UNIT] {
            machine.write(&format!("/etc/systemd/system/{unit}"), "[Service]\nExecStart=/usr/local/bin/k3s \\\n    agent \\\n\n");
        }
        machine.write("/usr/local/bin/k3s", "");
        machine.write("/proc/uptime", "1000000.00 1.00\n");
        machine.build()
    }

    /// Puts the host together anew from what was described.
    fn build(mut self) -> Self {
        let mut script = ScriptedNetwork::default();
        script.open.clone_from(&self.open);
        for (endpoint, server) in self.servers.clone() {
            script = script.answering(endpoint, move |request| server.get(request));
        }
        let output = Output { code: Some(0), stdout: self.log.clone(), stderr: String::new() };
        let unit = |name: &'static str| (name, self.unit.clone());
        self.host.network = Box::new(script);
        self.host.programs = Box::new(ScriptedPrograms::default().answering("journalctl", output));
        self.host.units = Box::new(ScriptedUnits::with([unit(super::AGENT_UNIT), unit(super::SERVER_UNIT)]));
        self.host.clock = Box::new(FixedClock::at(self.now));
        self
    }

    /// Replaces a value of the configuration, or takes it away.
    fn set(mut self, key: &'static str, value: Option<&str>) -> Self {
        self.flags.retain(|(name, _)| *name != key);
        self.flags.extend(value.map(|value| (key, value.to_owned())));
        self
    }

    /// k3s runs since this many seconds.
    fn running_for(mut self, seconds: u64) -> Self {
        self.unit.active = "active".to_owned();
        self.unit.file = "enabled".to_owned();
        self.unit.active_since = (1_000_000 - seconds) * 1_000_000;
        self.build()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Says when a file was written, in seconds before now.
    fn date(&self, path: &str, seconds: u64) {
        let file = std::fs::File::options().write(true).open(self.folder.path().join(path.trim_start_matches('/'))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(self.now - seconds)).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join(path.trim_start_matches('/'))).ok()
    }

    /// What k3s leaves of a join.
    fn join(&self) {
        let agent = "/var/lib/rancher/k3s/agent";
        self.write(&format!("{agent}/client-kubelet.crt"), &format!("{NODE_CERTIFICATE}{CA}"));
        self.write(&format!("{agent}/client-kubelet.key"), NODE_KEY);
        self.write(&format!("{agent}/kubelet.kubeconfig"), "clusters: []\n");
        self.write(&format!("{agent}/server-ca.crt"), CA);
    }

    fn config(&self) -> Config {
        let pairs = self.flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        crate::config::load(vec![Source::flags(pairs)]).unwrap().config
    }

    fn facts(&self) -> Facts {
        let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
        Facts { machine_id: "0a".repeat(16), boot_id: "b".to_owned(), instance: Some(instance), ..Facts::default() }
    }

    async fn check(&self, step: &dyn Step) -> Status {
        step.check(Look::new(&self.host, &self.config(), &self.facts())).await.unwrap()
    }

    async fn pending(&self, step: &dyn Step) -> (String, Vec<Change>) {
        match self.check(step).await {
            Status::Pending { why, changes } => (why, changes),
            other => panic!("not pending: {other:?}"),
        }
    }

    /// Does what the step `join` asks for; in what words.
    async fn make(&self) -> Vec<String> {
        let (_, changes) = self.pending(&Join).await;
        for change in &changes {
            self.host.apply(change).await.unwrap();
        }
        changes.iter().map(ToString::to_string).collect()
    }

    async fn broken(&self, step: &dyn Step) -> Finding {
        match self.check(step).await {
            Status::Broken(finding) => finding,
            other => panic!("not broken: {other:?}"),
        }
    }

    async fn waiting(&self, step: &dyn Step) -> Finding {
        match self.check(step).await {
            Status::Waiting(finding) => finding,
            other => panic!("not waiting: {other:?}"),
        }
    }

    async fn ready(&self, step: &dyn Step) -> String {
        match self.check(step).await {
            Status::Ready(evidence) => evidence,
            other => panic!("not ready: {other:?}"),
        }
    }
}
