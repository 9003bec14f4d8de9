//! A copied disk, and an agent that is stopped at every single change.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use std::path::Path;

use super::*;
use crate::facts::{Dmi, Facts, Instance, marks};
use crate::host::Host;
use crate::host::units::{ScriptedUnits, UnitState};
use crate::identity::decision::Decision;
use crate::steps::join::fixtures::{NODE_CERTIFICATE, NODE_KEY};

const DATED: &str = "/var/lib/kubelet/pki/kubelet-client-2026-11-21-07-18-02.pem";

/// A disk with a folder for its files, and the instance that it is in.
struct Machine {
    folder: tempfile::TempDir,
    instance: &'static str,
    kubelet: &'static str,
}

impl Machine {
    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The disk of a joined node of instance i-1 after it was copied to i-2.
    fn copy() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), instance: "i-2", kubelet: "active" };
        machine.write(DATED, &format!("{NODE_CERTIFICATE}{NODE_KEY}"));
        let current = machine.folder.path().join(KUBELET_CERTIFICATE.trim_start_matches('/'));
        std::os::unix::fs::symlink(DATED, current).unwrap();
        machine.write("/var/lib/kubelet/pki/kubelet-client-2026-01-01-00-00-00.pem", "an older one");
        machine.write("/var/lib/kubelet/pki/kubelet.crt", "serving");
        machine.write("/var/lib/kubelet/pki/kubelet.key", "serving");
        machine.write(KUBECONFIGS[0], "kubeconfig");
        machine.write(KUBECONFIGS[1], "bootstrap");
        machine.write("/etc/kubernetes/pki/ca.crt", "the cluster's");
        machine.kept(Self::origin());
        machine
    }

    /// What i-1 decided.
    fn origin() -> Decision {
        Decision {
            instance_id: "i-1".to_owned(),
            cloud: "ec2".to_owned(),
            node: "gpu-1".to_owned(),
            template: "{instance-id}".to_owned(),
            joined: true,
            ..Decision::default()
        }
    }

    fn kept(&self, decision: Decision) {
        self.write(DECISION_FILE, &serde_json::to_string(&decision).unwrap());
    }

    fn host(&self) -> Host {
        let mut host = Host::of_fakes(self.folder.path()).unwrap();
        let kubelet = UnitState { active: self.kubelet.to_owned(), ..UnitState::default() };
        host.units = Box::new(ScriptedUnits::with([(KUBELET, kubelet)]));
        host
    }

    fn facts(&self) -> Facts {
        let source = "the seed".to_owned();
        let instance = Instance { cloud: "ec2", id: self.instance.to_owned(), source, ..Instance::default() };
        let config = crate::config::load(Vec::new()).unwrap().config;
        let marks = marks::marks(Look::new(&self.host(), &config, &Facts::default())).unwrap();
        Facts { instance: Some(instance), marks, ..Facts::default() }
    }

    async fn check(&self) -> Status {
        let config = crate::config::load(Vec::new()).unwrap().config;
        OwnIdentity.check(Look::new(&self.host(), &config, &self.facts())).await.unwrap()
    }

    /// Who it is by what is on its disk now.
    fn name(&self) -> String {
        let config = crate::config::load(Vec::new()).unwrap().config;
        identity::of(Look::new(&self.host(), &config, &self.facts())).unwrap().unwrap().name
    }

    /// Makes the first changes of what the step wants; how many it wanted.
    async fn apply(&self, count: usize) -> usize {
        let Status::Pending { changes, .. } = self.check().await else { return 0 };
        for change in changes.iter().take(count) {
            self.host().apply(change).await.unwrap();
        }
        changes.len()
    }

    fn has(&self, path: &str) -> bool {
        self.folder.path().join(path.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    /// Every file that is left, with its bytes.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        fn below(directory: &Path, files: &mut Vec<(String, Vec<u8>)>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    below(&path, files);
                } else {
                    files.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
                }
            }
        }
        let mut files = Vec::new();
        below(self.folder.path(), &mut files);
        let root = self.folder.path().display().to_string();
        let relative = |(path, bytes): (String, Vec<u8>)| (path.replacen(&root, "", 1), bytes);
        let mut files: Vec<_> = files.into_iter().map(relative).collect();
        files.sort();
        files
    }
}

fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_copied_disk_loses_the_other_nodes_credentials_before_anything_else() {
    let machine = Machine::copy();
    let Status::Pending { why, changes } = machine.check().await else { panic!("not pending") };
    assert!(why.contains("instance i-1 (node gpu-1)") && why.contains("this node is i-2"), "{why}");
    let expected = [
        "stop kubelet.service".to_owned(),
        format!("write {DECISION_FILE}"),
        format!("remove {}", KUBECONFIGS[0]),
        format!("remove {}", KUBECONFIGS[1]),
        "remove /var/lib/kubelet/pki/kubelet-client-2026-01-01-00-00-00.pem".to_owned(),
        "remove /var/lib/kubelet/pki/kubelet.crt".to_owned(),
        "remove /var/lib/kubelet/pki/kubelet.key".to_owned(),
        format!("remove {KUBELET_CERTIFICATE}"),
        format!("remove {DATED}"),
    ];
    assert_eq!(words(&changes), expected);
    let secret = |change: &Change| !matches!(change, Change::Remove { secret: false, .. });
    assert!(changes.iter().all(secret), "no credential is kept anywhere: {changes:?}");
    machine.apply(changes.len()).await;
    let Status::Ready(evidence) = machine.check().await else { panic!("not ready") };
    assert_eq!(evidence, "instance i-2, from the seed; the disk was copied from instance i-1 (node gpu-1)");
    assert_eq!(machine.name(), "i-2");
    let left: Vec<String> = machine.files().into_iter().map(|(path, _)| path).filter(|path| !path.contains("replaced")).collect();
    assert_eq!(left, ["/etc/kubernetes/pki/ca.crt", DECISION_FILE]);
    assert!(!machine.files().iter().any(|(_, bytes)| bytes.windows(11).any(|part| part == b"PRIVATE KEY")));
}

#[tokio::test]
async fn stopped_at_any_change_the_next_look_ends_where_the_whole_would_have() {
    for without_certificate in [false, true] {
        let copy = || {
            let machine = Machine::copy();
            if without_certificate {
                std::fs::remove_file(machine.folder.path().join(KUBELET_CERTIFICATE.trim_start_matches('/'))).unwrap();
                std::fs::remove_file(machine.folder.path().join(DATED.trim_start_matches('/'))).unwrap();
            }
            machine
        };
        let whole = copy();
        let count = whole.apply(usize::MAX).await;
        assert!(count > 5, "{count}");
        for stopped_after in 0..=count {
            let mut machine = copy();
            machine.apply(stopped_after).await;
            // After a crash the kubelet may or may not run.
            machine.kubelet = if stopped_after % 2 == 0 { "active" } else { "inactive" };
            assert_eq!(machine.name(), "i-2", "stopped after {stopped_after}: it goes by the other's name");
            machine.apply(usize::MAX).await;
            assert!(matches!(machine.check().await, Status::Ready(_)), "stopped after {stopped_after}");
            assert_eq!(machine.files(), whole.files(), "stopped after {stopped_after}");
        }
    }
}

#[tokio::test]
async fn no_kubelet_starts_with_another_nodes_credentials_while_the_platform_is_silent() {
    const UUID: &str = "4c4c4544-0042-3510-8052-b3c04f4b4e32";
    let may_start = |machine: &Machine, instance: Option<&str>, uuid: &str| {
        let config = crate::config::load(Vec::new()).unwrap().config;
        let instance = instance.map(|id| Instance { cloud: "ec2", id: id.to_owned(), ..Instance::default() });
        let dmi = Dmi { product_uuid: Some(uuid.to_owned()), ..Dmi::default() };
        identity::kubelet_may_start(Look::new(&machine.host(), &config, &Facts { instance, dmi, ..Facts::default() }))
    };
    let machine = Machine::copy();
    machine.kept(Decision { product_uuid: Some(UUID.to_owned()), ..Machine::origin() });
    let other = "ec2f1a2b-0034-5210-8051-cac04f4a4e32";
    assert!(may_start(&machine, Some("i-1"), UUID), "its own disk");
    assert!(may_start(&machine, None, UUID), "its own disk, and nobody names the instance");
    assert!(!may_start(&machine, Some("i-2"), other), "a copy");
    assert!(!may_start(&machine, None, other), "a copy, and nobody names the instance");
    machine.write(DECISION_FILE, "{");
    assert!(!may_start(&machine, Some("i-1"), UUID), "nobody knows");
    // The credentials are not all gone when the decision is kept already.
    let machine = Machine::copy();
    machine.apply(2).await;
    assert!(!may_start(&machine, Some("i-2"), other), "cut off");
    machine.apply(usize::MAX).await;
    assert!(may_start(&machine, Some("i-2"), other), "nothing of the other's is left");
    // Nothing was ever decided here.
    let fresh = Machine { folder: tempfile::tempdir().unwrap(), instance: "", kubelet: "inactive" };
    assert!(may_start(&fresh, None, other));
}

#[tokio::test]
async fn credentials_that_come_after_the_drop_are_the_nodes_own() {
    let machine = Machine::copy();
    machine.apply(usize::MAX).await;
    machine.write(KUBECONFIGS[0], "kubeconfig");
    machine.write(KUBELET_CERTIFICATE, &format!("{NODE_CERTIFICATE}{NODE_KEY}\n"));
    assert_eq!(machine.apply(usize::MAX).await, 1, "only the decision: the node has joined");
    assert!(machine.has(KUBELET_CERTIFICATE) && machine.has(KUBECONFIGS[0]));
    assert!(matches!(machine.check().await, Status::Ready(_)));
    assert_eq!(machine.name(), "gpu-1", "the kubelet's certificate is for it");
    // The other's come back, e.g. with a backup.
    std::fs::remove_file(machine.folder.path().join(KUBELET_CERTIFICATE.trim_start_matches('/'))).unwrap();
    machine.write(KUBELET_CERTIFICATE, &format!("{NODE_CERTIFICATE}{NODE_KEY}"));
    machine.apply(usize::MAX).await;
    assert!(!machine.has(KUBELET_CERTIFICATE) && !machine.has(KUBECONFIGS[0]));
}

#[tokio::test]
async fn the_copy_of_a_control_plane_node_is_not_touched() {
    for path in ["/etc/kubernetes/manifests/kube-apiserver.yaml", "/var/lib/etcd/member/snap/db"] {
        let machine = Machine::copy();
        machine.write(path, "");
        let before = machine.files();
        let Status::Broken(finding) = machine.check().await else { panic!("not broken") };
        assert_eq!(finding.code, "control-plane-copied");
        assert!(finding.why.contains("gpu-1") && finding.remedy.contains("kubeadm reset"), "{finding:?}");
        assert_eq!(machine.files(), before);
        // The same node on its own instance, and the remedy for one that moved.
        let at_home = Machine { instance: "i-1", ..machine };
        at_home.apply(usize::MAX).await;
        assert!(matches!(at_home.check().await, Status::Ready(_)));
        let moved = Machine { instance: "i-2", ..at_home };
        std::fs::remove_file(moved.folder.path().join(DECISION_FILE.trim_start_matches('/'))).unwrap();
        moved.apply(usize::MAX).await;
        assert!(matches!(moved.check().await, Status::Ready(_)));
        assert!(moved.name() == "gpu-1" && moved.has(KUBELET_CERTIFICATE), "{}", moved.name());
    }
}

#[tokio::test]
async fn a_damaged_decision_needs_a_person_and_a_blank_one_is_none() {
    let machine = Machine::copy();
    for damaged in ["{", "7", "\u{fffd}"] {
        machine.write(DECISION_FILE, damaged);
        let before = machine.files();
        let Status::Broken(finding) = machine.check().await else { panic!("not broken") };
        assert_eq!((finding.code.as_str(), machine.files()), ("decision-unreadable", before));
        assert!(finding.why.contains(DECISION_FILE), "{finding:?}");
        let (same, copy) = finding.remedy.split_once("; ").unwrap();
        assert!(same.contains("same machine") && !same.contains("pki"), "{same}");
        assert!(copy.contains("copy") && [KUBECONFIGS[0], KUBELET_CERTIFICATES].iter().all(|path| copy.contains(path)), "{copy}");
    }
    machine.write(DECISION_FILE, "\0\0\r\n\t");
    machine.apply(usize::MAX).await;
    assert!(matches!(machine.check().await, Status::Ready(_)));
    assert_eq!(machine.name(), "gpu-1");
}
