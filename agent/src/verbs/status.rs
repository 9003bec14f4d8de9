//! `status` tells how the last round ended, from the state file alone.

use serde::Serialize;

use crate::cli::{Common, Exit};
use crate::host::files::Files;
use crate::show::{self, Style, complain, print, print_json};
use crate::state::{Round, State, StepRecord, Verdict};

/// The status as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    /// `ready`, `working`, `waiting`, `broken` or `none`.
    phase: &'static str,
    node: &'a str,
    /// When the round began, in milliseconds after 1970.
    since: Option<u64>,
    steps: &'a [StepRecord],
}

/// Reads the state below the root.
pub fn read_state(common: &Common) -> anyhow::Result<State> {
    State::read(&Files::below(&common.root)?)
}

/// Prints how the last round ended.
pub fn status(common: &Common) -> Exit {
    let state = match read_state(common) {
        Ok(state) => state,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Exit::Broken;
        }
    };
    let last = state.last();
    let phase = last.map_or("none", phase);
    let steps = last.map_or(&[][..], |round| round.steps.as_slice());
    if common.json {
        print_json(&Status { phase, node: &state.node, since: last.map(|round| round.started), steps });
    } else {
        let style = Style::of_stdout();
        let mut text = match phase {
            "none" => "gpuk-agent has not run here yet. Begin with: gpuk-agent plan\n".to_owned(),
            _ if state.node.is_empty() => format!("this machine: {phase}\n"),
            _ => format!("{}: {phase}\n", state.node),
        };
        for step in steps {
            text.push_str(&show::step_line(style, step));
        }
        for finding in steps.iter().filter_map(|step| step.finding.as_ref()) {
            text.push_str(&style.finding(finding));
        }
        print(&text);
    }
    match phase {
        "ready" => Exit::Fine,
        "broken" => Exit::Broken,
        _ => Exit::Waiting,
    }
}

/// The round's verdict in one word.
pub fn phase(round: &Round) -> &'static str {
    let any = |verdict| round.steps.iter().any(|step| step.verdict == verdict);
    if any(Verdict::Broken) {
        "broken"
    } else if any(Verdict::Waiting) {
        "waiting"
    } else if !round.finished || any(Verdict::Pending) {
        "working"
    } else if any(Verdict::Unknown) {
        "waiting"
    } else {
        "ready"
    }
}
