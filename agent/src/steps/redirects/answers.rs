//! Rules can be there to the letter and nobody answers behind them; only a connection tells.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::config::{Protocol, Redirect};
use crate::host::network::UnreachableKind;
use crate::look::Look;
use crate::step::{Finding, Status};

/// Whoever answers on the same machine does so at once.
const LIMIT: Duration = Duration::from_millis(500);

/// Where CNI plugins bind the network namespaces of pods (containerd, "CNI network namespace").
const NAMESPACES: &str = "/run/netns";

/// Signs of a data plane that answers node ports in eBPF programs, before any packet filter sees the packet.
const EBPF: &[(&str, &str)] = &[
    ("/sys/class/net/bpfin.cali", "Calico's eBPF data plane"),
    ("/sys/fs/bpf/tc/globals/cilium_lb4_services_v2", "Cilium"),
    ("/sys/fs/bpf/tc/globals/cilium_lb6_services_v2", "Cilium"),
];

/// How each redirect answers, with all rules in place.
pub async fn behind(look: Look<'_>, wanted: &[Redirect]) -> Result<Status> {
    let mut said = Vec::new();
    let (mut silent, mut answering) = (Vec::new(), 0);
    let address = look.own_address();
    let pod = pod_network(look)?;
    for redirect in wanted {
        let name = format!("{} to {}", redirect.port, redirect.to);
        let asked = address.filter(|address| redirect.is_about(*address));
        // A datagram that nobody answers says nothing, and what would answer is not known here.
        let Some(address) = asked.filter(|_| redirect.protocols.contains(&Protocol::Tcp)) else {
            said.push(name);
            continue;
        };
        match connect(look, SocketAddr::new(address, redirect.port), pod.as_deref()).await {
            Some(Ok(from)) => {
                answering += 1;
                said.push(format!("{name} (answers {from})"));
            }
            Some(Err(why)) => {
                silent.push(redirect.to);
                said.push(format!("{name} (nothing answers behind it: {why})"));
            }
            None => said.push(name),
        }
    }
    if let Some(plane) = ebpf(look)?.filter(|_| answering == 0 && !silent.is_empty()) {
        let ports: Vec<String> = silent.iter().map(ToString::to_string).collect();
        return Ok(Status::Broken(Finding::new(
            "redirect-behind-ebpf",
            "The redirected ports are answered before any packet filter sees them",
            format!(
                "{plane} answers node ports in eBPF programs, so a rewritten port is not one; nothing answers on {}",
                ports.join(", ")
            ),
            "let the ingress listen on the host's ports itself (hostNetwork: true), or give its Service a load balancer; and set redirects.ingress = false",
        )));
    }
    Ok(Status::Ready(said.join(", ")))
}

/// From a pod's network, because packets of the node itself take another way; else from the node. `None` when nobody could ask.
async fn connect(look: Look<'_>, to: SocketAddr, pod: Option<&str>) -> Option<Result<&'static str, String>> {
    let ways = pod.map(|pod| (Some(pod), "a pod")).into_iter();
    let ways = ways.chain(look.config.redirects.from_node.then_some((None, "the node")));
    let mut failed = None;
    for (namespace, who) in ways {
        match look.connect(to, namespace, LIMIT).await {
            Ok(()) => return Some(Ok(who)),
            // A network policy may stop this pod; the node is asked before that counts.
            Err(trouble) if trouble.kind == UnreachableKind::Refused => failed = Some("refused".to_owned()),
            Err(trouble) => failed = Some(trouble.text),
        }
    }
    failed.map(Err)
}

/// The network of some pod of this node.
fn pod_network(look: Look<'_>) -> Result<Option<String>> {
    let names = look.list(NAMESPACES)?;
    Ok(names.into_iter().find(|name| name.starts_with("cni-")).map(|name| format!("{NAMESPACES}/{name}")))
}

fn ebpf(look: Look<'_>) -> Result<Option<&'static str>> {
    for (path, plane) in EBPF {
        if look.exists(path)? {
            return Ok(Some(plane));
        }
    }
    Ok(None)
}
