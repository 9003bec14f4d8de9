//! Looking at every step, one after the other, changes nothing and so needs no order, no root and no lock.

use crate::catalog;
use crate::engine::{Engine, Silent, Stop};
use crate::session::Session;
use crate::state::Verdict;
use crate::step::{Change, Finding, Lane, Stage, Status, Step};

/// What one look at one step found.
pub struct Seen {
    /// The step.
    pub name: &'static str,
    /// What is true when it holds.
    pub purpose: &'static str,
    /// Beside which steps it is done.
    pub lane: Lane,
    /// Whether others may undo what it did.
    pub may_drift: bool,
    /// The steps it needs.
    pub needs: &'static [&'static str],
    /// How it stands.
    pub verdict: Verdict,
    /// The evidence.
    pub text: String,
    /// What would make it true.
    pub changes: Vec<Change>,
    /// What is wrong, when something is.
    pub finding: Option<Finding>,
}

impl Seen {
    /// Nothing is known of it yet.
    fn of(step: &dyn Step) -> Self {
        Self {
            name: step.name(),
            purpose: step.purpose(),
            lane: step.lane(),
            may_drift: step.may_drift(),
            needs: step.needs(),
            verdict: Verdict::Left,
            text: "left for the boot: needs the running machine".to_owned(),
            changes: Vec::new(),
            finding: None,
        }
    }

    /// What a look came to.
    pub fn found(&mut self, looked: Result<Status, String>) {
        (self.verdict, self.text, self.changes, self.finding) = match looked {
            Ok(Status::Ready(evidence)) => (Verdict::Ready, evidence, Vec::new(), None),
            Ok(Status::Pending { why, changes }) => (Verdict::Pending, why, changes, None),
            Ok(Status::Waiting(finding)) => (Verdict::Waiting, finding.to_string(), Vec::new(), Some(finding)),
            Ok(Status::Broken(finding)) => (Verdict::Broken, finding.to_string(), Vec::new(), Some(finding)),
            Err(why) => (Verdict::Unknown, why, Vec::new(), None),
        };
    }
}

/// Looks at every step once.
pub async fn survey(session: &Session) -> Vec<Seen> {
    let (_switch, stop) = Stop::new();
    let engine = Engine { host: &session.host, config: &session.config, facts: &session.facts, observer: &Silent, stop };
    let mut all = Vec::new();
    for step in catalog::steps(session.config.node.role) {
        let mut seen = Seen::of(step.as_ref());
        if session.host.files.is_running_system() || step.stage() == Stage::Image {
            seen.found(engine.look(step.as_ref()).await);
        }
        all.push(seen);
    }
    all
}
