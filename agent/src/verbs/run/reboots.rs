//! A reboot is the last thing that may make GPUs work; a machine that does it again and again helps nobody, so each is counted first.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::host::cluster::ClusterError;
use crate::identity;
use crate::look::Look;
use crate::state::StepRecord;
use crate::step::{Change, Contents, Finding, Lane, Step};

/// Reboots since the GPUs last worked.
const FILE: &str = "/var/lib/gpuk-agent/reboots.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reboots {
    /// Another id means a copied disk: nothing was tried there.
    instance_id: String,
    /// In a row, without GPUs that worked in between.
    count: u32,
    /// The boot in which the last one was asked for.
    boot_id: String,
    /// The finding's code.
    code: String,
}

/// What follows from a round.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing that a reboot cures.
    Nothing,
    /// The machine is on its way down.
    Rebooting,
    /// A reboot would help and is not made: why.
    Not(String),
}

/// After a round: reboots where nothing else will do and the configuration allows it. GPUs that work end the count.
pub async fn after(host: &Host, look: Look<'_>, records: &[StepRecord], steps: &[Box<dyn Step>]) -> Result<Decision> {
    let instance_id = identity::instance_id(look);
    let kept: Option<Reboots> = look.text(FILE)?.and_then(|text| serde_json::from_str(&text).ok());
    let before = kept.filter(|kept| kept.instance_id == instance_id).unwrap_or_default();
    let holds = |name: &str| records.iter().any(|record| record.name == name && record.verdict.is_settled());
    let Some(finding) = cured_by_reboot(records) else {
        // A round that was cut off says nothing of the steps that are missing in it.
        if before.count > 0 && steps.iter().filter(|step| step.lane() == Lane::Gpu).all(|step| holds(step.name())) {
            keep(host, &Reboots { instance_id, ..Reboots::default() })?;
        }
        return Ok(Decision::Nothing);
    };
    let limit = look.config.gpu.reboot.count();
    if limit == 0 {
        return Ok(Decision::Nothing);
    }
    if before.boot_id == look.facts.boot_id {
        return Ok(Decision::Not("one was asked for in this boot already".to_owned()));
    }
    if before.count >= limit {
        let why = format!("{} in a row did not help (gpu.reboot): a person is needed", before.count);
        return Ok(Decision::Not(why));
    }
    if let Some(why) = somebody_would_lose(host, look).await {
        return Ok(Decision::Not(why));
    }
    let (boot_id, code) = (look.facts.boot_id.clone(), finding.code.clone());
    keep(host, &Reboots { instance_id, count: before.count + 1, boot_id, code })?;
    let change = Change::Reboot { why: format!("{finding} ({} of {limit})", before.count + 1) };
    tracing::warn!("{change}");
    host.apply(&change).await.map_err(|failure| anyhow::anyhow!("{failure}")).context("rebooting")?;
    Ok(Decision::Rebooting)
}

fn cured_by_reboot(records: &[StepRecord]) -> Option<&Finding> {
    records.iter().filter_map(|record| record.finding.as_ref()).find(|finding| finding.cured_by_reboot)
}

/// Pods that somebody waits for are told of by the cluster alone; where there is none yet, there are none.
async fn somebody_would_lose(host: &Host, look: Look<'_>) -> Option<String> {
    let name = identity::name(look).unwrap_or_default();
    match host.cluster.busy_pods(&name).await {
        Ok(0) => None,
        Err(ClusterError::NoCredential(_)) if !host.cluster.has_credential() => None,
        Ok(count) => Some(format!("{count} pods run here: kubectl drain {name} --ignore-daemonsets")),
        Err(error) => Some(format!("whether pods run here cannot be known: {error}")),
    }
}

/// On the disk before the machine goes down: a count that is lost would never end.
fn keep(host: &Host, reboots: &Reboots) -> Result<()> {
    let text = serde_json::to_string(reboots).with_context(|| format!("writing {FILE}"))?;
    host.record(Path::new(FILE), &Contents::plain(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::config::{Role, Source, load};
    use crate::facts::{Facts, Instance};
    use crate::host::cluster::ScriptedCluster;
    use crate::state::Verdict;

    /// What follows from a round in this boot whose step `gpus` ended so, with so many pods (`None`: no answer).
    async fn round(root: &Path, boot: &str, instance: &str, asked: &str, pods: Option<usize>, broken: bool) -> Decision {
        let finding = Finding::new("driver-version-mismatch", "a", "b", "c").cured_by_reboot();
        let record = if broken {
            StepRecord::of("gpus", Verdict::Broken, finding)
        } else {
            StepRecord { finding: None, ..StepRecord::of("gpus", Verdict::Ready, finding) }
        };
        let mut host = Host::of_fakes(root).unwrap();
        let answer = pods.map(|_| None).ok_or(ClusterError::Unreachable("away".to_owned()));
        host.cluster = Box::new(ScriptedCluster { busy_pods: pods.unwrap_or_default(), ..ScriptedCluster::answering(answer) });
        let config = load(vec![Source::file("agent.toml", format!("[gpu]\nreboot = \"{asked}\"\n"))]).unwrap().config;
        let instance = Instance { cloud: "nocloud", id: instance.to_owned(), ..Instance::default() };
        let facts = Facts { boot_id: boot.to_owned(), instance: Some(instance), ..Facts::default() };
        let steps = catalog::steps(Role::Worker);
        let mut records: Vec<StepRecord> = steps
            .iter()
            .map(|step| StepRecord { finding: None, ..StepRecord::of(step.name(), Verdict::Ready, Finding::new("", "", "", "")) })
            .collect();
        // A round that is cut off has only some of its steps.
        if boot.starts_with("cut") {
            records.clear();
        } else {
            records.retain(|other| other.name != record.name);
            records.push(record);
        }
        after(&host, Look::new(&host, &config, &facts), &records, &steps).await.unwrap()
    }

    fn not(decision: &Decision) -> &str {
        match decision {
            Decision::Not(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn reboots_are_counted_and_end() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(round(root, "1", "i", "never", Some(0), true).await, Decision::Nothing);
        assert_eq!(round(root, "1", "i", "twice", Some(0), true).await, Decision::Rebooting);
        // On its way down, or killed and started again.
        assert!(not(&round(root, "1", "i", "twice", Some(0), true).await).contains("in this boot already"));
        assert_eq!(round(root, "2", "i", "twice", Some(0), true).await, Decision::Rebooting);
        assert!(not(&round(root, "3", "i", "twice", Some(0), true).await).contains("2 in a row did not help"));
        // A copied disk is another machine.
        assert_eq!(round(root, "3", "other", "once", Some(0), true).await, Decision::Rebooting);
    }

    #[tokio::test]
    async fn gpus_that_work_end_the_count() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(round(root, "1", "i", "once", Some(0), true).await, Decision::Rebooting);
        assert_eq!(round(root, "cut", "i", "once", Some(0), false).await, Decision::Nothing);
        assert!(not(&round(root, "2", "i", "once", Some(0), true).await).contains("1 in a row"));
        assert_eq!(round(root, "2", "i", "once", Some(0), false).await, Decision::Nothing);
        assert_eq!(round(root, "3", "i", "once", Some(0), true).await, Decision::Rebooting);
    }

    #[tokio::test]
    async fn nobody_loses_a_pod_by_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(not(&round(root, "1", "i", "once", Some(3), true).await).contains("3 pods run here"));
        assert!(not(&round(root, "1", "i", "once", None, true).await).contains("cannot be known"));
        assert_eq!(round(root, "1", "i", "once", Some(0), true).await, Decision::Rebooting);
    }
}
