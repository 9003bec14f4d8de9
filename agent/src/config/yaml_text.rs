//! A cloud-config belongs to cloud-init; the agent reads the value of `gpuk:` and passes over everything else.

use serde::de::DeserializeOwned;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{ConfigError, quoted};
use super::place::Place;
use super::raw::{Raw, RawEntry, RawValue};
use super::toml_text;
pub use super::yaml_tree::OUR_KEY;
use super::yaml_tree::{Document, Name, Node};

/// Reads the agent's part of a cloud-config: a mapping of sections, or a block of TOML text.
/// A text that is not YAML is an error only where it names the agent's key; otherwise it is cloud-init's business.
pub fn read(text: &str, layer: &Place) -> Result<Vec<RawEntry>, Vec<ConfigError>> {
    let document: Document = match parse(text) {
        Ok(document) => document,
        Err(error) if names_our_key(text) => return Err(vec![unreadable(&error, "cloud-config", layer)]),
        Err(_) => return Ok(Vec::new()),
    };
    let mut parts = document.0.into_iter();
    let Some((key, part)) = parts.next() else {
        return Ok(Vec::new());
    };
    if let Some((second, _)) = parts.next() {
        let first = at(layer, key);
        let error = ConfigError::new(&at(layer, second), format!("\"{OUR_KEY}\" was given before, at {first}"));
        return Err(vec![error.hint("put both parts under one key")]);
    }
    let place = at(layer, part.referenced);
    let builder = Builder { text, layer };
    match part.value {
        Node::Null => Ok(Vec::new()),
        Node::Map(entries) => builder.entries(entries),
        Node::Text(block) => toml_text::read(&block, &|line, column| inside(text, &block, &place, line, column)),
        Node::Boolean(_) | Node::Number | Node::List(_) => {
            let error = ConfigError::new(&place, format!("\"{OUR_KEY}\" is not a mapping"));
            Err(vec![error.hint("right would be a mapping of sections, or a block (|) of TOML text")])
        }
    }
}

/// Reads YAML as cloud-init does: it lets the last of two equal keys win. (In the agent's own part that is an error.)
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

/// The error about a text that is not the YAML it should be.
pub(super) fn unreadable(error: &serde_saphyr::Error, what: &str, layer: &Place) -> ConfigError {
    let place = error.location().map_or_else(|| layer.clone(), |location| at(layer, location));
    let message = UserMessageFormatter.format_message(error).into_owned();
    ConfigError::new(&place, format!("this cannot be read as a {what}: {message}"))
}

/// Whether a text that need not be YAML has the agent's key at the beginning of a line, or where a key of `{…, …}` stands.
pub(super) fn names_our_key(text: &str) -> bool {
    text.match_indices(OUR_KEY).any(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + OUR_KEY.len()..]);
        let before = before.strip_suffix(['"', '\'']).unwrap_or(before);
        let after = after.strip_prefix(['"', '\'']).unwrap_or(after);
        let is_first = before.is_empty() || before.ends_with(['\n', '\r']) || before.trim_end().ends_with(['{', ',']);
        is_first && after.trim_start().starts_with(':')
    })
}

fn at(layer: &Place, location: Location) -> Place {
    match (usize::try_from(location.line()), usize::try_from(location.column())) {
        (Ok(line), Ok(column)) if line > 0 => layer.at(line, column.max(1)),
        _ => layer.clone(),
    }
}

/// The place in the whole document of a line of a literal block. The parser's `start` of a block is its first line with
/// something on it. A block that was folded or quoted has no such lines; there its beginning has to do.
fn inside(text: &str, block: &str, start: &Place, line: usize, column: usize) -> Place {
    let Some((start_line, _)) = start.position else {
        return start.clone();
    };
    let blank_before = block.lines().take_while(|line| line.trim().is_empty()).count();
    let written = block.lines().nth(line - 1).unwrap_or_default().trim_end();
    let whole_line = (start_line + line).saturating_sub(blank_before + 1).max(1);
    match text.lines().nth(whole_line - 1).map(str::trim_end) {
        Some(whole) if whole.ends_with(written) => {
            let indentation = whole.chars().count() - written.chars().count();
            start.at(whole_line, indentation + column)
        }
        _ => start.clone(),
    }
}

struct Builder<'text> {
    text: &'text str,
    layer: &'text Place,
}

impl Builder<'_> {
    fn entries(&self, entries: Vec<(Spanned<Name>, Spanned<Node>)>) -> Result<Vec<RawEntry>, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut built: Vec<RawEntry> = Vec::new();
        for (Spanned { value: Name(key), referenced, .. }, value) in entries {
            let place = at(self.layer, referenced);
            if let Some(earlier) = built.iter().find(|earlier| earlier.key == key) {
                let message = format!("the key {} was given before, at {}", quoted(&key), earlier.place);
                errors.push(ConfigError::new(&place, message));
                continue;
            }
            match self.value(value) {
                Ok(value) => built.push(RawEntry { place, key, value }),
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { Ok(built) } else { Err(errors) }
    }

    fn value(&self, node: Spanned<Node>) -> Result<Raw, Vec<ConfigError>> {
        let value = match node.value {
            Node::Null => RawValue::Empty,
            Node::Boolean(boolean) => RawValue::Boolean(boolean),
            // YAML writers do not quote what looks like a number to nobody but YAML: take it as it is spelled.
            Node::Number => self.spelling(node.defined).map_or(RawValue::Other("a number"), RawValue::Text),
            Node::Text(text) => RawValue::Text(text),
            Node::List(items) => RawValue::List(items.into_iter().map(|item| self.value(item)).collect::<Result<_, _>>()?),
            Node::Map(entries) => RawValue::Map(self.entries(entries)?),
        };
        Ok(Raw { place: at(self.layer, node.referenced), value })
    }

    fn spelling(&self, location: Location) -> Option<String> {
        let start = usize::try_from(location.span().byte_offset()?).ok()?;
        let length = usize::try_from(location.span().byte_len()?).ok()?;
        Some(self.text.get(start..start.checked_add(length)?)?.trim().to_owned())
    }
}
