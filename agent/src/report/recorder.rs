//! What happened is kept while it happens, so that a crash loses at most what went on at that moment.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use crate::engine::{Event, Observer};
use crate::host::Host;
use crate::state::{Round, State};
use crate::step::Change;

/// A change that may run longer than this is recorded before it begins.
const LONG: Duration = Duration::from_secs(60);

/// Writes the state file as the round goes on, and only when it says something new.
pub struct Recorder<'a> {
    host: &'a Host,
    inner: RefCell<Inner>,
    names: Vec<&'static str>,
    /// Who else watches.
    next: &'a dyn Observer,
}

struct Inner {
    state: State,
    round: Round,
}

impl<'a> Recorder<'a> {
    /// A recorder of one round. Steps are remembered in the order of their `names`, in whichever one they end.
    pub fn new(host: &'a Host, state: State, round: Round, names: Vec<&'static str>, next: &'a dyn Observer) -> Self {
        Self { host, inner: RefCell::new(Inner { state, round }), names, next }
    }

    /// A round that begins now.
    pub fn begin(host: &Host, verb: &str, boot_id: &str) -> Round {
        let started = host.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_boot = host.files.since_boot().unwrap_or_default();
        Round {
            boot_id: boot_id.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            verb: verb.to_owned(),
            started: u64::try_from(started.as_millis()).unwrap_or_default(),
            since_boot: u64::try_from(since_boot.as_millis()).unwrap_or_default(),
            wake: None,
            steps: Vec::new(),
            finished: false,
        }
    }

    /// The round is over, and this is the node's name after it. Returns the history, in which a round that says nothing new is
    /// missing, and the round.
    pub fn finish(self, node: &str) -> (State, Round) {
        {
            let inner = &mut *self.inner.borrow_mut();
            inner.state.node = node.to_owned();
            inner.round.finished = true;
        }
        self.save();
        let Inner { state, round } = self.inner.into_inner();
        (state, round)
    }

    fn save(&self) {
        let Inner { state, round } = &mut *self.inner.borrow_mut();
        if state.remember(round) {
            // A full or read-only disk must not keep a node out; the steps themselves say what is wrong.
            if let Err(error) = state.save(self.host) {
                tracing::warn!(error = format!("{error:#}"), "the state could not be written");
            }
        }
    }

    fn put(&self, record: &crate::state::StepRecord) {
        let steps = &mut self.inner.borrow_mut().round.steps;
        match steps.iter_mut().find(|step| step.name == record.name) {
            Some(step) => step.clone_from(record),
            None => steps.push(record.clone()),
        }
        steps.sort_by_key(|step| self.names.iter().position(|name| *name == step.name));
    }
}

impl Observer for Recorder<'_> {
    fn event(&self, event: &Event<'_>) {
        self.next.event(event);
        match event {
            Event::Ended(_, record) => self.put(record),
            Event::Waiting(_, record, _) => {
                self.put(record);
                self.save();
            }
            Event::Changing(_, Change::Run(command)) if command.limit > LONG => self.save(),
            _ => {}
        }
    }
}
