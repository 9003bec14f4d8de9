//! Whatever answers behind a port must not notice that the port was rewritten, whoever asks.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vm_tests::Packages;
use vm_tests::network::{Answers, Protocol, Wired, ask};
use vm_tests::progress::{say, wait_for};

use crate::agent::{Agent, INGRESS, NOTHING};
use crate::iptables::BackEnd;
use crate::parts::{Node, Part, Service, TARGETS};

/// Connections of a client, by which a row is judged.
const MANY: usize = 1000;

/// Connections beside these.
const FEW: usize = 100;

/// Every row of the matrix; the table in docs/redirects.md is what this prints.
#[test]
fn redirected_ports_reach_whatever_answers() -> Result<()> {
    Packages::of_packet_filters().install()?;
    let service = Service::new()?;
    let mut lines = Vec::new();
    for part in [Part::Listener, Part::HostPort, Part::ProxyIptables, Part::ProxyNftables] {
        for back_end in [BackEnd::Nft, BackEnd::Legacy] {
            let row = || format!("{part}, {back_end}");
            say(format_args!("--- {}", row()));
            let node = Node::with(part, back_end, Some(&service)).with_context(row)?;
            let agent = Agent::on(&node.wired)?;
            let ours = with_the_agent(&node, &agent).with_context(row)?;
            if matches!(part, Part::ProxyIptables | Part::ProxyNftables) {
                with_masquerading(&node, &service).with_context(row)?;
            }
            agent.ready(NOTHING)?;
            for address in Wired::NODE {
                let answers = node.ask(Protocol::Tcp, address, 80, 1)?;
                ensure!(answers.answered == 0, "{}: {address} 80 answers without a redirect", row());
            }
            let script = with_the_script(&node).with_context(row)?;
            lines.push(format!("| {part} | {back_end} | {} of {} | {script} |", ours.with_own_address, ours.wanted));
        }
    }
    say("| behind the port | iptables | gpuk-agent | the script: port 80 | the script: the target port |\n|---|---|---|---|---|");
    say(lines.join("\n"));
    Ok(())
}

/// Everything that clients can ask of a node on which the agent was.
fn with_the_agent(node: &Node, agent: &Agent<'_>) -> Result<Answers> {
    let first = agent.ready(INGRESS)?;
    ensure!(!first.changes.is_empty(), "nothing was done: {}", first.text);
    ensure!(first.text.contains("80 to 32245 (answers a pod)"), "{}", first.text);
    let second = agent.ready(INGRESS)?;
    ensure!(second.changes.is_empty(), "the second round did {:?}", second.changes);

    let mut all = Answers::default();
    for address in Wired::NODE {
        for (protocol, port, target, count) in
            [(Protocol::Tcp, 80, TARGETS[0], MANY), (Protocol::Tcp, 443, TARGETS[1], FEW), (Protocol::Udp, 443, TARGETS[1], MANY)]
        {
            let name = format!("{protocol:?} {address} {port}");
            let answers = node.ask(protocol, address, port, count)?;
            say(format_args!("{name}: {answers}"));
            ensure!(answers.all_with_own_address(), "{name}: {answers}");
            all += answers;
            let direct = node.ask(protocol, address, target, FEW)?;
            ensure!(direct.all_with_own_address(), "{name}: beside it, {target}: {direct}");
            for (who, network) in [("the node", &node.wired.node), ("the pod", &node.wired.pod)] {
                let answers = ask(network, protocol, SocketAddr::new(address, port), FEW)?;
                ensure!(answers.all(), "{name} from {who}: {answers}");
            }
        }
        from_one_socket(node, address)?;
    }
    Ok(all)
}

/// A client that keeps its port gets the answers of the port that it asked, in whatever order.
fn from_one_socket(node: &Node, address: IpAddr) -> Result<()> {
    node.wired.client.inside(|| {
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(Duration::from_secs(4)))?;
        for port in [443, TARGETS[1], 443, TARGETS[1], TARGETS[1], 443] {
            socket.send_to(b"who am I?", (address, port))?;
            let (_, from) =
                socket.recv_from(&mut [0; 64]).with_context(|| format!("asking {address} {port} from a port used before"))?;
            ensure!(from == SocketAddr::new(address, port), "{port} was asked and {from} answered");
        }
        Ok(())
    })
}

/// With the external traffic policy `Cluster`, kube-proxy masquerades: the pod sees the node's address.
fn with_masquerading(node: &Node, service: &Service) -> Result<()> {
    let settle = |policy: &str, own_addresses: usize| {
        service.set_traffic_policy(policy)?;
        wait_for("kube-proxy to follow the traffic policy", Duration::from_secs(60), || {
            let mut seen = Answers::default();
            for address in Wired::NODE {
                seen += node.ask(Protocol::Tcp, address, TARGETS[0], 1)?;
            }
            Ok((seen.all() && seen.with_own_address == own_addresses).then_some(()))
        })
    };
    settle("Cluster", 0)?;
    for address in Wired::NODE {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 443)] {
            let answers = node.ask(protocol, address, port, FEW)?;
            // A UDP flow from before is known for a while, and goes on as it was.
            let hidden = protocol == Protocol::Udp || answers.with_own_address == 0;
            ensure!(answers.all() && hidden, "masqueraded: {protocol:?} {address} {port}: {answers}");
        }
    }
    settle("Local", 2)
}

/// What the reference cluster's worker script does, word for word but for the ports' names. Nothing is asserted: it is only shown.
fn with_the_script(node: &Node) -> Result<String> {
    node.iptables.run(&node.wired.node, &["iptables", "-t", "nat", "-F", "PREROUTING"])?;
    for (port, to) in [("80", TARGETS[0]), ("443", TARGETS[1])] {
        let (place, to) = (if port == "80" { "1" } else { "2" }, to.to_string());
        let rule = ["-p", "tcp", "--dport", port, "-j", "REDIRECT", "--to-port", &to];
        let words = [&["iptables", "-t", "nat", "-I", "PREROUTING", place], &rule[..]].concat();
        node.iptables.run(&node.wired.node, &words)?;
    }
    let [address, _] = Wired::NODE;
    let port = node.ask(Protocol::Tcp, address, 80, FEW)?;
    let target = node.ask(Protocol::Tcp, address, TARGETS[0], FEW)?;
    say(format_args!("the script: port 80: {port}; target port: {target}"));
    Ok(format!("{} | {}", outcome(&port), outcome(&target)))
}

fn outcome(answers: &Answers) -> String {
    match answers.failures.keys().next() {
        Some(why) if answers.answered == 0 => format!("none: {why}"),
        _ => format!("{} of {}", answers.answered, answers.wanted),
    }
}
