//! Whoever made a machine a node before us left files that no one else has.

use anyhow::Result;
use serde::Serialize;

use crate::host::cluster::K3S_DROP_IN;
use crate::look::Look;

/// What the files on the disk tell about the machine's part in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// A file that only a control plane node has: an API server's or etcd's.
    pub control_plane: Option<String>,
    /// Whose image this is, and the file that says so, when a platform manages its nodes by itself.
    pub managed: Option<String>,
}

/// What kubeadm leaves of an API server (its static pod) and of etcd. Either makes a machine a part of the control plane.
const CONTROL_PLANE: &[&str] = &["/etc/kubernetes/manifests/kube-apiserver.yaml", "/var/lib/etcd/member"];

/// A managed platform's images, each by the directory or file that its own bootstrap needs: awslabs/amazon-eks-ami, GKE's configure.sh,
/// Azure/AgentBaker. A node of k3s or RKE2, server or agent, is known by the keys in its data directory: these have a kubelet of their own
/// inside, under a name of their own, and are left alone unless this program joined them. To add a platform, add a row.
const MANAGED: &[(&str, &str)] = &[
    ("EKS", "/etc/eks"),
    ("GKE", "/home/kubernetes/kube-env"),
    ("GKE", "/etc/srv/kubernetes/kube-env"),
    ("AKS", "/opt/azure/containers/provision.sh"),
    ("AKS", "/opt/azure/containers/provision_start.sh"),
    ("k3s", "/var/lib/rancher/k3s/server/tls"),
    ("k3s", "/var/lib/rancher/k3s/agent/client-kubelet.crt"),
    ("RKE2", "/var/lib/rancher/rke2/server/tls"),
    ("RKE2", "/var/lib/rancher/rke2/agent/client-kubelet.crt"),
];

/// k3s's server, and what the agent writes where it is the one that joins a node of k3s: then no platform manages it.
const K3S_SERVER: &str = "/var/lib/rancher/k3s/server/tls";

/// Looks for them.
pub fn marks(look: Look<'_>) -> Result<Marks> {
    let mut marks = Marks::default();
    for path in CONTROL_PLANE {
        if marks.control_plane.is_none() && look.exists(path)? {
            marks.control_plane = Some((*path).to_owned());
        }
    }
    let is_ours = look.exists(K3S_DROP_IN)?;
    if is_ours && marks.control_plane.is_none() && look.exists(K3S_SERVER)? {
        marks.control_plane = Some(K3S_SERVER.to_owned());
    }
    for (platform, path) in MANAGED.iter().filter(|(platform, _)| !(is_ours && *platform == "k3s")) {
        if marks.managed.is_none() && look.exists(path)? {
            marks.managed = Some(format!("{platform}: {path} is there"));
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};
    use crate::facts::Facts;
    use crate::host::Host;

    /// The role that a machine with this one file has, and why.
    fn role(path: &str) -> (Role, String) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        host.record(path.as_ref(), &crate::step::Contents::plain("")).unwrap();
        let config: Config = crate::config::load(Vec::new()).unwrap().config;
        let marks = marks(Look::new(&host, &config, &Facts::default())).unwrap();
        let facts = Facts { marks, ..Facts::default() };
        let loaded = crate::config::load(crate::role::layer(&facts).into_iter().collect()).unwrap();
        (loaded.config.node.role, crate::role::answer(&loaded.config, &loaded.settings, &facts).to_string())
    }

    #[test]
    fn every_mark_has_its_role_and_names_its_file() {
        for path in CONTROL_PLANE {
            let (role, why) = role(&format!("{path}/x"));
            assert!(role == Role::ControlPlane && why.contains(path), "{why}");
        }
        for (platform, path) in MANAGED {
            let (role, why) = role(&format!("{path}/x"));
            assert!(role == Role::Observed && why.contains(&format!("{platform}: {path} is there")), "{why}");
        }
        assert_eq!(role("/etc/kubernetes/manifests/x.yaml").0, Role::Worker);
    }

    #[test]
    fn a_node_of_k3s_that_this_program_joined_is_no_platforms() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let config: Config = crate::config::load(Vec::new()).unwrap().config;
        let found = |paths: &[&str]| {
            paths.iter().for_each(|path| host.record(path.as_ref(), &crate::step::Contents::plain("")).unwrap());
            marks(Look::new(&host, &config, &Facts::default())).unwrap()
        };
        assert_eq!(found(&[K3S_DROP_IN, "/var/lib/rancher/k3s/agent/client-kubelet.crt"]), Marks::default());
        let server = Marks { control_plane: Some(K3S_SERVER.to_owned()), managed: None };
        assert_eq!(found(&["/var/lib/rancher/k3s/server/tls/server-ca.crt"]), server);
        assert!(found(&["/var/lib/rancher/rke2/server/tls/server-ca.crt"]).managed.is_some());
    }

    #[test]
    fn nothing_is_changed_on_a_server_of_k3s() {
        let (role, _) = role("/var/lib/rancher/k3s/server/tls/server-ca.crt");
        let steps = crate::catalog::steps(role);
        assert_eq!(steps.iter().map(|step| step.name()).collect::<Vec<_>>(), ["observed"]);
    }
}
