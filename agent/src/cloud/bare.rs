//! A machine on no cloud is known by its mainboard, which is older than any installation; a disk's machine id moves with the disk.

use crate::facts::{Instance, unique_uuid};
use crate::look::Look;

const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// The machine by its mainboard, else by its machine id. `None` where neither is known, or the first may not be read.
pub fn instance(look: Look<'_>) -> Option<Instance> {
    // Another id now than as root would be another node.
    let uuid = if look.running_system() { look.text(PRODUCT_UUID).ok()? } else { None };
    let by = |id: String, source: &str| Instance { cloud: "none", id, source: source.to_owned(), ..Instance::default() };
    if let Some(uuid) = uuid.as_deref().and_then(unique_uuid) {
        return Some(by(uuid, PRODUCT_UUID));
    }
    let id = look.facts.machine_id.clone();
    // systemd writes the word "uninitialized" into an image's file until the first boot (machine-id(5)).
    let known = !id.is_empty() && id != "uninitialized";
    known.then(|| by(id, "/etc/machine-id"))
}
