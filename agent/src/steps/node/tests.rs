//! What the API server says of the Node, and whose it is.

use super::super::tests::{changes, check, code, facts, machine, object};
use super::Node;
use crate::host::cluster::{ClusterError, Node as NodeObject, ScriptedCluster};
use crate::host::units::{ScriptedUnits, UnitState};
use crate::step::Status;

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
    assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart kubelet.service"]);
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
