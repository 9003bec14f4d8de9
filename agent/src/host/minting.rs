//! A bootstrap token is a Secret of a documented form, which whoever may create Secrets in `kube-system` can make.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::causes;
use super::cluster::{ClusterError, client_of};
use super::files::Files;
use crate::config::Secret;
use crate::show::utc;

/// A token that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The public half.
    pub id: String,
    /// The other half.
    pub secret: Secret,
    /// When it dies.
    pub expires: SystemTime,
    /// For whom it was made, for `kubeadm token list`.
    pub description: String,
}

/// The group that kubeadm's roles for joining nodes are bound to (kubeadm, "Implementation details").
const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

const LIMIT: Duration = Duration::from_secs(10);

impl NewToken {
    /// With random halves; an error says that the kernel gives no random bytes.
    pub fn random(expires: SystemTime, description: String) -> anyhow::Result<Self> {
        let letters = random_letters(22)?;
        let (id, secret) = letters.split_at(6);
        Ok(Self { id: id.to_owned(), secret: Secret::new(secret), expires, description })
    }

    /// The whole token.
    pub fn bearer(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// The Secret (Kubernetes documentation, "Authenticating with Bootstrap Tokens", "Bootstrap Token Secret Format").
    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"namespace": "kube-system", "name": format!("bootstrap-token-{}", self.id)},
            "stringData": {
                "token-id": self.id,
                "token-secret": self.secret.expose(),
                "expiration": utc(self.expires),
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": GROUP,
                "description": self.description,
            },
        })
    }
}

fn random_letters(count: usize) -> anyhow::Result<String> {
    let random = SystemRandom::new();
    let mut text = String::new();
    while text.len() < count {
        let mut byte = [0];
        random.fill(&mut byte).map_err(|_| anyhow::anyhow!("the kernel gives no random bytes"))?;
        // 252 is the greatest multiple of 36 in a byte: above it letters would not be equally likely.
        if byte[0] < 252 {
            text.push(char::from(LETTERS[usize::from(byte[0] % 36)]));
        }
    }
    Ok(text)
}

/// Whoever makes tokens.
#[async_trait(?Send)]
pub trait Minting {
    /// Makes one. An id that is taken is `Refused` with 409.
    async fn create(&self, token: &NewToken) -> Result<(), ClusterError>;
}

/// The API server, with the credential of a kubeconfig.
pub struct Minter {
    client: kube::Client,
}

impl Minter {
    /// With this kubeconfig. It is not read before it is used.
    pub async fn with(files: &Files, kubeconfig: &Path) -> Result<Self, ClusterError> {
        Ok(Self { client: client_of(files, kubeconfig).await? })
    }
}

#[async_trait(?Send)]
impl Minting for Minter {
    async fn create(&self, token: &NewToken) -> Result<(), ClusterError> {
        let request = http::Request::post("/api/v1/namespaces/kube-system/secrets?fieldManager=gpuk-agent")
            .header("content-type", "application/json")
            .body(token.object().to_string().into_bytes())
            .map_err(|error| ClusterError::Unreachable(error.to_string()))?;
        match tokio::time::timeout(LIMIT, self.client.request::<Value>(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused(status.code, status.message.clone())),
            Ok(Err(error)) => Err(ClusterError::Unreachable(causes(&error))),
            Err(_) => Err(ClusterError::Unreachable(format!("the API server did not answer in {} s", LIMIT.as_secs()))),
        }
    }
}

/// A fake: answers in turn, and remembers every token that it was asked for.
#[derive(Default)]
pub struct ScriptedMinting {
    /// Further answers; without any, tokens are made.
    pub answers: RefCell<Vec<ClusterError>>,
    /// What was asked for.
    pub seen: RefCell<Vec<NewToken>>,
}

#[async_trait(?Send)]
impl Minting for ScriptedMinting {
    async fn create(&self, token: &NewToken) -> Result<(), ClusterError> {
        self.seen.borrow_mut().push(token.clone());
        self.answers.borrow_mut().pop().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::token_parts;

    #[test]
    fn tokens_are_well_formed_and_never_the_same() {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_272_600);
        let tokens: Vec<NewToken> = (0..50).map(|_| NewToken::random(expires, "x".to_owned()).unwrap()).collect();
        for token in &tokens {
            let bearer = token.bearer();
            assert_eq!(token_parts(bearer.expose()).map(|(id, _)| id), Some(token.id.as_str()));
            assert!(!format!("{token:?}").contains(token.secret.expose()));
        }
        assert!(tokens.iter().skip(1).all(|token| token.secret != tokens[0].secret && token.id != tokens[0].id));
        let object = tokens[0].object();
        assert_eq!(object["stringData"]["expiration"], "2026-06-01T00:10:00Z");
        assert_eq!(object["metadata"]["name"], format!("bootstrap-token-{}", tokens[0].id));
    }
}
