//! A machine of fakes on files, and what one does with a step on it.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use std::path::Path;

use crate::config::{self, Source};
use crate::facts::{Facts, Instance};
use crate::host::Host;
use crate::host::cluster::{Condition, Node as NodeObject};
use crate::look::Look;
use crate::step::{Change, Status, Step};

/// A machine of fakes on these files.
pub(super) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    files.iter().for_each(|(path, text)| put(root.path(), path, text));
    let host = Host::of_fakes(root.path()).unwrap();
    (root, host)
}

/// Writes a file, and makes the folders above it.
pub(super) fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Makes a link, in place of one that is there.
pub(super) fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&path);
    std::os::unix::fs::symlink(target, path).unwrap();
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

pub(super) fn code(status: &Status) -> &str {
    match status {
        Status::Waiting(finding) | Status::Broken(finding) => &finding.code,
        other => unreachable!("{other:?}"),
    }
}

/// A Node with these ids.
pub(super) fn object(machine_id: &str, boot_id: &str, ready: &str) -> NodeObject {
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
