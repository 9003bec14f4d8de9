//! One test a row of the verdicts' table, and the race between endpoints.

use super::super::fixtures::{OTHER_CA, OTHER_CA_PIN};
use super::*;

async fn broken_by(server: Server) -> Finding {
    Machine::fresh(&[A]).with(A, server).broken().await
}

async fn waiting_for(server: Server) -> Finding {
    Machine::fresh(&[A]).with(A, server).waiting().await
}

#[tokio::test(start_paused = true)]
async fn a_good_endpoint_passes() {
    let (why, _) = Machine::fresh(&[A]).with(A, Server::good()).pending().await;
    assert_eq!(why, format!("this machine has not joined a cluster; {A} accepts its token"));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_or_dead_endpoint_does_not_delay_a_good_one() {
    let mut machine = Machine::fresh(&[A, "https://10.0.0.9:6443", B]).with(B, Server::good());
    machine.hanging.push(A);
    let start = tokio::time::Instant::now();
    let (why, _) = machine.pending().await;
    assert!(why.contains(&format!("{B} accepts its token")), "{why}");
    assert!(why.contains("warning: https://10.0.0.9:6443: connection refused"), "{why}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lying_endpoint_loses_and_costs_nothing() {
    let mut liar = Server::good();
    liar.ca = OTHER_CA;
    liar.sign_with(TOKEN);
    for (first, second) in [(A, B), (B, A)] {
        let machine = Machine::fresh(&[first, second]).with(A, liar.clone()).with(B, Server::good());
        let (why, changes) = machine.pending().await;
        assert!(why.contains(&format!("{B} accepts its token")), "{why}");
        assert!(!format!("{changes:?}").contains(A), "{changes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_is_listed_and_the_gravest_decides() {
    let mut liar = Server::good();
    liar.ca = OTHER_CA;
    liar.sign_with(TOKEN);
    let wrong_name = Server { tls: Some(UnreachableKind::WrongName), ..Server::good() };
    let c = "https://10.0.0.3:6443";
    let finding = Machine::fresh(&[A, B, c]).with(A, wrong_name.clone()).with(c, liar).broken().await;
    assert_eq!(finding.code, "pin-mismatch");
    let places: Vec<_> = [A, B, c].iter().map(|endpoint| finding.why.find(endpoint)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", finding.why);
    // One that may come back is worth waiting for; a wrong name alone is not.
    assert_eq!(Machine::fresh(&[A, B]).with(A, wrong_name.clone()).waiting().await.code, "endpoint-unreachable");
    assert_eq!(Machine::fresh(&[A]).with(A, wrong_name).broken().await.code, "certificate-wrong-name");
}

#[tokio::test(start_paused = true)]
async fn busy_and_unreachable_servers_are_waited_for() {
    assert_eq!(Machine::fresh(&[A]).waiting().await.code, "endpoint-unreachable");
    for status in [429, 500, 503] {
        let finding = waiting_for(Server::good().answering(CLUSTER_INFO, status, Value::Null)).await;
        assert_eq!(finding.code, "endpoint-busy");
        assert!(finding.why.contains(&status.to_string()), "{}", finding.why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_starting_server_is_not_believed() {
    for (path, status) in [(CLUSTER_INFO, 403), (KUBEADM_CONFIG, 401)] {
        for ready in [403, 500] {
            let server = Server::good().answering(path, status, refusal("no")).answering("/readyz", ready, Value::Null);
            let finding = waiting_for(server).await;
            assert_eq!(finding.code, "endpoint-starting");
            assert!(finding.why.contains(&format!("/readyz says {ready}")), "{}", finding.why);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_only_if_it_stands_after_readyz() {
    let machine = Machine::fresh(&[A]);
    let (config, facts) = (machine.config(), machine.facts());
    let mut host = machine.host();
    let asked = std::cell::Cell::new(0);
    let network = ScriptedNetwork::default().answering(A, move |request| {
        if request.url.ends_with(KUBEADM_CONFIG) {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                return Server::good().answering(KUBEADM_CONFIG, 401, refusal("Unauthorized")).get(request);
            }
        }
        Server::good().get(request)
    });
    host.network = Box::new(network);
    let status = Join.check(Look::new(&host, &config, &facts)).await.unwrap();
    assert!(matches!(status, Status::Pending { .. }), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn cluster_info_that_cannot_be_read_says_why() {
    let server = Server::good().answering(CLUSTER_INFO, 401, refusal("Unauthorized"));
    assert_eq!(broken_by(server.clone()).await.code, "anonymous-access-off");
    assert_eq!(broken_by(server.answering("/readyz", 401, Value::Null)).await.code, "anonymous-access-off");
    let finding = broken_by(Server::good().answering(CLUSTER_INFO, 403, refusal("configmaps is forbidden"))).await;
    assert_eq!(finding.code, "cluster-info-forbidden");
    assert!(finding.what.contains("kubeadm:bootstrap-signer-clusterinfo") && finding.why.contains("is forbidden"));
    let finding = broken_by(Server::good().answering(CLUSTER_INFO, 404, refusal("\"cluster-info\" not found"))).await;
    assert_eq!(finding.code, "cluster-info-missing");
    let finding = broken_by(Server::good().answering(CLUSTER_INFO, 404, "<html>".into())).await;
    assert_eq!(finding.code, "not-an-api-server");
    let finding = broken_by(Server::good().answering(CLUSTER_INFO, 200, json!({"kind": "ConfigMap", "data": {}}))).await;
    assert_eq!(finding.code, "cluster-info-missing");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_signature_is_tried() {
    let unsigned = Server { signatures: Vec::new(), ..Server::good() };
    let finding = broken_by(unsigned.clone().answering(KUBEADM_CONFIG, 401, refusal("Unauthorized"))).await;
    assert_eq!(finding.code, "token-rejected");
    assert!(finding.why.contains("no signature") && finding.why.contains("token abcdef"), "{}", finding.why);
    assert!(finding.remedy.contains("kubeadm token create --print-join-command"), "{}", finding.remedy);
    assert_eq!(waiting_for(unsigned.clone()).await.code, "signer-down");
    // Without a pin nobody vouches for the server, and it must not see the token.
    let machine = Machine::fresh(&[A]).with(A, unsigned);
    let machine = machine.set("cluster.ca-cert-hashes", None).set("cluster.unsafe-skip-ca-verification", Some("true"));
    assert_eq!(machine.broken().await.code, "token-unsigned");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_or_pin_is_told_apart() {
    let mut server = Server::good();
    server.sign_with("abcdef.fedcba9876543210");
    assert_eq!(broken_by(server.clone()).await.code, "token-secret-wrong");
    let machine = Machine::fresh(&[A]).set("cluster.ca-cert-hashes", Some(OTHER_CA_PIN));
    assert_eq!(machine.with(A, server).broken().await.code, "cluster-info-forged");
    let machine = Machine::fresh(&[A]).set("cluster.ca-cert-hashes", Some(OTHER_CA_PIN)).with(A, Server::good());
    let finding = machine.broken().await;
    assert_eq!(finding.code, "pin-mismatch");
    assert!(finding.why.contains(CA_PIN) && finding.why.contains(OTHER_CA_PIN), "{}", finding.why);
    assert!(finding.remedy.contains("openssl pkey -pubin -outform der"), "{}", finding.remedy);
}

#[tokio::test(start_paused = true)]
async fn certificates_that_do_not_hold_say_why() {
    let failing = |kind, ahead| Server { tls: Some(kind), ahead, ..Server::good() };
    let authority = broken_by(failing(UnreachableKind::UnknownAuthority, 0)).await;
    assert_eq!(authority.code, "certificate-unknown-authority");
    assert_eq!(broken_by(failing(UnreachableKind::WrongName, 0)).await.code, "certificate-wrong-name");
    assert_eq!(broken_by(failing(UnreachableKind::CertificateDates, 5)).await.code, "certificate-dates");
    let finding = waiting_for(failing(UnreachableKind::CertificateDates, 7200)).await;
    assert_eq!(finding.code, "clock-wrong");
    assert!(finding.why.contains("7200 s behind the API server's"), "{}", finding.why);
    let mut late = Machine::fresh(&[A]).with(A, Server::good());
    late.now = 2_100_000_000;
    let finding = late.waiting().await;
    assert_eq!(finding.code, "clock-wrong");
    assert!(finding.why.contains("ahead of the API server's") && finding.why.contains("2035-01-01"), "{}", finding.why);
}

#[tokio::test(start_paused = true)]
async fn a_silent_skew_is_only_a_warning() {
    let (why, _) = Machine::fresh(&[A]).with(A, Server { ahead: -1800, ..Server::good() }).pending().await;
    assert!(why.contains("warning: this machine's clock is 1800 s ahead of the API server's"), "{why}");
    let (why, _) = Machine::fresh(&[A]).with(A, Server { ahead: 20, ..Server::good() }).pending().await;
    assert!(!why.contains("warning"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_changes_under_verification_is_not_believed() {
    assert_eq!(broken_by(Server { two_faced: true, ..Server::good() }).await.code, "cluster-info-changed");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_opens_nothing_says_why() {
    let finding = broken_by(Server::good().answering(KUBEADM_CONFIG, 401, refusal("Unauthorized"))).await;
    assert_eq!(finding.code, "token-rejected");
    assert!(finding.why.contains("its secret is right"), "{}", finding.why);
    let finding =
        broken_by(Server::good().answering(KUBEADM_CONFIG, 403, refusal("User \"system:bootstrap:abcdef\" cannot"))).await;
    assert_eq!(finding.code, "token-forbidden");
    assert!(finding.why.contains("system:bootstrap:abcdef"), "{}", finding.why);
}

#[tokio::test(start_paused = true)]
async fn without_a_pin_a_warning_stays() {
    let unsafe_machine = || {
        let machine = Machine::fresh(&[A]).set("cluster.ca-cert-hashes", None);
        machine.set("cluster.unsafe-skip-ca-verification", Some("true"))
    };
    let (why, _) = unsafe_machine().with(A, Server::good()).pending().await;
    assert!(why.contains("was not verified"), "{why}");
    let mut forged = Server::good();
    forged.sign_with("abcdef.fedcba9876543210");
    assert_eq!(unsafe_machine().with(A, forged).broken().await.code, "cluster-info-forged");
}
