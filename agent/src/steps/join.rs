//! A machine is a node of a cluster when it holds a certificate that the cluster gave it, and its kubelet runs.

mod bootstrap_token;
mod cluster_info;
mod control_plane;
mod discovery;
#[cfg(test)]
pub(crate) mod fixtures;
mod joined;
mod kubeadm;
mod kubelet_log;
mod name;
mod renewal;
mod target;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;

use super::kubelet::UNIT as KUBELET;
use crate::config::Role;
use crate::host::apply::Failure;
use crate::host::programs::Question;
use crate::look::{Look, is_blank};
use crate::show::utc;
use crate::step::{Change, Finding, Stage, Status, Step, UnitVerb, Watched};
use control_plane::Begun;
pub use discovery::SKEW;
pub use joined::{AUTHORITY, CERTIFICATE, server};
use joined::{KUBELET_CONFIG, Membership};
pub use name::joined_onto;
pub use renewal::rebuilt;
pub use verdict::{skew, skew_text};

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
        ]
    }

    /// All endpoints are asked at once; one that misbehaves at every stage takes this long.
    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if !look.config.wants_join() {
            return Ok(Status::Ready("not asked to join a cluster".to_owned()));
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
    let is_control_plane = look.config.node.role == Role::ControlPlane;
    if is_control_plane && let Some(status) = control_plane::may_begin(look, &why)? {
        return Ok(status);
    }
    let target = match target::of(look, false)? {
        Ok(target) if is_control_plane => control_plane::complete(look, target)?,
        other => other,
    };
    let target = match target {
        Ok(target) => target,
        Err(status) => return Ok(status),
    };
    let cluster = match discovery::discover(look, &target).await {
        Ok(cluster) => cluster,
        Err(observations) => {
            let renamed = name::change_to_another(look, &target, &observations)?;
            return Ok(renamed.unwrap_or_else(|| verdict::status(&observations, &target)));
        }
    };
    // An earlier join may have failed for a reason that somebody has repaired since: say it, and try again.
    let kubelet = look.unit(KUBELET).await?.unwrap_or_default();
    let configured = look.read(KUBELET_CONFIG)?.is_some_and(|bytes| !is_blank(&bytes));
    if configured && kubelet.cannot_start() {
        let finding = diagnosis(look).await;
        why = format!("{why}; {finding}; {}", finding.remedy);
    }
    why = cluster.evidence(why, &target);
    let mut changes = kubeadm::changes(look, &target, &cluster, bad_certificate)?;
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
