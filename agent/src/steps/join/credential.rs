//! A token may come from several places; they are tried in order until the cluster takes one, and each that failed says why.
//!
//! A fresh one is best: control plane nodes that make one when asked over SSH, then a file, a web server, a program, and at last the
//! token in the configuration. To look at a file or a web server changes nothing. Control plane nodes and programs are asked by a
//! [`Change`], because a token that is made is an object in the cluster; the next look judges the answer (`asked.rs`).

mod asked;
mod ssh;
#[cfg(test)]
mod tests;
mod verdict;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

pub use self::asked::{left, remains};
use self::verdict::Trouble;
use super::bootstrap_token::BootstrapToken;
use super::discovery::{self, Discovered};
use super::name;
use super::target::{self, Target};
use super::verdict::{Action, of_all};
use crate::config::{Config, JoinCredential, SshHost, TokenUrl};
use crate::host::network::{Get, Trust};
use crate::look::Look;
use crate::step::{Change, Command, Status};

/// A token, and what makes its cluster believable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The bootstrap token.
    pub token: BootstrapToken,
    /// `sha256:…` of the CA's public key; any one of them will do.
    pub pins: Vec<String>,
}

/// One place that a token may come from, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A control plane node with the minting verb (`gpuk-agent token serve-ssh`) behind a key.
    Ssh(&'a SshHost),
    /// A file that somebody fills.
    File(&'a Path),
    /// An address that answers with one.
    Url(&'a TokenUrl),
    /// An operator's program.
    Command(&'a [String]),
    /// The configuration itself.
    Static,
}

/// What a source has at the moment.
enum Found {
    /// A text with a token in it; asked again, that would be the changes.
    Text(String, Option<Vec<Change>>),
    /// Nobody has asked it yet.
    Unasked(Vec<Change>),
    /// None, and why; it is time to ask again when there are changes.
    Nothing(Trouble, Option<Vec<Change>>),
}

/// A cluster that took a token.
pub struct Opened {
    /// With that token.
    pub target: Target,
    /// The cluster.
    pub cluster: Discovered,
    /// What the sources before it lack.
    pub warnings: Vec<String>,
}

impl Opened {
    /// Why something is done with the cluster, and what is not right about it.
    pub fn evidence(&self, mut why: String) -> String {
        why.push_str(&format!("; {} accepts its token", self.cluster.endpoint));
        for warning in self.warnings.iter().chain(&self.cluster.warnings) {
            why.push_str(&format!("; warning: {warning}"));
        }
        if self.target.skip_pins {
            why.push_str(target::UNVERIFIED);
        }
        why
    }
}

/// How long an operator's program may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How long a web server may take.
const URL_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer; a join command has some 200.
const CAP: usize = 16 * 1024;

/// Tries source after source until a cluster takes a token. Without one, the status says what every source lacks. A machine that is
/// a node already (`is_node`) asks for no more than another certificate.
pub async fn that_opens(look: Look<'_>, is_node: bool) -> Result<Result<Opened, Status>> {
    let mut troubles: Vec<Trouble> = Vec::new();
    let mut again = None;
    for source in Source::all(look.config) {
        let (text, ask_again) = match source.look(look).await {
            Found::Text(text, ask_again) => (text, ask_again),
            Found::Unasked(changes) => return Ok(Err(Status::pending(verdict::asking(source, &troubles), changes))),
            Found::Nothing(trouble, ask_again) => {
                again = again.or(ask_again);
                troubles.push(trouble);
                continue;
            }
        };
        let credential = match source.credential(look.config, &text) {
            Ok(credential) => credential,
            Err(trouble) => {
                again = again.or(ask_again);
                troubles.push(trouble);
                continue;
            }
        };
        let target = match target::of(look, &credential, is_node)? {
            Ok(target) => target,
            Err(status) => return Ok(Err(status)),
        };
        let observations = match discovery::discover(look, &target).await {
            Ok(cluster) => {
                let warnings = troubles.iter().map(ToString::to_string).collect();
                return Ok(Ok(Opened { target, cluster, warnings }));
            }
            Err(observations) => observations,
        };
        if let Some(renamed) = name::change_to_another(look, &target, &observations)? {
            return Ok(Err(renamed));
        }
        let row = of_all(&observations, &target);
        let refused = row.action == Action::NextCredential;
        troubles.push(verdict::of_cluster(source, row));
        if !refused {
            // Another token would change nothing.
            return Ok(Err(verdict::decided_by_last(&troubles)));
        }
        again = again.or(ask_again);
    }
    Ok(Err(match again {
        Some(changes) => Status::pending(verdict::asking_again(&troubles), changes),
        None => verdict::status(&troubles),
    }))
}

impl<'a> Source<'a> {
    /// What is configured, the best first.
    pub fn all(config: &'a Config) -> Vec<Self> {
        let cluster = &config.cluster;
        let command = (!cluster.token_command.is_empty()).then_some(Self::Command(&cluster.token_command));
        let others = [
            cluster.token_file.as_deref().map(Self::File),
            cluster.token_url.as_ref().map(Self::Url),
            command,
            cluster.token.as_ref().map(|_| Self::Static),
        ];
        cluster.ssh.hosts.iter().map(Self::Ssh).chain(others.into_iter().flatten()).collect()
    }

    async fn look(self, look: Look<'_>) -> Found {
        match self {
            Self::Ssh(host) => ssh::look(look, self, host),
            Self::File(path) => match look.text(path) {
                Ok(Some(text)) if !text.trim().is_empty() => Found::Text(text, None),
                Ok(_) => Found::Nothing(verdict::file_missing(self), None),
                Err(error) => Found::Nothing(verdict::file_unreadable(self, &error), None),
            },
            Self::Url(url) => match self.fetch(look, url).await {
                Ok(text) => Found::Text(text, None),
                Err(trouble) => Found::Nothing(trouble, None),
            },
            Self::Command(argv) => {
                let command = Command { argv: argv.to_vec(), ..Command::new([], COMMAND_LIMIT).on_running_system() };
                asked::look(look, self, "command", command, Vec::new(), verdict::of_command)
            }
            Self::Static => {
                let text = look.config.cluster.token.as_ref().map_or_else(String::new, |token| token.expose().to_owned());
                Found::Text(text, None)
            }
        }
    }

    /// One GET, which by HTTP's own rules changes nothing there (RFC 9110, section 9.2.1).
    async fn fetch(self, look: Look<'_>, url: &TokenUrl) -> Result<String, Trouble> {
        let authority = look.config.cluster.token_url_ca_file.as_deref().unwrap_or(Path::new("/"));
        let pem = match look.text(authority) {
            Ok(Some(pem)) => pem,
            Ok(None) => return Err(verdict::url_authority(self, authority, "there is no such file")),
            Err(error) => return Err(verdict::url_authority(self, authority, &format!("{error:#}"))),
        };
        if let Err(why) = super::cluster_info::authorities(pem.as_bytes()) {
            return Err(verdict::url_authority(self, authority, &why));
        }
        let request = Get { url: url.to_string(), trust: Trust::Only(pem), bearer: None, headers: Vec::new(), limit: URL_LIMIT };
        match look.get(request).await {
            Ok(answer) if answer.status == 200 => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            Ok(answer) => Err(verdict::url_refused(self, answer.status)),
            Err(failure) => Err(verdict::url_unreachable(self, &failure)),
        }
    }

    /// The token in a text. A pin in it is compared with the configured ones; only a host whose key is known may give the pin itself.
    fn credential(self, config: &Config, text: &str) -> Result<Credential, Trouble> {
        if text.len() > CAP {
            return Err(verdict::too_large(self, text.len()));
        }
        let read = JoinCredential::read(text).map_err(|why| verdict::malformed(self, &why))?;
        let token = BootstrapToken::parse(&read.token).ok_or_else(|| verdict::malformed(self, "is not a bootstrap token"))?;
        let strings = |pins: &[crate::config::Pin]| pins.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (configured, said) = (strings(&config.cluster.ca_cert_hashes), strings(&read.pins));
        let pins = match self {
            _ if !configured.is_empty() => {
                if !said.is_empty() && !said.iter().any(|pin| configured.contains(pin)) {
                    return Err(verdict::pin_differs(self, &said, &configured));
                }
                configured
            }
            _ if config.cluster.unsafe_skip_ca_verification => Vec::new(),
            Self::Ssh(_) if !said.is_empty() => said,
            _ => return Err(verdict::pin_missing(self)),
        };
        Ok(Credential { token, pins })
    }
}
