//! k3s reads its flags from `config.yaml` and then from the files beside it in the order of their names: the last value counts, and a `+`
//! behind a key adds to what stood there (k3s documentation, "Configuration Options").
//!
//! Flags of the unit are louder than all files, and variables of its environment file quieter.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Role, Runtime};
use crate::host::cluster::K3S_CERTIFICATE;
use crate::look::Look;
use crate::step::Finding;
use crate::steps::kubelet::registration::Registration;

/// Where k3s looks for further files.
pub const DIRECTORY: &str = "/etc/rancher/k3s/config.yaml.d";

/// The agent's own.
pub use crate::host::cluster::K3S_DROP_IN as DROP_IN;

/// The token, which k3s reads at every start. The other file may be read by anyone.
pub const TOKEN_FILE: &str = "/etc/rancher/k3s/gpuk-agent-token";

const HEADING: &str = "# Written by gpuk-agent; k3s reads it after config.yaml, and a \"+\" adds to what stands there.";

/// How the node finds its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    /// The server to join through.
    pub server: Option<String>,
    /// Where the token is.
    pub token_file: Option<String>,
    /// Makes a new cluster.
    #[serde(default)]
    pub cluster_init: bool,
}

impl Cluster {
    /// As the agent's file has it now.
    pub fn written(look: Look<'_>) -> Result<Self> {
        let text = look.text(DROP_IN)?.unwrap_or_default();
        Ok(serde_saphyr::from_str(&text).unwrap_or_default())
    }
}

/// What the Node was, or is to be, registered with: from the client certificate on, what is written down.
pub struct Registered {
    /// What is in the file.
    pub registration: Registration,
    /// What would be asked for now, where the Node is registered already.
    pub wanted_now: Option<Registration>,
}

/// What the Node registers with.
pub fn registered(look: Look<'_>) -> Result<Registered> {
    let wanted = Registration::wanted(look);
    let written = if look.exists(K3S_CERTIFICATE)? { look.text(DROP_IN)? } else { None };
    Ok(match written.as_deref().and_then(Registration::read) {
        Some(registration) => Registered { registration, wanted_now: Some(wanted) },
        None => Registered { registration: wanted, wanted_now: None },
    })
}

/// The whole file.
pub fn text(look: Look<'_>, name: &str, registration: &Registration, cluster: &Cluster) -> String {
    let mut text = format!("{HEADING}\n{}\n", registration.line());
    for (key, value) in settings(look, name, registration, cluster) {
        match value {
            // A JSON text is a YAML text.
            Value::Array(entries) => {
                text.push_str(&format!("{key}+:\n"));
                entries.iter().for_each(|entry| text.push_str(&format!("  - {entry}\n")));
            }
            value => text.push_str(&format!("{key}: {value}\n")),
        }
    }
    text
}

fn settings(look: Look<'_>, name: &str, registration: &Registration, cluster: &Cluster) -> Map<String, Value> {
    let (node, containerd) = (&look.config.node, &look.config.containerd);
    let mut settings = Map::new();
    let mut set = |key: &str, value: Value| _ = settings.insert(key.to_owned(), value);
    let mut one = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            set(key, value.into());
        }
    };
    one("server", cluster.server.clone());
    one("token-file", cluster.token_file.clone());
    one("node-name", Some(name.to_owned()));
    one("node-ip", node.ip.map(|ip| ip.to_string()));
    one("default-runtime", (containerd.default_runtime == Runtime::Nvidia).then(|| "nvidia".to_owned()));
    one("pause-image", containerd.pause_image.clone());
    if cluster.cluster_init {
        set("cluster-init", true.into());
    }
    let mut list = |key: &str, entries: Vec<String>| {
        if !entries.is_empty() {
            set(key, entries.into());
        }
    };
    list("node-label", registration.labels.iter().map(|(key, value)| format!("{key}={value}")).collect());
    list("node-taint", registration.taints.iter().map(ToString::to_string).collect());
    let provider_id = registration.provider_id.iter().map(|id| format!("provider-id={id}"));
    let extra = node.kubelet_extra_args.iter().map(|argument| argument.trim_start_matches('-').to_owned());
    list("kubelet-arg", provider_id.chain(extra).collect());
    if node.role == Role::ControlPlane {
        // Who joins through a name or a load balancer must find it in the server's certificate.
        list("tls-san", look.config.cluster.endpoints.iter().map(|endpoint| endpoint.host.clone()).collect());
    }
    settings
}

/// What is louder than the agent's file: a later file, or a flag of the unit.
pub fn overridden(look: Look<'_>, unit_file: &str, unit_text: &str, written: &str) -> Result<Option<Finding>> {
    let ours: Map<String, Value> = serde_saphyr::from_str(written).unwrap_or_default();
    let is_ours = |key: &str| ours.contains_key(key) || ours.contains_key(&format!("{key}+"));
    let finding = |file: &str, key: &str| {
        Finding::new(
            "k3s-settings-overridden",
            "k3s does not do what the agent wrote down",
            format!("{file} sets {key}, and is louder than {DROP_IN}"),
            format!("take {key} out of {file} (or, in a file of {DIRECTORY}, write {key}+), then: gpuk-agent up"),
        )
    };
    let flags = unit_text.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
    let flags = flags.filter_map(|word| Some(word.strip_prefix("--")?.split('=').next().unwrap_or_default()));
    // A flag of one value replaces; so does one of many, as a whole.
    if let Some(flag) = flags.into_iter().find(|flag| is_ours(flag)) {
        return Ok(Some(finding(unit_file, &format!("--{flag}"))));
    }
    for name in look.list(DIRECTORY)? {
        let path = format!("{DIRECTORY}/{name}");
        if path.as_str() <= DROP_IN || !(name.ends_with(".yaml") || name.ends_with(".yml")) {
            continue;
        }
        let text = look.text(&path)?.unwrap_or_default();
        let is_empty = text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '-']));
        if is_empty {
            continue;
        }
        let theirs: Map<String, Value> = serde_saphyr::from_str(&text).with_context(|| format!("reading {path}, as k3s does"))?;
        // Adding to a list takes nothing from it; of two single values the last counts.
        let overrides = |key: &&String| key.strip_suffix('+').map_or_else(|| is_ours(key), |key| ours.contains_key(key));
        if let Some(key) = theirs.keys().find(overrides) {
            return Ok(Some(finding(&path, key)));
        }
    }
    Ok(None)
}
