//! `cluster-info` is what a cluster tells strangers: where it is, and the CA that only a pin or a signature makes believable.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::digest::sha256;

/// Where every kubeadm cluster publishes it (kubeadm, "Implementation details": `kube-public/cluster-info`).
pub const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// The ConfigMap as far as a joining node reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClusterInfo {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// One CA certificate of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate in PEM.
    pub pem: String,
    /// `sha256:` and the hash of its public key (RFC 7469, section 2.4), as `--discovery-token-ca-cert-hash` takes it.
    pub pin: String,
    /// When it begins to be valid.
    pub from: SystemTime,
    /// When it ends.
    pub until: SystemTime,
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
}

#[derive(Deserialize)]
struct NamedCluster {
    #[serde(default)]
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default, rename = "certificate-authority-data")]
    authority_data: String,
}

impl ClusterInfo {
    /// From the API server's answer; an error says what it is instead.
    pub fn from_answer(body: &[u8]) -> Result<Self, String> {
        let object: serde_json::Value = serde_json::from_slice(body).map_err(|_| "its answer is not JSON".to_owned())?;
        if object["kind"] != "ConfigMap" {
            return Err("its answer is not a ConfigMap".to_owned());
        }
        serde_json::from_value(object).map_err(|error| format!("its ConfigMap cannot be read: {error}"))
    }

    /// The published kubeconfig, byte for byte: the signature is over these.
    pub fn kubeconfig(&self) -> Option<&str> {
        self.data.get("kubeconfig").map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The signature under this key.
    pub fn signature(&self, key: &str) -> Option<&str> {
        self.data.get(key).map(String::as_str)
    }

    /// The CA certificates in the kubeconfig: of the unnamed cluster, as kubeadm writes it, or else of the first one.
    pub fn authorities(&self) -> Result<Vec<Authority>, String> {
        let text = self.kubeconfig().ok_or("it has no kubeconfig")?;
        let kubeconfig: Kubeconfig =
            serde_saphyr::from_str(text).map_err(|error| format!("its kubeconfig cannot be read: {error}"))?;
        let clusters = &kubeconfig.clusters;
        let named = clusters.iter().find(|named| named.name.is_empty()).or_else(|| clusters.first());
        let data = &named.ok_or("its kubeconfig has no cluster")?.cluster.authority_data;
        let pem = STANDARD.decode(data).map_err(|_| "its certificate-authority-data is not base64".to_owned())?;
        authorities(&pem)
    }
}

/// The certificates in a PEM text; at least one.
pub fn authorities(pem: &[u8]) -> Result<Vec<Authority>, String> {
    let found: Result<Vec<Authority>, String> = CertificateDer::pem_slice_iter(pem)
        .map(|certificate| Authority::from_der(&certificate.map_err(|error| format!("its CA is not PEM: {error}"))?))
        .collect();
    found.and_then(|found| if found.is_empty() { Err("it has no CA certificate".to_owned()) } else { Ok(found) })
}

impl Authority {
    fn from_der(der: &CertificateDer<'_>) -> Result<Self, String> {
        let unreadable = |error: x509_cert::der::Error| format!("its CA certificate cannot be read: {error}");
        let certificate = Certificate::from_der(der).map_err(unreadable)?;
        let certificate = certificate.tbs_certificate();
        let public_key = certificate.subject_public_key_info().to_der().map_err(unreadable)?;
        Ok(Self {
            pem: to_pem(der),
            pin: format!("sha256:{}", sha256(&public_key)),
            from: certificate.validity().not_before.to_system_time(),
            until: certificate.validity().not_after.to_system_time(),
        })
    }
}

/// Lines of 64 characters (RFC 7468, section 2).
fn to_pem(der: &[u8]) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (place, letter) in STANDARD.encode(der).chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn the_pin_is_the_one_that_openssl_computes() {
        let found = authorities(fixtures::CA.as_bytes()).expect("a certificate");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pin, fixtures::CA_PIN);
        assert_eq!(found[0].pem.trim(), fixtures::CA.trim());
        assert!(found[0].from < found[0].until);
    }

    #[test]
    fn what_is_no_cluster_info_says_what_it_is() {
        for (body, words) in [
            ("<html>", "not JSON"),
            (r#"{"kind":"Status"}"#, "not a ConfigMap"),
            (r#"{"kind":"ConfigMap","data":[]}"#, "cannot be read"),
        ] {
            let error = ClusterInfo::from_answer(body.as_bytes()).expect_err("no cluster-info");
            assert!(error.contains(words), "{error}");
        }
        for (kubeconfig, words) in [
            ("", "no kubeconfig"),
            ("clusters: []", "no cluster"),
            ("clusters: {", "cannot be read"),
            ("clusters: [{name: '', cluster: {certificate-authority-data: '%'}}]", "not base64"),
            ("clusters: [{name: '', cluster: {}}]", "no CA certificate"),
        ] {
            let body = serde_json::json!({"kind": "ConfigMap", "data": {"kubeconfig": kubeconfig}}).to_string();
            let error = ClusterInfo::from_answer(body.as_bytes()).and_then(|info| info.authorities()).expect_err("no CA");
            assert!(error.contains(words), "{error}");
        }
    }
}
