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
    (!id.is_empty()).then(|| by(id, "/etc/machine-id"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use crate::facts::gather;
    use crate::host::Host;

    #[tokio::test]
    async fn an_image_before_its_first_boot_has_no_id() {
        for (text, id) in [("uninitialized\n", None), ("", None), ("c0ffee0123456789c0ffee0123456789\n", Some(32))] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("etc")).unwrap();
            std::fs::write(root.path().join("etc/machine-id"), text).unwrap();
            let config = crate::config::load(Vec::new()).unwrap().config;
            let facts = gather(&Host::of_fakes(root.path()).unwrap(), &config, &|_| {}).await.facts;
            assert_eq!(facts.instance.map(|instance| instance.id.len()), id, "{text:?}");
            assert_eq!(facts.machine_id.len(), id.unwrap_or_default(), "{text:?}");
        }
    }
}
