//! Taking a machine out of its cluster.

use super::super::joined::{AUTHORITY, CERTIFICATE};
use super::joining::{joined, words};
use super::*;
use crate::steps::join::leaving::leave;

async fn changes(machine: &Machine, pods: usize) -> anyhow::Result<Vec<Change>> {
    let host = Host {
        files: Files::as_running_system(machine.folder.path()).unwrap(),
        runtime: Box::new(ScriptedRuntime { pods: pods.into(), ..ScriptedRuntime::default() }),
        ..machine.host()
    };
    leave(Look::new(&host, &machine.config(), &machine.facts())).await
}

#[tokio::test]
async fn a_member_is_drained_first_and_nothing_of_the_join_stays() {
    let machine = joined();
    machine.write("/var/lib/kubelet/pki/kubelet.key", "key");
    machine.write("/var/lib/kubelet/cpu_manager_state", "{}");
    machine.write("/etc/kubernetes/somebody-elses.conf", "x");
    let expected = [
        "drain Node gpu-1, as far as it goes in 60 s",
        "stop kubelet.service",
        "stop and remove every pod",
        "remove /etc/kubernetes/kubelet.conf",
        "remove /etc/kubernetes/pki/ca.crt",
        "remove /var/lib/kubelet/config.yaml",
        "remove /var/lib/kubelet/cpu_manager_state",
        "remove /var/lib/kubelet/kubeadm-flags.env",
        "remove /var/lib/kubelet/pki/kubelet-client-current.pem",
        "remove /var/lib/kubelet/pki/kubelet.key",
        "sync file systems",
    ];
    assert_eq!(words(&changes(&machine, 3).await.unwrap()), expected);
}

#[tokio::test]
async fn who_is_no_member_is_not_drained_and_who_left_has_nothing_to_do() {
    let machine = joined();
    machine.write(CERTIFICATE, "");
    let made = words(&changes(&machine, 0).await.unwrap());
    assert_eq!(made[0], "stop kubelet.service");
    let fresh = Machine::fresh(&[A]);
    assert_eq!(changes(&fresh, 0).await.unwrap(), []);
    assert_eq!(words(&changes(&fresh, 1).await.unwrap())[0], "stop and remove every pod");
}

#[tokio::test]
async fn who_was_joined_by_somebody_else_stays() {
    let machine = joined().set("cluster.kind", Some("none"));
    assert_eq!(changes(&machine, 3).await.unwrap(), []);
    let reset_already = Machine::fresh(&[A]).set("node.role", Some("control-plane"));
    assert_eq!(changes(&reset_already, 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_member_of_etcd_does_not_just_go() {
    let machine = joined().set("node.role", Some("control-plane"));
    machine.write(AUTHORITY, CA);
    machine.write("/etc/kubernetes/manifests/etcd.yaml", "kind: Pod");
    let error = changes(&machine, 0).await.unwrap_err().to_string();
    assert!(error.contains("kubeadm reset"), "{error}");
}
