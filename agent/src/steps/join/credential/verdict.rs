//! The table of what keeps a source from giving a token; `docs/join-credentials.md` shows the same rows.

use std::path::Path;

use super::super::verdict::{Action, NEW_TOKEN, Row, row};
use super::Source;
use crate::config::without_tokens;
use crate::host::network::{Unreachable, UnreachableKind};
use crate::host::programs::{End, Output};
use crate::step::{Finding, Status};
use Action::{NextCredential, Stop, Wait};

/// What one source lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The source, as people call it.
    source: String,
    /// [`Stop`] for what looks like an attack, [`NextCredential`] for what only a person can mend, [`Wait`] for what may pass.
    row: Box<Row>,
}

/// "ssh gpuk-join@10.0.0.10: connection refused".
impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.source, self.row.saw)
    }
}

/// The exit status of a program that may succeed later (sysexits.h, `EX_TEMPFAIL`).
const TEMPORARY: i32 = 75;

/// The exit status of ssh for its own errors (ssh(1), "EXIT STATUS").
const SSH_FAILED: i32 = 255;

/// How a person tries what the agent tried.
const SERVE: &str = "see docs/join-credentials.md for both sides";

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ssh(host) => write!(formatter, "ssh {host}"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Url(url) => write!(formatter, "{url}"),
            Self::Command(argv) => formatter.write_str(argv.first().map_or("", String::as_str)),
            Self::Static => formatter.write_str("cluster.token"),
        }
    }
}

fn trouble(
    source: Source<'_>,
    action: Action,
    code: &'static str,
    what: &str,
    saw: impl Into<String>,
    remedy: impl Into<String>,
) -> Trouble {
    Trouble { source: source.to_string(), row: Box::new(row(action, code, what, saw, remedy)) }
}

/// Why the machine has no token yet, while the first question is asked.
pub fn asking(source: Source<'_>, troubles: &[Trouble]) -> String {
    let before: String = troubles.iter().map(|trouble| format!("; {trouble}")).collect();
    format!("this machine has no bootstrap token: {source} is to be asked for one{before}")
}

/// Why a source is asked anew.
pub fn asking_again(troubles: &[Trouble]) -> String {
    let seen: Vec<String> = troubles.iter().map(ToString::to_string).collect();
    format!("this machine has no bootstrap token that opens the cluster, and asks again: {}", seen.join("; "))
}

/// The cluster's own verdict on a token.
pub fn of_cluster(source: Source<'_>, mut row: Row) -> Trouble {
    if let (Source::Ssh(host), NextCredential) = (source, row.action) {
        row.remedy = format!(
            "see that {host} is a control plane node of the cluster at cluster.endpoints, that its clock is right, and on it: \
             kubeadm token list"
        );
    }
    Trouble { source: source.to_string(), row: Box::new(row) }
}

/// When no source has a token that opens the cluster: what a person should mend stands first, and all are told. It is waited for as long as
/// one of them may get well by itself.
pub fn status(troubles: &[Trouble]) -> Status {
    let may_pass = troubles.iter().any(|trouble| trouble.row.action == Wait);
    // `max_by_key` would take the last one.
    match troubles.iter().rev().max_by_key(|trouble| trouble.row.action) {
        Some(first) => finding(first, troubles, may_pass),
        None => {
            Status::Broken(Finding::new("token-missing", "There is no bootstrap token", "no source is configured", NEW_TOKEN))
        }
    }
}

/// When another token would change nothing, the last verdict decides.
pub fn decided_by_last(troubles: &[Trouble]) -> Status {
    match troubles {
        // As it always was where there is one source.
        [only] => only.row.status(),
        [.., last] => finding(last, troubles, last.row.action == Wait),
        [] => status(troubles),
    }
}

fn finding(first: &Trouble, troubles: &[Trouble], waits: bool) -> Status {
    let others = troubles.iter().filter(|trouble| *trouble != first);
    let why: Vec<String> = std::iter::once(first).chain(others).map(ToString::to_string).collect();
    let finding = first.row.finding(why.join("; "));
    if waits { Status::Waiting(finding) } else { Status::Broken(finding) }
}

pub fn file_missing(source: Source<'_>) -> Trouble {
    let remedy = format!("{NEW_TOKEN}; expected in {source}");
    trouble(source, Wait, "token-missing", "The bootstrap token is not there yet", "it is missing or empty", remedy)
}

pub fn file_unreadable(source: Source<'_>, error: &anyhow::Error) -> Trouble {
    let remedy = format!("ls -l {source}; it must be a text file that root can read");
    trouble(source, NextCredential, "token-unreadable", "The bootstrap token's file cannot be read", format!("{error:#}"), remedy)
}

/// `why` is the end of a sentence that begins with the text.
pub fn malformed(source: Source<'_>, why: &str) -> Trouble {
    trouble(
        source,
        NextCredential,
        "token-malformed",
        "What should be the bootstrap token is none",
        format!("what it has {why}"),
        NEW_TOKEN,
    )
}

pub fn too_large(source: Source<'_>, bytes: usize) -> Trouble {
    malformed(source, &format!("is no token: it has {bytes} bytes"))
}

pub fn pin_differs(source: Source<'_>, said: &[String], configured: &[String]) -> Trouble {
    trouble(
        source,
        Stop,
        "pin-differs",
        "The token comes with the pin of another cluster than the configured one",
        format!("its --discovery-token-ca-cert-hash is {}, configured is {}", said.join(", "), configured.join(", ")),
        "find out which is right (on a control plane node: kubeadm token create --print-join-command), then correct \
         cluster.ca-cert-hashes or the source of the token",
    )
}

pub fn pin_missing(source: Source<'_>) -> Trouble {
    trouble(
        source,
        NextCredential,
        "pin-missing",
        "Nothing says which cluster is the right one",
        "cluster.ca-cert-hashes is not given, and only a host whose key is known may say the pin beside its token",
        "write the pin that kubeadm token create --print-join-command shows on a control plane node into cluster.ca-cert-hashes",
    )
}

pub fn url_authority(source: Source<'_>, path: &Path, why: &str) -> Trouble {
    trouble(
        source,
        NextCredential,
        "token-url-ca-unusable",
        "The CA under which the token's web server is believed cannot be used",
        format!("{}: {why}", path.display()),
        "put the certificate of that server's CA in PEM there (cluster.token-url-ca-file)",
    )
}

pub fn url_refused(source: Source<'_>, status: u16) -> Trouble {
    // It may not have been filled yet, or be overloaded.
    let action = if matches!(status, 404 | 429) || status >= 500 { Wait } else { NextCredential };
    trouble(
        source,
        action,
        "token-url-refused",
        "The web server does not give the bootstrap token",
        format!("HTTP {status}"),
        format!("curl --include {source}: it must answer 200 with the token, without a redirect and without a password"),
    )
}

pub fn url_unreachable(source: Source<'_>, failure: &Unreachable) -> Trouble {
    let (action, code, what) = match failure.kind {
        UnreachableKind::UnknownAuthority | UnreachableKind::WrongName => {
            (Stop, "token-url-not-trusted", "Somebody else answers in the place of the token's web server, or its CA has changed")
        }
        UnreachableKind::TooLarge => (NextCredential, "token-malformed", "What should be the bootstrap token is none"),
        _ => (Wait, "token-url-unreachable", "The token's web server cannot be reached"),
    };
    let remedy = format!("curl --cacert CA --include {source}, with the file of cluster.token-url-ca-file as CA");
    trouble(source, action, code, what, failure.to_string(), remedy)
}

pub fn of_command(source: Source<'_>, said: Result<&Output, &End>) -> Trouble {
    let (action, code, saw) = match said {
        Ok(output) => {
            let action = if output.code == Some(TEMPORARY) { Wait } else { NextCredential };
            (action, "token-command-failed", ended(output))
        }
        Err(End::TooSlow) => (Wait, "token-command-failed", "it was killed: it had not ended in time".to_owned()),
        Err(End::NotStarted(why)) => (NextCredential, "token-command-missing", format!("it cannot be started: {why}")),
        Err(End::Ended { .. }) => (NextCredential, "token-command-failed", String::new()),
    };
    let remedy = "run it as root in an empty environment (env -i), and see that it prints the token, ends with 0 and says on standard \
        error what is wrong; with 75 it is asked again";
    trouble(source, action, code, "The program for the bootstrap token gives none", saw, remedy)
}

pub fn ssh_key_missing(source: Source<'_>, path: &Path, why: &str) -> Trouble {
    trouble(
        source,
        NextCredential,
        "ssh-key-missing",
        "The key with which a control plane node is asked is not there",
        format!("{} {why}", path.display()),
        format!(
            "ssh-keygen -t ed25519 -N '' -f {}, then let the control plane nodes know its public half; {SERVE}",
            path.display()
        ),
    )
}

/// One line of ssh's, known by its words.
struct Line {
    words: &'static str,
    action: Action,
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
}

/// The first row that fits counts. The words are those of OpenSSH 8.9 to 10.
const LINES: &[Line] = &[
    Line {
        words: "REMOTE HOST IDENTIFICATION HAS CHANGED",
        action: Stop,
        code: "ssh-host-key-changed",
        what: "The control plane node shows another host key than the known one: it was reinstalled, or somebody is between",
        remedy: "compare with the node's own: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub; only if it is right, correct \
            cluster.ssh.host-keys or the file of cluster.ssh.known-hosts-file",
    },
    Line {
        words: "REVOKED HOST KEY DETECTED",
        action: Stop,
        code: "ssh-host-key-changed",
        what: "The control plane node shows a host key that is revoked",
        remedy: "give the node a new host key, and find out who has the old one",
    },
    Line {
        words: "host key is known for",
        action: NextCredential,
        code: "ssh-host-key-unknown",
        what: "The control plane node's host key is not known here",
        remedy: "put the line of the node's /etc/ssh/ssh_host_ed25519_key.pub into cluster.ssh.host-keys, brought here by a way that you trust",
    },
    Line {
        words: "no matching host key type",
        action: NextCredential,
        code: "ssh-host-key-unknown",
        what: "The control plane node has no host key of the known kind",
        remedy: "put the line of the node's /etc/ssh/ssh_host_ed25519_key.pub into cluster.ssh.host-keys, brought here by a way that you trust",
    },
    Line {
        words: "Host key verification failed",
        action: Stop,
        code: "ssh-host-key-changed",
        what: "The control plane node's host key does not hold",
        remedy: "compare with the node's own: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub",
    },
    Line {
        words: "UNPROTECTED PRIVATE KEY FILE",
        action: NextCredential,
        code: "ssh-key-unusable",
        what: "The key with which a control plane node is asked can be read by others",
        remedy: "chown root: and chmod 600 the file of cluster.ssh.identity-file",
    },
    Line {
        words: "Load key",
        action: NextCredential,
        code: "ssh-key-unusable",
        what: "The key with which a control plane node is asked cannot be used",
        remedy: "ssh-keygen -y -f the file of cluster.ssh.identity-file: it must be a private key without a passphrase",
    },
    Line {
        words: "Permission denied (",
        action: NextCredential,
        code: "ssh-key-refused",
        what: "The control plane node does not take the key with which it is asked",
        remedy: "see that the public half of cluster.ssh.identity-file stands in authorized_keys of cluster.ssh.user there, and in that \
            node's log: journalctl --unit ssh",
    },
];

pub fn of_ssh(source: Source<'_>, said: Result<&Output, &End>) -> Trouble {
    let unreachable = |saw: String| {
        let remedy = format!("see that sshd runs there and that the port is open: {source}");
        trouble(source, Wait, "ssh-unreachable", "The control plane node cannot be asked for a token", saw, remedy)
    };
    let output = match said {
        Err(End::NotStarted(why)) => {
            let saw = format!("ssh cannot be started: {why}");
            return trouble(
                source,
                NextCredential,
                "ssh-missing",
                "There is no OpenSSH client",
                saw,
                "apt-get install openssh-client",
            );
        }
        Err(_) => return unreachable("ssh had not ended in time".to_owned()),
        Ok(output) => output,
    };
    match output.code {
        Some(SSH_FAILED) => match LINES.iter().find(|line| output.stderr.contains(line.words)) {
            Some(line) => {
                let lines: Vec<&str> = output.stderr.lines().filter(|text| text.contains(line.words)).collect();
                trouble(source, line.action, line.code, line.what, shown(&lines.join("; ")), format!("{}; {SERVE}", line.remedy))
            }
            None => unreachable(shown(&output.tail())),
        },
        Some(TEMPORARY) => trouble(
            source,
            Wait,
            "ssh-not-now",
            "The control plane node makes no token at the moment",
            shown(&output.tail()),
            "wait, or see in that node's log: journalctl --identifier gpuk-agent",
        ),
        _ => trouble(
            source,
            NextCredential,
            "ssh-refused",
            "The control plane node makes no token",
            ended(output),
            format!("see in that node's log: journalctl --identifier gpuk-agent; {SERVE}"),
        ),
    }
}

fn ended(output: &Output) -> String {
    let how = output.code.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}"));
    // What it said on standard output may be half a secret.
    format!("it ended with {how}: {}", shown(&output.stderr))
}

/// What somebody else said, in one short line without a secret.
fn shown(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line: String = lines.join("; ").chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    without_tokens(&line).chars().take(300).collect()
}
