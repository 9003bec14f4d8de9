//! Every row of the join's table of verdicts is produced by a real control plane, or by a proxy before one.

use std::time::Duration;

use gpuk_agent::step::{Finding, Status};
use integration::certificates::Says;
use integration::joiner::{Machine, Orders, Uncut};
use integration::proxy::{Canned, Fault, Forgery, Proxy, Whose};
use vm_tests::ClusterOptions;

use crate::scene::{Scene, on_this_thread};

/// The table of the agent, as it is written.
const TABLE: &str = include_str!("../../../agent/src/steps/join/verdict/table.rs");

/// What brings a row about.
#[derive(Debug, PartialEq)]
enum By {
    /// A control plane alone: the tests in `join.rs`.
    ControlPlane,
    /// A control plane alone: the tests below.
    OddControlPlane,
    /// A proxy before one: the tests below.
    Proxy,
}

const ROWS: &[(&str, By)] = &[
    ("endpoint-unreachable", By::ControlPlane),
    ("endpoint-busy", By::Proxy),
    ("endpoint-starting", By::Proxy),
    ("signer-down", By::ControlPlane),
    ("clock-wrong", By::Proxy),
    ("own-node-still-ready", By::ControlPlane),
    ("certificate-wrong-name", By::ControlPlane),
    ("certificate-dates", By::Proxy),
    ("certificate-unknown-authority", By::Proxy),
    ("not-an-api-server", By::Proxy),
    ("anonymous-access-off", By::OddControlPlane),
    ("cluster-info-forbidden", By::ControlPlane),
    ("cluster-info-missing", By::OddControlPlane),
    ("cluster-info-changed", By::Proxy),
    ("token-unsigned", By::OddControlPlane),
    ("token-rejected", By::ControlPlane),
    ("token-forbidden", By::ControlPlane),
    ("token-secret-wrong", By::ControlPlane),
    ("cluster-info-forged", By::Proxy),
    ("pin-mismatch", By::ControlPlane),
    ("name-taken", By::ControlPlane),
];

/// A row is new: it comes here with a test, or it does not come.
#[test]
fn every_row_of_the_table_is_produced_somewhere() {
    let body = TABLE.split("match self {").nth(1).unwrap();
    let actions = ["Wait", "NextEndpoint", "NextCredential", "Stop"].map(|action| format!("{action},"));
    let rows = body.split("row(").skip(1).filter_map(|row| {
        let rest = actions.iter().find_map(|action| row.trim_start().strip_prefix(action.as_str()))?;
        rest.split('"').nth(1)
    });
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), body.matches(" row(").count(), "a row is written in another way: {rows:?}");
    assert_eq!(rows, ROWS.iter().map(|(code, _)| *code).collect::<Vec<_>>());
    let below = include_str!("rows.rs").split_once("fn every_row").unwrap().1;
    for (code, by) in ROWS {
        let source = if *by == By::ControlPlane { include_str!("../join.rs") } else { below };
        assert!(source.contains(&format!("\"{code}\"")), "{code} is not produced by {by:?}");
    }
}

/// One look of a machine that never joined.
async fn look(orders: &Orders) -> Status {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::boot(root.path(), orders.clone(), Box::new(Uncut));
    let status = machine.look().await;
    let secret = orders.token.split_once('.').unwrap().1;
    assert!(!format!("{status:?}").contains(secret), "a secret is shown");
    status
}

fn waiting(status: Status) -> Finding {
    match status {
        Status::Waiting(finding) => finding,
        other => panic!("it does not wait: {other:?}"),
    }
}

fn broken(status: Status) -> Finding {
    match status {
        Status::Broken(finding) => finding,
        other => panic!("it does not stop: {other:?}"),
    }
}

#[test]
fn what_happens_on_the_way_gets_the_right_verdict() {
    let scene = Scene::set(ClusterOptions::default());
    on_this_thread(async {
        // A proxy each, and one look through it.
        let look_through = async |next: &[Fault], then: Fault| {
            let proxy = Proxy::start(scene.cluster.port(), scene.faces.clone());
            proxy.plan(next.to_vec(), then);
            look(&Orders { request_limit: Duration::from_secs(2), ..scene.orders("gpu-1", proxy.endpoint()) }).await
        };
        let answer = |status: u16| Fault::Answer(Canned::status(status));

        // What time cures.
        for (fault, code, words) in [
            (Fault::Refuse(Duration::from_millis(200)), "endpoint-unreachable", ""),
            (Fault::Blackhole, "endpoint-unreachable", "no answer in time"),
            (Fault::Reset, "endpoint-unreachable", ""),
            (Fault::Truncated, "endpoint-unreachable", ""),
            (Fault::HalfClosed, "endpoint-unreachable", ""),
            (answer(429), "endpoint-busy", "HTTP 429"),
            (Fault::Answer(Canned::status(429).with("Retry-After: 7")), "endpoint-busy", "asks to wait 7 s"),
            (answer(500), "endpoint-busy", "HTTP 500"),
            (answer(503), "endpoint-busy", "HTTP 503"),
        ] {
            let finding = waiting(look_through(&[], fault.clone()).await);
            assert_eq!(finding.code, code, "{fault:?}: {finding:?}");
            assert!(finding.why.contains(words), "{fault:?}: {finding:?}");
            let asked = finding.why.contains("asks to wait 7 s").then_some(Duration::from_secs(7));
            assert_eq!(finding.leave_alone, asked, "{fault:?}");
        }
        // Caches that are empty yet.
        let forbidden =
            Fault::Answer(Canned::refusal(403, "configmaps \"cluster-info\" is forbidden: User \"system:anonymous\""));
        assert_eq!(waiting(look_through(std::slice::from_ref(&forbidden), answer(500)).await).code, "endpoint-starting");

        let unauthorized = Fault::Answer(Canned::refusal(401, "Unauthorized"));
        let finding = waiting(look_through(&[forbidden, Fault::Forward, unauthorized], Fault::Forward).await);
        assert_eq!(
            (finding.code.as_str(), finding.why.contains("HTTP 403") && finding.why.contains("then 401")),
            ("endpoint-starting", true)
        );

        // What a person must see to.
        let html = Canned::status(200).saying("<html>Welcome</html>");
        for (fault, code) in [
            (answer(404), "not-an-api-server"),
            (Fault::Answer(Canned::status(302).with("Location: https://127.0.0.1/")), "not-an-api-server"),
            (Fault::Answer(html), "not-an-api-server"),
            (Fault::Certificate(Whose::Cluster, Says::OtherName), "certificate-wrong-name"),
            (Fault::Certificate(Whose::Cluster, Says::Expired), "certificate-dates"),
            (Fault::Certificate(Whose::Namesake, Says::Right), "certificate-unknown-authority"),
            (Fault::Certificate(Whose::Stranger, Says::Right), "certificate-unknown-authority"),
            (Fault::Middle(Forgery::OwnAuthority), "cluster-info-forged"),
            (Fault::Middle(Forgery::Unsigned), "pin-mismatch"),
        ] {
            assert_eq!(broken(look_through(&[], fault.clone()).await).code, code, "{fault:?}");
        }

        // The server's clock says that ours is the wrong one.
        let info = scene.cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/kube-public/configmaps/cluster-info"]).unwrap();
        let dated = Canned::status(200).with("Date: Thu, 01 Jan 2026 00:00:00 GMT").saying(info.clone());
        let expired = Fault::Certificate(Whose::Cluster, Says::Expired);
        assert_eq!(waiting(look_through(&[Fault::Answer(dated)], expired).await).code, "clock-wrong");

        // Two looks, two answers; once is forgiven.
        let mut object: serde_json::Value = serde_json::from_str(&info).unwrap();
        let other = format!("{}# another\n", object["data"]["kubeconfig"].as_str().unwrap());
        object["data"] = serde_json::json!({ "kubeconfig": other });
        let other = Fault::Answer(Canned::status(200).saying(object.to_string()));
        let once = [other.clone(), Fault::Forward];
        assert!(matches!(look_through(&once, Fault::Forward).await, Status::Pending { .. }));
        let twice = [other.clone(), Fault::Forward, other];
        assert_eq!(broken(look_through(&twice, Fault::Forward).await).code, "cluster-info-changed");

        // Nothing is wrong with a slow one.
        let slow = Fault::Slow(Duration::from_millis(200));
        assert!(matches!(look_through(&[], slow).await, Status::Pending { .. }));
    });
}

#[test]
fn an_odd_control_plane_gets_the_right_verdict() {
    let odd = Scene::set(ClusterOptions { no_anonymous_access: true, ..ClusterOptions::default() });
    on_this_thread(async {
        let orders = odd.orders("gpu-1", odd.cluster.endpoint());
        assert_eq!(broken(look(&orders).await).code, "anonymous-access-off");
    });
    drop(odd);
    let scene = Scene::set(ClusterOptions::default());
    on_this_thread(async {
        let orders = scene.orders("gpu-1", scene.cluster.endpoint());
        // Without a pin only a signature proves anything.
        let unknown = Orders { pin: None, token: "zzzzzz.0000000000000000".to_owned(), ..orders.clone() };
        assert_eq!(broken(look(&unknown).await).code, "token-unsigned");
        scene.cluster.kubectl(&["delete", "configmap", "-n", "kube-public", "cluster-info"]).unwrap();
        assert_eq!(broken(look(&orders).await).code, "cluster-info-missing");
    });
}
