//! Before anything is known about keys, TOML, YAML and pairs are all the same tree: texts, lists and maps, each with its place.

use super::place::Place;

/// A value as it was written.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Where it is written.
    pub place: Place,
    /// What is written there.
    pub value: RawValue,
}

/// The shapes a written value can have.
#[derive(Debug, Clone)]
pub enum RawValue {
    /// Text, or anything that YAML would also take as text without quotes, such as a number.
    Text(String),
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as it is written.
    Number(String),
    /// Something that no key takes; the text says what, such as "a date".
    Other(&'static str),
    /// Nothing, as in `key:` in YAML.
    Empty,
    /// Values in their order.
    List(Vec<Raw>),
    /// Keys and values.
    Map(Vec<RawEntry>),
    /// The value of a variable or a flag, where lists and maps are written with commas.
    Pair(String),
}

/// One `key = value` of a map.
#[derive(Debug, Clone)]
pub struct RawEntry {
    /// Where the key is written.
    pub place: Place,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Raw,
}

impl RawValue {
    /// What this is, in words, for "is …, not …".
    pub fn describe(&self) -> &'static str {
        match self {
            RawValue::Text(_) | RawValue::Pair(_) => "text",
            RawValue::Boolean(_) => "a boolean",
            RawValue::Number(_) => "a number",
            RawValue::Other(what) => what,
            RawValue::Empty => "empty",
            RawValue::List(_) => "a list",
            RawValue::Map(_) => "a map",
        }
    }
}

/// Turns byte offsets of a text into lines and columns.
pub struct Lines<'text> {
    text: &'text str,
    starts: Vec<usize>,
}

impl<'text> Lines<'text> {
    /// Notes where the lines of a text begin.
    pub fn new(text: &'text str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset.min(self.text.len())).unwrap_or_default();
        // Continuation bytes of UTF-8 do not begin a character.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        (line, column)
    }
}
