//! What the rest of the agent sees: plain values, checked, with no trace of how they were written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::driver::Driver;
use super::k3s_token::K3sToken;
use super::labels::Taint;
use super::mig_layout::{self, MigLayout};
use super::node_name::NameTemplate;
use super::provider_id::ProviderId;
use super::redirect::{self, Mark, Redirect};
use super::schema;
use super::secret::Secret;
use super::service_url::ServiceUrl;
use super::token_sources::{Ssh, TokenUrl};
use super::toolkit::Toolkit;
use super::values::{Endpoint, Period, Pin};

/// The whole configuration. As JSON it has no secrets in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The cluster to join.
    pub cluster: Cluster,
    /// What this machine is in it.
    pub node: Node,
    /// Where it learns who it is.
    pub cloud: Cloud,
    /// Its GPUs.
    pub gpu: Gpu,
    /// Its container runtime.
    pub containerd: Containerd,
    /// Ports behind which the ingress answers.
    pub redirects: Redirects,
    /// What is told to the cluster.
    pub report: Report,
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cluster {
    /// How the node joins.
    pub kind: ClusterKind,
    /// What it is called, for names.
    pub name: Option<String>,
    /// API servers, asked all at once.
    pub endpoints: Vec<Endpoint>,
    /// Bootstrap token, or the join command that has it.
    pub token: Option<Secret>,
    /// File that holds one.
    pub token_file: Option<PathBuf>,
    /// Address of one.
    pub token_url: Option<TokenUrl>,
    /// The CA under which that address is believed. Always given together with `token_url`.
    pub token_url_ca_file: Option<PathBuf>,
    /// Program that prints one, and its arguments; empty for none.
    pub token_command: Vec<String>,
    /// Control plane nodes that make one when asked.
    pub ssh: Ssh,
    /// Pins of the CA.
    pub ca_cert_hashes: Vec<Pin>,
    /// Joins without a pin.
    pub unsafe_skip_ca_verification: bool,
    /// Opens the control plane's certificates, as `kubeadm init phase upload-certs` left them.
    pub certificate_key: Option<Secret>,
    /// File that holds that key. Never given together with it.
    pub certificate_key_file: Option<PathBuf>,
    /// Who makes the cluster.
    pub init: Init,
    /// The pods' network, in a cluster that this node makes.
    pub pod_cidr: String,
    /// The Services' network, in a cluster that this node makes.
    pub service_cidr: String,
    /// Makes the RuntimeClass for GPUs.
    pub runtime_class: bool,
    /// How long `up` goes on while nothing gets better.
    pub patience: Period,
}

/// How a node joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterKind {
    /// By `kubeadm join`.
    Kubeadm,
    /// By k3s itself, whose program and unit are installed already.
    K3s,
    /// Not at all.
    None,
}

/// Who makes a cluster that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Somebody else.
    Never,
    /// This node, which must be a control plane node.
    ThisNode,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// Pattern of the node's name.
    pub name: NameTemplate,
    /// What is done when another machine has the name.
    pub name_taken: NameTaken,
    /// What the node is.
    pub role: Role,
    /// Address to register with.
    pub ip: Option<IpAddr>,
    /// Provider id to register with; `None` takes the platform's.
    pub provider_id: Option<ProviderId>,
    /// Labels to register with.
    pub labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// Leaves swap on.
    pub allow_swap: bool,
    /// Further arguments of the kubelet.
    pub kubelet_extra_args: Vec<String>,
}

/// What is done when another machine has the node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameTaken {
    /// A person decides.
    Stop,
    /// The node takes the name with a suffix of its own.
    Suffix,
    /// The node takes the name, unless the other machine is Ready.
    TakeOver,
}

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs workloads.
    Worker,
    /// It runs an API server.
    ControlPlane,
    /// Someone else joined it; the agent only looks.
    Observed,
}

impl Role {
    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::ControlPlane => "control-plane",
            Self::Observed => "observed",
        }
    }
}

/// `[cloud]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cloud {
    /// Which one: a name of the table in `cloud.rs`, `auto` or `none`.
    pub name: String,
    /// Its metadata service; `None` is the cloud's own address.
    pub endpoint: Option<ServiceUrl>,
    /// For one look, all tries together.
    pub limit: Period,
}

impl Cloud {
    /// The cloud that someone named; `None` where it is to be found out.
    pub fn named(&self) -> Option<&str> {
        Some(self.name.as_str()).filter(|name| *name != "auto")
    }
}

/// `[gpu]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Gpu {
    /// Whether GPUs are set up.
    pub enabled: Enabled,
    /// Taints to register with where there are GPUs.
    pub taints: Vec<Taint>,
    /// Further ones, which something outside the node takes away.
    pub startup_taints: Vec<Taint>,
    /// The driver that they get.
    pub driver: Driver,
    /// What hands them to containers.
    pub toolkit: Toolkit,
    /// How often the service may reboot for them.
    pub reboot: Reboots,
    /// How those that can be divided are; `None` leaves it to somebody else.
    #[serde(with = "mig_layout")]
    pub mig_layout: Option<MigLayout>,
    /// The program that looks at NVML; `None` is the one that the agent carries.
    pub nvml_helper: Option<PathBuf>,
    /// NVML's library; `None` is the one that the loader finds.
    pub nvml_library: Option<PathBuf>,
}

/// How often in a row the service may reboot the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reboots {
    /// A person does.
    Never,
    /// Once.
    Once,
    /// Twice.
    Twice,
}

impl Reboots {
    /// The number.
    pub fn count(self) -> u32 {
        match self {
            Self::Never => 0,
            Self::Once => 1,
            Self::Twice => 2,
        }
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enabled {
    /// Where it makes sense.
    Auto,
    /// Always; that it makes no sense is then an error.
    Always,
    /// Never.
    Never,
}

/// `[containerd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Containerd {
    /// Its socket.
    pub socket: PathBuf,
    /// Its configuration file.
    pub config_file: PathBuf,
    /// Image of the pause container; `None` keeps what is configured.
    pub pause_image: Option<String>,
    /// Folder of the CNI plugins; `None` keeps what is configured.
    pub cni_bin_dir: Option<PathBuf>,
    /// Folder of the CNI configuration; `None` keeps what is configured.
    pub cni_conf_dir: Option<PathBuf>,
    /// Runtime of pods that name no runtime class.
    pub default_runtime: Runtime,
}

/// A runtime that containerd can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// The plain one.
    Runc,
    /// The one that hands GPUs to containers.
    Nvidia,
}

/// `[redirects]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Redirects {
    /// Redirects the ports of the web to the ingress's usual node ports.
    pub ingress: bool,
    /// Redirects that somebody wrote.
    pub rules: Vec<Redirect>,
    /// Connections of the node to itself are redirected, too.
    pub from_node: bool,
    /// Marks redirected connections.
    pub mark: Mark,
}

impl Redirects {
    /// Every redirect that is asked for.
    pub fn wanted(&self) -> Vec<Redirect> {
        redirect::all(&self.rules, self.ingress)
    }
}

/// `[report]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Report {
    /// Sets the condition `NodeBootstrapped` in the Node's status.
    pub node_condition: bool,
}

/// A key without which the node cannot join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Such as `cluster.endpoints`.
    pub key: &'static str,
    /// How to give it.
    pub remedy: String,
}

impl Config {
    /// Whether this machine is to join a cluster at all.
    pub fn wants_join(&self) -> bool {
        self.cluster.kind != ClusterKind::None && self.node.role != Role::Observed
    }

    /// Whether this machine is the first server of a k3s cluster.
    pub fn makes_k3s_cluster(&self) -> bool {
        let cluster = &self.cluster;
        cluster.kind == ClusterKind::K3s && cluster.init == Init::ThisNode && self.node.role == Role::ControlPlane
    }

    /// Whether this machine is to make the cluster where there is none yet.
    pub fn makes_cluster(&self) -> bool {
        self.wants_join() && self.node.role == Role::ControlPlane && self.cluster.init == Init::ThisNode
    }

    /// What is still needed before the node can join. Not an error: `plan` and `doctor` work without.
    pub fn missing_for_join(&self) -> Vec<Missing> {
        let cluster = &self.cluster;
        if !self.wants_join() {
            return Vec::new();
        }
        if self.makes_k3s_cluster() {
            return Vec::new();
        }
        let asks_control_plane = !cluster.ssh.hosts.is_empty();
        // A token of k3s may have the hash in it, and one in a file is not known yet.
        let token = cluster.token.as_ref().and_then(|token| K3sToken::parse(token.expose()).ok());
        let may_be_long = cluster.token.is_none() || token.is_some_and(|token| token.ca_hash.is_some());
        // What answers with a known host key may say the pin, too.
        let is_trusted = !cluster.ca_cert_hashes.is_empty()
            || cluster.unsafe_skip_ca_verification
            || asks_control_plane
            || cluster.kind == ClusterKind::K3s && may_be_long;
        let has_token = cluster.token.is_some()
            || cluster.token_file.is_some()
            || cluster.token_url.is_some()
            || !cluster.token_command.is_empty()
            || asks_control_plane;
        [
            (!cluster.endpoints.is_empty(), "cluster.endpoints", ""),
            (
                has_token || self.makes_cluster(),
                "cluster.token",
                ", or where it comes from as cluster.ssh.hosts, token-file, token-url or token-command",
            ),
            (is_trusted || self.makes_cluster(), "cluster.ca-cert-hashes", ""),
        ]
        .into_iter()
        .filter(|(is_given, _, _)| !is_given)
        .map(|(_, key, also)| Missing { key, remedy: how_to_give(key, also) })
        .collect()
    }
}

/// What to write, and what else would do.
pub fn how_to_give(path: &str, also: &str) -> String {
    let row = path.split_once('.').and_then(|(section, name)| schema::find(section, name));
    row.map_or_else(String::new, |row| {
        let (section, name, example, variable) = (row.section, row.name, row.example, row.variable());
        format!("write {name} = {example} under [{section}], or set {variable}{also}")
    })
}
