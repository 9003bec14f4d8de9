//! A machine is a node of a cluster when it holds a certificate that the cluster gave it, and its kubelet runs.

mod bootstrap_token;
mod cluster_info;
mod control_plane;
mod credential;
mod discovery;
#[cfg(test)]
pub(crate) mod fixtures;
mod joined;
mod kubeadm;
mod kubelet_log;
mod leaving;
mod name;
mod race;
mod renewal;
mod target;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;

use super::k3s;
use super::kubelet::UNIT as KUBELET;
use crate::config::Role;
use crate::host::apply::Failure;
use crate::host::programs::Question;
use crate::look::{Look, is_blank};
use crate::show::utc;
use crate::step::{Change, Finding, Stage, Status, Step, UnitVerb, Watched};
pub use cluster_info::{Authority, authorities};
use control_plane::Begun;
use credential::Opened;
pub use discovery::{SETTLE, SKEW};
pub use joined::{AUTHORITY, CERTIFICATE, Certificate as ClientCertificate, examine, server};
use joined::{KUBELET_CONFIG, Membership};
pub use name::{joined_onto, to_another};
pub use race::race;
pub use renewal::rebuilt;
pub use target::UNVERIFIED;
pub use verdict::{Action, Row, gravest, row, skew, skew_text};

/// Joins the configured cluster with a bootstrap token, and keeps the kubelet running afterwards.
pub struct Join;

#[async_trait(?Send)]
impl Step for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn purpose(&self) -> &'static str {
        "this machine is a node of the cluster"
    }

    fn stage(&self) -> Stage {
        Stage::Cluster
    }

    fn needs(&self) -> &'static [&'static str] {
        &["hostname", "kernel", "containerd", "kubelet"]
    }

    fn watches(&self) -> &'static [Watched] {
        &[
            Watched::Directory("/etc/kubernetes"),
            Watched::Directory("/etc/kubernetes/pki"),
            Watched::Directory("/var/lib/kubelet/pki"),
            Watched::Directory("/var/lib/rancher/k3s/agent"),
        ]
    }

    /// All endpoints are asked at once; one that misbehaves at every stage takes a minute. A second token is tried only where one answered.
    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if !look.config.wants_join() {
            return Ok(Status::Ready("not asked to join a cluster".to_owned()));
        }
        if k3s::is_wanted(look.config) {
            return k3s::join(look).await;
        }
        let is_control_plane = look.config.node.role == Role::ControlPlane;
        let begun = if is_control_plane { Begun::read(look)? } else { None };
        match joined::membership(look)? {
            membership if begun == Some(Begun::Init) => control_plane::first::make(look, membership.why()).await,
            Membership::Member { .. } if begun == Some(Begun::Join) => control_plane::finish(look).await,
            Membership::Member { until } => match member(look, until).await? {
                Status::Ready(evidence) if is_control_plane => control_plane::member(look, evidence),
                status => Ok(status),
            },
            Membership::Lapsed { why, bad_certificate, bad_kubeconfig } => {
                renewal::renew(look, why, bad_certificate, bad_kubeconfig).await
            }
            Membership::Stranger { why, .. } if look.config.makes_cluster() && begun.is_none() => {
                control_plane::first::make(look, &why).await
            }
            Membership::Stranger { why, bad_certificate } => stranger(look, why, bad_certificate).await,
        }
    }

    async fn undo(&self, look: Look<'_>) -> Result<Option<Vec<Change>>> {
        leaving::leave(look).await.map(Some)
    }

    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        kubeadm::judge(failure)
    }
}

/// Joined: the rest is up to the kubelet. Nothing is run and nobody is asked.
async fn member(look: Look<'_>, until: SystemTime) -> Result<Status> {
    let Some(unit) = look.unit(KUBELET).await? else {
        return Ok(Status::Broken(Finding::new(
            "kubelet-missing",
            "This machine is a node of the cluster, but has no kubelet",
            format!("systemd knows no {KUBELET}"),
            "install the kubelet package of the cluster's version, e.g.: apt-get install kubelet",
        )));
    };
    if !unit.is_running() && unit.cannot_start() {
        return Ok(Status::Broken(diagnosis(look).await));
    }
    let mut changes = Vec::new();
    let mut why = Vec::new();
    let mut left = Vec::new();
    for path in [kubeadm::DISCOVERY_FILE, renewal::BOOTSTRAP_FILE] {
        if look.exists(path)? {
            left.push(Change::Remove { path: path.into(), secret: true });
        }
    }
    if !left.is_empty() {
        why.push("a bootstrap token is left in a file");
        // The certificate counts only once it is on the disk.
        changes.push(Change::Sync);
        changes.extend(left);
    }
    if credential::left(look)? {
        why.push("an answer with a bootstrap token is left in a file");
        changes.extend(credential::remains(look)?);
    }
    if unit.file == "disabled" {
        why.push("the kubelet would not start at the next boot");
        changes.push(Change::Unit(UnitVerb::Enable, KUBELET.to_owned()));
    }
    if !unit.is_running() {
        why.push("the kubelet does not run");
        changes.push(Change::Unit(UnitVerb::Start, KUBELET.to_owned()));
    }
    if !changes.is_empty() {
        return Ok(Status::pending(why.join(", "), changes));
    }
    let mut evidence = format!("client certificate valid until {}, kubelet active", utc(until));
    if target::skips_pins(look) {
        evidence.push_str(target::UNVERIFIED);
    }
    Ok(Status::Ready(evidence))
}

/// Not joined: find an API server that proves itself, and let kubeadm do the rest.
async fn stranger(look: Look<'_>, mut why: String, bad_certificate: bool) -> Result<Status> {
    if let Some(finding) = target::incomplete(look) {
        return Ok(Status::Broken(finding));
    }
    let is_control_plane = look.config.node.role == Role::ControlPlane;
    if is_control_plane && let Some(status) = control_plane::may_begin(look, &why)? {
        return Ok(status);
    }
    // Nobody is asked for a token that a wrong name would waste.
    if let Err(finding) = crate::identity::of(look)? {
        return Ok(Status::Broken(finding));
    }
    let opened = match credential::that_opens(look, false).await? {
        Ok(opened) => opened,
        Err(status) => return Ok(status),
    };
    // An earlier join may have failed for a reason that somebody has repaired since: say it, and try again.
    let kubelet = look.unit(KUBELET).await?.unwrap_or_default();
    let configured = look.read(KUBELET_CONFIG)?.is_some_and(|bytes| !is_blank(&bytes));
    if configured && kubelet.cannot_start() {
        let finding = diagnosis(look).await;
        why = format!("{why}; {finding}; {}", finding.remedy);
    }
    why = opened.evidence(why);
    let Opened { target, cluster, .. } = opened;
    let target = match control_plane::complete(look, target)? {
        Ok(target) => target,
        Err(status) => return Ok(status),
    };
    let mut changes = kubeadm::changes(look, &target, &cluster, bad_certificate)?;
    changes.extend(credential::remains(look)?);
    if is_control_plane {
        changes = control_plane::around(changes);
    }
    changes.splice(0..0, name::remember(look, cluster.existing.as_ref())?);
    // kubeadm starts it when it is configured. One that fails until then would be taken for a failing join.
    if kubelet.is_running() || kubelet.cannot_start() {
        changes.insert(0, Change::Unit(UnitVerb::Stop, KUBELET.to_owned()));
    }
    Ok(Status::pending(why, changes))
}

/// Why the kubelet cannot start, from its own log.
async fn diagnosis(look: Look<'_>) -> Finding {
    let question = Question::UnitLog { unit: KUBELET.to_owned(), lines: 60 };
    match look.ask(question).await {
        Ok(output) => kubelet_log::finding(kubelet_log::last_words(&output.stdout.lines().collect::<Vec<_>>()).as_deref()),
        Err(error) => {
            let mut finding = kubelet_log::finding(None);
            finding.why = format!("{KUBELET} keeps failing, and its log cannot be read: {error:#}");
            finding
        }
    }
}
