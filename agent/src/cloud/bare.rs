//! A machine on no cloud is known by its mainboard, which is older than any installation; a disk's machine id moves with the disk.

use crate::facts::Instance;
use crate::look::Look;

const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// Values that whole series of mainboards share, as inventory programs list them; those of one repeated digit are not listed.
const SHARED: &[&str] = &[
    "00010203-0405-0607-0809-0a0b0c0d0e0f",
    "00020003-0004-0005-0006-000700080009",
    "03000200-0400-0500-0006-000700080009",
    "03020100-0504-0706-0809-0a0b0c0d0e0f",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "deadbeef-dead-beef-dead-beefdeadbeef",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
];

/// The machine by its mainboard, else by its machine id. `None` where neither is known, or the first may not be read.
pub fn instance(look: Look<'_>) -> Option<Instance> {
    // Another id now than as root would be another node.
    let uuid = if look.running_system() { look.text(PRODUCT_UUID).ok()? } else { None };
    let by = |id: String, source: &str| Instance { cloud: "none", id, source: source.to_owned(), ..Instance::default() };
    if let Some(uuid) = uuid.map(|uuid| uuid.trim().to_ascii_lowercase()).filter(|uuid| is_unique(uuid)) {
        return Some(by(uuid, PRODUCT_UUID));
    }
    let id = look.facts.machine_id.clone();
    // systemd writes the word "uninitialized" into an image's file until the first boot (machine-id(5)).
    let known = !id.is_empty() && id != "uninitialized";
    known.then(|| by(id, "/etc/machine-id"))
}

/// Whether a UUID in lower case is one that a single machine has.
fn is_unique(uuid: &str) -> bool {
    let groups: Vec<&str> = uuid.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits = groups.concat();
    let Some(first) = digits.chars().next() else { return false };
    lengths == [8, 4, 4, 4, 12]
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && digits.chars().any(|digit| digit != first)
        && !SHARED.contains(&uuid)
}

#[cfg(test)]
mod tests {
    use super::is_unique;

    #[test]
    fn a_uuid_that_many_boards_share_is_none() {
        assert!(is_unique("4c4c4544-0042-3510-8052-b3c04f4b4e32"));
        for shared in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "03000200-0400-0500-0006-000700080009",
            "not settable",
            "",
        ] {
            assert!(!is_unique(shared), "{shared}");
        }
    }
}
