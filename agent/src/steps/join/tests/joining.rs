//! From what a machine holds of a join to what is still to be done.

use super::super::fixtures::{NODE_CERTIFICATE, NODE_KEY, OTHER_CA};
use super::super::joined::{AUTHORITY, CERTIFICATE, KUBELET_CONFIG, KUBELET_FLAGS};
use super::super::kubeadm::DISCOVERY_FILE;
use super::*;
use crate::host::cluster::KUBELET_KUBECONFIG;
use crate::step::UnitVerb;

/// After `kubeadm join`; nothing needs to be asked.
pub fn joined() -> Machine {
    let mut machine = Machine::fresh(&[A]);
    machine.offline = true;
    machine.kubelet.active = "active".to_owned();
    machine.write(CERTIFICATE, &format!("{NODE_CERTIFICATE}{NODE_KEY}"));
    machine.write(KUBELET_KUBECONFIG, &kubeconfig(A));
    machine.write(AUTHORITY, CA);
    machine.write(KUBELET_CONFIG, "kind: KubeletConfiguration\n");
    machine.write(KUBELET_FLAGS, "KUBELET_KUBEADM_ARGS=\"\"\n");
    machine
}

/// A kubeconfig as kubeadm writes it for the kubelet.
fn kubeconfig(server: &str) -> String {
    format!("apiVersion: v1\nkind: Config\nclusters:\n- name: default-cluster\n  cluster:\n    server: {server}\n")
}

/// The same, where the API server answers.
pub fn damaged(path: &str, contents: &str) -> Machine {
    let mut machine = joined().with(A, Server::good());
    machine.offline = false;
    machine.write(path, contents);
    machine
}

pub fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_joined_node_is_ready_without_any_question() {
    let Status::Ready(evidence) = joined().check().await else { panic!("not ready") };
    assert_eq!(evidence, "client certificate valid until 2027-01-01T00:00:00Z, kubelet active");
    let skipping = joined().set("cluster.ca-cert-hashes", None).set("cluster.unsafe-skip-ca-verification", Some("true"));
    let Status::Ready(evidence) = skipping.check().await else { panic!("not ready") };
    assert!(evidence.contains("warning"), "{evidence}");
}

#[tokio::test]
async fn a_joined_nodes_kubelet_is_started_and_enabled() {
    let mut machine = joined();
    machine.kubelet.active = "inactive".to_owned();
    machine.kubelet.file = "disabled".to_owned();
    let (_, changes) = machine.pending().await;
    let kubelet = KUBELET.to_owned();
    assert_eq!(changes, [Change::Unit(UnitVerb::Enable, kubelet.clone()), Change::Unit(UnitVerb::Start, kubelet)]);
    let machine = joined();
    machine.write(DISCOVERY_FILE, "token");
    let (_, changes) = machine.pending().await;
    assert_eq!(changes, [Change::Sync, Change::Remove { path: DISCOVERY_FILE.into(), secret: true }]);
}

#[tokio::test]
async fn a_joined_nodes_kubelet_that_cannot_start_says_why() {
    let mut machine = joined();
    machine.kubelet.active = "activating".to_owned();
    machine.kubelet.sub = "auto-restart".to_owned();
    machine.log = r#"E1 1 run.go:72] "command failed" err="unable to load client CA file /x.crt: no such file""#.to_owned();
    let finding = machine.broken().await;
    assert_eq!(finding.code, "kubelet-cannot-start");
    assert!(finding.why.contains("/x.crt"), "{}", finding.why);
}

#[tokio::test(start_paused = true)]
async fn empty_and_cut_files_of_a_power_cut_are_no_join() {
    for path in [AUTHORITY, KUBELET_CONFIG, KUBELET_FLAGS] {
        for (contents, how) in [("", "empty"), ("\n", "empty"), ("\0\0\0\0", "empty"), ("apiVe", "damaged")] {
            let (why, changes) = damaged(path, contents).pending().await;
            assert!(why.contains(&format!("{path} is {how}")), "{why}");
            assert!(words(&changes).iter().any(|change| change.starts_with("run kubeadm join")), "{changes:?}");
            // The good certificate stays: the kubelet uses it again.
            assert!(!words(&changes).contains(&format!("remove {CERTIFICATE}")), "{changes:?}");
        }
    }
    // Nothing is left that the kubelet could ask with.
    let both = damaged(CERTIFICATE, "");
    both.write(KUBELET_FLAGS, "");
    let (why, changes) = both.pending().await;
    assert!(why.contains(&format!("{CERTIFICATE} is empty")), "{why}");
    assert_eq!(words(&changes)[..2], ["stop kubelet.service".to_owned(), format!("remove {CERTIFICATE}")]);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_machine_runs_kubeadm_with_a_discovery_file() {
    let (_, changes) = Machine::fresh(&[A]).with(A, Server::good()).pending().await;
    assert_eq!(
        words(&changes),
        [
            "run mkdir -p /etc/kubernetes/manifests",
            "write /run/gpuk-agent/join/discovery.conf",
            "write /run/gpuk-agent/join/kubeadm.conf",
            "run kubeadm join --config /run/gpuk-agent/join/kubeadm.conf",
            "write /var/lib/gpuk-agent/identity.json",
            "sync file systems",
            "remove /run/gpuk-agent/join/discovery.conf",
        ]
    );
    let Change::Write { contents, mode: 0o600, .. } = &changes[1] else { panic!("{:?}", changes[1]) };
    let file: Value = serde_json::from_slice(&contents.bytes).unwrap();
    assert_eq!(file["clusters"][0]["cluster"]["server"], A);
    assert_eq!(file["users"][0]["user"]["token"], TOKEN);
    assert_eq!(file["contexts"][0]["name"], file["current-context"]);
    let Change::Write { contents, .. } = &changes[2] else { panic!("{:?}", changes[2]) };
    let file: Value = serde_json::from_slice(&contents.bytes).unwrap();
    assert_eq!(file["nodeRegistration"]["name"], "gpu-1");
    assert_eq!(file["nodeRegistration"]["criSocket"], "unix:///run/containerd/containerd.sock");
    assert_eq!(file["discovery"]["file"]["kubeConfigPath"], DISCOVERY_FILE);
    let Change::Run(command) = &changes[3] else { panic!("{:?}", changes[3]) };
    assert_eq!(command.watched_unit.as_deref(), Some(KUBELET));
    let Change::Write { contents, .. } = &changes[4] else { panic!("{:?}", changes[4]) };
    let file: Value = serde_json::from_slice(&contents.bytes).unwrap();
    assert_eq!((&file["node"], &file["joined"]), (&json!("gpu-1"), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_shown() {
    let machine = Machine::fresh(&[A]).with(A, Server::good());
    let status = machine.check().await;
    let (why, changes) = machine.pending().await;
    let shown = format!("{status:?} {why} {}", words(&changes).join(" "));
    assert!(!shown.contains(SECRET), "{shown}");
    let mut refused = Server::good();
    refused.sign_with("abcdef.fedcba9876543210");
    let shown = format!("{:?}", Machine::fresh(&[A]).with(A, refused).check().await);
    assert!(shown.contains("abcdef") && !shown.contains(SECRET), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn what_kubeadm_would_not_replace_goes_first() {
    let (_, changes) = damaged(AUTHORITY, "").pending().await;
    let first = ["stop kubelet.service", "remove /etc/kubernetes/kubelet.conf", "remove /etc/kubernetes/pki/ca.crt"];
    assert_eq!(words(&changes)[..3], first);
    let other = damaged(KUBELET_CONFIG, "");
    other.write(AUTHORITY, OTHER_CA);
    assert_eq!(words(&other.pending().await.1)[..3], first, "the CA of another cluster");
    let same = damaged(KUBELET_CONFIG, "");
    assert!(!words(&same.pending().await.1).contains(&first[2].to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_kubelet_could_not_start_says_why_and_tries_again() {
    let mut machine = Machine::fresh(&[A]).with(A, Server::good());
    machine.write(KUBELET_CONFIG, "kind: KubeletConfiguration\n");
    machine.kubelet.sub = "auto-restart".to_owned();
    machine.log = r#"E1 1 run.go:72] "command failed" err="unable to load client CA file /x.crt: no such file""#.to_owned();
    let (why, changes) = machine.pending().await;
    assert!(why.contains("/x.crt") && why.contains("edit configmap kubelet-config"), "{why}");
    assert!(words(&changes).iter().any(|change| change.starts_with("run kubeadm join")), "{changes:?}");
}

#[tokio::test]
async fn what_is_not_configured_is_named() {
    let finding = Machine::fresh(&[A]).set("cluster.endpoints", None).broken().await;
    assert!(finding.why.contains("cluster.endpoints"), "{finding:?}");
    let finding = Machine::fresh(&[A]).set("cluster.token", None).set("cluster.ca-cert-hashes", None).broken().await;
    assert!(finding.why.contains("cluster.token") && finding.remedy.contains("ca-cert-hashes"), "{finding:?}");
    let nothing = Machine::fresh(&[A]).set("cluster.kind", Some("none")).check().await;
    assert_eq!(nothing, Status::Ready("not asked to join a cluster".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_token_file_may_come_later() {
    let machine = Machine::fresh(&[A]).with(A, Server::good());
    let machine = machine.set("cluster.token", None).set("cluster.token-file", Some("/run/token"));
    assert_eq!(machine.waiting().await.code, "token-missing");
    machine.write("/run/token", "not a token\n");
    let finding = machine.broken().await;
    assert!(finding.code == "token-malformed" && !format!("{finding:?}").contains("not a token"), "{finding:?}");
    machine.write("/run/token", &format!("{TOKEN}\n"));
    machine.pending().await;
}
