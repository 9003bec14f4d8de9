//! A person at 3 a.m. wants one thing: the first broken link, why, and what to type.

mod proof;

use serde::Serialize;

use super::survey::{Seen, survey};
use crate::cli::Exit;
use crate::identity;
use crate::session::{Session, Trouble};
use crate::show::{Style, print, print_json, utc};
use crate::state::{State, Verdict};
use crate::step::Finding;
use crate::step::{Lane, Status};
use crate::unknown::Unknown;

/// The doctor's answer as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// `healthy`, `broken` or `unseen`.
    verdict: &'static str,
    node: Option<String>,
    pub(super) checks: Vec<Check>,
    /// What could not be looked at, besides checks.
    unseen: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    pub(super) name: &'static str,
    purpose: &'static str,
    pub(super) verdict: Verdict,
    text: String,
    finding: Option<Finding>,
    /// That it was put right again in this boot, when and why: somebody else undoes it.
    repaired: Option<String>,
    /// The broken check that this one follows from; it is mended with that one.
    pub(super) follows_from: Option<&'static str>,
}

/// How far the doctor goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// GPUs alone, proven by a container.
    pub gpu: bool,
    /// And by computing on each.
    pub deep: bool,
}

/// Looks at everything and prints what is wrong, first cause first. It changes nothing; only a container that proves GPUs comes and goes.
pub async fn doctor(session: &Session, scope: Scope, json: bool) -> Exit {
    finish(examine(session, scope).await, json)
}

pub(super) async fn examine(session: &Session, scope: Scope) -> Report {
    let state = State::load(&session.host, &identity::instance_id(session.look()), session.config.node.role);
    let mut seen = survey(session).await;
    if scope.gpu {
        proof::in_container(session.look(), &mut seen).await;
    }
    let is_of_gpus: Vec<&str> = seen.iter().filter(|step| step.lane == Lane::Gpu).map(|step| step.name).collect();
    let mut checks = checks(seen, &state, &session.facts.boot_id, session.unknown.as_ref());
    if scope.gpu {
        // A cause outside of them stays.
        let of_them = checks.iter().filter(|check| is_of_gpus.contains(&check.name));
        let causes: Vec<&str> = of_them.filter_map(|check| check.follows_from).collect();
        checks.retain(|check| is_of_gpus.contains(&check.name) || causes.contains(&check.name));
    }
    if scope.deep {
        checks.push(computing(session).await);
    }
    Report { verdict: "", node: crate::identity::name(session.look()), checks, unseen: session.facts.unseen.clone() }
}

/// Computing on every GPU, as a check.
async fn computing(session: &Session) -> Check {
    let looked = if session.look().wants_gpus() {
        proof::by_computing(session.look()).await
    } else {
        Ok(Status::Ready("no GPU".to_owned()))
    };
    let (verdict, text, finding) = match looked {
        Ok(Status::Broken(finding)) => (Verdict::Broken, finding.to_string(), Some(finding)),
        Ok(Status::Ready(evidence)) => (Verdict::Ready, evidence, None),
        Ok(other) => (Verdict::Unknown, format!("{other:?}"), None),
        Err(why) => (Verdict::Unknown, why, None),
    };
    Check { name: "computing", purpose: "every GPU computes", verdict, text, finding, repaired: None, follows_from: None }
}

/// The doctor without a usable configuration: that is then the finding.
pub fn cannot_start(trouble: &Trouble, json: bool) -> Exit {
    let check = Check {
        name: "configuration",
        purpose: "the configuration can be read",
        verdict: Verdict::Broken,
        text: "nothing else was looked at".to_owned(),
        finding: Some(trouble.finding()),
        repaired: None,
        follows_from: None,
    };
    finish(Report { verdict: "", node: None, checks: vec![check], unseen: Vec::new() }, json);
    trouble.exit()
}

/// Steps whose answers are made of what the platform and the configuration say.
const MADE_OF_METADATA: [&str; 2] = ["identity", "join"];

fn of_unknown(unknown: &Unknown) -> Check {
    let finding = unknown.finding();
    Check {
        name: unknown.name(),
        purpose: "it is known what this node is to be",
        verdict: unknown.verdict(),
        text: finding.to_string(),
        finding: Some(finding),
        repaired: None,
        follows_from: None,
    }
}

/// Every check with its finding; what follows from an earlier broken one says so. Nothing is done while what the node is to be is unknown,
/// so all that is not done yet follows from that.
fn checks(seen: Vec<Seen>, state: &State, boot_id: &str, unknown: Option<&Unknown>) -> Vec<Check> {
    let mut checks: Vec<Check> = unknown.map(of_unknown).into_iter().collect();
    for step in seen {
        let cause = |checks: &[Check]| {
            let broken = |need: &&&str| checks.iter().find(|check| check.name == **need && !check.verdict.is_settled());
            let need = step.needs.iter().find_map(|need| broken(&need));
            let waits = step.verdict == Verdict::Pending || MADE_OF_METADATA.contains(&step.name);
            let unknown = unknown.filter(|_| waits).map(Unknown::name);
            unknown.or_else(|| need.map(|need| need.follows_from.unwrap_or(need.name)))
        };
        let follows_from = (!step.verdict.is_settled()).then(|| cause(&checks)).flatten();
        // A look can see that a join is missing, not why the last try failed: that is history.
        let history = || state.last_of(step.name, boot_id).and_then(|record| record.finding.clone());
        let finding = match step.verdict {
            Verdict::Pending => history().or_else(|| Some(not_done(&step))),
            _ => step.finding,
        };
        checks.push(Check {
            name: step.name,
            purpose: step.purpose,
            verdict: step.verdict,
            text: step.text,
            finding,
            repaired: state
                .drift_of(step.name, boot_id)
                .filter(|_| step.may_drift)
                .map(|(round, why)| format!("{}: {why}", utc(round.time()))),
            follows_from,
        });
    }
    checks
}

fn not_done(step: &Seen) -> Finding {
    let changes: Vec<String> = step.changes.iter().map(ToString::to_string).collect();
    Finding::new(
        "not-done-yet",
        format!("Not true yet: {}", step.purpose),
        format!("{}; it takes: {}", step.text, changes.join(", ")),
        "gpuk-agent up   (gpuk-agent plan shows every change first)",
    )
}

fn finish(mut report: Report, json: bool) -> Exit {
    let wrong = report.checks.iter().any(|check| matches!(check.verdict, Verdict::Broken | Verdict::Pending | Verdict::Waiting));
    let unseen = report.checks.iter().any(|check| check.verdict == Verdict::Unknown) || !report.unseen.is_empty();
    let exit = match (wrong, unseen) {
        (true, _) => Exit::Broken,
        (false, true) => Exit::Unseen,
        (false, false) => Exit::Fine,
    };
    report.verdict = match exit {
        Exit::Fine => "healthy",
        Exit::Unseen => "unseen",
        _ => "broken",
    };
    if json {
        print_json(&report);
    } else {
        print(&human(&report, Style::of_stdout()));
    }
    exit
}

fn human(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let mut add = |words: String| text.push_str(&words);
    for check in &report.checks {
        let words = match (check.follows_from, &check.finding, check.verdict) {
            (Some(cause), ..) => style.faint(&format!("follows from {cause}")),
            (None, Some(finding), _) => finding.what.clone(),
            (None, None, Verdict::Unknown) => format!("could not look: {}", check.text),
            (None, None, _) => check.text.clone(),
        };
        add(format!("{} {}  {words}\n", style.sign(check.verdict), style.strong(&format!("{:<11}", check.name))));
        if let Some(repaired) = &check.repaired {
            add(format!("               {}\n", style.faint(&format!("put right again {repaired}"))));
        }
    }
    for unseen in &report.unseen {
        add(format!("{} could not see {unseen}\n", style.sign(Verdict::Unknown)));
    }
    for check in report.checks.iter().filter(|check| check.follows_from.is_none()) {
        if let Some(finding) = &check.finding {
            add(format!("\n{}", style.finding(finding)));
        }
    }
    let node = report.node.as_deref().unwrap_or("this machine");
    add(match report.verdict {
        "healthy" => format!("\n{node} is healthy: every check holds.\n"),
        "unseen" => format!("\nNothing wrong was found on {node}, but not everything could be looked at (as root it can).\n"),
        _ => format!("\n{node} is not healthy.\n"),
    });
    text
}
