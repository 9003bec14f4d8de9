//! `up` makes it so and returns.

use super::round::{self, Refused};
use crate::cli::Exit;
use crate::engine::{Silent, Stop};
use crate::identity;
use crate::report::terminal::Terminal;
use crate::session::Session;
use crate::show::{Style, print, print_json};
use crate::state::{StepRecord, Verdict};

/// One round over the catalog. Exit 0: every step holds.
pub async fn up(session: &Session, json: bool) -> Exit {
    if let Err(refused) = round::may_change(session) {
        return refuse(session, &refused, json);
    }
    let stop = round::stop_on_signals();
    let _lock = match round::wait_for_lock(session, &stop, session.config.cluster.patience.0).await {
        Ok(lock) => lock,
        Err(refused) => return refuse(session, &refused, json),
    };
    let style = if json { Style::default() } else { Style::of_stdout() };
    let terminal = Terminal::new(style);
    let silent = Silent;
    let observer: &dyn crate::engine::Observer = if json { &silent } else { &terminal };
    let records = round::round(session, "up", observer, session.config.cluster.patience.0, &stop).await;
    drop(terminal);
    let node = identity::name(session.look()).unwrap_or_else(|| "this machine".to_owned());
    let exit = outcome(&records, &stop);
    if json {
        print_json(&serde_json::json!({ "node": node, "refused": null, "steps": records }));
    } else {
        let subject = if session.host.files.is_running_system() { node.as_str() } else { "the image" };
        print(&closing(exit, subject, &records));
    }
    exit
}

/// Says why nothing is begun.
fn refuse(session: &Session, refused: &Refused, json: bool) -> Exit {
    if json {
        print_json(&as_json(session, refused));
    } else {
        refused.say();
    }
    refused.exit
}

/// As of a round, and as `plan` says it.
pub(super) fn as_json(session: &Session, refused: &Refused) -> serde_json::Value {
    serde_json::json!({ "node": identity::name(session.look()), "refused": refused.finding, "steps": [] })
}

fn closing(exit: Exit, node: &str, records: &[StepRecord]) -> String {
    let changes: usize = records.iter().map(|record| record.changes.len()).sum();
    let changes = match changes {
        0 => "nothing had to be changed".to_owned(),
        1 => "1 change was made".to_owned(),
        _ => format!("{changes} changes were made"),
    };
    match exit {
        Exit::Fine => format!("{node}: every step holds; {changes}.\n"),
        _ => format!("{node}: not done yet; {changes}. What is wrong now: gpuk-agent doctor\n"),
    }
}

fn outcome(records: &[StepRecord], stop: &Stop) -> Exit {
    let any = |verdict| records.iter().any(|record| record.verdict == verdict);
    if any(Verdict::Broken) {
        Exit::Broken
    } else if stop.requested() || records.iter().any(|record| !record.verdict.is_settled()) {
        Exit::Waiting
    } else {
        Exit::Fine
    }
}
