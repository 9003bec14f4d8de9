//! `run` is `up` that stays: the systemd service. It never gives up, and never spins.

mod faults;
mod pauses;
mod reboots;

use std::time::Duration;

use super::round;
use crate::cli::{Common, Exit};
use crate::config::{self, Role};
use crate::engine::{Event, Observer, Stop};
use crate::host::kernel_log::Follower;
use crate::host::watch::Watch;
use crate::host::{Host, service};
use crate::look::Look;
use crate::report::journal::{self, Journal};
use crate::report::terminal::Terminal;
use crate::session::{self, DROP_INS, Session};
use crate::show::complain;
use crate::state::{StepRecord, Verdict};
use crate::step::{Change, Lane, Stage, Step, Watched};
use crate::steps::{k3s, kubelet};
use crate::{catalog, facts, identity, role, wake};
use faults::Faults;
pub(super) use pauses::Outcome;
use pauses::Pauses;

/// The verb, as history names it.
const VERB: &str = "run";

/// How long the service waits to be stopped by the reboot that it asked for.
const LAST_REST: Duration = Duration::from_secs(600);

/// How long one round may wait for the outside world before everything is looked at again.
const ROUND_PATIENCE: Duration = Duration::from_secs(120);

/// How much longer systemd waits for "ready" while the kubelet is held back: more than the longest pause and a look.
const HELD: Duration = Duration::from_secs(900);

/// Stays until it is told to stop.
pub async fn run(common: &Common, environment: Vec<(String, String)>) -> Exit {
    journal::install();
    let stop = round::stop_on_signals();
    if let Some(period) = service::watchdog_period() {
        tokio::task::spawn_local(async move {
            loop {
                service::pet_watchdog();
                tokio::time::sleep(period).await;
            }
        });
    }
    let (mut pauses, mut faults) = (Pauses::default(), Faults::default());
    while !stop.requested() {
        // Watching begins before looking, so that no change falls between the two.
        let (watch, log) = (watch(common), faults::follow(common));
        match one_round(common, environment.clone(), &stop).await {
            Ok(outcome) => pauses.rest(&outcome, changed(watch, log, &mut faults), &stop).await,
            Err(exit) => return exit,
        }
    }
    service::stopping();
    if let Ok(host) = Host::real(&common.root) {
        wake::ends(&host);
    }
    Exit::Fine
}

/// One round under the lock. The machine and its configuration are read anew: both may have changed.
pub(super) async fn one_round(common: &Common, environment: Vec<(String, String)>, stop: &Stop) -> Result<Outcome, Exit> {
    let troubled = |what: &str| {
        service::status(what);
        Ok(Outcome::Troubled)
    };
    let broken = |error: anyhow::Error| {
        complain(&format!("{error:#}"));
        Exit::Broken
    };
    let host = Host::real(&common.root).map_err(broken)?;
    let Some(_lock) = round::lock(&host).map_err(broken)? else { return Ok(Outcome::Taken) };
    let session = match Session::open(common, environment, &waiting).await {
        Ok(session) => session,
        Err(trouble) => {
            super::say(&trouble, false);
            without_configuration(&host, &trouble).await;
            return troubled(&format!("{}: gpuk-agent doctor", trouble.finding().what));
        }
    };
    if let Err(refused) = round::may_change(&session) {
        refused.say();
        let permitted = refused.exit != Exit::NoPermission;
        let Some(unknown) = session.unknown.as_ref().filter(|_| permitted) else { return Err(refused.exit) };
        round::remember(&session.host, session.look(), VERB, round::record(&session, unknown));
        // A node that joined long ago need not wait for this with its kubelet.
        release(session.look());
        if !unknown.may_pass() {
            return troubled(&format!("{}: gpuk-agent doctor", refused.finding.what));
        }
        service::status("waiting for the metadata service");
        return Ok(Outcome::Silence);
    }
    let observer = Both(Terminal::for_service(), Journal::default(), session.look());
    let records = round::round(&session, VERB, &observer, ROUND_PATIENCE, stop).await;
    release(session.look());
    wake::remember(&session.host, session.look());
    let steps = catalog::steps(session.config.node.role);
    if stop.requested() {
        return Ok(outcome(&records, &steps));
    }
    let status = match reboots::after(&session.host, session.look(), &records, &steps).await {
        Ok(reboots::Decision::Nothing) => summary(&records),
        Ok(reboots::Decision::Rebooting) => {
            service::status("rebooting, since nothing else makes the GPUs work");
            // Another round would only be cut off.
            stop.sleep(LAST_REST).await;
            return Ok(Outcome::Troubled);
        }
        Ok(reboots::Decision::Not(why)) => format!("{}; only a reboot cures it, and none is made: {why}", summary(&records)),
        Err(error) => format!("{}; a reboot failed: {error:#}", summary(&records)),
    };
    service::status(&status);
    Ok(outcome(&records, &steps))
}

/// How a round ended. What only GPUs wait for is looked at ever more slowly: the node is one already.
fn outcome(records: &[StepRecord], steps: &[Box<dyn Step>]) -> Outcome {
    let is_of_gpus = |record: &&StepRecord| steps.iter().any(|step| step.name() == record.name && step.lane() == Lane::Gpu);
    let of_node: Vec<&StepRecord> = records.iter().filter(|record| !is_of_gpus(record)).collect();
    let is_troubled = |record: &&StepRecord| matches!(record.verdict, Verdict::Broken | Verdict::Pending);
    let all_settled = |records: &[&StepRecord]| records.iter().all(|record| record.verdict.is_settled());
    if !all_settled(&of_node) && !of_node.iter().any(is_troubled) {
        Outcome::Waits
    } else if all_settled(&of_node) && records.iter().all(|record| record.verdict.is_settled()) {
        Outcome::Settled
    } else {
        Outcome::Troubled
    }
}

/// Lets systemd start the kubelet, whether or not a round could be made, unless it would start as another node.
fn release(look: Look<'_>) {
    if identity::kubelet_may_start(look) {
        service::ready();
    } else {
        service::not_ready_yet(HELD);
        complain("the kubelet is held back: this disk may be a copy with another node's credentials on it (gpuk-agent doctor)");
    }
}

/// The same where nobody knows what is wanted: what the machine shows by itself has to do. Why is kept for `status`.
async fn without_configuration(host: &Host, trouble: &session::Trouble) {
    let Ok(nothing) = config::load(Vec::new()) else { return };
    let facts = facts::gather(host, &nothing.config, &waiting).await.facts;
    let shown = config::load(role::layer(&facts).into_iter().collect()).unwrap_or(nothing);
    let look = Look::new(host, &shown.config, &facts);
    release(look);
    round::remember(host, look, VERB, StepRecord::of("configuration", Verdict::Broken, trouble.finding()));
}

/// Whoever looks at the console of a machine that does not come up must see what it waits for.
fn waiting(text: &str) {
    complain(text);
    if service::is_unit() {
        service::console(&format!("gpuk-agent: {text}\n"));
    }
}

/// A watch over everything that a step cares about, and the configuration. Without one the slow look finds drift alone.
fn watch(common: &Common) -> Option<Watch> {
    let steps = catalog::steps(Role::Worker);
    let configuration = ["/etc/gpuk", DROP_INS].map(Watched::Directory);
    let things = steps.iter().flat_map(|step| step.watches().iter().copied()).chain(configuration);
    match Watch::over(&common.root, things) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("{error:#}; drift is found by the slow look alone");
            None
        }
    }
}

/// What ended the rest: a watched file that changed, or a GPU that failed.
async fn changed(watch: Option<Watch>, log: Option<Follower>, faults: &mut Faults) -> String {
    let file = async {
        match watch {
            Some(mut watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        file = file => format!("{file} was changed"),
        fault = faults.next(log) => fault,
    }
}

/// The line for `systemctl status`.
fn summary(records: &[StepRecord]) -> String {
    match records.iter().find(|record| !record.verdict.is_settled()) {
        None => format!("ready: all {} steps hold", records.len()),
        Some(record) => format!("{}: {}: {}", record.verdict.word(), record.name, record.text.lines().next().unwrap_or_default()),
    }
}

/// The console and the journal, and systemd as soon as the machine itself is prepared.
struct Both<'a>(Terminal, Journal, Look<'a>);

impl Observer for Both<'_> {
    fn event(&self, event: &Event<'_>) {
        if releases(event, self.2) {
            service::ready();
        }
        if let Event::Started(step) = event {
            service::status(&format!("working on {}", step.name()));
        }
        self.0.event(event);
        self.1.event(event);
    }
}

/// The kubelet is ordered after this service: systemd would not start it, for kubeadm or for us, before "ready". It is not told so
/// where the step `identity` could not be brought to hold.
fn releases(event: &Event<'_>, look: Look<'_>) -> bool {
    let kubelet_is_next = match event {
        Event::Started(step) => step.stage() == Stage::Cluster,
        Event::Changing(_, Change::Unit(_, unit)) => [kubelet::UNIT, k3s::AGENT_UNIT, k3s::SERVER_UNIT].contains(&unit.as_str()),
        _ => false,
    };
    kubelet_is_next && identity::kubelet_may_start(look)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::identity::decision::DECISION_FILE;
    use crate::step::UnitVerb;
    use crate::steps::join::Join;

    #[test]
    fn nothing_releases_a_kubelet_that_may_be_another_nodes() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let (config, facts) = (config::load(Vec::new()).unwrap().config, Facts::default());
        let look = Look::new(&host, &config, &facts);
        let kubelet = Change::Unit(UnitVerb::Reload, kubelet::UNIT.to_owned());
        let other = Change::Unit(UnitVerb::Restart, "containerd.service".to_owned());
        let released = || [Event::Started(&Join), Event::Changing(&Join, &kubelet)].map(|event| releases(&event, look));
        assert_eq!((released(), releases(&Event::Changing(&Join, &other), look)), ([true, true], false));
        let kept = root.path().join(DECISION_FILE.trim_start_matches('/'));
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::write(kept, "{").unwrap();
        assert_eq!(released(), [false, false]);
    }

    #[test]
    fn what_only_gpus_wait_for_is_looked_at_ever_more_slowly() {
        let steps = catalog::steps(Role::Worker);
        let ended = |waiting: &str| {
            let finding = || crate::step::Finding::new("a-code", "What", "why", "remedy");
            let verdict = |name: &str| match name {
                "driver" if waiting == "join beside a broken driver" => Verdict::Broken,
                _ if waiting.starts_with(name) => Verdict::Waiting,
                _ => Verdict::Ready,
            };
            let records: Vec<StepRecord> =
                steps.iter().map(|step| StepRecord::of(step.name(), verdict(step.name()), finding())).collect();
            outcome(&records, &steps)
        };
        assert!(matches!(ended("allocatable"), Outcome::Troubled) && matches!(ended("join"), Outcome::Waits));
        assert!(matches!(ended("join beside a broken driver"), Outcome::Waits), "a broken GPU does not slow a join");
        assert!(matches!(ended("nothing"), Outcome::Settled));
    }
}
