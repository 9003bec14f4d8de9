//! What an API server answers, or fails to, means one thing each; of several endpoints the gravest answer decides.

mod table;

use std::time::{Duration, SystemTime};

use super::target::Target;
use crate::host::cluster::Node;
use crate::host::network::Unreachable;
pub use table::{NEW_TOKEN, Row, row};

/// What was found out about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No answer: refused, timed out, no such name, no TLS.
    Unreachable(Unreachable),
    /// 429 or 5xx.
    Busy {
        /// The HTTP status.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// 401 or 403 while `/readyz` is not 200: its caches are empty.
    Starting {
        /// What was asked, and both answers.
        saw: String,
    },
    /// The token works and has no signature: nobody signs.
    SignerDown,
    /// The certificate's dates do not fit our clock, which differs from the server's.
    ClockWrong {
        /// What was checked.
        saw: String,
        /// The server's clock minus ours, in seconds.
        skew: i64,
    },
    /// The node that this machine was, a moment ago, still counts as Ready.
    OwnNodeStillReady(Box<Node>),
    /// The server's certificate is for other names.
    WrongName(String),
    /// The server's certificate has expired, or starts in the future, and both clocks agree.
    CertificateDates(String),
    /// The server's certificate is not under the CA that its own cluster-info names.
    UnknownAuthority(String),
    /// Something else listens there.
    NotAnApiServer(String),
    /// Anonymous requests get 401.
    AnonymousOff,
    /// Anonymous requests may not read cluster-info.
    ClusterInfoForbidden(String),
    /// There is no usable cluster-info.
    ClusterInfoMissing(String),
    /// cluster-info differed between the unverified and the verified look, twice.
    AnswerChanged,
    /// No signature for the token, and without a pin the token cannot be tried.
    Unsigned,
    /// 401 with the token.
    TokenRejected {
        /// cluster-info holds a good signature for it: its secret is right.
        signed: bool,
    },
    /// 403 with the token.
    TokenForbidden(String),
    /// The signature was made with another secret.
    WrongSignature {
        /// The CA is the pinned one.
        pinned: bool,
    },
    /// None of the cluster's CA certificates is pinned.
    PinMismatch {
        /// The pins that the configuration should hold if this is the right cluster.
        seen: Vec<String>,
    },
    /// Another machine has the name.
    NameTaken(Box<Node>),
}

/// Who can cure it, from the least to the gravest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Another endpoint may do.
    NextEndpoint,
    /// Time cures it.
    Wait,
    /// Another token may do.
    NextCredential,
    /// A person is needed.
    Stop,
}

/// One endpoint with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The endpoint, as configured.
    pub endpoint: String,
    /// What was found out there.
    pub verdict: Verdict,
}

/// "42 s behind", "3 s ahead of"; `skew` is the server's clock minus ours.
pub fn skew_text(skew: i64) -> String {
    let side = if skew >= 0 { "behind" } else { "ahead of" };
    format!("{} s {side}", skew.unsigned_abs())
}

/// `theirs` minus `ours` in seconds.
pub fn skew(theirs: SystemTime, ours: SystemTime) -> i64 {
    match theirs.duration_since(ours) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX),
        Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// "https://a:6443: connection refused".
pub fn evidence(observation: &Observation, target: &Target) -> String {
    format!("{}: {}", observation.endpoint, observation.verdict.row(&observation.endpoint, target).saw)
}

/// When no endpoint passed: the first one of the gravest verdicts; what was seen is what was seen at every endpoint.
pub fn of_all(observations: &[Observation], target: &Target) -> Row {
    gravest(observations.iter().map(|seen| (seen.endpoint.as_str(), seen.verdict.row(&seen.endpoint, target))).collect())
}

/// The first of the gravest of these rows, with what was seen at each endpoint, and left alone as long as any of them asks for.
pub fn gravest(rows: Vec<(&str, Row)>) -> Row {
    let saw = rows.iter().map(|(endpoint, row)| format!("{endpoint}: {}", row.saw)).collect::<Vec<_>>().join("; ");
    let leave_alone = rows.iter().filter_map(|(_, row)| row.leave_alone).max();
    // `max_by_key` would take the last one.
    let gravest = rows.into_iter().rev().map(|(_, row)| row).max_by_key(|row| row.action);
    let gravest = gravest.unwrap_or_else(|| {
        row(Action::Wait, "endpoint-unreachable", "No API server was asked", "", "add one to cluster.endpoints")
    });
    Row { saw, leave_alone, ..gravest }
}
