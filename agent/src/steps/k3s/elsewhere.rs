//! A k3s agent knows one registration address for ever, and the servers that it learned of through it; either may be gone.

use anyhow::Result;

use super::configuration::{self, Cluster, DROP_IN};
use super::joined::SERVER_AUTHORITY;
use super::load_balancer;
use crate::config::Role;
use crate::identity;
use crate::look::Look;
use crate::step::{Change, Status, UnitVerb};
use crate::steps::node::endpoint::{Asked, ask};

/// The API server does not answer through k3s's load balancer: what about the configured addresses? `None` where there is no more to say.
pub async fn elsewhere(look: Look<'_>) -> Result<Option<Status>> {
    // On a server it is the node's own.
    if look.config.node.role == Role::ControlPlane {
        return Ok(None);
    }
    let before = Cluster::written(look)?;
    let (Some(current), Some(authority)) = (before.server.clone(), look.text(SERVER_AUTHORITY)?) else { return Ok(None) };
    let restart = Change::Unit(UnitVerb::Restart, super::unit(look.config).to_owned());
    Ok(match ask(look, &current, &authority, "/ping").await {
        Asked::Nothing => None,
        Asked::Status(Status::Broken(mut finding)) => {
            // The other CA makes the whole membership worthless; pods of the old cluster may still run.
            finding.remedy =
                "if the cluster was built anew: systemctl stop k3s-agent; k3s-killall.sh; rm -r /var/lib/rancher/k3s/agent \
                /etc/rancher/node/password; put the new cluster's token into cluster.token; gpuk-agent up"
                    .to_owned();
            Some(Status::Broken(finding))
        }
        Asked::Status(status) => Some(status),
        Asked::Current => load_balancer::stale(look, &current).await?.map(|(why, mut changes)| {
            changes.push(restart);
            Status::pending(why, changes)
        }),
        Asked::Moved(address) => {
            let Ok(identity) = identity::of(look)? else { return Ok(None) };
            let cluster = Cluster { server: Some(address.clone()), ..before };
            let text = configuration::text(look, &identity.name, &configuration::registered(look)?.registration, &cluster);
            let why = format!("the k3s server does not answer at {current}, and proves itself at {address}");
            Some(Status::pending(why, vec![Change::write(DROP_IN, text), restart]))
        }
    })
}
