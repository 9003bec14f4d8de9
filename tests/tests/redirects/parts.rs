//! What answers behind a redirected port: a process of the node, a Service's node port by kube-proxy, a `hostPort` by portmap.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vm_tests::cluster::Reachable;
use vm_tests::command::run_with_input;
use vm_tests::network::{Answers, Joint, Protocol, Wired, answer, ask};
use vm_tests::packages::find;
use vm_tests::parts::Program;
use vm_tests::process::{Life, Process};
use vm_tests::progress::wait_for;
use vm_tests::{Cluster, ClusterOptions, Parts};

use crate::iptables::{BackEnd, Iptables};

/// Behind ports 80 and 443.
pub const TARGETS: [u16; 2] = [32245, 32479];

/// Where the pod listens.
const POD_PORTS: [u16; 2] = [8080, 8443];

const NODE: &str = "worker";
const LIMIT: Duration = Duration::from_secs(60);

/// A way to answer on the target ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A process that listens on the node.
    Listener,
    /// kube-proxy, whose mode is iptables.
    ProxyIptables,
    /// kube-proxy, whose mode is nftables.
    ProxyNftables,
    /// The CNI plugin portmap.
    HostPort,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Listener => "listener",
            Self::ProxyIptables => "NodePort, kube-proxy in iptables mode",
            Self::ProxyNftables => "NodePort, kube-proxy in nftables mode",
            Self::HostPort => "hostPort, portmap",
        })
    }
}

/// A node on whose target ports something answers.
pub struct Node {
    /// Its networks.
    pub wired: Wired,
    /// The iptables that everything on it uses.
    pub iptables: Iptables,
    /// Ends with it.
    _proxy: Option<(Process, tempfile::TempDir)>,
}

impl Node {
    /// Waits until the target ports answer.
    pub fn with(part: Part, back_end: BackEnd, service: Option<&Service>) -> Result<Self> {
        let iptables = Iptables::with(back_end)?;
        let joint = if matches!(part, Part::HostPort | Part::ProxyNftables) { Joint::Bridged } else { Joint::Routed };
        let wired = Wired::new(joint, &service.map(|service| service.cluster.port()).into_iter().collect::<Vec<_>>())?;
        if part == Part::Listener {
            TARGETS.iter().try_for_each(|port| answer(&wired.node, &Wired::NODE, *port))?;
        } else {
            POD_PORTS.iter().try_for_each(|port| answer(&wired.pod, &Wired::POD, *port))?;
        }
        let proxy = match part {
            Part::Listener => None,
            Part::HostPort => portmap(&wired, &iptables).map(|()| None)?,
            Part::ProxyIptables => Some(service.context("no Service")?.proxy("iptables", &wired, &iptables)?),
            Part::ProxyNftables => Some(service.context("no Service")?.proxy("nftables", &wired, &iptables)?),
        };
        let mut node = Self { wired, iptables, _proxy: proxy };
        node.wait()?;
        Ok(node)
    }

    fn wait(&mut self) -> Result<()> {
        wait_for("the target ports to answer", LIMIT, || {
            if let Some((proxy, _)) = &mut self._proxy {
                proxy.expect_running()?;
            }
            for address in Wired::NODE {
                for (protocol, port) in [(Protocol::Tcp, TARGETS[0]), (Protocol::Tcp, TARGETS[1]), (Protocol::Udp, TARGETS[1])] {
                    let answers = ask(&self.wired.client, protocol, SocketAddr::new(address, port), 1)?;
                    ensure!(answers.all(), "{protocol:?} {address} {port}: {answers}");
                }
            }
            Ok(Some(()))
        })
        .with_context(|| self._proxy.as_ref().map(|(proxy, _)| proxy.last_words(30)).unwrap_or_default())
    }

    /// How often kube-proxy has written rules, by its own count.
    pub fn syncs(&self) -> Result<u64> {
        const NAME: &str = "kubeproxy_sync_proxy_rules_duration_seconds_count";
        let metrics = self.wired.node.inside(|| {
            let mut stream = TcpStream::connect("127.0.0.1:10249").context("connecting to kube-proxy's metrics")?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?;
        let counts =
            metrics.lines().filter(|line| line.starts_with(NAME)).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// Everybody's packet filter rules, without their counters.
    pub fn rules(&self) -> Result<String> {
        let nft = self.wired.node.run("nft", &["--stateless", "list", "ruleset"])?;
        let mut rules = nft;
        for program in ["iptables-save", "ip6tables-save"] {
            let saved = self.iptables.run(&self.wired.node, &[program])?;
            // `:CHAIN POLICY [packets:bytes]`, and comments with the time.
            let lines = saved.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split_once(" [") {
                Some((chain, _)) if chain.starts_with(':') => chain,
                _ => line,
            });
            rules.extend(lines.flat_map(|line| [line, "\n"]));
        }
        Ok(rules)
    }

    /// Asks one of the node's addresses from the client's network.
    pub fn ask(&self, protocol: Protocol, address: IpAddr, port: u16, count: usize) -> Result<Answers> {
        ask(&self.wired.client, protocol, SocketAddr::new(address, port), count)
    }
}

/// As a container runtime calls it (CNI specification 1.0.0): once for each port, because ip6tables-legacy 1.8.9 takes a rule for one
/// port for that of another (`-C`), and portmap then leaves it out.
fn portmap(wired: &Wired, iptables: &Iptables) -> Result<()> {
    let plugin = find("portmap").context("portmap is not installed")?;
    let network = wired.pod.path();
    let addresses: Vec<_> = Wired::POD
        .iter()
        .zip([24, 64])
        .map(|(address, bits)| json!({"address": format!("{address}/{bits}"), "interface": 0}))
        .collect();
    for (number, protocol) in [(0, "tcp"), (1, "tcp"), (1, "udp")] {
        let (host, pod) = (TARGETS[number], POD_PORTS[number]);
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "portmap", "capabilities": {"portMappings": true}, "snat": true,
            "runtimeConfig": {"portMappings": [{"hostPort": host, "containerPort": pod, "protocol": protocol}]},
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": network}], "ips": addresses},
        });
        let mut command = Command::new(&plugin);
        command.envs([
            ("PATH", iptables.path().as_str()),
            ("CNI_COMMAND", "ADD"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &network),
        ]);
        command
            .env("CNI_CONTAINERID", format!("pod-{host}-{protocol}"))
            .env("CNI_PATH", plugin.parent().unwrap_or(Path::new("/")));
        wired.node.inside(|| run_with_input(&mut command, configuration.to_string().as_bytes(), LIMIT))?;
    }
    Ok(())
}

/// A control plane with a Service of the target ports, whose only end point is the pod of a [`Wired`].
pub struct Service {
    cluster: Cluster,
    proxy: std::path::PathBuf,
}

impl Service {
    /// Its external traffic policy is `Local`: the client's address reaches the pod.
    pub fn new() -> Result<Self> {
        let parts = Parts::open()?;
        let proxy = parts.program(Program::Proxy)?;
        let cluster = Cluster::start(&parts, ClusterOptions { reachable: Reachable::FromHere, ..ClusterOptions::default() })?;
        let names = ["http", "https", "http3"];
        let protocols = ["TCP", "TCP", "UDP"];
        let ports = [(80, TARGETS[0], POD_PORTS[0]), (443, TARGETS[1], POD_PORTS[1]), (443, TARGETS[1], POD_PORTS[1])];
        let with_names = || names.iter().zip(protocols).zip(ports);
        let service_ports: Vec<_> = with_names()
            .map(
                |((name, protocol), (port, node, _))| json!({"name": name, "protocol": protocol, "port": port, "nodePort": node}),
            )
            .collect();
        let slice_ports: Vec<_> = with_names()
            .map(|((name, protocol), (_, _, port))| json!({"name": name, "protocol": protocol, "port": port}))
            .collect();
        let mut items = vec![
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ingress", "namespace": "default"}, "spec": {
                "type": "NodePort", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack", "ports": service_ports,
            }}),
        ];
        items.extend(["IPv4", "IPv6"].iter().zip(Wired::POD).map(|(family, address)| {
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "ports": slice_ports,
                "metadata": {"name": format!("ingress-{}", family.to_lowercase()), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "ingress"}},
                "endpoints": [{"addresses": [address], "nodeName": NODE, "conditions": {"ready": true}}]})
        }));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        cluster.kubectl_with(&["create", "-f", "-"], &list.to_string())?;
        let addresses: Vec<_> = Wired::NODE.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let patch = json!({"status": {"addresses": addresses}}).to_string();
        cluster.kubectl(&["patch", "node", NODE, "--subresource=status", "-p", &patch])?;
        Ok(Self { cluster, proxy })
    }

    /// `Local`, or `Cluster`: every node answers, and masquerades.
    pub fn set_traffic_policy(&self, policy: &str) -> Result<()> {
        let patch = json!({"spec": {"externalTrafficPolicy": policy}}).to_string();
        self.cluster.kubectl(&["patch", "service", "ingress", "-p", &patch]).map(drop)
    }

    /// Another Service comes and goes, of which kube-proxy must make rules.
    pub fn come_and_go(&self) -> Result<()> {
        self.cluster.kubectl(&["create", "service", "nodeport", "passing", "--tcp=80"])?;
        self.cluster.kubectl(&["delete", "service", "passing"]).map(drop)
    }

    fn proxy(&self, mode: &str, wired: &Wired, iptables: &Iptables) -> Result<(Process, tempfile::TempDir)> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("kube-proxy.log");
        let [enter, namespace] = wired.node.prefix();
        let mut words = vec![namespace, "env".to_owned(), format!("PATH={}", iptables.path()), self.proxy.display().to_string()];
        words.push(format!("--kubeconfig={}", self.cluster.kubeconfig().display()));
        words.push(format!("--proxy-mode={mode}"));
        words.push(format!("--hostname-override={NODE}"));
        words.push(format!("--cluster-cidr={}", Wired::PODS.join(",")));
        // These switches belong to the whole machine.
        let left_alone = ["max-per-core", "min", "tcp-timeout-established", "tcp-timeout-close-wait"];
        words.extend(left_alone.map(|name| format!("--conntrack-{name}=0")));
        let process = Process::start("kube-proxy", Path::new(&enter), &words, folder.path(), &log, Life::WithUs)?;
        Ok((process, folder))
    }
}
