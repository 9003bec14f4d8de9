//! A machine of fakes on files: what the flags say before a Node is registered, and what stays of them afterwards.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

mod running;

use std::path::Path;

use super::super::tests::{changes, check, facts, machine, settles, written};
use super::{DROP_IN, FLAGS_FILE, Kubelet};
use crate::facts::{Facts, Gpu, Instance, VirtualFunctions};
use crate::host::Host;
use crate::host::units::{ScriptedUnits, UnitState};
use crate::step::Status;
use crate::steps::join::CERTIFICATE;

fn gpu(number: usize, model: &str) -> Gpu {
    Gpu { address: format!("0000:{number:02x}:00.0"), model: Some(model.to_owned()), ..Gpu::default() }
}

fn gpus(gpus: Vec<Gpu>) -> Facts {
    Facts { gpus, ..facts() }
}

fn on_ec2() -> Instance {
    Instance {
        region: Some("eu-west-1".to_owned()),
        zone: Some("eu-west-1a".to_owned()),
        instance_type: Some("g4dn.xlarge".to_owned()),
        provider_id: Some("aws:///eu-west-1a/i-1".to_owned()),
        ..facts().instance.unwrap_or_default()
    }
}

/// A machine with an idle kubelet.
fn idle() -> (tempfile::TempDir, Host) {
    let (root, mut host) = machine(&[("usr/lib/systemd/system/kubelet.service", "")]);
    host.units =
        Box::new(ScriptedUnits::with([("kubelet.service", UnitState { active: "inactive".to_owned(), ..UnitState::default() })]));
    (root, host)
}

/// The kubelet's flags on a machine that has not registered.
async fn flags(facts: &Facts, configuration: &str) -> String {
    let (_root, host) = idle();
    let made = settles(&Kubelet, &host, facts, configuration).await;
    let file = written(&made, FLAGS_FILE);
    let line = file.lines().last().unwrap_or_default();
    line.trim_start_matches("KUBELET_EXTRA_ARGS=").trim_matches('"').to_owned()
}

/// What a look says on a machine that registered with the first facts and configuration, and now has the second.
async fn after_registration(before: (&Facts, &str), now: (&Facts, &str)) -> String {
    let (root, mut host) = idle();
    settles(&Kubelet, &host, before.0, before.1).await;
    register(root.path());
    let command_line = "/usr/bin/kubelet\0--as-it-was-started\0";
    std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
    std::fs::write(root.path().join("proc/7/cmdline"), command_line).unwrap();
    let running = UnitState { active: "active".to_owned(), main_pid: 7, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    match check(&Kubelet, &host, now.0, now.1).await {
        Status::Ready(evidence) => evidence.split_once("; ").map(|(_, differing)| differing.to_owned()).unwrap_or_default(),
        other => unreachable!("a registered Node's flags are touched: {other:?}"),
    }
}

fn register(root: &Path) {
    let path = root.join(CERTIFICATE.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "-----BEGIN CERTIFICATE-----\n").unwrap();
}

#[tokio::test]
async fn a_node_registers_with_its_gpus_and_what_the_platform_says() {
    let facts = Facts { instance: Some(on_ec2()), ..gpus(vec![gpu(1, "Tesla T4"), gpu(2, "Tesla T4")]) };
    assert_eq!(
        flags(&facts, "").await,
        "--provider-id=aws:///eu-west-1a/i-1 --node-labels=gpuk/gpu-model=t4,node.kubernetes.io/instance-type=g4dn.xlarge,\
         nvidia.com/gpu.count=2,nvidia.com/gpu.present=true,topology.kubernetes.io/region=eu-west-1,\
         topology.kubernetes.io/zone=eu-west-1a --register-with-taints=nvidia.com/gpu=true:NoSchedule"
    );
    assert_eq!(flags(&super::super::tests::facts(), "").await, "", "neither GPUs nor platform");
}

#[tokio::test]
async fn the_configuration_wins_over_gpus_and_platform() {
    let facts = Facts { instance: Some(on_ec2()), ..gpus(vec![gpu(1, "L4")]) };
    let configuration = "[node]\nprovider-id = \"x://y\"\n\
        labels = { \"topology.kubernetes.io/zone\" = \"z\", \"nvidia.com/gpu.count\" = \"7\" }\n\
        taints = [\"nvidia.com/gpu=mine:NoSchedule\", \"nvidia.com/gpu=true:NoExecute\"]\n\
        [gpu]\nstartup-taints = [\"example.com/a:NoSchedule\"]\n";
    assert_eq!(
        flags(&facts, configuration).await,
        "--provider-id=x://y --node-labels=gpuk/gpu-model=l4,node.kubernetes.io/instance-type=g4dn.xlarge,nvidia.com/gpu.count=7,\
         nvidia.com/gpu.present=true,topology.kubernetes.io/region=eu-west-1,topology.kubernetes.io/zone=z \
         --register-with-taints=nvidia.com/gpu=mine:NoSchedule,nvidia.com/gpu=true:NoExecute,example.com/a:NoSchedule"
    );
    let off = "node.provider-id = \"none\"\n[gpu]\nenabled = \"never\"\n";
    assert_eq!(
        flags(&facts, off).await,
        "--node-labels=node.kubernetes.io/instance-type=g4dn.xlarge,topology.kubernetes.io/region=eu-west-1,topology.kubernetes.io/zone=eu-west-1a"
    );
    assert!(!flags(&facts, "gpu.taints = []").await.contains("taints"));
}

#[tokio::test]
async fn what_the_platform_says_is_made_fit_for_the_kubelet_or_left_out() {
    let instance = Instance {
        zone: Some("zone é one".to_owned()),
        region: Some("…".to_owned()),
        provider_id: Some("aws:///a b\" --v=9".to_owned()),
        ..facts().instance.unwrap_or_default()
    };
    let facts = Facts { instance: Some(instance), ..facts() };
    assert_eq!(flags(&facts, "").await, "--node-labels=topology.kubernetes.io/zone=zone---one");
}

#[tokio::test]
async fn only_gpus_that_containers_can_get_are_counted() {
    let divided = Gpu { virtual_functions: Some(VirtualFunctions { possible: 20, enabled: 2 }), ..gpu(1, "A100 80GB PCIe") };
    let part = |number| Gpu { is_virtual: true, ..gpu(number, "A100 80GB PCIe") };
    let kept = Gpu { driver: Some("vfio-pci".to_owned()), ..gpu(9, "A100 80GB PCIe") };
    let flags_of = |gpus_there: Vec<Gpu>| async move { flags(&gpus(gpus_there), "").await };
    assert!(flags_of(vec![divided, part(2), part(3), kept.clone()]).await.contains("nvidia.com/gpu.count=2,"));
    assert_eq!(flags_of(vec![kept]).await, "");
    let mixed = flags_of(vec![gpu(1, "L4"), gpu(2, "Tesla T4"), gpu(3, "Tesla T4")]).await;
    assert!(mixed.contains("gpuk/gpu-model=t4,nvidia.com/gpu.count=3,"), "the most frequent model: {mixed}");
    let even = flags_of(vec![gpu(1, "L4"), gpu(2, "Tesla T4")]).await;
    assert!(even.contains("gpuk/gpu-model=l4,"), "of equals the first: {even}");
    let unknown = flags_of(vec![Gpu { model: None, ..gpu(1, "") }]).await;
    assert!(unknown.contains("gpu.count=1") && !unknown.contains("gpu-model"), "{unknown}");
}

#[tokio::test]
async fn a_registered_node_keeps_its_flags_when_facts_change() {
    let two = Facts { instance: Some(on_ec2()), ..gpus(vec![gpu(1, "Tesla T4"), gpu(2, "Tesla T4")]) };
    assert_eq!(after_registration((&two, ""), (&two, "")).await, "");
    let one = Facts { gpus: vec![gpu(1, "Tesla T4")], ..two.clone() };
    assert_eq!(after_registration((&two, ""), (&one, "")).await, "registered with nvidia.com/gpu.count=2, now 1");
    let none = Facts { gpus: Vec::new(), ..two.clone() };
    let said = after_registration((&two, ""), (&none, "")).await;
    assert!(said.contains("taint nvidia.com/gpu=true:NoSchedule, now without") && !said.contains("kubectl"), "{said}");
    let silent = Facts { instance: facts().instance, ..two.clone() };
    let said = after_registration((&two, ""), (&silent, "")).await;
    assert!(said.contains("registered with topology.kubernetes.io/zone=eu-west-1a, now without"), "{said}");
    assert!(said.contains("provider id aws:///eu-west-1a/i-1, now none") && !said.contains("to change"), "{said}");
    let said = after_registration((&silent, ""), (&two, "")).await;
    assert!(said.contains("registered without topology.kubernetes.io/zone, now eu-west-1a"), "{said}");
    assert!(said.ends_with("rm /var/lib/gpuk-agent/kubelet.env, then: gpuk-agent up, then: systemctl restart kubelet"), "{said}");
}

#[tokio::test]
async fn a_registered_nodes_labels_and_taints_are_changed_by_an_administrator() {
    let before = "[node]\nlabels = { pool = \"a\", old = \"1\" }\ntaints = [\"x=1:NoSchedule\", \"y:NoExecute\"]\n";
    let now = "[node]\nlabels = { pool = \"b\", new = \"2\" }\ntaints = [\"x=2:NoSchedule\", \"z:NoExecute\"]\n\
        [gpu]\nstartup-taints = [\"example.com/a:NoSchedule\"]\n";
    let facts = gpus(vec![gpu(1, "L4")]);
    assert_eq!(
        after_registration((&facts, before), (&facts, now)).await,
        "registered without new, now 2; registered with old=1, now without; registered with pool=a, now b; \
         registered with taint x=1:NoSchedule, now x=2:NoSchedule; registered with taint y:NoExecute, now without; \
         registered without taint z:NoExecute; to change it: kubectl label node i-1 --overwrite new=2 old- pool=b; \
         to change it: kubectl taint node i-1 --overwrite x=2:NoSchedule y:NoExecute- z:NoExecute"
    );
}

#[tokio::test]
async fn a_registered_nodes_address_is_still_enforced_and_the_rest_kept() {
    let (root, mut host) = idle();
    let two = gpus(vec![gpu(1, "L4"), gpu(2, "L4")]);
    let made = settles(&Kubelet, &host, &two, "node.ip = \"10.0.0.1\"").await;
    let before = written(&made, FLAGS_FILE);
    register(root.path());
    std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
    std::fs::write(root.path().join("proc/7/cmdline"), "/usr/bin/kubelet\0--node-ip=10.0.0.1\0").unwrap();
    let running = UnitState { active: "active".to_owned(), main_pid: 7, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    let made = changes(check(&Kubelet, &host, &gpus(vec![gpu(1, "L4")]), "node.ip = \"10.0.0.2\"").await);
    assert_eq!(written(&made, FLAGS_FILE), before.replace("10.0.0.1", "10.0.0.2"));
    assert_eq!(made.last().map(ToString::to_string).as_deref(), Some("restart kubelet.service"));
}

#[tokio::test]
async fn a_certificate_that_is_gone_ends_the_registration_and_a_lost_flags_file_is_written_anew() {
    let (root, host) = idle();
    settles(&Kubelet, &host, &gpus(vec![gpu(1, "L4"), gpu(2, "L4")]), "").await;
    register(root.path());
    let flags_file = root.path().join(FLAGS_FILE.trim_start_matches('/'));
    let one = gpus(vec![gpu(1, "L4")]);
    std::fs::remove_file(root.path().join(CERTIFICATE.trim_start_matches('/'))).unwrap();
    assert!(written(&changes(check(&Kubelet, &host, &one, "").await), FLAGS_FILE).contains("gpu.count=1"));
    register(root.path());
    for lost in [
        "",
        "# Registers with: --node-labels=a\n",
        "# Registers with: --rubbish=1\n",
        "# Registers with: --register-with-taints=a\n",
    ] {
        std::fs::write(&flags_file, lost).unwrap();
        assert!(written(&changes(check(&Kubelet, &host, &one, "").await), FLAGS_FILE).contains("gpu.count=1"), "{lost}");
    }
    assert!(root.path().join(DROP_IN.trim_start_matches('/')).exists());
}

#[tokio::test]
async fn the_operators_quotes_reach_the_kubelet_as_without_us() {
    let (root, host) = idle();
    std::fs::create_dir_all(root.path().join("etc/default")).unwrap();
    std::fs::write(root.path().join("etc/default/kubelet"), "KUBELET_EXTRA_ARGS=--a=\"b c\" --d='$e'\n").unwrap();
    let made = settles(&Kubelet, &host, &facts(), "[node]\nkubelet-extra-args = [\"--v=4\"]\n").await;
    assert_eq!(written(&made, FLAGS_FILE).lines().last().unwrap(), r#"KUBELET_EXTRA_ARGS="--a=\"b c\" --d='\$e' --v=4""#);
}
