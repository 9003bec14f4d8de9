//! k3s joins by itself once it is told a server and a token; what is left to do is to tell it the right ones, and to say why it does not.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::configuration::{Cluster, DROP_IN};
use super::discovery::discover;
use super::joined::{Membership, membership};
use super::telling::{other_token, tell, token_text};
use super::trouble::{cannot_start, hash_before_ca, joining, not_joined, starting};
use super::{load_balancer, target, verdict};
use crate::host::cluster::K3S_CERTIFICATE;
use crate::host::network::{Get, Trust};
use crate::host::units::UnitState;
use crate::identity;
use crate::look::Look;
use crate::show::utc;
use crate::step::{Change, Finding, Status, UnitVerb};
use crate::steps::join::UNVERIFIED;

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

/// How long a server may take to say that it is one.
const PONG: Duration = Duration::from_secs(5);

/// Why this machine does not make a cluster although it is told to: there is one, or was one, and this would be a second.
async fn other_cluster(look: Look<'_>) -> Result<Option<Finding>> {
    let mut why = match identity::of(look)? {
        Ok(identity) if identity.decision.as_ref().is_some_and(|decision| decision.joined) => {
            Some(format!("a cluster knew this machine as {}", identity.name))
        }
        _ => None,
    };
    for endpoint in &look.config.cluster.endpoints {
        let get = Get { url: format!("{endpoint}/ping"), trust: Trust::Anyone, bearer: None, headers: Vec::new(), limit: PONG };
        if look.get(get).await.is_ok_and(|answer| answer.status == 200 && answer.body.starts_with(b"pong")) {
            why = Some(format!("{endpoint} answers as a server of k3s"));
        }
    }
    Ok(why.map(|why| {
        Finding::new(
            "cluster-exists",
            "This node is to make a cluster, and there is one, or was one with this node in it",
            why,
            "to join it, take cluster.init out of /etc/gpuk/agent.toml and give its token; to make a new one in its place, stop the old one \
             and: rm /var/lib/gpuk-agent/identity.json",
        )
    }))
}

/// Not joined: finds a server that proves itself, and tells k3s. When k3s was told already, finds out why it has not joined.
async fn stranger(look: Look<'_>, why: String, damaged: &[&'static str], unit: &UnitState) -> Result<Status> {
    let before = Cluster::written(look)?;
    let is_told = look.text(DROP_IN)?.is_some() && (before.server.is_some() || before.cluster_init);
    if is_told && unit.is_running() && damaged.is_empty() && up(look, unit)? < JOINS_WITHIN {
        return Ok(Status::Waiting(joining(&why)));
    }
    if look.config.makes_k3s_cluster() {
        if !is_told && let Some(finding) = other_cluster(look).await? {
            return Ok(Status::Broken(finding));
        }
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

/// Whether k3s has run since before its certificate ended: only a start makes it ask for another one.
fn expired_while_running(look: Look<'_>, unit: &UnitState) -> Result<bool> {
    let has_certificate = look.exists(K3S_CERTIFICATE)?;
    Ok(has_certificate && unit.is_running() && up(look, unit)? > A_DAY)
}

/// For how long the unit has been up.
fn up(look: Look<'_>, unit: &UnitState) -> Result<Duration> {
    Ok(look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since)))
}
