//! `plan` prints what `up` would change, with diffs, and touches nothing.

use std::path::Path;

use serde::Serialize;

use super::survey::{Seen, survey};
use crate::cli::Exit;
use crate::host::Host;
use crate::session::Session;
use crate::show::{Style, print, print_json};
use crate::state::Verdict;
use crate::step::{Change, Finding};
use crate::unknown::Unknown;

/// The plan as JSON: `{"node": ..., "refused": null, "steps": [...]}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    node: Option<String>,
    /// Why `up` would change nothing now, whatever the steps say.
    refused: Option<Finding>,
    steps: Vec<PlannedStep>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedStep {
    name: &'static str,
    verdict: Verdict,
    text: String,
    changes: Vec<PlannedChange>,
    finding: Option<Finding>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedChange {
    /// The change in a few words.
    text: String,
    /// For a file: the differences, as `diff -u` shows them. Never for a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// It needs the running machine and is left for the boot.
    left_for_boot: bool,
}

/// Prints the plan. Exit 0: nothing to do; 2: something to do; what `up` would end with where it would refuse.
pub async fn plan(session: &Session, json: bool) -> Exit {
    let (plan, exit) = make(session).await;
    if json {
        print_json(&plan);
    } else {
        print(&human(&plan, Style::of_stdout()));
    }
    exit
}

pub(super) async fn make(session: &Session) -> (Plan, Exit) {
    let seen = survey(session).await;
    let pending = seen.iter().any(|step| step.changes.iter().any(|change| !left_for_boot(session, change)));
    let broken = seen.iter().any(|step| step.verdict == Verdict::Broken);
    let steps = seen.into_iter().map(|step| planned(session, step)).collect();
    let refused = session.unknown.as_ref().map(Unknown::finding);
    let exit = match (&session.unknown, pending, broken) {
        (Some(unknown), ..) => unknown.exit(),
        (None, true, _) => Exit::Pending,
        (None, false, true) => Exit::Broken,
        (None, false, false) => Exit::Fine,
    };
    (Plan { node: crate::identity::name(session.look()), refused, steps }, exit)
}

fn left_for_boot(session: &Session, change: &Change) -> bool {
    !session.host.files.is_running_system() && change.needs_running_system()
}

fn planned(session: &Session, step: Seen) -> PlannedStep {
    let change = |change: &Change| PlannedChange {
        text: change.to_string(),
        diff: difference(&session.host, change),
        left_for_boot: left_for_boot(session, change),
    };
    PlannedStep {
        name: step.name,
        verdict: step.verdict,
        text: step.text,
        changes: step.changes.iter().map(change).collect(),
        finding: step.finding,
    }
}

fn difference(host: &Host, change: &Change) -> Option<String> {
    let (path, new) = match change {
        Change::Write { contents, .. } if contents.secret => return None,
        Change::Remove { secret: true, .. } => return None,
        Change::Write { path, contents, .. } => (path, String::from_utf8_lossy(&contents.bytes).into_owned()),
        Change::Remove { path, .. } => (path, String::new()),
        _ => return None,
    };
    let old = host.files.read(Path::new(path)).ok().flatten().unwrap_or_default();
    let old = String::from_utf8_lossy(&old).into_owned();
    let difference = similar::TextDiff::from_lines(&old, &new);
    let header = path.display().to_string();
    Some(difference.unified_diff().context_radius(2).header(&header, &header).to_string())
}

pub(super) fn human(plan: &Plan, style: Style) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    if let Some(finding) = &plan.refused {
        line(style.finding(finding).trim_end());
    }
    for step in &plan.steps {
        line(&format!("{} {}  {}", style.sign(step.verdict), style.strong(&format!("{:<11}", step.name)), step.text));
        for change in &step.changes {
            let left = if change.left_for_boot { "  (left for the boot)" } else { "" };
            line(&format!("    {}{left}", change.text));
            for difference in change.diff.iter().flat_map(|diff| diff.lines()).skip(2) {
                line(&format!("      {}", style.faint(difference)));
            }
        }
        if let Some(finding) = &step.finding {
            line(style.finding(finding).trim_end());
        }
    }
    let changes = plan.steps.iter().flat_map(|step| &step.changes).filter(|change| !change.left_for_boot).count();
    line(&match changes {
        _ if plan.refused.is_some() => "Until then nothing is changed, and this plan may be another one.".to_owned(),
        0 => "Nothing to do.".to_owned(),
        1 => "1 change. Make it with: gpuk-agent up".to_owned(),
        _ => format!("{changes} changes. Make them with: gpuk-agent up"),
    });
    text
}
