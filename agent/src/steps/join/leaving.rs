//! A machine leaves its cluster when nothing on it says any more that it belongs there; only its Node stays, which it may not delete.

use std::time::Duration;

use anyhow::{Result, bail};

use super::control_plane::Existing;
use super::joined::{AUTHORITY, CERTIFICATE, KUBELET_CONFIG, KUBELET_FLAGS, Membership, membership};
use super::kubeadm::DISCOVERY_FILE;
use super::name::JOINED_ONTO;
use super::renewal::BOOTSTRAP_FILE;
use super::{KUBELET, credential};
use crate::config::Role;
use crate::host::cluster::{K3S_CERTIFICATE, KUBELET_CERTIFICATES, KUBELET_KUBECONFIG};
use crate::identity;
use crate::look::Look;
use crate::step::{Change, UnitVerb};
use crate::steps::k3s;

/// Pods have 30 s to end where nobody says otherwise (Kubernetes API, `terminationGracePeriodSeconds`).
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// What else a kubelet keeps of a cluster and would hold a new one to (kubelet, state checkpoints).
const CHECKPOINTS: [&str; 4] = [
    "/var/lib/kubelet/cpu_manager_state",
    "/var/lib/kubelet/memory_manager_state",
    "/var/lib/kubelet/instance-config.yaml",
    "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint",
];

/// What takes this machine out of its cluster: no changes where nothing of a join is left.
pub async fn leave(look: Look<'_>) -> Result<Vec<Change>> {
    // Whoever joined this machine takes it out again.
    if !look.config.wants_join() {
        return Ok(Vec::new());
    }
    if k3s::is_wanted(look.config) {
        if !look.exists(K3S_CERTIFICATE)? {
            return Ok(Vec::new());
        }
        bail!(
            "k3s brings its own way out: k3s-agent-uninstall.sh (on a server k3s-uninstall.sh), which its installer put beside it"
        );
    }
    if look.config.node.role == Role::ControlPlane && Existing::look(look)?.is_any() {
        bail!(
            "a control plane node is a member of etcd, which loses its majority when one just goes: on this node, kubeadm reset \
             (it takes the member out first)"
        );
    }
    let mut files: Vec<String> =
        [KUBELET_KUBECONFIG, BOOTSTRAP_FILE, AUTHORITY, KUBELET_CONFIG, KUBELET_FLAGS, DISCOVERY_FILE, JOINED_ONTO, CERTIFICATE]
            .iter()
            .chain(&CHECKPOINTS)
            .map(|path| (*path).to_owned())
            .collect();
    for name in look.list(KUBELET_CERTIFICATES)? {
        files.push(format!("{KUBELET_CERTIFICATES}/{name}"));
    }
    files.dedup();
    let mut removals = Vec::new();
    for path in files {
        // A link without its target is there, too.
        if look.exists(&path)? || look.link(&path)?.is_some() {
            removals.push(Change::Remove { path: path.into(), secret: true });
        }
    }
    removals.sort_by_key(ToString::to_string);
    removals.dedup();
    let socket = look.config.containerd.socket.display().to_string();
    // Nobody there has no pods.
    let has_pods = look.running_system() && look.pods(&socket).await.unwrap_or_default() > 0;
    if removals.is_empty() && !has_pods {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    if look.running_system() {
        let kubelet = look.unit(KUBELET).await?.unwrap_or_default();
        if let (Membership::Member { .. }, Some(node)) = (membership(look)?, identity::name(look)) {
            changes.push(Change::Drain { node, limit: DRAIN_LIMIT });
        }
        if kubelet.is_running() || kubelet.cannot_start() {
            changes.push(Change::Unit(UnitVerb::Stop, KUBELET.to_owned()));
        }
        if has_pods {
            changes.push(Change::RemovePods { socket });
        }
    }
    changes.extend(removals);
    changes.extend(credential::remains(look)?);
    changes.push(Change::Sync);
    Ok(changes)
}
