//! A trial is made once for what it depends on, and again when that changes.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use std::time::Duration;

use super::*;
use crate::config;
use crate::engine::{Engine, Silent, Stop};
use crate::facts::{Facts, Gpu};
use crate::host::Host;
use crate::host::runtime::{ScriptedRuntime, Tried};
use crate::state::{StepRecord, Verdict};
use crate::steps::tests::put;

/// A machine with two GPUs, whose containers are given these devices.
fn machine(given: Option<&[&str]>) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    for path in ["dev/nvidia0", "dev/nvidia1", "dev/nvidiactl"] {
        put(root.path(), path, "");
    }
    let tried = given.map(|names| Tried { devices: names.iter().map(|name| (*name).to_owned()).collect() });
    let host = Host {
        runtime: Box::new(ScriptedRuntime { tried, ..ScriptedRuntime::default() }),
        ..Host::of_fakes(root.path()).unwrap()
    };
    (root, host)
}

async fn round(host: &Host) -> StepRecord {
    let config = config::load(Vec::new()).unwrap().config;
    let facts = Facts { gpus: vec![Gpu::default(), Gpu::default()], ..Facts::default() };
    let (_switch, stop) = Stop::new();
    let engine = Engine { host, config: &config, facts: &facts, observer: &Silent, stop };
    // Without the steps it needs.
    struct Alone;
    #[async_trait(?Send)]
    impl Step for Alone {
        fn name(&self) -> &'static str {
            Trial.name()
        }
        fn purpose(&self) -> &'static str {
            Trial.purpose()
        }
        fn stage(&self) -> Stage {
            Trial.stage()
        }
        async fn check(&self, look: Look<'_>) -> Result<Status> {
            Trial.check(look).await
        }
        fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
            Trial.judge(failure, look)
        }
    }
    let steps: [Box<dyn Step>; 1] = [Box::new(Alone)];
    engine.bring_up(&steps, Duration::from_secs(5)).await.pop().unwrap()
}

#[tokio::test]
async fn a_container_is_tried_once_and_again_when_something_changed() {
    let (root, host) = machine(Some(&["null", "nvidia0", "nvidia1", "nvidiactl", "zero"]));
    let first = round(&host).await;
    assert_eq!((first.verdict, first.changes.len()), (Verdict::Ready, 2), "{first:?}");
    assert_eq!(first.changes[0], "try a container of the runtime nvidia, which must be given nvidiactl, nvidia0, nvidia1");
    assert_eq!(round(&host).await.changes.len(), 0);
    for (path, text) in [
        ("etc/containerd/config.toml", "version = 2\n"),
        ("run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n"),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Wed Jul  2 11:59:13 UTC 2025\n",
        ),
    ] {
        put(root.path(), path, text);
        assert_eq!((round(&host).await.changes.len(), round(&host).await.changes.len()), (2, 0), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_container_was_not_given_is_named() {
    let (_root, host) = machine(Some(&["null", "nvidia0", "nvidiactl"]));
    let record = round(&host).await;
    let finding = record.finding.unwrap();
    assert_eq!((record.verdict, finding.code.as_str()), (Verdict::Broken, "container-without-gpu"));
    assert!(finding.why.contains("was not given nvidia1; its /dev has null, nvidia0, nvidiactl"), "{}", finding.why);
    let (_root, host) = machine(None);
    let record = round(&host).await;
    let finding = record.finding.unwrap();
    assert_eq!(finding.code, "container-not-started", "that is no word about what a container is given");
    assert!(finding.why.contains("no runtime for \"nvidia\" is configured"));
}
