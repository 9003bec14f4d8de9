//! One node makes a cluster, once; a second one that did would make a second cluster of the same name.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::cluster_info::authorities;
use super::super::joined::AUTHORITY;
use super::super::{KUBELET, kubeadm};
use super::{Begun, Existing, LIMIT, certificate_key, end, left_behind, own_address, timeouts};
use crate::config::{Endpoint, token_parts};
use crate::host::network::{Get, Trust};
use crate::host::programs::Question;
use crate::identity::{self, Identity};
use crate::look::Look;
use crate::step::{Change, Command, Finding, Status, UnitVerb};

/// What kubeadm is told, with secrets in it.
const INIT_FILE: &str = "/run/gpuk-agent/join/init.conf";

/// How long one endpoint may take to say that it is a cluster.
const ASKED: Duration = Duration::from_secs(5);

/// Makes the cluster, or goes on with what was begun.
pub async fn make(look: Look<'_>, why: &str) -> Result<Status> {
    let begun = Begun::read(look)? == Some(Begun::Init);
    let existing = Existing::look(look)?;
    if !begun && existing.is_any() {
        return Ok(Status::Broken(left_behind(why, &existing)));
    }
    let identity = match identity::of(look)? {
        Ok(identity) => identity,
        Err(finding) => return Ok(Status::Broken(finding)),
    };
    if !begun && identity.decision.as_ref().is_some_and(|decision| decision.joined) {
        return Ok(Status::Broken(had_joined(&identity.name)));
    }
    let Some(first) = look.config.cluster.endpoints.first() else {
        return Ok(Status::Broken(no_endpoint()));
    };
    let mut silent = Vec::new();
    for endpoint in &look.config.cluster.endpoints {
        match ask(look, endpoint, begun).await? {
            Answer::Cluster(saw) => return Ok(Status::Broken(there_is_one(endpoint, &saw))),
            Answer::Own => silent.push(format!("{endpoint} is this node's own")),
            Answer::Nobody(saw) => silent.push(format!("{endpoint}: {saw}")),
        }
    }
    let has_key = look.config.cluster.certificate_key.is_some() || look.config.cluster.certificate_key_file.is_some();
    let key = match certificate_key(look)? {
        Ok(key) => Some(key),
        Err(status) if has_key => return Ok(status),
        Err(_) => None,
    };
    let version = kubeadm_version(look).await?;
    let checks = if begun { existing.checks() } else { Vec::new() };
    let mut text = configuration(look, &identity, first, &version, &checks)?;
    let mut argv = ["kubeadm", "init", "--config", INIT_FILE].map(str::to_owned).to_vec();
    if let Some(key) = key {
        text[0]["certificateKey"] = key.expose().into();
        argv.push("--upload-certs".to_owned());
    }
    let command = Command { argv, ..Command::new([""], LIMIT) }.watching(KUBELET);
    let text = text
        .iter()
        .map(serde_json::to_string_pretty)
        .collect::<Result<Vec<_>, _>>()
        .context("writing kubeadm's configuration")?;
    let mut changes = vec![
        Begun::Init.begin(),
        Change::Sync,
        Change::write_secret(INIT_FILE, text.join("\n---\n") + "\n"),
        Change::Run(command),
    ];
    // kubeadm starts it when it is configured. One that fails until then would be taken for a failing start.
    let kubelet = look.unit(KUBELET).await?.unwrap_or_default();
    if kubelet.is_running() || kubelet.cannot_start() {
        changes.insert(0, Change::Unit(UnitVerb::Stop, KUBELET.to_owned()));
    }
    changes.extend(kubeadm::name_is_known(identity.decision.as_ref())?);
    changes.extend([Change::Sync, Change::Remove { path: INIT_FILE.into(), secret: true }, end()]);
    let begins =
        if begun { "the cluster was begun here and is not finished" } else { "this node makes the cluster (cluster.init)" };
    Ok(Status::pending(format!("{begins}; {}", silent.join("; ")), changes))
}

/// What other nodes need in order to join, as far as it is no secret.
pub fn ways_in(look: Look<'_>) -> Result<String> {
    let pins: Vec<String> = match authorities(&look.read(AUTHORITY)?.unwrap_or_default()) {
        Ok(found) => found.into_iter().map(|authority| authority.pin).collect(),
        Err(_) => Vec::new(),
    };
    Ok(format!(
        "; other nodes join with cluster.ca-cert-hashes = [\"{}\"], a token of: kubeadm token create, and as control plane nodes a key of: \
         kubeadm init phase upload-certs --upload-certs",
        pins.join("\", \"")
    ))
}

enum Answer {
    /// Another cluster, or the one that this node should join.
    Cluster(String),
    /// The API server that an earlier try started here.
    Own,
    /// No cluster.
    Nobody(String),
}

/// Whether there is a cluster already. Nothing is sent that anyone may not see.
async fn ask(look: Look<'_>, endpoint: &Endpoint, begun: bool) -> Result<Answer> {
    let get = |trust: Trust| Get { url: format!("{endpoint}/version"), trust, bearer: None, headers: Vec::new(), limit: ASKED };
    if let (true, Some(own)) = (begun, look.text(AUTHORITY)?)
        && look.get(get(Trust::Only(own))).await.is_ok()
    {
        return Ok(Answer::Own);
    }
    Ok(match look.get(get(Trust::Anyone)).await {
        Err(unreachable) => Answer::Nobody(unreachable.to_string()),
        Ok(answer) => {
            let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            // An API server tells its version, or refuses to in the API's own words, also while it starts.
            let is_api_server = object["kind"] == "Status" || object["gitVersion"].is_string();
            let saw = format!("HTTP {} to /version", answer.status);
            if is_api_server { Answer::Cluster(saw) } else { Answer::Nobody(saw) }
        }
    })
}

/// The version that kubeadm would make; without it kubeadm would ask the internet which one is the newest.
async fn kubeadm_version(look: Look<'_>) -> Result<String> {
    let output = look.ask(Question::KubeadmVersion).await?;
    let version = output.stdout.trim().to_owned();
    if !output.success() || !version.starts_with('v') {
        bail!("asking kubeadm for its version: {}; is kubeadm whole? kubeadm version --output short", output.tail());
    }
    Ok(version)
}

/// `InitConfiguration` and `ClusterConfiguration` (kubeadm API, `kubeadm.k8s.io/v1beta4`), and `KubeletConfiguration`
/// (`kubelet.config.k8s.io/v1beta1`).
fn configuration(look: Look<'_>, identity: &Identity, first: &Endpoint, version: &str, checks: &[String]) -> Result<[Value; 3]> {
    let cluster = &look.config.cluster;
    let address = own_address(look);
    let ignored: Vec<&str> = kubeadm::IGNORED_CHECKS.into_iter().chain(checks.iter().map(String::as_str)).collect();
    let mut init = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "nodeRegistration": {
            "name": identity.name,
            "criSocket": format!("unix://{}", look.config.containerd.socket.display()),
            "ignorePreflightErrors": ignored,
        },
        "timeouts": timeouts(),
    });
    if let Some(address) = address {
        // Without a load balancer the endpoint is this very API server.
        let is_own = first.host == address.to_string();
        let port = if is_own { first.port } else { Endpoint::DEFAULT_PORT };
        init["localAPIEndpoint"] = json!({"advertiseAddress": address.to_string(), "bindPort": port});
    }
    let token = match (&cluster.token, &cluster.token_file) {
        (Some(token), _) => Some(token.expose().to_owned()),
        (None, Some(path)) => look.text(path)?.map(|text| text.trim().to_owned()),
        (None, None) => None,
    };
    if let Some(token) = token.filter(|token| token_parts(token).is_some()) {
        init["bootstrapTokens"] = json!([{
            "token": token,
            "ttl": "24h0m0s",
            "usages": ["signing", "authentication"],
            "groups": ["system:bootstrappers:kubeadm:default-node-token"],
        }]);
    }
    let mut names: Vec<String> = cluster.endpoints.iter().map(|endpoint| endpoint.host.clone()).collect();
    names.extend(address.map(|address| address.to_string()));
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    let mut whole = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": version,
        "controlPlaneEndpoint": first.authority(),
        "networking": {"podSubnet": cluster.pod_cidr, "serviceSubnet": cluster.service_cidr},
        "apiServer": {"certSANs": kept},
    });
    if let Some(name) = &cluster.name {
        whole["clusterName"] = name.as_str().into();
    }
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
    });
    Ok([init, whole, kubelet])
}

fn there_is_one(endpoint: &Endpoint, saw: &str) -> Finding {
    Finding::new(
        "cluster-exists",
        "There is a cluster already, and this node was told to make one",
        format!("{endpoint} answers as an API server ({saw})"),
        "if this node is to join it: take init away from [cluster] in /etc/gpuk/agent.toml and give it a token, a pin and cluster.certificate-key; if \
         it is another cluster: correct cluster.endpoints",
    )
}

fn had_joined(name: &str) -> Finding {
    Finding::new(
        "cluster-was-joined",
        "This node was told to make a cluster, and was in one before",
        format!("a cluster knew it as {name}, and the kubelet's certificate is gone"),
        "if the cluster lives: take init away from [cluster] in /etc/gpuk/agent.toml; if it is to be made anew: rm /var/lib/gpuk-agent/identity.json, \
         then: gpuk-agent up",
    )
}

fn no_endpoint() -> Finding {
    Finding::new(
        "join-not-configured",
        "The configuration does not say where the new cluster will be found",
        "not given: cluster.endpoints",
        "in /etc/gpuk/agent.toml: write endpoints = [\"https://NAME:6443\"] under [cluster], with a name or address that will lead to every API server",
    )
}
