//! A packet's way through a node has three places: a client's network, the node's, and a pod's behind it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{LIMIT, Network};
use crate::command::run_with_input;

/// How a node reaches its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// By a route to each, as Calico does.
    Routed,
    /// By a bridge whose frames pass the packet filter, as the CNI plugin `bridge` does and kubeadm asks for.
    Bridged,
}

/// Three network namespaces with a wire from the client to the node and one from the node to the pod. Both families of addresses.
#[derive(Debug)]
pub struct Wired {
    /// Reaches the world through the node.
    pub client: Network,
    /// Forwards between the two others.
    pub node: Network,
    /// Reaches the world through the node.
    pub pod: Network,
}

impl Wired {
    /// The client's addresses.
    pub const CLIENT: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2))];

    /// The node's addresses, as the client knows them.
    pub const NODE: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1))];

    /// The pod's addresses.
    pub const POD: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 2, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 2))];

    /// The prefixes that pods have addresses of.
    pub const PODS: [&str; 2] = ["10.2.0.0/24", "fd02::/64"];

    /// Lays the wires. The node finds these ports of this machine's 127.0.0.1 on its own.
    pub fn new(joint: Joint, ports: &[u16]) -> Result<Self> {
        let wired = Self { client: Network::apart(&[], &[])?, node: Network::apart(&[], ports)?, pod: Network::apart(&[], &[])? };
        let [client, pod] = [wired.client.path(), wired.pod.path()];
        let [node_ipv4, node_ipv6] = Self::NODE;
        let (to_pods, bridge) = match joint {
            Joint::Routed => ("pod0", ""),
            // A pod that reaches itself by way of the node gets its frame back where it came from.
            Joint::Bridged => (
                "cni0",
                "link add cni0 type bridge\nlink set pod0 master cni0\n\
                 link set pod0 type bridge_slave hairpin on\nlink set cni0 up\n",
            ),
        };
        batch(
            &wired.node,
            &format!(
                "link add eth0 type veth peer name eth0 netns {client}\n\
                 link add pod0 type veth peer name eth0 netns {pod}\n{bridge}\
                 address add {node_ipv4}/24 dev eth0\naddress add {node_ipv6}/64 dev eth0 nodad\n\
                 address add 10.2.0.1/24 dev {to_pods}\naddress add fd02::1/64 dev {to_pods} nodad\n\
                 link set eth0 up\nlink set pod0 up\nroute add default via 10.1.0.2\nroute add default via fd01::2\n"
            ),
        )?;
        let pod_gateways = ["10.2.0.1".parse::<IpAddr>()?, "fd02::1".parse::<IpAddr>()?];
        for (network, [ipv4, ipv6], gateways) in
            [(&wired.client, Self::CLIENT, Self::NODE), (&wired.pod, Self::POD, pod_gateways)]
        {
            let [gateway_ipv4, gateway_ipv6] = gateways;
            batch(
                network,
                &format!(
                    "address add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0 nodad\nlink set eth0 up\n\
                     route add default via {gateway_ipv4}\nroute add default via {gateway_ipv6}\n"
                ),
            )?;
        }
        set(&wired.node, &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        if joint == Joint::Bridged {
            set(&wired.node, &[("bridge/bridge-nf-call-iptables", "1"), ("bridge/bridge-nf-call-ip6tables", "1")])?;
        }
        // Each refusal is told at once, not one a second.
        set(&wired.node, &[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        // Else tens of thousands of connections in a minute use up a client's ports.
        set(&wired.client, &[("ipv4/tcp_tw_reuse", "1")])?;
        Ok(wired)
    }
}

fn batch(network: &Network, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]);
    network.inside(|| run_with_input(&mut ip, lines.as_bytes(), LIMIT)).map(drop)
}

fn set(network: &Network, switches: &[(&str, &str)]) -> Result<()> {
    network.inside(|| {
        switches.iter().try_for_each(|(name, value)| {
            // The kernel shows each thread the switches of its own network.
            fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("setting net/{name}"))
        })
    })
}
