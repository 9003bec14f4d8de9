//! From a machine that never joined to a member, and what is found out when k3s does not get there.

use super::*;

const ALL: &str = "\
# Written by gpuk-agent; k3s reads it after config.yaml, and a \"+\" adds to what stands there.
# Registers with: --provider-id=aws:///a/i-1 --node-labels=example.com/pool=gpu --register-with-taints=a=b:NoSchedule
";

/// The lines of the drop-in that are no comments.
fn settings(machine: &Machine) -> String {
    machine.read(DROP_IN).unwrap().lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(start_paused = true)]
async fn k3s_is_told_a_server_that_proved_itself_and_everything_that_the_node_registers_with() {
    let machine = Machine::new(&[(A, Server::good())])
        .set("node.labels", Some("example.com/pool=gpu"))
        .set("node.taints", Some("a=b:NoSchedule"))
        .set("node.ip", Some("10.0.0.7"))
        .set("node.provider-id", Some("aws:///a/i-1"))
        .set("node.kubelet-extra-args", Some("--max-pods=60"))
        .set("containerd.default-runtime", Some("nvidia"))
        .set("containerd.pause-image", Some("registry.example.com/pause:3.10"));
    let made = machine.make().await;
    let written = [format!("write {TOKEN_FILE}"), format!("write {DROP_IN}")];
    let rest = ["sync file systems", "enable k3s-agent.service", "start k3s-agent.service"].map(str::to_owned);
    assert_eq!(made, written.into_iter().chain(rest).collect::<Vec<_>>());
    assert!(machine.read(DROP_IN).unwrap().starts_with(ALL), "{}", machine.read(DROP_IN).unwrap());
    let mut lines: Vec<String> = settings(&machine).lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected = [
        "server: \"https://10.0.0.1:6443\"",
        "token-file: \"/etc/rancher/k3s/gpuk-agent-token\"",
        "node-name: \"gpu-1\"",
        "node-ip: \"10.0.0.7\"",
        "default-runtime: \"nvidia\"",
        "pause-image: \"registry.example.com/pause:3.10\"",
        "node-label+:",
        "  - \"example.com/pool=gpu\"",
        "node-taint+:",
        "  - \"a=b:NoSchedule\"",
        "kubelet-arg+:",
        "  - \"provider-id=aws:///a/i-1\"",
        "  - \"max-pods=60\"",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test(start_paused = true)]
async fn the_token_is_in_one_file_that_only_root_reads() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new(&[(A, Server::good())]);
    let (why, changes) = machine.pending(&Join).await;
    assert!(!format!("{why} {changes:?}").contains(PASSWORD), "{changes:?}");
    machine.make().await;
    let mode = |path: &str| std::fs::metadata(machine.folder.path().join(&path[1..])).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(TOKEN_FILE), mode(DROP_IN)), (0o600, 0o644));
    assert_eq!(machine.read(TOKEN_FILE).unwrap(), format!("K10{HASH}::node:{PASSWORD}\n"));
    assert!(!machine.read(DROP_IN).unwrap().contains(PASSWORD));
}

#[tokio::test(start_paused = true)]
async fn a_second_look_changes_nothing() {
    let server = Server::good();
    let mut machine = Machine::new(&[(A, server.clone()), (B, Server::good())]);
    machine.make().await;
    machine = machine.running_for(5);
    server.asked.borrow_mut().clear();
    assert_eq!(machine.waiting(&Join).await.code, "k3s-joining");
    assert!(server.asked.borrow().is_empty(), "a join under way is left alone");
    machine = machine.running_for(60);
    assert_eq!(machine.waiting(&Join).await.code, "k3s-not-joined");
    machine.join();
    let evidence = machine.ready(&Join).await;
    assert_eq!(evidence, "client certificate valid until 2027-01-01T00:00:00Z, k3s-agent.service active");
    // Settings and join agree on one file.
    machine.date(DROP_IN, 60);
    machine.ready(&crate::steps::kubelet::Kubelet).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_that_k3s_was_told_stays_while_it_is_good() {
    let mut machine = Machine::new(&[(A, Server::good()), (B, Server::good())]).set("cluster.endpoints", Some(B));
    machine.make().await;
    machine = machine.set("cluster.endpoints", Some(&format!("{A},{B}"))).running_for(60);
    assert_eq!(machine.waiting(&Join).await.code, "k3s-not-joined");
    machine.servers.retain(|(endpoint, _)| *endpoint == A);
    let made = machine.build().make().await;
    assert_eq!(made.last().map(String::as_str), Some("restart k3s-agent.service"));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_password_is_told_from_a_wrong_role_and_only_after_k3s_asked() {
    let server = Server { bound: Some("of the machine before"), ..Server::good() };
    let mut machine = Machine::new(&[(A, server.clone())]);
    machine.write("/etc/rancher/node/password", "mine\n");
    machine.make().await;
    assert!(!server.was_asked("/v1-k3s/client-kubelet.crt"), "who asks first binds the name");
    machine = machine.running_for(60);
    let finding = machine.broken(&Join).await;
    assert_eq!(finding.code, "node-password-rejected");
    assert!(finding.why.contains("hash does not match") && !finding.why.contains("mine"), "{}", finding.why);
    for words in [
        "kubectl -n kube-system delete secret gpu-1.node-password.k3s",
        "name-taken = \"suffix\"",
        "keep /etc/rancher/node/password",
    ] {
        assert!(finding.remedy.contains(words), "{}", finding.remedy);
    }
    // As with k3s's own with-node-id, but under a name that the agent knows.
    let machine = machine.set("node.name-taken", Some("suffix"));
    let (why, changes) = machine.pending(&Join).await;
    assert!(why.contains("another machine has gpu-1: HTTP 403"), "{why}");
    for change in &changes {
        machine.host.apply(change).await.unwrap();
    }
    assert!(machine.make().await.contains(&format!("write {DROP_IN}")));
    assert!(settings(&machine).contains("node-name: \"gpu-1-"), "{}", settings(&machine));
}

#[tokio::test(start_paused = true)]
async fn what_only_k3s_can_see_is_read_from_its_journal() {
    let mut machine = Machine::new(&[(A, Server::good())]);
    machine.make().await;
    let line = "time=\"2026-06-01T00:00:00Z\" level=fatal msg=\"starting kubernetes: preparing server: start managed database: joining etcd cluster: etcd: duplicate node name found\"";
    machine.log = format!(
        "{line}\ntime=x level=info msg=\"Waiting to retrieve agent configuration; server is not ready: K10{HASH}::node:{PASSWORD}\"\n"
    );
    machine = machine.running_for(60);
    let finding = machine.broken(&Join).await;
    assert_eq!(finding.code, "etcd-member-stale");
    assert!(finding.why.contains("duplicate node name found") && finding.remedy.contains("etcdctl member remove"), "{finding:?}");
    machine.log = machine.log.lines().skip(1).collect();
    machine = machine.build();
    let finding = machine.waiting(&Join).await;
    assert!(finding.code == "k3s-not-joined" && finding.why.contains("server is not ready: (secret)"), "{finding:?}");
    assert!(!finding.why.contains(PASSWORD));
    // One that cannot even start.
    machine.log = "level=fatal msg=\"failed to find memory cgroup (v2)\"\n".to_owned();
    machine.unit.active = "activating".to_owned();
    machine.unit.sub = "auto-restart".to_owned();
    assert_eq!(machine.build().broken(&Join).await.code, "k3s-cgroups");
}

#[tokio::test(start_paused = true)]
async fn a_server_joins_with_names_for_its_certificate() {
    let server = Server { bound: Some("another"), ..Server::good() };
    let endpoints = "https://k3s.example.com:6443,https://10.0.0.1:6443";
    let machine = Machine::new(&[(A, server.clone())]).set("cluster.endpoints", Some(endpoints));
    let machine = machine.set("node.role", Some("control-plane"));
    let made = machine.make().await;
    assert_eq!(made.last().map(String::as_str), Some("start k3s.service"));
    let names = "tls-san+:\n  - \"k3s.example.com\"\n  - \"10.0.0.1\"\n";
    assert!(settings(&machine).contains(names), "{}", settings(&machine));
    assert!(!settings(&machine).contains("cluster-init"));
    assert_eq!(machine.read(TOKEN_FILE).unwrap(), format!("K10{HASH}::server:{PASSWORD}\n"));
    machine.write("/etc/rancher/node/password", "mine\n");
    assert_eq!(machine.running_for(60).waiting(&Join).await.code, "k3s-not-joined");
    assert!(!server.was_asked("/v1-k3s/client-kubelet.crt"), "a server asks itself for its certificate");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_only_where_that_is_said() {
    let server = || Machine::new(&[]).set("node.role", Some("control-plane")).set("cluster.init", Some("this-node"));
    let machine = server().set("cluster.token", Some(PASSWORD));
    machine.make().await;
    assert!(
        settings(&machine).contains("cluster-init: true\n") && !settings(&machine).contains("server:"),
        "{}",
        settings(&machine)
    );
    assert_eq!(machine.read(TOKEN_FILE).unwrap(), format!("{PASSWORD}\n"));
    // k3s makes a token by itself.
    let machine = server().set("cluster.token", None).set("cluster.endpoints", None);
    machine.make().await;
    assert!(machine.read(TOKEN_FILE).is_none() && !settings(&machine).contains("token-file"));
    let machine = machine.running_for(60);
    assert_eq!(machine.waiting(&Join).await.code, "k3s-starting");
    machine.join();
    machine.ready(&Join).await;
    // The hash of a CA that is not made yet is another cluster's.
    assert_eq!(server().broken(&Join).await.code, "token-of-another-cluster");
    // An agent never makes a cluster.
    let agent = Machine::new(&[]).set("cluster.init", Some("this-node"));
    assert_eq!(agent.waiting(&Join).await.code, "endpoint-unreachable");
}
