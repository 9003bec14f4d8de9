//! One round is one time through the catalog, under the lock, recorded, and reported to the cluster.

use std::path::Path;
use std::time::Duration;

use crate::catalog;
use crate::cli::Exit;
use crate::engine::{Engine, Observer, Stop};
use crate::host::Host;
use crate::host::files::Lock;
use crate::identity;
use crate::look::Look;
use crate::report::lanes::{self, LaneEnds};
use crate::report::recorder::Recorder;
use crate::report::repairs;
use crate::session::Session;
use crate::show::complain;
use crate::state::{Round, State, StepRecord};
use crate::step::Finding;
use crate::unknown::Unknown;
use crate::wake;

/// Held while an agent works; two agents never do at once.
pub const LOCK_FILE: &str = "/run/gpuk-agent/lock";

/// Tries the lock once.
pub fn lock(host: &Host) -> anyhow::Result<Option<Lock>> {
    host.files.lock(Path::new(LOCK_FILE))
}

/// Waits until no other agent is at work, as long as `patience` lasts.
pub async fn wait_for_lock(session: &Session, stop: &Stop, patience: Duration) -> Result<Lock, Refused> {
    let began = tokio::time::Instant::now();
    let mut told = false;
    loop {
        match lock(&session.host) {
            Ok(Some(lock)) => return Ok(lock),
            Err(error) => {
                let remedy = "mend what is named above, then the same command again";
                let finding = Finding::new("lock-failed", "The agent's lock cannot be had", format!("{error:#}"), remedy);
                return Err(Refused { finding, exit: Exit::Broken });
            }
            Ok(None) if began.elapsed() > patience || stop.requested() => {
                let why = format!("it holds {}", LOCK_FILE);
                let finding = Finding::new("agent-at-work", "Another agent is at work on this machine", why, "gpuk-agent status");
                return Err(Refused { finding, exit: Exit::Waiting });
            }
            Ok(None) => {
                if !std::mem::replace(&mut told, true) {
                    complain("another agent is at work on this machine (see gpuk-agent status); waiting for it");
                }
                stop.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why nothing is changed, and how the verb ends that would have changed something.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub finding: Finding,
    /// How it ends.
    pub exit: Exit,
}

impl Refused {
    /// Tells it to a person.
    pub fn say(&self) {
        complain(&format!("{}. Nothing was changed. Remedy: {}", self.finding, self.finding.remedy));
    }
}

/// Nothing is changed while it is not known what the node is to be.
pub fn may_change(session: &Session) -> Result<(), Refused> {
    has_root(session, "up")?;
    session.unknown.as_ref().map_or(Ok(()), |unknown| Err(Refused { finding: unknown.finding(), exit: unknown.exit() }))
}

/// Changing a running system needs root; an image belongs to whoever may write it. `words` are what was typed.
pub fn has_root(session: &Session, words: &str) -> Result<(), Refused> {
    if session.host.files.is_running_system() && !session.host.kernel.is_root() {
        let remedy = format!("sudo gpuk-agent {words}   (plan and doctor work without)");
        let finding = Finding::new("needs-root", "Changing this system needs root", "another user runs this", remedy);
        return Err(Refused { finding, exit: Exit::NoPermission });
    }
    Ok(())
}

/// How a round ended in which it was not known what the node is to be.
pub fn record(session: &Session, unknown: &Unknown) -> StepRecord {
    let source = session.facts.sources.iter().find(|source| source.name == unknown.name());
    unknown.record(source.map_or(0, |source| source.took_microseconds / 1000))
}

/// Keeps a round in which nothing could be begun, for `status` and `timeline`. The caller holds the lock.
pub fn remember(host: &Host, look: Look<'_>, verb: &str, record: StepRecord) {
    let mut state = State::load_of_unknown_role(host, &identity::instance_id(look));
    state.node = identity::name(look).unwrap_or(state.node);
    let round = Round { steps: vec![record], finished: true, ..Recorder::begin(host, verb, &look.facts.boot_id) };
    if state.remember(&round)
        && let Err(error) = state.save(host)
    {
        tracing::warn!(error = format!("{error:#}"), "the state could not be written");
    }
}

/// SIGTERM, SIGINT and SIGHUP ask the engine to end at the next change's edge.
pub fn stop_on_signals() -> Stop {
    use tokio::signal::unix::{SignalKind, signal};
    let (switch, stop) = Stop::new();
    tokio::task::spawn_local(async move {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else { return };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        // Nobody listens any more: the end is near anyway.
        let _ = switch.send(true);
        // Kept, so that listeners do not take a lost switch for silence.
        std::future::pending::<()>().await;
    });
    stop
}

/// Goes through the catalog once. The caller holds the lock.
pub async fn round(session: &Session, verb: &str, observer: &dyn Observer, patience: Duration, stop: &Stop) -> Vec<StepRecord> {
    let Session { host, facts, config, .. } = session;
    let look = Look::new(host, config, facts);
    let mut state = State::load(host, &identity::instance_id(look), config.node.role);
    state.node = identity::name(look).unwrap_or_default();
    let steps = catalog::steps(config.node.role);
    let names = steps.iter().map(|step| step.name()).collect();
    let mut round = Recorder::begin(host, verb, &facts.boot_id);
    if state.last().is_none_or(|last| last.boot_id != facts.boot_id) && host.files.is_running_system() {
        round.wake = wake::of(look).ok();
        tracing::info!("this boot: {}", round.wake.as_ref().map_or("unknown".to_owned(), ToString::to_string));
    }
    let recorder = Recorder::new(host, state, round, names, observer);
    let (observer, ends) = LaneEnds::before(&recorder);
    let working = async {
        // It goes when the work is done, and the reports end then.
        let observer = observer;
        Engine { host, config, facts, observer: &observer, stop: stop.clone() }.bring_up(&steps, patience).await
    };
    let (records, ()) = tokio::join!(working, ends.report(host, look));
    if records.len() < steps.len() || stop.requested() {
        // Cut short: nobody knows how the rest stands.
        return records;
    }
    // The name may have been decided on the way.
    let node = identity::name(look).unwrap_or_default();
    let (state, round) = recorder.finish(&node);
    let repairs = repairs::of(&round, &state, &steps);
    for repair in &repairs {
        tracing::warn!("{}", repair.message);
    }
    if lanes::is_wanted(host, look)
        && let Err(error) = repairs::report(host, &node, &repairs).await
    {
        tracing::warn!("what was put right could not be reported: {error}");
    }
    records
}

#[cfg(test)]
mod tests {
    use super::may_change;
    use crate::cli::Exit;
    use crate::cloud::Trouble;
    use crate::facts::Facts;
    use crate::host::Host;
    use crate::session::Session;
    use crate::unknown::{About, Unknown};

    #[test]
    fn without_all_that_decides_nothing_is_changed_and_silence_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let verdict = |trouble: Option<Trouble>| {
            let unknown = trouble.map(|trouble| Unknown::new(About::Metadata, trouble));
            let host = Host::of_fakes(root.path()).unwrap();
            let loaded = crate::config::load(Vec::new()).unwrap();
            let (config, settings) = (loaded.config, loaded.settings);
            may_change(&Session { host, facts: Facts::default(), config, settings, unknown }).map_err(|refused| refused.exit)
        };
        assert_eq!(verdict(None), Ok(()));
        assert_eq!(verdict(Some(Trouble::Unreachable { url: String::new(), why: "silent".to_owned() })), Err(Exit::Waiting));
        assert_eq!(verdict(Some(Trouble::Unreadable("a page".to_owned()))), Err(Exit::Broken));
    }
}
