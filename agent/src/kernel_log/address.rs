//! The driver writes PCI addresses in several ways, sysfs in one.

use std::ops::RangeInclusive;

/// The address as sysfs writes it. A GPU is function 0 of its device, which the driver leaves out in most lines.
/// `None` without a domain, bus and device.
pub(super) fn in_sysfs(text: &str) -> Option<String> {
    let text = text.strip_prefix("PCI:").unwrap_or(text);
    let mut parts = text.split(':');
    let (domain, bus, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    // A time of day has two digits where a domain has at least four.
    let (domain, bus, device) = (hexadecimal(domain, 4..=8)?, hexadecimal(bus, 1..=2)?, hexadecimal(device, 1..=2)?);
    let function = hexadecimal(function, 1..=1)?;
    (device < 32 && function < 8).then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// The first address in a text.
pub(super) fn first_in(text: &str) -> Option<String> {
    let words = text.split(|letter: char| letter.is_whitespace() || matches!(letter, '(' | ')' | ','));
    words.map(|word| word.trim_end_matches([':', '.'])).find_map(in_sysfs)
}

fn hexadecimal(digits: &str, length: RangeInclusive<usize>) -> Option<u32> {
    let is_fine = length.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_fine { u32::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{first_in, in_sysfs};

    #[test]
    fn an_address_is_told_as_sysfs_does() {
        for (written, expected) in [
            ("PCI:0000:05:00", "0000:05:00.0"),
            ("0000:B3:00.0", "0000:b3:00.0"),
            ("PCI:00000000:65:1f.7", "0000:65:1f.7"),
            ("10000:01:00", "10000:01:00.0"),
        ] {
            assert_eq!(in_sysfs(written).as_deref(), Some(expected), "{written}");
        }
        for written in [
            "",
            "PCI:",
            "05:00",
            "05:00.0",
            "0000:05",
            "0000:05:20.0",
            "0000:05:00.8",
            "0000:05:00.",
            "0000:0:0:0",
            "18:29:15",
            "x:y:z",
            "é",
        ] {
            assert_eq!(in_sysfs(written), None, "{written}");
        }
        assert_eq!(first_in(" GPU 0000:00:04.0: RmInitAdapter failed! (0x62:0x25:2535)").as_deref(), Some("0000:00:04.0"));
        assert_eq!(first_in("PCI ID: 10de:2c58"), None);
    }
}
