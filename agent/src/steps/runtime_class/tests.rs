//! Who makes the RuntimeClass, and whose stays.

use super::*;
use crate::host::Host;
use crate::host::cluster::{ClusterError, ScriptedCluster};
use crate::steps::tests::{check, code, facts, machine, settles};

const ROLE: &str = "[node]\nrole = \"control-plane\"\n";
const ADMINISTRATOR: (&str, &str) = ("etc/kubernetes/admin.conf", "kind: Config\n");

/// A control plane node whose cluster has a RuntimeClass with this handler, or none.
fn node(files: &[(&str, &str)], handler: Option<&str>) -> (tempfile::TempDir, Host) {
    let (root, host) = machine(files);
    let mut cluster = ScriptedCluster::answering(Err(ClusterError::Unreachable("not asked for".to_owned())));
    cluster.runtime_class = handler.map(str::to_owned);
    (root, Host { cluster: Box::new(cluster), ..host })
}

#[tokio::test]
async fn it_is_made_once() {
    let (_root, host) = node(&[ADMINISTRATOR], None);
    let made = settles(&RuntimeClass, &host, &facts(), ROLE).await;
    let [Change::ClusterObject { path, object }] = &made[..] else { panic!("{made:?}") };
    assert_eq!(path, "/apis/node.k8s.io/v1/runtimeclasses/nvidia");
    assert_eq!((&object["kind"], &object["handler"]), (&json!("RuntimeClass"), &json!("nvidia")));
    assert_eq!(made[0].to_string(), "apply /apis/node.k8s.io/v1/runtimeclasses/nvidia");
}

#[tokio::test]
async fn somebody_elses_stays() {
    let (_root, host) = node(&[ADMINISTRATOR], Some("nvidia-legacy"));
    let Status::Ready(evidence) = check(&RuntimeClass, &host, &facts(), ROLE).await else { panic!("not ready") };
    assert!(evidence.contains("nvidia-legacy") && evidence.contains("stays"), "{evidence}");
}

#[tokio::test]
async fn without_the_administrators_credential_a_person_is_told() {
    let (_root, host) = node(&[], None);
    assert_eq!(code(&check(&RuntimeClass, &host, &facts(), ROLE).await), "no-administrator-credential");
    let off = format!("[cluster]\nruntime-class = false\n{ROLE}");
    assert!(matches!(check(&RuntimeClass, &host, &facts(), &off).await, Status::Ready(_)));
    // Where there is one, nobody needs it.
    let (_root, host) = node(&[], Some("nvidia"));
    assert!(matches!(check(&RuntimeClass, &host, &facts(), ROLE).await, Status::Ready(_)));
}

#[test]
fn only_control_plane_nodes_look_after_it() {
    use crate::config::Role;
    let has = |role| crate::catalog::steps(role).iter().any(|step| step.name() == "runtime-class");
    assert_eq!([Role::Worker, Role::ControlPlane, Role::Observed].map(has), [false, true, false]);
}
