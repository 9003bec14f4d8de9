//! Every key is said once, here: what it is called, what it takes, what holds without it, and what it is for.
//!
//! To add a key, add a row to [`KEYS`] and a field of the same name to its section in `sections.rs`.

use super::checks::{
    Check, absolute_path, certificate_key, cluster_name, image, kubelet_argument, networks, node_address, sha256, some_time,
    typed,
};
use super::driver::{Branch, Repository};
use super::k3s_token::any_token;
use super::labels::{Taint, check_label};
use super::mig_layout::MigLayout;
use super::node_name::NameTemplate;
use super::provider_id::ProviderId;
use super::redirect::{FIELDS, Mark, Redirect};
use super::service_url::ServiceUrl;
use super::token_sources::{HostKey, SshHost, TokenUrl, program_word, user_name};
use super::values::{Endpoint, Period, Pin};

/// What a key takes. The text beside a check says what would be right, for error messages and documentation.
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One text.
    Text(&'static str, Check),
    /// A list of texts, each checked by itself. A later layer replaces it as a whole.
    List(&'static str, Check),
    /// A list of texts or of maps with these names; a map is checked as the text `name=value name=value`. A later layer replaces it as a whole.
    Rows(&'static str, &'static [&'static str], Check),
    /// Texts by key, checked in pairs. A later layer adds to it and replaces single entries.
    Map(&'static str, fn(&str, &str) -> Result<(), String>),
}

/// One key of the configuration.
pub struct Key {
    /// The section it is in.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether its value may never be shown.
    pub secret: bool,
    /// What holds when nobody says anything, written as in an environment variable.
    pub default: Option<&'static str>,
    /// What it is for, in one line.
    pub documentation: &'static str,
    /// A value, written as in TOML.
    pub example: &'static str,
}

impl Key {
    /// `cluster.ca-cert-hashes`
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `GPUK_CLUSTER_CA_CERT_HASHES`
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}_{}", self.section, self.name).to_ascii_uppercase().replace(['-', '.'], "_")
    }

    /// What would be right, in words and by example.
    pub fn right(&self) -> String {
        match &self.kind {
            Kind::Boolean => "right would be true or false".to_owned(),
            Kind::Choice(words) => format!("right would be \"{}\"", words.join("\" or \"")),
            Kind::Text(right, _) => format!("right would be {right}, e.g. {}", self.example),
            Kind::List(right, _) | Kind::Rows(right, ..) => {
                format!("right would be a list of {right}, e.g. {}", self.example)
            }
            Kind::Map(right, _) => {
                format!("right would be a map of {right}, e.g. {}", self.example)
            }
        }
    }
}

/// A section of the configuration.
pub struct Section {
    /// Its name in brackets; a dot says that it is inside of another one.
    pub name: &'static str,
    /// What it is about, in one line.
    pub documentation: &'static str,
}

/// How the names of environment variables for the agent begin.
pub const VARIABLE_PREFIX: &str = "GPUK_";

/// Variables with that beginning that are no keys; a `*` stands for any end.
pub const RESERVED_VARIABLES: [&str; 2] = ["GPUK_CACHE", "GPUK_VM_*"];

/// The sections, in the order in which they are shown.
pub static SECTIONS: [Section; 10] = [
    Section { name: "cluster", documentation: "The cluster to join, and how to trust it." },
    Section {
        name: "cluster.ssh",
        documentation: "Control plane nodes that make a bootstrap token when asked; docs/join-credentials.md.",
    },
    Section { name: "node", documentation: "What this machine is in the cluster." },
    Section { name: "cloud", documentation: "Where the machine learns who it is." },
    Section { name: "gpu", documentation: "Whether the machine's GPUs are looked after." },
    Section { name: "gpu.driver", documentation: "Which NVIDIA driver the GPUs get, and from where." },
    Section { name: "gpu.toolkit", documentation: "What hands GPUs to containers, and from where it comes." },
    Section { name: "containerd", documentation: "Where the container runtime is, and what it should do." },
    Section { name: "redirects", documentation: "Ports of the node behind which the ingress answers." },
    Section { name: "report", documentation: "What is told to the cluster." },
];

/// What `node.name` takes; a test compares it with the placeholders there are.
const NAME_TEMPLATE: &str = "a-z 0-9 - and the placeholders {instance-id}, {instance-id-short}, {machine-id-short}, {instance-name}, \
    {cluster}, {gpu-model}, {gpu-count}, {role}, {zone}, {region}, {instance-type}";

/// The keys, by section, in the order in which they are shown.
pub static KEYS: &[Key] = &[
    Key {
        kind: Kind::Choice(&["kubeadm", "k3s", "none"]),
        default: Some("kubeadm"),
        documentation: "How the node joins; \"none\" prepares the machine and joins nothing.",
        ..key("cluster", "kind", "\"kubeadm\"")
    },
    Key {
        kind: Kind::Text("1 to 63 letters, digits, - _ .", cluster_name),
        documentation: "What the cluster is called, for {cluster} in node.name.",
        ..key("cluster", "name", "\"prod\"")
    },
    Key {
        kind: Kind::List("API servers, each https://HOST[:PORT], an IPv6 address in brackets", typed::<Endpoint>),
        documentation: "API servers to join through, asked all at once; port 6443 where none is given.",
        ..key("cluster", "endpoints", "[\"https://api.example.com:6443\"]")
    },
    Key {
        kind: Kind::Text("six characters, a dot, sixteen characters of a-z 0-9", any_token),
        secret: true,
        documentation: "Bootstrap token that lets the node ask for its certificate, tried last, or the whole kubeadm join command; with kind k3s, k3s's token.",
        ..key("cluster", "token", "\"abcdef.0123456789abcdef\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "File that holds one, read when the node joins, before token-url.",
        ..key("cluster", "token-file", "\"/run/secrets/bootstrap-token\"")
    },
    Key {
        kind: Kind::Text("https://HOST[:PORT]/PATH without user and query", typed::<TokenUrl>),
        documentation: "Address that answers with one, before token-command.",
        ..key("cluster", "token-url", "\"https://secrets.example.com/join/token\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "File of the CA certificate under which that address is believed.",
        ..key("cluster", "token-url-ca-file", "\"/etc/gpuk/secrets-ca.crt\"")
    },
    Key {
        kind: Kind::List("words, the first one a path from the root, none of them a secret", program_word),
        documentation: "Program that prints one, and its arguments; it gets 30 seconds and no environment.",
        ..key("cluster", "token-command", "[\"/usr/local/bin/join-token\", \"--pool=gpu\"]")
    },
    Key {
        kind: Kind::List("pins, each \"sha256:\" and 64 hexadecimal digits", typed::<Pin>),
        documentation: "Hashes of the cluster's CA public key, by which the node knows the right cluster.",
        ..key("cluster", "ca-cert-hashes", "[\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("false"),
        documentation: "Joins whatever cluster answers; who controls the network then controls the node.",
        ..key("cluster", "unsafe-skip-ca-verification", "false")
    },
    Key {
        kind: Kind::Text("64 hexadecimal digits", certificate_key),
        secret: true,
        documentation: "Key to the control plane's certificates, which opens them to a node that joins as a control plane node.",
        ..key("cluster", "certificate-key", "\"e6a2eb8581237ab72a4f494f30285ec12a9694d750b9785706a83bfcbbbd2204\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "File that holds the certificate key, read when the node joins.",
        ..key("cluster", "certificate-key-file", "\"/run/secrets/certificate-key\"")
    },
    Key {
        kind: Kind::Choice(&["never", "this-node"]),
        default: Some("never"),
        documentation: "Whether this control plane node makes the cluster where there is none yet; of all nodes, one may.",
        ..key("cluster", "init", "\"this-node\"")
    },
    Key {
        kind: Kind::Text("a network, or an IPv4 and an IPv6 network with a comma between them", networks),
        default: Some("10.244.0.0/16"),
        documentation: "Addresses of pods in a cluster that this node makes.",
        ..key("cluster", "pod-cidr", "\"10.244.0.0/16\"")
    },
    Key {
        kind: Kind::Text("a network, or an IPv4 and an IPv6 network with a comma between them", networks),
        default: Some("10.96.0.0/12"),
        documentation: "Addresses of Services in a cluster that this node makes.",
        ..key("cluster", "service-cidr", "\"10.96.0.0/12\"")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("true"),
        documentation: "Whether control plane nodes make the RuntimeClass nvidia where there is none.",
        ..key("cluster", "runtime-class", "true")
    },
    Key {
        kind: Kind::Text("numbers with the units s, m, h or d", typed::<Period>),
        default: Some("10m"),
        documentation: "How long up goes on while nothing gets better.",
        ..key("cluster", "patience", "\"10m\"")
    },
    Key {
        kind: Kind::List("hosts, each HOST[:PORT], an IPv6 address in brackets", typed::<SshHost>),
        documentation: "Control plane nodes that are asked for a token one after the other, before everything else.",
        ..key("cluster.ssh", "hosts", "[\"10.0.0.10\", \"10.0.0.11\"]")
    },
    Key {
        kind: Kind::Text("a user's name", user_name),
        default: Some("gpuk-join"),
        documentation: "Whom the key logs in as.",
        ..key("cluster.ssh", "user", "\"gpuk-join\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        default: Some("/etc/gpuk/join-key"),
        documentation: "File of the private key, which nobody but root may read.",
        ..key("cluster.ssh", "identity-file", "\"/etc/gpuk/join-key\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        default: Some("/etc/ssh/ssh_known_hosts"),
        documentation: "File of the hosts' public keys, as sshd(8) describes it; it may hold @cert-authority lines.",
        ..key("cluster.ssh", "known-hosts-file", "\"/etc/ssh/ssh_known_hosts\"")
    },
    Key {
        kind: Kind::List("public keys, each an algorithm and a key", typed::<HostKey>),
        documentation: "The hosts' public keys in place of that file; each counts for all hosts.",
        ..key(
            "cluster.ssh",
            "host-keys",
            "[\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3ks8yLN4XGRMf6QzvfPgg5gYcxKVlNKVNjMcRUvK2x\"]",
        )
    },
    Key {
        kind: Kind::Text(NAME_TEMPLATE, typed::<NameTemplate>),
        default: Some("{instance-id}"),
        documentation: "Pattern of the node's name; chosen once, kept for the life of the instance.",
        ..key("node", "name", "\"gpu-{instance-id}\"")
    },
    Key {
        kind: Kind::Choice(&["stop", "suffix", "take-over"]),
        default: Some("stop"),
        documentation: "When another machine has the name: stop, add a suffix, or take it over from one that is not Ready.",
        ..key("node", "name-taken", "\"stop\"")
    },
    Key {
        kind: Kind::Choice(&["worker", "control-plane", "observed"]),
        default: Some("worker"),
        documentation: "What the node is, where no tag gpuk/role and nothing on the machine says it; an observed node is only looked at.",
        ..key("node", "role", "\"worker\"")
    },
    Key {
        kind: Kind::Text("an IPv4 or IPv6 address of this machine", node_address),
        documentation: "Address that the node registers with; without it the kubelet chooses.",
        ..key("node", "ip", "\"10.0.0.12\"")
    },
    Key {
        kind: Kind::Text("the cloud's name, :// and its name for the machine, without spaces, or none", typed::<ProviderId>),
        documentation: "Provider id that the node registers with, for the cloud's controller; without it the platform's, with \"none\" none.",
        ..key("node", "provider-id", "\"aws:///eu-west-1a/i-0123456789abcdef0\"")
    },
    Key {
        kind: Kind::Map("label keys and values", check_label),
        documentation: "Labels that the node registers with; they win over those from GPUs and platform.",
        ..key("node", "labels", "{ \"example.com/pool\" = \"gpu\" }")
    },
    Key {
        kind: Kind::List("taints, each key[=value]:Effect", typed::<Taint>),
        documentation: "Taints that the node registers with.",
        ..key("node", "taints", "[\"nvidia.com/gpu=present:NoSchedule\"]")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("false"),
        documentation: "Leaves swap on; without it the agent turns swap off, as the kubelet wants.",
        ..key("node", "allow-swap", "false")
    },
    Key {
        kind: Kind::List("arguments, each beginning with --", kubelet_argument),
        documentation: "Further arguments of the kubelet.",
        ..key("node", "kubelet-extra-args", "[\"--max-pods=60\"]")
    },
    Key {
        kind: Kind::Choice(&["auto", "ec2", "gce", "azure", "openstack", "linode", "nocloud", "none"]),
        default: Some("auto"),
        documentation: "The cloud this machine runs on; auto finds it out, none asks nobody.",
        ..key("cloud", "name", "\"auto\"")
    },
    Key {
        kind: Kind::Text("http://HOST[:PORT], an IPv6 address in brackets", typed::<ServiceUrl>),
        documentation: "Where the cloud's metadata service is; without it the cloud's own address.",
        ..key("cloud", "endpoint", "\"http://169.254.169.254\"")
    },
    Key {
        kind: Kind::Text("numbers with the units s, m, h or d, one of them above 0", some_time),
        default: Some("5s"),
        documentation: "How long one look waits for the metadata service, all tries together.",
        ..key("cloud", "limit", "\"5s\"")
    },
    Key {
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: Some("auto"),
        documentation: "Whether GPUs are set up: where there are any, always (none is then an error), or never.",
        ..key("gpu", "enabled", "\"auto\"")
    },
    Key {
        kind: Kind::List("taints, each key[=value]:Effect", typed::<Taint>),
        default: Some("nvidia.com/gpu=true:NoSchedule"),
        documentation: "Taints that a node with GPUs registers with; one of the same key and effect in node.taints wins.",
        ..key("gpu", "taints", "[\"nvidia.com/gpu=true:NoSchedule\"]")
    },
    Key {
        kind: Kind::List("taints, each key[=value]:Effect", typed::<Taint>),
        documentation: "Further ones, for something outside the node to take away once GPUs work: a node may not change its own taints.",
        ..key("gpu", "startup-taints", "[\"example.com/gpu-not-ready:NoSchedule\"]")
    },
    Key {
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: Some("auto"),
        documentation: "Whether the driver is installed: where GPUs have none, always (also in an image, or in another's place), or never.",
        ..key("gpu.driver", "install", "\"auto\"")
    },
    Key {
        kind: Kind::Text("\"auto\", a branch or a whole version, -server behind it for Ubuntu's server line", typed::<Branch>),
        default: Some("auto"),
        documentation: "Branch or exact version of the driver; auto takes what the GPUs need and the distribution has.",
        ..key("gpu.driver", "branch", "\"550-server\"")
    },
    Key {
        kind: Kind::Choice(&["auto", "open", "proprietary"]),
        default: Some("auto"),
        documentation: "Flavour of the kernel modules; auto takes what suits every GPU.",
        ..key("gpu.driver", "flavour", "\"auto\"")
    },
    Key {
        kind: Kind::Choice(&["auto", "precompiled", "dkms"]),
        default: Some("auto"),
        documentation: "Whether modules come built and signed, or are built here by DKMS; auto prefers the former.",
        ..key("gpu.driver", "kernel-modules", "\"auto\"")
    },
    Key {
        kind: Kind::Text("https://HOST/PATH, for apt with a suite and components behind it", typed::<Repository>),
        documentation: "Package repository to take the driver from; without it the distribution's own.",
        ..key("gpu.driver", "repository", "\"https://packages.example.com/nvidia jammy main\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "File of the key that the repository is signed with.",
        ..key("gpu.driver", "repository-key", "\"/usr/share/keyrings/nvidia.gpg\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "Driver as NVIDIA's .run file, in place of packages.",
        ..key("gpu.driver", "run-file", "\"/opt/NVIDIA-Linux-x86_64-535.261.03.run\"")
    },
    Key {
        kind: Kind::Text("64 hexadecimal digits", sha256),
        documentation: "SHA-256 of the .run file, compared before it runs.",
        ..key("gpu.driver", "run-file-sha256", "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"")
    },
    Key {
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: Some("auto"),
        documentation: "Whether NVIDIA's container toolkit is installed: where there are GPUs and none, always (also in an image), or never.",
        ..key("gpu.toolkit", "install", "\"auto\"")
    },
    Key {
        kind: Kind::Choice(&["auto", "cdi", "legacy"]),
        default: Some("auto"),
        documentation: "How GPUs are handed to containers; auto leaves it to the toolkit.",
        ..key("gpu.toolkit", "mode", "\"auto\"")
    },
    Key {
        kind: Kind::Text("https://HOST/PATH, for apt with a suite and components behind it", typed::<Repository>),
        documentation: "Package repository to take the toolkit from; without it what the package manager knows.",
        ..key("gpu.toolkit", "repository", "\"https://packages.example.com/toolkit/stable/deb/amd64 /\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "File of the key that the repository is signed with.",
        ..key("gpu.toolkit", "repository-key", "\"/usr/share/keyrings/nvidia-container-toolkit.gpg\"")
    },
    Key {
        kind: Kind::Choice(&["never", "once", "twice"]),
        default: Some("never"),
        documentation: "How often in a row the service may reboot the machine where nothing else makes its GPUs work, and no pod would lose by it.",
        ..key("gpu", "reboot", "\"once\"")
    },
    Key {
        kind: Kind::List("MIG profiles, each PROFILE:COUNT, or \"off\" alone", typed::<MigLayout>),
        documentation: "How every GPU that can be is divided by MIG (\"off\": not at all); without it that is left as it is.",
        ..key("gpu", "mig-layout", "[\"3g.40gb:1\", \"1g.10gb:4\"]")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "The program that looks at NVML; without it the one inside of the agent, for which some place must allow programs.",
        ..key("gpu", "nvml-helper", "\"/usr/libexec/gpuk-nvml\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "NVML's library; without it the one that the dynamic loader finds.",
        ..key("gpu", "nvml-library", "\"/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        default: Some("/run/containerd/containerd.sock"),
        documentation: "Socket of containerd; with cluster.kind k3s the default is /run/k3s/containerd/containerd.sock.",
        ..key("containerd", "socket", "\"/run/containerd/containerd.sock\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        default: Some("/etc/containerd/config.toml"),
        documentation: "Configuration file of containerd.",
        ..key("containerd", "config-file", "\"/etc/containerd/config.toml\"")
    },
    Key {
        kind: Kind::Text("an image reference", image),
        documentation: "Image of the pause container; without it what is configured stays.",
        ..key("containerd", "pause-image", "\"registry.k8s.io/pause:3.10\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "Folder of the CNI plugins; without it what is configured stays.",
        ..key("containerd", "cni-bin-dir", "\"/opt/cni/bin\"")
    },
    Key {
        kind: Kind::Text("a path from the root", absolute_path),
        documentation: "Folder of the CNI configuration; without it what is configured stays.",
        ..key("containerd", "cni-conf-dir", "\"/etc/cni/net.d\"")
    },
    Key {
        kind: Kind::Choice(&["runc", "nvidia"]),
        default: Some("runc"),
        documentation: "Runtime of pods that name no runtime class.",
        ..key("containerd", "default-runtime", "\"runc\"")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("false"),
        documentation: "Redirects ports 80 and 443 to 32245 and 32479; rules for these ports win.",
        ..key("redirects", "ingress", "true")
    },
    Key {
        kind: Kind::Rows("redirects, each PORT:TO or a map of port, to, protocols, families", FIELDS, typed::<Redirect>),
        documentation: "Redirects, of TCP over IPv4 and IPv6 where nothing else is said.",
        ..key("redirects", "rules", "[{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("true"),
        documentation: "Whether connections of the node to itself are redirected, too.",
        ..key("redirects", "from-node", "true")
    },
    Key {
        kind: Kind::Text("one bit in hexadecimal that nobody else marks packets with", typed::<Mark>),
        default: Some("0x1000"),
        documentation: "Bit of the packet mark and connection mark by which redirected connections are known.",
        ..key("redirects", "mark", "\"0x1000\"")
    },
    Key {
        kind: Kind::Boolean,
        default: Some("true"),
        documentation: "Tells the cluster whether every step holds, as the Node condition NodeBootstrapped.",
        ..key("report", "node-condition", "true")
    },
];

/// A row with nothing special about it, to be completed.
const fn key(section: &'static str, name: &'static str, example: &'static str) -> Key {
    Key { section, name, kind: Kind::Boolean, secret: false, default: None, documentation: "", example }
}

/// The key of a section by its name.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The keys of a section.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_of_the_name_knows_every_placeholder() {
        let known: Vec<String> = super::super::PLACEHOLDERS.iter().map(|name| format!("{{{name}}}")).collect();
        assert!(super::NAME_TEMPLATE.ends_with(&known.join(", ")), "{}", super::NAME_TEMPLATE);
    }
}
