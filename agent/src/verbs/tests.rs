//! While what a node is to be is unknown, every verb says so and names the same cause.

#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use crate::cli::{Common, Exit};
use crate::cloud::Trouble;
use crate::config::{Loaded, Role, Source};
use crate::engine::Stop;
use crate::facts::{Facts, Instance, SourceTiming};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::session::{self, Session};
use crate::show::Style;
use crate::state::{STATE_FILE, State, StepRecord, Verdict};
use crate::unknown::{About, Unknown};

use super::{doctor, plan, round, run, status, up};

fn silent() -> Trouble {
    Trouble::Unreachable { url: "http://169.254.169.254/latest".to_owned(), why: "no answer".to_owned() }
}

/// A session on fakes below `root`, on a machine with an id.
fn session(root: &tempfile::TempDir, unknown: Option<Trouble>) -> Session {
    let Loaded { config, settings } = crate::config::load(Vec::new()).unwrap();
    let instance = Some(Instance { cloud: "ec2", id: "i-1".to_owned(), ..Instance::default() });
    let sources = vec![SourceTiming { name: "metadata", took_microseconds: 5_000_000 }];
    let facts = Facts { instance, sources, ..Facts::default() };
    let unknown = unknown.map(|trouble| Unknown::new(About::Metadata, trouble));
    Session { host: Host::of_fakes(root.path()).unwrap(), facts, config, settings, unknown }
}

#[tokio::test]
async fn doctor_names_what_is_unknown_first_and_blames_nothing_that_follows() {
    let root = tempfile::tempdir().unwrap();
    let report = doctor::examine(&session(&root, Some(silent())), doctor::Scope::default()).await;
    assert_eq!((report.checks[0].name, report.checks[0].follows_from), ("metadata", None));
    let of = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap().follows_from;
    // Without its user-data the configuration has no cluster to join, and containerd is not installed whatever it says.
    assert_eq!((of("identity"), of("join"), of("containerd")), (Some("metadata"), Some("metadata"), None));
    assert_eq!(doctor::doctor(&session(&root, Some(silent())), doctor::Scope::default(), true).await, Exit::Broken);
    assert_eq!(doctor::examine(&session(&root, None), doctor::Scope::default()).await.checks[0].name, "identity");
}

#[tokio::test]
async fn plan_promises_nothing_that_up_refuses() {
    let root = tempfile::tempdir().unwrap();
    for (trouble, exit) in [(silent(), Exit::Waiting), (Trouble::Unreadable("a page".to_owned()), Exit::Broken)] {
        let session = session(&root, Some(trouble));
        let (made, ended) = plan::make(&session).await;
        let text = plan::human(&made, Style::default());
        let refused = round::may_change(&session).unwrap_err();
        assert_eq!((ended, refused.exit), (exit, exit));
        assert_eq!(up::as_json(&session, &refused)["refused"]["code"], refused.finding.code);
        let finding = session.unknown.unwrap().finding();
        assert!(
            text.contains(&finding.what) && !text.contains("with: gpuk-agent up") && !text.contains("Nothing to do"),
            "{text}"
        );
    }
    let (made, ended) = plan::make(&session(&root, None)).await;
    assert_eq!(ended, Exit::Pending);
    assert!(plan::human(&made, Style::default()).contains("with: gpuk-agent up"));
}

fn remember(session: &Session) {
    round::remember(&session.host, session.look(), "run", round::record(session, session.unknown.as_ref().unwrap()));
}

/// What `status` says, after a round of the service on an image with this configuration.
async fn status_after_a_round(root: &tempfile::TempDir, place: &str, text: &str) -> (Exit, StepRecord) {
    let file = root.path().join(place);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
    let common = Common { root: root.path().to_owned(), json: false, settings: Vec::new() };
    let (_switch, stop) = Stop::new();
    assert!(matches!(run::one_round(&common, Vec::new(), &stop).await, Ok(run::Outcome::Troubled)));
    (status::status(&common), status::read_state(&common).unwrap().last().unwrap().steps[0].clone())
}

#[tokio::test]
async fn status_knows_that_the_service_refuses_a_configuration() {
    let root = tempfile::tempdir().unwrap();
    let (exit, step) = status_after_a_round(&root, "etc/gpuk/agent.toml", "[node]\nnaem = \"x\"\n").await;
    let finding = step.finding.unwrap();
    assert_eq!((exit, step.name.as_str(), finding.code.as_str()), (Exit::Broken, "configuration", "configuration-wrong"));
    assert!(finding.why.contains("/etc/gpuk/agent.toml:2:1"), "{}", finding.why);
    // A directory in a file's place cannot be read by anyone: then nobody says that it is wrong.
    let root = tempfile::tempdir().unwrap();
    let (exit, step) = status_after_a_round(&root, "etc/gpuk/agent.toml/x", "").await;
    assert_eq!((exit, step.finding.unwrap().code.as_str()), (Exit::Broken, "machine-unreadable"));
}

#[test]
fn what_keeps_a_verb_from_beginning_is_json_too() {
    let json = super::as_json(&session::Trouble::Other(anyhow::anyhow!("opening /image: ENOENT")));
    assert_eq!(json["errors"][0]["message"], "opening /image: ENOENT");
    let errors = crate::config::load(vec![Source::flags(vec![("node.naem".to_owned(), "x".to_owned())])]).unwrap_err();
    let wrong = super::as_json(&session::Trouble::Configuration(errors));
    let keys = |json: &serde_json::Value| json["errors"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&wrong), keys(&json));
}

#[test]
fn status_knows_that_the_service_waits() {
    let root = tempfile::tempdir().unwrap();
    let common = Common { root: root.path().to_owned(), json: false, settings: Vec::new() };
    let mut seconds = 0;
    assert_eq!(status::status(&common), Exit::Waiting);
    for (trouble, exit, verdict) in
        [(silent(), Exit::Waiting, Verdict::Waiting), (Trouble::Unreadable("a page".to_owned()), Exit::Broken, Verdict::Broken)]
    {
        let mut session = session(&root, Some(trouble));
        // The same again is not remembered twice.
        for _ in 0..2 {
            seconds += 1;
            session.host.clock = Box::new(FixedClock::at(seconds));
            remember(&session);
        }
        let state = status::read_state(&common).unwrap();
        let step = &state.last().unwrap().steps[0];
        assert_eq!((step.name.as_str(), step.verdict, step.took), ("metadata", verdict, 5000));
        assert_eq!((status::status(&common), state.instance_id.as_str()), (exit, "i-1"));
        // It may be a node on whose disk nothing is the agent's.
        assert!(!session.host.files.exists(std::path::Path::new(STATE_FILE)).unwrap());
    }
    assert_eq!(status::read_state(&common).unwrap().rounds.len(), 2);
    // A node that has a state keeps this with it.
    let session = session(&root, Some(silent()));
    State::load(&session.host, "i-1", Role::Worker).save(&session.host).unwrap();
    remember(&session);
    assert_eq!(status::read_state(&common).unwrap().last().unwrap().steps[0].name, "metadata");
}

#[tokio::test]
async fn the_doctor_of_gpus_names_them_and_what_keeps_them_from_working_alone() {
    let root = tempfile::tempdir().unwrap();
    let scope = doctor::Scope { gpu: true, deep: true };
    let names = |report: &doctor::Report| report.checks.iter().map(|check| check.name).collect::<Vec<_>>();
    let none = doctor::examine(&session(&root, None), scope).await;
    let of_gpus =
        ["toolkit", "driver", "modules", "gpu-faults", "gpus", "mig", "cdi", "trial", "labels", "allocatable", "computing"];
    assert_eq!(names(&none), of_gpus, "nothing of GPUs follows from anything else where there are none");

    let mut one = session(&root, None);
    one.facts.gpus = vec![crate::facts::Gpu::default()];
    let report = doctor::examine(&one, scope).await;
    // A container cannot be tried without containerd, which is therefore named; the helper is not built into a test.
    assert!(names(&report).contains(&"containerd") && !names(&report).contains(&"hostname"), "{:?}", names(&report));
    let of = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap();
    assert_eq!(of("trial").follows_from, Some("containerd"));
    assert_eq!(of("computing").verdict, Verdict::Unknown);
}
