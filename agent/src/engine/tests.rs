//! Steps that go by a script, and what the engine makes of them.

#![allow(clippy::disallowed_methods, reason = "a test prepares and reads its own files")]

use std::cell::{Cell, RefCell};
use std::path::Path;

use async_trait::async_trait;

use super::*;
use crate::config;
use crate::step::Command;

/// A file that must hold a text: the smallest real step.
struct FileStep {
    name: &'static str,
    needs: &'static [&'static str],
    text: &'static str,
    lane: Lane,
}

#[async_trait(?Send)]
impl Step for FileStep {
    fn name(&self) -> &'static str {
        self.name
    }

    fn purpose(&self) -> &'static str {
        "a file holds a text"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        self.lane
    }

    fn needs(&self) -> &'static [&'static str] {
        self.needs
    }

    async fn check(&self, look: Look<'_>) -> anyhow::Result<Status> {
        let mut changes = Vec::new();
        for part in ["a", "b", "c"] {
            let path = format!("/{}/{part}", self.name);
            if look.text(&path)?.as_deref() != Some(self.text) {
                changes.push(Change::write(path, self.text));
            }
        }
        if changes.is_empty() { Ok(Status::Ready("all there".to_owned())) } else { Ok(Status::pending("not there", changes)) }
    }
}

/// Answers from a list, the last one for ever.
struct ScriptedStep(RefCell<Vec<Status>>);

impl ScriptedStep {
    fn boxed(mut answers: Vec<Status>) -> Box<dyn Step> {
        answers.reverse();
        Box::new(Self(RefCell::new(answers)))
    }
}

#[async_trait(?Send)]
impl Step for ScriptedStep {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn purpose(&self) -> &'static str {
        "it goes by the script"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn check(&self, _look: Look<'_>) -> anyhow::Result<Status> {
        let answer = {
            let mut answers = self.0.borrow_mut();
            if answers.len() > 1 { answers.pop() } else { answers.last().cloned() }
        };
        match answer {
            Some(answer) => Ok(answer),
            None => std::future::pending().await,
        }
    }
}

/// Remembers what happened, and asks for the stop after some number of changes.
struct Watcher {
    changes: Cell<usize>,
    waits: Cell<usize>,
    stop_after: usize,
    switch: tokio::sync::watch::Sender<bool>,
}

impl Observer for Watcher {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Changed(..) => {
                self.changes.set(self.changes.get() + 1);
                if self.changes.get() == self.stop_after {
                    self.switch.send(true).unwrap();
                }
            }
            Event::Waiting(..) => self.waits.set(self.waits.get() + 1),
            _ => {}
        }
    }
}

/// One round on a machine of fakes, stopped after `stop_after` changes (0: never). Returns the records, changes and waits.
async fn round(host: &Host, steps: &[Box<dyn Step>], stop_after: usize) -> (Vec<StepRecord>, usize, usize) {
    let config = config::load(Vec::new()).unwrap().config;
    let facts = Facts::default();
    let (switch, stop) = Stop::new();
    let watcher = Watcher { changes: Cell::new(0), waits: Cell::new(0), stop_after, switch };
    let engine = Engine { host, config: &config, facts: &facts, observer: &watcher, stop };
    let records = engine.bring_up(steps, Duration::from_secs(600)).await;
    (records, watcher.changes.get(), watcher.waits.get())
}

fn finding() -> Finding {
    Finding::new("endpoint-down", "The API server does not answer", "connection refused", "start it")
}

fn two_steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(FileStep { name: "one", needs: &[], text: "1", lane: Lane::Node }),
        Box::new(FileStep { name: "two", needs: &["one"], text: "2", lane: Lane::Node }),
    ]
}

fn here() -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::of_fakes(root.path()).unwrap();
    (root, host)
}

#[tokio::test]
async fn a_second_round_changes_nothing() {
    let (_root, host) = here();
    let (records, changes, _) = round(&host, &two_steps(), 0).await;
    assert!(records.iter().all(|record| record.verdict == Verdict::Ready), "{records:?}");
    assert_eq!(changes, 6);
    let (records, changes, _) = round(&host, &two_steps(), 0).await;
    assert_eq!((records.len(), changes), (2, 0));
}

#[tokio::test]
async fn stopped_at_every_change_the_next_round_finishes_the_work() {
    for stop_after in 1..=6 {
        let (root, host) = here();
        let (records, changes, _) = round(&host, &two_steps(), stop_after).await;
        assert_eq!(changes, stop_after, "the stop is heard at the change's edge");
        if stop_after < 6 {
            assert!(records.iter().any(|record| record.verdict != Verdict::Ready) || records.len() < 2, "{records:?}");
        }
        let (records, changes, _) = round(&host, &two_steps(), 0).await;
        assert_eq!(changes, 6 - stop_after, "nothing is done twice");
        assert!(records.iter().all(|record| record.verdict == Verdict::Ready));
        assert_eq!(std::fs::read_to_string(root.path().join("two/c")).unwrap(), "2");
    }
}

#[tokio::test]
async fn a_replaced_file_can_be_had_back() {
    let (root, host) = here();
    std::fs::create_dir(root.path().join("one")).unwrap();
    std::fs::write(root.path().join("one/a"), "the operator's").unwrap();
    round(&host, &two_steps(), 0).await;
    let kept: Vec<_> = std::fs::read_dir(root.path().join("var/lib/gpuk-agent/replaced/one")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read_to_string(kept[0].as_ref().unwrap().path()).unwrap(), "the operator's");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_world_is_ready() {
    let (_root, host) = here();
    let steps =
        [ScriptedStep::boxed(vec![Status::Waiting(finding()), Status::Waiting(finding()), Status::Ready("up".to_owned())])];
    let (records, _, waits) = round(&host, &steps, 0).await;
    assert_eq!((records[0].verdict, waits), (Verdict::Ready, 2));
    assert_eq!(records[0].finding, None);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_the_finding_and_what_needs_the_step_is_not_looked_at() {
    let (_root, host) = here();
    let steps: Vec<Box<dyn Step>> = vec![
        ScriptedStep::boxed(vec![Status::Waiting(finding())]),
        Box::new(FileStep { name: "two", needs: &["scripted"], text: "2", lane: Lane::Node }),
    ];
    let (records, changes, _) = round(&host, &steps, 0).await;
    assert_eq!((records[0].verdict, records[0].finding.as_ref().unwrap().code.as_str()), (Verdict::Waiting, "endpoint-down"));
    assert_eq!((records[1].verdict, changes), (Verdict::Unknown, 0));
    assert_eq!(records[1].text, "not looked at: it needs scripted first");
}

#[tokio::test(start_paused = true)]
async fn a_lane_does_not_wait_for_the_other_unless_a_step_needs_it() {
    let (_root, host) = here();
    let gpu = |name, needs| Box::new(FileStep { name, needs, text: "2", lane: Lane::Gpu });
    let slow = || vec![Status::Waiting(finding()), Status::Ready("up".to_owned())];
    let steps: Vec<Box<dyn Step>> = vec![ScriptedStep::boxed(slow()), gpu("driver", &[]), gpu("proof", &["scripted"])];
    let (records, ..) = round(&host, &steps, 0).await;
    let ready = |name: &str| records.iter().find(|record| record.name == name && record.verdict == Verdict::Ready).unwrap();
    assert_eq!(ready("driver").started, 0, "it does not wait for the step before it");
    assert!(ready("proof").started >= ready("scripted").took, "it needs that step");
    assert_eq!(records[0].name, "scripted", "in the order of the catalog");
    // A stop in one lane does not leave the other waiting for ever.
    let steps: Vec<Box<dyn Step>> = vec![
        ScriptedStep::boxed(vec![Status::pending("more", vec![Change::write("/file", "x")])]),
        Box::new(FileStep { name: "two", needs: &[], text: "2", lane: Lane::Node }),
        gpu("late", &["two"]),
    ];
    let (records, ..) = round(&host, &steps, 1).await;
    assert_eq!(records.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_somebody_elses_work_is_looked_at_once_a_round() {
    struct Impatient(Box<dyn Step>);
    #[async_trait(?Send)]
    impl Step for Impatient {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn purpose(&self) -> &'static str {
            self.0.purpose()
        }
        fn stage(&self) -> Stage {
            self.0.stage()
        }
        fn patience(&self) -> Duration {
            Duration::ZERO
        }
        async fn check(&self, look: Look<'_>) -> anyhow::Result<Status> {
            self.0.check(look).await
        }
    }
    let (_root, host) = here();
    let waiting = ScriptedStep::boxed(vec![Status::Waiting(finding()), Status::Ready("up".to_owned())]);
    let (records, _, waits) = round(&host, &[Box::new(Impatient(waiting))], 0).await;
    assert_eq!((records[0].verdict, waits), (Verdict::Waiting, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_changes_again_and_again_end_with_a_finding() {
    let (_root, host) = here();
    let undone = Status::pending("someone undoes it", vec![Change::write("/file", "x")]);
    let (records, changes, _) = round(&host, &[ScriptedStep::boxed(vec![undone])], 0).await;
    assert_eq!((records[0].verdict, changes), (Verdict::Broken, ATTEMPTS));
    assert_eq!(records[0].finding.as_ref().unwrap().code, "change-does-not-hold");
}

/// Its change always fails, and that is never the change's fault; at last somebody else has done it.
struct Unlucky(Box<dyn Step>);

#[async_trait(?Send)]
impl Step for Unlucky {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn purpose(&self) -> &'static str {
        self.0.purpose()
    }
    fn stage(&self) -> Stage {
        self.0.stage()
    }
    async fn check(&self, look: Look<'_>) -> anyhow::Result<Status> {
        self.0.check(look).await
    }
    fn judge(&self, _failure: &Failure, _look: Look<'_>) -> Option<Status> {
        Some(Status::Waiting(finding()))
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_the_world_outside_fails_cost_patience_and_no_attempt() {
    let (_root, host) = here();
    // The fake knows no such program.
    let fails = || Status::pending("not yet", vec![Change::Run(Command::new(["kubeadm"], Duration::from_secs(1)))]);
    let mut answers: Vec<Status> = (0..ATTEMPTS + 2).map(|_| fails()).collect();
    answers.push(Status::Ready("done".to_owned()));
    let (records, changes, waits) = round(&host, &[Box::new(Unlucky(ScriptedStep::boxed(answers)))], 0).await;
    assert_eq!((records[0].verdict, changes, waits), (Verdict::Ready, ATTEMPTS + 2, ATTEMPTS + 2));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_time_is_given_it() {
    let (_root, host) = here();
    for (asked, longest) in [(7, 8), (1_000_000, 61)] {
        let busy = Status::Waiting(finding().leaving_alone(Some(Duration::from_secs(asked))));
        let began = Instant::now();
        let (records, ..) = round(&host, &[ScriptedStep::boxed(vec![busy, Status::Ready("up".to_owned())])], 0).await;
        assert_eq!(records[0].verdict, Verdict::Ready);
        let took = began.elapsed().as_secs();
        assert!(took >= asked.min(60) && took < longest, "{took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn other_changes_are_progress() {
    let (_root, host) = here();
    let mut answers: Vec<Status> =
        (0..10).map(|number| Status::pending("more", vec![Change::write(format!("/{number}"), "x")])).collect();
    answers.push(Status::Ready("done".to_owned()));
    let (records, changes, waits) = round(&host, &[ScriptedStep::boxed(answers)], 0).await;
    assert_eq!((records[0].verdict, changes, waits), (Verdict::Ready, 10, 0));
}

#[tokio::test(start_paused = true)]
async fn changes_that_alternate_look_like_progress_and_get_pauses_all_the_same() {
    let (_root, host) = here();
    let write = |number: usize| Change::write("/file", if number.is_multiple_of(2) { "x" } else { "y" });
    let mut answers: Vec<Status> = (0..40).map(|number| Status::pending("someone undoes it", vec![write(number)])).collect();
    answers.push(Status::Ready("done".to_owned()));
    let (records, changes, waits) = round(&host, &[ScriptedStep::boxed(answers)], 0).await;
    assert_eq!((records[0].verdict, changes, waits), (Verdict::Ready, 40, 40 - (UNPAUSED - 1)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_change_is_told_with_the_error() {
    let (_root, host) = here();
    let failing = Status::pending("must run", vec![Change::Run(Command::new(["no-such-program"], Duration::from_secs(1)))]);
    let (records, ..) = round(&host, &[ScriptedStep::boxed(vec![failing])], 0).await;
    let finding = records[0].finding.clone().unwrap();
    assert_eq!((records[0].verdict, finding.code.as_str()), (Verdict::Broken, "change-failed"));
    assert!(finding.why.contains("no-such-program"), "{finding:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_is_a_look_that_could_not_be_had() {
    let (_root, host) = here();
    let (records, ..) = round(&host, &[ScriptedStep::boxed(Vec::new())], 0).await;
    assert_eq!(records[0].verdict, Verdict::Unknown);
    assert!(records[0].text.contains("had not ended after 5 s"), "{}", records[0].text);
}

#[tokio::test]
async fn an_image_gets_only_what_needs_no_running_machine() {
    let root = tempfile::tempdir().unwrap();
    let mut host = Host::of_fakes(root.path()).unwrap();
    host.files = crate::host::files::Files::below(root.path()).unwrap();
    let steps: Vec<Box<dyn Step>> = vec![Box::new(FileStep { name: "one", needs: &[], text: "1", lane: Lane::Node })];
    let (records, changes, _) = round(&host, &steps, 0).await;
    assert_eq!((records[0].verdict, changes), (Verdict::Left, 0));
    assert!(!Path::new(root.path()).join("one").exists());
}
