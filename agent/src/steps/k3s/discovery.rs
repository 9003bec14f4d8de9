//! A k3s agent believes one address and waits for it for ever; the agent asks all at once, and hands k3s the first that proves itself.
//!
//! The proof is k3s's own (k3s documentation, "k3s token", "TLS Bootstrapping"): `/cacerts` unverified, the hash, `/cacerts` again
//! verified, and only then the token.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::authority::{Believed, Disbelief, believe};
use super::target::Target;
use super::verdict::{Observation, Verdict, evidence};
use crate::config::{K3sCredential, Role, Secret};
use crate::host::network::{Answer, Get, Trust, UnreachableKind};
use crate::look::Look;
use crate::show::utc;
use crate::steps::join::{SETTLE, SKEW, UNVERIFIED, race, skew, skew_text};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

const CACERTS: &str = "/cacerts";

/// What an agent reads first with its token (k3s, `pkg/agent/config`).
const CONFIG: &str = "/v1-k3s/config";

/// What only a server may read, and what gives nothing away (k3s, `pkg/server/handlers`).
const FOR_SERVERS: &str = "/v1-k3s/encrypt/status";

/// What gives a kubelet its certificate: only here the node's password is looked at.
const CERTIFICATE: &str = "/v1-k3s/client-kubelet.crt";

/// A server that proved itself, and takes our token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The endpoint that won.
    pub endpoint: String,
    /// The believed CA certificates in PEM.
    pub authority: String,
    /// The hash of a token in the long form; `None` only where the CA is not verified.
    pub hash: Option<String>,
    /// What is not right, though it does not prevent the join.
    pub warnings: Vec<String>,
}

impl Discovered {
    /// Why something is done with the cluster, and what is not right about it.
    pub fn evidence(&self, mut why: String, target: &Target) -> String {
        why.push_str(&format!("; {} accepts its token", self.endpoint));
        for warning in &self.warnings {
            why.push_str(&format!("; warning: {warning}"));
        }
        if target.skip_pins {
            why.push_str(UNVERIFIED);
        }
        why
    }
}

/// Asks all endpoints at once. The one that k3s was told before goes on counting while it is good.
pub async fn discover(look: Look<'_>, target: &Target, before: Option<&str>) -> Result<Discovered, Vec<Observation>> {
    let examine = |endpoint: &str| {
        let endpoint = endpoint.to_owned();
        async move {
            let result = Examination { look, target, endpoint: &endpoint }.run().await;
            result.map_err(|verdict| Observation { endpoint, verdict })
        }
    };
    if let Some(before) = before.filter(|before| target.endpoints.iter().any(|endpoint| endpoint == before))
        && let Ok(good) = examine(before).await
    {
        return Ok(good);
    }
    let (mut winner, losers) = race(&target.endpoints, examine).await?;
    winner.warnings.extend(losers.iter().map(|loser| evidence(loser, target)));
    Ok(winner)
}

/// Asks for the kubelet's certificate as k3s does. Only where k3s has done so already: the first to ask binds the name to the password.
pub async fn try_password(look: Look<'_>, target: &Target, cluster: &Discovered, password: &Secret) -> Option<Verdict> {
    let examination = Examination { look, target, endpoint: &cluster.endpoint };
    let headers = [("k3s-node-name", Secret::new(target.name.as_str())), ("k3s-node-password", password.clone())];
    let answer = examination.with_token(CERTIFICATE, &cluster.authority, 0, &headers).await;
    match answer {
        Ok(answer) if answer.status == 403 => Some(Verdict::PasswordRejected(message(&answer))),
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(Verdict::NotK3s(http(&answer))),
        Err(verdict) => Some(verdict),
    }
}

/// One endpoint on trial.
struct Examination<'a> {
    look: Look<'a>,
    target: &'a Target,
    endpoint: &'a str,
}

/// A server whose CA is believed.
struct Verified {
    believed: Believed,
    authority: String,
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
        if verified.skew.abs() > SKEW {
            warnings.push(format!("this machine's clock is {} the server's", skew_text(verified.skew)));
        }
        let hash = verified.believed.hash.filter(|_| !self.target.skip_pins || self.target.token.ca_hash.is_some());
        if hash.is_none() && !self.target.skip_pins {
            return Err(Verdict::HashUnknown);
        }
        Ok(Discovered { endpoint: self.endpoint.to_owned(), authority: verified.authority, hash, warnings })
    }

    /// Looks without trust, checks hash and pins, looks again with trust.
    async fn verify(&self) -> Result<Verified, Verdict> {
        let (first, date) = self.cacerts(Trust::Anyone, 0).await?;
        let target = self.target;
        let believed = believe(&first, target.token.ca_hash.as_deref(), &target.pins).map_err(|disbelief| match disbelief {
            Disbelief::Unreadable(why) => Verdict::NotK3s(why),
            Disbelief::Another(seen) => Verdict::CaMismatch { seen },
        })?;
        let now = self.look.now();
        let skew = date.map_or(0, |date| skew(date, now));
        if let Some(outdated) = believed.trusted.iter().find(|authority| now < authority.from || now > authority.until) {
            let saw = format!("the cluster's CA certificate is valid from {} to {}", utc(outdated.from), utc(outdated.until));
            return Err(dates(saw, skew));
        }
        let authority: String = believed.trusted.iter().map(|authority| authority.pem.as_str()).collect();
        let (second, _) = self.cacerts(Trust::Only(authority.clone()), skew).await?;
        if second != first {
            return Err(Verdict::AnswerChanged);
        }
        Ok(Verified { believed, authority, skew })
    }

    async fn cacerts(&self, trust: Trust, skew: i64) -> Result<(Vec<u8>, Option<SystemTime>), Verdict> {
        let answer = self.request(CACERTS, trust, skew, None, &[]).await?;
        match answer.status {
            200 => Ok((answer.body, answer.date)),
            429 | 500.. => Err(busy(&answer)),
            _ => Err(Verdict::NotK3s(format!("{} to {CACERTS}", http(&answer)))),
        }
    }

    /// Whether the token opens what k3s reads with it, and the server is up.
    async fn try_token(&self, verified: &Verified) -> Result<(), Verdict> {
        let (authority, skew) = (&verified.authority, verified.skew);
        if self.target.role == Role::ControlPlane {
            let answer = self.with_token(FOR_SERVERS, authority, skew, &[]).await?;
            return match answer.status {
                403 => Err(Verdict::WrongRole(message(&answer))),
                429 | 503 => Err(busy(&answer)),
                _ => Ok(()),
            };
        }
        let config = self.with_token(CONFIG, authority, skew, &[]).await?;
        match config.status {
            200 if serde_json::from_slice::<Value>(&config.body).is_ok_and(|config| config.is_object()) => {}
            403 => return Err(Verdict::WrongRole(message(&config))),
            429 | 500.. => return Err(busy(&config)),
            _ => return Err(Verdict::NotK3s(format!("{} to {CONFIG}", http(&config)))),
        }
        let ready = self.with_token("/v1-k3s/readyz", authority, skew, &[]).await?;
        match ready.status {
            429 => return Err(busy(&ready)),
            500.. => return Err(Verdict::Starting { saw: format!("{} to /v1-k3s/readyz", http(&ready)) }),
            // Releases before 1.25 have no such path.
            _ => {}
        }
        let servers = self.with_token("/v1-k3s/apiservers", authority, skew, &[]).await?;
        match serde_json::from_slice::<Vec<String>>(&servers.body) {
            Ok(servers) if servers.is_empty() => {
                Err(Verdict::Starting { saw: "/v1-k3s/apiservers names no API server yet".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// An answer to the token that may be believed. Until a starting server has its authenticator, a good token gets 401 as well, so
    /// that, and 403, count only if the API server behind is up and they stand.
    async fn with_token(
        &self,
        path: &str,
        authority: &str,
        skew: i64,
        headers: &[(&'static str, Secret)],
    ) -> Result<Answer, Verdict> {
        let trust = || Trust::Only(authority.to_owned());
        let first = self.request(path, trust(), skew, Some(self.target), headers).await?;
        if !matches!(first.status, 401 | 403) {
            return Ok(first);
        }
        let ready = self.request("/readyz", trust(), skew, None, &[]).await?;
        // A server without an API server of its own never has one.
        let is_starting = ready.status >= 500 && !message(&ready).contains("disabled");
        if is_starting {
            let saw = format!("HTTP {} to {path} while /readyz says {}", first.status, http(&ready));
            return Err(Verdict::Starting { saw });
        }
        tokio::time::sleep(SETTLE).await;
        let second = self.request(path, trust(), skew, Some(self.target), headers).await?;
        if second.status == 401 { Err(Verdict::TokenRejected(message(&second))) } else { Ok(second) }
    }

    async fn request(
        &self,
        path: &str,
        trust: Trust,
        skew: i64,
        with: Option<&Target>,
        headers: &[(&'static str, Secret)],
    ) -> Result<Answer, Verdict> {
        let mut request =
            Get { url: format!("{}{path}", self.endpoint), trust, bearer: None, headers: headers.to_vec(), limit: LIMIT };
        match with.map(|target| (target, &target.token.credential)) {
            Some((_, K3sCredential::Bootstrap(token))) => request.bearer = Some(token.clone()),
            Some((target, K3sCredential::Password(password))) => {
                let basic = STANDARD.encode(format!("{}:{}", target.user(), password.expose()));
                request.headers.push(("authorization", Secret::new(format!("Basic {basic}"))));
            }
            None => {}
        }
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

fn busy(answer: &Answer) -> Verdict {
    Verdict::Busy { saw: http(answer), retry_after: answer.retry_after }
}

fn http(answer: &Answer) -> String {
    let message = message(answer);
    if message.is_empty() { format!("HTTP {}", answer.status) } else { format!("HTTP {}: {message}", answer.status) }
}

/// The `message` of the API's error object, which k3s answers with as well; older releases answer with the text alone.
fn message(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let object: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = object["message"].as_str().map_or(text.trim(), str::trim);
    said.chars().take(300).filter(|letter| !letter.is_control()).collect()
}
