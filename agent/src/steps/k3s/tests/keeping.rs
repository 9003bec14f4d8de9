//! What happens to a member: files that go bad, certificates that end, tokens and servers that change.

use super::*;
use crate::host::cluster::{ClusterError, ScriptedCluster};
use crate::steps::identity::OwnIdentity;
use crate::steps::join::fixtures::OTHER_CA;
use crate::steps::node::Node;

const CERTIFICATE: &str = "/var/lib/rancher/k3s/agent/client-kubelet.crt";
const KEY: &str = "/var/lib/rancher/k3s/agent/client-kubelet.key";
const CACHE: &str = "/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json";

/// A member that has run for a day and a bit.
async fn member(servers: &[(&'static str, Server)]) -> Machine {
    let machine = Machine::new(servers);
    machine.make().await;
    machine.join();
    machine.running_for(100_000)
}

#[tokio::test(start_paused = true)]
async fn a_member_asks_nobody_and_is_kept_running() {
    let server = Server::good();
    let mut machine = member(&[(A, server.clone())]).await;
    server.asked.borrow_mut().clear();
    machine.ready(&Join).await;
    // A bootstrap token may be gone from the configuration when the join is done.
    machine = machine.set("cluster.token", None);
    machine.ready(&Join).await;
    machine.unit.active = "inactive".to_owned();
    machine.unit.file = "disabled".to_owned();
    machine = machine.build();
    assert_eq!(machine.make().await, ["enable k3s-agent.service", "start k3s-agent.service"]);
    assert!(server.asked.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_verified_ca_hears_of_it_for_ever() {
    let machine = Machine::new(&[(A, Server::good())]).set("cluster.token", Some(PASSWORD));
    let machine = machine.set("cluster.unsafe-skip-ca-verification", Some("true"));
    machine.make().await;
    machine.join();
    assert!(machine.running_for(60).ready(&Join).await.contains("was not verified"));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_ended_or_soon_ends_takes_a_start_of_k3s() {
    let mut machine = member(&[(A, Server::good())]).await;
    // 2026-12-15, and 2027-02-01 after its end.
    machine.now = 1_797_292_800;
    machine = machine.build();
    assert_eq!(machine.make().await, ["restart k3s-agent.service"]);
    let machine = machine.running_for(3600);
    machine.ready(&Join).await;
    let mut machine = machine.running_for(100_000);
    machine.now = 1_801_440_000;
    machine = machine.build();
    let (why, changes) = machine.pending(&Join).await;
    assert!(why.contains("client-kubelet.crt expired at 2027-01-01") && why.contains("accepts its token"), "{why}");
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart k3s-agent.service"]);
    // With a dead token the start would not help.
    machine.servers = vec![(A, Server { takes: Vec::new(), ..Server::good() })];
    assert_eq!(machine.build().broken(&Join).await.code, "token-rejected");
}

#[tokio::test(start_paused = true)]
async fn files_that_a_power_cut_emptied_are_taken_away() {
    let machine = member(&[(A, Server::good())]).await;
    machine.write(KEY, "");
    let made = machine.make().await;
    assert_eq!(made, [format!("remove {KEY}"), "sync file systems".to_owned(), "restart k3s-agent.service".to_owned()]);
    machine.write(KEY, NODE_KEY);
    machine.write(CERTIFICATE, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(machine.make().await[..2], [format!("remove {CERTIFICATE}"), format!("remove {KEY}")]);
}

#[tokio::test(start_paused = true)]
async fn another_token_is_proven_and_kept_for_the_next_start() {
    let machine = member(&[(A, Server::good())]).await;
    let other = format!("K10{HASH}::server:other");
    let refused = machine.set("cluster.token", Some(&other));
    assert_eq!(refused.broken(&Join).await.code, "token-rejected");
    let mut accepted = refused;
    use base64::Engine;
    let basic = base64::engine::general_purpose::STANDARD.encode("node:other");
    accepted.servers = vec![(A, Server { takes: vec![format!("Basic {basic}")], ..Server::good() })];
    let accepted = accepted.build();
    assert_eq!(accepted.make().await, [format!("write {TOKEN_FILE}")]);
    assert_eq!(accepted.read(TOKEN_FILE).unwrap(), format!("K10{HASH}::node:other\n"));
    accepted.ready(&Join).await;
}

fn cache(server: &str, addresses: &str) -> String {
    format!(r#"{{"ServerURL": "{server}", "ServerAddresses": [{addresses}], "Listener": null}}"#)
}

/// The step `node` of a member whose API server does not answer.
async fn unreachable(machine: &mut Machine) -> Status {
    machine.host.cluster = Box::new(ScriptedCluster::answering(Err(ClusterError::Unreachable("refused".to_owned()))));
    machine.check(&Node).await
}

fn changes(status: Status) -> Vec<String> {
    match status {
        Status::Pending { changes, .. } => changes.iter().map(ToString::to_string).collect(),
        other => panic!("not pending: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_knows_only_dead_servers_forgets_them() {
    let mut machine = member(&[(A, Server::good())]).await;
    machine.write(CACHE, &cache(A, r#""10.0.0.5:6443", "10.0.0.6:6443""#));
    let made = changes(unreachable(&mut machine).await);
    assert_eq!(made, [format!("remove {CACHE}"), "restart k3s-agent.service".to_owned()]);
    let Status::Pending { changes: removal, .. } = unreachable(&mut machine).await else { panic!("not pending") };
    assert_eq!(removal[0], Change::Remove { path: CACHE.into(), secret: false }, "its bytes are kept");
    // One that lives, a name that may have moved, a file for another address: k3s finds the way by itself.
    let alive = "tcp://10.0.0.6:6443".to_owned();
    machine.open = vec![alive];
    machine = machine.build();
    assert!(matches!(unreachable(&mut machine).await, Status::Waiting(finding) if finding.code == "api-unreachable"));
    machine.open.clear();
    for text in [cache(A, r#""k3s.example.com:6443""#), cache(B, r#""10.0.0.5:6443""#), cache(A, ""), "{".to_owned()] {
        machine = machine.build();
        machine.write(CACHE, &text);
        assert!(matches!(unreachable(&mut machine).await, Status::Waiting(_)), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_does_not_keep_a_node_from_joining_again() {
    let machine = Machine::new(&[(A, Server::good())]);
    machine.make().await;
    machine.write(CACHE, &cache(A, r#""10.0.0.5:6443""#));
    let made = machine.running_for(60).make().await;
    assert_eq!(made, [format!("remove {CACHE}"), "restart k3s-agent.service".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_is_followed_and_a_rebuilt_cluster_is_not() {
    let mut machine = member(&[(A, Server::good())]).await;
    machine.flags.retain(|(key, _)| *key != "cluster.endpoints");
    machine.flags.push(("cluster.endpoints", format!("{A},{B}")));
    machine.servers = vec![(B, Server::good())];
    machine = machine.build();
    let made = changes(unreachable(&mut machine).await);
    assert_eq!(made, [format!("write {DROP_IN}"), "restart k3s-agent.service".to_owned()]);
    let stranger = Server { cacerts: OTHER_CA.to_owned(), tls: Some(UnreachableKind::UnknownAuthority), ..Server::good() };
    machine.servers = vec![(A, stranger.clone()), (B, stranger)];
    machine = machine.build();
    let Status::Broken(finding) = unreachable(&mut machine).await else { panic!("not broken") };
    assert!(finding.code == "cluster-rebuilt" && finding.remedy.contains("/etc/rancher/node/password"), "{finding:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_object_was_deleted_registers_by_a_start_of_k3s() {
    let mut machine = member(&[(A, Server::good())]).await;
    machine.host.cluster = Box::new(ScriptedCluster::answering(Ok(None)));
    assert_eq!(changes(machine.check(&Node).await), ["write /run/gpuk-agent/node-missing", "restart k3s-agent.service"]);
}

#[tokio::test(start_paused = true)]
async fn the_name_in_the_certificate_stays_and_a_copied_disk_brings_none() {
    let machine = member(&[(A, Server::good())]).await.set("node.name", Some("another"));
    let (config, facts) = (machine.config(), machine.facts());
    let name = crate::identity::name(Look::new(&machine.host, &config, &facts));
    assert_eq!(name.as_deref(), Some("gpu-1"));
    machine.write("/etc/rancher/node/password", "mine\n");
    let of_another =
        r#"{"instanceId": "gpu-0", "cloud": "nocloud", "node": "gpu-0", "template": "{instance-id}", "joined": true}"#;
    machine.write("/var/lib/gpuk-agent/identity.json", of_another);
    let Status::Pending { changes, .. } = machine.check(&OwnIdentity).await else { panic!("not pending") };
    let made: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert!(made.contains(&"stop k3s-agent.service".to_owned()), "{made:?}");
    for path in ["/etc/rancher/node/password", KEY, CERTIFICATE] {
        assert!(made.contains(&format!("remove {path}")), "{path}: {made:?}");
    }
    assert_eq!(made.last(), Some(&format!("remove {CERTIFICATE}")), "what tells whose it is goes last");
}
