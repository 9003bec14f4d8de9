//! To join a k3s cluster takes the address of a server, or of what stands before servers, and a token whose hash, or a pin, proves it.

use anyhow::Result;

use super::verdict::NEW_TOKEN;
use crate::config::{K3sCredential, K3sToken, NameTaken, Role};
use crate::identity::decision::Decision;
use crate::look::Look;
use crate::step::{Finding, Status};

/// Where to join, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// Servers, e.g. `https://10.0.0.10:6443`, in the order of the configuration.
    pub endpoints: Vec<String>,
    /// The token.
    pub token: K3sToken,
    /// `sha256:…`; any one of them will do.
    pub pins: Vec<String>,
    /// Believe any CA.
    pub skip_pins: bool,
    /// The node's name.
    pub name: String,
    /// An agent or a server.
    pub role: Role,
    /// The name to take instead of one that another machine has, where that is wanted and possible.
    pub instead: Option<Decision>,
}

impl Target {
    /// The user that a token's password is for, as k3s itself puts it there (`clientaccess.WithUser`).
    pub fn user(&self) -> &'static str {
        if self.role == Role::ControlPlane { "server" } else { "node" }
    }
}

/// From the configuration. What is missing there is a status that names the key.
pub fn of(look: Look<'_>) -> Result<Result<Target, Status>> {
    let (cluster, role) = (&look.config.cluster, look.config.node.role);
    let missing = look.config.missing_for_join();
    if !missing.is_empty() {
        let keys: Vec<&str> = missing.iter().map(|missing| missing.key).collect();
        let remedies: Vec<String> = missing.iter().map(|missing| missing.remedy.clone()).collect();
        return Ok(Err(Status::Broken(Finding::new(
            "join-not-configured",
            "The configuration does not say how to join the cluster",
            format!("not given: {}", keys.join(", ")),
            format!("in /etc/gpuk/agent.toml: {}; {NEW_TOKEN}", remedies.join("; ")),
        ))));
    }
    let identity = match crate::identity::of(look)? {
        Ok(identity) => identity,
        Err(finding) => return Ok(Err(Status::Broken(finding))),
    };
    let token = match token(look)? {
        Ok(Some(token)) => token,
        Ok(None) => return Ok(Err(Status::Waiting(token_missing(look)))),
        Err(finding) => return Ok(Err(Status::Broken(finding))),
    };
    let pins: Vec<String> = cluster.ca_cert_hashes.iter().map(ToString::to_string).collect();
    let skip_pins = cluster.unsafe_skip_ca_verification;
    if token.ca_hash.is_none() && pins.is_empty() && !skip_pins {
        return Ok(Err(Status::Broken(Finding::new(
            "token-without-hash",
            "Nothing proves the cluster: the token is in its short form, and there is no pin",
            "the token has no K10 and hash before it, and cluster.ca-cert-hashes is empty",
            NEW_TOKEN,
        ))));
    }
    if role == Role::ControlPlane && matches!(token.credential, K3sCredential::Bootstrap(_)) {
        return Ok(Err(Status::Broken(Finding::new(
            "token-wrong-role",
            "This token lets agents join, and this machine is to be a server",
            "the token is a bootstrap token, and node.role is \"control-plane\"",
            "on a server: cat /var/lib/rancher/k3s/server/token; then put that into cluster.token (or into the file that cluster.token-file names)",
        ))));
    }
    let mut endpoints: Vec<String> = Vec::new();
    for endpoint in cluster.endpoints.iter().map(ToString::to_string) {
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    let instead = (look.config.node.name_taken == NameTaken::Suffix).then(|| identity.instead(look.facts)).flatten();
    Ok(Ok(Target { endpoints, token, pins, skip_pins, name: identity.name, role, instead }))
}

/// The token from the configuration, or from the file that it names; `None` where there is none yet.
pub fn token(look: Look<'_>) -> Result<Result<Option<K3sToken>, Finding>> {
    let cluster = &look.config.cluster;
    let (text, source) = match (&cluster.token, &cluster.token_file) {
        (Some(token), _) => (token.expose().to_owned(), "cluster.token".to_owned()),
        (None, Some(path)) => (look.text(path)?.unwrap_or_default(), path.display().to_string()),
        (None, None) => return Ok(Ok(None)),
    };
    if text.trim().is_empty() {
        return Ok(Ok(None));
    }
    Ok(K3sToken::parse(&text).map(Some).map_err(|why| {
        Finding::new("token-malformed", "What should be k3s's token is none", format!("what {source} holds {why}"), NEW_TOKEN)
    }))
}

fn token_missing(look: Look<'_>) -> Finding {
    let file = look.config.cluster.token_file.as_ref();
    let source = file.map_or_else(|| "cluster.token".to_owned(), |path| path.display().to_string());
    Finding::new(
        "token-missing",
        "The token is not there yet",
        format!("{source} is missing or empty"),
        format!("{NEW_TOKEN}; expected in {source}"),
    )
}
