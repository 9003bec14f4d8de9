//! A mainboard's UUID says which machine this is only where no other one has it, and many vendors never gave theirs one.

use std::collections::BTreeSet;

/// Values that whole series of mainboards share, as inventory programs list them; those of one or two repeated digits are not listed
/// ("not present", "not settable": SMBIOS, 7.2.1 System UUID).
const SHARED: &[&str] = &[
    "00010203-0405-0607-0809-0a0b0c0d0e0f",
    "00020003-0004-0005-0006-000700080009",
    "03000200-0400-0500-0006-000700080009",
    "03020100-0504-0706-0809-0a0b0c0d0e0f",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "deadbeef-dead-beef-dead-beefdeadbeef",
];

/// A UUID (DMI `product_uuid`, a Node's `systemUUID`) in lower case, or `None` when it is not one that a single machine has.
pub fn unique_uuid(text: &str) -> Option<String> {
    let uuid = text.trim().to_ascii_lowercase();
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    let digits = || uuid.bytes().filter(|byte| *byte != b'-');
    let different: BTreeSet<u8> = digits().collect();
    let is_unique = lengths == [8, 4, 4, 4, 12]
        && digits().all(|byte| byte.is_ascii_hexdigit())
        && different.len() > 2
        && !SHARED.contains(&uuid.as_str());
    is_unique.then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Dmi, Facts};
    use crate::identity::is_ours;

    const OWN: &str = "4C4C4544-0042-3510-8052-B3C04F4B4E32";

    #[test]
    fn a_uuid_is_one_machines_in_any_case() {
        assert_eq!(unique_uuid(&format!(" {OWN}\n")), Some(OWN.to_lowercase()));
        for wrong in ["", "Not Settable", "4c4c4544004235108052b3c04f4b4e32", "4c4c4544-0042-3510-8052-b3c04f4b4e3x"] {
            assert_eq!(unique_uuid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_node_is_ours_by_a_uuid_that_many_boards_share() {
        let repeated = [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
        ];
        for uuid in SHARED.iter().chain(&repeated) {
            assert_eq!(unique_uuid(uuid), None, "{uuid}");
            let dmi = Dmi { product_uuid: Some((*uuid).to_owned()), ..Dmi::default() };
            let facts = Facts { machine_id: "m".to_owned(), dmi, ..Facts::default() };
            assert_eq!(is_ours("other", uuid, &facts), Some(false), "{uuid}");
            assert_eq!(is_ours("m", uuid, &facts), Some(true), "{uuid}: the machine id decides");
        }
    }
}
