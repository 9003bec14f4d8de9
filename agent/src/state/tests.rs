//! Rounds that are remembered, and rounds that are not.

use super::*;

fn round(started: u64, verdict: Verdict, changes: &[&str]) -> Round {
    let step = StepRecord {
        name: "hostname".to_owned(),
        verdict,
        text: String::new(),
        started: 0,
        took: started,
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        because: changes.first().map(|change| format!("no {change}")),
        finding: None,
    };
    Round { boot_id: "b".to_owned(), started, steps: vec![step], ..Round::default() }
}

#[test]
fn a_round_that_says_nothing_new_is_not_remembered() {
    let mut state = State::default();
    assert!(state.remember(&round(1, Verdict::Ready, &["write /etc/hostname"])));
    assert!(!state.remember(&round(2, Verdict::Ready, &[])));
    assert!(state.remember(&round(3, Verdict::Broken, &[])));
    assert!(state.remember(&round(4, Verdict::Ready, &[])));
    assert_eq!(state.rounds.len(), 3);
    let mut other_boot = round(5, Verdict::Ready, &[]);
    other_boot.boot_id = "c".to_owned();
    assert!(state.remember(&other_boot));
}

#[test]
fn the_state_that_tells_how_it_stands_is_the_one_that_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::of_fakes(root.path()).unwrap();
    let save = |role: Role, node: &str, started: u64| {
        let mut state = State { node: node.to_owned(), ..State::load(&host, "i-1", role) };
        state.remember(&round(started, Verdict::Ready, &["x"]));
        state.save(&host).unwrap();
    };
    let told = || State::read(&host.files).unwrap().node;
    assert_eq!(told(), "");
    save(Role::Observed, "watched", 2);
    assert_eq!(told(), "watched");
    save(Role::Worker, "worker", 1);
    assert_eq!(told(), "watched", "it was a worker once");
    save(Role::Worker, "worker", 3);
    assert_eq!(told(), "worker");
}

#[test]
fn the_oldest_rounds_go_first() {
    let mut state = State::default();
    for number in 0..100 {
        state.remember(&round(number, Verdict::Ready, &["x"]));
    }
    assert_eq!((state.rounds.len(), state.rounds[0].started), (ROUNDS, 100 - ROUNDS as u64));
}

#[test]
fn what_held_before_in_a_boot_and_was_put_right_is_drift() {
    let mut state = State::default();
    let drift = |state: &State| state.drift_of("hostname", "b").map(|(round, why)| (round.started, why.to_owned()));
    state.remember(&round(1, Verdict::Broken, &["a"]));
    state.remember(&round(2, Verdict::Ready, &["b"]));
    assert_eq!(drift(&state), None, "it had not held before");
    state.remember(&round(3, Verdict::Ready, &["c"]));
    state.remember(&round(4, Verdict::Broken, &[]));
    assert_eq!(drift(&state), Some((3, "no c".to_owned())));
    state.remember(&round(5, Verdict::Ready, &["d"]));
    assert_eq!(drift(&state), Some((5, "no d".to_owned())), "the newest");
    assert_eq!((state.drift_of("hostname", "another boot"), state.drift_of("kernel", "b")), (None, None));
}
