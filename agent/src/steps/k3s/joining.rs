//! k3s joins by itself once it is told a server and a token; what is left to do is to tell it the right ones, and to say why it does not.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::configuration::{self, Cluster, DROP_IN, TOKEN_FILE};
use super::discovery::{Discovered, discover, try_password};
use super::joined::{Membership, membership};
use super::target::{self, Target};
use super::verdict::{self, Observation, Verdict};
use super::{load_balancer, log};
use crate::config::{K3sToken, Secret};
use crate::host::units::UnitState;
use crate::identity;
use crate::look::Look;
use crate::show::utc;
use crate::step::{Change, Finding, Status, UnitVerb};
use crate::steps::join::{UNVERIFIED, to_another};

/// Binds the node's name to this machine: whoever has another one is another machine to the cluster (k3s documentation, "Architecture").
const PASSWORD_FILE: &str = "/etc/rancher/node/password";

/// A good join takes seconds; until then nobody is asked again.
const JOINS_WITHIN: Duration = Duration::from_secs(30);

/// k3s renews a certificate at a start from 120 days before its end (90 in releases before May 2025; k3s documentation, "k3s certificate").
const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);

/// Once a day is enough for a start that was to renew and did not.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The step `join` of a k3s node.
pub async fn join(look: Look<'_>) -> Result<Status> {
    let unit = look.unit(super::unit(look.config)).await?.unwrap_or_default();
    match membership(look)? {
        Membership::Member { until } => member(look, until, &unit).await,
        Membership::Stranger { why, damaged } => stranger(look, why, &damaged, &unit).await,
    }
}

/// Joined: the rest is up to k3s. Nobody is asked, unless the configuration has another token by now.
async fn member(look: Look<'_>, until: SystemTime, unit: &UnitState) -> Result<Status> {
    let name = super::unit(look.config);
    if !unit.is_running() && unit.cannot_start() {
        return Ok(Status::Broken(cannot_start(look).await));
    }
    if unit.active == "activating" {
        return Ok(Status::Waiting(starting(look).await));
    }
    if let Some(status) = other_token(look).await? {
        return Ok(status);
    }
    let (mut why, mut changes) = (Vec::new(), Vec::new());
    if unit.file == "disabled" {
        why.push("k3s would not start at the next boot".to_owned());
        changes.push(Change::Unit(UnitVerb::Enable, name.to_owned()));
    }
    if !unit.is_running() {
        why.push("k3s does not run".to_owned());
        changes.push(Change::Unit(UnitVerb::Start, name.to_owned()));
    } else if until < look.now() + ENDS_SOON && up(look, unit)? > A_DAY {
        why.push(format!("the client certificate ends at {}, and k3s renews it only at a start", utc(until)));
        changes.push(Change::Unit(UnitVerb::Restart, name.to_owned()));
    }
    if !changes.is_empty() {
        return Ok(Status::pending(why.join(", "), changes));
    }
    let mut evidence = format!("client certificate valid until {}, {name} active", utc(until));
    if look.config.cluster.unsafe_skip_ca_verification {
        evidence.push_str(UNVERIFIED);
    }
    Ok(Status::Ready(evidence))
}

/// Not joined: finds a server that proves itself, and tells k3s. When k3s was told already, finds out why it has not joined.
async fn stranger(look: Look<'_>, why: String, damaged: &[&'static str], unit: &UnitState) -> Result<Status> {
    let before = Cluster::written(look)?;
    let is_told = look.text(DROP_IN)?.is_some() && (before.server.is_some() || before.cluster_init);
    if is_told && unit.is_running() && damaged.is_empty() && up(look, unit)? < JOINS_WITHIN {
        return Ok(Status::Waiting(joining(&why)));
    }
    if look.config.makes_k3s_cluster() {
        let cluster = Cluster { cluster_init: true, ..Cluster::default() };
        let token = match target::token(look)? {
            Ok(token) => token,
            Err(finding) => return Ok(Status::Broken(finding)),
        };
        if token.as_ref().is_some_and(|token| token.ca_hash.is_some()) {
            return Ok(Status::Broken(hash_before_ca()));
        }
        let text = token.map(|token| token.short());
        let told = tell(look, &why, damaged, cluster, text.as_ref(), unit)?;
        return Ok(match told {
            Some(status) => status,
            None => Status::Waiting(starting(look).await),
        });
    }
    let target = match target::of(look)? {
        Ok(target) => target,
        Err(status) => return Ok(status),
    };
    let found = match discover(look, &target, before.server.as_deref()).await {
        Ok(found) => found,
        Err(observations) => return Ok(verdict::status(&observations, &target)),
    };
    let cluster = Cluster { server: Some(found.endpoint.clone()), ..Cluster::default() };
    let evidence = found.evidence(why, &target);
    if let Some(status) = tell(look, &evidence, damaged, cluster, Some(&token_text(&target, &found)), unit)? {
        return Ok(status);
    }
    if let Some((why, mut changes)) = load_balancer::stale(look, &found.endpoint).await? {
        changes.push(Change::Unit(UnitVerb::Restart, super::unit(look.config).to_owned()));
        return Ok(Status::pending(why, changes));
    }
    if expired_while_running(look, unit)? {
        let restart = Change::Unit(UnitVerb::Restart, super::unit(look.config).to_owned());
        return Ok(Status::pending(format!("{evidence}; k3s renews it at a start"), vec![restart]));
    }
    not_joined(look, &target, &found, unit).await
}

/// What of the files and the unit is not as it should be; `None` where k3s runs with all of it.
fn tell(
    look: Look<'_>,
    why: &str,
    damaged: &[&'static str],
    cluster: Cluster,
    token: Option<&Secret>,
    unit: &UnitState,
) -> Result<Option<Status>> {
    let name = match identity::of(look)? {
        Ok(identity) => identity.name,
        Err(finding) => return Ok(Some(Status::Broken(finding))),
    };
    let service = super::unit(look.config).to_owned();
    let cluster = Cluster { token_file: token.map(|_| TOKEN_FILE.to_owned()), ..cluster };
    let text = configuration::text(look, &name, &configuration::registered(look)?.registration, &cluster);
    let mut changes: Vec<Change> = damaged.iter().map(|path| Change::Remove { path: (*path).into(), secret: true }).collect();
    if let Some(token) = token
        && look.text(TOKEN_FILE)?.as_deref().map(str::trim) != Some(token.expose())
    {
        changes.push(Change::write_secret(TOKEN_FILE, format!("{}\n", token.expose())));
    }
    if look.text(DROP_IN)?.as_deref() != Some(&text) {
        changes.push(Change::write(DROP_IN, text));
    }
    let is_up = unit.is_running() || unit.active == "activating";
    let is_new = !changes.is_empty();
    if is_new {
        changes.push(Change::Sync);
    }
    if unit.file == "disabled" {
        changes.push(Change::Unit(UnitVerb::Enable, service.clone()));
    }
    if is_new && is_up {
        changes.push(Change::Unit(UnitVerb::Restart, service));
    } else if !is_up && (is_new || !unit.cannot_start()) {
        changes.push(Change::Unit(UnitVerb::Start, service));
    }
    Ok((!changes.is_empty()).then(|| Status::pending(why, changes)))
}

/// In the long form wherever the CA is known, so that k3s checks it, too.
fn token_text(target: &Target, found: &Discovered) -> Secret {
    found.hash.as_ref().map_or_else(|| target.token.short(), |hash| target.token.long(hash, target.user()))
}

/// k3s was told everything, runs, and has no certificate.
async fn not_joined(look: Look<'_>, target: &Target, found: &Discovered, unit: &UnitState) -> Result<Status> {
    let password = look.text(PASSWORD_FILE)?.map(|text| Secret::new(text.trim())).filter(|text| !text.expose().is_empty());
    if let Some(password) = password
        && let Some(verdict) = try_password(look, target, found, &password).await
    {
        if let (Verdict::PasswordRejected(message), Some(decision)) = (&verdict, &target.instead) {
            return to_another(look, decision, &target.name, &format!("HTTP 403: {message}"));
        }
        return Ok(verdict::status(&[Observation { endpoint: found.endpoint.clone(), verdict }], target));
    }
    if unit.cannot_start() {
        return Ok(Status::Broken(cannot_start(look).await));
    }
    Ok(match log::read(look, super::unit(look.config)).await {
        log::Said { finding: Some(finding), .. } => Status::Broken(finding),
        log::Said { last, .. } => Status::Waiting(Finding::new(
            "k3s-not-joined",
            "k3s runs, its server accepts the token, and the node has no certificate yet",
            last.unwrap_or_else(|| "its log has no error".to_owned()),
            format!("journalctl --boot --unit {} --lines 100", super::unit(look.config)),
        )),
    })
}

/// A member whose configuration has another token than k3s was given: k3s reads it at its next start.
async fn other_token(look: Look<'_>) -> Result<Option<Status>> {
    let kept = look.text(TOKEN_FILE)?.and_then(|text| K3sToken::parse(&text).ok());
    let wanted = match target::token(look)? {
        Ok(Some(token)) => token,
        // Where a join was with a token, it may be taken out of the configuration afterwards.
        Ok(None) => return Ok(None),
        Err(finding) => return Ok(Some(Status::Broken(finding))),
    };
    let is_same_ca = |kept: &K3sToken| wanted.ca_hash.is_none() || wanted.ca_hash == kept.ca_hash;
    if kept.is_some_and(|kept| kept.credential == wanted.credential && is_same_ca(&kept)) {
        return Ok(None);
    }
    let before = Cluster::written(look)?;
    let why = format!("{TOKEN_FILE} does not hold the configured token, which k3s reads at its next start");
    let (cluster, text) = if look.config.makes_k3s_cluster() {
        (before, wanted.short())
    } else {
        let target = match target::of(look)? {
            Ok(target) => target,
            Err(status) => return Ok(Some(status)),
        };
        match discover(look, &target, before.server.as_deref()).await {
            Ok(found) => {
                (Cluster { server: before.server.or(Some(found.endpoint.clone())), ..before }, token_text(&target, &found))
            }
            Err(observations) => return Ok(Some(verdict::status(&observations, &target))),
        }
    };
    let Ok(identity) = identity::of(look)? else { return Ok(None) };
    let cluster = Cluster { token_file: Some(TOKEN_FILE.to_owned()), ..cluster };
    let drop_in = configuration::text(look, &identity.name, &configuration::registered(look)?.registration, &cluster);
    let mut changes = vec![Change::write_secret(TOKEN_FILE, format!("{}\n", text.expose()))];
    if look.text(DROP_IN)?.as_deref() != Some(&drop_in) {
        changes.push(Change::write(DROP_IN, drop_in));
    }
    Ok(Some(Status::pending(why, changes)))
}

/// Whether k3s has run since before its certificate ended: only a start makes it ask for another one.
fn expired_while_running(look: Look<'_>, unit: &UnitState) -> Result<bool> {
    let has_certificate = look.exists(crate::host::cluster::K3S_CERTIFICATE)?;
    Ok(has_certificate && unit.is_running() && up(look, unit)? > A_DAY)
}

/// For how long the unit has been up.
fn up(look: Look<'_>, unit: &UnitState) -> Result<Duration> {
    Ok(look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since)))
}

/// Why the unit cannot start, from its own log.
async fn cannot_start(look: Look<'_>) -> Finding {
    let unit = super::unit(look.config);
    let said = log::read(look, unit).await;
    said.finding.unwrap_or_else(|| {
        Finding::new(
            "k3s-cannot-start",
            "k3s cannot start",
            said.last.unwrap_or_else(|| format!("{unit} keeps failing, and its log does not say why")),
            format!("journalctl --boot --unit {unit} --lines 100"),
        )
    })
}

/// A server says to systemd that it is started when it is ready, which may be never.
async fn starting(look: Look<'_>) -> Finding {
    let unit = super::unit(look.config);
    let said = log::read(look, unit).await;
    said.finding.unwrap_or_else(|| {
        let last = said.last.unwrap_or_else(|| "its log has no error".to_owned());
        Finding::new("k3s-starting", "k3s is being started", last, format!("journalctl --boot --unit {unit} --lines 100"))
    })
}

fn joining(why: &str) -> Finding {
    Finding::new("k3s-joining", "k3s was started and is joining", why, "wait; gpuk-agent doctor has the cause when it does not")
}

fn hash_before_ca() -> Finding {
    Finding::new(
        "token-of-another-cluster",
        "The first server makes its cluster's CA, and its token has the hash of one already",
        "cluster.init is \"this-node\", and the token is in the long form",
        "give the password alone as cluster.token (any word), or none: k3s then makes one in /var/lib/rancher/k3s/server/token",
    )
}
