//! A value is only as good as the answer to "who said so?": a file, a line, a variable, or nobody.

use std::fmt;

use serde::{Serialize, Serializer};

use super::error::quoted;

/// The layer that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built into the agent.
    Default,
    /// What the machine shows by itself, in words.
    Machine(String),
    /// A file on the machine, by its path.
    File(String),
    /// The text that the cloud hands to the machine.
    UserData,
    /// One of the texts that the cloud hands over packed together.
    UserDataPart {
        /// Its place among all parts, the agent's or not, from 1.
        number: usize,
        /// Its file name, where it was given one.
        name: Option<String>,
    },
    /// The process environment.
    Environment,
    /// `--set` on the command line.
    Flags,
}

/// Where exactly something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The layer.
    pub origin: Origin,
    /// The environment variable, or the key given to `--set`.
    pub variable: Option<String>,
    /// Line and column, both counted from 1, the column in characters.
    pub position: Option<(usize, usize)>,
}

impl Place {
    /// A place in a layer about which no more is known.
    pub fn of(origin: Origin) -> Self {
        Self { origin, variable: None, position: None }
    }

    /// The same layer, at a line and a column.
    pub fn at(&self, line: usize, column: usize) -> Self {
        Self { position: Some((line, column)), ..self.clone() }
    }

    /// The same layer, in a variable or under a key of `--set`.
    pub fn named(&self, variable: &str) -> Self {
        Self { variable: Some(variable.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => formatter.write_str("default")?,
            Origin::Machine(words) => formatter.write_str(words)?,
            Origin::File(path) => formatter.write_str(path)?,
            Origin::UserData => formatter.write_str("user-data")?,
            Origin::UserDataPart { number, name: None } => write!(formatter, "user-data, part {number}")?,
            Origin::UserDataPart { number, name: Some(name) } => {
                write!(formatter, "user-data, part {number} ({})", quoted(name))?
            }
            Origin::Environment => formatter.write_str("environment")?,
            Origin::Flags => formatter.write_str("flag --set")?,
        }
        if let (Origin::Environment, Some(variable)) = (&self.origin, &self.variable) {
            write!(formatter, " {variable}")?;
        }
        if let Some((line, column)) = self.position {
            write!(formatter, ":{line}:{column}")?;
        }
        Ok(())
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
