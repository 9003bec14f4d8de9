//! A k3s token says who may join, and in its long form also which CA to believe (k3s documentation, "k3s token").

use super::bootstrap_token::token_parts;
use super::join_credential::join_credential;
use super::secret::Secret;

/// What every token in the long form begins with.
const PREFIX: &str = "K10";

/// Between the hash of the CA and the credential.
const SEPARATOR: &str = "::";

/// The characters of the hash.
const HASH: usize = 64;

/// A token in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K3sToken {
    /// The hash of the cluster's CA, in lower case; `None` in the short form.
    pub ca_hash: Option<String>,
    /// Who may join.
    pub credential: K3sCredential,
}

/// What a server takes for the right to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum K3sCredential {
    /// The password of the users `node` and `server`. Whom a long token names does not count: a joining node puts its own role there.
    Password(Secret),
    /// A bootstrap token, `<id>.<secret>`, which lets agents join.
    Bootstrap(Secret),
}

impl K3sToken {
    /// Takes a token apart. What is said of a wrong one never repeats it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err("is not a k3s token: it is empty, or has white space in it".into());
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Ok(Self { ca_hash: None, credential: K3sCredential::of(text) });
        };
        let Some((hash, credential)) = rest.split_once(SEPARATOR) else {
            return Err("is not a k3s token: it begins with K10 and has no \"::\" behind the hash".into());
        };
        if !hash.is_empty() && (hash.len() != HASH || !hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(format!("is not a k3s token: between K10 and \"::\" are not {HASH} hexadecimal digits"));
        }
        let ca_hash = (!hash.is_empty()).then(|| hash.to_ascii_lowercase());
        let credential = match (token_parts(credential), credential.split_once(':')) {
            (Some(_), _) => K3sCredential::Bootstrap(Secret::new(credential)),
            (None, Some((_, password))) if !password.is_empty() => K3sCredential::Password(Secret::new(password)),
            _ => {
                return Err("is not a k3s token: behind \"::\" is neither USER:PASSWORD nor a bootstrap token".into());
            }
        };
        Ok(Self { ca_hash, credential })
    }

    /// The long form with this hash, for a node that joins as `user`.
    pub fn long(&self, hash: &str, user: &str) -> Secret {
        Secret::new(match &self.credential {
            K3sCredential::Password(password) => format!("{PREFIX}{hash}{SEPARATOR}{user}:{}", password.expose()),
            K3sCredential::Bootstrap(token) => format!("{PREFIX}{hash}{SEPARATOR}{}", token.expose()),
        })
    }

    /// The token without a hash.
    pub fn short(&self) -> Secret {
        match &self.credential {
            K3sCredential::Password(secret) | K3sCredential::Bootstrap(secret) => secret.clone(),
        }
    }
}

impl K3sCredential {
    fn of(text: &str) -> Self {
        let secret = Secret::new(text);
        if token_parts(text).is_some() { Self::Bootstrap(secret) } else { Self::Password(secret) }
    }
}

/// What every kind of cluster may take for a token; which one it is can be judged only with `cluster.kind`.
pub(super) fn any_token(text: &str) -> Result<String, String> {
    let is_word = !text.is_empty() && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    if is_word { Ok(text.to_owned()) } else { join_credential(text) }
}

/// Whether a long token stands anywhere in the text.
pub(super) fn contains_long_token(text: &str) -> bool {
    let is_hash = |rest: &str| rest.bytes().take(HASH).filter(u8::is_ascii_hexdigit).count() == HASH;
    text.match_indices(PREFIX).any(|(at, _)| {
        let rest = &text[at + PREFIX.len()..];
        rest.starts_with(SEPARATOR) || is_hash(rest) && rest[HASH..].starts_with(SEPARATOR)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        "0a".repeat(32)
    }

    #[test]
    fn every_form_of_a_token_is_taken_apart() {
        let password = |text: &str| K3sCredential::Password(Secret::new(text));
        let bootstrap = K3sCredential::Bootstrap(Secret::new("abcdef.0123456789abcdef"));
        for (text, ca_hash, credential) in [
            (format!("K10{}::server:hunter2\n", hash()), Some(hash()), password("hunter2")),
            (format!("K10{}::node:a::b:c", hash().to_uppercase()), Some(hash()), password("a::b:c")),
            (format!("K10{}::abcdef.0123456789abcdef", hash()), Some(hash()), bootstrap.clone()),
            ("K10::server:hunter2".to_owned(), None, password("hunter2")),
            ("hunter2".to_owned(), None, password("hunter2")),
            ("abcdef.0123456789abcdef".to_owned(), None, bootstrap),
        ] {
            assert_eq!(K3sToken::parse(&text), Ok(K3sToken { ca_hash, credential }), "{text}");
        }
    }

    #[test]
    fn what_is_no_token_says_why_and_is_not_repeated() {
        for (text, why) in [
            (String::new(), "empty"),
            ("hunter2 hunter3".to_owned(), "white space"),
            (format!("K10{}:server:hunter2", hash()), "\"::\""),
            (format!("K10{}::server:hunter2", &hash()[1..]), "64 hexadecimal digits"),
            (format!("K10{}::hunter2", hash()), "USER:PASSWORD"),
            (format!("K10{}::server:", hash()), "USER:PASSWORD"),
        ] {
            let error = K3sToken::parse(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2") && !error.contains(&hash()), "{text}: {error}");
        }
    }

    #[test]
    fn the_long_form_is_what_k3s_reads() {
        let short = K3sToken::parse("hunter2").unwrap();
        let long = short.long(&hash(), "node");
        assert_eq!(long.expose(), format!("K10{}::node:hunter2", hash()));
        let read = K3sToken::parse(long.expose()).unwrap();
        assert_eq!((read.ca_hash, read.credential), (Some(hash()), short.credential));
    }

    #[test]
    fn a_token_does_not_show_its_secret() {
        let token = K3sToken::parse(&format!("K10{}::server:hunter2", hash())).unwrap();
        assert!(!format!("{token:?}").contains("hunter2"));
        assert!(contains_long_token(&format!("url/K10{}::x:y", hash())) && contains_long_token("K10::server:x"));
        assert!(!contains_long_token("K10.example.com") && !contains_long_token(&format!("K10{}", hash())));
    }
}
