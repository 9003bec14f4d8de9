//! TOML keeps the place of every key and value, so an error can point at the very character.

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, quoted};
use super::place::Place;
use super::raw::{Lines, Raw, RawEntry, RawValue};

/// Reads a TOML text. `locate` turns line and column of the text into a place of the layer: the text may be a part of
/// a larger one.
pub fn read(text: &str, locate: &dyn Fn(usize, usize) -> Place) -> Result<Vec<RawEntry>, Vec<ConfigError>> {
    let reader = Reader { lines: Lines::new(text), locate };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(reader.entries(table.get_ref()));
    }
    let mut found: Vec<ConfigError> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let place = reader.place(span.start);
        // One slip makes the parser stumble several times on its line; the first stumble is the slip.
        if !found.iter().any(|earlier| earlier.line == place.position.map(|(line, _)| line)) {
            let message = sentence(error.message(), text.get(span).unwrap_or_default());
            found.push(ConfigError::new(&place, format!("this is not TOML: {message}")));
        }
    }
    Err(found)
}

/// The parser's message in words. It never repeats a value; of what is written, only keys are.
fn sentence(message: &str, written: &str) -> String {
    match message {
        "duplicate key" => format!("the key {} was given before", quoted(written.trim_matches(['"', '\'']))),
        _ if message.starts_with("string values must be quoted") => {
            let is_missing = written.trim().is_empty();
            if is_missing { "there is no value" } else { "text must be in quotes" }.to_owned()
        }
        _ => message.replace("`\"`", "a quotation mark").replace('`', "\""),
    }
}

struct Reader<'text> {
    lines: Lines<'text>,
    locate: &'text dyn Fn(usize, usize) -> Place,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        let (line, column) = self.lines.position(offset);
        (self.locate)(line, column)
    }

    fn entries(&self, table: &DeTable<'_>) -> Vec<RawEntry> {
        let entries = table.iter().map(|(key, value)| RawEntry {
            place: self.place(key.span().start),
            key: key.get_ref().to_string(),
            value: self.value(value),
        });
        entries.collect()
    }

    fn value(&self, value: &toml::Spanned<DeValue<'_>>) -> Raw {
        let raw = match value.get_ref() {
            DeValue::String(text) => RawValue::Text(text.to_string()),
            DeValue::Boolean(boolean) => RawValue::Boolean(*boolean),
            DeValue::Integer(number) => RawValue::Number(number.to_string()),
            DeValue::Float(_) => RawValue::Other("a number"),
            DeValue::Datetime(_) => RawValue::Other("a date"),
            DeValue::Array(items) => RawValue::List(items.iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => RawValue::Map(self.entries(table)),
        };
        Raw { place: self.place(value.span().start), value: raw }
    }
}
