//! A name once chosen is kept beside the machine's history, keyed by instance id: the same bytes on another instance are a copied disk.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::facts::{Facts, unique_uuid};
use crate::host::cluster::{KUBELET_CERTIFICATES, KUBELET_KUBECONFIG};
use crate::look::{Look, is_blank};
use crate::step::{Change, Finding};

/// Where the decision is kept. It is written only as a [`Change`], never with the history: so a plan shows it, and no round that is
/// cut off can have changed it in passing. Anyone may read it: it holds no secret.
pub const DECISION_FILE: &str = "/var/lib/gpuk-agent/identity.json";

/// Who this machine is, as far as that was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// The instance whose decision this is.
    pub instance_id: String,
    /// The platform that named the instance, as in `Instance::cloud`.
    pub cloud: String,
    /// DMI `product_uuid` of the machine, where it could be read.
    pub product_uuid: Option<String>,
    /// The node's name.
    pub node: String,
    /// `node.name` when the name was chosen.
    pub template: String,
    /// A cluster knows the node by this name: it is not changed again.
    pub joined: bool,
    /// The name that another machine has already, when this one was chosen in its place.
    pub instead_of: Option<String>,
    /// Whose disk this was before it was copied.
    pub copied_from: Option<Origin>,
}

/// The node that a disk was copied from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// Its instance id.
    pub instance_id: String,
    /// Its name.
    pub node: String,
    /// SHA-256 of its kubelet's client certificate file as it was found on the copy, in hexadecimal digits; `None` when there was
    /// none. As long as a file with this digest is here, the credentials are the other node's.
    pub certificate: Option<String>,
}

impl Decision {
    /// What was decided here or on the disk's origin; absent or blank (a power cut) is `None`, damaged is a finding.
    pub fn read(look: Look<'_>) -> Result<Result<Option<Self>, Finding>> {
        let Some(bytes) = look.read(DECISION_FILE)?.filter(|bytes| !is_blank(bytes)) else { return Ok(Ok(None)) };
        Ok(serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(&error)))
    }

    /// Keeps it.
    pub fn change(&self) -> Result<Change> {
        let text = serde_json::to_string_pretty(self).context("writing the decision on the node's name")?;
        Ok(Change::write(DECISION_FILE, text + "\n"))
    }

    /// Names that this machine's files may give it, and that are other machines'.
    pub fn others(&self) -> Vec<&str> {
        let origin = self.copied_from.as_ref().map(|origin| origin.node.as_str());
        let others = origin.into_iter().chain(self.instead_of.as_deref());
        others.filter(|other| *other != self.node).collect()
    }

    /// Its name holds, whatever the template would make of today's facts: a cluster may know it, or nobody asked for another one. A name
    /// that was chosen before the platform was seen (it does not answer a young machine) was chosen too early.
    pub fn holds(&self, config: &Config, facts: &Facts) -> bool {
        let too_early = self.cloud == "none" && facts.instance.as_ref().is_some_and(|instance| instance.cloud != "none");
        self.joined || (self.template == config.node.name.to_string() && !too_early)
    }
}

/// Nothing tells any more whose credentials are on the disk, so a person has to.
fn unreadable(error: &serde_json::Error) -> Finding {
    Finding::new(
        "decision-unreadable",
        "What was decided about this node's name is damaged, so nothing tells whether its disk is a copy",
        format!("{DECISION_FILE} cannot be read: {error}"),
        format!(
            "if this is the same machine: rm {DECISION_FILE}, then gpuk-agent up; if its disk is a copy of another machine's: \
             rm -rf {DECISION_FILE} {KUBELET_KUBECONFIG} {KUBELET_CERTIFICATES}, then gpuk-agent up"
        ),
    )
}

/// Whose disk this is, from a decision that was found on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was decided yet.
    New,
    /// This instance's.
    Ours,
    /// Nobody names the instance now, and the machine is the one that the decision was made on.
    Remembered,
    /// Nobody names the instance now, and nothing tells whether this is the machine.
    Unproven,
    /// Another instance's: the disk was copied.
    Copied,
    /// Another machine's, and nobody names this one.
    Foreign,
}

/// Compares the decision with what is known of the machine.
///
/// Two ids that platforms gave decide alone. Where one of them is only the machine's own (a seed that was detached since, a platform
/// that is asked only now), the same firmware is the same machine.
pub fn standing(decision: Option<&Decision>, facts: &Facts) -> Standing {
    let Some(decision) = decision.filter(|decision| !decision.instance_id.is_empty()) else { return Standing::New };
    let same_machine = same_uuid(decision.product_uuid.as_deref(), facts.dmi.product_uuid.as_deref());
    match (&facts.instance, same_machine) {
        (Some(instance), _) if instance.id == decision.instance_id => Standing::Ours,
        (Some(_), Some(true)) if decision.cloud == "none" => Standing::Ours,
        (Some(instance), _) if instance.cloud != "none" || decision.cloud == "none" => Standing::Copied,
        (_, Some(true)) => Standing::Remembered,
        (_, None) => Standing::Unproven,
        (Some(_), Some(false)) => Standing::Copied,
        (None, Some(false)) => Standing::Foreign,
    }
}

/// Whether two `product_uuid`s are the same one, in any case; `None` when one of them is missing or is not one machine's alone.
pub fn same_uuid(one: Option<&str>, other: Option<&str>) -> Option<bool> {
    Some(unique_uuid(one?)? == unique_uuid(other?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Dmi, Instance};

    const UUID: &str = "4C4C4544-0034-5210-8051-CAC04F4A4E32";
    const OTHER: &str = "ec2f1a2b-0034-5210-8051-cac04f4a4e32";

    #[test]
    fn only_uuids_that_say_something_are_compared() {
        assert_eq!(same_uuid(Some(UUID), Some(&UUID.to_lowercase())), Some(true));
        assert_eq!(same_uuid(Some(UUID), Some(OTHER)), Some(false));
        let shared = "03000200-0400-0500-0006-000700080009";
        assert_eq!(same_uuid(Some(shared), Some(shared)), None);
        assert_eq!(same_uuid(None, Some(UUID)), None);
    }

    #[test]
    fn whose_disk_this_is() {
        let decision = |cloud: &str, id: &str, uuid: Option<&str>| Decision {
            instance_id: id.to_owned(),
            cloud: cloud.to_owned(),
            product_uuid: uuid.map(str::to_owned),
            ..Decision::default()
        };
        let facts = |instance: Option<(&'static str, &str)>, uuid: Option<&str>| Facts {
            instance: instance.map(|(cloud, id)| Instance { cloud, id: id.to_owned(), ..Instance::default() }),
            dmi: Dmi { product_uuid: uuid.map(str::to_owned), ..Dmi::default() },
            ..Facts::default()
        };
        let ec2 = decision("ec2", "i-1", Some(UUID));
        for (kept, now, uuid, expected) in [
            (&ec2, Some(("ec2", "i-1")), Some(OTHER), Standing::Ours),
            (&ec2, Some(("ec2", "i-2")), Some(UUID), Standing::Copied),
            (&ec2, None, Some(UUID), Standing::Remembered),
            (&ec2, Some(("none", "m")), Some(UUID), Standing::Remembered),
            (&ec2, None, None, Standing::Unproven),
            (&ec2, Some(("none", "m")), None, Standing::Unproven),
            (&ec2, Some(("none", "m")), Some(OTHER), Standing::Copied),
            (&ec2, None, Some(OTHER), Standing::Foreign),
            (&decision("none", "m", None), Some(("none", "n")), None, Standing::Copied),
            (&decision("none", "m", Some(UUID)), Some(("ec2", "i-1")), Some(UUID), Standing::Ours),
            (&decision("none", "m", Some(UUID)), Some(("ec2", "i-1")), Some(OTHER), Standing::Copied),
            (&decision("", "", None), Some(("ec2", "i-1")), None, Standing::New),
        ] {
            assert_eq!(standing(Some(kept), &facts(now, uuid)), expected, "{kept:?} {now:?} {uuid:?}");
        }
        assert_eq!(standing(None, &facts(None, None)), Standing::New);
    }
}
