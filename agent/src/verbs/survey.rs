//! Looking at every step, one after the other, changes nothing and so needs no order, no root and no lock.

use crate::catalog;
use crate::engine::{Engine, Silent, Stop};
use crate::session::Session;
use crate::state::Verdict;
use crate::step::{Change, Finding, Stage, Status};

/// What one look at one step found.
pub struct Seen {
    /// The step.
    pub name: &'static str,
    /// What is true when it holds.
    pub purpose: &'static str,
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

/// Looks at every step once.
pub async fn survey(session: &Session) -> Vec<Seen> {
    let (_switch, stop) = Stop::new();
    let engine = Engine { host: &session.host, config: &session.config, facts: &session.facts, observer: &Silent, stop };
    let mut all = Vec::new();
    for step in catalog::steps(session.config.node.role) {
        let (name, purpose, needs) = (step.name(), step.purpose(), step.needs());
        let seen = |verdict, text, changes, finding| Seen { name, purpose, needs, verdict, text, changes, finding };
        if !session.host.files.is_running_system() && step.stage() != Stage::Image {
            all.push(seen(Verdict::Left, "left for the boot: needs the running machine".to_owned(), Vec::new(), None));
            continue;
        }
        all.push(match engine.look(step.as_ref()).await {
            Ok(Status::Ready(evidence)) => seen(Verdict::Ready, evidence, Vec::new(), None),
            Ok(Status::Pending { why, changes }) => seen(Verdict::Pending, why, changes, None),
            Ok(Status::Waiting(finding)) => seen(Verdict::Waiting, finding.to_string(), Vec::new(), Some(finding)),
            Ok(Status::Broken(finding)) => seen(Verdict::Broken, finding.to_string(), Vec::new(), Some(finding)),
            Err(why) => seen(Verdict::Unknown, why, Vec::new(), None),
        });
    }
    all
}
