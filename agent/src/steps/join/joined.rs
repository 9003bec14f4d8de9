//! A node has joined when it holds a client certificate that is in date; every other file that a join leaves proves nothing.
//!
//! kubeadm writes `kubelet.conf` before the certificate exists, and a power cut seconds after a join leaves files of 0 bytes.

use std::time::SystemTime;

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use x509_cert::der::Decode;

pub use crate::host::cluster::KUBELET_CERTIFICATE as CERTIFICATE;
use crate::host::cluster::KUBELET_KUBECONFIG;
use crate::look::{Look, is_blank};
use crate::show::utc;
pub use crate::steps::kubelet::KUBELET_CONFIG;

/// The cluster's CA, by which the kubelet knows its API server and its clients.
pub const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// The kubelet's flags, as kubeadm chose them.
pub const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";

/// What this machine holds of a membership in a cluster.
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
        /// There is a certificate file that the kubelet would stumble over.
        bad_certificate: bool,
    },
}

enum Certificate {
    Absent,
    Valid(SystemTime),
    Bad(String),
}

/// Reads the files of a join; asks nobody.
pub fn membership(look: Look<'_>) -> Result<Membership> {
    let certificate = match look.read(CERTIFICATE)? {
        Some(pem) => examine(&pem, look.now()),
        None => Certificate::Absent,
    };
    let mut absent = 0;
    let mut missing = Vec::new();
    for path in [KUBELET_KUBECONFIG, AUTHORITY, KUBELET_CONFIG, KUBELET_FLAGS] {
        match look.read(path)? {
            None => {
                absent += 1;
                missing.push(format!("{path} is missing"));
            }
            Some(bytes) if is_blank(&bytes) => missing.push(format!("{path} is empty")),
            Some(_) => {}
        }
    }
    let why = match certificate {
        Certificate::Valid(until) if missing.is_empty() => return Ok(Membership::Member { until }),
        Certificate::Valid(_) => format!("the join is damaged: {}", missing.join(", ")),
        Certificate::Bad(why) => {
            return Ok(Membership::Stranger { why: format!("{CERTIFICATE} {why}"), bad_certificate: true });
        }
        Certificate::Absent if absent == 4 => "this machine has not joined a cluster".to_owned(),
        Certificate::Absent => "an earlier join was not finished: there is no client certificate".to_owned(),
    };
    Ok(Membership::Stranger { why, bad_certificate: false })
}

/// As the kubelet sees it: the certificate and its key must parse and fit, and only the end of the certificate counts.
fn examine(pem: &[u8], now: SystemTime) -> Certificate {
    if is_blank(pem) {
        return Certificate::Bad("is empty".to_owned());
    }
    let damaged = |what: &str| Certificate::Bad(format!("is damaged: {what}"));
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let Ok(chain) = chain else { return damaged("it is not PEM") };
    let Some(leaf) = chain.first() else { return damaged("it holds no certificate") };
    let Ok(parsed) = x509_cert::Certificate::from_der(leaf) else { return damaged("its certificate cannot be read") };
    let until = parsed.tbs_certificate().validity().not_after.to_system_time();
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem) else { return damaged("it holds no private key") };
    if CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).is_err() {
        return damaged("its key cannot be read, or belongs to another certificate");
    }
    if now > until { Certificate::Bad(format!("expired at {}", utc(until))) } else { Certificate::Valid(until) }
}
