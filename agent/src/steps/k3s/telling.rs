//! What k3s is told stands in two files: one with its settings, that anyone may read, and one with the token.

use anyhow::Result;

use super::configuration::{self, Cluster, DROP_IN, TOKEN_FILE};
use super::discovery::{Discovered, discover};
use super::target::{self, Target};
use super::verdict;
use crate::config::{K3sToken, Secret};
use crate::host::units::UnitState;
use crate::identity;
use crate::look::Look;
use crate::step::{Change, Status, UnitVerb};

/// What of the files and the unit is not as it should be; `None` where k3s runs with all of it.
pub fn tell(
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
pub fn token_text(target: &Target, found: &Discovered) -> Secret {
    found.hash.as_ref().map_or_else(|| target.token.short(), |hash| target.token.long(hash, target.user()))
}

/// A member whose configuration has another token than k3s was given: k3s reads it at its next start.
pub async fn other_token(look: Look<'_>) -> Result<Option<Status>> {
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
