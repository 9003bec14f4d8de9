//! To join a cluster takes its address, a token that opens it, a pin that proves it, and a name.

use anyhow::Result;

use super::bootstrap_token::BootstrapToken;
use super::control_plane::AsControlPlane;
use super::credential::Credential;
use crate::config::NameTaken;
use crate::identity::decision::Decision;
use crate::look::Look;
use crate::step::{Finding, Status};

/// Where to join, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// API servers, e.g. `https://10.0.0.10:6443`, in the order of the configuration.
    pub endpoints: Vec<String>,
    /// The bootstrap token.
    pub token: BootstrapToken,
    /// `sha256:…` of the CA's public key; any one of them will do.
    pub pins: Vec<String>,
    /// Believe any CA.
    pub skip_pins: bool,
    /// The node's name.
    pub name: String,
    /// What is done when another machine has it.
    pub name_taken: NameTaken,
    /// What is kept of the choice of the name.
    pub decision: Option<Decision>,
    /// The name to take instead, where there is one.
    pub instead: Option<Decision>,
    /// This machine's id.
    pub machine_id: String,
    /// DMI `product_uuid`, where it could be read.
    pub product_uuid: Option<String>,
    /// containerd's socket.
    pub runtime_socket: String,
    /// It is a node already and only its certificate is missing: its own Node may be Ready, and keeps what it registered with.
    pub is_node: bool,
    /// What it takes besides to join as a control plane node; `None` for a worker.
    pub control_plane: Option<AsControlPlane>,
}

/// What the evidence says for ever after a join without a pin.
pub const UNVERIFIED: &str = "; warning: the cluster's CA was not verified (cluster.unsafe-skip-ca-verification): whoever controls the network controls this node";

/// Whether the configuration gives up the proof of the cluster's identity.
pub fn skips_pins(look: Look<'_>) -> bool {
    look.config.cluster.unsafe_skip_ca_verification
}

/// From the configuration and a token. What is missing there is a status that names the key.
pub fn of(look: Look<'_>, credential: &Credential, is_node: bool) -> Result<Result<Target, Status>> {
    let cluster = &look.config.cluster;
    let identity = match crate::identity::of(look)? {
        Ok(identity) => identity,
        Err(finding) => return Ok(Err(Status::Broken(finding))),
    };
    let mut endpoints: Vec<String> = Vec::new();
    for endpoint in cluster.endpoints.iter().map(ToString::to_string) {
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    Ok(Ok(Target {
        endpoints,
        token: credential.token.clone(),
        pins: credential.pins.clone(),
        skip_pins: skips_pins(look),
        instead: identity.instead(look.facts),
        decision: identity.decision,
        name: identity.name,
        name_taken: look.config.node.name_taken,
        product_uuid: look.facts.dmi.product_uuid.clone(),
        machine_id: look.facts.machine_id.clone(),
        runtime_socket: look.config.containerd.socket.display().to_string(),
        is_node,
        control_plane: None,
    }))
}

/// All keys that a join needs and the configuration lacks.
pub fn incomplete(look: Look<'_>) -> Option<Finding> {
    let missing = look.config.missing_for_join();
    if missing.is_empty() {
        return None;
    }
    let keys: Vec<&str> = missing.iter().map(|missing| missing.key).collect();
    let remedies: Vec<String> = missing.iter().map(|missing| missing.remedy.clone()).collect();
    let ask = "on a control plane node, kubeadm token create --print-join-command tells all of them";
    Some(Finding::new(
        "join-not-configured",
        "The configuration does not say how to join the cluster",
        format!("not given: {}", keys.join(", ")),
        format!("in /etc/gpuk/agent.toml: {}; {ask}", remedies.join("; ")),
    ))
}
