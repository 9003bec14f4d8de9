//! The container toolkit is what hands GPUs to containers; its values are checked while they are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::driver::{Repository, given_without};
use super::error::ConfigError;
use super::place::Place;
use super::sections::Enabled;

/// `[gpu.toolkit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Toolkit {
    /// Whether it is installed.
    pub install: Enabled,
    /// How GPUs are handed over.
    pub mode: ToolkitMode,
    /// Where its package comes from; `None` is what the package manager knows.
    pub repository: Option<Repository>,
    /// The file of the repository's key. Given where `repository` is.
    pub repository_key: Option<PathBuf>,
}

/// How GPUs are handed over (NVIDIA Container Toolkit, config.toml, `nvidia-container-runtime.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolkitMode {
    /// As the toolkit is configured.
    Auto,
    /// By a CDI specification.
    Cdi,
    /// By the toolkit's own library.
    Legacy,
}

impl ToolkitMode {
    /// The word in the toolkit's configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cdi => "cdi",
            Self::Legacy => "legacy",
        }
    }
}

/// What the keys of the section say that cannot hold together; `said` gives a key's text and place.
pub(super) fn contradictions<'a>(said: &dyn Fn(&str) -> Option<(&'a str, &'a Place)>) -> Vec<ConfigError> {
    let missing = |given: &str, other: &str, hint: &str| given_without("gpu.toolkit", given, other, hint, said);
    [
        missing("repository", "repository-key", "give the file of the key that signs it: packages are not taken on trust"),
        missing("repository-key", "repository", "give the repository that it signs, or leave the key out"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
