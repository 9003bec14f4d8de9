//! `ds=nocloud;s=URL;i=ID;h=NAME` on the kernel's command line or as the SMBIOS serial number is a seed in one line.

use anyhow::Result;

use crate::look::Look;

/// What the line says ("NoCloud", cloud-init documentation: "Line configuration").
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `s` or `seedfrom`: where the files are.
    pub seed_from: Option<String>,
    /// `i` or `instance-id`.
    pub instance_id: Option<String>,
    /// `h` or `local-hostname`.
    pub local_hostname: Option<String>,
}

/// The line, and what says it. The kernel's command line comes before the firmware.
pub fn find(look: Look<'_>) -> Result<Option<(Line, String)>> {
    if !look.running_system() {
        return Ok(None);
    }
    if let Some(line) = look.text("/proc/cmdline")?.as_deref().and_then(read) {
        return Ok(Some((line, "the kernel's command line".to_owned())));
    }
    let serial = look.facts.dmi.product_serial.as_deref().and_then(read);
    Ok(serial.map(|line| (line, "DMI product_serial".to_owned())))
}

fn read(text: &str) -> Option<Line> {
    text.split_whitespace().find_map(|word| {
        // A boot loader's quotes may be left around the word.
        let word = word.trim_matches(['"', '\'']);
        let (name, pairs) = word.strip_prefix("ds=").map(|rest| rest.split_once(';').unwrap_or((rest, "")))?;
        if name != "nocloud" && name != "nocloud-net" {
            return None;
        }
        let mut line = Line::default();
        for (key, value) in pairs.split(';').filter_map(|pair| pair.split_once('=')) {
            let value = Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "s" | "seedfrom" => line.seed_from = value,
                "i" | "instance-id" => line.instance_id = value,
                "h" | "local-hostname" => line.local_hostname = value,
                _ => {}
            }
        }
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::{Line, read};

    #[test]
    fn the_line_is_one_word_with_pairs() {
        let line = |seed_from: &str, instance_id: &str, local_hostname: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Some(Line { seed_from: some(seed_from), instance_id: some(instance_id), local_hostname: some(local_hostname) })
        };
        assert_eq!(read("ro ds=nocloud;s=http://h/;i=i-1;h=gpu console=ttyS0"), line("http://h/", "i-1", "gpu"));
        assert_eq!(read("\"ds=nocloud-net;seedfrom=/seed/;instance-id=a\"\n"), line("/seed/", "a", ""));
        assert_eq!(read("ds=nocloud"), line("", "", ""));
        assert_eq!(read("ds=ec2;s=http://h/"), None);
        assert_eq!(read("ads=nocloud;i=1"), None);
        assert_eq!(read("PF0ABC"), None);
    }
}
