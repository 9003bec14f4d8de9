//! While what a node is to be is unknown, every verb says so and names the same cause.

use crate::cli::{Common, Exit};
use crate::cloud::Trouble;
use crate::config::{Loaded, Role};
use crate::facts::{Facts, Instance, SourceTiming};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::session::Session;
use crate::show::Style;
use crate::state::{STATE_FILE, State, Verdict};
use crate::unknown::{About, Unknown};

use super::{doctor, plan, round, status};

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
    let report = doctor::examine(&session(&root, Some(silent()))).await;
    assert_eq!((report.checks[0].name, report.checks[0].follows_from), ("metadata", None));
    let of = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap().follows_from;
    // Without its user-data the configuration has no cluster to join, and containerd is not installed whatever it says.
    assert_eq!((of("identity"), of("join"), of("containerd")), (Some("metadata"), Some("metadata"), None));
    assert_eq!(doctor::doctor(&session(&root, Some(silent())), true).await, Exit::Broken);
    assert_eq!(doctor::examine(&session(&root, None)).await.checks[0].name, "identity");
}

#[tokio::test]
async fn plan_promises_nothing_that_up_refuses() {
    let root = tempfile::tempdir().unwrap();
    for (trouble, exit) in [(silent(), Exit::Waiting), (Trouble::Unreadable("a page".to_owned()), Exit::Broken)] {
        let session = session(&root, Some(trouble));
        let (made, ended) = plan::make(&session).await;
        let text = plan::human(&made, Style::default());
        assert_eq!((ended, round::may_change(&session)), (exit, Err(exit)));
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
            round::remember(&session, "run", session.unknown.as_ref().unwrap());
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
    round::remember(&session, "run", session.unknown.as_ref().unwrap());
    assert_eq!(status::read_state(&common).unwrap().last().unwrap().steps[0].name, "metadata");
}
