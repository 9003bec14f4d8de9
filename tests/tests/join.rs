//! The join step against real control planes: every verdict that a real API server can be made to cause.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "join/chaos.rs"]
mod chaos;
#[path = "join/herd.rs"]
mod herd;
#[path = "join/killed.rs"]
mod killed;
#[path = "join/middle.rs"]
mod middle;
#[path = "join/rows.rs"]
mod rows;
#[path = "join/scene.rs"]
mod scene;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use gpuk_agent::config::{Source, load};
use gpuk_agent::facts::{Dmi, Facts, Instance};
use gpuk_agent::host::Host;
use gpuk_agent::host::clock::SystemClock;
use gpuk_agent::host::cluster::{ClusterError, ScriptedCluster};
use gpuk_agent::host::files::Files;
use gpuk_agent::host::network::RealNetwork;
use gpuk_agent::look::Look;
use gpuk_agent::step::{Change, Finding, Status, Step};
use gpuk_agent::steps::join::Join;
use vm_tests::cluster::Reachable;
use vm_tests::parts::Program;
use vm_tests::progress::wait_for;
use vm_tests::{Cluster, ClusterOptions, Parts};

/// A machine that never joined, and what it was told.
struct Stranger {
    endpoints: Vec<String>,
    token: String,
    pin: String,
    /// `node.name-taken`.
    name_taken: String,
}

/// DMI `product_uuid` of the machine, and of another one.
const UUID: &str = "4c4c4544-0034-5210-8051-cac04f4a4e32";
const OTHER_UUID: &str = "ec2f1a2b-0034-5210-8051-cac04f4a4e32";

impl Stranger {
    fn of(cluster: &Cluster) -> Self {
        Self {
            endpoints: vec![cluster.endpoint()],
            token: cluster.token().to_owned(),
            pin: cluster.ca_cert_hash().unwrap(),
            name_taken: "stop".to_owned(),
        }
    }

    fn with_token(cluster: &Cluster, token: &str) -> Self {
        Self { token: token.to_owned(), ..Self::of(cluster) }
    }

    /// One look, over the real network.
    fn check(&self) -> Status {
        let root = tempfile::tempdir().unwrap();
        let pairs = [
            ("cluster.endpoints", self.endpoints.join(",")),
            ("cluster.token", self.token.clone()),
            ("cluster.ca-cert-hashes", self.pin.clone()),
            ("node.name-taken", self.name_taken.clone()),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let config = load(vec![Source::flags(pairs)]).unwrap().config;
        let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
        let dmi = Dmi { product_uuid: Some(UUID.to_owned()), ..Dmi::default() };
        let facts = Facts { machine_id: "0a".repeat(16), instance: Some(instance), dmi, ..Facts::default() };
        let cluster = ScriptedCluster::answering(Err(ClusterError::NoCredential(String::new())));
        let host = Host {
            files: Files::below(root.path()).unwrap(),
            network: Box::new(RealNetwork::default()),
            cluster: Box::new(cluster),
            clock: Box::new(SystemClock),
            ..Host::of_fakes(root.path()).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = Instant::now();
        let status = runtime.block_on(Join.check(Look::new(&host, &config, &facts))).unwrap();
        eprintln!("{} ms: {}", start.elapsed().as_millis(), describe(&status));
        assert!(!format!("{status:?}").contains(self.token.split('.').nth(1).unwrap()), "a secret is shown");
        status
    }

    fn pending(&self) -> (String, Vec<Change>) {
        match self.check() {
            Status::Pending { why, changes } => (why, changes),
            other => panic!("not pending: {other:?}"),
        }
    }

    fn broken(&self) -> Finding {
        match self.check() {
            Status::Broken(finding) => finding,
            other => panic!("not broken: {other:?}"),
        }
    }

    fn waiting(&self) -> Finding {
        match self.check() {
            Status::Waiting(finding) => finding,
            other => panic!("not waiting: {other:?}"),
        }
    }
}

fn describe(status: &Status) -> String {
    match status {
        Status::Ready(evidence) => format!("ready: {evidence}"),
        Status::Pending { why, .. } => format!("pending: {why}"),
        Status::Waiting(finding) => format!("waiting: {}: {finding}", finding.code),
        Status::Broken(finding) => format!("broken: {}: {finding}", finding.code),
    }
}

fn cluster(parts: &Parts) -> Cluster {
    Cluster::start(parts, ClusterOptions { reachable: Reachable::FromHere, ..ClusterOptions::default() }).unwrap()
}

fn written(changes: &[Change], end: &str) -> Vec<u8> {
    let found = changes.iter().find_map(|change| match change {
        Change::Write { path, contents, .. } if path.ends_with(end) => Some(contents.bytes.clone()),
        _ => None,
    });
    found.unwrap()
}

/// Another address for the same server, for which its certificate has no name.
fn forward_from(address: &str, port: u16) -> String {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || copy(from, to));
            }
        }
    });
    endpoint
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown(Shutdown::Write);
}

/// A port where somebody listens and never answers.
fn tarpit() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[test]
fn a_real_control_plane_gets_the_right_verdicts() -> Result<()> {
    let parts = Parts::open()?;
    let ours = cluster(&parts);
    let (_listener, hanging) = tarpit();

    // What a good answer leads to is what kubeadm and kubectl take.
    let (why, changes) = Stranger::of(&ours).pending();
    assert!(why.contains(&format!("{} accepts its token", ours.endpoint())) && !why.contains("warning"), "{why}");
    let folder = tempfile::tempdir()?;
    let discovery = folder.path().join("discovery.conf");
    std::fs::write(&discovery, written(&changes, "discovery.conf"))?;
    let join = folder.path().join("kubeadm.conf");
    let configuration = String::from_utf8(written(&changes, "kubeadm.conf"))?;
    // It names the file, which is elsewhere here.
    let there = "/run/gpuk-agent/join/discovery.conf";
    std::fs::write(&join, configuration.replace(there, &discovery.display().to_string()))?;
    let mut validate = std::process::Command::new(parts.program(Program::Kubeadm)?);
    let validated = validate.args(["config", "validate", "--config"]).arg(&join).output()?;
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
    let mut kubectl = std::process::Command::new(ours.kubectl_program());
    kubectl.arg("--kubeconfig").arg(&discovery).args(["get", "configmap", "-n", "kube-system", "kubeadm-config"]);
    let asked = kubectl.env("HOME", folder.path()).output()?;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));

    // Endpoints that hang, refuse or lie cost nothing beside a good one.
    let other = cluster(&parts);
    let mut many = Stranger::of(&ours);
    many.endpoints = vec![hanging.clone(), "https://127.0.0.1:1".to_owned(), other.endpoint(), ours.endpoint()];
    let start = Instant::now();
    let (why, _) = many.pending();
    assert!(why.contains(&format!("{} accepts its token", ours.endpoint())), "{why}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    // Alone they get their verdicts. The other cluster knows the same token, so only the pin tells it apart.
    let mut wrong = Stranger::of(&ours);
    wrong.endpoints = vec![other.endpoint()];
    let finding = wrong.broken();
    assert_eq!(finding.code, "pin-mismatch");
    assert!(finding.why.contains(&other.ca_cert_hash()?) && finding.why.contains(&ours.ca_cert_hash()?), "{}", finding.why);
    wrong.endpoints = vec!["https://127.0.0.1:1".to_owned(), hanging];
    let finding = wrong.waiting();
    assert_eq!(finding.code, "endpoint-unreachable");
    assert!(finding.why.contains("connection refused") && finding.why.contains("no answer in time"), "{}", finding.why);
    wrong.endpoints = vec!["https://nowhere.invalid:6443".to_owned()];
    assert!(wrong.waiting().why.contains("does not resolve"));
    wrong.endpoints = vec![forward_from("127.0.0.2", ours.port())];
    let finding = wrong.broken();
    assert_eq!(finding.code, "certificate-wrong-name");
    assert!(finding.why.contains("127.0.0.2"), "{}", finding.why);
    Ok(())
}

#[test]
fn a_real_control_plane_says_whose_a_name_is() -> Result<()> {
    let parts = Parts::open()?;
    let ours = cluster(&parts);
    let with = |name_taken: &str| Stranger { name_taken: name_taken.to_owned(), ..Stranger::of(&ours) };
    // An object that nobody has reported to is nobody's.
    ours.kubectl_with(&["apply", "-f", "-"], r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"gpu-1"}}"#)?;
    with("stop").pending();
    let report = |machine_id: &str, system_uuid: &str, ready: &str| {
        let patch = serde_json::json!({"status": {
            "nodeInfo": {"machineID": machine_id, "systemUUID": system_uuid},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.5"}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "r", "message": "m", "lastTransitionTime": "2026-05-01T00:00:00Z"}],
        }});
        ours.kubectl(&["patch", "node", "gpu-1", "--subresource=status", "-p", &patch.to_string()]).map(drop)
    };

    report("another", OTHER_UUID, "Unknown")?;
    let finding = with("stop").broken();
    assert_eq!(finding.code, "name-taken");
    for seen in ["machine id another", OTHER_UUID, "address 10.0.0.5", "not Ready since 2026-05-01T00:00:00Z"] {
        assert!(finding.why.contains(seen), "{seen}: {}", finding.why);
    }
    let (why, changes) = with("take-over").pending();
    assert!(why.contains("the name gpu-1 is taken over"), "{why}");
    assert!(String::from_utf8(written(&changes, "kubeadm.conf"))?.contains("\"name\": \"gpu-1\""));
    let (_, changes) = with("suffix").pending();
    let decision: serde_json::Value = serde_json::from_slice(&written(&changes, "identity.json"))?;
    assert_eq!(decision["insteadOf"], "gpu-1");
    assert_eq!(written(&changes, "etc/hostname"), format!("{}\n", decision["node"].as_str().unwrap()).into_bytes());
    // Nobody is pushed out who is there.
    report("another", OTHER_UUID, "True")?;
    assert_eq!(with("take-over").broken().code, "name-taken");

    // A copied disk has the machine id of its origin; the firmware tells them apart, in whatever case.
    report(&"0a".repeat(16), OTHER_UUID, "True")?;
    assert_eq!(with("stop").broken().code, "name-taken");
    report(&"0a".repeat(16), &UUID.to_uppercase(), "True")?;
    assert_eq!(with("stop").waiting().code, "own-node-still-ready");
    report("reinstalled", UUID, "Unknown")?;
    with("stop").pending();

    // Without kubeadm's ClusterRoleBinding nobody can know.
    ours.kubectl(&["delete", "clusterrolebinding", "kubeadm:get-nodes"])?;
    report("another", OTHER_UUID, "True")?;
    // The API server learns of the deletion by a watch of its own.
    let why = wait_for("the API server to refuse", Duration::from_secs(30), || match with("stop").check() {
        Status::Pending { why, .. } => Ok(Some(why)),
        _ => Ok(None),
    })?;
    assert!(why.contains("cannot be known: HTTP 403") && why.contains("nodes"), "{why}");
    Ok(())
}

#[test]
fn a_real_control_plane_refuses_wrong_tokens_each_in_its_way() -> Result<()> {
    let parts = Parts::open()?;
    let mut ours = cluster(&parts);
    let id = ours.token().split('.').next().unwrap().to_owned();

    assert_eq!(Stranger::with_token(&ours, &format!("{id}.0000000000000000")).broken().code, "token-secret-wrong");
    let finding = Stranger::with_token(&ours, "zzzzzz.0000000000000000").broken();
    assert_eq!(finding.code, "token-rejected");
    assert!(finding.why.contains("no signature"), "{}", finding.why);

    let patch_token = |id: &str, data: &str| {
        let secret = format!("bootstrap-token-{id}");
        ours.kubectl(&["patch", "secret", "-n", "kube-system", &secret, "--type=merge", "-p", data]).map(drop)
    };
    ours.create_token("nogrou.0123456789abcdef", "2h")?;
    patch_token("nogrou", r#"{"stringData":{"auth-extra-groups":"system:bootstrappers:nobody"}}"#)?;
    ours.create_token("nosign.0123456789abcdef", "2h")?;
    patch_token("nosign", r#"{"stringData":{"usage-bootstrap-signing":"false"}}"#)?;
    ours.create_token("noauth.0123456789abcdef", "2h")?;
    patch_token("noauth", r#"{"stringData":{"usage-bootstrap-authentication":"false"}}"#)?;
    std::thread::sleep(Duration::from_secs(1));
    let finding = Stranger::with_token(&ours, "nogrou.0123456789abcdef").broken();
    assert_eq!(finding.code, "token-forbidden");
    assert!(finding.why.contains("system:bootstrap:nogrou"), "{}", finding.why);
    assert_eq!(Stranger::with_token(&ours, "nosign.0123456789abcdef").waiting().code, "signer-down");
    let finding = Stranger::with_token(&ours, "noauth.0123456789abcdef").broken();
    assert_eq!(finding.code, "token-rejected");
    assert!(finding.why.contains("its secret is right"), "{}", finding.why);

    // A server that starts is never taken for one that refuses.
    let stranger = Stranger::of(&ours);
    ours.stop_api_server()?;
    assert_eq!(stranger.waiting().code, "endpoint-unreachable");
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| ours.start_api_server());
        while !starting.is_finished() || seen.is_empty() {
            match stranger.check() {
                Status::Waiting(finding) => seen.push(finding.code),
                Status::Pending { .. } => seen.push("pending".to_owned()),
                other => panic!("{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        starting.join().unwrap()
    })?;
    seen.dedup();
    eprintln!("while it started: {seen:?}");
    assert!(seen.len() > 1, "{seen:?}");
    Stranger::of(&ours).pending();

    // The anonymous RoleBinding is gone.
    ours.kubectl(&["delete", "rolebinding", "-n", "kube-public", "kubeadm:bootstrap-signer-clusterinfo"])?;
    assert_eq!(Stranger::of(&ours).broken().code, "cluster-info-forbidden");
    Ok(())
}
