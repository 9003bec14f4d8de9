//! Whoever undid what had to be put right again will do so another time: the cluster's operators should hear of it.

use crate::host::Host;
use crate::host::cluster::{ClusterError, NodeEvent};
use crate::state::{Round, State};
use crate::step::Step;

/// The event's reason.
const PUT_RIGHT: &str = "PutRight";

/// What this round put right although it had held before in the same boot, as events.
pub fn of(round: &Round, state: &State, steps: &[Box<dyn Step>]) -> Vec<NodeEvent> {
    let repaired = |step: &str| {
        let (mended, why) = state.drift_of(step, &round.boot_id)?;
        (mended.started == round.started).then(|| format!("{step} was put right again: {why}"))
    };
    let messages = steps.iter().filter(|step| step.may_drift()).filter_map(|step| repaired(step.name()));
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
    use crate::catalog;
    use crate::config::Role;
    use crate::state::{StepRecord, Verdict};

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
        let steps = catalog::steps(Role::Worker);
        let told: Vec<usize> = [round(1, Some("not there")), round(2, None), round(3, Some("flushed")), round(4, None)]
            .iter()
            .map(|round| {
                state.remember(round);
                of(round, &state, &steps).len()
            })
            .collect();
        assert_eq!(told, [0, 0, 1, 0]);
        assert_eq!(of(&round(3, Some("flushed")), &state, &steps)[0].message, "redirects was put right again: flushed");
        // What does more as other things change is no repair.
        let renamed = |mut round: Round| {
            round.steps.iter_mut().for_each(|record| record.name = "identity".to_owned());
            round
        };
        let mut state = State::default();
        state.remember(&renamed(round(1, Some("not there"))));
        let more = renamed(round(2, Some("not kept yet")));
        state.remember(&more);
        assert_eq!(of(&more, &state, &steps), []);
    }
}
