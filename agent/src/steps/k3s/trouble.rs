//! Why k3s has not joined: its server's word counts before its own, which is the same for everything.

use anyhow::Result;

use super::discovery::{Discovered, try_password};
use super::log;
use super::target::Target;
use super::verdict::{self, Observation, Verdict};
use crate::config::{Role, Secret};
use crate::host::units::UnitState;
use crate::look::Look;
use crate::step::{Finding, Status};
use crate::steps::join::to_another;

/// Binds the node's name to this machine: whoever has another one is another machine to the cluster (k3s documentation, "Architecture").
const PASSWORD_FILE: &str = "/etc/rancher/node/password";

/// k3s was told everything, runs, and has no certificate.
pub async fn not_joined(look: Look<'_>, target: &Target, found: &Discovered, unit: &UnitState) -> Result<Status> {
    // A server asks itself, and a server's token opens no certificate.
    let is_agent = target.role != Role::ControlPlane;
    let password = look.text(PASSWORD_FILE)?.filter(|text| is_agent && !text.trim().is_empty());
    if let Some(password) = password.map(|text| Secret::new(text.trim()))
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

/// Why the unit cannot start, from its own log.
pub async fn cannot_start(look: Look<'_>) -> Finding {
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
pub async fn starting(look: Look<'_>) -> Finding {
    let unit = super::unit(look.config);
    let said = log::read(look, unit).await;
    said.finding.unwrap_or_else(|| {
        let last = said.last.unwrap_or_else(|| "its log has no error".to_owned());
        Finding::new("k3s-starting", "k3s is being started", last, format!("journalctl --boot --unit {unit} --lines 100"))
    })
}

/// A start that is young.
pub fn joining(why: &str) -> Finding {
    Finding::new("k3s-joining", "k3s was started and is joining", why, "wait; gpuk-agent doctor has the cause when it does not")
}

/// A token of a cluster that is not there yet.
pub fn hash_before_ca() -> Finding {
    Finding::new(
        "token-of-another-cluster",
        "The first server makes its cluster's CA, and its token has the hash of one already",
        "cluster.init is \"this-node\", and the token is in the long form",
        "give the password alone as cluster.token (any word), or none: k3s then makes one in /var/lib/rancher/k3s/server/token",
    )
}
