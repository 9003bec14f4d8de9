//! The two lanes of a round go side by side, and a step of one may need a step of the other.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::state::{StepRecord, Verdict};
use crate::step::{Finding, Lane, Step};

/// One round.
pub(super) struct Course<'a> {
    /// All its steps, in the order of the catalog.
    pub steps: &'a [Box<dyn Step>],
    /// When it began.
    pub began: Instant,
    deadline: Instant,
    ended: watch::Sender<Ended>,
}

#[derive(Default)]
struct Ended {
    records: Vec<StepRecord>,
    /// A lane was stopped: those it had left will never end.
    is_cut: bool,
    /// The GPU lane has nothing left to do.
    gpus_are_done: bool,
}

impl<'a> Course<'a> {
    /// A round that begins now.
    pub fn begin(steps: &'a [Box<dyn Step>], patience: Duration) -> Self {
        let began = Instant::now();
        Self { steps, began, deadline: began + patience, ended: watch::Sender::default() }
    }

    /// The first step that `step` needs and that does not hold, once all that it needs have ended.
    pub async fn missing(&self, step: &dyn Step) -> Option<&'static str> {
        let is_coming = |need: &str| self.steps.iter().any(|other| other.name() == need);
        let has_ended = |ended: &Ended, need: &str| ended.records.iter().any(|record| record.name == need);
        let all_ended =
            |ended: &Ended| ended.is_cut || step.needs().iter().all(|need| has_ended(ended, need) || !is_coming(need));
        let mut receiver = self.ended.subscribe();
        // The sender lives as long as `self`: waiting cannot fail.
        let Ok(ended) = receiver.wait_for(all_ended).await else { return None };
        let holds = |need: &str| ended.records.iter().any(|record| record.name == need && record.verdict == Verdict::Ready);
        step.needs().iter().copied().find(|need| !holds(need))
    }

    /// Whether waiting until then is too long. While a driver is being built the round goes on anyway, and so does waiting for the
    /// cluster: GPUs must not keep a node out of it.
    pub fn is_over_for(&self, lane: Lane, then: Instant) -> bool {
        then > self.deadline && (lane == Lane::Gpu || self.ended.borrow().gpus_are_done)
    }

    /// A lane has ended all its steps.
    pub fn end(&self, lane: Lane) {
        self.ended.send_modify(|ended| ended.gpus_are_done |= lane == Lane::Gpu);
    }

    /// A step has ended.
    pub fn put(&self, record: StepRecord) {
        self.ended.send_modify(|ended| ended.records.push(record));
    }

    /// A lane ends before its last step; nobody waits for the rest.
    pub fn cut_short(&self) {
        self.ended.send_modify(|ended| ended.is_cut = true);
    }

    /// What came of the steps of a lane, in order.
    pub fn records_of(&self, lane: Lane) -> Vec<StepRecord> {
        let ended = self.ended.borrow();
        let of_lane = self.steps.iter().filter(|step| step.lane() == lane);
        of_lane.filter_map(|step| ended.records.iter().find(|record| record.name == step.name()).cloned()).collect()
    }

    /// What came of it, in the order of the catalog.
    pub fn records(self) -> Vec<StepRecord> {
        let position = |record: &StepRecord| self.steps.iter().position(|step| step.name() == record.name);
        let mut records = self.ended.send_replace(Ended::default()).records;
        records.sort_by_key(position);
        records
    }
}

/// A step's record while it is being worked on.
pub(super) struct Work {
    /// As it stands.
    pub record: StepRecord,
}

impl Work {
    /// Nothing is known of it yet.
    pub fn begin(step: &dyn Step, started: Duration) -> Self {
        let record = StepRecord {
            name: step.name().to_owned(),
            verdict: Verdict::Unknown,
            text: String::new(),
            started: millis(started),
            took: 0,
            changes: Vec::new(),
            because: None,
            finding: None,
        };
        Self { record }
    }

    /// How it stands for now.
    pub fn stand(&mut self, verdict: Verdict, text: String, finding: Option<Finding>) {
        self.record.verdict = verdict;
        self.record.text = text;
        self.record.finding = finding;
    }

    /// How it stands at last.
    pub fn end(&mut self, verdict: Verdict, text: String, finding: Option<Finding>) {
        self.stand(verdict, text, finding);
    }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
