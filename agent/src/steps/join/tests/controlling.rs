//! How a machine becomes a control plane node, what of an earlier try is taken up, and what is never touched.

use super::super::fixtures::{CA, CA_PIN, NODE_CERTIFICATE, NODE_KEY};
use super::super::joined::{AUTHORITY, CERTIFICATE, KUBELET_CONFIG};
use super::super::kubeadm::{DISCOVERY_FILE, JOIN_FILE};
use super::joining::{joined, words};
use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BEGUN: &str = "/var/lib/gpuk-agent/control-plane-begun";
const POD: &str = "apiVersion: v1\nkind: Pod\n";

fn controls(machine: Machine) -> Machine {
    machine.set("node.role", Some("control-plane")).set("cluster.certificate-key", Some(KEY)).set("node.ip", Some("10.0.0.7"))
}

fn fresh() -> Machine {
    controls(Machine::fresh(&[A]).with(A, Server::good()))
}

/// Told to make the cluster; nobody answers at the endpoint.
fn first() -> Machine {
    controls(Machine::fresh(&[A]))
        .set("cluster.init", Some("this-node"))
        .set("cluster.token", None)
        .set("cluster.ca-cert-hashes", None)
        .set("cluster.certificate-key", None)
}

/// These parts of a control plane run.
fn with_pods(machine: Machine, parts: &[&str]) -> Machine {
    parts.iter().for_each(|part| machine.write(&format!("/etc/kubernetes/manifests/{part}.yaml"), POD));
    machine
}

const ALL: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];

/// The documents of a file that is written, and whether only root may read it.
fn documents(changes: &[Change], file: &str) -> (Vec<Value>, bool) {
    let find = |change: &Change| match change {
        Change::Write { path, contents, mode } if path == Path::new(file) => {
            let text = String::from_utf8(contents.bytes.clone()).unwrap();
            let documents = text.split("\n---\n").map(|text| serde_json::from_str(text).unwrap()).collect();
            Some((documents, contents.secret && *mode == 0o600))
        }
        _ => None,
    };
    changes.iter().find_map(find).unwrap_or_else(|| panic!("{file} is not written: {changes:?}"))
}

fn ignored(configuration: &Value) -> Vec<&str> {
    let checks = configuration["nodeRegistration"]["ignorePreflightErrors"].as_array().unwrap();
    checks.iter().filter_map(Value::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fresh_machine_joins_with_the_certificate_key() {
    let (_, changes) = fresh().pending().await;
    assert_eq!(
        words(&changes),
        [
            "write /var/lib/gpuk-agent/control-plane-begun",
            "sync file systems",
            "run mkdir -p /etc/kubernetes/manifests",
            "write /run/gpuk-agent/join/discovery.conf",
            "write /run/gpuk-agent/join/kubeadm.conf",
            "run kubeadm join --config /run/gpuk-agent/join/kubeadm.conf",
            "write /var/lib/gpuk-agent/identity.json",
            "sync file systems",
            "remove /run/gpuk-agent/join/discovery.conf",
            "remove /run/gpuk-agent/join/kubeadm.conf",
            "remove /var/lib/gpuk-agent/control-plane-begun",
        ]
    );
    let Change::Run(command) = &changes[5] else { panic!("{:?}", changes[5]) };
    assert!(
        command.watched_unit.is_none() && command.needs_running_system,
        "a kubelet that starts anew would end kubeadm: {command:?}"
    );
    let (documents, is_secret) = documents(&changes, JOIN_FILE);
    assert!(is_secret);
    assert_eq!(documents[0]["controlPlane"]["certificateKey"], KEY);
    assert_eq!(documents[0]["controlPlane"]["localAPIEndpoint"]["advertiseAddress"], "10.0.0.7");
    assert_eq!(documents[0]["timeouts"]["etcdAPICall"], "6m");
    assert!(!ignored(&documents[0]).iter().any(|check| check.contains("manifests") || check.contains("6443")));
    assert!(documents[0].get("skipPhases").is_none());
    let shown = format!("{changes:?} {:?}", words(&changes));
    assert!(!shown.contains(KEY) && !shown.contains(SECRET), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_workers_join_has_nothing_of_it() {
    let worker = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.certificate-key", Some(KEY));
    let (_, changes) = worker.pending().await;
    let (documents, _) = documents(&changes, JOIN_FILE);
    assert!(documents[0].get("controlPlane").is_none() && documents[0]["timeouts"].get("etcdAPICall").is_none());
    assert!(!words(&changes).iter().any(|change| change.contains("begun")), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn the_certificate_key_is_asked_for_and_may_come_later() {
    let finding = fresh().set("cluster.certificate-key", None).broken().await;
    assert!(finding.why.contains("cluster.certificate-key") && finding.remedy.contains("upload-certs"), "{finding:?}");
    let machine = fresh().set("cluster.certificate-key", None).set("cluster.certificate-key-file", Some("/run/key"));
    assert_eq!(machine.waiting().await.code, "certificate-key-missing");
    machine.write("/run/key", "no key at all\n");
    let finding = machine.broken().await;
    assert!(finding.code == "certificate-key-malformed" && !format!("{finding:?}").contains("no key"), "{finding:?}");
    machine.write("/run/key", &format!("{KEY}\n"));
    assert_eq!(documents(&machine.pending().await.1, JOIN_FILE).0[0]["controlPlane"]["certificateKey"], KEY);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_left_of_a_control_plane_is_never_joined_over() {
    let with_data = fresh();
    with_data.write("/var/lib/etcd/member/snap/db", "x");
    let mut damaged = controls(with_pods(joined(), &ALL));
    damaged.write(AUTHORITY, "");
    let data = first();
    data.write("/var/lib/etcd/member/snap/db", "x");
    for mut machine in [with_data, with_pods(fresh(), &["etcd"]), damaged, data] {
        machine.offline = true;
        let finding = machine.broken().await;
        assert_eq!(finding.code, "control-plane-left");
        assert!(finding.why.contains("etcd") && finding.remedy.contains("mv /var/lib/etcd"), "{finding:?}");
    }
    damaged = controls(joined());
    damaged.write(KUBELET_CONFIG, "");
    damaged.offline = false;
    damaged.servers.push((A, Server::good()));
    damaged.pending().await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_was_cut_off_before_the_certificate_is_begun_again_over_what_it_left() {
    let machine = with_pods(fresh(), &["kube-apiserver", "etcd"]);
    machine.write(BEGUN, "join\n");
    machine.write("/var/lib/etcd/member/snap/db", "x");
    let (_, changes) = machine.pending().await;
    let (documents, _) = documents(&changes, JOIN_FILE);
    let ignored = ignored(&documents[0]);
    for check in [
        "FileAvailable--etc-kubernetes-kubelet.conf",
        "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
        "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
        "Port-6443",
        "Port-2379",
        "Port-2380",
        "DirAvailable--var-lib-etcd",
    ] {
        assert!(ignored.contains(&check), "{check}: {ignored:?}");
    }
    // Nothing of the scheduler is there, so whoever has its port is a stranger.
    assert!(!ignored.contains(&"Port-10259"), "{ignored:?}");
    assert!(!words(&changes).iter().any(|change| change.contains("etcd") || change.contains("reset")), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_join_that_was_cut_off_after_the_certificate_is_finished() {
    let mut machine = with_pods(controls(joined().with(A, Server::good())), &ALL[..3]);
    machine.offline = false;
    machine.write(BEGUN, "");
    machine.kubelet.active = "inactive".to_owned();
    let (why, changes) = machine.pending().await;
    assert!(why.contains("not finished"), "{why}");
    assert_eq!(words(&changes)[0], format!("start {KUBELET}"));
    let (found, _) = documents(&changes, JOIN_FILE);
    let done = json!(["preflight", "kubelet-start", "kubelet-wait-bootstrap", "control-plane-prepare"]);
    assert_eq!(found[0]["skipPhases"], done);
    assert_eq!(words(&changes).last().map(String::as_str), Some("remove /var/lib/gpuk-agent/control-plane-begun"));
    // Of a manifest without bytes the kubelet makes nothing.
    machine.write("/etc/kubernetes/manifests/kube-scheduler.yaml", "");
    let (found, _) = documents(&machine.pending().await.1, JOIN_FILE);
    assert_eq!(found[0]["skipPhases"], json!(["preflight", "kubelet-start", "kubelet-wait-bootstrap"]));
}

#[tokio::test]
async fn a_control_plane_node_is_kept_and_a_worker_does_not_become_one() {
    let Status::Ready(evidence) = with_pods(controls(joined()), &ALL).check().await else { panic!("not ready") };
    assert!(evidence.contains("control plane of kube-apiserver") && !evidence.contains("kubeadm token"), "{evidence}");
    let finding = controls(joined()).broken().await;
    assert!(finding.code == "joined-as-worker" && finding.remedy.contains("role = \"worker\""), "{finding:?}");
    let mut stopped = with_pods(controls(joined()), &ALL);
    stopped.kubelet.active = "inactive".to_owned();
    assert_eq!(words(&stopped.pending().await.1), [format!("start {KUBELET}")]);
}

#[tokio::test(start_paused = true)]
async fn the_first_node_makes_the_cluster_where_nobody_answers() {
    let machine = first().set("cluster.endpoints", Some("https://api.example.com:6443,https://10.0.0.7:6444"));
    let (why, changes) = machine.pending().await;
    assert!(why.contains("makes the cluster") && why.contains("api.example.com"), "{why}");
    assert_eq!(
        words(&changes),
        [
            "write /var/lib/gpuk-agent/control-plane-begun",
            "sync file systems",
            "write /run/gpuk-agent/join/init.conf",
            "run kubeadm init --config /run/gpuk-agent/join/init.conf",
            "write /var/lib/gpuk-agent/identity.json",
            "sync file systems",
            "remove /run/gpuk-agent/join/init.conf",
            "remove /var/lib/gpuk-agent/control-plane-begun",
        ]
    );
    let (found, is_secret) = documents(&changes, "/run/gpuk-agent/join/init.conf");
    let [init, cluster, kubelet] = &found[..] else { panic!("{found:?}") };
    assert!(is_secret);
    assert_eq!(init["localAPIEndpoint"], json!({"advertiseAddress": "10.0.0.7", "bindPort": 6443}));
    assert!(init.get("bootstrapTokens").is_none() && init.get("certificateKey").is_none(), "{init}");
    assert_eq!(cluster["controlPlaneEndpoint"], "api.example.com:6443");
    assert_eq!(cluster["kubernetesVersion"], "v1.34.4");
    assert_eq!(cluster["networking"], json!({"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"}));
    assert_eq!(cluster["apiServer"]["certSANs"], json!(["api.example.com", "10.0.0.7"]));
    assert_eq!(kubelet["cgroupDriver"], "systemd");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_of_all_may_hold_the_secrets_that_the_first_node_gives_out() {
    let (_, changes) = first().set("cluster.token", Some(TOKEN)).set("cluster.certificate-key", Some(KEY)).pending().await;
    assert!(words(&changes).contains(&"run kubeadm init --config /run/gpuk-agent/join/init.conf --upload-certs".to_owned()));
    let (found, _) = documents(&changes, "/run/gpuk-agent/join/init.conf");
    assert_eq!((&found[0]["bootstrapTokens"][0]["token"], &found[0]["certificateKey"]), (&json!(TOKEN), &json!(KEY)));
    let shown = format!("{changes:?}");
    assert!(!shown.contains(KEY) && !shown.contains(SECRET), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_second_cluster_is_never_made() {
    for (status, body) in [
        (200, json!({"gitVersion": "v1.34.4"})),
        (401, refusal("Unauthorized")),
        (403, refusal("forbidden: User \"system:anonymous\"")),
    ] {
        let machine = first().set("cluster.endpoints", Some("https://10.0.0.1:6443,https://10.0.0.2:6443"));
        let finding = machine.with(B, Server::good().answering("/version", status, body)).broken().await;
        assert_eq!(finding.code, "cluster-exists");
        assert!(finding.why.contains(B), "{finding:?}");
    }
    // A load balancer without anybody behind it.
    first().with(A, Server::good().answering("/version", 503, json!("no server"))).pending().await;
    let was_joined = first();
    was_joined.write(
        "/var/lib/gpuk-agent/identity.json",
        r#"{"instanceId": "gpu-1", "cloud": "nocloud", "node": "gpu-1", "template": "{instance-id}", "joined": true}"#,
    );
    assert_eq!(was_joined.broken().await.code, "cluster-was-joined");
    assert_eq!(first().set("cluster.endpoints", None).broken().await.code, "join-not-configured");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_begun_here_is_finished_here() {
    let version = json!({"gitVersion": "v1.34.4"});
    let machine = with_pods(first(), &ALL).with(A, Server::good().answering("/version", 200, version.clone()));
    machine.write(BEGUN, "init\n");
    machine.write(AUTHORITY, CA);
    machine.write("/var/lib/etcd/member/snap/db", "x");
    let machine = Machine { kubelet: UnitState { sub: "auto-restart".to_owned(), ..machine.kubelet.clone() }, ..machine };
    let (why, changes) = machine.pending().await;
    assert!(why.contains("not finished") && why.contains("this node's own"), "{why}");
    assert_eq!(words(&changes)[0], format!("stop {KUBELET}"));
    let (found, _) = documents(&changes, "/run/gpuk-agent/join/init.conf");
    let ignored = ignored(&found[0]);
    assert!(ignored.contains(&"DirAvailable--var-lib-etcd") && ignored.contains(&"Port-6443"), "{ignored:?}");
    // Who answers there is another cluster all the same.
    let mut other = Server::good().answering("/version", 200, version);
    other.tls = Some(UnreachableKind::UnknownAuthority);
    let machine = with_pods(first(), &ALL).with(A, other);
    machine.write(BEGUN, "init\n");
    machine.write(AUTHORITY, CA);
    assert_eq!(machine.broken().await.code, "cluster-exists");
}

#[tokio::test]
async fn the_first_node_tells_how_the_others_join() {
    let machine = with_pods(first(), &ALL);
    for (path, text) in [
        (CERTIFICATE, format!("{NODE_CERTIFICATE}{NODE_KEY}")),
        (AUTHORITY, CA.to_owned()),
        (KUBELET_CONFIG, "kind: KubeletConfiguration\n".to_owned()),
        ("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"\"\n".to_owned()),
        ("/etc/kubernetes/kubelet.conf", format!("clusters:\n- name: a\n  cluster:\n    server: {A}\n")),
    ] {
        machine.write(path, &text);
    }
    let machine = Machine { kubelet: UnitState { active: "active".to_owned(), ..machine.kubelet.clone() }, ..machine };
    let Status::Ready(evidence) = machine.check().await else { panic!("not ready") };
    assert!(evidence.contains(CA_PIN) && evidence.contains("kubeadm token create"), "{evidence}");
    machine.write(DISCOVERY_FILE, "token");
    assert_eq!(machine.pending().await.1.len(), 2);
}
