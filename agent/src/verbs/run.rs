//! `run` is `up` that stays: the systemd service. It never gives up, and never spins.

use std::time::Duration;

use super::round;
use crate::catalog;
use crate::cli::{Common, Exit};
use crate::config::Role;
use crate::engine::{Event, Observer, Stop};
use crate::host::watch::Watch;
use crate::host::{Host, service};
use crate::report::journal::{self, Journal};
use crate::report::terminal::Terminal;
use crate::session::{DROP_INS, Session};
use crate::show::complain;
use crate::state::{StepRecord, Verdict};
use crate::step::{Change, Stage};
use crate::steps::kubelet;

/// A full look happens this often when no event calls for one, give or take a fifth.
const SLOW_LOOK: Duration = Duration::from_secs(300);

/// How long one round may wait for the outside world before everything is looked at again.
const ROUND_PATIENCE: Duration = Duration::from_secs(120);

/// Pauses after a round that a person must help with: doubling from the first to the second.
const TROUBLE_PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Pauses after a look in which the metadata service did not answer: doubling from the first to the second.
const SILENCE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Events come in bunches; what follows within this time belongs to the same drift.
const SETTLE: Duration = Duration::from_secs(2);

/// Stays until it is told to stop.
pub async fn run(common: &Common, environment: Vec<(String, String)>) -> Exit {
    journal::install();
    let stop = round::stop_on_signals();
    if let Some(period) = service::watchdog_period() {
        tokio::task::spawn_local(async move {
            loop {
                service::pet_watchdog();
                tokio::time::sleep(period).await;
            }
        });
    }
    let (mut troubles, mut silences) = (0_u32, 0_u32);
    while !stop.requested() {
        // Watching begins before looking, so that no change falls between the two.
        let watch = watch(common);
        let pause = match one_round(common, environment.clone(), &stop).await {
            Ok(Outcome::Taken) => {
                stop.sleep(Duration::from_millis(200)).await;
                continue;
            }
            Ok(Outcome::Waits) => {
                stop.sleep(Duration::from_secs(1)).await;
                continue;
            }
            Ok(Outcome::Silence) => {
                stop.sleep(growing(SILENCE_PAUSE, silences)).await;
                silences += 1;
                continue;
            }
            Ok(Outcome::Settled) => {
                (troubles, silences) = (0, 0);
                SLOW_LOOK.mul_f64(0.8 + 0.4 * fastrand::f64())
            }
            Ok(Outcome::Troubled) => {
                let pause = growing(TROUBLE_PAUSE, troubles);
                troubles += 1;
                pause.mul_f64(0.5 + fastrand::f64() / 2.0)
            }
            Err(exit) => return exit,
        };
        drifted(watch, pause, &stop).await;
    }
    service::stopping();
    Exit::Fine
}

/// The first pause, doubled as often as it was needed before, but never more than the second.
fn growing((first, longest): (Duration, Duration), before: u32) -> Duration {
    first.saturating_mul(1 << before.min(8)).min(longest)
}

/// How one round of the service ended.
enum Outcome {
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

/// One round under the lock. The machine and its configuration are read anew: both may have changed.
async fn one_round(common: &Common, environment: Vec<(String, String)>, stop: &Stop) -> Result<Outcome, Exit> {
    let troubled = |what: &str| {
        service::ready();
        service::status(what);
        Ok(Outcome::Troubled)
    };
    let host = match Host::real(&common.root) {
        Ok(host) => host,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Err(Exit::Broken);
        }
    };
    let Some(_lock) = round::lock(&host)? else { return Ok(Outcome::Taken) };
    let session = match Session::open(common, environment, &waiting).await {
        Ok(session) => session,
        Err(trouble) => {
            super::say(&trouble, false);
            return troubled("the configuration is wrong: gpuk-agent doctor");
        }
    };
    if let Err(exit) = round::may_change(&session) {
        let Some(unknown) = session.unknown.as_ref().filter(|_| exit != Exit::NoPermission) else { return Err(exit) };
        round::remember(&session, "run", unknown);
        if !unknown.may_pass() {
            return troubled(&format!("{}: gpuk-agent doctor", unknown.finding().what));
        }
        // A node that joined long ago need not wait for this with its kubelet.
        service::ready();
        service::status("waiting for the metadata service");
        return Ok(Outcome::Silence);
    }
    let observer = Both(Terminal::for_service(), Journal::default());
    let records = round::round(&session, "run", &observer, ROUND_PATIENCE, stop).await;
    service::ready();
    service::status(&summary(&records));
    let any = |verdict| records.iter().any(|record| record.verdict == verdict);
    Ok(if any(Verdict::Broken) || any(Verdict::Pending) {
        Outcome::Troubled
    } else if records.iter().all(|record| record.verdict.is_settled()) {
        Outcome::Settled
    } else {
        Outcome::Waits
    })
}

/// Whoever looks at the console of a machine that does not come up must see what it waits for.
fn waiting(text: &str) {
    complain(text);
    if service::is_unit() {
        service::console(&format!("gpuk-agent: {text}\n"));
    }
}

/// A watch over everything that a step cares about, and the configuration. Without one the slow look finds drift alone.
fn watch(common: &Common) -> Option<Watch> {
    let steps = catalog::steps(Role::Worker);
    let directories = steps.iter().flat_map(|step| step.watches().iter().copied()).chain(["/etc/gpuk", DROP_INS]);
    match Watch::over(&common.root, directories) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("{error:#}; drift is found by the slow look alone");
            None
        }
    }
}

/// Returns when a watched file changed, when it is time for a full look, or when the end is asked for.
async fn drifted(watch: Option<Watch>, slow: Duration, stop: &Stop) {
    let changed = async {
        match watch {
            Some(mut watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.sleep(slow) => {}
        file = changed => {
            tracing::info!("{file} was changed: looking at everything again");
            stop.sleep(SETTLE).await;
        }
    }
}

/// The line for `systemctl status`.
fn summary(records: &[StepRecord]) -> String {
    match records.iter().find(|record| !record.verdict.is_settled()) {
        None => format!("ready: all {} steps hold", records.len()),
        Some(record) => format!("{}: {}: {}", record.verdict.word(), record.name, record.text.lines().next().unwrap_or_default()),
    }
}

/// The console and the journal, and systemd as soon as the machine itself is prepared.
struct Both(Terminal, Journal);

impl Observer for Both {
    fn event(&self, event: &Event<'_>) {
        // The kubelet is ordered after this service: systemd would not start it, for kubeadm or for us, before "ready".
        match event {
            Event::Started(step) => {
                if step.stage() == Stage::Cluster {
                    service::ready();
                }
                service::status(&format!("working on {}", step.name()));
            }
            Event::Changing(_, Change::Unit(_, unit)) if unit == kubelet::UNIT => service::ready(),
            _ => {}
        }
        self.0.event(event);
        self.1.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::{SILENCE_PAUSE, growing};

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |before| growing(SILENCE_PAUSE, before).as_secs();
        assert_eq!((seconds(0), seconds(1), seconds(5), seconds(6), seconds(u32::MAX)), (1, 2, 32, 60, 60));
    }
}
