//! One test a row of the verdicts' table, and what is believed.

use super::super::authority::{Disbelief, believe};
use super::*;
use crate::steps::join::fixtures::{CA_PIN, OTHER_CA};

async fn broken_by(server: Server) -> Finding {
    Machine::new(&[(A, server)]).broken(&Join).await
}

async fn waiting_for(server: Server) -> Finding {
    Machine::new(&[(A, server)]).waiting(&Join).await
}

#[tokio::test(start_paused = true)]
async fn a_good_server_passes_and_a_dead_one_does_not_delay_it() {
    let mut machine =
        Machine::new(&[(B, Server::good())]).set("cluster.endpoints", Some("https://10.0.0.9:6443,https://10.0.0.2:6443"));
    machine = machine.build();
    let (why, _) = machine.pending(&Join).await;
    assert!(why.starts_with(&format!("this machine has not joined a cluster; {B} accepts its token")), "{why}");
    assert!(why.contains("warning: https://10.0.0.9:6443: connection refused"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_down_or_busy_or_starting_are_waited_for() {
    assert_eq!(Machine::new(&[]).waiting(&Join).await.code, "endpoint-unreachable");
    for (path, status) in [("/cacerts", 503), ("/cacerts", 429), ("/v1-k3s/config", 429), ("/v1-k3s/config", 503)] {
        let finding = waiting_for(Server::good().answering(path, status, said("apiserver not ready"))).await;
        assert_eq!(finding.code, "endpoint-busy", "{path} {status}");
        assert!(finding.why.contains(&status.to_string()) && finding.why.contains("not ready"), "{}", finding.why);
    }
    let finding = waiting_for(Server::good().answering("/v1-k3s/readyz", 503, said("runtime core not ready"))).await;
    assert!(finding.code == "endpoint-starting" && finding.why.contains("runtime core not ready"), "{finding:?}");
    let finding = waiting_for(Server::good().answering("/v1-k3s/apiservers", 200, json!([]))).await;
    assert_eq!(finding.code, "endpoint-starting");
}

#[tokio::test(start_paused = true)]
async fn another_ca_stops_the_join_before_the_token_is_shown() {
    let liar = Server { cacerts: OTHER_CA.to_owned(), ..Server::good() };
    let finding = broken_by(liar.clone()).await;
    assert_eq!(finding.code, "ca-mismatch");
    assert!(finding.why.contains(HASH) && finding.why.contains(&crate::digest::sha256(OTHER_CA.as_bytes())), "{}", finding.why);
    assert_eq!(*liar.asked.borrow(), ["/cacerts"]);
    // Beside it, a good one still wins, in either order.
    for servers in [[(A, liar.clone()), (B, Server::good())], [(B, Server::good()), (A, liar)]] {
        let (why, changes) = Machine::new(&servers).pending(&Join).await;
        assert!(why.contains(&format!("{B} accepts")) && !format!("{changes:?}").contains(A), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_does_not_know_says_so_only_once_the_server_is_up() {
    let stranger = Server { takes: Vec::new(), ..Server::good() };
    let finding = broken_by(stranger.clone()).await;
    assert_eq!(finding.code, "token-rejected");
    assert!(finding.why.contains("HTTP 401: not authorized") && finding.remedy.contains("node-token"), "{finding:?}");
    assert_eq!(stranger.asked.borrow().iter().filter(|path| *path == "/v1-k3s/config").count(), 2, "a refusal must stand");
    let finding = waiting_for(stranger.clone().answering(":6443/readyz", 503, said("apiserver not ready"))).await;
    assert!(finding.code == "endpoint-starting" && finding.why.contains("HTTP 401"), "{finding:?}");
    // A server of etcd alone never has an API server.
    let finding = broken_by(stranger.answering(":6443/readyz", 503, said("apiserver disabled"))).await;
    assert_eq!(finding.code, "token-rejected");
}

#[tokio::test(start_paused = true)]
async fn a_token_for_another_role_says_so() {
    let finding = broken_by(Server::good().answering("/v1-k3s/config", 403, said("forbidden"))).await;
    assert!(finding.code == "token-wrong-role" && finding.what.contains("k3s agent"), "{finding:?}");
    let server = Server::good().answering("/v1-k3s/encrypt/status", 403, said("forbidden"));
    let machine = Machine::new(&[(A, server.clone())]).set("node.role", Some("control-plane"));
    let finding = machine.broken(&Join).await;
    assert!(finding.code == "token-wrong-role" && finding.what.contains("k3s server"), "{finding:?}");
    assert!(!server.was_asked("/v1-k3s/config"), "a server's token does not open what is for agents");
}

#[tokio::test(start_paused = true)]
async fn certificates_that_do_not_hold_say_why() {
    let failing = |kind, ahead| Server { tls: Some(kind), ahead, ..Server::good() };
    assert_eq!(broken_by(failing(UnreachableKind::UnknownAuthority, 0)).await.code, "certificate-unknown-authority");
    let finding = broken_by(failing(UnreachableKind::WrongName, 0)).await;
    assert!(finding.code == "certificate-wrong-name" && finding.remedy.contains("tls-san"), "{finding:?}");
    assert_eq!(broken_by(failing(UnreachableKind::CertificateDates, 5)).await.code, "certificate-dates");
    let finding = waiting_for(failing(UnreachableKind::CertificateDates, 7200)).await;
    assert!(finding.code == "clock-wrong" && finding.why.contains("7200 s behind the server's"), "{finding:?}");
    let mut late = Machine::new(&[(A, Server::good())]);
    late.now = 2_100_000_000;
    assert_eq!(late.build().waiting(&Join).await.code, "clock-wrong");
    let (why, _) = Machine::new(&[(A, Server { ahead: -1800, ..Server::good() })]).pending(&Join).await;
    assert!(why.contains("warning: this machine's clock is 1800 s ahead of the server's"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_k3s_server_or_changes_its_mind_is_not_believed() {
    for (status, body) in [(404, json!("<html>")), (200, json!("hello"))] {
        assert_eq!(broken_by(Server::good().answering("/cacerts", status, body)).await.code, "not-a-k3s-server");
    }
    let finding = broken_by(Server::good().answering("/v1-k3s/config", 200, json!("<html>"))).await;
    assert_eq!(finding.code, "not-a-k3s-server");
    let server = Server { two_faced: true, ..Server::good() };
    assert_eq!(broken_by(server.clone()).await.code, "ca-changed");
    assert!(!server.was_asked("/v1-k3s/config"));
}

#[tokio::test(start_paused = true)]
async fn a_short_token_needs_a_pin_or_a_word_that_hurts() {
    let machine = |pin: Option<&str>| {
        Machine::new(&[(A, Server::good())]).set("cluster.token", Some(PASSWORD)).set("cluster.ca-cert-hashes", pin)
    };
    // A key that is missing is named before anything else.
    assert_eq!(machine(None).broken(&Join).await.code, "join-not-configured");
    let in_file = machine(None).set("cluster.token", None).set("cluster.token-file", Some("/run/token"));
    assert_eq!(in_file.waiting(&Join).await.code, "token-missing");
    in_file.write("/run/token", PASSWORD);
    assert_eq!(in_file.broken(&Join).await.code, "token-without-hash");
    in_file.write("/run/token", &format!("K10{HASH}"));
    assert_eq!(in_file.broken(&Join).await.code, "token-malformed");
    // Kubernetes' kind of pin and k3s's own: k3s is given the long form, so that it checks, too.
    for pin in [CA_PIN.to_owned(), format!("sha256:{HASH}")] {
        let machine = machine(Some(&pin));
        machine.make().await;
        assert_eq!(machine.read(TOKEN_FILE).unwrap(), format!("K10{HASH}::node:{PASSWORD}\n"));
    }
    let wrong = machine(Some(&format!("sha256:{}", "0a".repeat(32))));
    assert_eq!(wrong.broken(&Join).await.code, "ca-mismatch");
    let skipping = machine(None).set("cluster.unsafe-skip-ca-verification", Some("true"));
    let (why, _) = skipping.pending(&Join).await;
    assert!(why.contains("was not verified"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_token_is_for_agents() {
    let bootstrap = format!("K10{HASH}::abcdef.0123456789abcdef");
    let server = Server { takes: vec!["Bearer abcdef.0123456789abcdef".to_owned()], ..Server::good() };
    let machine = Machine::new(&[(A, server)]).set("cluster.token", Some(&bootstrap));
    machine.make().await;
    assert_eq!(machine.read(TOKEN_FILE).unwrap(), format!("{bootstrap}\n"));
    let machine = Machine::new(&[(A, Server::good())]).set("cluster.token", Some(&bootstrap));
    assert_eq!(machine.set("node.role", Some("control-plane")).broken(&Join).await.code, "token-wrong-role");
}

/// k3s would believe every CA that comes with a good root.
#[test]
fn of_a_chain_only_the_pinned_root_is_believed() {
    let chain = format!("{NODE_CERTIFICATE}{CA}");
    let with_stranger = format!("{NODE_CERTIFICATE}{OTHER_CA}{CA}");
    for cacerts in [&chain, &with_stranger] {
        for (hash, pins) in
            [(Some(ROOT_HASH), vec![]), (None, vec![CA_PIN.to_owned()]), (None, vec![format!("sha256:{ROOT_HASH}")])]
        {
            let believed = believe(cacerts.as_bytes(), hash, &pins).unwrap();
            let trusted: Vec<&str> = believed.trusted.iter().map(|authority| authority.pem.as_str()).collect();
            assert_eq!((trusted, believed.hash.as_deref()), (vec![CA], Some(ROOT_HASH)));
        }
    }
    // The hash of one certificate is over its text, and that of a chain is not over the first one.
    assert_eq!(believe(CA.as_bytes(), Some(HASH), &[]).unwrap().hash.as_deref(), Some(HASH));
    assert!(matches!(believe(CA.as_bytes(), Some(ROOT_HASH), &[]), Err(Disbelief::Another(_))));
    assert_eq!(believe(chain.as_bytes(), Some(HASH), &[]), Err(Disbelief::Another(vec![ROOT_HASH.to_owned()])));
    // Both must fit where both are given.
    assert!(matches!(believe(CA.as_bytes(), Some(HASH), &[format!("sha256:{ROOT_HASH}")]), Err(Disbelief::Another(_))));
    assert!(matches!(believe(b"", None, &[]), Err(Disbelief::Unreadable(_))));
}
