//! pci.ids(5) lists vendors by number; a vendor's devices follow its line, each after one tab, a device's boards after two.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};

use super::Architecture;
use crate::look::Look;

/// Where Debian's package pci.ids and Red Hat's hwdata put the list.
const PLACES: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// Bytes read at most; the list had 1.5 MB in 2025.
const CAP: u64 = 16 << 20;

/// What the list says of a device, e.g. `TU104GL [Tesla T4]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What is in the brackets; `None` where only a chip is named.
    pub model: Option<String>,
    /// From the chip in front of them.
    pub architecture: Option<Architecture>,
}

/// What the system's list says of these devices of a vendor; nothing where there is no list, or they are not in it.
/// A list that is there and cannot be read is an error.
pub fn names(look: Look<'_>, vendor: u16, devices: &[u16]) -> Result<BTreeMap<u16, Name>> {
    for place in PLACES {
        if let Some(file) = look.open(place)? {
            // Read line by line, so that nothing after the vendor's lines is read at all.
            let lines = BufReader::with_capacity(64 << 10, file.take(CAP));
            return scan(lines, vendor, devices).with_context(|| format!("reading {place}"));
        }
    }
    Ok(BTreeMap::new())
}

fn scan(mut lines: impl BufRead, vendor: u16, devices: &[u16]) -> Result<BTreeMap<u16, Name>> {
    let vendor = format!("{vendor:04x}  ").into_bytes();
    let (mut found, mut line, mut is_inside) = (BTreeMap::new(), Vec::new(), false);
    while found.len() < devices.len() {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match line.first() {
            Some(b'\t') if is_inside => {
                let named = std::str::from_utf8(&line).ok().and_then(device);
                found.extend(named.filter(|(id, _)| devices.contains(id)));
            }
            Some(b'\t' | b'#' | b'\n') | None => {}
            Some(_) if is_inside => break,
            Some(_) => is_inside = line.starts_with(&vendor),
        }
    }
    Ok(found)
}

/// `<tab>1eb8  TU104GL [Tesla T4]`
fn device(line: &str) -> Option<(u16, Name)> {
    let (id, name) = line.strip_prefix('\t')?.split_once("  ")?;
    let id = u16::from_str_radix(id, 16).ok()?;
    let (chip, rest) = name.split_once('[').unwrap_or((name, ""));
    let model = rest.rsplit_once(']').map(|(model, _)| model.trim().to_owned()).filter(|model| !model.is_empty());
    Some((id, Name { model, architecture: Architecture::of_chip(chip.trim()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &[u8], devices: &[u16]) -> Vec<(u16, Option<String>, Option<Architecture>)> {
        let found = scan(text, 0x10de, devices).unwrap();
        found.into_iter().map(|(id, name)| (id, name.model, name.architecture)).collect()
    }

    #[test]
    fn only_the_vendors_own_devices_are_named() {
        let text = b"# a comment\n10dd  Someone\n\t1db6  Not this\n10de  NVIDIA Corporation\n\t1db6  GV100GL [Tesla V100 PCIe 32GB]\n\
            \t\t10de 124a  A board\n# in between\n\n\t1eb8  TU104GL\n\t2330  GH100[H100 SXM5 80GB]\n10df  Emulex\n\t2331  Not this\nC 03  Display\n";
        assert_eq!(
            scanned(text, &[0x1db6, 0x1eb8, 0x2330, 0x2331, 0x124a]),
            [
                (0x1db6, Some("Tesla V100 PCIe 32GB".to_owned()), Some(Architecture::Volta)),
                (0x1eb8, None, Some(Architecture::Turing)),
                (0x2330, Some("H100 SXM5 80GB".to_owned()), Some(Architecture::Hopper)),
            ]
        );
    }

    #[test]
    fn a_damaged_list_names_less_and_harms_nothing() {
        for text in [
            &b""[..],
            b"\t1db6  GV100GL [Tesla V100]\n",
            b"10de  NVIDIA\n\t1db6  \xff\xfe [x]\n",
            b"10de  NVIDIA\n\t1db6",
            b"10de  NVIDIA\n\t",
            b"10de  NVIDIA\n\txyz  A [B]\n\t\xc3",
            b"10de",
        ] {
            assert_eq!(scanned(text, &[0x1db6]), [], "{text:?}");
        }
        assert_eq!(scanned(b"10de  N\n\t1db6  ]Tesla[ V100", &[0x1db6]), [(0x1db6, None, None)]);
        assert_eq!(scanned(b"10de  N\n\t1db6  GV100GL [Tes", &[0x1db6]), [(0x1db6, None, Some(Architecture::Volta))]);
    }
}
