//! A bootstrap token proves itself both ways: its secret signs what strangers may read, and opens what they may not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::config::{Secret, token_parts};

/// A bootstrap token in its two halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: Secret,
}

impl BootstrapToken {
    /// Takes a token apart, or `None` when the text is not one.
    pub fn parse(token: &Secret) -> Option<Self> {
        let (id, secret) = token_parts(token.expose().trim())?;
        Some(Self { id: id.to_owned(), secret: Secret::new(secret) })
    }

    /// The public half, by which the cluster finds the token. It may be shown.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token, as it is sent to a server that is verified.
    pub fn bearer(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// The key in `cluster-info` under which the cluster keeps its signature for this token.
    pub fn signature_key(&self) -> String {
        format!("jws-kubeconfig-{}", self.id)
    }

    /// Whether the signature was made over these very bytes by someone who knows the token's secret: a detached JWS
    /// (RFC 7515, appendix F) with HS256, as kube-controller-manager's bootstrapsigner writes it.
    pub fn has_signed(&self, payload: &[u8], signature: &str) -> bool {
        let Some((header, mac)) = signature.trim().split_once("..") else { return false };
        let (Ok(header_bytes), Ok(mac)) = (URL_SAFE_NO_PAD.decode(header), URL_SAFE_NO_PAD.decode(mac)) else { return false };
        let Ok(fields) = serde_json::from_slice::<serde_json::Value>(&header_bytes) else { return false };
        if fields["alg"] != "HS256" || fields["kid"] != self.id.as_str() {
            return false;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose().as_bytes());
        hmac::verify(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)).as_bytes(), &mac).is_ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Signs like the cluster's controller manager.
    pub(in super::super) fn sign(token: &str, payload: &[u8]) -> String {
        let (id, secret) = token.split_once('.').unwrap_or_default();
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mac = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)).as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn token(text: &str) -> BootstrapToken {
        BootstrapToken::parse(&Secret::new(text)).expect("a token")
    }

    #[test]
    fn only_the_right_form_is_a_token() {
        assert_eq!(token("abcdef.0123456789abcdef\n").id(), "abcdef");
        for wrong in ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"] {
            assert_eq!(BootstrapToken::parse(&Secret::new(wrong)), None, "{wrong}");
        }
    }

    /// Made with OpenSSL, not with this code:
    /// `printf 'HEADER.PAYLOAD' | openssl dgst -sha256 -hmac 0123456789abcdef -binary | basenc --base64url`.
    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        let signature = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..vH_kT4yiol-nrAWgjfCYqvum5wsKETXe0S7OOp1VgnE";
        assert!(token("abcdef.0123456789abcdef").has_signed(b"apiVersion: v1\nkind: Config\n", signature));
        assert_eq!(sign("abcdef.0123456789abcdef", b"apiVersion: v1\nkind: Config\n"), signature);
    }

    #[test]
    fn another_secret_payload_id_or_algorithm_is_refused() {
        let payload = b"apiVersion: v1\n";
        let good = sign("abcdef.0123456789abcdef", payload);
        let ours = token("abcdef.0123456789abcdef");
        assert!(ours.has_signed(payload, &good));
        assert!(!ours.has_signed(b"apiVersion: v2\n", &good));
        assert!(!token("abcdef.fedcba9876543210").has_signed(payload, &good));
        assert!(!token("zzzzzz.0123456789abcdef").has_signed(payload, &good));
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"abcdef"}"#);
        for wrong in ["", "..", "a.b.c", good.trim_end_matches(char::is_alphanumeric), &format!("{unsigned}..")] {
            assert!(!ours.has_signed(payload, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_token_does_not_show_its_secret() {
        let shown = format!("{:?} {:?}", token("abcdef.0123456789abcdef"), token("abcdef.0123456789abcdef").bearer());
        assert!(shown.contains("abcdef") && !shown.contains("0123456789abcdef"), "{shown}");
    }
}
