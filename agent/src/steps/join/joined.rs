//! A node has joined when it holds a client certificate that is in date; every other file that a join leaves proves nothing.
//!
//! kubeadm writes `kubelet.conf` before the certificate exists, and a power cut seconds after a join leaves files of 0 bytes.

use std::time::SystemTime;

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use x509_cert::der::Decode;

use super::cluster_info::authorities;

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
    /// All that a join leaves is there and whole, but for the certificate or the file that names it: the kubelet can get these by itself.
    Lapsed {
        /// What is missing.
        why: String,
        /// There is a certificate file that the kubelet would stumble over.
        bad_certificate: bool,
        /// `kubelet.conf` is there and damaged.
        bad_kubeconfig: bool,
    },
    /// Not a member, or no more.
    Stranger {
        /// What is missing.
        why: String,
        /// There is a certificate file that the kubelet would stumble over.
        bad_certificate: bool,
    },
}

impl Membership {
    /// What is missing; empty for a member.
    pub fn why(&self) -> &str {
        match self {
            Self::Member { .. } => "",
            Self::Lapsed { why, .. } | Self::Stranger { why, .. } => why,
        }
    }
}

/// How a client certificate with its key stands.
pub enum Certificate {
    /// There is none.
    Absent,
    /// Good until then.
    Valid(SystemTime),
    /// Its end has passed: when.
    Expired(String),
    /// Nobody can use it: why.
    Bad(String),
}

/// How a file that a join leaves stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum File {
    Absent,
    Damaged(&'static str),
    Whole,
}

/// Reads the files of a join; asks nobody.
pub fn membership(look: Look<'_>) -> Result<Membership> {
    let certificate = match look.read(CERTIFICATE)? {
        Some(pem) => examine(&pem, look.now()),
        None => Certificate::Absent,
    };
    let kubeconfig = file(look, KUBELET_KUBECONFIG)?;
    let rest = [AUTHORITY, KUBELET_CONFIG, KUBELET_FLAGS].map(|path| Ok((path, file(look, path)?)));
    let rest = rest.into_iter().collect::<Result<Vec<_>>>()?;
    let missing: Vec<String> = std::iter::once(&(KUBELET_KUBECONFIG, kubeconfig))
        .chain(&rest)
        .filter_map(|(path, file)| match file {
            File::Absent => Some(format!("{path} is missing")),
            File::Damaged(how) => Some(format!("{path} is {how}")),
            File::Whole => None,
        })
        .collect();
    let (why, bad_certificate) = match &certificate {
        Certificate::Valid(until) if missing.is_empty() => return Ok(Membership::Member { until: *until }),
        Certificate::Valid(_) => (format!("the join is damaged: {}", missing.join(", ")), false),
        Certificate::Expired(why) => (format!("{CERTIFICATE} {why}"), false),
        Certificate::Bad(why) => (format!("{CERTIFICATE} {why}"), true),
        Certificate::Absent if missing.len() == 4 => ("this machine has not joined a cluster".to_owned(), false),
        Certificate::Absent => ("an earlier join was not finished: there is no client certificate".to_owned(), false),
    };
    // With neither of them, the kubelet never came so far: its configuration may be what keeps it, and kubeadm reads that anew.
    let has_either = !matches!(certificate, Certificate::Absent) || kubeconfig != File::Absent;
    Ok(if has_either && rest.iter().all(|(_, file)| *file == File::Whole) {
        Membership::Lapsed { why, bad_certificate, bad_kubeconfig: matches!(kubeconfig, File::Damaged(_)) }
    } else {
        Membership::Stranger { why, bad_certificate: bad_certificate || matches!(certificate, Certificate::Expired(_)) }
    })
}

/// A power cut leaves a file empty or cut off, so it must also hold what it is for.
fn file(look: Look<'_>, path: &str) -> Result<File> {
    let Some(bytes) = look.read(path)? else { return Ok(File::Absent) };
    if is_blank(&bytes) {
        return Ok(File::Damaged("empty"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let is_whole = match path {
        KUBELET_KUBECONFIG => server(&text).is_some(),
        AUTHORITY => authorities(&bytes).is_ok(),
        KUBELET_CONFIG => kind(&text).as_deref() == Some("KubeletConfiguration"),
        _ => text.contains("KUBELET_KUBEADM_ARGS="),
    };
    Ok(if is_whole { File::Whole } else { File::Damaged("damaged") })
}

/// The API server's address in a kubeconfig; `None` where that cannot be read.
pub fn server(kubeconfig: &str) -> Option<String> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).ok()?;
    kubeconfig.clusters.into_iter().next()?.cluster?.server
}

/// The `kind` of an object of a configuration API.
fn kind(yaml: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        kind: String,
    }
    serde_saphyr::from_str::<Object>(yaml).ok().map(|object| object.kind)
}

/// As the kubelet sees it: the certificate and its key must parse and fit, and only the end of the certificate counts.
pub fn examine(pem: &[u8], now: SystemTime) -> Certificate {
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
    if now > until { Certificate::Expired(format!("expired at {}", utc(until))) } else { Certificate::Valid(until) }
}
