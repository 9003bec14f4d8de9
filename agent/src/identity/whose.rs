//! A Node object is a machine's own when the kubelet of that machine wrote it, which shows in the ids that it reported.

use super::decision::same_uuid;
use crate::facts::Facts;
use crate::host::cluster::Node;

/// Whether a Node object with these ids (`nodeInfo.machineID`, `nodeInfo.systemUUID`) is this machine's. A copied disk has the
/// machine id of its origin, so the firmware's UUID decides where both say one. `None` when the object has no id at all.
pub fn is_ours(machine_id: &str, system_uuid: &str, facts: &Facts) -> Option<bool> {
    if machine_id.is_empty() && system_uuid.is_empty() {
        return None;
    }
    let same_uuid = same_uuid(Some(system_uuid), facts.dmi.product_uuid.as_deref());
    Some(same_uuid.unwrap_or(!machine_id.is_empty() && machine_id == facts.machine_id))
}

/// The machine of the Node object and this one (its machine id, DMI `product_uuid`), for a person to tell them apart.
pub fn both_machines(node: &Node, machine_id: &str, product_uuid: Option<&str>) -> String {
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let ready = match (node.is_ready(), node.ready_since.as_str()) {
        (true, _) => "Ready".to_owned(),
        (false, "") => "never Ready".to_owned(),
        (false, since) => format!("not Ready since {since}"),
    };
    format!(
        "Node {} has machine id {}, system UUID {}, address {} and is {ready}; this machine has machine id {}, product UUID {}",
        node.name,
        or_none(&node.machine_id),
        or_none(&node.system_uuid),
        or_none(&node.address),
        or_none(machine_id),
        or_none(product_uuid.unwrap_or_default()),
    )
}
