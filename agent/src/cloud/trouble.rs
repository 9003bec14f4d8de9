//! Silence may pass by itself; nonsense does not.

use std::fmt;

/// Why a platform told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its service does not answer. Waiting may cure that.
    Unreachable {
        /// What a person can ask to see the same.
        url: String,
        /// Who was asked, and how long.
        why: String,
    },
    /// What is there cannot be read, or is not what it should be. A person must look.
    Unreadable(String),
}

impl Trouble {
    /// Whether waiting may cure it.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The same trouble with words before its own.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        match self {
            Self::Unreachable { url, why } => Self::Unreachable { url, why: format!("{what}: {why}") },
            Self::Unreadable(why) => Self::Unreadable(format!("{what}: {why}")),
        }
    }

    /// The same trouble with words after its own.
    #[must_use]
    pub fn and(self, further: &str) -> Self {
        match self {
            Self::Unreachable { url, why } => Self::Unreachable { url, why: format!("{why}; and {further}") },
            Self::Unreadable(why) => Self::Unreadable(format!("{why}; and {further}")),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable { why, .. } | Self::Unreadable(why)) = self;
        formatter.write_str(why)
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Unreadable(format!("{error:#}"))
    }
}
