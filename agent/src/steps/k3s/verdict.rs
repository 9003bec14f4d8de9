//! What a k3s server answers, or fails to, means one thing each, where k3s itself says "server is not ready" to all of it.

use std::time::Duration;

use super::target::Target;
use crate::config::{K3sCredential, Role};
use crate::host::network::{Unreachable, UnreachableKind};
use crate::step::Status;
use crate::steps::join::{Action, Row, gravest, row, skew_text};

/// Where a token is, and where it goes.
pub const NEW_TOKEN: &str = "on a server: cat /var/lib/rancher/k3s/server/node-token (or, for one that expires: k3s token create); \
    then put the whole text into cluster.token in /etc/gpuk/agent.toml (or into the file that cluster.token-file names)";

/// What was found out about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No answer: refused, timed out, no such name, no TLS.
    Unreachable(Unreachable),
    /// 429 or 5xx.
    Busy {
        /// The answer.
        saw: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// It answers, and has not come up.
    Starting {
        /// What was asked, and the answers.
        saw: String,
    },
    /// The certificate's dates do not fit our clock, which differs from the server's.
    ClockWrong {
        /// What was checked.
        saw: String,
        /// The server's clock minus ours, in seconds.
        skew: i64,
    },
    /// The server's certificate is for other names.
    WrongName(String),
    /// The server's certificate has expired, or starts in the future, and both clocks agree.
    CertificateDates(String),
    /// The server's certificate is not under the CA that it shows itself.
    UnknownAuthority(String),
    /// Something else listens there.
    NotK3s(String),
    /// `/cacerts` differed between the unverified and the verified look, twice.
    AnswerChanged,
    /// A chain of CA certificates whose root is not certain: k3s could not be told what to check.
    HashUnknown,
    /// 401 with the token.
    TokenRejected(String),
    /// 403 with the token.
    WrongRole(String),
    /// 403 with the token and this node's name and password.
    PasswordRejected(String),
    /// The cluster's CA is not the one of the token, or of the pins.
    CaMismatch {
        /// The hashes that this cluster's tokens have.
        seen: Vec<String>,
    },
}

/// One endpoint with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The endpoint, as configured.
    pub endpoint: String,
    /// What was found out there.
    pub verdict: Verdict,
}

/// "https://a:6443: connection refused".
pub fn evidence(observation: &Observation, target: &Target) -> String {
    format!("{}: {}", observation.endpoint, observation.verdict.row(&observation.endpoint, target).saw)
}

/// When no endpoint passed: the gravest verdict decides, each endpoint is listed with its own.
pub fn status(observations: &[Observation], target: &Target) -> Status {
    gravest(observations.iter().map(|seen| (seen.endpoint.as_str(), seen.verdict.row(&seen.endpoint, target))).collect()).status()
}

impl Verdict {
    /// The table. The order of the variants is the order of the rows.
    pub fn row(&self, endpoint: &str, target: &Target) -> Row {
        use Action::{NextCredential, NextEndpoint, Stop, Wait};
        let name = &target.name;
        let reach = format!("curl -k {endpoint}/ping   (a server of k3s says pong)");
        let see_certificate = format!(
            "openssl s_client -connect {} </dev/null | openssl x509 -noout -dates -issuer -ext subjectAltName",
            endpoint.trim_start_matches("https://")
        );
        match self {
            Self::Unreachable(failure) => {
                let saw = match failure.kind {
                    UnreachableKind::Refused => "connection refused: nobody listens there".to_owned(),
                    UnreachableKind::Timeout => "no answer in time".to_owned(),
                    UnreachableKind::Name => format!("its name does not resolve ({failure})"),
                    _ => failure.to_string(),
                };
                row(Wait, "endpoint-unreachable", "The k3s server cannot be reached", saw, reach)
            }
            Self::Busy { saw, retry_after } => {
                let asked = retry_after.map_or(String::new(), |wait| format!(", it asks to wait {} s", wait.as_secs()));
                let what = "The k3s server is not ready, or too many nodes join at once";
                row(Wait, "endpoint-busy", what, format!("{saw}{asked}"), reach)
            }
            Self::Starting { saw } => {
                row(Wait, "endpoint-starting", "The k3s server is still starting", saw, "on the server: journalctl -u k3s -n 50")
            }
            Self::ClockWrong { saw, skew } => row(
                Wait,
                "clock-wrong",
                "This machine's clock is wrong",
                format!("it is {} the server's; {saw}", skew_text(*skew)),
                "timedatectl timesync-status (or: chronyc tracking), then repair time synchronisation; the join goes on by itself",
            ),
            Self::WrongName(text) => row(
                NextEndpoint,
                "certificate-wrong-name",
                "The server's certificate is for other names than this endpoint's",
                text,
                format!(
                    "on the servers: add the name to tls-san in /etc/rancher/k3s/config.yaml, then: systemctl restart k3s ({see_certificate})"
                ),
            ),
            Self::CertificateDates(text) => row(
                NextEndpoint,
                "certificate-dates",
                "The server's certificate has expired or is not valid yet, and this machine's clock is right",
                text,
                "on that server: systemctl restart k3s (a start renews its certificates; k3s certificate check shows them)",
            ),
            Self::UnknownAuthority(text) => row(
                NextEndpoint,
                "certificate-unknown-authority",
                "This endpoint belongs to another cluster, or something between breaks TLS open",
                text,
                format!("find out who answers there: {see_certificate}; a load balancer must pass TCP on, and not end TLS"),
            ),
            Self::NotK3s(saw) => row(
                NextEndpoint,
                "not-a-k3s-server",
                "Something else than a k3s server answers there",
                saw,
                format!("correct cluster.endpoints in /etc/gpuk/agent.toml; see what answers: {reach}"),
            ),
            Self::AnswerChanged => row(
                Stop,
                "ca-changed",
                "Two looks at the cluster's CA gave two answers, twice: somebody is in between, or two clusters answer at one address",
                format!("{endpoint}/cacerts differs between the unverified and the verified connection"),
                format!(
                    "compare with what a server has: sha256sum /var/lib/rancher/k3s/server/tls/server-ca.crt; {see_certificate}"
                ),
            ),
            Self::HashUnknown => row(
                Stop,
                "token-without-hash",
                "k3s cannot be told which CA to believe: the token has no hash, and the pin is not of the root in the cluster's chain",
                format!("{endpoint}/cacerts is a chain of CA certificates"),
                NEW_TOKEN,
            ),
            Self::TokenRejected(message) => row(
                NextCredential,
                "token-rejected",
                rejected(target),
                format!("HTTP 401: {message}, also after the API server behind it was up"),
                NEW_TOKEN,
            ),
            Self::WrongRole(message) => row(
                NextCredential,
                "token-wrong-role",
                format!("This token does not let a node join as k3s {}", target.word()),
                format!("HTTP 403: {message}"),
                NEW_TOKEN,
            ),
            Self::PasswordRejected(message) => row(
                Stop,
                "node-password-rejected",
                format!("The cluster knows another machine as {name}, or this one with another password"),
                format!("HTTP 403: {message}; this machine's password is in /etc/rancher/node/password"),
                format!(
                    "if that machine lives, in /etc/gpuk/agent.toml: another [node] name, or name-taken = \"suffix\" (as k3s's with-node-id); if \
                     this machine was made anew, or that one is gone: kubectl delete node {name}; kubectl -n kube-system delete secret \
                     {name}.node-password.k3s --ignore-not-found (to be spared this: keep /etc/rancher/node/password when a machine is made anew)"
                ),
            ),
            Self::CaMismatch { seen } => {
                let wanted = target.token.ca_hash.clone().into_iter().chain(target.pins.iter().cloned());
                row(
                    Stop,
                    "ca-mismatch",
                    "The cluster's CA is not the token's or the pinned one: another cluster, or somebody in between",
                    format!("its hash is {}, wanted is {}", seen.join(" or "), wanted.collect::<Vec<_>>().join(", ")),
                    format!("only if this is the right cluster: {NEW_TOKEN}"),
                )
            }
        }
    }
}

impl Target {
    /// As in `k3s agent`.
    fn word(&self) -> &'static str {
        if self.role == Role::ControlPlane { "server" } else { "agent" }
    }
}

fn rejected(target: &Target) -> &'static str {
    match target.token.credential {
        K3sCredential::Bootstrap(_) => "The bootstrap token has expired or never existed",
        K3sCredential::Password(_) => "The password in the token is wrong for this cluster",
    }
}
