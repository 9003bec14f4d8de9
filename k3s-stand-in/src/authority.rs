//! A k3s cluster has a CA of its own, or a chain that its owner brought; the hash in a token is over the one or over the chain's root.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ring::digest::{SHA256, digest};

/// What signs the certificates of servers and nodes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What `/cacerts` answers.
    pub cacerts: String,
    /// What comes behind a server's own certificate, in PEM.
    chain: String,
    /// The hash in the cluster's tokens.
    pub hash: String,
}

impl Authority {
    /// As k3s makes it itself: one certificate, and the hash is over its PEM.
    pub fn self_signed(name: &str) -> Self {
        let (params, key) = (ca(name), KeyPair::generate().unwrap());
        let cacerts = params.self_signed(&key).unwrap().pem();
        let hash = hexadecimal(cacerts.as_bytes());
        Self { issuer: Issuer::new(params, key), chain: cacerts.clone(), cacerts, hash }
    }

    /// As its owner may bring it (k3s documentation, "Using Custom CA Certificates"): an intermediate CA under a root, whose DER the hash is over.
    pub fn chained(name: &str) -> Self {
        let (root_params, root_key) = (ca(&format!("{name}-root")), KeyPair::generate().unwrap());
        let root = root_params.self_signed(&root_key).unwrap();
        let (params, key) = (ca(name), KeyPair::generate().unwrap());
        let intermediate = params.signed_by(&key, &Issuer::new(root_params, root_key)).unwrap();
        let cacerts = format!("{}{}", intermediate.pem(), root.pem());
        Self { issuer: Issuer::new(params, key), chain: cacerts.clone(), cacerts, hash: hexadecimal(root.der()) }
    }

    /// Another one whose `/cacerts` is this text: what somebody in between could show.
    pub fn showing(self, cacerts: String) -> Self {
        Self { cacerts, ..self }
    }

    /// A server's certificate for these names with what comes behind it, and its key, in PEM.
    pub fn server(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(CertificateParams::new(names).unwrap())
    }

    /// A kubelet's client certificate with what comes behind it, and its key, in PEM.
    pub fn client(&self, node: &str) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> (String, String) {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (format!("{}{}", certificate.pem(), self.chain), key.serialize_pem())
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn hexadecimal(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
