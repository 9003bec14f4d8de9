//! State is history, keyed by instance id; whether something is installed is never state: the node itself is the truth.
//!
//! What was decided of the node's name is kept beside it, as `identity::decision` says.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::Role;
use crate::host::Host;
use crate::host::files::Files;
use crate::step::{Contents, Finding};
use crate::wake::Wake;

/// Where the state is kept. Anyone may read it: it holds no secret.
pub const STATE_FILE: &str = "/var/lib/gpuk-agent/state.json";

/// Where it is kept for a node that is only observed: nothing on such a node's disk is ours.
pub const VOLATILE_STATE_FILE: &str = "/run/gpuk-agent/state.json";

/// How many rounds are remembered; the oldest go first.
const ROUNDS: usize = 40;

/// What the agent decided and did on this instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Whose state this is. Another id means a cloned disk: a new node.
    pub instance_id: String,
    /// The name this node was given.
    pub node: String,
    /// What happened, oldest first.
    pub rounds: Vec<Round>,
    /// Kept in memory only.
    #[serde(skip)]
    volatile: bool,
}

/// One time through the catalog.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Round {
    /// `/proc/sys/kernel/random/boot_id` of the boot it happened in.
    pub boot_id: String,
    /// The agent's version.
    pub version: String,
    /// The verb: `up` or `run`.
    pub verb: String,
    /// When it began: milliseconds after 1970, by the machine's clock.
    pub started: u64,
    /// When it began: milliseconds after the kernel started.
    pub since_boot: u64,
    /// What the boot is, in the first round of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake: Option<Wake>,
    /// Each step, in order.
    pub steps: Vec<StepRecord>,
    /// The round is over; otherwise it goes on, or was cut off.
    pub finished: bool,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The step.
    pub name: String,
    /// How it ended, or how it stands.
    pub verdict: Verdict,
    /// The evidence, or what is missing.
    pub text: String,
    /// When it began: milliseconds after the round.
    pub started: u64,
    /// How long it took, in milliseconds.
    pub took: u64,
    /// Every change that was made, in a few words each.
    pub changes: Vec<String>,
    /// Why the first of them was needed.
    #[serde(default)]
    pub because: Option<String>,
    /// What is wrong, when something is.
    pub finding: Option<Finding>,
}

impl StepRecord {
    /// A record that is all in its finding.
    pub fn of(name: &str, verdict: Verdict, finding: Finding) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            text: finding.to_string(),
            started: 0,
            took: 0,
            changes: Vec::new(),
            because: None,
            finding: Some(finding),
        }
    }
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ready,
    /// It does not hold; there are changes that would make it so.
    Pending,
    /// The outside world is not ready.
    Waiting,
    /// A person is needed.
    Broken,
    /// It could not be looked at.
    Unknown,
    /// It is for the boot, not for an image.
    Left,
}

impl Verdict {
    /// Nothing more can be done about it here: it holds, or it is for the boot.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Left)
    }

    /// The word in output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::Left => "left for the boot",
        }
    }
}

impl Round {
    /// When it began, by the machine's clock.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.started)
    }

    /// What became of this step in it.
    pub fn step(&self, name: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|record| record.name == name)
    }

    /// What would have to differ for another round to be worth remembering.
    fn signature(&self) -> Vec<(&str, Verdict, Option<&str>)> {
        self.steps
            .iter()
            .map(|step| (step.name.as_str(), step.verdict, step.finding.as_ref().map(|finding| finding.code.as_str())))
            .collect()
    }

    /// Nothing was changed and nothing stands differently than in `earlier`, in the same boot.
    pub fn repeats(&self, earlier: &Self) -> bool {
        self.boot_id == earlier.boot_id
            && self.version == earlier.version
            && self.finished == earlier.finished
            && self.signature() == earlier.signature()
            && self.steps.iter().all(|step| step.changes.is_empty())
    }
}

impl State {
    /// The state of this instance. An unreadable, cut or foreign state is as good as none: it never decides what is true.
    pub fn load(host: &Host, instance_id: &str, role: Role) -> Self {
        let volatile = role == Role::Observed;
        match Self::read_file(&host.files, place(volatile)) {
            Ok(Some(state)) if state.instance_id == instance_id || instance_id.is_empty() => Self { volatile, ..state },
            _ => Self { instance_id: instance_id.to_owned(), volatile, ..Self::default() },
        }
    }

    /// The state of this instance while nobody knows its role: it may be one on whose disk nothing is ours.
    pub fn load_of_unknown_role(host: &Host, instance_id: &str) -> Self {
        let is_on_disk = matches!(Self::read_file(&host.files, STATE_FILE), Ok(Some(_)));
        Self::load(host, instance_id, if is_on_disk { Role::Worker } else { Role::Observed })
    }

    /// Whatever is stored, whoever's it is. A machine that was observed for a while, or is now, has two states: the one whose last round
    /// began later tells how it stands. Absent is an empty state.
    pub fn read(files: &Files) -> Result<Self> {
        let (kept, volatile) = (Self::read_file(files, STATE_FILE)?, Self::read_file(files, VOLATILE_STATE_FILE)?);
        let began = |state: &Self| state.last().map(|round| round.started);
        // Of two equal ones this takes the last.
        Ok(volatile.into_iter().chain(kept).max_by_key(began).unwrap_or_default())
    }

    fn read_file(files: &Files, path: &str) -> Result<Option<Self>> {
        let Some(text) = files.text(Path::new(path))? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("reading {path}"))
    }

    /// The newest round.
    pub fn last(&self) -> Option<&Round> {
        self.rounds.last()
    }

    /// The newest record of a step in this boot.
    pub fn last_of(&self, step: &str, boot_id: &str) -> Option<&StepRecord> {
        self.rounds.iter().rev().take_while(|round| round.boot_id == boot_id).find_map(|round| round.step(step))
    }

    /// The newest round of this boot that put right what a step had held before in the same boot, and what had become of it:
    /// somebody else changes it.
    pub fn drift_of(&self, step: &str, boot_id: &str) -> Option<(&Round, &str)> {
        let of_boot: Vec<&Round> = self.rounds.iter().filter(|round| round.boot_id == boot_id).collect();
        let holds = |round: &&Round| round.step(step).is_some_and(|record| record.verdict == Verdict::Ready);
        let held = of_boot.iter().position(holds)?;
        of_boot.iter().skip(held + 1).rev().find_map(|round| {
            let record = round.step(step).filter(|record| record.verdict == Verdict::Ready)?;
            Some((*round, record.because.as_deref()?))
        })
    }

    /// Puts `round` at the end: in place of the last one when it is the same round going on, and not at all when it repeats that.
    /// Returns whether there is something to save.
    pub fn remember(&mut self, round: &Round) -> bool {
        match self.rounds.last_mut() {
            Some(last) if last.boot_id == round.boot_id && last.started == round.started => {
                if last == round {
                    return false;
                }
                last.clone_from(round);
                // A round that waited and ended as the one before it did says nothing new.
                if let [.., before, last] = self.rounds.as_slice()
                    && last.finished
                    && last.repeats(before)
                {
                    self.rounds.pop();
                }
            }
            Some(last) if round.repeats(last) => return false,
            _ => self.rounds.push(round.clone()),
        }
        let excess = self.rounds.len().saturating_sub(ROUNDS);
        self.rounds.drain(..excess);
        true
    }

    /// Writes the state whole.
    pub fn save(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_string(self).context("writing the state")?;
        host.record(Path::new(place(self.volatile)), &Contents::plain(text))
    }
}

fn place(volatile: bool) -> &'static str {
    if volatile { VOLATILE_STATE_FILE } else { STATE_FILE }
}

#[cfg(test)]
mod tests;
