//! To join a cluster takes its address, a token that opens it, a pin that proves it, and a name.

use anyhow::Result;

use super::bootstrap_token::BootstrapToken;
use crate::look::Look;
use crate::step::Finding;

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
    /// This machine's id.
    pub machine_id: String,
    /// containerd's socket.
    pub runtime_socket: String,
}

/// The configuration names no API server.
pub fn no_endpoints() -> Finding {
    Finding::new(
        "no-endpoints",
        "The configuration does not say which cluster to join",
        "cluster.endpoints is empty",
        "put the API servers into cluster.endpoints in /etc/gpuk/agent.toml, e.g. endpoints = [\"https://10.0.0.10:6443\"]",
    )
}

/// What the evidence says for ever after a join without a pin.
pub const UNVERIFIED: &str =
    "; warning: the cluster's CA was not verified (cluster.unsafe-skip-ca-verification): whoever controls the network controls this node";

/// Whether the configuration wants the machine in a cluster at all.
pub fn is_wanted(look: Look<'_>) -> bool {
    let _ = look.config;
    true
}

/// Whether the configuration gives up the proof of the cluster's identity.
pub fn skips_pins(look: Look<'_>) -> bool {
    let _ = look.config;
    false
}

/// From the configuration; what is missing there is a finding that names the key.
pub fn of(look: Look<'_>) -> Result<Result<Target, Finding>> {
    let _ = look.config;
    Ok(Err(no_endpoints()))
}
