//! A k3s cluster shows its CA to strangers, and the hash in a token, or a pin, makes it believable.
//!
//! The hash is not over the public key, as kubeadm's is: it is over the bytes of `/cacerts` where that is one certificate, and over the
//! root's DER where it is a chain (k3s, `pkg/clientaccess/token.go`). k3s then believes everything that came with a good root. Here only
//! what the hash or the pin is of is believed: whoever is in between could have put a CA of his own beside a good root.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::digest::sha256;
use crate::steps::join::{Authority, authorities};

/// What of `/cacerts` is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// Certificates that may vouch for a server.
    pub trusted: Vec<Authority>,
    /// The hash that a token of this cluster has, where it is certain.
    pub hash: Option<String>,
}

/// Why nothing is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// The answer holds no certificate.
    Unreadable(String),
    /// It is of another cluster: these hashes it has.
    Another(Vec<String>),
}

/// One certificate of the answer.
struct Candidate {
    authority: Authority,
    /// Of its DER.
    hash: String,
    /// `sha256:` and a hash, any of which may be configured.
    pins: Vec<String>,
    is_root: bool,
}

/// Judges the answer of `/cacerts`. Where there is a hash it must fit, and where there are pins one of them must, too; with neither,
/// everything is believed.
pub fn believe(cacerts: &[u8], hash: Option<&str>, pins: &[String]) -> Result<Believed, Disbelief> {
    let found = authorities(cacerts).map_err(Disbelief::Unreadable)?;
    let whole = sha256(cacerts);
    let is_single = found.len() == 1;
    let candidates = found.into_iter().enumerate().map(|(place, authority)| candidate(authority, &whole, is_single, place));
    let candidates = candidates.collect::<Result<Vec<Candidate>, Disbelief>>()?;
    let seen = || {
        let hashes = candidates.iter().filter(|candidate| candidate.is_root).map(|candidate| candidate.hash.clone());
        if is_single { vec![whole.clone()] } else { hashes.collect() }
    };
    let fits_hash = |candidate: &Candidate| match hash {
        None => true,
        // The bytes of a chain count where k3s finds no root in it.
        Some(hash) => hash == whole || !is_single && candidate.is_root && candidate.hash == hash,
    };
    let fits_pin = |candidate: &Candidate| pins.is_empty() || candidate.pins.iter().any(|pin| pins.contains(pin));
    let trusted: Vec<&Candidate> = candidates.iter().filter(|candidate| fits_hash(candidate) && fits_pin(candidate)).collect();
    if trusted.is_empty() {
        return Err(Disbelief::Another(seen()));
    }
    let roots: Vec<&&Candidate> = trusted.iter().filter(|candidate| candidate.is_root).collect();
    let certain = match (hash, roots.as_slice()) {
        (Some(hash), _) => Some(hash.to_owned()),
        (None, _) if is_single => Some(whole.clone()),
        (None, [root]) => Some(root.hash.clone()),
        (None, _) => None,
    };
    Ok(Believed { trusted: trusted.into_iter().map(|candidate| candidate.authority.clone()).collect(), hash: certain })
}

fn candidate(authority: Authority, whole: &str, is_single: bool, place: usize) -> Result<Candidate, Disbelief> {
    use x509_cert::der::Decode;
    let unreadable = |_| Disbelief::Unreadable("its CA certificate cannot be read".to_owned());
    let der =
        CertificateDer::from_pem_slice(authority.pem.as_bytes()).map_err(|error| Disbelief::Unreadable(error.to_string()))?;
    let certificate = x509_cert::Certificate::from_der(&der).map_err(unreadable)?;
    let certificate = certificate.tbs_certificate();
    let hash = sha256(&der);
    let of_k3s = if is_single { whole.to_owned() } else { hash.clone() };
    let pins = vec![authority.pin.clone(), format!("sha256:{of_k3s}")];
    // The first one of a chain is what k3s looks for a root of.
    let is_root = (is_single || place > 0) && certificate.subject() == certificate.issuer();
    Ok(Candidate { authority, hash, pins, is_root })
}
