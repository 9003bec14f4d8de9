//! A scheduler wants one condition: `NodeBootstrapped` says whether the machine is a node, `GPUReady` whether pods can use its GPUs.

use crate::host::Host;
use crate::host::cluster::{ClusterError, Condition};
use crate::state::{StepRecord, Verdict};

/// The type of the condition that every step of the node lane holds.
pub const NODE_BOOTSTRAPPED: &str = "NodeBootstrapped";

/// The type of the condition that every step of the GPU lane holds; it is there only on nodes with GPUs.
pub const GPU_READY: &str = "GPUReady";

/// The reason of [`without_gpus`].
const NO_GPUS: &str = "NoGPUs";

/// What the records say, as a condition of this type: True, for this reason, only when every step holds.
pub fn from_records(kind: &str, reason: &str, records: &[StepRecord]) -> Condition {
    let kind = kind.to_owned();
    match records.iter().find(|record| record.verdict != Verdict::Ready) {
        None => Condition {
            kind,
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message: format!("gpuk-agent {}: all {} steps hold", env!("CARGO_PKG_VERSION"), records.len()),
        },
        Some(record) => {
            let (reason, message) = match &record.finding {
                Some(finding) => (camel(&finding.code), format!("{}: {}", record.name, finding.what)),
                None => (camel(record.verdict.word()), format!("{}: {}", record.name, record.text)),
            };
            Condition { kind, status: "False".to_owned(), reason, message }
        }
    }
}

/// The condition of a node that has no GPU any more, for those that had some.
pub fn without_gpus() -> Condition {
    let message = "no NVIDIA GPU for containers on the PCI bus".to_owned();
    Condition { kind: GPU_READY.to_owned(), status: "False".to_owned(), reason: NO_GPUS.to_owned(), message }
}

/// Sets those of the conditions of which the Node says something else, and returns them.
pub async fn report<'a>(host: &Host, node: &str, wanted: &'a [Condition]) -> Result<Vec<&'a Condition>, ClusterError> {
    let mut set = Vec::new();
    let Some(object) = host.cluster.node(node).await? else { return Ok(set) };
    for wanted in wanted {
        let now = object.condition(&wanted.kind);
        // A node that never had GPUs has nothing to say of them.
        if now == Some(wanted) || (now.is_none() && wanted.reason == NO_GPUS) {
            continue;
        }
        let transition = now.is_none_or(|condition| condition.status != wanted.status);
        host.cluster.set_condition(node, wanted, &crate::show::utc(host.clock.now()), transition).await?;
        set.push(wanted);
    }
    Ok(set)
}

/// `token-rejected` → `TokenRejected`: a condition's reason is one CamelCase word (Kubernetes API conventions).
fn camel(code: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    code.split(['-', ' ']).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cluster::{Node, ScriptedCluster};
    use crate::step::Finding;

    fn record(name: &str, verdict: Verdict, finding: Option<Finding>) -> StepRecord {
        StepRecord {
            name: name.to_owned(),
            verdict,
            text: "text".to_owned(),
            started: 0,
            took: 0,
            changes: Vec::new(),
            because: None,
            finding,
        }
    }

    #[test]
    fn all_steps_ready_is_true() {
        let condition = from_records(NODE_BOOTSTRAPPED, "Bootstrapped", &[record("join", Verdict::Ready, None)]);
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Bootstrapped"));
    }

    #[test]
    fn the_first_step_that_does_not_hold_is_the_reason() {
        let finding = Finding::new("node-not-ready", "The node is registered but not Ready", "x", "y");
        let condition = from_records(
            NODE_BOOTSTRAPPED,
            "Bootstrapped",
            &[record("join", Verdict::Ready, None), record("node", Verdict::Waiting, Some(finding))],
        );
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "NodeNotReady"));
        assert_eq!(condition.message, "node: The node is registered but not Ready");
    }

    #[tokio::test]
    async fn a_node_whose_gpus_are_gone_stops_saying_that_they_are_ready() {
        let root = tempfile::tempdir().unwrap();
        let report_to = async |conditions: Vec<Condition>| {
            let node = Node { conditions, ..Node::default() };
            let cluster = ScriptedCluster::answering(Ok(Some(node)));
            let host = Host { cluster: Box::new(cluster), ..Host::of_fakes(root.path()).unwrap() };
            !report(&host, "gpu-1", &[without_gpus()]).await.unwrap().is_empty()
        };
        let ready = Condition { status: "True".to_owned(), reason: "Usable".to_owned(), ..without_gpus() };
        assert!(report_to(vec![ready]).await);
        assert!(!report_to(vec![without_gpus()]).await, "it says so already");
        assert!(!report_to(Vec::new()).await, "it never had any");
    }
}
