//! What there is of a control plane shows in the manifests of its pods and in etcd's folder (kubeadm, "Implementation details").

use anyhow::Result;

use crate::look::{Look, is_blank};

/// Where the kubelet finds the control plane's own pods.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// etcd's data. Never deleted by this program.
const ETCD_DATA: &str = "/var/lib/etcd";

/// A program of the control plane.
struct Part {
    name: &'static str,
    /// Where it listens once its pod runs (Kubernetes documentation, "Ports and Protocols").
    ports: &'static [u16],
}

const PARTS: [Part; 4] = [
    Part { name: "kube-apiserver", ports: &[6443] },
    Part { name: "kube-controller-manager", ports: &[10257] },
    Part { name: "kube-scheduler", ports: &[10259] },
    Part { name: ETCD, ports: &[2379, 2380] },
];

const ETCD: &str = "etcd";

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The parts that have a manifest, and whether it is whole.
    manifests: Vec<(&'static str, bool)>,
    /// Something is in etcd's folder.
    has_etcd_data: bool,
}

impl Existing {
    /// Reads it.
    pub fn look(look: Look<'_>) -> Result<Self> {
        let mut manifests = Vec::new();
        for part in &PARTS {
            if let Some(bytes) = look.read(format!("{MANIFESTS}/{}.yaml", part.name))? {
                let is_pod = String::from_utf8_lossy(&bytes).contains("kind: Pod");
                manifests.push((part.name, is_pod && !is_blank(&bytes)));
            }
        }
        Ok(Self { manifests, has_etcd_data: !look.list(ETCD_DATA)?.is_empty() })
    }

    /// Anything at all.
    pub fn is_any(&self) -> bool {
        !self.manifests.is_empty() || self.has_etcd_data
    }

    /// The kubelet runs an API server here.
    pub fn has_api_server(&self) -> bool {
        self.manifests.contains(&(PARTS[0].name, true))
    }

    /// Everything that kubeadm makes before etcd is whole.
    pub fn is_prepared(&self) -> bool {
        PARTS.iter().filter(|part| part.name != ETCD).all(|part| self.manifests.contains(&(part.name, true)))
    }

    /// The checks of kubeadm's preflight that fail of it. A port counts only where the part could hold it: another program's shows.
    pub fn checks(&self) -> Vec<String> {
        let there = |part: &&Part| self.manifests.iter().any(|(name, _)| *name == part.name);
        let of_part = |part: &Part| {
            let ports = part.ports.iter().map(|port| format!("Port-{port}"));
            std::iter::once(format!("FileAvailable--etc-kubernetes-manifests-{}.yaml", part.name))
                .chain(ports)
                .collect::<Vec<_>>()
        };
        let data = self.has_etcd_data.then(|| "DirAvailable--var-lib-etcd".to_owned());
        PARTS.iter().filter(there).flat_map(of_part).chain(data).collect()
    }

    /// For evidence.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let whole: Vec<&str> = self.manifests.iter().filter(|(_, is_whole)| *is_whole).map(|(name, _)| *name).collect();
        let damaged: Vec<&str> = self.manifests.iter().filter(|(_, is_whole)| !is_whole).map(|(name, _)| *name).collect();
        if !whole.is_empty() {
            words.push(format!("control plane of {}", whole.join(", ")));
        }
        if !damaged.is_empty() {
            words.push(format!("damaged manifests of {}", damaged.join(", ")));
        }
        if self.has_etcd_data && !whole.contains(&ETCD) {
            words.push(format!("data in {ETCD_DATA}"));
        }
        words.join(", ")
    }
}
