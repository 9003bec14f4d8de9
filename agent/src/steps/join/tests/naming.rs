//! The name may be another machine's, which is found out before the join.

use super::*;
use crate::identity::decision::DECISION_FILE;

const UUID: &str = "4C4C4544-0034-5210-8051-CAC04F4A4E32";
const OTHER_UUID: &str = "ec2f1a2b-0034-5210-8051-cac04f4a4e32";

/// A server that has this Node under the machine's name.
fn with_node(machine_id: &str, system_uuid: &str, ready: &str) -> Server {
    let node = json!({"kind": "Node", "metadata": {"name": "gpu-1", "uid": "u-1"}, "status": {
        "nodeInfo": {"machineID": machine_id, "systemUUID": system_uuid},
        "addresses": [{"type": "Hostname", "address": "gpu-1"}, {"type": "InternalIP", "address": "10.0.0.5"}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-05-01T00:00:00Z"}],
    }});
    Server::good().answering("/nodes/gpu-1", 200, node)
}

fn machine(server: Server) -> Machine {
    let mut machine = Machine::fresh(&[A]).with(A, server);
    machine.product_uuid = Some(UUID);
    machine
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_stops_the_join_and_says_by_whom() {
    let finding = machine(with_node("other", OTHER_UUID, "True")).broken().await;
    assert_eq!(finding.code, "name-taken");
    for seen in ["machine id other", OTHER_UUID, "address 10.0.0.5", "is Ready", &"0a".repeat(16), UUID] {
        assert!(finding.why.contains(seen), "{seen}: {}", finding.why);
    }
    assert!(finding.remedy.contains("kubectl delete node gpu-1"), "{}", finding.remedy);
    let finding = machine(with_node("other", "", "Unknown")).broken().await;
    assert!(finding.why.contains("not Ready since 2026-05-01T00:00:00Z"), "{}", finding.why);
    // A copied disk has the machine id of its origin.
    assert_eq!(machine(with_node(&"0a".repeat(16), OTHER_UUID, "True")).broken().await.code, "name-taken");
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_object_is_no_other_machines() {
    let ours = "0a".repeat(16);
    for server in [
        with_node(&ours, &UUID.to_lowercase(), "Unknown"),
        with_node("reinstalled", UUID, "False"),
        with_node(&ours, "", "Unknown"),
    ] {
        let (why, _) = machine(server).pending().await;
        assert!(why.contains("Node gpu-1 is this machine's own from before") && !why.contains("taken"), "{why}");
        assert!(why.ends_with("that Node's labels, taints and provider id; for ours first: kubectl delete node gpu-1"), "{why}");
    }
    for (system_uuid, may_be_cloned) in [(UUID, false), ("", true), ("03000200-0400-0500-0006-000700080009", true)] {
        let finding = machine(with_node(&ours, system_uuid, "True")).waiting().await;
        assert_eq!((finding.code.as_str(), finding.remedy.contains("machine-id")), ("own-node-still-ready", may_be_cloned));
        let seen = format!("system UUID {}, address 10.0.0.5", if system_uuid.is_empty() { "none" } else { system_uuid });
        assert!(finding.why.contains(&seen) && finding.why.contains("this machine has machine id"), "{}", finding.why);
    }
    // An object that nobody has reported to.
    let (why, _) = machine(with_node("", "", "Unknown")).pending().await;
    assert!(!why.contains("warning"), "somebody made it for this machine: {why}");
    assert_eq!(machine(with_node("", "", "True")).broken().await.code, "name-taken");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_read_nodes_is_a_warning() {
    let server = Server::good().answering("/nodes/gpu-1", 403, refusal("nodes \"gpu-1\" is forbidden"));
    let (why, changes) = machine(server).pending().await;
    assert!(why.contains("warning: whether another machine has the name gpu-1 cannot be known: HTTP 403: nodes"), "{why}");
    assert!(changes.iter().any(|change| change.to_string().starts_with("run kubeadm join")));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_over_from_a_machine_that_is_not_ready_alone() {
    let taking = |server| machine(server).set("node.name-taken", Some("take-over"));
    let (why, _) = taking(with_node("other", OTHER_UUID, "Unknown")).pending().await;
    assert!(why.contains("warning: the name gpu-1 is taken over: Node gpu-1 has machine id other"), "{why}");
    assert!(why.ends_with("that Node's labels, taints and provider id; for ours first: kubectl delete node gpu-1"), "{why}");
    assert_eq!(taking(with_node("other", OTHER_UUID, "True")).broken().await.code, "name-taken");
}

#[tokio::test(start_paused = true)]
async fn a_suffix_is_a_change_and_the_join_goes_on_under_the_new_name() {
    let machine = machine(with_node("other", OTHER_UUID, "True")).set("node.name-taken", Some("suffix"));
    machine.write("/etc/hostname", "gpu-1\n");
    machine.write("/etc/hosts", "127.0.1.1 gpu-1\n");
    let (why, changes) = machine.pending().await;
    assert!(why.contains("another machine has gpu-1"), "{why}");
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(words, [format!("write {DECISION_FILE}"), "write /etc/hostname".to_owned(), "write /etc/hosts".to_owned()]);
    for change in &changes {
        machine.host().apply(change).await.unwrap();
    }
    let (_, changes) = machine.pending().await;
    let join = changes.iter().find_map(|change| match change {
        Change::Write { path, contents, .. } if path.ends_with("kubeadm.conf") => serde_json::from_slice(&contents.bytes).ok(),
        _ => None,
    });
    let join: Value = join.unwrap();
    let name = join["nodeRegistration"]["name"].as_str().unwrap();
    assert!(name.starts_with("gpu-1-") && name.len() == "gpu-1-".len() + 8, "{name}");
    assert_eq!(machine.host().files.text(Path::new("/etc/hostname")).unwrap(), Some(format!("{name}\n")));
    assert_eq!(machine.host().files.text(Path::new("/etc/hosts")).unwrap(), Some(format!("127.0.1.1 {name}\n")));
    // That one is taken as well: a second suffix would not be told from a first one.
    let body = json!({"metadata": {"name": name}, "status": {"nodeInfo": {"machineID": "third"}}});
    let path: &'static str = String::leak(format!("/nodes/{name}"));
    let mut again = machine;
    again.servers[0].1 = Server::good().answering(path, 200, body);
    assert_eq!(again.broken().await.code, "name-taken");
}

#[tokio::test(start_paused = true)]
async fn the_node_that_was_there_before_is_known_for_as_long_as_it_is_there() {
    let mut machine = machine(with_node("reinstalled", UUID, "Unknown"));
    let (_, changes) = machine.pending().await;
    let of_note = |changes: &[Change]| {
        changes.iter().map(ToString::to_string).filter(|words| words.contains("joined-onto")).collect::<Vec<_>>()
    };
    assert_eq!(of_note(&changes), ["write /var/lib/gpuk-agent/joined-onto"]);
    machine.host().apply(&changes[0]).await.unwrap();
    assert!(of_note(&machine.pending().await.1).is_empty(), "it is kept already");
    let host = machine.host();
    let (config, facts) = (crate::config::load(Vec::new()).unwrap().config, Facts::default());
    let said = |uid: &str| {
        let node = crate::host::cluster::Node { name: "gpu-1".to_owned(), uid: uid.to_owned(), ..Default::default() };
        super::super::joined_onto(Look::new(&host, &config, &facts), &node).unwrap()
    };
    assert!(said("u-1").is_some_and(|words| words.contains("kubectl delete node gpu-1")));
    assert_eq!((said("u-2"), said("")), (None, None), "it was deleted, and registered again");
    machine.servers[0].1 = Server::good();
    assert_eq!(of_note(&machine.pending().await.1), ["remove /var/lib/gpuk-agent/joined-onto"]);
}
