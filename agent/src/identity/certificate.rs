//! The API server knows a node by the common name of its kubelet's client certificate, `system:node:NAME` (Kubernetes, "Node authorization").

use anyhow::Result;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;

use crate::config::ClusterKind;
use crate::digest::sha256;
use crate::host::cluster::{K3S_CERTIFICATE, KUBELET_CERTIFICATE};
use crate::look::Look;

/// The certificate file, as far as it says whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// SHA-256 of the whole file in hexadecimal digits. Each certificate has a serial number and a signature of its own, so there is no other file of this digest.
    pub digest: String,
    /// The node in its common name; `None` when the file is damaged.
    pub node: Option<String>,
}

impl NodeCertificate {
    /// The kubelet's current one, or `None` when there is none.
    pub fn read(look: Look<'_>) -> Result<Option<Self>> {
        let path = if look.config.cluster.kind == ClusterKind::K3s { K3S_CERTIFICATE } else { KUBELET_CERTIFICATE };
        let Some(bytes) = look.read(path)? else { return Ok(None) };
        Ok(Some(Self { digest: sha256(&bytes), node: node(&bytes) }))
    }
}

/// An expired certificate names its node as well as a fresh one.
fn node(pem: &[u8]) -> Option<String> {
    let leaf = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let certificate = x509_cert::Certificate::from_der(&leaf).ok()?;
    let common_name = certificate.tbs_certificate().subject().common_name().ok()??;
    let name = common_name.value().strip_prefix("system:node:")?.to_owned();
    (!name.is_empty()).then_some(name)
}
