//! A k3s node is a member while its kubelet's client certificate is in date; k3s asks its server for a new one at every start.
//!
//! Certificates last a year, and a start renews one that has expired, or would soon (k3s documentation, "k3s certificate"): a node that
//! runs for a year without a start falls out of its cluster.

use std::time::SystemTime;

use anyhow::Result;

use crate::host::cluster::{K3S_CERTIFICATE, K3S_KEY, K3S_KUBECONFIG};
use crate::look::{Look, is_blank};
use crate::steps::join::{ClientCertificate, examine};

/// The CA that the servers' certificates are under, once the node has joined.
pub const SERVER_AUTHORITY: &str = "/var/lib/rancher/k3s/agent/server-ca.crt";

/// What the kubelet listens with.
const SERVING: [&str; 2] = ["/var/lib/rancher/k3s/agent/serving-kubelet.crt", "/var/lib/rancher/k3s/agent/serving-kubelet.key"];

/// What this machine holds of a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// A member.
    Member {
        /// The end of its certificate.
        until: SystemTime,
    },
    /// Not a member, or no more.
    Stranger {
        /// What is missing.
        why: String,
        /// Files that a power cut damaged: k3s reads a key that is there, and never makes another one in its place.
        damaged: Vec<&'static str>,
    },
}

/// Reads the files of a join; asks nobody.
pub fn membership(look: Look<'_>) -> Result<Membership> {
    let mut damaged = Vec::new();
    for path in [K3S_CERTIFICATE, K3S_KEY].into_iter().chain(SERVING) {
        if look.read(path)?.is_some_and(|bytes| is_blank(&bytes)) {
            damaged.push(path);
        }
    }
    let (certificate, key) = (look.read(K3S_CERTIFICATE)?, look.read(K3S_KEY)?);
    let stranger = |why: String, damaged: Vec<&'static str>| Ok(Membership::Stranger { why, damaged });
    let (Some(mut pair), Some(key)) = (certificate, key) else {
        return stranger("this machine has not joined a cluster".to_owned(), damaged);
    };
    if let Some(path) = damaged.first() {
        return stranger(format!("{path} is empty"), damaged);
    }
    pair.push(b'\n');
    pair.extend(key);
    match examine(&pair, look.now()) {
        ClientCertificate::Valid(until) if look.exists(K3S_KUBECONFIG)? => Ok(Membership::Member { until }),
        ClientCertificate::Valid(_) => stranger(format!("the join is damaged: {K3S_KUBECONFIG} is missing"), damaged),
        ClientCertificate::Expired(why) => stranger(format!("{K3S_CERTIFICATE} {why}"), damaged),
        ClientCertificate::Bad(why) => stranger(format!("{K3S_CERTIFICATE} {why}"), vec![K3S_CERTIFICATE, K3S_KEY]),
        ClientCertificate::Absent => stranger("this machine has not joined a cluster".to_owned(), damaged),
    }
}
