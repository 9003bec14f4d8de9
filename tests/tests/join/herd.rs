//! Machines that are switched on at once all join, and ask no more than they must. `GPUK_HERD` is how many.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gpuk_agent::state::Verdict;
use integration::joiner::{Machine, Orders, Uncut, kubelet, until};
use integration::proxy::{Canned, Fault, Proxy};
use vm_tests::ClusterOptions;

use crate::scene::{Scene, number, on_this_thread};

/// What the agent asks when everything answers: cluster-info twice, kubeadm-config, and its Node.
const FEWEST: usize = 4;

/// Each machine with the folder that it lives in.
fn machines(orders: &Orders, count: u64, word: &str) -> Vec<(tempfile::TempDir, Rc<Machine>)> {
    let machine = |number: u64| {
        let root = folder();
        let machine = Machine::boot(root.path(), Orders { name: format!("{word}-{number}"), ..orders.clone() }, Box::new(Uncut));
        (root, machine)
    };
    (0..count).map(machine).collect()
}

/// In memory where that can be: all their disks are one.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// All requests that the API server has counted.
fn served(scene: &Scene) -> f64 {
    let metrics = scene.cluster.kubectl(&["get", "--raw", "/metrics"]).unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_herd_joins_with_few_requests_and_leaves_nobody_behind() {
    let count = number("GPUK_HERD", 250);
    let scene = Scene::set(ClusterOptions::default());
    let orders = Orders { kubelet_pause: Duration::from_secs(1), ..scene.orders("", scene.cluster.endpoint()) };
    let (before, began) = (served(&scene), Instant::now());
    let (requests, times) = on_this_thread(async {
        let herd = machines(&orders, count, "herd");
        let times = join_all(herd.iter().map(|(_, machine)| async move {
            let record = machine.bring_up(Duration::from_secs(900)).await;
            assert_eq!(record.verdict, Verdict::Ready, "{}: {record:?}", machine.orders.name);
            let registered = until(Duration::from_secs(60), || kubelet::is_registered(machine).then_some(())).await;
            assert!(registered.is_some(), "{} did not register", machine.orders.name);
            began.elapsed()
        }));
        let times = times.await;
        (herd.iter().map(|(_, machine)| machine.requests.borrow().clone()).collect::<Vec<_>>(), times)
    });
    let took = began.elapsed();
    let all = served(&scene) - before;
    assert_eq!(scene.nodes().len() as u64, count);
    let mut each: Vec<usize> = requests.iter().map(Vec::len).collect();
    each.sort_unstable();
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    for request in requests.iter().flatten() {
        *seconds.entry(request.duration_since(began).as_secs()).or_default() += 1;
    }
    let (sum, most) = (each.iter().sum::<usize>(), each.last().copied().unwrap_or_default());
    eprintln!(
        "{count} nodes in {:.0} s (the last after {:.0} s); requests of the agent per node: {:.1}, median {}, most {most}; peak {} in a second; \
         the API server counted {:.1} requests per node, kubeadm's, the kubelet's and the cluster's own among them",
        took.as_secs_f64(),
        times.iter().max().unwrap().as_secs_f64(),
        sum as f64 / count as f64,
        each[each.len() / 2],
        seconds.values().max().unwrap_or(&0),
        all / count as f64,
    );
    assert!(each[0] >= FEWEST, "{each:?}");
    // One look asks each thing at most thrice (a refusal is asked about), and looks come ever more slowly: 8 pauses double up to 30 s, then each
    // lasts 15 s on average.
    let looks = 8 + took.as_secs() as usize / 10;
    assert!(most <= FEWEST * looks, "one node asked {most} times in {took:?}");
}

#[test]
fn a_server_that_asks_for_time_is_given_it() {
    const ASKED: Duration = Duration::from_secs(2);
    const COUNT: u64 = 40;
    let scene = Scene::set(ClusterOptions::default());
    on_this_thread(async {
        let proxy = Proxy::start(scene.cluster.port(), scene.faces.clone());
        let busy = Fault::Answer(Canned::status(429).with(&format!("Retry-After: {}", ASKED.as_secs())));
        proxy.plan(vec![busy; COUNT as usize], Fault::Forward);
        let herd = machines(&scene.orders("", proxy.endpoint()), COUNT, "polite");
        let records = join_all(herd.iter().map(|(_, machine)| machine.bring_up(Duration::from_secs(120)))).await;
        assert!(records.iter().all(|record| record.verdict == Verdict::Ready), "{records:?}");
        let mut later = Vec::new();
        for (_, machine) in &herd {
            let requests = machine.requests.borrow();
            let pause = requests[1].duration_since(requests[0]);
            assert!(pause >= ASKED, "{} asked again after {pause:?}", machine.orders.name);
            later.push(pause);
        }
        // Not all at once: each draws its own pause on top.
        let spread = later.iter().max().unwrap().saturating_sub(*later.iter().min().unwrap());
        assert!(spread > Duration::from_millis(50), "they came back together: {later:?}");
    });
}
