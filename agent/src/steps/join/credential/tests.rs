//! Every source in its turn, on a machine made of a folder.

use std::path::Path;

use super::super::fixtures::{CA, CA_PIN, OTHER_CA_PIN};
use super::super::tests::{A, Machine, SECRET, Server, TOKEN};
use super::verdict::of_ssh;
use super::*;
use crate::host::network::{Answer, ScriptedNetwork, UnreachableKind};
use crate::host::programs::{End, Output};
use crate::step::{Finding, Step};
use crate::steps::join::Join;

/// The right id with a wrong secret: the cluster's signature does not fit.
const WRONG: &str = "abcdef.fedcba9876543210";
const URL: &str = "https://store.example.com/token";
const REFUSED: &str = "ssh: connect to host cp1 port 22: Connection refused";

fn said(code: i32, stdout: &str, stderr: &str) -> Output {
    Output { code: Some(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// How the command lines for a host end.
fn command_of(token: &str) -> String {
    format!("kubeadm join 10.0.0.1:6443 --token {token} --discovery-token-ca-cert-hash {CA_PIN}\n")
}

/// Asks two hosts, then the static token.
fn asking(first: Output, second: Output) -> Machine {
    let mut machine = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.ssh.hosts", Some("cp1,cp2:2222"));
    machine.write("/etc/gpuk/join-key", "a key");
    // The fake knows a command line by its beginning.
    for (port, host, output) in [("22", "cp1", first), ("2222", "cp2", second)] {
        let Found::Unasked(changes) = ssh_of(&machine, port, host) else { panic!("asked already") };
        let Some(Change::Ask(asking)) = changes.last() else { panic!("{changes:?}") };
        machine.programs.push((asking.command.to_string().leak(), output));
    }
    machine
}

fn ssh_of(machine: &Machine, port: &str, host: &str) -> Found {
    let (host, port) = (host.to_owned(), port.parse().unwrap());
    let (fakes, config, facts) = (machine.host(), machine.config(), machine.facts());
    let host = SshHost { host, port };
    ssh::look(Look::new(&fakes, &config, &facts), Source::Ssh(&host), &host)
}

/// Looks and asks until nobody is to be asked any more; the hosts and programs that were asked, and the last status.
async fn settle(machine: &Machine) -> (Vec<String>, Status) {
    let mut asked = Vec::new();
    loop {
        let status = machine.check().await;
        let Status::Pending { changes, .. } = &status else { return (asked, status) };
        if !changes.iter().any(|change| matches!(change, Change::Ask(_))) {
            return (asked, status);
        }
        let host = machine.host();
        for change in changes {
            host.apply(change).await.unwrap();
            if let Change::Ask(asking) = change {
                asked.push(asking.keep.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
}

fn found(status: Status) -> (bool, Finding) {
    match status {
        Status::Waiting(finding) => (true, finding),
        Status::Broken(finding) => (false, finding),
        other => panic!("no finding: {other:?}"),
    }
}

fn why(status: &Status) -> &str {
    match status {
        Status::Pending { why, .. } => why,
        other => panic!("not pending: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_asks_nobody_and_shows_what_it_would() {
    let machine = asking(said(0, TOKEN, ""), said(0, TOKEN, ""));
    let (host, config, facts) = (machine.host(), machine.config(), machine.facts());
    for _ in 0..3 {
        let status = Join.check(Look::new(&host, &config, &facts)).await.unwrap();
        assert!(why(&status).contains("ssh cp1 is to be asked"), "{status:?}");
        let Status::Pending { changes, .. } = status else { panic!() };
        assert_eq!(changes.len(), 1);
        let line = changes[0].to_string();
        for option in ["-F none", "BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none"] {
            assert!(line.contains(option), "{option}: {line}");
        }
        assert!(line.contains(r#"IdentityFile="/etc/gpuk/join-key" -p 22 -l gpuk-join -- cp1 token"#), "{line}");
    }
    assert!(!host.files.exists(Path::new("/run/gpuk-agent/join")).unwrap(), "something was written");
}

#[tokio::test(start_paused = true)]
async fn the_first_host_that_makes_a_token_is_enough() {
    let machine = asking(said(0, &command_of(TOKEN), ""), said(1, "", "")).set("cluster.token", None);
    let (asked, status) = settle(&machine).await;
    assert_eq!(asked, ["ssh-cp1-22"]);
    assert!(why(&status).contains("accepts its token") && !why(&status).contains("warning"), "{status:?}");
    assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
    let Status::Pending { changes, .. } = status else { panic!() };
    let last = changes.last().map(ToString::to_string);
    assert_eq!(last.as_deref(), Some("remove /run/gpuk-agent/join/answers/ssh-cp1-22"));
}

#[tokio::test(start_paused = true)]
async fn hosts_and_sources_are_tried_in_their_order() {
    let machine = asking(said(255, "", REFUSED), said(0, &command_of(WRONG), ""));
    let mut machine = machine
        .set("cluster.token-file", Some("/run/token"))
        .set("cluster.token-url", Some(URL))
        .set("cluster.token-url-ca-file", Some("/etc/ca.crt"))
        .set("cluster.token-command", Some("/usr/bin/token,--pool=gpu"));
    machine.programs.push(("/usr/bin/token --pool=gpu", said(1, "", "no such pool")));
    let (asked, status) = settle(&machine).await;
    assert_eq!(asked, ["ssh-cp1-22", "ssh-cp2-2222", "command"]);
    let places: Vec<_> = ["ssh cp1: ", "ssh cp2:2222: ", "/run/token: ", URL, "/usr/bin/token: "]
        .iter()
        .map(|source| why(&status).find(&format!("warning: {source}")))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{status:?}");
    // Each earlier source wins as soon as it has a token.
    machine.write("/run/token", TOKEN);
    let status = machine.check().await;
    assert!(why(&status).contains("ssh cp2:2222: ") && !why(&status).contains(URL), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_all_are_told_and_what_a_person_should_mend_stands_first() {
    let machine =
        asking(said(255, "", REFUSED), said(255, "", "Permission denied (publickey).")).set("cluster.token", Some(WRONG));
    let (waits, finding) = found(settle(&machine).await.1);
    assert!(waits, "the first host may come back");
    assert_eq!(finding.code, "ssh-key-refused");
    assert!(finding.why.starts_with("ssh cp2:2222: Permission denied"), "{}", finding.why);
    for seen in ["ssh cp1: ssh: connect to host", "Connection refused", "cluster.token: https://10.0.0.1:6443: the signature"] {
        assert!(finding.why.contains(seen), "{seen}: {}", finding.why);
    }
    // What looks like an attack comes before everything.
    let changed = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.";
    let machine =
        asking(said(255, "", "Permission denied (publickey)."), said(255, "", changed)).set("cluster.token", Some(WRONG));
    let (waits, finding) = found(settle(&machine).await.1);
    assert!(!waits && finding.code == "ssh-host-key-changed", "{finding:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_failed_is_asked_again_after_a_pause_that_grows() {
    let mut machine = asking(said(255, "", REFUSED), said(255, "", REFUSED)).set("cluster.token", None);
    assert_eq!(settle(&machine).await.0, ["ssh-cp1-22", "ssh-cp2-2222"]);
    assert!(settle(&machine).await.0.is_empty());
    machine.now += 14;
    assert!(settle(&machine).await.0.is_empty());
    machine.now += 1;
    assert_eq!(settle(&machine).await.0, ["ssh-cp1-22", "ssh-cp2-2222"]);
    machine.now += 29;
    assert!(settle(&machine).await.0.is_empty());
    machine.now += 1;
    let Status::Pending { changes, .. } = machine.check().await else { panic!("not asked") };
    // Each time is another change, or the engine would take it for one that does not hold.
    assert!(matches!(changes.last(), Some(Change::Ask(asking)) if asking.attempt == 3), "{changes:?}");
    // A source that works is never passed over for one that may.
    let machine = machine.set("cluster.token", Some(TOKEN));
    assert!(why(&machine.check().await).contains("accepts its token"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_forgotten_when_it_dies_or_is_refused() {
    let mut machine = asking(said(0, &command_of(TOKEN), ""), said(0, &command_of(TOKEN), "")).set("cluster.token", None);
    settle(&machine).await;
    machine.now += 299;
    assert!(settle(&machine).await.0.is_empty());
    machine.now += 1;
    assert_eq!(settle(&machine).await.0, ["ssh-cp1-22"]);
    // The clock was set back by an hour: nobody knows how old it is.
    machine.now -= 3600;
    assert_eq!(settle(&machine).await.0, ["ssh-cp1-22"]);

    let mut machine = asking(said(0, WRONG, ""), said(0, WRONG, "")).set("cluster.token", None);
    let (asked, status) = settle(&machine).await;
    let finding = found(status).1;
    assert_eq!((asked.len(), finding.code.as_str()), (2, "token-secret-wrong"));
    assert!(finding.remedy.contains("cp1 is a control plane node"), "{finding:?}");
    machine.now += 15;
    assert_eq!(settle(&machine).await.0.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_a_known_host_may_say_the_pin() {
    let unpinned = |machine: Machine| machine.set("cluster.ca-cert-hashes", None).set("cluster.token", None);
    let machine = unpinned(asking(said(0, &command_of(TOKEN), ""), said(1, "", "")));
    assert!(why(&settle(&machine).await.1).contains("accepts its token"));
    // The pin that it says is held against the cluster.
    let other = command_of(TOKEN).replace(CA_PIN, OTHER_CA_PIN);
    let machine = unpinned(asking(said(0, &other, ""), said(1, "", "")));
    assert_eq!(found(settle(&machine).await.1).1.code, "pin-mismatch");
    let machine = unpinned(asking(said(0, TOKEN, ""), said(255, "", REFUSED)));
    assert_eq!(found(settle(&machine).await.1).1.code, "pin-missing");
    let machine = unpinned(asking(said(255, "", REFUSED), said(255, "", REFUSED))).set("cluster.token-file", Some("/run/token"));
    machine.write("/run/token", &command_of(TOKEN));
    assert_eq!(found(settle(&machine).await.1).1.code, "pin-missing");
}

#[tokio::test(start_paused = true)]
async fn a_pin_beside_a_token_must_be_a_configured_one() {
    let other = command_of(TOKEN).replace(CA_PIN, OTHER_CA_PIN);
    let machine = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.token", Some(&other));
    let (waits, finding) = found(machine.check().await);
    assert!(!waits && finding.code == "pin-differs", "{finding:?}");
    assert!(finding.why.contains(OTHER_CA_PIN) && finding.why.contains(CA_PIN), "{finding:?}");
    let machine = machine.set("cluster.token", Some(&command_of(TOKEN)));
    assert!(why(&machine.check().await).contains("accepts its token"));
}

#[tokio::test(start_paused = true)]
async fn pinned_host_keys_go_into_a_file_of_their_own() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3ks8yLN4XGRMf6QzvfPgg5gYcxKVlNKVNjMcRUvK2x";
    let machine = asking(said(0, TOKEN, ""), said(0, TOKEN, "")).set("cluster.ssh.host-keys", Some(key));
    let Status::Pending { changes, .. } = machine.check().await else { panic!("not pending") };
    let Change::Write { contents, .. } = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(String::from_utf8_lossy(&contents.bytes), format!("* {key}\n"));
    assert!(changes[1].to_string().contains(r#"UserKnownHostsFile="/run/gpuk-agent/join/known_hosts""#), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn without_its_key_no_host_is_asked() {
    let machine = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.ssh.hosts", Some("cp1")).set("cluster.token", None);
    let (asked, status) = settle(&machine).await;
    let (waits, finding) = found(status);
    assert!(asked.is_empty() && !waits && finding.code == "ssh-key-missing", "{finding:?}");
}

#[test]
fn every_way_in_which_ssh_fails_has_its_verdict() {
    let host = SshHost { host: "cp1".to_owned(), port: 22 };
    let judged = |said: Result<&Output, &End>| {
        let status = verdict::status(&[of_ssh(Source::Ssh(&host), said)]);
        let (waits, finding) = found(status);
        (waits, finding.code.clone(), finding)
    };
    for (stderr, code, waits) in [
        (REFUSED, "ssh-unreachable", true),
        ("ssh: Could not resolve hostname cp1: Name or service not known", "ssh-unreachable", true),
        ("kex_exchange_identification: Connection closed by remote host", "ssh-unreachable", true),
        (
            "No ED25519 host key is known for cp1 and you have requested strict checking.\nHost key verification failed.",
            "ssh-host-key-unknown",
            false,
        ),
        ("Unable to negotiate with 10.0.0.1 port 22: no matching host key type found.", "ssh-host-key-unknown", false),
        ("Host key verification failed.", "ssh-host-key-changed", false),
        ("Load key \"/k\": error in libcrypto\nroot@cp1: Permission denied (publickey).", "ssh-key-unusable", false),
        ("root@cp1: Permission denied (publickey).", "ssh-key-refused", false),
    ] {
        let (is_waiting, found, finding) = judged(Ok(&said(255, "", stderr)));
        assert_eq!((found.as_str(), is_waiting), (code, waits), "{stderr}");
        assert!(finding.why.starts_with("ssh cp1: ") && !finding.why.contains('\n'), "{}", finding.why);
    }
    for (end, code, waits) in [
        (Ok(said(75, "", "30 tokens were made within a minute: try again in 7 s")), "ssh-not-now", true),
        (Ok(said(1, "", "the API server makes none")), "ssh-refused", false),
        (Err(End::TooSlow), "ssh-unreachable", true),
        (Err(End::NotStarted("No such file or directory".to_owned())), "ssh-missing", false),
    ] {
        let (is_waiting, found, _) = judged(end.as_ref());
        assert_eq!((found.as_str(), is_waiting), (code, waits));
    }
    // What it repeats of a token is not shown on.
    let told = judged(Ok(&said(1, "", &format!("bad --token={TOKEN}")))).2;
    assert!(told.why.contains("bad (secret)") && !told.why.contains(SECRET), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_gives_no_token_says_why() {
    let with = |output: Output| {
        let mut machine = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.token", None);
        machine.programs.push(("/usr/bin/token", output));
        machine.set("cluster.token-command", Some("/usr/bin/token"))
    };
    for (output, code, waits) in [
        (said(1, TOKEN, "vault is sealed"), "token-command-failed", false),
        (said(75, "", "busy"), "token-command-failed", true),
        (said(0, "no token here", ""), "token-malformed", false),
        (said(0, &"x".repeat(CAP + 1), ""), "token-malformed", false),
    ] {
        let (is_waiting, finding) = found(settle(&with(output)).await.1);
        assert_eq!((finding.code.as_str(), is_waiting), (code, waits));
        assert!(!format!("{finding:?}").contains(SECRET) && !finding.why.contains("no token here"), "{finding:?}");
    }
    let missing = Machine::fresh(&[A]).set("cluster.token", None).set("cluster.token-command", Some("/usr/bin/none"));
    assert_eq!(found(settle(&missing).await.1).1.code, "token-command-missing");
    assert!(why(&settle(&with(said(0, TOKEN, ""))).await.1).contains("accepts its token"));
}

#[tokio::test(start_paused = true)]
async fn a_web_server_is_believed_under_its_ca_alone() {
    let machine = Machine::fresh(&[A]).with(A, Server::good()).set("cluster.token", None);
    let machine = machine.set("cluster.token-url", Some(URL)).set("cluster.token-url-ca-file", Some("/etc/ca.crt"));
    assert_eq!(found(machine.check().await).1.code, "token-url-ca-unusable");
    machine.write("/etc/ca.crt", "nothing");
    assert_eq!(found(machine.check().await).1.code, "token-url-ca-unusable");
    machine.write("/etc/ca.crt", CA);
    let (config, facts) = (machine.config(), machine.facts());
    let answer = |status: u16, body: &str| Ok(Answer { status, date: None, retry_after: None, body: body.as_bytes().to_vec() });
    let failed = |kind| Err(crate::host::network::Unreachable { kind, text: "why".to_owned() });
    for (answer, code, waits) in [
        (answer(404, ""), "token-url-refused", true),
        (answer(503, ""), "token-url-refused", true),
        (answer(302, ""), "token-url-refused", false),
        (answer(403, ""), "token-url-refused", false),
        (answer(200, "<html>"), "token-malformed", false),
        (failed(UnreachableKind::Refused), "token-url-unreachable", true),
        (failed(UnreachableKind::UnknownAuthority), "token-url-not-trusted", false),
        (failed(UnreachableKind::TooLarge), "token-malformed", false),
        (answer(200, TOKEN), "", false),
    ] {
        let mut host = machine.host();
        let network = ScriptedNetwork::default().answering(URL, move |request| {
            assert!(request.bearer.is_none() && request.trust == Trust::Only(CA.to_owned()));
            answer.clone()
        });
        host.network = Box::new(network.answering(A, |request| Server::good().get(request)));
        let status = Join.check(Look::new(&host, &config, &facts)).await.unwrap();
        if code.is_empty() {
            assert!(why(&status).contains("accepts its token"), "{status:?}");
        } else {
            let (is_waiting, finding) = found(status);
            assert_eq!((finding.code.as_str(), is_waiting), (code, waits));
        }
    }
}
