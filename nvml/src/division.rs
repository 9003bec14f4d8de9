//! A GPU is divided by many calls, any of which can be refused, so what came of it says why and what stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the helper prints when it is asked to divide a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Division {
    /// The GPU is divided as it was asked for; how.
    Made(String),
    /// It is not.
    Refused(Refusal),
}

/// Why a GPU is not divided as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// What kind of reason it is.
    pub reason: RefusalReason,
    /// What was being done, and what was said.
    pub why: String,
    /// How the GPU is divided now; `None` where that cannot be told.
    pub stands: Option<String>,
}

/// What kind of reason keeps a GPU from being divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// Somebody uses what would be taken away.
    InUse,
    /// The GPU has no such profile, or no room for so many.
    Impossible,
    /// MIG mode changes at the next reset of the GPU.
    NeedsReset,
    /// Anything else.
    Failed,
}

/// `creating 1g.10gb: ...; the GPU has MIG mode on and 3g.40gb:1`
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stands {
            Some(stands) => write!(f, "{}; the GPU has {stands}", self.why),
            None => write!(f, "{}; how the GPU is divided now cannot be told", self.why),
        }
    }
}

impl std::error::Error for Refusal {}
