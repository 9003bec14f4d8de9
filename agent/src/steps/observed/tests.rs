//! A node that someone else manages, and a system bus that nobody answers on.

use std::time::Duration;

use async_trait::async_trait;

use super::super::tests::{check, code, facts, machine, object};
use super::Observed;
use crate::config;
use crate::facts::Facts;
use crate::host::cluster::{ClusterError, ScriptedCluster};
use crate::host::runtime::{RuntimeStatus, ScriptedRuntime};
use crate::host::units::{ScriptedUnits, UnitState, Units};
use crate::look::Look;
use crate::step::{Status, Step, UnitVerb};

#[tokio::test]
async fn a_managed_node_is_only_looked_at() {
    let (_root, mut host) = machine(&[]);
    let facts = Facts { hostname: "gke-1".to_owned(), ..facts() };
    assert_eq!(code(&check(&Observed, &host, &facts, "").await), "runtime-not-ready");
    host.runtime = Box::new(ScriptedRuntime {
        status: Some(RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() }),
        ..ScriptedRuntime::default()
    });
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

    async fn reboot(&self) -> anyhow::Result<()> {
        anyhow::bail!("no bus")
    }
}

#[tokio::test]
async fn a_bus_that_does_not_answer_hides_no_finding_of_the_runtime() {
    let (_root, mut host) = machine(&[]);
    host.units = Box::new(NoBus);
    assert_eq!(code(&check(&Observed, &host, &facts(), "").await), "runtime-not-ready");
    host.runtime = Box::new(ScriptedRuntime {
        status: Some(RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() }),
        ..ScriptedRuntime::default()
    });
    let config = config::load(Vec::new()).unwrap().config;
    let error = Observed.check(Look::new(&host, &config, &facts())).await.unwrap_err();
    assert_eq!(error.to_string(), "no bus");
}
