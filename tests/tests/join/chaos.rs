//! Whatever the network does for a while, the join comes through, once; and nobody is called that time would have made superfluous.
//!
//! `GPUK_CHAOS_SEED` is the first seed, `GPUK_CHAOS_RUNS` how many follow. A failing run names its own.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use gpuk_agent::state::Verdict;
use integration::certificates::Says;
use integration::joiner::{Machine, Orders, Uncut, kubelet, until};
use integration::proxy::{Canned, Fault, Forgery, Proxy, Whose};
use vm_tests::ClusterOptions;

use crate::scene::{Scene, files_with, number, on_this_thread};

const AT_ONCE: usize = 32;

/// What one run is made of: each connection has its fate, and later ones are left alone.
fn storm(seed: u64) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.usize(3..24);
    (0..count).map(|_| if random.bool() { Fault::Forward } else { fault(&mut random) }).collect()
}

fn fault(random: &mut fastrand::Rng) -> Fault {
    let mut milliseconds = |range: std::ops::Range<u64>| Duration::from_millis(random.u64(range));
    let (refuse, slow) = (milliseconds(10..400), milliseconds(10..700));
    let unauthorized = || Fault::Answer(Canned::refusal(401, "Unauthorized"));
    let forbidden = "configmaps \"kubeadm-config\" is forbidden: User \"system:bootstrap:abcdef\" cannot get resource";
    // What time cures comes more often than what a person must.
    match random.u8(0..22) {
        0 | 1 => Fault::Refuse(refuse),
        2 => Fault::Blackhole,
        3 | 4 => Fault::Reset,
        5 | 6 => Fault::Slow(slow),
        7 => Fault::Answer(Canned::status(429)),
        8 => Fault::Answer(Canned::status(429).with("Retry-After: 1")),
        9 => Fault::Answer(Canned::status(500)),
        10 => Fault::Answer(Canned::status(503)),
        11 | 12 => Fault::Truncated,
        13 => Fault::HalfClosed,
        14 | 15 => unauthorized(),
        16 => Fault::Answer(Canned::refusal(403, forbidden)),
        17 => Fault::Answer(Canned::status(404)),
        18 => Fault::Certificate(Whose::Cluster, Says::OtherName),
        19 => Fault::Certificate(Whose::Cluster, Says::Expired),
        20 => Fault::Certificate(random.choice([Whose::Namesake, Whose::Stranger]).unwrap_or(Whose::Stranger), Says::Right),
        _ => {
            Fault::Middle(random.choice([Forgery::Nothing, Forgery::OwnAuthority, Forgery::Unsigned]).unwrap_or(Forgery::Nothing))
        }
    }
}

/// Whether a verdict that ends a round is about something that did happen.
fn is_explained(code: &str, done: &[Fault]) -> bool {
    let count = |wanted: &dyn Fn(&Fault) -> bool| done.iter().filter(|fault| wanted(fault)).count();
    let answers = |status: u16| count(&|fault| matches!(fault, Fault::Answer(canned) if canned.status == status));
    let middle = |forgery: Forgery| count(&|fault| *fault == Fault::Middle(forgery)) > 0;
    match code {
        "certificate-wrong-name" => count(&|fault| matches!(fault, Fault::Certificate(_, Says::OtherName))) > 0,
        "certificate-dates" => count(&|fault| matches!(fault, Fault::Certificate(_, Says::Expired))) > 0,
        "certificate-unknown-authority" => {
            count(&|fault| matches!(fault, Fault::Certificate(Whose::Namesake | Whose::Stranger, _) | Fault::Middle(_))) > 0
        }
        "cluster-info-forged" => middle(Forgery::OwnAuthority),
        "pin-mismatch" => middle(Forgery::Unsigned),
        "not-an-api-server" => answers(404) > 0,
        // One refusal is never believed, nor two of two kinds: the second comes after a server that says it is ready.
        "anonymous-access-off" | "token-rejected" => answers(401) > 1,
        "cluster-info-forbidden" | "token-forbidden" => answers(403) > 1,
        // Whoever is in the middle passes the first look only.
        "cluster-info-changed" => count(&|fault| matches!(fault, Fault::Middle(_))) > 1,
        _ => false,
    }
}

/// What became of one run.
#[derive(Default)]
struct Outcome {
    rounds: usize,
    kubeadm: u32,
    faults: usize,
    took: Duration,
}

async fn run(scene: &Scene, orders: Orders, seed: u64) -> Result<Outcome, String> {
    let began = Instant::now();
    let root = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(scene.cluster.port(), scene.faces.clone());
    proxy.plan(storm(seed), Fault::Forward);
    let orders =
        Orders { endpoints: vec![proxy.endpoint()], name: name(seed), request_limit: Duration::from_secs(1), pace: 20, ..orders };
    let machine = Machine::boot(root.path(), orders, Box::new(Uncut));
    let mut rounds = 0;
    // As the resident service does: a round that ends in trouble is followed by another one.
    loop {
        rounds += 1;
        let record = machine.bring_up(Duration::from_secs(60)).await;
        let code = record.finding.as_ref().map(|finding| finding.code.clone()).unwrap_or_default();
        match record.verdict {
            Verdict::Ready => break,
            Verdict::Broken if is_explained(&code, &proxy.done()) && rounds < 30 => {}
            // Its patience is over; the storm may be too.
            Verdict::Waiting if rounds < 30 => {}
            _ => return Err(format!("round {rounds}: {record:?}\nafter {:?}", proxy.done())),
        }
    }
    let registered = until(Duration::from_secs(20), || kubelet::is_registered(&machine).then_some(())).await;
    registered.ok_or("the kubelet did not register")?;
    let (started, ended) = machine.kubeadm.get();
    if ended > 1 {
        return Err(format!("kubeadm ended well {ended} times"));
    }
    if let Some(said) = machine.said.borrow().iter().find(|said| said.contains(scene.secret())) {
        return Err(format!("a secret is told: {said}"));
    }
    let heard = proxy.heard();
    if heard.contains(scene.secret()) || heard.to_lowercase().contains("authorization:") {
        return Err(format!("a stranger was told: {heard}"));
    }
    let left = files_with(root.path(), scene.secret());
    if !left.is_empty() {
        return Err(format!("the secret is left in {left:?}"));
    }
    let faults = proxy.done().iter().filter(|fault| **fault != Fault::Forward).count();
    Ok(Outcome { rounds, kubeadm: started, faults, took: began.elapsed() })
}

fn name(seed: u64) -> String {
    format!("storm-{seed}")
}

#[test]
fn a_join_comes_through_every_storm() {
    let (first, runs) = (number("GPUK_CHAOS_SEED", 1), number("GPUK_CHAOS_RUNS", 500));
    let scene = Scene::set(ClusterOptions::default());
    let began = Instant::now();
    let orders = scene.orders("", String::new());
    let all = stream::iter(first..first + runs).map(|seed| {
        let (scene, orders) = (&scene, orders.clone());
        async move { (seed, run(scene, orders, seed).await) }
    });
    let all: Vec<_> = on_this_thread(all.buffer_unordered(AT_ONCE).collect());
    let failed: Vec<String> =
        all.iter().filter_map(|(seed, run)| Some(format!("GPUK_CHAOS_SEED={seed}: {}", run.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{} of {runs} runs:\n{}", failed.len(), failed[..failed.len().min(5)].join("\n\n"));
    let mut nodes = scene.nodes();
    let mut names: Vec<String> = all.iter().map(|(seed, _)| name(*seed)).collect();
    nodes.sort();
    names.sort();
    assert_eq!(nodes, names);
    let outcomes: Vec<&Outcome> = all.iter().filter_map(|(_, run)| run.as_ref().ok()).collect();
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(|outcome| of(outcome)).sum::<usize>();
    let longest = outcomes.iter().map(|outcome| outcome.took).max().unwrap_or_default();
    eprintln!(
        "{runs} storms from seed {first} in {:.0} s: {} faults, {} rounds, kubeadm started {} times, the longest run {:.0} s",
        began.elapsed().as_secs_f64(),
        sum(|outcome| outcome.faults),
        sum(|outcome| outcome.rounds),
        sum(|outcome| outcome.kubeadm as usize),
        longest.as_secs_f64(),
    );
}
