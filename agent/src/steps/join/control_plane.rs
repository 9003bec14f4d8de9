//! A control plane node holds a member of etcd, so what a join began must be finished and never be begun anew over what it left.
//!
//! kubeadm can take up a join that was cut off: it adds no second member for the same address, and promotes one that is still a learner
//! (its `phases/etcd`). What it cannot know is whose the files are that it finds; that is kept in [`BEGUN`].

mod existing;
pub mod first;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::credential::{self, Opened};
use super::discovery::Discovered;
use super::target::Target;
use super::{KUBELET, kubeadm};
use crate::config::{Role, Secret, how_to_give};
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};
pub use existing::{Existing, MANIFESTS};

/// What this program began on this machine and has not seen finished: the word of [`Begun`].
const BEGUN: &str = "/var/lib/gpuk-agent/control-plane-begun";

/// kubeadm's own limits below, and the images of four programs to be fetched.
pub const LIMIT: Duration = Duration::from_secs(1800);

/// The phases of `kubeadm join` that a node with a certificate has behind it. Its Node is Ready by then, which `kubelet-start` refuses.
const DONE: [&str; 3] = ["preflight", "kubelet-start", "kubelet-wait-bootstrap"];

/// What was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// `kubeadm join` as a control plane node.
    Join,
    /// `kubeadm init`.
    Init,
}

impl Begun {
    /// Reads it; `None` where nothing is unfinished.
    pub fn read(look: Look<'_>) -> Result<Option<Self>> {
        Ok(match look.text(BEGUN)?.as_deref().map(str::trim) {
            Some("init") => Some(Self::Init),
            // Without a word (a power cut) it is the more careful one.
            Some(_) => Some(Self::Join),
            None => None,
        })
    }

    /// Keeps that this begins here, before anything of it is there.
    fn begin(self) -> Change {
        Change::write(BEGUN, if self == Self::Init { "init\n" } else { "join\n" })
    }
}

/// It is finished.
fn end() -> Change {
    Change::Remove { path: BEGUN.into(), secret: false }
}

/// What a join as a control plane node takes besides what a worker's takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsControlPlane {
    /// Opens the certificates in the Secret `kubeadm-certs`.
    certificate_key: Secret,
    /// Where the other control plane nodes find this one's API server and etcd; kubeadm chooses where that is `None`.
    address: Option<IpAddr>,
    /// Checks of kubeadm that what this program left here would fail.
    ignored_checks: Vec<String>,
}

impl AsControlPlane {
    /// Completes a worker's `JoinConfiguration`. On a loaded machine etcd takes minutes to catch up with the others.
    pub fn complete(&self, configuration: &mut Value) {
        let mut endpoint = json!({});
        if let Some(address) = self.address {
            endpoint["advertiseAddress"] = address.to_string().into();
        }
        configuration["controlPlane"] = json!({"certificateKey": self.certificate_key.expose(), "localAPIEndpoint": endpoint});
        let checks: Vec<&str> =
            kubeadm::IGNORED_CHECKS.into_iter().chain(self.ignored_checks.iter().map(String::as_str)).collect();
        configuration["nodeRegistration"]["ignorePreflightErrors"] = json!(checks);
        configuration["timeouts"] = timeouts();
    }
}

/// Far above what a healthy machine takes, since a join that is given up in the midst of etcd's is the worst of all.
fn timeouts() -> Value {
    json!({
        "discovery": "20s",
        "kubernetesAPICall": "1m",
        "kubeletHealthCheck": "2m",
        "tlsBootstrap": "8m",
        "controlPlaneComponentHealthCheck": "8m",
        "etcdAPICall": "6m",
    })
}

/// The address that the others know this machine by.
fn own_address(look: Look<'_>) -> Option<IpAddr> {
    look.config.node.ip.or_else(|| look.own_address())
}

/// Why a machine without a kubelet's certificate may not begin: what is left of a control plane is taken up only where this program left
/// it, and nobody is asked for a token while there is no certificate key.
pub fn may_begin(look: Look<'_>, why: &str) -> Result<Option<Status>> {
    let existing = Existing::look(look)?;
    if Begun::read(look)?.is_none() && existing.is_any() {
        return Ok(Some(Status::Broken(left_behind(why, &existing))));
    }
    Ok(certificate_key(look)?.err())
}

/// Makes a control plane node's target of a worker's, where the role is that.
pub fn complete(look: Look<'_>, target: Target) -> Result<Result<Target, Status>> {
    if look.config.node.role != Role::ControlPlane {
        return Ok(Ok(target));
    }
    let key = match certificate_key(look)? {
        Ok(key) => key,
        Err(status) => return Ok(Err(status)),
    };
    let ignored_checks = if Begun::read(look)?.is_some() { Existing::look(look)?.checks() } else { Vec::new() };
    let control_plane = Some(AsControlPlane { certificate_key: key, address: own_address(look), ignored_checks });
    Ok(Ok(Target { control_plane, ..target }))
}

/// The changes of a join, with what is kept of it before and taken away after it.
pub fn around(changes: Vec<Change>) -> Vec<Change> {
    // The mark is on the disk before anything that it speaks for.
    let before = [Begun::Join.begin(), Change::Sync];
    let after = [Change::Remove { path: kubeadm::JOIN_FILE.into(), secret: true }, end()];
    before.into_iter().chain(changes).chain(after).collect()
}

/// A node with a certificate, whose kubelet runs or will: whether it is a control plane node, too.
pub fn member(look: Look<'_>, evidence: String) -> Result<Status> {
    let existing = Existing::look(look)?;
    if !existing.has_api_server() {
        return Ok(Status::Broken(only_a_worker()));
    }
    let ways_in = if look.config.makes_cluster() { first::ways_in(look)? } else { String::new() };
    Ok(Status::Ready(format!("{evidence}, {}{ways_in}", existing.words())))
}

/// A join that got as far as the kubelet's certificate, and no further.
pub async fn finish(look: Look<'_>) -> Result<Status> {
    if let Err(status) = certificate_key(look)? {
        return Ok(status);
    }
    let opened = match credential::that_opens(look, true).await? {
        Ok(opened) => opened,
        Err(status) => return Ok(status),
    };
    let why = opened.evidence("the join as a control plane node was not finished".to_owned());
    let Opened { target, cluster, .. } = opened;
    let target = match complete(look, target)? {
        Ok(target) => target,
        Err(status) => return Ok(status),
    };
    Ok(Status::pending(why, rest(look, &target, &cluster).await?))
}

async fn rest(look: Look<'_>, target: &Target, cluster: &Discovered) -> Result<Vec<Change>> {
    let mut done: Vec<&str> = DONE.to_vec();
    if Existing::look(look)?.is_prepared() {
        done.push("control-plane-prepare");
    }
    let mut changes = around(kubeadm::join(target, cluster, &done)?);
    if !look.unit(KUBELET).await?.unwrap_or_default().is_running() {
        changes.insert(0, Change::Unit(UnitVerb::Start, KUBELET.to_owned()));
    }
    Ok(changes)
}

/// The key from the configuration, or from the file that it names.
fn certificate_key(look: Look<'_>) -> Result<Result<Secret, Status>> {
    let cluster = &look.config.cluster;
    let remedy = "on a control plane node: kubeadm init phase upload-certs --upload-certs";
    let (found, source) = match (&cluster.certificate_key, &cluster.certificate_key_file) {
        (Some(key), _) => return Ok(Ok(key.clone())),
        (None, Some(path)) => (look.text(path)?, path.display().to_string()),
        (None, None) => {
            let give =
                how_to_give("cluster.certificate-key", ", or the path of a file that holds it as cluster.certificate-key-file");
            return Ok(Err(Status::Broken(Finding::new(
                "join-not-configured",
                "The configuration does not say how to join the control plane",
                "not given: cluster.certificate-key",
                format!(
                    "in /etc/gpuk/agent.toml: {give}; {remedy} prints one; if this node is to make the cluster: [cluster] init = \"this-node\""
                ),
            ))));
        }
    };
    // Whoever provides the file may not have done so yet.
    let Some(text) = found.map(|text| text.trim().to_ascii_lowercase()).filter(|text| !text.is_empty()) else {
        return Ok(Err(Status::Waiting(Finding::new(
            "certificate-key-missing",
            "The certificate key is not there yet",
            format!("{source} is missing or empty"),
            format!("{remedy} prints one; expected in {source}"),
        ))));
    };
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Err(Status::Broken(Finding::new(
            "certificate-key-malformed",
            "What should be the certificate key is none",
            format!("{source} does not hold 64 hexadecimal digits and nothing else"),
            format!("{remedy} prints one"),
        ))));
    }
    Ok(Ok(Secret::new(text)))
}

/// Somebody's control plane is here, or what is left of it. It may be the cluster's only copy of something.
fn left_behind(why: &str, existing: &Existing) -> Finding {
    Finding::new(
        "control-plane-left",
        "Parts of a control plane are here that no join of this program left",
        format!("{why}, but there is {}", existing.words()),
        "if this machine is a control plane node and only damaged: kubeadm init phase kubeconfig kubelet, or copy the missing file of /etc/kubernetes/pki \
         from another control plane node; if it is none any more: remove its member of etcd (etcdctl member remove), kubectl delete node, \
         mv /var/lib/etcd /var/lib/etcd.aside, mv /etc/kubernetes/manifests /etc/kubernetes/manifests.aside, then: gpuk-agent up",
    )
}

fn only_a_worker() -> Finding {
    Finding::new(
        "joined-as-worker",
        "This machine joined as a worker, and is to be a control plane node",
        format!("its kubelet has a certificate, and there is no {MANIFESTS}/kube-apiserver.yaml"),
        "a worker does not become a control plane node: kubectl drain and kubectl delete node, then kubeadm reset on this machine, then: gpuk-agent up; \
         if it is to stay what it is: [node] role = \"worker\"",
    )
}
