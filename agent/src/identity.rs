//! Two nodes of one name break a cluster, and a node that changes its name is lost to it: a name is unique, chosen once, and kept.
//!
//! Who says it, the first that can: the kubelet's own certificate (the cluster knows this machine by that name), the decision that was
//! kept for this instance, the pattern `node.name`.

mod certificate;
pub mod decision;
pub mod label;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod values;
mod whose;

use anyhow::Result;

use crate::config::{Config, Role};
use crate::facts::Facts;
use crate::look::Look;
use crate::step::Finding;
use certificate::NodeCertificate;
use decision::{DECISION_FILE, Decision, Origin, Standing, standing};
pub use whose::{both_machines, is_ours};

/// Who this machine is in its cluster, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub name: String,
    /// Who says so.
    pub because: String,
    /// The instance, also while its platform is silent; `None` when it was never named.
    pub instance_id: Option<String>,
    /// What is to be kept of this; `None` as long as nothing names the instance.
    pub decision: Option<Decision>,
    /// What is kept already.
    pub kept: Option<Decision>,
    /// The name that `node.name` would give today, when it is another one.
    pub would_be: Option<String>,
}

impl Identity {
    /// The name in place of this one, which another machine has; `None` when this is such a name already, or cannot be kept.
    pub fn instead(&self, facts: &Facts) -> Option<Decision> {
        let decision = self.decision.as_ref().filter(|decision| decision.instead_of.is_none())?;
        let node = label::with_digest(&self.name, &format!("{}\n{}", decision.instance_id, facts.machine_id));
        Some(Decision { node, instead_of: Some(self.name.clone()), joined: false, ..decision.clone() })
    }

    /// The disk was copied from another instance, and this was not dealt with yet.
    pub fn is_new_copy(&self) -> bool {
        let copied_from = |decision: &Option<Decision>| decision.as_ref().and_then(|decision| decision.copied_from.clone());
        copied_from(&self.decision) != copied_from(&self.kept)
    }
}

/// The identity as far as it can be seen now. An `Err` is "could not look"; a finding says why there is no name.
pub fn of(look: Look<'_>) -> Result<Result<Identity, Finding>> {
    let certificate = NodeCertificate::read(look)?;
    if look.config.node.role == Role::Observed {
        return Ok(Ok(observed(look.facts, certificate.and_then(|certificate| certificate.node))));
    }
    let kept = Decision::read(look)?;
    Ok(kept.and_then(|kept| decide(look.config, look.facts, kept, certificate)))
}

/// A node that someone else named: nothing is decided here.
fn observed(facts: &Facts, certified: Option<String>) -> Identity {
    let (name, because) = match certified {
        Some(name) => (name, "the kubelet's certificate is for it"),
        None => (facts.hostname.clone(), "it is the host name"),
    };
    Identity {
        name,
        because: because.to_owned(),
        instance_id: facts.instance.as_ref().map(|instance| instance.id.clone()),
        decision: None,
        kept: None,
        would_be: None,
    }
}

/// The name for output; `None` when there is none, or none can be seen.
pub fn name(look: Look<'_>) -> Option<String> {
    Some(of(look).ok()?.ok()?.name)
}

/// Whose history this is. A platform that is silent for a moment does not make this another instance.
pub fn instance_id(look: Look<'_>) -> String {
    let identity = of(look).ok().and_then(Result::ok);
    let named = || look.facts.instance.as_ref().map(|instance| instance.id.clone());
    identity.and_then(|identity| identity.instance_id).or_else(named).unwrap_or_default()
}

/// Whether the kubelet may start from what is on the disk, also before the step `identity` had its turn: not with credentials that are,
/// or may be, another node's. Where no decision was ever kept, nothing tells whose they are.
pub fn kubelet_may_start(look: Look<'_>) -> bool {
    let (Ok(identity), Ok(certificate)) = (of(look), NodeCertificate::read(look)) else { return false };
    match identity {
        Ok(identity) => {
            let origin = identity.decision.as_ref().and_then(|decision| decision.copied_from.as_ref());
            let foreign = origin.and_then(|origin| origin.certificate.as_ref());
            let is_foreign = certificate.is_some_and(|certificate| Some(&certificate.digest) == foreign);
            !identity.is_new_copy() && !is_foreign
        }
        Err(_) => matches!(Decision::read(look), Ok(Ok(None))),
    }
}

fn decide(
    config: &Config,
    facts: &Facts,
    kept: Option<Decision>,
    certificate: Option<NodeCertificate>,
) -> Result<Identity, Finding> {
    let standing = standing(kept.as_ref(), facts);
    let mine = kept.as_ref().filter(|_| matches!(standing, Standing::Ours | Standing::Remembered));
    let copied_from = match (&kept, standing) {
        (Some(kept), Standing::Foreign) => return Err(nameless_copy(kept)),
        (Some(kept), Standing::Copied) => Some(Origin {
            instance_id: kept.instance_id.clone(),
            node: kept.node.clone(),
            certificate: certificate.as_ref().map(|certificate| certificate.digest.clone()),
        }),
        _ => kept.as_ref().and_then(|kept| kept.copied_from.clone()),
    };
    let foreign = copied_from.as_ref().and_then(|origin| origin.certificate.as_ref());
    let certified = certificate.filter(|own| Some(&own.digest) != foreign).and_then(|own| own.node);
    let template = from_template(config, facts);
    let joined = certified.is_some() || mine.is_some_and(|mine| mine.joined);
    let (name, because) = match (certified, mine.filter(|mine| mine.holds(config, facts))) {
        (Some(name), _) => (name, "the kubelet's certificate is for it".to_owned()),
        (None, Some(mine)) => {
            let instead_of = mine.instead_of.as_ref().map(|taken| format!(", as another machine has {taken}"));
            let because = format!("chosen before for instance {}{}", mine.instance_id, instead_of.unwrap_or_default());
            (mine.node.clone(), because)
        }
        (None, None) => (template.clone()?, format!("node.name is \"{}\"", config.node.name)),
    };
    let named = facts.instance.as_ref().filter(|_| !matches!(standing, Standing::Remembered | Standing::Unproven));
    let because = match standing {
        Standing::Remembered => format!("{because}; no platform names the instance now, and the firmware is the same machine's"),
        Standing::Unproven => format!("{because}; no platform names the instance now"),
        _ => because,
    };
    let decision = match named {
        None => kept.clone(),
        Some(instance) => {
            let unchanged = mine.filter(|mine| mine.node == name);
            Some(Decision {
                instance_id: instance.id.clone(),
                cloud: instance.cloud.to_owned(),
                // Only root can read it.
                product_uuid: facts.dmi.product_uuid.clone().or_else(|| mine?.product_uuid.clone()),
                template: unchanged.map_or_else(|| config.node.name.to_string(), |mine| mine.template.clone()),
                instead_of: unchanged.and_then(|mine| mine.instead_of.clone()),
                node: name.clone(),
                joined,
                copied_from,
            })
        }
    };
    let would_be = template.ok().filter(|template| named.is_some() && *template != name);
    let instance_id = named.map(|instance| instance.id.clone()).or_else(|| Some(mine?.instance_id.clone()));
    Ok(Identity { name, because, instance_id, decision, kept, would_be })
}

/// `node.name` over what is known.
fn from_template(config: &Config, facts: &Facts) -> Result<String, Finding> {
    let template = &config.node.name;
    let remedy = "give the node a name of its own: in /etc/gpuk/agent.toml, [node] name = \"...\"";
    let text = template.fill(|placeholder| values::of(placeholder, config, facts)).map_err(|placeholder| {
        let why = format!("node.name is \"{template}\", and nothing on this machine says what {{{placeholder}}} is");
        Finding::new("no-identity", "The node has no name yet", why, remedy)
    })?;
    label::from_text(&text).ok_or_else(|| {
        let why =
            format!("node.name is \"{template}\", which becomes {text:?} here: there is neither a letter nor a digit in it");
        Finding::new("name-unusable", "The node's name would be empty", why, remedy)
    })
}

fn nameless_copy(kept: &Decision) -> Finding {
    Finding::new(
        "instance-unknown",
        "This disk comes from another machine, and nothing says which instance this one is",
        format!(
            "{DECISION_FILE} is of instance {} (node {}), and the firmware's UUID is another one",
            kept.instance_id, kept.node
        ),
        format!(
            "let the platform's metadata answer, then: gpuk-agent up; if the disk was moved here for good: rm {DECISION_FILE}"
        ),
    )
}
