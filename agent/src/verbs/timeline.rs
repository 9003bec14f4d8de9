//! A slow boot is understood by reading when each step began and what it did.

use std::time::Duration;

use crate::cli::{Common, Exit};
use crate::show::{Style, complain, duration, print, print_json};
use crate::state::Round;

/// Prints every remembered round, oldest first.
pub fn timeline(common: &Common) -> Exit {
    let state = match super::status::read_state(common) {
        Ok(state) => state,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Exit::Broken;
        }
    };
    if common.json {
        print_json(&serde_json::json!({ "node": state.node, "instanceId": state.instance_id, "rounds": state.rounds }));
        return Exit::Fine;
    }
    let style = Style::of_stdout();
    let mut boot = "";
    for round in &state.rounds {
        if round.boot_id != boot {
            boot = &round.boot_id;
            let wake = round.wake.as_ref().map(|wake| format!(": {wake}")).unwrap_or_default();
            print(&format!("{}{wake}\n", style.strong(&format!("boot {boot}"))));
        }
        print(&human(round, style));
    }
    if state.rounds.is_empty() {
        print("Nothing has happened here yet.\n");
    }
    Exit::Fine
}

fn human(round: &Round, style: Style) -> String {
    let at = |offset: u64| duration(Duration::from_millis(offset));
    let took: u64 = round.steps.iter().map(|step| step.took).sum();
    let mut text = format!(
        "  {} {} after the kernel started, by {} {}, took {}\n",
        crate::show::utc(round.time()),
        at(round.since_boot),
        round.verb,
        round.version,
        at(took),
    );
    for step in &round.steps {
        text.push_str(&format!(
            "    {} {:>9}  {:<11} {:>9}  {}\n",
            style.sign(step.verdict),
            format!("+{}", at(step.started)),
            step.name,
            at(step.took),
            step.text.lines().next().unwrap_or_default()
        ));
        let because = step.because.iter().map(|why| format!("because {why}:"));
        for change in because.chain(step.changes.iter().cloned()) {
            text.push_str(&format!("                                       {}\n", style.faint(&change)));
        }
    }
    text
}
