//! A certificate says who somebody is only to those who trust its issuer; here are right ones, wrong ones and forged ones.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The CA certificate in PEM.
    pub pem: String,
}

/// What a server's certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The right name, and dates around now.
    Right,
    /// Another name.
    OtherName,
    /// The right name, until yesterday.
    Expired,
}

impl Authority {
    /// A cluster's own: it has its key.
    pub fn of_cluster(directory: &Path) -> Self {
        // kubeadm writes SEC 1, rcgen with ring reads PKCS #8.
        let key = directory.join("pki/ca.key");
        let converted = Command::new("openssl").args(["pkcs8", "-topk8", "-nocrypt", "-in"]).arg(key).output().unwrap();
        let key = KeyPair::from_pem(&String::from_utf8(converted.stdout).unwrap()).unwrap();
        let pem = std::fs::read_to_string(directory.join("pki/ca.crt")).unwrap();
        Self { issuer: Issuer::new(authority("kubernetes"), key), pem }
    }

    /// One of nobody's cluster, under a name that it chooses.
    pub fn stranger(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's side of TLS with a certificate of this authority, for 127.0.0.1 unless it says otherwise.
    pub fn server(&self, says: Says) -> Arc<ServerConfig> {
        let name = if says == Says::OtherName { "192.0.2.1" } else { "127.0.0.1" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let day = Duration::from_secs(86_400);
        let end = SystemTime::now();
        params.not_before = (end - day * 10).into();
        params.not_after = if says == Says::Expired { end - day } else { end + day * 10 }.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Go writes a PrintableString, and names are compared byte for byte.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name.try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that believes whoever answers, as somebody in the middle does.
pub fn credulous() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous)).with_no_client_auth())
}

#[derive(Debug)]
struct Credulous;

impl rustls::client::danger::ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
