//! The steps of a k3s node over real HTTPS against a stand-in of a k3s server, and a player of what the k3s agent asks of it; that k3s itself
//! does the same, they cannot show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use gpuk_agent::config::{Config, Secret, Source, load};
use gpuk_agent::facts::{Facts, Instance};
use gpuk_agent::host::Host;
use gpuk_agent::host::clock::SystemClock;
use gpuk_agent::host::network::{Get, Network, RealNetwork, Trust};
use gpuk_agent::host::units::{ScriptedUnits, UnitState};
use gpuk_agent::look::Look;
use gpuk_agent::step::{Change, Status, Step};
use gpuk_agent::steps::join::Join;
use gpuk_agent::steps::kubelet::Kubelet;
use integration::write;
use k3s_stand_in::{Authority, Behaviour, Server};

const DROP_IN: &str = "etc/rancher/k3s/config.yaml.d/50-gpuk-agent.yaml";
const TOKEN_FILE: &str = "etc/rancher/k3s/gpuk-agent-token";
const PASSWORD_FILE: &str = "etc/rancher/node/password";

/// A machine with k3s in its image.
struct Machine {
    root: tempfile::TempDir,
    endpoints: Vec<String>,
    token: String,
    role: &'static str,
    /// k3s was started this many seconds ago.
    up: Option<u64>,
}

impl Machine {
    fn of(servers: &[&Server]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for unit in ["k3s.service", "k3s-agent.service"] {
            write(root.path(), &format!("etc/systemd/system/{unit}"), "[Service]\nExecStart=/usr/local/bin/k3s x\n");
        }
        write(root.path(), "usr/local/bin/k3s", "");
        write(root.path(), "proc/uptime", "1000.00 1.00\n");
        let endpoints = servers.iter().map(|server| server.url()).collect();
        Self { root, endpoints, token: servers[0].token(), role: "worker", up: None }
    }

    fn config(&self) -> Config {
        let pairs = [
            ("cluster.kind", "k3s"),
            ("cluster.endpoints", &self.endpoints.join(",")),
            ("cluster.token", &self.token),
            ("node.role", self.role),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        load(vec![Source::flags(pairs)]).unwrap().config
    }

    fn host(&self) -> Host {
        let mut host = Host::of_fakes(self.root.path()).unwrap();
        let mut unit = UnitState { load: "loaded".to_owned(), file: "enabled".to_owned(), ..UnitState::default() };
        unit.active = if self.up.is_some() { "active" } else { "inactive" }.to_owned();
        unit.active_since = (1000 - self.up.unwrap_or(0)) * 1_000_000;
        host.units = Box::new(ScriptedUnits::with([("k3s-agent.service", unit.clone()), ("k3s.service", unit)]));
        host.network = Box::new(RealNetwork::default());
        host.clock = Box::new(SystemClock);
        host
    }

    async fn check(&self, step: &dyn Step) -> Status {
        let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
        let facts = Facts { machine_id: "0a".repeat(16), instance: Some(instance), ..Facts::default() };
        step.check(Look::new(&self.host(), &self.config(), &facts)).await.unwrap()
    }

    /// Writes what the step `join` asks to be written; the words of everything that it asks.
    async fn make(&self) -> Vec<String> {
        let Status::Pending { changes, .. } = self.check(&Join).await else { panic!("not pending") };
        for change in &changes {
            if let Change::Write { path, contents, .. } = change {
                write(self.root.path(), &path.display().to_string()[1..], &String::from_utf8(contents.bytes.clone()).unwrap());
            }
        }
        changes.iter().map(ToString::to_string).collect()
    }

    fn read(&self, path: &str) -> Option<String> {
        let bytes = Host::of_fakes(self.root.path()).unwrap().files.read(Path::new(&format!("/{path}"))).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Plays the k3s agent as far as its sources tell: reads its settings, makes a password, and asks for the kubelet's certificate
    /// (`pkg/agent/config`). The HTTP status that it got.
    async fn play_k3s(&self) -> u16 {
        let settings = self.read(DROP_IN).unwrap();
        let setting = |key: &str| {
            let line = settings.lines().find_map(|line| line.strip_prefix(&format!("{key}: \"")));
            line.unwrap_or_else(|| panic!("no {key} in {settings}")).trim_end_matches('"').to_owned()
        };
        let token = self.read(&setting("token-file")[1..]).unwrap();
        let password = token.trim().rsplit(':').next().unwrap().to_owned();
        if self.read(PASSWORD_FILE).is_none() {
            write(self.root.path(), PASSWORD_FILE, &format!("{:032x}\n", std::process::id()));
        }
        let get = async |path: &str, trust: Trust, headers: Vec<(&'static str, Secret)>| {
            let url = format!("{}{path}", setting("server"));
            RealNetwork::default().get(Get { url, trust, bearer: None, headers, limit: Duration::from_secs(20) }).await.unwrap()
        };
        let cacerts = String::from_utf8(get("/cacerts", Trust::Anyone, Vec::new()).await.body).unwrap();
        let headers = vec![
            ("authorization", Secret::new(format!("Basic {}", base64(&format!("node:{password}"))))),
            ("k3s-node-name", Secret::new(setting("node-name"))),
            ("k3s-node-password", Secret::new(self.read(PASSWORD_FILE).unwrap().trim())),
        ];
        let answer = get("/v1-k3s/client-kubelet.crt", Trust::Only(cacerts.clone()), headers).await;
        if answer.status == 200 {
            let text = String::from_utf8(answer.body).unwrap();
            let (certificates, key) = text.split_at(text.find("-----BEGIN PRIVATE KEY").unwrap());
            for (name, text) in [
                ("client-kubelet.crt", certificates),
                ("client-kubelet.key", key),
                ("kubelet.kubeconfig", "{}"),
                ("server-ca.crt", &cacerts),
            ] {
                write(self.root.path(), &format!("var/lib/rancher/k3s/agent/{name}"), text);
            }
        }
        answer.status
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// "broken ca-mismatch", "waiting endpoint-busy", "pending", "ready".
fn word(status: &Status) -> String {
    match status {
        Status::Ready(_) => "ready".to_owned(),
        Status::Pending { .. } => "pending".to_owned(),
        Status::Waiting(finding) => format!("waiting {}", finding.code),
        Status::Broken(finding) => format!("broken {}", finding.code),
    }
}

#[tokio::test]
async fn every_row_of_the_table_over_the_wire() {
    type Fault = fn(&mut Behaviour);
    let faults: [(&str, Fault); 10] = [
        ("pending", |_| {}),
        ("waiting endpoint-busy", |server| server.instead.push(("/cacerts", 503))),
        ("waiting endpoint-busy", |server| server.instead.push(("/v1-k3s/config", 429))),
        ("waiting endpoint-starting", |server| (server.has_authenticator, server.has_api_server) = (false, false)),
        ("broken token-rejected", |server| server.has_authenticator = false),
        ("broken token-rejected", |server| server.agent_password = "another".to_owned()),
        ("broken token-wrong-role", |server| server.instead.push(("/v1-k3s/config", 403))),
        ("waiting endpoint-starting", |server| server.is_ready = false),
        ("waiting endpoint-starting", |server| server.api_servers.clear()),
        ("broken not-a-k3s-server", |server| server.instead.push(("/cacerts", 404))),
    ];
    for (expected, fault) in faults {
        let server = Server::healthy();
        let machine = Machine::of(&[&server]);
        server.change(fault);
        assert_eq!(word(&machine.check(&Join).await), expected);
    }
    let closed = Machine { endpoints: vec!["https://127.0.0.1:1".to_owned()], ..Machine::of(&[&Server::healthy()]) };
    assert_eq!(word(&closed.check(&Join).await), "waiting endpoint-unreachable");
    let misnamed = Server::start(Authority::self_signed("ca"), &["elsewhere"], Behaviour::default());
    assert_eq!(word(&Machine::of(&[&misnamed]).check(&Join).await), "broken certificate-wrong-name");
}

#[tokio::test]
async fn the_token_never_reaches_a_server_that_is_not_proven() {
    let real = Server::start(Authority::chained("real"), &["127.0.0.1"], Behaviour::default());
    let shown = || real.authority.cacerts.clone();
    let stranger = || Authority::self_signed("somebody");
    let impostor = |authority: Authority| Server::start(authority, &["127.0.0.1"], Behaviour::default());
    let own = stranger();
    let beside = format!("{}{}", shown(), own.cacerts);
    for (impostor, expected) in [
        // Its own CA; the real one's without its key; the real one's with its own beside, which k3s itself would believe.
        (impostor(stranger()), "broken ca-mismatch"),
        (impostor(stranger().showing(shown())), "broken certificate-unknown-authority"),
        (impostor(own.showing(beside)), "broken certificate-unknown-authority"),
    ] {
        let machine = Machine { token: real.token(), ..Machine::of(&[&impostor]) };
        assert_eq!(word(&machine.check(&Join).await), expected);
        let seen = impostor.requests();
        assert!(!seen.is_empty() && seen.iter().all(|request| request.header("authorization").is_none()), "{seen:?}");
        // Beside the real one it costs nothing and learns nothing.
        let both = Machine { token: real.token(), ..Machine::of(&[&impostor, &real]) };
        both.make().await;
        assert!(both.read(DROP_IN).unwrap().contains(&format!("server: \"{}\"", real.url())));
        assert!(impostor.requests().iter().all(|request| request.header("authorization").is_none()));
    }
    assert!(real.requests().iter().any(|request| request.header("authorization").is_some()), "the real one was shown it");
}

#[tokio::test]
async fn a_machine_joins_and_a_second_look_changes_nothing() {
    let server = Server::healthy();
    let mut machine = Machine::of(&[&server]);
    let made = machine.make().await;
    assert_eq!(made.last().map(String::as_str), Some("start k3s-agent.service"));
    assert_eq!(machine.read(TOKEN_FILE).unwrap().trim(), server.token());
    assert_eq!(machine.play_k3s().await, 200);
    machine.up = Some(0);
    let asked = server.requests().len();
    assert_eq!(word(&machine.check(&Join).await), "ready");
    assert_eq!(word(&machine.check(&Kubelet).await), "ready");
    assert_eq!(server.requests().len(), asked, "a member asks nobody");
}

#[tokio::test]
async fn a_machine_that_was_made_anew_is_told_which_secret_must_go() {
    let server = Server::healthy();
    let first = Machine::of(&[&server]);
    first.make().await;
    write(first.root.path(), PASSWORD_FILE, "of-the-first\n");
    assert_eq!(first.play_k3s().await, 200);
    let again = |password: Option<&str>| {
        let machine = Machine::of(&[&server]);
        password.iter().for_each(|password| write(machine.root.path(), PASSWORD_FILE, password));
        machine
    };
    let mut anew = again(None);
    anew.make().await;
    assert_eq!(anew.play_k3s().await, 403);
    anew.up = Some(60);
    let Status::Broken(finding) = anew.check(&Join).await else { panic!("not broken") };
    assert_eq!(finding.code, "node-password-rejected");
    assert!(finding.remedy.contains("secret gpu-1.node-password.k3s"), "{}", finding.remedy);
    server.change(|server| _ = server.node_passwords.remove("gpu-1"));
    assert_eq!(word(&anew.check(&Join).await), "waiting k3s-not-joined");
    assert_eq!(anew.play_k3s().await, 200);
    assert_eq!(word(&anew.check(&Join).await), "ready");
    // The password that was kept would have spared all of this.
    let kept = again(Some(&anew.read(PASSWORD_FILE).unwrap()));
    kept.make().await;
    assert_eq!(kept.play_k3s().await, 200);
}

#[tokio::test]
async fn servers_and_bootstrap_tokens_have_roles_of_their_own() {
    let server = Server::start(Authority::chained("ca"), &["127.0.0.1"], Behaviour::default());
    server.change(|server| server.bootstrap_tokens.push("abcdef.0123456789abcdef".to_owned()));
    let token = |credential: &str| format!("K10{}::{credential}", server.authority.hash);
    for (role, credential, expected) in [
        ("worker", "abcdef.0123456789abcdef", "pending"),
        ("control-plane", "abcdef.0123456789abcdef", "broken token-wrong-role"),
        ("control-plane", "server:servers-password", "pending"),
        ("control-plane", "server:agents-password", "broken token-rejected"),
    ] {
        let machine = Machine { token: token(credential), role, ..Machine::of(&[&server]) };
        assert_eq!(word(&machine.check(&Join).await), expected, "{role} {credential}");
    }
}
