#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use super::listing::difference;
use super::*;
use crate::config::{Config, Source, load};
use crate::facts::Facts;
use crate::host::Host;
use crate::host::network::ScriptedNetwork;
use crate::host::programs::{Output, ScriptedPrograms};
use crate::host::units::{ScriptedUnits, UnitState};

const ABSENT: &str = "Error: No such file or directory\nlist table inet gpuk\n";

fn config(text: &str) -> Config {
    load(vec![Source::file("/etc/gpuk/agent.toml", text)]).unwrap().config
}

const INGRESS: &str = "[redirects]\ningress = true\n";

/// A listing of this table, as nft(8) 1.0.6 prints it.
fn listing_of(table: &Table) -> serde_json::Value {
    let mut objects = vec![
        serde_json::json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}}),
        serde_json::json!({"table": {"family": "inet", "name": "gpuk", "handle": 1}}),
    ];
    for chain in &table.chains {
        let (name, hook, prio) = (chain.name, chain.hook, chain.priority);
        objects.push(serde_json::json!({"chain": {"family": "inet", "table": "gpuk", "name": name, "type": "filter", "hook": hook, "prio": prio, "policy": "accept"}}));
        let rule = |comment: String| serde_json::json!({"rule": {"family": "inet", "table": "gpuk", "chain": name, "comment": comment, "expr": []}});
        objects.extend(chain.comments().map(rule));
    }
    serde_json::json!({ "nftables": objects })
}

struct Machine {
    root: tempfile::TempDir,
    host: Host,
    config: Config,
}

/// A machine with nft(8), whose table is listed so.
fn machine(text: &str, listed: Result<String, &str>) -> Machine {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
    std::fs::write(root.path().join("usr/sbin/nft"), "").unwrap();
    let mut host = Host::of_fakes(root.path()).unwrap();
    let output = match listed {
        Ok(stdout) => Output { code: Some(0), stdout, ..Output::default() },
        Err(stderr) => Output { code: Some(1), stderr: stderr.to_owned(), ..Output::default() },
    };
    host.programs = Box::new(ScriptedPrograms::default().answering("nft --json list table inet gpuk", output));
    Machine { root, host, config: config(text) }
}

impl Machine {
    fn file(self, path: &str) -> Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        self
    }

    async fn check(&self) -> anyhow::Result<Status> {
        Redirects.check(Look::new(&self.host, &self.config, &Facts::default())).await
    }

    async fn ready(&self) -> String {
        match self.check().await.unwrap() {
            Status::Ready(text) => text,
            other => panic!("{other:?}"),
        }
    }

    async fn pending(&self) -> (String, Vec<String>) {
        match self.check().await.unwrap() {
            Status::Pending { why, changes } => (why, changes.iter().map(ToString::to_string).collect()),
            other => panic!("{other:?}"),
        }
    }
}

fn in_place() -> String {
    listing_of(&Table::of(&config(INGRESS).redirects)).to_string()
}

#[tokio::test]
async fn what_nobody_asks_for_starts_no_program() {
    let machine = machine("", Err("nobody asks"));
    assert_eq!(machine.ready().await, "none is asked for");
}

#[tokio::test]
async fn a_missing_table_is_made_and_an_unwanted_one_removed() {
    let made = ["write /run/gpuk-agent/redirects.nft", "run nft --file /run/gpuk-agent/redirects.nft"];
    let (why, changes) = machine(INGRESS, Err(ABSENT)).pending().await;
    assert_eq!((why.as_str(), changes), ("table inet gpuk is not there", made.map(str::to_owned).to_vec()));

    let (_, changes) = machine("", Ok(in_place())).file("run/gpuk-agent/redirects.nft").pending().await;
    assert_eq!(changes, ["run nft delete table inet gpuk", "remove /run/gpuk-agent/redirects.nft"]);
    // Somebody removed it in between.
    let (_, changes) = machine("", Err(ABSENT)).file("run/gpuk-agent/redirects.nft").pending().await;
    assert_eq!(changes, ["remove /run/gpuk-agent/redirects.nft"]);
}

#[tokio::test]
async fn only_what_was_made_in_this_boot_is_taken_away() {
    let undo = async |machine: Machine| {
        let (facts, config) = (Facts::default(), config(INGRESS));
        let changes = Redirects.undo(Look::new(&machine.host, &config, &facts)).await.unwrap().unwrap();
        changes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(undo(machine(INGRESS, Ok(in_place()))).await, Vec::<String>::new(), "it is somebody else's");
    let made = machine(INGRESS, Ok(in_place())).file("run/gpuk-agent/redirects.nft");
    assert_eq!(undo(made).await, ["run nft delete table inet gpuk", "remove /run/gpuk-agent/redirects.nft"]);
}

#[tokio::test]
async fn rules_in_both_back_ends_of_iptables_are_told() {
    let said = async |legacy: &str, tables: serde_json::Value| {
        let machine = machine(INGRESS, Ok(in_place())).file("proc/net/ip6_tables_names");
        std::fs::write(machine.root.path().join("proc/net/ip6_tables_names"), legacy).unwrap();
        let answer = |stdout: String| Output { code: Some(0), stdout, ..Output::default() };
        let programs = ScriptedPrograms::default().answering("nft --json list table inet gpuk", answer(in_place()));
        let listing = serde_json::json!({"nftables": [{"metainfo": {}}, {"table": tables}]}).to_string();
        let host = Host { programs: Box::new(programs.answering("nft --json list tables", answer(listing))), ..machine.host };
        Machine { host, ..machine }.ready().await.contains("iptables-legacy and of iptables-nft are both in use")
    };
    let of_iptables = || serde_json::json!({"family": "ip", "name": "nat"});
    assert!(said("nat\nfilter\n", of_iptables()).await);
    assert!(!said("", of_iptables()).await);
    assert!(!said("nat\n", serde_json::json!({"family": "inet", "name": "filter"})).await);
}

#[tokio::test]
async fn a_table_that_was_there_and_is_gone_has_suspects() {
    let mut flushed = machine(INGRESS, Err(ABSENT)).file("run/gpuk-agent/redirects.nft");
    assert!(flushed.pending().await.0.ends_with("was removed since it was made: nft flush ruleset does that"));
    let active = UnitState { active: "active".to_owned(), ..UnitState::default() };
    flushed.host.units = Box::new(ScriptedUnits::with([("nftables.service", active)]));
    let (why, _) = flushed.pending().await;
    assert!(why.ends_with("nftables.service flushes the rule set when it starts, and is active"), "{why}");
}

#[tokio::test]
async fn other_errors_of_nft_are_not_taken_for_an_absent_table() {
    let error = machine(INGRESS, Err("Operation not permitted (you must be root)")).check().await.unwrap_err();
    assert!(error.to_string().contains("you must be root"), "{error:#}");
}

#[tokio::test]
async fn without_nft_a_person_is_needed() {
    let machine = machine(INGRESS, Err(ABSENT));
    std::fs::remove_file(machine.root.path().join("usr/sbin/nft")).unwrap();
    let Status::Broken(finding) = machine.check().await.unwrap() else { panic!("nobody is called") };
    assert!(finding.code == "nft-missing" && finding.remedy.contains("nftables"));
}

/// A chain, a rule or a place less or more is seen.
#[test]
fn every_difference_is_named() {
    let table = Table::of(&config(INGRESS).redirects);
    let whole = listing_of(&table);
    assert_eq!(difference(&whole.to_string(), &table).unwrap(), None);
    let changed = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut listing = whole.clone();
        change(listing["nftables"].as_array_mut().unwrap());
        difference(&listing.to_string(), &table).unwrap().unwrap_or_else(|| "nothing".to_owned())
    };
    assert_eq!(changed(&|objects| objects.retain(|object| object["chain"]["name"] != "restore")), "chain restore is missing");
    assert_eq!(changed(&|objects| objects.retain(|object| object["rule"]["chain"] != "remember")), "chain remember is empty");
    assert_eq!(changed(&|objects| drop(objects.remove(3))), "chain rewrite has 1 rules, not 2");
    assert_eq!(changed(&|objects| objects.swap(3, 4)), "chain rewrite has other rules");
    assert_eq!(changed(&|objects| objects[3]["rule"]["comment"] = "mine".into()), "chain rewrite has other rules");
    assert_eq!(changed(&|objects| objects[2]["chain"]["prio"] = 0.into()), "chain rewrite is at hook prerouting with priority 0");
    let extra = serde_json::json!({"chain": {"name": "x"}});
    assert_eq!(changed(&|objects| objects.push(extra.clone())), "chain x does not belong there");
    assert!(difference("{}", &table).is_err() && difference("", &table).is_err());
}

#[test]
fn a_changed_configuration_is_another_table() {
    let table = |text: &str| Table::of(&config(text).redirects);
    let listing = listing_of(&table(INGRESS)).to_string();
    for other in [
        "[redirects]\ningress = true\nmark = \"0x800\"\n",
        "[redirects]\ningress = true\nfrom-node = false\n",
        "[redirects]\nrules = [\"80:32245\", \"443:32480\"]\n",
        "[redirects]\nrules = [\"80:32245\", \"443:32479 protocols=tcp+udp\"]\n",
        "[redirects]\nrules = [\"80:32245\", \"443:32479 families=ipv4\"]\n",
    ] {
        assert!(difference(&listing, &table(other)).unwrap().is_some(), "{other}");
    }
    let same = "[redirects]\nrules = [{ port = 80, to = 32245 }, { to = 32479, port = 443, families = [\"ipv6\", \"ipv4\"] }]\n";
    assert_eq!(difference(&listing, &table(same)).unwrap(), None);
}

/// The machine's table is right, and these connections are accepted.
async fn answered(text: &str, open: &[&str], files: &[&str]) -> Status {
    let listing = listing_of(&Table::of(&config(text).redirects)).to_string();
    let mut machine = files.iter().fold(machine(text, Ok(listing)), |machine, path| machine.file(path));
    let mut network = ScriptedNetwork::default();
    network.open = open.iter().map(|text| (*text).to_owned()).collect();
    network.address = Some([10, 0, 0, 5].into());
    machine.host.network = Box::new(network);
    machine.check().await.unwrap()
}

#[tokio::test]
async fn rules_without_an_answer_are_another_verdict_than_missing_rules() {
    let said = |status: Status| match status {
        Status::Ready(text) => text,
        other => panic!("{other:?}"),
    };
    let pod = "run/netns/cni-1b2c";
    let from_pod = "tcp://10.0.0.5:80 from /run/netns/cni-1b2c";
    assert_eq!(
        said(answered(INGRESS, &["tcp://10.0.0.5:80"], &[]).await),
        "80 to 32245 (answers the node), 443 to 32479 (nothing answers behind it: refused)"
    );
    assert!(said(answered(INGRESS, &[from_pod], &[pod]).await).starts_with("80 to 32245 (answers a pod)"));
    // A pod that may not is no proof.
    assert!(said(answered(INGRESS, &["tcp://10.0.0.5:80"], &[pod]).await).starts_with("80 to 32245 (answers the node)"));
    let not_from_node = "[redirects]\ningress = true\nfrom-node = false\n";
    assert_eq!(said(answered(not_from_node, &["tcp://10.0.0.5:80"], &[]).await), "80 to 32245, 443 to 32479");
    let other = "[redirects]\nrules = [\"443:32479 protocols=udp\", \"80:32245 families=ipv6\"]\n";
    assert_eq!(said(answered(other, &[], &[]).await), "443 to 32479, 80 to 32245");
}

#[tokio::test]
async fn a_data_plane_before_the_packet_filter_is_named() {
    let calico = "sys/class/net/bpfin.cali";
    let Status::Broken(finding) = answered(INGRESS, &[], &[calico]).await else { panic!("nobody is called") };
    assert_eq!(finding.code, "redirect-behind-ebpf");
    assert!(finding.why.contains("Calico") && finding.why.contains("32245, 32479"), "{}", finding.why);
    // Where something answers, it works: a listener on the host.
    assert!(matches!(answered(INGRESS, &["tcp://10.0.0.5:80"], &[calico]).await, Status::Ready(_)));
}
