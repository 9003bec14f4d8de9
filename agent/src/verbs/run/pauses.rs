//! After a round the service leaves the machine alone, the longer the more often the round ended so, unless a watched file changes.

use std::time::Duration;

use crate::engine::Stop;

/// A full look happens this often when no event calls for one, give or take a fifth.
const SLOW_LOOK: Duration = Duration::from_secs(300);

/// Pauses after a round that a person must help with: doubling from the first to the second.
const TROUBLE_PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Pauses after a look in which the metadata service did not answer: doubling from the first to the second.
const SILENCE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Events come in bunches; what follows within this time belongs to the same drift.
const SETTLE: Duration = Duration::from_secs(2);

/// How one round of the service ended.
pub enum Outcome {
    /// Another agent is at work.
    Taken,
    /// The outside world is not ready.
    Waits,
    /// The metadata service did not answer, so nobody knows yet what the node is to be.
    Silence,
    /// Every step holds.
    Settled,
    /// A person is needed; the service looks again all the same, ever more slowly.
    Troubled,
}

/// How often in a row rounds ended in a way that asks for ever longer pauses.
#[derive(Default)]
pub struct Pauses {
    troubles: u32,
    silences: u32,
}

impl Pauses {
    /// Leaves the machine alone for a while after a round that ended so; `changed` may end that.
    pub async fn rest(&mut self, outcome: &Outcome, changed: impl Future<Output = String>, stop: &Stop) {
        let pause = match outcome {
            Outcome::Taken => return stop.sleep(Duration::from_millis(200)).await,
            Outcome::Waits => {
                self.silences = 0;
                return stop.sleep(Duration::from_secs(1)).await;
            }
            Outcome::Silence => {
                self.silences += 1;
                growing(SILENCE_PAUSE, self.silences - 1)
            }
            Outcome::Settled => {
                *self = Self::default();
                SLOW_LOOK.mul_f64(0.8 + 0.4 * fastrand::f64())
            }
            Outcome::Troubled => {
                (self.troubles, self.silences) = (self.troubles + 1, 0);
                growing(TROUBLE_PAUSE, self.troubles - 1).mul_f64(0.5 + fastrand::f64() / 2.0)
            }
        };
        drifted(changed, pause, stop).await;
    }
}

/// The first pause, doubled as often as it was needed before, but never more than the second.
fn growing((first, longest): (Duration, Duration), before: u32) -> Duration {
    first.saturating_mul(1 << before.min(8)).min(longest)
}

/// Returns when something changed, when it is time for a full look, or when the end is asked for.
async fn drifted(changed: impl Future<Output = String>, slow: Duration, stop: &Stop) {
    tokio::select! {
        () = stop.sleep(slow) => {}
        what = changed => {
            tracing::info!("{what}: looking at everything again");
            stop.sleep(SETTLE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Outcome, Pauses, SETTLE, SILENCE_PAUSE, growing};
    use crate::engine::Stop;

    /// How long a rest took, in a time that passes only while everything sleeps.
    async fn rested(pauses: &mut Pauses, outcome: Outcome, changed: impl Future<Output = String>) -> Duration {
        let (_switch, stop) = Stop::new();
        let began = Instant::now();
        pauses.rest(&outcome, changed, &stop).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_of_the_configuration_ends_every_long_pause() {
        for outcome in [Outcome::Silence, Outcome::Settled, Outcome::Troubled] {
            let mut pauses = Pauses { troubles: 8, silences: 8 };
            assert_eq!(rested(&mut pauses, outcome, ready("/etc/gpuk/agent.toml".to_owned())).await, SETTLE);
        }
        let mut pauses = Pauses { troubles: 0, silences: 8 };
        assert_eq!(rested(&mut pauses, Outcome::Silence, pending()).await, SILENCE_PAUSE.1);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_anew_after_every_round_that_was_none() {
        for outcome in [Outcome::Settled, Outcome::Troubled, Outcome::Waits] {
            let mut pauses = Pauses::default();
            let silence = async |pauses: &mut Pauses| rested(pauses, Outcome::Silence, pending()).await;
            assert_eq!((silence(&mut pauses).await, silence(&mut pauses).await), (SILENCE_PAUSE.0, SILENCE_PAUSE.0 * 2));
            rested(&mut pauses, outcome, pending()).await;
            assert_eq!(silence(&mut pauses).await, SILENCE_PAUSE.0);
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |before| growing(SILENCE_PAUSE, before).as_secs();
        assert_eq!((seconds(0), seconds(1), seconds(5), seconds(6), seconds(u32::MAX)), (1, 2, 32, 60, 60));
    }
}
