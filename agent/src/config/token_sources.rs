//! A node may ask for its bootstrap token when it joins: a control plane node over SSH, a web server, or a program.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::bootstrap_token::contains_token;
use super::error::ConfigError;
use super::place::Place;
use super::values::{split_port, written_as_text};

written_as_text!(SshHost, HostKey, TokenUrl);

/// `[cluster.ssh]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ssh {
    /// Control plane nodes, asked one after the other.
    pub hosts: Vec<SshHost>,
    /// Whom the key logs in as.
    pub user: String,
    /// The private key.
    pub identity_file: PathBuf,
    /// The hosts' public keys, as OpenSSH keeps them.
    pub known_hosts_file: PathBuf,
    /// The hosts' public keys, in place of that file.
    pub host_keys: Vec<HostKey>,
}

/// A host that runs sshd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHost {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port, 22 where none was given.
    pub port: u16,
}

/// The port of sshd when nobody says otherwise.
const SSH_PORT: u16 = 22;

impl fmt::Display for SshHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, port) => write!(formatter, "[{}]:{port}", self.host),
            (false, SSH_PORT) => formatter.write_str(&self.host),
            (false, port) => write!(formatter, "{}:{port}", self.host),
        }
    }
}

impl FromStr for SshHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("has a user in it, and that is cluster.ssh.user".into());
        }
        let (host, port) = split_port(text)?;
        Ok(Self { host, port: port.unwrap_or(SSH_PORT) })
    }
}

/// A host's public key, as it stands in `/etc/ssh/ssh_host_*_key.pub`: algorithm and key, without a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey(String);

/// What OpenSSH knows without its deprecated DSA (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
const ALGORITHMS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl fmt::Display for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for HostKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(algorithm), Some(key)) = (words.next(), words.next()) else {
            return Err("is not an algorithm and a key".into());
        };
        if !ALGORITHMS.contains(&algorithm) {
            return Err("does not begin with the name of a host key's algorithm".into());
        }
        // The key itself says its algorithm, too (RFC 4253, section 6.6): a length of four bytes, and the name.
        let bytes = STANDARD.decode(key).map_err(|_| "has a key that is not base64".to_owned())?;
        let name = bytes.get(4..4 + algorithm.len());
        if name != Some(algorithm.as_bytes()) || bytes.len() < 4 + algorithm.len() + 32 {
            return Err("has a key that is cut off, or of another algorithm".into());
        }
        Ok(Self(format!("{algorithm} {key}")))
    }
}

/// Where a bootstrap token is to be had over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUrl(String);

impl fmt::Display for TokenUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for TokenUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("https://") else {
            return Err("is not an https address".into());
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') || path.contains(['?', '#']) {
            return Err("has a user, a query or a fragment, which would be shown; token-command can keep a secret".into());
        }
        if path.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err("has white space in it".into());
        }
        let (host, port) = split_port(authority)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self(format!("https://{host}{port}/{path}")))
    }
}

/// A name of a user on Linux (useradd(8)).
pub(super) fn user_name(text: &str) -> Result<String, String> {
    let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if begins_well && text.len() <= 32 && text.bytes().all(is_letter) {
        Ok(text.to_owned())
    } else {
        Err("is not a user's name".into())
    }
}

/// The program, or one of its arguments. Everybody on the machine can see them while it runs.
pub(super) fn program_word(text: &str) -> Result<String, String> {
    if contains_token(text) {
        Err("contains a bootstrap token, and everybody can see a program's arguments".into())
    } else if text.chars().any(char::is_control) {
        Err("contains a control character".into())
    } else {
        Ok(text.to_owned())
    }
}

const URL: &str = "cluster.token-url";
const URL_AUTHORITY: &str = "cluster.token-url-ca-file";

/// A web server is only believed under a CA that somebody named.
pub(super) fn contradictions<'a>(said: &dyn Fn(&str) -> Option<(&'a str, &'a Place)>) -> Option<ConfigError> {
    let (Some((_, place)), None) = (said(URL), said(URL_AUTHORITY)) else { return None };
    let message = format!("this is given without {URL_AUTHORITY}, and a server is only believed under a CA that is named");
    Some(ConfigError::new(place, message).about(URL).hint("give the file of the CA's certificate, too"))
}

/// A program is found by its path, never by `$PATH`.
pub(super) fn relative_program(argv: &[&str], place: &Place) -> Option<ConfigError> {
    let program = argv.first().filter(|program| !program.starts_with('/'))?;
    let message = format!("{} is not an absolute path", super::error::quoted(program));
    Some(
        ConfigError::new(place, message)
            .about("cluster.token-command")
            .hint("begin the list with the program's path from the root"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keys_and_addresses_are_strict() {
        let host = |text: &str| text.parse::<SshHost>().map(|host| host.to_string());
        assert_eq!(host("CP1"), Ok("cp1".to_owned()));
        assert_eq!(host("10.0.0.1:2222"), Ok("10.0.0.1:2222".to_owned()));
        assert_eq!(host("[fd00::1]"), Ok("[fd00::1]:22".to_owned()));
        for wrong in ["-oProxyCommand=x", "root@cp1", "", "a b", "cp1:0"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3ks8yLN4XGRMf6QzvfPgg5gYcxKVlNKVNjMcRUvK2x";
        assert_eq!(format!("{key} root@cp1").parse::<HostKey>().map(|key| key.to_string()), Ok(key.to_owned()));
        for wrong in
            ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJ3ks8yLN4XGRMf6Q", "x AAAA", &key[..60]]
        {
            assert!(wrong.parse::<HostKey>().is_err(), "{wrong}");
        }
        let url = |text: &str| text.parse::<TokenUrl>().map(|url| url.to_string());
        assert_eq!(url("https://store.example.com/a/b"), Ok("https://store.example.com/a/b".to_owned()));
        assert_eq!(url("https://[fd00::1]:8443"), Ok("https://[fd00::1]:8443/".to_owned()));
        for wrong in ["http://a/b", "https://u:p@a/b", "https://a/b?c=d", "https://a/b c", "https:///b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        assert!(user_name("gpuk-join").is_ok() && user_name("-x").is_err() && user_name("").is_err());
        assert!(program_word("abcdef.0123456789abcdef").unwrap_err().contains("everybody"));
    }
}
