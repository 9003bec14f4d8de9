//! An error in a configuration is a message to the person who wrote the line.

use std::fmt;

use serde::{Serialize, Serializer};

use super::bootstrap_token::contains_token;
use super::k3s_token::contains_long_token;
use super::place::Place;

/// One thing that is wrong, where it is written, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Where it is written.
    #[serde(serialize_with = "without_position")]
    pub origin: Place,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The column, counted from 1 in characters.
    pub column: Option<usize>,
    /// The key it is about, such as `cluster.token`, where one is known.
    pub key: Option<String>,
    /// What is wrong. Never contains a secret.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Something wrong that belongs to no key, such as a text that is not TOML.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self {
            line: place.position.map(|(line, _)| line),
            column: place.position.map(|(_, column)| column),
            origin: place.clone(),
            key: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Says which key it is about.
    pub fn about(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Says what would be right.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(formatter, "{key}: ")?;
        }
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// In JSON, line and column have fields of their own.
fn without_position<S: Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    Place { position: None, ..place.clone() }.serialize(serializer)
}

/// Everything that is wrong, over all layers, in the order of the layers and their lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Puts a text between quotes for a message: shortened, on one line, and without what looks like a bootstrap token
/// (people put tokens into the wrong key, and messages end up in logs).
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    if contains_token(text) {
        return format!("a text of {} characters that contains a bootstrap token", text.chars().count());
    }
    if contains_long_token(text) {
        return format!("a text of {} characters that contains a k3s token", text.chars().count());
    }
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    format!("\"{shown}\"").replace("\\'", "'")
}
