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

/// Prints the plan. Exit 0: nothing to do; 2: something to do; what `up` would end with where it would refuse. Without anything to do,
/// 1: a person is needed; 75: something is not ready yet; 3: something could not be seen.
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
    let steps = seen.into_iter().map(|step| planned(session, step)).collect();
    let refused = session.unknown.as_ref().map(Unknown::finding);
    let plan = Plan { node: crate::identity::name(session.look()), refused, steps };
    let exit = session.unknown.as_ref().map_or_else(|| plan.exit(), Unknown::exit);
    (plan, exit)
}

impl Plan {
    /// How many changes there are to make now.
    fn changes(&self) -> usize {
        self.steps.iter().flat_map(|step| &step.changes).filter(|change| !change.left_for_boot).count()
    }

    /// How many steps stand so.
    fn count(&self, verdict: Verdict) -> usize {
        self.steps.iter().filter(|step| step.verdict == verdict).count()
    }

    fn exit(&self) -> Exit {
        let any = |verdict| self.count(verdict) > 0;
        if self.changes() > 0 {
            Exit::Pending
        } else if any(Verdict::Broken) {
            Exit::Broken
        } else if any(Verdict::Waiting) {
            Exit::Waiting
        } else if any(Verdict::Unknown) {
            Exit::Unseen
        } else {
            Exit::Fine
        }
    }

    /// The last line. "Nothing to do" is only said where all is as it should be.
    fn closing(&self) -> String {
        let steps = |count: usize, one: &str, several: &str| match count {
            0 => None,
            1 => Some(format!("1 step {one}")),
            _ => Some(format!("{count} steps {several}")),
        };
        let unsettled = [
            steps(self.count(Verdict::Broken), "is broken", "are broken"),
            steps(
                self.count(Verdict::Waiting) + self.count(Verdict::Unknown),
                "waits or could not be seen",
                "wait or could not be seen",
            ),
        ];
        let unsettled: Vec<String> = unsettled.into_iter().flatten().collect();
        match (self.changes(), unsettled.join(", ")) {
            _ if self.refused.is_some() => "Until then nothing is changed, and this plan may be another one.".to_owned(),
            (0, unsettled) if unsettled.is_empty() => "Nothing to do.".to_owned(),
            (0, unsettled) => format!("Nothing to change; {unsettled}: gpuk-agent doctor"),
            (1, _) => "1 change. Make it with: gpuk-agent up".to_owned(),
            (changes, _) => format!("{changes} changes. Make them with: gpuk-agent up"),
        }
    }
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
    line(&plan.closing());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_do_is_said_only_where_every_step_holds() {
        use Verdict::{Broken, Left, Pending, Ready, Unknown, Waiting};
        let left = || PlannedChange { text: String::new(), diff: None, left_for_boot: true };
        let now = || PlannedChange { left_for_boot: false, ..left() };
        let plan = |verdicts: &[Verdict], changes: Vec<PlannedChange>| {
            let step = |verdict: &Verdict| PlannedStep {
                name: "",
                verdict: *verdict,
                text: String::new(),
                changes: Vec::new(),
                finding: None,
            };
            let mut steps: Vec<PlannedStep> = verdicts.iter().map(step).collect();
            steps[0].changes = changes;
            let plan = Plan { node: None, refused: None, steps };
            (plan.exit(), plan.closing())
        };
        let says = |words: &str| words.to_owned();
        assert_eq!(plan(&[Ready, Left], vec![]), (Exit::Fine, says("Nothing to do.")));
        assert_eq!(plan(&[Pending, Ready], vec![left()]), (Exit::Fine, says("Nothing to do.")));
        assert_eq!(plan(&[Pending, Broken], vec![now()]), (Exit::Pending, says("1 change. Make it with: gpuk-agent up")));
        let wait = "Nothing to change; 2 steps wait or could not be seen: gpuk-agent doctor";
        assert_eq!(plan(&[Waiting, Unknown], vec![]), (Exit::Waiting, says(wait)));
        let unseen = "Nothing to change; 1 step waits or could not be seen: gpuk-agent doctor";
        assert_eq!(plan(&[Ready, Unknown], vec![]), (Exit::Unseen, says(unseen)));
        let broken = "Nothing to change; 1 step is broken, 1 step waits or could not be seen: gpuk-agent doctor";
        assert_eq!(plan(&[Broken, Waiting], vec![]), (Exit::Broken, says(broken)));
    }
}
