//! Whoever sits between a node and its API server learns nothing, whenever he begins.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use gpuk_agent::state::Verdict;
use integration::joiner::{Machine, Orders, Uncut};
use integration::proxy::{Fault, Forgery, Proxy};
use vm_tests::ClusterOptions;

use crate::scene::{Scene, on_this_thread};

/// More connections than a join makes.
const CONNECTIONS: usize = 16;

#[test]
fn nobody_in_the_middle_is_told_a_secret() {
    let scene = Scene::set(ClusterOptions::default());
    let orders = Orders { request_limit: Duration::from_secs(2), pace: 20, ..scene.orders("", String::new()) };
    let cases = (0..=CONNECTIONS)
        .flat_map(|honest| [Forgery::Nothing, Forgery::OwnAuthority, Forgery::Unsigned].map(|forgery| (honest, forgery)));
    let runs = stream::iter(cases).map(|(honest, forgery)| {
        let (scene, orders) = (&scene, orders.clone());
        async move { (honest, one(scene, orders, honest, forgery).await) }
    });
    let runs: Vec<(usize, bool)> = on_this_thread(runs.buffer_unordered(12).collect());
    // It was in the middle of all that there is to be in the middle of.
    assert!(runs.iter().all(|(honest, joined)| *joined || *honest < CONNECTIONS), "a join takes more connections: {runs:?}");
    assert!(runs.iter().all(|(honest, joined)| !*joined || *honest > 5), "{runs:?}");
}

/// Somebody sits in between after so many connections. Whether the machine had joined by then.
async fn one(scene: &Scene, orders: Orders, honest: usize, forgery: Forgery) -> bool {
    let root = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(scene.cluster.port(), scene.faces.clone());
    proxy.plan(vec![Fault::Forward; honest], Fault::Middle(forgery));
    let name = format!("middle-{honest}-{}", format!("{forgery:?}").to_lowercase());
    let machine = Machine::boot(root.path(), Orders { endpoints: vec![proxy.endpoint()], name, ..orders }, Box::new(Uncut));
    let record = machine.bring_up(Duration::from_secs(5)).await;
    let code = record.finding.as_ref().map(|finding| finding.code.clone()).unwrap_or_default();
    match record.verdict {
        Verdict::Broken => {
            let expected = match forgery {
                Forgery::Nothing => "certificate-unknown-authority",
                Forgery::OwnAuthority => "cluster-info-forged",
                Forgery::Unsigned => "pin-mismatch",
            };
            // Between the two looks of one discovery he is known by his certificate.
            assert!(code == expected || code == "certificate-unknown-authority", "{honest} {forgery:?}: {record:?}");
        }
        Verdict::Ready => {}
        // The kubelet stands before him, and it too trusts only the right CA.
        _ => {
            assert!(["certificate-not-issued", "endpoint-lost", ""].contains(&code.as_str()), "{honest} {forgery:?}: {record:?}")
        }
    }
    let heard = proxy.heard();
    assert!(!heard.contains(scene.secret()) && !heard.to_lowercase().contains("authorization"), "he was told: {heard}");
    assert!(honest > 0 || heard.contains("/cluster-info"), "the proxy hears nothing");
    assert!(!machine.said.borrow().iter().any(|said| said.contains(scene.secret())));
    record.verdict == Verdict::Ready
}
