//! What the API server says of the Node, and whose it is.

use std::time::{Duration, SystemTime};

use super::super::tests::{changes, check, code, facts, machine, object, put, written};
use super::Node;
use crate::host::clock::FixedClock;
use crate::host::cluster::{ClusterError, Node as NodeObject, ScriptedCluster};
use crate::host::network::{Answer, Get, ScriptedNetwork, Trust, Unreachable, UnreachableKind};
use crate::host::units::{ScriptedUnits, UnitState};
use crate::step::Status;
use crate::steps::join::fixtures::CA;

/// What the step `node` says when the API server answers this.
async fn node_with(answer: Result<Option<NodeObject>, ClusterError>, active_since: u64) -> Status {
    let (_root, mut host) = machine(&[("proc/uptime", "1000.00 1.00\n")]);
    host.cluster = Box::new(ScriptedCluster::answering(answer));
    let running = UnitState { active: "active".to_owned(), active_since, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    check(&Node, &host, &facts(), "").await
}

#[tokio::test]
async fn a_node_is_ours_and_of_this_boot_and_ready() {
    assert_eq!(node_with(Ok(Some(object("m", "b", "True"))), 0).await, Status::Ready("Node i-1 is Ready".to_owned()));
    assert_eq!(code(&node_with(Ok(Some(object("m", "b", "False"))), 0).await), "node-not-ready");
    assert_eq!(code(&node_with(Ok(Some(object("m", "old", "True"))), 0).await), "node-not-seen-since-boot");
    let Status::Waiting(finding) = node_with(Ok(Some(object("other", "b", "True"))), 0).await else { unreachable!() };
    let seen = "Node i-1 has machine id other, system UUID none, address none and is Ready; this machine has machine id m, product UUID none";
    assert_eq!((finding.code.as_str(), finding.why.as_str()), ("node-is-another-machine", seen));
    assert_eq!(code(&node_with(Err(ClusterError::Unreachable("timed out".to_owned())), 0).await), "api-unreachable");
    assert_eq!(code(&node_with(Err(ClusterError::Refused(401, "Unauthorized".to_owned())), 0).await), "api-refuses");
}

#[tokio::test]
async fn a_deleted_node_comes_back_by_a_restart_of_its_kubelet() {
    assert_eq!(code(&node_with(Ok(None), 990_000_000).await), "node-not-registered");
    let made = changes(node_with(Ok(None), 100_000_000).await);
    let expected = ["write /run/gpuk-agent/node-missing", "restart kubelet.service"];
    assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_restart_that_did_not_help_is_not_repeated_at_once() {
    let (_root, mut host) = machine(&[("proc/uptime", "1000.00 1.00\n"), ("run/gpuk-agent/node-missing", "i-1\n")]);
    let written = host.files.modified("/run/gpuk-agent/node-missing".as_ref()).unwrap().unwrap();
    let running = UnitState { active: "active".to_owned(), active_since: 100_000_000, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    host.cluster = Box::new(ScriptedCluster::answering(Ok(None)));
    let written = written.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    host.clock = Box::new(FixedClock::at(written + 599));
    assert_eq!(code(&check(&Node, &host, &facts(), "").await), "node-not-registered");
    host.clock = Box::new(FixedClock::at(written + 602));
    assert_eq!(changes(check(&Node, &host, &facts(), "").await).len(), 2);
}

#[tokio::test]
async fn a_node_that_was_there_before_the_join_keeps_what_it_has() {
    let (_root, mut host) = machine(&[("var/lib/gpuk-agent/joined-onto", "u-1\n")]);
    let said = async |host: &mut crate::host::Host, uid: &str| {
        let node = NodeObject { uid: uid.to_owned(), ..object("m", "b", "True") };
        host.cluster = Box::new(ScriptedCluster::answering(Ok(Some(node))));
        match check(&Node, host, &facts(), "").await {
            Status::Ready(evidence) => evidence,
            other => unreachable!("{other:?}"),
        }
    };
    let evidence = said(&mut host, "u-1").await;
    assert!(evidence.starts_with("Node i-1 is Ready; it was there before this machine joined"), "{evidence}");
    assert_eq!(said(&mut host, "u-2").await, "Node i-1 is Ready");
}

#[tokio::test]
async fn a_node_that_was_given_up_in_an_outage_comes_back_by_one_restart() {
    // 2026-06-01T00:00:00Z, and the kernel has run for 1000 s.
    let said = async |ready: &str, since: &str, active_since: u64| {
        let (_root, mut host) = machine(&[("proc/uptime", "1000.00 1.00\n")]);
        host.clock = Box::new(FixedClock::at(1_780_272_000));
        let node = NodeObject { ready_since: since.to_owned(), ..object("m", "b", ready) };
        host.cluster = Box::new(ScriptedCluster::answering(Ok(Some(node))));
        let running = UnitState { active: "active".to_owned(), active_since, ..UnitState::default() };
        host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
        check(&Node, &host, &facts(), "").await
    };
    let started_early = 100_000_000;
    let made = changes(said("Unknown", "2026-05-31T23:59:40Z", started_early).await);
    assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart kubelet.service"]);
    // It is left alone for a moment, and after it was restarted, and while it says what is wrong itself.
    assert_eq!(code(&said("Unknown", "2026-05-31T23:59:55Z", started_early).await), "node-not-ready");
    assert_eq!(code(&said("Unknown", "2026-05-31T23:59:40Z", 985_000_000).await), "node-not-ready");
    assert_eq!(code(&said("False", "2026-05-31T23:59:40Z", started_early).await), "node-not-ready");
    assert_eq!(code(&said("Unknown", "", started_early).await), "node-not-ready");
}

const OLD: &str = "https://10.0.0.1:6443";
const NEW: &str = "https://10.0.0.2:6443";

/// What is done when the API server does not answer the kubelet's credential, and these addresses answer so.
async fn unreachable(answers: &[(&str, Result<i64, UnreachableKind>)], configuration: &str) -> Status {
    let kubeconfig = format!("clusters:\n- cluster:\n    server: {OLD}\n  name: c\nusers: [] # {OLD}\n");
    let (root, mut host) = machine(&[("etc/kubernetes/kubelet.conf", &kubeconfig)]);
    put(root.path(), "etc/kubernetes/pki/ca.crt", CA);
    host.clock = Box::new(FixedClock::at(1_780_272_000));
    host.cluster = Box::new(ScriptedCluster::answering(Err(ClusterError::Unreachable("timed out".to_owned()))));
    let mut network = ScriptedNetwork::default();
    for (address, answer) in answers.iter().map(|(address, answer)| ((*address).to_owned(), *answer)) {
        network = network.answering(&format!("{address}/readyz"), move |get: &Get| {
            let date = |ahead: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_272_000_u64.saturating_add_signed(ahead));
            let found = |ahead| Answer { status: 403, date: Some(date(ahead)), retry_after: None, body: Vec::new() };
            match (&get.trust, answer) {
                (Trust::Anyone, Err(UnreachableKind::CertificateDates)) => Ok(found(7200)),
                (_, answer) => answer.map(found).map_err(|kind| Unreachable { kind, text: format!("{kind:?}") }),
            }
        });
    }
    host.network = Box::new(network);
    let endpoints = format!("[cluster]\nendpoints = [\"{NEW}\"]\n{configuration}");
    check(&Node, &host, &facts(), &endpoints).await
}

#[tokio::test]
async fn an_api_server_that_moved_is_followed_by_the_proof_of_its_ca_alone() {
    let made = changes(unreachable(&[(OLD, Err(UnreachableKind::Timeout)), (NEW, Ok(0))], "").await);
    let text = written(&made, "/etc/kubernetes/kubelet.conf");
    assert_eq!(text, format!("clusters:\n- cluster:\n    server: {NEW}\n  name: c\nusers: [] # {OLD}\n"));
    assert_eq!(made[1].to_string(), "restart kubelet.service");
    // The old one answers again.
    assert_eq!(code(&unreachable(&[(OLD, Ok(0)), (NEW, Ok(0))], "").await), "api-unreachable");
    let stranger = Err(UnreachableKind::UnknownAuthority);
    assert_eq!(code(&unreachable(&[(OLD, Err(UnreachableKind::Refused)), (NEW, stranger)], "").await), "api-unreachable");
    assert_eq!(code(&unreachable(&[(OLD, Err(UnreachableKind::Refused))], "").await), "api-unreachable");
    // A control plane node has its own.
    let own = unreachable(&[(OLD, Err(UnreachableKind::Timeout)), (NEW, Ok(0))], "[node]\nrole = \"control-plane\"\n").await;
    assert_eq!(code(&own), "api-unreachable");
}

#[tokio::test]
async fn another_ca_everywhere_is_another_cluster_and_a_wrong_clock_is_waited_for() {
    let stranger = Err(UnreachableKind::UnknownAuthority);
    let rebuilt = unreachable(&[(OLD, stranger), (NEW, stranger)], "").await;
    assert!(matches!(rebuilt, Status::Broken(_)) && code(&rebuilt) == "cluster-rebuilt", "{rebuilt:?}");
    let dates = Err(UnreachableKind::CertificateDates);
    let Status::Waiting(finding) = unreachable(&[(OLD, dates), (NEW, dates)], "").await else { panic!("not waiting") };
    assert!(finding.code == "clock-wrong" && finding.why.contains("7200 s behind"), "{finding:?}");
}
