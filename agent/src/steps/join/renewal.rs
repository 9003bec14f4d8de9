//! A node that lost only its certificate gets another one with a bootstrap file and a restart of its kubelet; kubeadm is not needed.
//!
//! It slept until the certificate had expired (kubernetes#65991), or a power cut took the file, or nobody signed its first request in time.

use std::time::Duration;

use anyhow::Result;

use super::cluster_info::authorities;
use super::credential::{self, Opened};
use super::discovery::Discovered;
use super::joined::{AUTHORITY, CERTIFICATE};
use super::target::{self, Target};
use super::{KUBELET, diagnosis, kubeadm};
use crate::host::cluster::KUBELET_KUBECONFIG;
use crate::host::units::UnitState;
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};

/// What the kubelet asks for a certificate with (kubelet, `--bootstrap-kubeconfig`, as kubeadm's unit has it). It never takes it away.
pub const BOOTSTRAP_FILE: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

/// A certificate is there 3 to 4 s after the kubelet's start; until then nobody is asked again.
const ISSUED_WITHIN: Duration = Duration::from_secs(30);

/// How long a kubelet is left to ask with one bootstrap file.
const ANEW_AFTER: Duration = Duration::from_secs(300);

/// Finds a cluster that is still the machine's own, and lets the kubelet ask it for a certificate.
pub async fn renew(look: Look<'_>, why: String, bad_certificate: bool, bad_kubeconfig: bool) -> Result<Status> {
    let kubelet = look.unit(KUBELET).await?.unwrap_or_default();
    let waits = asks_since(look, &kubelet)?;
    if waits.is_some() && kubelet.cannot_start() {
        return Ok(Status::Broken(diagnosis(look).await));
    }
    if waits.is_some_and(|waits| waits < ISSUED_WITHIN) {
        return Ok(Status::Waiting(not_issued(&why)));
    }
    if let Some(finding) = target::incomplete(look) {
        return Ok(Status::Broken(finding));
    }
    let opened = match credential::that_opens(look, true).await? {
        Ok(opened) => opened,
        Err(status) => return Ok(status),
    };
    let why = opened.evidence(why);
    let Opened { target, cluster, .. } = opened;
    if let Some(finding) = another_cluster(look, &cluster)? {
        return Ok(Status::Broken(finding));
    }
    let bootstrap = kubeadm::kubeconfig(&target, &cluster)?;
    // Another token, or another endpoint, is no reason to begin anew while the first may still do.
    let is_same = look.text(BOOTSTRAP_FILE)?.as_deref() == Some(&bootstrap);
    if waits.is_some_and(|waits| is_same || waits < ANEW_AFTER) {
        return Ok(Status::Waiting(not_issued(&why)));
    }
    // An answer with a token stays until the certificate is there: a token a look would be minted otherwise.
    Ok(Status::pending(why, changes(&target, bootstrap, bad_certificate, bad_kubeconfig)?))
}

fn changes(target: &Target, bootstrap: String, bad_certificate: bool, bad_kubeconfig: bool) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    // The kubelet dies of these files if it cannot read them, and writes them anew. Only the link goes, where one is.
    let bad = [(bad_certificate, CERTIFICATE), (bad_kubeconfig, KUBELET_KUBECONFIG)];
    let bad = bad.into_iter().filter(|(is_bad, _)| *is_bad);
    changes.extend(bad.map(|(_, path)| Change::Remove { path: path.into(), secret: true }));
    changes.push(Change::write_secret(BOOTSTRAP_FILE, bootstrap));
    changes.extend(kubeadm::name_is_known(target.decision.as_ref())?);
    changes.push(Change::Unit(UnitVerb::Restart, KUBELET.to_owned()));
    Ok(changes)
}

/// For how long the running kubelet has had the bootstrap file; `None` where it was started without it.
fn asks_since(look: Look<'_>, kubelet: &UnitState) -> Result<Option<Duration>> {
    let Some(written) = look.modified(BOOTSTRAP_FILE)? else { return Ok(None) };
    // A time in the future: the clock was put right.
    let age = look.now().duration_since(written).unwrap_or(Duration::ZERO);
    let up = look.since_boot()?.saturating_sub(Duration::from_micros(kubelet.active_since));
    // Both times are rounded on the way.
    let has_it = (kubelet.is_running() || kubelet.cannot_start()) && up <= age + Duration::from_secs(1);
    Ok(has_it.then_some(up))
}

/// No CA certificate that the machine was joined with is the cluster's. Pods and networks of another cluster are still on it.
fn another_cluster(look: Look<'_>, cluster: &Discovered) -> Result<Option<Finding>> {
    let pins = |pem: &[u8]| -> Vec<String> {
        authorities(pem).map(|found| found.into_iter().map(|authority| authority.pin).collect()).unwrap_or_default()
    };
    let (own, theirs) = (pins(&look.read(AUTHORITY)?.unwrap_or_default()), pins(cluster.authority.as_bytes()));
    let is_another = !own.iter().any(|pin| theirs.contains(pin));
    let saw = || format!("{AUTHORITY} has the pin {}, {} has {}", own.join(", "), cluster.endpoint, theirs.join(", "));
    Ok(is_another.then(|| rebuilt(saw())))
}

/// Who answers is another cluster than the one that the machine joined.
pub fn rebuilt(saw: String) -> Finding {
    Finding::new(
        "cluster-rebuilt",
        "The cluster is not the one that this machine is a node of: its CA is another one",
        saw,
        "if the cluster was built anew: gpuk-agent reset --rejoin (it takes this machine out of the old one and joins the new one)",
    )
}

fn not_issued(why: &str) -> Finding {
    Finding::new(
        "certificate-not-issued",
        "The kubelet has asked for a certificate and was not given one yet",
        why,
        "kubectl get csr: Pending means that kube-controller-manager is down or the ClusterRoleBinding kubeadm:node-autoapprove-bootstrap is \
         missing; no request of this node: journalctl -b -u kubelet",
    )
}
