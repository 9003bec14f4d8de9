//! How a GPU is to be divided is said by NVIDIA's names of profiles and how often each (NVIDIA, MIG User Guide, "Supported MIG Profiles").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// More instances than any GPU has (NVIDIA, MIG User Guide: 7).
const MOST: u32 = 64;

/// The word for a GPU that is not divided.
const OFF: &str = "off";

/// How a GPU is to be divided. As text `3g.40gb:1,1g.10gb:4`, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigLayout {
    /// Not at all: MIG mode is off.
    Off,
    /// Into instances: how many of each profile, at least one in all.
    Instances(BTreeMap<String, u32>),
}

impl MigLayout {
    /// Whether MIG mode is on.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::Instances(_))
    }
}

impl fmt::Display for MigLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::Instances(counts) => f.write_str(&counted(counts)),
        }
    }
}

/// `1g.10gb:4,3g.40gb:1`
pub fn counted<P: fmt::Display>(counts: &BTreeMap<P, u32>) -> String {
    let parts: Vec<String> = counts.iter().map(|(profile, count)| format!("{profile}:{count}")).collect();
    parts.join(",")
}

impl FromStr for MigLayout {
    /// The end of a sentence that begins with the text.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == OFF {
            return Ok(Self::Off);
        }
        let mut counts = BTreeMap::new();
        for part in text.split(',') {
            if part == OFF {
                return Err(format!("has {OFF:?} beside instances"));
            }
            let (profile, count) = part.rsplit_once(':').ok_or_else(|| "has no count behind a colon".to_owned())?;
            check_profile(profile)?;
            let count = count.parse().ok().filter(|count| (1..=MOST).contains(count));
            let count = count.ok_or_else(|| format!("has a count that is not a number from 1 to {MOST}"))?;
            if counts.insert(profile.to_owned(), count).is_some() {
                return Err(format!("names {profile} twice"));
            }
        }
        Ok(Self::Instances(counts))
    }
}

/// `1g.10gb`, with attributes behind a `+` or `-`: `1g.10gb+me`, `1g.24gb+me.all`, `1g.24gb-me`.
fn check_profile(profile: &str) -> Result<(), String> {
    let (size, attributes) = profile.find(['+', '-']).map_or((profile, None), |at| (&profile[..at], Some(&profile[at + 1..])));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_size = size.split_once('.').is_some_and(|(slices, memory)| {
        slices.strip_suffix('g').is_some_and(is_number) && memory.strip_suffix("gb").is_some_and(is_number)
    });
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.');
    if is_size && attributes.is_none_or(is_word) {
        Ok(())
    } else if profile.contains("c.") {
        Err("names a compute instance; an instance of the GPU gets one that spans it".to_owned())
    } else {
        Err("does not name a profile of instances".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_and_written_in_one_spelling() {
        for (text, written) in [
            ("off", "off"),
            ("3g.40gb:1,1g.10gb:4", "1g.10gb:4,3g.40gb:1"),
            ("1g.10gb+me:1", "1g.10gb+me:1"),
            ("1g.24gb+me.all:1,1g.24gb-me:2", "1g.24gb+me.all:1,1g.24gb-me:2"),
        ] {
            assert_eq!(text.parse::<MigLayout>().unwrap().to_string(), written);
        }
        for (text, wrong) in [
            ("", "has no count"),
            ("1g.10gb", "has no count"),
            ("1g.10gb:0", "has a count"),
            ("1g.10gb:65", "has a count"),
            ("1g.10gb:-1", "has a count"),
            ("1g.10gb:1,1g.10gb:2", "names 1g.10gb twice"),
            ("off,1g.10gb:1", "has \"off\" beside"),
            ("off:1", "does not name"),
            ("g.10gb:1", "does not name"),
            ("1g.10GB:1", "does not name"),
            ("1g.10gb+:1", "does not name"),
            ("MIG 1g.10gb:1", "does not name"),
            ("1c.3g.40gb:1", "names a compute instance"),
        ] {
            let said = text.parse::<MigLayout>().unwrap_err();
            assert!(said.starts_with(wrong), "{text}: {said}");
        }
    }
}
