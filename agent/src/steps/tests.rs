#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::{kernel::Kernel, kubelet::Kubelet, node::Node, observed::Observed};
use crate::config::{self, Source};
use crate::facts::{Facts, Gpu, Instance};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::host::cluster::{ClusterError, Condition, Node as NodeObject, ScriptedCluster};
use crate::host::runtime::{RuntimeStatus, ScriptedRuntime};
use crate::host::units::{ScriptedUnits, UnitState, Units};
use crate::look::Look;
use crate::step::{Change, Status, Step, UnitVerb};

/// A machine of fakes on these files.
pub(super) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let host = Host::of_fakes(root.path()).unwrap();
    (root, host)
}

pub(super) fn facts() -> Facts {
    let instance = Instance { cloud: "nocloud", id: "i-1".to_owned(), source: "the seed".to_owned(), ..Instance::default() };
    Facts { instance: Some(instance), machine_id: "m".to_owned(), boot_id: "b".to_owned(), ..Facts::default() }
}

pub(super) async fn check(step: &dyn Step, host: &Host, facts: &Facts, configuration: &str) -> Status {
    let config = config::load(vec![Source::file("agent.toml", configuration)]).unwrap().config;
    step.check(Look::new(host, &config, facts)).await.unwrap()
}

pub(super) fn changes(status: Status) -> Vec<Change> {
    match status {
        Status::Pending { changes, .. } => changes,
        other => unreachable!("{other:?}"),
    }
}

pub(super) fn written(changes: &[Change], file: &str) -> String {
    let find = |change: &Change| match change {
        Change::Write { path, contents, .. } if path == Path::new(file) => {
            Some(String::from_utf8(contents.bytes.clone()).unwrap())
        }
        _ => None,
    };
    changes.iter().find_map(find).unwrap_or_else(|| unreachable!("{file} is not written: {changes:?}"))
}

/// Applies a step's changes and expects that a second look finds it ready.
pub(super) async fn settles(step: &dyn Step, host: &Host, facts: &Facts, configuration: &str) -> Vec<Change> {
    let made = changes(check(step, host, facts, configuration).await);
    for change in &made {
        host.apply(change).await.unwrap();
    }
    let again = check(step, host, facts, configuration).await;
    assert!(matches!(again, Status::Ready(_)), "{again:?}");
    made
}

const KERNEL_FILES: [(&str, &str); 6] = [
    ("proc/sys/net/ipv4/ip_forward", "0\n"),
    ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
    ("proc/sys/net/bridge/bridge-nf-call-ip6tables", "1\n"),
    ("sys/module/overlay/refcnt", "1\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("etc/fstab", "UUID=1 / ext4 defaults 0 1\n"),
];

#[tokio::test]
async fn the_kernel_gets_what_is_missing_and_nothing_else() {
    let (root, host) = machine(&KERNEL_FILES);
    let made = settles(&Kernel, &host, &facts(), "").await;
    assert!(made.contains(&Change::Sysctl { key: "net.ipv4.ip_forward".to_owned(), value: "1".to_owned() }));
    assert!(!made.iter().any(|change| matches!(change, Change::Run(_))), "the modules are loaded: {made:?}");
    assert_eq!(std::fs::read_to_string(root.path().join("proc/sys/net/ipv4/ip_forward")).unwrap(), "1\n");
}

#[tokio::test]
async fn swap_goes_off_unless_it_is_allowed() {
    let mut files = KERNEL_FILES;
    files[4].1 = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n";
    files[5].1 = "/dev/sda2 none swap sw 0 0\n";
    let (_root, host) = machine(&files);
    let made = changes(check(&Kernel, &host, &facts(), "").await);
    assert!(made.iter().any(|change| change.to_string() == "run swapoff --all"), "{made:?}");
    assert!(written(&made, "/etc/fstab").starts_with("# gpuk-agent: no swap on a node: /dev/sda2"));
    let made = changes(check(&Kernel, &host, &facts(), "[node]\nallow-swap = true\n").await);
    assert!(!made.iter().any(|change| change.to_string().contains("swap") || change.to_string().contains("fstab")), "{made:?}");
}

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

/// What the step `node` says when the API server answers this.
async fn node_with(answer: Result<Option<NodeObject>, ClusterError>, active_since: u64) -> Status {
    let (_root, mut host) = machine(&[("proc/uptime", "1000.00 1.00\n")]);
    host.cluster = Box::new(ScriptedCluster::answering(answer));
    let running = UnitState { active: "active".to_owned(), active_since, ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    check(&Node, &host, &facts(), "").await
}

fn object(machine_id: &str, boot_id: &str, ready: &str) -> NodeObject {
    let condition = Condition {
        kind: "Ready".to_owned(),
        status: ready.to_owned(),
        reason: "KubeletNotReady".to_owned(),
        message: "no CNI".to_owned(),
    };
    NodeObject {
        name: "i-1".to_owned(),
        machine_id: machine_id.to_owned(),
        boot_id: boot_id.to_owned(),
        conditions: vec![condition],
        ..NodeObject::default()
    }
}

pub(super) fn code(status: &Status) -> &str {
    match status {
        Status::Waiting(finding) | Status::Broken(finding) => &finding.code,
        other => unreachable!("{other:?}"),
    }
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
async fn a_managed_node_is_only_looked_at() {
    let (_root, mut host) = machine(&[]);
    let facts = Facts { hostname: "gke-1".to_owned(), ..facts() };
    assert_eq!(code(&check(&Observed, &host, &facts, "").await), "runtime-not-ready");
    host.runtime = Box::new(ScriptedRuntime(Some(RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() })));
    assert_eq!(code(&check(&Observed, &host, &facts, "").await), "kubelet-not-running");
    let running = UnitState { active: "active".to_owned(), ..UnitState::default() };
    host.units = Box::new(ScriptedUnits::with([("kubelet.service", running)]));
    assert_eq!(code(&check(&Observed, &host, &facts, "").await), "node-not-registered");
    host.cluster = Box::new(ScriptedCluster::answering(Err(ClusterError::NoCredential("exec".to_owned()))));
    assert!(matches!(check(&Observed, &host, &facts, "").await, Status::Ready(words) if words.contains("was not asked: exec")));
    host.cluster = Box::new(ScriptedCluster::answering(Ok(Some(object("m", "b", "True")))));
    assert!(matches!(check(&Observed, &host, &facts, "").await, Status::Ready(words) if words.contains("is Ready")));
}

/// A system bus that nobody answers on.
struct NoBus;

#[async_trait(?Send)]
impl Units for NoBus {
    async fn state(&self, _unit: &str) -> anyhow::Result<Option<UnitState>> {
        anyhow::bail!("no bus")
    }

    async fn act(&self, _verb: UnitVerb, _unit: &str, _limit: Duration) -> anyhow::Result<()> {
        anyhow::bail!("no bus")
    }
}

#[tokio::test]
async fn a_bus_that_does_not_answer_hides_no_finding_of_the_runtime() {
    let (_root, mut host) = machine(&[]);
    host.units = Box::new(NoBus);
    assert_eq!(code(&check(&Observed, &host, &facts(), "").await), "runtime-not-ready");
    host.runtime = Box::new(ScriptedRuntime(Some(RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() })));
    let config = config::load(Vec::new()).unwrap().config;
    let error = Observed.check(Look::new(&host, &config, &facts())).await.unwrap_err();
    assert_eq!(error.to_string(), "no bus");
}
