//! A node whose certificate alone is gone.

use super::super::fixtures::{NODE_CERTIFICATE, NODE_KEY, OTHER_CA, OTHER_KEY};
use super::super::joined::{AUTHORITY, CERTIFICATE};
use super::super::renewal::BOOTSTRAP_FILE;
use super::joining::{damaged, joined, words};
use super::*;
use crate::host::cluster::KUBELET_KUBECONFIG;

/// A second after the certificate's end, with a cluster that has the same clock.
const AFTER: u64 = 1_798_761_601;

/// It slept for half a year.
fn slept(server: Server) -> Machine {
    let mut machine = joined();
    (machine.offline, machine.now) = (false, AFTER);
    machine.write("/proc/uptime", "100.00 1.00\n");
    machine.kubelet.active = "activating".to_owned();
    machine.kubelet.sub = "auto-restart".to_owned();
    machine.with(A, Server { ahead: i64::try_from(AFTER - NOW).unwrap(), ..server })
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_costs_a_bootstrap_file_and_a_restart() {
    // The Node that it was is Ready no more, or still is: both are its own.
    for ready in ["Unknown", "True"] {
        let node = json!({"metadata": {"name": "gpu-1", "uid": "u"}, "status": {
            "nodeInfo": {"machineID": "0a".repeat(16)}, "conditions": [{"type": "Ready", "status": ready}]}});
        let machine = slept(Server::good().answering("/nodes/gpu-1", 200, node));
        let (why, changes) = machine.pending().await;
        assert!(why.contains("expired at 2027-01-01T00:00:00Z; https://10.0.0.1:6443 accepts its token"), "{why}");
        let expected = [&format!("write {BOOTSTRAP_FILE}"), "restart kubelet.service"];
        assert_eq!(words(&changes), expected);
        let Change::Write { contents, mode: 0o600, .. } = &changes[0] else { panic!("{:?}", changes[0]) };
        let file: Value = serde_json::from_slice(&contents.bytes).unwrap();
        assert_eq!((&file["users"][0]["user"]["token"], contents.secret), (&json!(TOKEN), true));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_kubelet_would_stumble_over_goes_first() {
    for (contents, expected) in [
        (String::new(), "is empty"),
        (NODE_CERTIFICATE.to_owned(), "no private key"),
        (NODE_CERTIFICATE[..200].to_owned(), "is damaged"),
        (format!("{NODE_CERTIFICATE}{OTHER_KEY}"), "belongs to another certificate"),
        (NODE_KEY.to_owned(), "no certificate"),
    ] {
        let machine = damaged(CERTIFICATE, &contents);
        machine.write("/proc/uptime", "100.00 1.00\n");
        let (why, changes) = machine.pending().await;
        assert!(why.contains(expected), "{why}");
        assert_eq!(words(&changes)[..2], [format!("remove {CERTIFICATE}"), format!("write {BOOTSTRAP_FILE}")]);
    }
    for contents in ["", "apiVersion: v1\nclus"] {
        let (_, changes) = damaged(KUBELET_KUBECONFIG, contents).pending().await;
        assert_eq!(words(&changes)[..2], [format!("remove {KUBELET_KUBECONFIG}"), format!("write {BOOTSTRAP_FILE}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_kubelet_asks_nobody_else_is_asked_and_nothing_is_done_twice() {
    let mut machine = slept(Server::good());
    let (_, changes) = machine.pending().await;
    let Change::Write { contents, .. } = &changes[0] else { panic!("{:?}", changes[0]) };
    machine.write(BOOTSTRAP_FILE, &String::from_utf8(contents.bytes.clone()).unwrap());
    let written = std::fs::metadata(machine.folder.path().join(&BOOTSTRAP_FILE[1..])).unwrap().modified().unwrap();
    let since = |seconds: u64| written.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 1 + seconds;
    let start_kubelet = |machine: &mut Machine, ago: u64| {
        machine.kubelet.active_since = (100 - ago) * 1_000_000;
        (machine.kubelet.active, machine.kubelet.sub) = ("active".to_owned(), "running".to_owned());
    };
    // The test's files have the real time, which lies before the end of the certificate: there is none.
    std::fs::remove_file(machine.folder.path().join(&CERTIFICATE[1..])).unwrap();
    (machine.now, machine.servers[0].1.ahead) = (since(5), i64::try_from(since(5)).unwrap() - i64::try_from(NOW).unwrap());
    machine.offline = true;
    start_kubelet(&mut machine, 4);
    assert_eq!(machine.waiting().await.code, "certificate-not-issued");
    // Later the cluster is asked whether the token is still good.
    machine.offline = false;
    machine.now = since(60);
    start_kubelet(&mut machine, 59);
    assert_eq!(machine.waiting().await.code, "certificate-not-issued");
    // A kubelet that was started before the file was there has not read it.
    start_kubelet(&mut machine, 90);
    assert_eq!(words(&machine.pending().await.1).last().unwrap(), "restart kubelet.service");
    // One that dies says why.
    machine.kubelet.sub = "auto-restart".to_owned();
    machine.kubelet.active = "activating".to_owned();
    machine.kubelet.active_since = 96_000_000;
    assert_eq!(machine.broken().await.code, "kubelet-cannot-start");
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_cluster_and_a_dead_token_are_verdicts_of_their_own() {
    let rebuilt = slept(Server::good());
    rebuilt.write(AUTHORITY, OTHER_CA);
    let finding = rebuilt.broken().await;
    assert!(finding.code == "cluster-rebuilt" && finding.remedy.contains("reset --rejoin"), "{finding:?}");
    assert!(finding.why.contains(CA_PIN), "{finding:?}");
    let mut dead = Server::good().answering(KUBEADM_CONFIG, 401, refusal("Unauthorized"));
    dead.signatures.clear();
    assert_eq!(slept(dead).broken().await.code, "token-rejected");
}

#[tokio::test]
async fn the_bootstrap_file_goes_once_the_certificate_is_there() {
    let machine = joined();
    machine.write(BOOTSTRAP_FILE, "token");
    let (_, changes) = machine.pending().await;
    assert_eq!(changes, [Change::Sync, Change::Remove { path: BOOTSTRAP_FILE.into(), secret: true }]);
}
