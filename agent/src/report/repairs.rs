//! Whoever undid what had to be put right again will do so another time: the cluster's operators should hear of it.

use crate::host::Host;
use crate::host::cluster::{ClusterError, NodeEvent};
use crate::state::{Round, State, StepRecord};

/// The event's reason.
const PUT_RIGHT: &str = "PutRight";

/// Steps that do something more, or anew, when something else has changed (the node joined): that is no repair.
const DONE_ANEW: [&str; 3] = ["identity", "driver", "trial"];

/// What this round put right although it had held before in the same boot, as events.
pub fn of(round: &Round, state: &State) -> Vec<NodeEvent> {
    let repaired = |step: &str| {
        let (mended, why) = state.drift_of(step, &round.boot_id)?;
        (mended.started == round.started).then(|| format!("{step} was put right again: {why}"))
    };
    let may_drift = |record: &&StepRecord| !DONE_ANEW.contains(&record.name.as_str());
    let messages = round.steps.iter().filter(may_drift).filter_map(|record| repaired(&record.name));
    messages.map(|message| NodeEvent { reason: PUT_RIGHT.to_owned(), message }).collect()
}

/// Records them at the API server.
pub async fn report(host: &Host, node: &str, events: &[NodeEvent]) -> Result<(), ClusterError> {
    for event in events {
        host.cluster.record_event(node, event, &crate::show::utc(host.clock.now())).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Verdict;

    #[test]
    fn only_the_round_that_put_it_right_tells_it() {
        let round = |started, because: Option<&str>| {
            let record = StepRecord {
                name: "redirects".to_owned(),
                verdict: Verdict::Ready,
                text: String::new(),
                started: 0,
                took: 0,
                changes: because.map(str::to_owned).into_iter().collect(),
                because: because.map(str::to_owned),
                finding: None,
            };
            Round { started, finished: true, steps: vec![record], ..Round::default() }
        };
        let mut state = State::default();
        let told: Vec<usize> = [round(1, Some("not there")), round(2, None), round(3, Some("flushed")), round(4, None)]
            .iter()
            .map(|round| {
                state.remember(round);
                of(round, &state).len()
            })
            .collect();
        assert_eq!(told, [0, 0, 1, 0]);
        assert_eq!(of(&round(3, Some("flushed")), &state)[0].message, "redirects was put right again: flushed");
    }
}
