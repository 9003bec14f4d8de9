//! Whoever made a machine a node before us left files that no one else has.

use anyhow::Result;
use serde::Serialize;

use crate::look::Look;

/// What the files on the disk tell about the machine's part in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// A file that only a control plane node has.
    pub control_plane: Option<String>,
    /// Whose image this is, and the file that says so, when a platform manages its nodes by itself.
    pub managed: Option<String>,
}

/// The API server's own files: kubeadm's static pod, the servers of k3s and RKE2.
const CONTROL_PLANE: &[&str] =
    &["/etc/kubernetes/manifests/kube-apiserver.yaml", "/var/lib/rancher/k3s/server/tls", "/var/lib/rancher/rke2/server/tls"];

/// A managed platform's images, each by the directory or file that its own bootstrap needs: awslabs/amazon-eks-ami, GKE's configure.sh,
/// Azure/AgentBaker. To add a platform, add a row.
const MANAGED: &[(&str, &str)] = &[
    ("EKS", "/etc/eks"),
    ("GKE", "/home/kubernetes/kube-env"),
    ("GKE", "/etc/srv/kubernetes/kube-env"),
    ("AKS", "/opt/azure/containers/provision.sh"),
    ("AKS", "/opt/azure/containers/provision_start.sh"),
];

/// Looks for them.
pub fn marks(look: Look<'_>) -> Result<Marks> {
    let mut marks = Marks::default();
    for path in CONTROL_PLANE {
        if marks.control_plane.is_none() && look.exists(path)? {
            marks.control_plane = Some((*path).to_owned());
        }
    }
    for (platform, path) in MANAGED {
        if marks.managed.is_none() && look.exists(path)? {
            marks.managed = Some(format!("{platform}: {path} is there"));
        }
    }
    Ok(marks)
}
