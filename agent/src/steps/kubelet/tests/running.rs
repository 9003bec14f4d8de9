//! A kubelet that is not started yet, or runs with other flags than it should.

use super::super::super::tests::code;
use super::*;
use crate::host::clock::FixedClock;
use crate::step::Change;

#[tokio::test]
async fn the_kubelet_gets_the_operators_flags_and_ours() {
    let (_root, mut host) =
        machine(&[("usr/lib/systemd/system/kubelet.service", ""), ("etc/default/kubelet", "KUBELET_EXTRA_ARGS=\"--v=4\"\n")]);
    host.units =
        Box::new(ScriptedUnits::with([("kubelet.service", UnitState { active: "inactive".to_owned(), ..UnitState::default() })]));
    let gpu = Gpu { address: "0000:00:1e.0".to_owned(), device: 0x1eb8, ..Gpu::default() };
    let facts = Facts { gpus: vec![gpu], ..facts() };
    let configuration = "[node]\nip = \"10.0.0.7\"\nprovider-id = \"aws:///eu-west-1a/i-1\"\nlabels = { pool = \"t4\" }\n";
    let made = settles(&Kubelet, &host, &facts, configuration).await;
    assert_eq!(
        written(&made, "/var/lib/gpuk-agent/kubelet.env").lines().last().unwrap(),
        "KUBELET_EXTRA_ARGS=\"--v=4 --node-ip=10.0.0.7 --provider-id=aws:///eu-west-1a/i-1 \
         --node-labels=nvidia.com/gpu.count=1,nvidia.com/gpu.present=true,pool=t4 --register-with-taints=nvidia.com/gpu=true:NoSchedule\""
    );
}

#[tokio::test]
async fn a_kubelet_that_runs_with_other_flags_is_restarted() {
    let (_root, mut host) =
        machine(&[("usr/lib/systemd/system/kubelet.service", ""), ("proc/7/cmdline", "/usr/bin/kubelet\0--node-ip=10.0.0.1\0")]);
    let running = UnitState { active: "active".to_owned(), main_pid: 7, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    let last = |made: Vec<Change>| made.last().unwrap().to_string();
    assert_eq!(last(changes(check(&Kubelet, &host, &facts(), "[node]\nip = \"10.0.0.7\"\n").await)), "restart kubelet.service");
    assert_ne!(last(changes(check(&Kubelet, &host, &facts(), "[node]\nip = \"10.0.0.1\"\n").await)), "restart kubelet.service");
}

#[tokio::test]
async fn a_kubelet_whose_unit_ignores_the_flags_is_not_restarted_for_ever() {
    let (_root, mut host) = machine(&[
        ("usr/lib/systemd/system/kubelet.service", ""),
        ("proc/7/cmdline", "/usr/bin/kubelet\0"),
        ("proc/uptime", "1000.00 1.00\n"),
    ]);
    let configuration = "[node]\nip = \"10.0.0.7\"\n";
    host.units =
        Box::new(ScriptedUnits::with([("kubelet.service", UnitState { active: "inactive".to_owned(), ..UnitState::default() })]));
    settles(&Kubelet, &host, &facts(), configuration).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    host.clock = Box::new(FixedClock::at(now + 500));
    let running = |active_since| UnitState { active: "active".to_owned(), main_pid: 7, active_since, ..UnitState::default() };
    // Started 510 s ago, before the flags were written.
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running(490_000_000))]));
    let made = changes(check(&Kubelet, &host, &facts(), configuration).await);
    assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart kubelet.service"]);
    // Started 10 s ago, after they were written.
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running(990_000_000))]));
    assert_eq!(code(&check(&Kubelet, &host, &facts(), configuration).await), "kubelet-ignores-flags");
}

#[tokio::test]
async fn another_cgroup_driver_in_the_kubelet_is_a_finding() {
    let files =
        [("usr/lib/systemd/system/kubelet.service", ""), ("var/lib/kubelet/config.yaml", "kind: X\ncgroupDriver: cgroupfs\n")];
    let (_root, host) = machine(&files);
    let Status::Broken(finding) = check(&Kubelet, &host, &facts(), "").await else { unreachable!() };
    assert_eq!(finding.code, "cgroup-driver-differs");
}
