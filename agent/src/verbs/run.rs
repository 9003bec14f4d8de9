//! `run` is `up` that stays: the systemd service. It never gives up, and never spins.

use std::time::Duration;

use super::round;
use crate::catalog;
use crate::cli::{Common, Exit};
use crate::engine::{Event, Observer, Stop};
use crate::host::service;
use crate::host::watch::Watch;
use crate::report::journal::{self, Journal};
use crate::report::terminal::Terminal;
use crate::session::{DROP_INS, Session};
use crate::show::Style;
use crate::state::{StepRecord, Verdict};
use crate::step::Stage;

/// A full look happens this often when no event calls for one, give or take a fifth.
const SLOW_LOOK: Duration = Duration::from_secs(300);

/// How long one round may wait for the outside world before everything is looked at again.
const ROUND_PATIENCE: Duration = Duration::from_secs(120);

/// Pauses after a round that a person must help with: doubling from the first to the second.
const BROKEN_PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

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
    let mut broken = 0_u32;
    let exit = loop {
        // The machine and its configuration are read anew in every round: both may have changed.
        let session = match Session::open(common, environment.clone()).await {
            Ok(session) => session,
            Err(trouble) => {
                service::status("the configuration is wrong: gpuk-agent doctor");
                break super::say(&trouble, false);
            }
        };
        if let Err(exit) = round::may_change(&session) {
            break exit;
        }
        let records = match round::lock(&session) {
            Ok(Some(_lock)) => {
                let observer = Both(Terminal::new(Style::default()), Journal::default());
                round::round(&session, "run", &observer, ROUND_PATIENCE, &stop).await
            }
            Ok(None) => {
                stop.sleep(Duration::from_millis(200)).await;
                if stop.requested() {
                    break Exit::Fine;
                }
                continue;
            }
            Err(exit) => break exit,
        };
        service::ready();
        service::status(&summary(&records));
        if stop.requested() {
            break Exit::Fine;
        }
        let any = |verdict| records.iter().any(|record| record.verdict == verdict);
        if any(Verdict::Broken) || any(Verdict::Pending) {
            let pause = BROKEN_PAUSE.0.saturating_mul(1 << broken.min(8)).min(BROKEN_PAUSE.1);
            broken += 1;
            drifted(pause.mul_f64(0.5 + fastrand::f64() / 2.0), &stop).await;
        } else if records.iter().all(|record| record.verdict.is_settled()) {
            broken = 0;
            drifted(SLOW_LOOK.mul_f64(0.8 + 0.4 * fastrand::f64()), &stop).await;
        } else {
            stop.sleep(Duration::from_secs(1)).await;
        }
        if stop.requested() {
            break Exit::Fine;
        }
    };
    service::stopping();
    exit
}

/// Returns when something that a step cares about changed, when it is time for a full look, or when the end is asked for.
async fn drifted(slow: Duration, stop: &Stop) {
    let steps = catalog::steps();
    let directories = steps.iter().flat_map(|step| step.watches().iter().copied()).chain(["/etc/gpuk", DROP_INS]);
    let mut watch = match Watch::over(directories) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!("{error:#}; drift is found by the slow look alone");
            return stop.sleep(slow).await;
        }
    };
    tokio::select! {
        () = stop.sleep(slow) => {}
        file = watch.changed() => {
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
        if let Event::Started(step) = event {
            if step.stage() == Stage::Cluster {
                // kubeadm starts the kubelet, which is ordered after this service: ready must not wait for the join.
                service::ready();
            }
            service::status(&format!("working on {}", step.name()));
        }
        self.0.event(event);
        self.1.event(event);
    }
}
