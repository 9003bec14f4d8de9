//! How GPUs are divided is written as a list, and means something as a whole only.

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

use super::error::ConfigError;
use super::place::Place;

pub use gpuk_nvml::MigLayout;

/// Such as `gpu.mig-layout`.
pub(super) const KEY: &str = "gpu.mig-layout";

/// The entries of the list as one layout; an empty one says nothing.
fn together(entries: &[String]) -> Result<Option<MigLayout>, String> {
    if entries.is_empty() { Ok(None) } else { entries.join(",").parse().map(Some) }
}

/// What the entries, each right by itself, say that cannot hold together.
pub(super) fn contradiction(entries: &[String], place: &Place) -> Option<ConfigError> {
    let wrong = together(entries).err()?;
    Some(ConfigError::new(place, format!("the list {wrong}")).about(KEY).hint("name each profile once, or \"off\" alone"))
}

/// As the configuration has it.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MigLayout>, D::Error> {
    together(&Vec::<String>::deserialize(deserializer)?).map_err(Error::custom)
}

/// As the configuration has it.
#[allow(clippy::ref_option, reason = "serde hands it over so")]
pub(super) fn serialize<S: Serializer>(layout: &Option<MigLayout>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = layout.as_ref().map(ToString::to_string);
    let entries: Vec<&str> = text.iter().flat_map(|text| text.split(',')).collect();
    entries.serialize(serializer)
}
