//! Redirects against what really answers behind them, in network namespaces: a client, a node and a pod.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "redirects/agent.rs"]
mod agent;
#[path = "redirects/cost.rs"]
mod cost;
#[path = "redirects/felix.rs"]
mod felix;
#[path = "redirects/iptables.rs"]
mod iptables;
#[path = "redirects/matrix.rs"]
mod matrix;
#[path = "redirects/parts.rs"]
mod parts;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use vm_tests::network::{Answers, Protocol, Wired, answer, ask};
use vm_tests::progress::say;
use vm_tests::{Network, Packages};

use gpuk_agent::state::Verdict;

use agent::{Agent, INGRESS, NOTHING};
use felix::Felix;
use iptables::BackEnd;
use parts::{Node, Part, Service};

/// Connections at a time.
const FEW: usize = 100;

/// kube-proxy writes its rules anew because Services come and go, and Felix puts its jumps first.
#[test]
fn no_connection_is_lost_while_others_write_their_rules() -> Result<()> {
    Packages::of_packet_filters().install()?;
    let service = Service::new()?;
    let node = Node::with(Part::ProxyIptables, BackEnd::Nft, Some(&service))?;
    let felix = Felix::beside(&node)?;
    Agent::on(&node.wired)?.ready(INGRESS)?;
    let syncs_before = node.syncs()?;
    let (mut answers, finished) = (Answers::default(), AtomicBool::new(false));
    let services = thread::scope(|scope| -> Result<usize> {
        let others = scope.spawn(|| -> Result<usize> {
            let mut count = 0;
            while !finished.load(Ordering::Relaxed) {
                service.come_and_go()?;
                count += 1;
            }
            Ok(count)
        });
        let mut connect = || -> Result<()> {
            let began = Instant::now();
            while answers.wanted < 10_000 || felix.insertions() < 5 || node.syncs()? - syncs_before < 10 {
                ensure!(began.elapsed() < Duration::from_secs(300), "{} insertions, {} syncs", felix.insertions(), node.syncs()?);
                for address in Wired::NODE {
                    answers += node.ask(Protocol::Tcp, address, 80, FEW)?;
                }
                ensure!(answers.all_with_own_address(), "{answers}");
            }
            Ok(())
        };
        let connected = connect();
        finished.store(true, Ordering::Relaxed);
        let services = others.join().map_err(|_| anyhow!("the thread that makes Services panicked"))?;
        connected.and(services)
    })?;
    let syncs = node.syncs()? - syncs_before;
    say(format_args!(
        "{answers}; meanwhile {} insertions by Felix, {services} Services, {syncs} syncs of kube-proxy",
        felix.insertions()
    ));
    felix.end()
}

/// Someone takes rules away: the next look says so, the next round puts them back, and at last everything is as it was before.
#[test]
fn what_was_taken_away_is_seen_and_put_back_and_nothing_is_left_behind() -> Result<()> {
    Packages::of_packet_filters().install()?;
    for back_end in [BackEnd::Nft, BackEnd::Legacy] {
        let node = Node::with(Part::HostPort, back_end, None)?;
        Felix::beside(&node)?.end()?;
        let before = node.rules()?;
        let agent = Agent::on(&node.wired)?;
        agent.ready(INGRESS)?;
        ensure!(node.rules()? != before, "nothing was done");
        for (damage, complaint) in [
            ("flush chain inet gpuk rewrite", "chain rewrite is empty"),
            ("flush chain inet gpuk restore-own", "chain restore-own is empty"),
            ("delete chain inet gpuk remember", "chain remember is missing"),
            ("add chain inet gpuk mine", "chain mine does not belong there"),
            ("flush table inet gpuk", "chain rewrite is empty"),
            ("delete table inet gpuk", "table inet gpuk was removed since it was made"),
        ] {
            damage_and_repair(&node, &agent, damage, complaint)?;
        }
        agent.ready(NOTHING)?;
        let unwanted = node.rules()?;
        ensure!(unwanted == before, "{back_end}: before:\n{before}\nafter:\n{unwanted}");
        agent.ready(INGRESS)?;
        let undone = agent.reset()?;
        ensure!(undone.verdict == Verdict::Ready && undone.changes.len() == 2, "{undone:?}");
        let reset = node.rules()?;
        ensure!(reset == before, "{back_end}: before:\n{before}\nafter a reset:\n{reset}");
        ensure!(agent.reset()?.changes.is_empty(), "a second reset found something");
    }
    // It takes portmap's rules along, too.
    let node = Node::with(Part::Listener, BackEnd::Nft, None)?;
    let agent = Agent::on(&node.wired)?;
    agent.ready(INGRESS)?;
    damage_and_repair(&node, &agent, "flush ruleset", "nft flush ruleset does that")
}

fn damage_and_repair(node: &Node, agent: &Agent<'_>, damage: &str, complaint: &str) -> Result<()> {
    agent.notices(|| node.wired.node.run("nft", &damage.split(' ').collect::<Vec<_>>()).map(drop))?;
    let said = agent.complaint(INGRESS)?;
    say(format_args!("nft {damage}: {said}"));
    ensure!(said.contains(complaint), "after nft {damage}: {said}");
    let repaired = agent.ready(INGRESS)?;
    ensure!(repaired.changes.contains(&"run nft --file /run/gpuk-agent/redirects.nft".to_owned()), "{:?}", repaired.changes);
    for address in Wired::NODE {
        let answers = node.ask(Protocol::Tcp, address, 80, FEW)?;
        ensure!(answers.all_with_own_address(), "after nft {damage}: {answers}");
    }
    Ok(())
}

/// What is not asked for is left alone: other families, other machines' ports, the node's own connections.
#[test]
fn a_redirect_means_what_it_says() -> Result<()> {
    Packages::of_packet_filters().install()?;
    let node = Node::with(Part::Listener, BackEnd::Nft, None)?;
    let agent = Agent::on(&node.wired)?;
    let [ipv4, ipv6] = Wired::NODE;
    let count = |network: &Network, address: IpAddr, protocol: Protocol| -> Result<usize> {
        Ok(ask(network, protocol, SocketAddr::new(address, 80), 1)?.answered)
    };
    let everywhere = |what: &str, expected: [usize; 6]| -> Result<()> {
        let (client, own) = (&node.wired.client, &node.wired.node);
        let seen = [
            count(client, ipv4, Protocol::Tcp)?,
            count(client, ipv6, Protocol::Tcp)?,
            count(client, ipv4, Protocol::Udp)?,
            count(client, ipv6, Protocol::Udp)?,
            count(own, ipv4, Protocol::Tcp)?,
            count(own, ipv6, Protocol::Tcp)?,
        ];
        ensure!(seen == expected, "{what}: {seen:?}, not {expected:?}");
        Ok(())
    };
    let with = |rule: &str, rest: &str| format!("[redirects]\nrules = [\"80:32245{rule}\"]\n{rest}");
    for (rule, rest, expected) in [
        ("", "", [1, 1, 0, 0, 1, 1]),
        ("", "mark = \"0x40\"", [1, 1, 0, 0, 1, 1]),
        ("", "from-node = false", [1, 1, 0, 0, 0, 0]),
        (" families=ipv6", "", [0, 1, 0, 0, 0, 1]),
        (" families=ipv4 protocols=udp", "", [0, 0, 1, 0, 0, 0]),
        (" protocols=tcp+udp", "", [1, 1, 1, 1, 1, 1]),
    ] {
        agent.ready(&with(rule, rest))?;
        everywhere(&format!("80:32245{rule} {rest}"), expected)?;
    }
    // The node forwards what is for others as it came.
    answer(&node.wired.client, &Wired::CLIENT, 80)?;
    for address in Wired::CLIENT {
        let answers = ask(&node.wired.pod, Protocol::Tcp, SocketAddr::new(address, 80), FEW)?;
        ensure!(answers.all_with_own_address(), "from the pod to another machine's port: {answers}");
    }
    // A connection outlives a change of the table.
    let mut open = node.wired.client.inside(|| Ok(TcpStream::connect((ipv4, 80))?))?;
    open.set_read_timeout(Some(Duration::from_secs(4)))?;
    agent.ready(INGRESS)?;
    open.write_all(b"?")?;
    // Before it came the line with the client's address.
    let mut said = Vec::new();
    BufReader::new(&open).read_until(b'?', &mut said).context("using a connection that was open before")?;
    Ok(())
}

/// Figures for people; nothing is asserted about them.
#[test]
#[ignore = "takes a minute and only prints figures"]
fn what_a_redirect_costs() -> Result<()> {
    Packages::of_packet_filters().install()?;
    let service = Service::new()?;
    for part in [Part::ProxyIptables, Part::ProxyNftables] {
        let node = Node::with(part, BackEnd::Nft, Some(&service))?;
        let agent = Agent::on(&node.wired)?;
        cost::of_the_step(&agent)?;
        agent.ready(INGRESS)?;
        say(part);
        cost::of_connections(&node)?;
    }
    Ok(())
}
