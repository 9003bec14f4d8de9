//! kubeadm believes one endpoint; a node that may choose asks all of them at once, and the first that proves itself wins.
//!
//! The proof is kubeadm's token discovery (kubeadm, "Implementation details", "Discovery cluster-info"), with one difference:
//! the verified look trusts only the CA certificates that are pinned, not everything that the unverified answer brought.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::cluster_info::{Authority, CLUSTER_INFO, ClusterInfo};
use super::name::{self, Existing};
use super::race::race;
use super::target::Target;
use super::verdict::{Observation, Verdict, evidence, skew, skew_text};
use crate::config::Secret;
use crate::host::cluster::Node;
use crate::host::network::{Answer, Get, Trust, UnreachableKind};
use crate::look::Look;
use crate::show::utc;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How long after `/readyz` a 401 or 403 must still stand to be believed: a server that is ready has read its tokens and
/// roles, but another one behind the same address may be starting.
pub const SETTLE: Duration = Duration::from_secs(3);

/// A clock that differs by more seconds is worth a warning, and explains a certificate's dates.
pub const SKEW: i64 = 30;

/// A cluster that proved itself, and takes our token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The endpoint that won.
    pub endpoint: String,
    /// The cluster's CA certificates in PEM.
    pub authority: String,
    /// What is not right, though it does not prevent the join.
    pub warnings: Vec<String>,
    /// The Node that there is of the name already.
    pub existing: Option<Existing>,
}

/// Asks all endpoints at once. The first that passes every stage wins and the rest are dropped; when none does, each one's verdict
/// comes back in the order of the configuration.
pub async fn discover(look: Look<'_>, target: &Target) -> Result<Discovered, Vec<Observation>> {
    let examine = async |endpoint: &str| {
        let result = Examination { look, target, endpoint }.run().await;
        result.map_err(|verdict| Observation { endpoint: endpoint.to_owned(), verdict })
    };
    let (mut winner, losers) = race(&target.endpoints, examine).await?;
    winner.warnings.extend(losers.iter().map(|loser| evidence(loser, target)));
    Ok(winner)
}

/// One endpoint on trial.
struct Examination<'a> {
    look: Look<'a>,
    target: &'a Target,
    endpoint: &'a str,
}

/// A cluster whose CA is believed.
struct Verified {
    authority: String,
    /// cluster-info holds a good signature for our token.
    signed: bool,
    /// The server's clock minus ours.
    skew: i64,
}

impl Examination<'_> {
    async fn run(&self) -> Result<Discovered, Verdict> {
        let verified = match self.verify().await {
            Err(Verdict::AnswerChanged) => self.verify().await?,
            other => other?,
        };
        self.try_token(&verified).await?;
        let mut warnings = Vec::new();
        let existing = self.try_name(&verified, &mut warnings).await?;
        if verified.skew.abs() > SKEW {
            warnings.push(format!("this machine's clock is {} the API server's", skew_text(verified.skew)));
        }
        Ok(Discovered { endpoint: self.endpoint.to_owned(), authority: verified.authority, warnings, existing })
    }

    /// Stages 1 to 4: look without trust, check signature and pin, look again with trust.
    async fn verify(&self) -> Result<Verified, Verdict> {
        let token = &self.target.token;
        let (first, date) = self.cluster_info(Trust::Anyone, 0).await?;
        let kubeconfig =
            first.kubeconfig().ok_or_else(|| Verdict::ClusterInfoMissing("cluster-info has no kubeconfig".to_owned()))?;
        let authorities = first.authorities().map_err(|why| Verdict::ClusterInfoMissing(format!("cluster-info: {why}")))?;
        let trusted: Vec<&Authority> =
            authorities.iter().filter(|authority| self.target.skip_pins || self.target.pins.contains(&authority.pin)).collect();
        let signature = first.signature(&token.signature_key());
        if signature.is_some_and(|signature| !token.has_signed(kubeconfig.as_bytes(), signature)) {
            return Err(Verdict::WrongSignature { pinned: !trusted.is_empty() && !self.target.skip_pins });
        }
        if trusted.is_empty() {
            return Err(Verdict::PinMismatch { seen: authorities.into_iter().map(|authority| authority.pin).collect() });
        }
        if signature.is_none() && self.target.skip_pins {
            return Err(Verdict::Unsigned);
        }
        let now = self.look.now();
        let skew = date.map_or(0, |date| skew(date, now));
        if let Some(outdated) = trusted.iter().find(|authority| now < authority.from || now > authority.until) {
            return Err(dates(format!("the cluster's CA certificate is valid {}", period(outdated)), skew));
        }
        let trust = Trust::Only(trusted.iter().map(|authority| authority.pem.as_str()).collect());
        let (second, _) = self.cluster_info(trust, skew).await?;
        if second.kubeconfig() != Some(kubeconfig) {
            return Err(Verdict::AnswerChanged);
        }
        // The whole bundle came over a connection that a pinned CA vouches for.
        let authority = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        Ok(Verified { authority, signed: signature.is_some(), skew })
    }

    async fn cluster_info(&self, trust: Trust, skew: i64) -> Result<(ClusterInfo, Option<SystemTime>), Verdict> {
        let answer = self.settled(CLUSTER_INFO, &trust, None, skew).await?;
        match answer.status {
            200 => {}
            401 => return Err(Verdict::AnonymousOff),
            403 => return Err(Verdict::ClusterInfoForbidden(message(&answer))),
            404 if is_status(&answer) => return Err(Verdict::ClusterInfoMissing(format!("HTTP 404: {}", message(&answer)))),
            status => return Err(Verdict::NotAnApiServer(format!("HTTP {status} to {CLUSTER_INFO}"))),
        }
        let info = ClusterInfo::from_answer(&answer.body).map_err(Verdict::NotAnApiServer)?;
        Ok((info, answer.date))
    }

    /// Stage 5: the token opens what kubeadm will read with it.
    async fn try_token(&self, verified: &Verified) -> Result<(), Verdict> {
        let answer = self.with_token("/api/v1/namespaces/kube-system/configmaps/kubeadm-config", verified).await?;
        match answer.status {
            200 if verified.signed => Ok(()),
            200 => Err(Verdict::SignerDown),
            403 => Err(Verdict::TokenForbidden(message(&answer))),
            404 if is_status(&answer) => Err(Verdict::ClusterInfoMissing(format!("HTTP 404: {}", message(&answer)))),
            status => Err(unexpected(status, &answer)),
        }
    }

    /// Whose the name is, for tokens may read nodes (kubeadm's ClusterRole `kubeadm:get-nodes`). The answer is the one there is.
    async fn try_name(&self, verified: &Verified, warnings: &mut Vec<String>) -> Result<Option<Existing>, Verdict> {
        let answer = self.with_token(&format!("/api/v1/nodes/{}", self.target.name), verified).await?;
        match answer.status {
            200 => {}
            404 if is_status(&answer) => return Ok(None),
            403 => {
                warnings.push(name::unknown(self.target, &message(&answer)));
                return Ok(None);
            }
            status => return Err(unexpected(status, &answer)),
        }
        let object: Value = serde_json::from_slice(&answer.body).map_err(|error| Verdict::NotAnApiServer(error.to_string()))?;
        let existing = name::judge(Node::from_json(&object), self.target, self.look.facts)?;
        warnings.extend(existing.iter().map(|existing| existing.words.clone()));
        Ok(existing)
    }

    async fn with_token(&self, path: &str, verified: &Verified) -> Result<Answer, Verdict> {
        let trust = Trust::Only(verified.authority.clone());
        let answer = self.settled(path, &trust, Some(self.target.token.bearer()), verified.skew).await?;
        match answer.status {
            401 => Err(Verdict::TokenRejected { signed: verified.signed }),
            _ => Ok(answer),
        }
    }

    /// An answer that may be believed. A starting API server lies: until its caches are filled a good token gets 401 and an
    /// anonymous request 403, so these count only if they stand after `/readyz`.
    async fn settled(&self, path: &str, trust: &Trust, bearer: Option<Secret>, skew: i64) -> Result<Answer, Verdict> {
        let first = self.request(path, trust, bearer.clone(), skew).await?;
        if first.status == 429 || first.status >= 500 {
            return Err(Verdict::Busy { status: first.status, retry_after: first.retry_after });
        }
        if !matches!(first.status, 401 | 403) {
            return Ok(first);
        }
        let ready = self.request("/readyz", trust, None, skew).await?;
        // 401 to an anonymous request comes from a server without anonymous access, never from one that starts.
        if !matches!(ready.status, 200 | 401) {
            let saw = format!("HTTP {} to {path} while /readyz says {}", first.status, ready.status);
            return Err(Verdict::Starting { saw });
        }
        tokio::time::sleep(SETTLE).await;
        let second = self.request(path, trust, bearer, skew).await?;
        if second.status == 429 || second.status >= 500 {
            return Err(Verdict::Busy { status: second.status, retry_after: second.retry_after });
        }
        // Two refusals of two kinds: one of them, or both, were not meant.
        if matches!(second.status, 401 | 403) && second.status != first.status {
            let saw = format!("HTTP {} to {path}, then {}", first.status, second.status);
            return Err(Verdict::Starting { saw });
        }
        Ok(second)
    }

    async fn request(&self, path: &str, trust: &Trust, bearer: Option<Secret>, skew: i64) -> Result<Answer, Verdict> {
        let request =
            Get { url: format!("{}{path}", self.endpoint), trust: trust.clone(), bearer, headers: Vec::new(), limit: LIMIT };
        self.look.get(request).await.map_err(|failure| match failure.kind {
            UnreachableKind::UnknownAuthority => Verdict::UnknownAuthority(failure.text),
            UnreachableKind::WrongName => Verdict::WrongName(failure.text),
            UnreachableKind::CertificateDates => dates(failure.text, skew),
            _ => Verdict::Unreachable(failure),
        })
    }
}

/// The certificate does not fit the time: the server's clock says whose fault that is.
fn dates(saw: String, skew: i64) -> Verdict {
    if skew.abs() > SKEW { Verdict::ClockWrong { saw, skew } } else { Verdict::CertificateDates(saw) }
}

fn period(authority: &Authority) -> String {
    format!("from {} to {}", utc(authority.from), utc(authority.until))
}

fn unexpected(status: u16, answer: &Answer) -> Verdict {
    Verdict::NotAnApiServer(format!("HTTP {status}: {}", message(answer)))
}

/// Whether the body is the API's error object (`kind: Status`), as from a real API server.
fn is_status(answer: &Answer) -> bool {
    serde_json::from_slice::<Value>(&answer.body).is_ok_and(|object| object["kind"] == "Status")
}

/// The `message` of the API's error object.
fn message(answer: &Answer) -> String {
    let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    object["message"].as_str().unwrap_or_default().chars().take(300).collect()
}
