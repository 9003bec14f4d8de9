//! What a program says may be a secret, and is kept where only root reads it until the next look has judged it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;

/// What came of running a program once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Said {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Which time it was, from 1.
    pub attempt: u32,
    /// When it was started, in seconds since 1970.
    pub began: u64,
    /// How it ended.
    pub end: End,
}

/// How a program ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// By itself, or by a signal.
    Ended {
        /// The exit status; `None` when a signal ended it.
        code: Option<i32>,
        /// Standard output, which may be a secret.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// It could not be started.
    NotStarted(String),
    /// It was killed when its time was over.
    TooSlow,
}

/// Shows nothing of what was said.
impl std::fmt::Debug for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Said({:?}, attempt {})", self.argv, self.attempt)
    }
}

impl Said {
    /// What came of it, for the file.
    pub(in crate::host) fn new(argv: &[String], attempt: u32, began: SystemTime, end: End) -> Self {
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { argv: argv.to_vec(), attempt, began, end }
    }

    /// From the file. A damaged one is an error that repeats nothing of it.
    pub fn from_file(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|_| anyhow::anyhow!("it is damaged"))
    }

    /// For the file.
    pub(in crate::host) fn to_file(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("writing down what a program said")
    }

    /// How long ago it was started; `None` when that is in the future, because the clock was set back since.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(self.began)).ok()
    }
}

impl From<Output> for End {
    fn from(output: Output) -> Self {
        Self::Ended { code: output.code, stdout: output.stdout, stderr: output.stderr }
    }
}
