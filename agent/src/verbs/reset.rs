//! What the agent made can be taken away again, and nothing else goes with it.

mod files;

use super::round::{self, Refused};
use super::up;
use crate::catalog;
use crate::cli::Exit;
use crate::config::Role;
use crate::engine::{Engine, Observer, Silent, Stop};
use crate::identity;
use crate::report::terminal::Terminal;
use crate::session::Session;
use crate::show::{Style, complain, print, print_json};
use crate::state::{StepRecord, Verdict};
use crate::step::{Finding, Step};
use files::{History, Written};

/// The resident service: it would make everything anew.
const SERVICE: &str = "gpuk-agent.service";

/// What is taken away.
pub enum What<'a> {
    /// What these steps made.
    Steps(&'a [String]),
    /// The membership in the cluster, to join another one or the same anew.
    Membership,
    /// All of it.
    Everything,
}

impl What<'_> {
    /// As it was typed.
    fn words(&self) -> String {
        match self {
            Self::Steps(names) => format!("reset {}", names.join(" ")),
            Self::Membership => "reset --rejoin".to_owned(),
            Self::Everything => "reset --all".to_owned(),
        }
    }
}

/// Takes it away. Exit 0: nothing of it is left, and with `Membership` the machine is a node again.
pub async fn reset(session: &Session, what: &What<'_>, dry_run: bool, json: bool) -> Exit {
    let all = catalog::steps(session.config.node.role);
    let own: [Box<dyn Step>; 2] = [Box::new(Written), Box::new(History)];
    let steps = match chosen(session, what, &all, &own) {
        Ok(steps) => steps,
        Err(unknown) => {
            complain(&unknown);
            return Exit::Usage;
        }
    };
    let stop = round::stop_on_signals();
    let was_open = is_open(session).await;
    let done = if dry_run { show(session, &steps, &stop).await } else { take_away(session, what, &steps, json, &stop).await };
    let records = match done {
        Ok(records) => records,
        Err(refused) => {
            if json {
                print_json(&up::as_json(session, &refused));
            } else {
                refused.say();
            }
            return refused.exit;
        }
    };
    let is_done = records.iter().all(|record| record.verdict == Verdict::Ready);
    if dry_run || !is_done {
        if json {
            print_json(&serde_json::json!({ "refused": null, "steps": records }));
        }
        return if is_done { Exit::Fine } else { Exit::Broken };
    }
    match what {
        What::Membership => {
            let exit = up::up(session, json).await;
            if exit == Exit::Fine && was_open {
                uncordon(session).await;
            }
            exit
        }
        _ => {
            if json {
                print_json(&serde_json::json!({ "refused": null, "steps": records }));
            } else if let (What::Everything, Some(node)) = (what, identity::name(session.look())) {
                print(&format!("Node {node} stays in the cluster until somebody takes it away: kubectl delete node {node}\n"));
            }
            Exit::Fine
        }
    }
}

/// The steps in the order in which they are undone: what was made last goes first.
fn chosen<'a>(
    session: &Session,
    what: &What<'_>,
    all: &'a [Box<dyn Step>],
    own: &'a [Box<dyn Step>],
) -> Result<Vec<&'a dyn Step>, String> {
    let named = |name: &str| all.iter().map(Box::as_ref).find(|step| step.name() == name);
    let mut steps: Vec<&dyn Step> = match what {
        What::Steps(names) => {
            let known = || all.iter().map(|step| step.name()).collect::<Vec<_>>().join(", ");
            let find =
                |name: &String| named(name).ok_or_else(|| format!("there is no step {name:?}; right would be: {}", known()));
            names.iter().map(find).collect::<Result<_, _>>()?
        }
        What::Membership => named("join").into_iter().collect(),
        // Other steps made files alone. On an observed node nothing was made.
        What::Everything if session.config.node.role == Role::Observed => Vec::new(),
        What::Everything => ["redirects", "join"].into_iter().filter_map(named).collect(),
    };
    steps.sort_by_key(|step| std::cmp::Reverse(all.iter().position(|other| other.name() == step.name())));
    if matches!(what, What::Everything) {
        steps.extend(own.iter().map(Box::as_ref));
    }
    Ok(steps)
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

async fn take_away(
    session: &Session,
    what: &What<'_>,
    steps: &[&dyn Step],
    json: bool,
    stop: &Stop,
) -> Result<Vec<StepRecord>, Refused> {
    round::has_root(session, &what.words())?;
    if !matches!(what, What::Steps(_)) {
        round::may_change(session)?;
    }
    if matches!(what, What::Membership) {
        may_rejoin(session)?;
    }
    let service = session.look().unit(SERVICE).await.ok().flatten();
    // Of a membership that is the very point.
    let is_kept_up = service.is_some_and(|service| service.is_running()) && !matches!(what, What::Membership);
    if session.host.files.is_running_system() && is_kept_up {
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
        let record = engine.undo(*step).await;
        let is_done = record.verdict == Verdict::Ready;
        records.push(record);
        // A machine that is still a node needs its files.
        if !is_done {
            break;
        }
    }
    Ok(records)
}

/// Nothing is left that cannot be joined again, as far as the configuration tells.
fn may_rejoin(session: &Session) -> Result<(), Refused> {
    let missing: Vec<&str> = session.config.missing_for_join().into_iter().map(|missing| missing.key).collect();
    let why = if !session.config.wants_join() {
        "the configuration does not ask this machine to join a cluster".to_owned()
    } else if !missing.is_empty() {
        format!("not given: {}", missing.join(", "))
    } else {
        return Ok(());
    };
    let finding = Finding::new(
        "rejoin-not-configured",
        "This machine would leave its cluster and could not join one",
        why,
        "gpuk-agent config show --origin   (then write what is missing into /etc/gpuk/agent.toml)",
    );
    Err(Refused { finding, exit: Exit::Broken })
}

/// Whether new pods may come to the node, as far as that can be known.
async fn is_open(session: &Session) -> bool {
    let Some(node) = identity::name(session.look()) else { return false };
    session.look().node(&node).await.is_ok_and(|node| node.is_some_and(|node| !node.unschedulable))
}

/// The same cluster still has the Node that was drained.
async fn uncordon(session: &Session) {
    let Some(node) = identity::name(session.look()) else { return };
    if let Err(why) = session.host.cluster.cordon(&node, false).await {
        complain(&format!("Node {node} could not be uncordoned: {why}; where it is: kubectl uncordon {node}"));
    }
}

fn engine<'a>(session: &'a Session, observer: &'a dyn Observer, stop: &Stop) -> Engine<'a> {
    let Session { host, config, facts, .. } = session;
    Engine { host, config, facts, observer, stop: stop.clone() }
}
