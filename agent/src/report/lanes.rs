//! A node is ready for its cluster before its GPUs are, so what became of a lane is reported as soon as that lane has ended.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::condition::{self, GPU_READY, NODE_BOOTSTRAPPED};
use crate::config::Role;
use crate::engine::{Event, Observer};
use crate::host::Host;
use crate::identity;
use crate::look::Look;
use crate::state::StepRecord;
use crate::step::Lane;

/// Hands each lane's records over as it ends.
pub struct LaneEnds<'a> {
    ended: UnboundedSender<(Lane, Vec<StepRecord>)>,
    /// Who else watches.
    next: &'a dyn Observer,
}

/// What [`LaneEnds`] hands over.
pub struct Ends(UnboundedReceiver<(Lane, Vec<StepRecord>)>);

impl<'a> LaneEnds<'a> {
    /// Both ends of it.
    pub fn before(next: &'a dyn Observer) -> (Self, Ends) {
        let (sender, receiver) = unbounded_channel();
        (Self { ended: sender, next }, Ends(receiver))
    }
}

impl Observer for LaneEnds<'_> {
    fn event(&self, event: &Event<'_>) {
        self.next.event(event);
        if let Event::LaneEnded(lane, records) = event {
            // Nobody listens where nothing is reported.
            let _ = self.ended.send((*lane, records.to_vec()));
        }
    }
}

impl Ends {
    /// Reports each lane's condition as it ends, until none can end any more.
    pub async fn report(mut self, host: &Host, look: Look<'_>) {
        while let Some((lane, records)) = self.0.recv().await {
            if !records.is_empty() && is_wanted(host, look) {
                report(host, look, lane, &records).await;
            }
        }
    }
}

/// Whether there is a cluster to report to that this node is, or is to be, in.
pub fn is_wanted(host: &Host, look: Look<'_>) -> bool {
    let config = look.config;
    let is_in_cluster = config.wants_join() || config.node.role == Role::Observed;
    config.report.node_condition && is_in_cluster && host.files.is_running_system() && host.cluster.has_credential()
}

async fn report(host: &Host, look: Look<'_>, lane: Lane, records: &[StepRecord]) {
    let has_gpus = !look.facts.gpus_for_containers().is_empty();
    let wanted = match lane {
        Lane::Node => {
            let bootstrapped = condition::from_records(NODE_BOOTSTRAPPED, "Bootstrapped", records);
            if has_gpus { vec![bootstrapped] } else { vec![bootstrapped, condition::without_gpus()] }
        }
        Lane::Gpu if has_gpus => vec![condition::from_records(GPU_READY, "Usable", records)],
        Lane::Gpu => return,
    };
    // The name may have been decided on the way.
    let node = identity::name(look).unwrap_or_default();
    match condition::report(host, &node, &wanted).await {
        Ok(set) => {
            for condition in set {
                let kind = condition.kind.as_str();
                tracing::info!(condition = kind, "{kind} is {}: {}", condition.status, condition.message);
            }
        }
        Err(error) => tracing::warn!("the conditions of the Node could not be reported: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source};
    use crate::engine::Silent;
    use crate::facts::{Facts, Gpu};
    use crate::host::cluster::{Condition, Node, ScriptedCluster};
    use crate::state::Verdict;
    use crate::step::Finding;

    /// The conditions that a node with these GPUs gets.
    async fn conditions(gpus: Vec<Gpu>, lanes: &[(Lane, Verdict)]) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        let cluster = ScriptedCluster::answering(Ok(Some(Node::default())));
        let set = cluster.conditions.clone();
        let host = Host { cluster: Box::new(cluster), ..Host::of_fakes(root.path()).unwrap() };
        let text = "[node]\nrole = \"observed\"\nname = \"gpu-1\"\n";
        let config = config::load(vec![Source::file("/etc/gpuk/agent.toml", text)]).unwrap().config;
        let facts = Facts { gpus, ..Facts::default() };
        let (observer, ends) = LaneEnds::before(&Silent);
        for (lane, verdict) in lanes {
            let record = StepRecord::of("step", *verdict, Finding::new("a-code", "What", "why", "remedy"));
            observer.event(&Event::LaneEnded(*lane, &[record]));
        }
        drop(observer);
        ends.report(&host, Look::new(&host, &config, &facts)).await;
        let set = set.borrow();
        set.iter().map(|Condition { kind, status, .. }| (kind.clone(), status.clone())).collect()
    }

    #[tokio::test]
    async fn a_lane_has_its_own_condition_and_gpus_only_where_there_are_some() {
        let both = [(Lane::Node, Verdict::Ready), (Lane::Gpu, Verdict::Broken)];
        let node = || ("NodeBootstrapped".to_owned(), "True".to_owned());
        assert_eq!(conditions(vec![Gpu::default()], &both).await, [node(), ("GPUReady".to_owned(), "False".to_owned())]);
        assert_eq!(conditions(Vec::new(), &both).await, [node()]);
        assert_eq!(conditions(Vec::new(), &both[1..]).await, []);
    }
}
