//! What the agent made can be taken away again, and nothing else goes with it.

use super::round::{self, Refused};
use crate::catalog;
use crate::cli::Exit;
use crate::engine::{Engine, Observer, Silent, Stop};
use crate::report::terminal::Terminal;
use crate::session::Session;
use crate::show::{Style, complain, print, print_json};
use crate::state::{StepRecord, Verdict};
use crate::step::{Finding, Step};

/// The resident service: it would make everything anew.
const SERVICE: &str = "gpuk-agent.service";

/// Takes away what the named steps made. Exit 0: nothing of it is left.
pub async fn reset(session: &Session, names: &[String], dry_run: bool, json: bool) -> Exit {
    let all = catalog::steps(session.config.node.role);
    let mut steps = Vec::new();
    for name in names {
        let Some(step) = all.iter().find(|step| step.name() == name) else {
            let known: Vec<&str> = all.iter().map(|step| step.name()).collect();
            complain(&format!("there is no step {name:?}; right would be: {}", known.join(", ")));
            return Exit::Usage;
        };
        steps.push(step.as_ref());
    }
    // What was made last goes first.
    steps.sort_by_key(|step| std::cmp::Reverse(all.iter().position(|other| other.name() == step.name())));
    let stop = round::stop_on_signals();
    let done = if dry_run { show(session, &steps, &stop).await } else { take_away(session, &steps, json, &stop).await };
    match done {
        Err(refused) => {
            if json {
                print_json(&super::up::as_json(session, &refused));
            } else {
                refused.say();
            }
            refused.exit
        }
        Ok(records) => {
            if json {
                print_json(&serde_json::json!({ "refused": null, "steps": records }));
            }
            let is_done = records.iter().all(|record| record.verdict == Verdict::Ready);
            if is_done { Exit::Fine } else { Exit::Broken }
        }
    }
}

/// What would be done. Nothing is.
async fn show(session: &Session, steps: &[&dyn Step], stop: &Stop) -> Result<Vec<StepRecord>, Refused> {
    let engine = engine(session, &Silent, stop);
    for step in steps {
        match engine.look_at_undoing(*step).await {
            Ok(changes) if changes.is_empty() => print(&format!("{}: nothing of it is there\n", step.name())),
            Ok(changes) => changes.iter().for_each(|change| print(&format!("{}: {change}\n", step.name()))),
            Err(why) => {
                let finding =
                    Finding::new("cannot-be-undone", "This cannot be undone", why, "gpuk-agent plan shows what a step makes");
                return Err(Refused { finding, exit: Exit::Broken });
            }
        }
    }
    Ok(Vec::new())
}

async fn take_away(session: &Session, steps: &[&dyn Step], json: bool, stop: &Stop) -> Result<Vec<StepRecord>, Refused> {
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    round::has_root(session, &format!("reset {}", names.join(" ")))?;
    let service = session.look().unit(SERVICE).await.ok().flatten();
    if session.host.files.is_running_system() && service.is_some_and(|service| service.is_running()) {
        let remedy = format!("systemctl disable --now {SERVICE}, then the same command again");
        let why = format!("{SERVICE} is active and would make everything anew");
        let finding = Finding::new("service-active", "The resident agent keeps what is to be taken away", why, remedy);
        return Err(Refused { finding, exit: Exit::Broken });
    }
    let _lock = round::wait_for_lock(session, stop, session.config.cluster.patience.0).await?;
    let terminal = Terminal::new(Style::of_stdout());
    let observer: &dyn Observer = if json { &Silent } else { &terminal };
    let engine = engine(session, observer, stop);
    let mut records = Vec::new();
    for step in steps {
        records.push(engine.undo(*step).await);
    }
    Ok(records)
}

fn engine<'a>(session: &'a Session, observer: &'a dyn Observer, stop: &Stop) -> Engine<'a> {
    let Session { host, config, facts, .. } = session;
    Engine { host, config, facts, observer, stop: stop.clone() }
}
