//! One round is one time through the catalog, under the lock, recorded, and reported to the cluster.

use std::path::Path;
use std::time::Duration;

use crate::catalog;
use crate::cli::Exit;
use crate::config::Role;
use crate::engine::{Engine, Observer, Stop};
use crate::host::Host;
use crate::host::files::Lock;
use crate::identity;
use crate::look::Look;
use crate::report::condition;
use crate::report::recorder::Recorder;
use crate::session::Session;
use crate::show::complain;
use crate::state::{Round, State, StepRecord};
use crate::step::Finding;
use crate::unknown::Unknown;

/// Held while an agent works; two agents never do at once.
pub const LOCK_FILE: &str = "/run/gpuk-agent/lock";

/// Tries the lock once.
pub fn lock(host: &Host) -> anyhow::Result<Option<Lock>> {
    host.files.lock(Path::new(LOCK_FILE))
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

/// Changing a running system needs root; an image belongs to whoever may write it.
pub fn may_change(session: &Session) -> Result<(), Refused> {
    if session.host.files.is_running_system() && !session.host.kernel.is_root() {
        let remedy = "sudo gpuk-agent up   (plan and doctor work without)";
        let finding = Finding::new("needs-root", "Changing this system needs root", "another user runs this", remedy);
        return Err(Refused { finding, exit: Exit::NoPermission });
    }
    session.unknown.as_ref().map_or(Ok(()), |unknown| Err(Refused { finding: unknown.finding(), exit: unknown.exit() }))
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
    let recorder = Recorder::new(host, state, Recorder::begin(host, verb, &facts.boot_id), observer);
    let engine = Engine { host, config, facts, observer: &recorder, stop: stop.clone() };
    let steps = catalog::steps(config.node.role);
    let records = engine.bring_up(&steps, patience).await;
    if records.len() < steps.len() || stop.requested() {
        // Cut short: nobody knows how the rest stands.
        return records;
    }
    // The name may have been decided on the way.
    let node = identity::name(look).unwrap_or_default();
    recorder.finish(&node);
    let reports = config.report.node_condition && (config.wants_join() || config.node.role == Role::Observed);
    if reports && host.files.is_running_system() && host.cluster.has_credential() {
        let wanted = condition::from_records(&records);
        match condition::report(host, &node, &wanted).await {
            Ok(true) => {
                tracing::info!(condition = wanted.kind.as_str(), "{} is {}: {}", wanted.kind, wanted.status, wanted.message)
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("{} could not be reported: {error}", wanted.kind),
        }
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
