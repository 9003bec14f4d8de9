//! A layer is a set of statements about keys; each is judged by the key's row in the schema.

use serde_json::Value as Json;

use super::checks::{did_you_mean, nearest};
use super::error::{ConfigError, quoted};
use super::place::Place;
use super::raw::{Raw, RawEntry, RawValue};
use super::schema::{self, Key, Kind, SECTIONS};

/// What a layer says about one key.
pub struct Statement {
    /// The key.
    pub key: &'static Key,
    /// Its value.
    pub said: Said,
}

/// A value in its one right spelling.
pub enum Said {
    /// The whole value, and where it is written.
    Whole(Json, Place),
    /// Entries of a map, each with its place.
    Entries(Vec<(String, String, Place)>),
}

/// The statements of a tree of sections and keys.
pub fn statements(sections: Vec<RawEntry>, errors: &mut Vec<ConfigError>) -> Vec<Statement> {
    let mut found = Vec::new();
    for section in sections {
        if !SECTIONS.iter().any(|known| known.name == section.key) {
            errors.push(unknown_section(&section));
            continue;
        }
        match section.value.value {
            RawValue::Empty => {}
            RawValue::Map(entries) => {
                for entry in entries {
                    let inner = format!("{}.{}", section.key, entry.key);
                    match schema::find(&section.key, &entry.key) {
                        Some(key) => found.extend(judge(key, &entry.value, errors)),
                        None if SECTIONS.iter().any(|known| known.name == inner) => {
                            found.extend(statements(vec![RawEntry { key: inner, ..entry }], errors));
                        }
                        None => errors.push(unknown_key(&section.key, &entry.key, &entry.place)),
                    }
                }
            }
            other => {
                let message = format!("{} is a section, not {}", section.key, other.describe());
                let hint = format!("write [{}] and its keys below", section.key);
                errors.push(ConfigError::new(&section.place, message).hint(hint));
            }
        }
    }
    found
}

fn unknown_section(section: &RawEntry) -> ConfigError {
    let names = SECTIONS.iter().map(|known| known.name);
    let is_section = matches!(section.value.value, RawValue::Map(_) | RawValue::Empty);
    let what = if is_section { "section" } else { "key" };
    let error = ConfigError::new(&section.place, format!("unknown {what} {} at the top", quoted(&section.key)));
    let home = schema::KEYS.iter().find(|key| !is_section && key.name == section.key);
    match (home, did_you_mean(&section.key, names.clone())) {
        (Some(home), _) => error.hint(format!("it belongs under [{}]", home.section)),
        (None, Some(hint)) => error.hint(hint),
        (None, None) => error.hint(format!("there are [{}]", names.collect::<Vec<_>>().join("], ["))),
    }
}

/// The error about a key that its section does not have.
pub fn unknown_key(section: &str, name: &str, place: &Place) -> ConfigError {
    let names: Vec<&str> = schema::keys_of(section).map(|key| key.name).collect();
    let error = ConfigError::new(place, format!("unknown key {} in [{section}]", quoted(name)));
    if let Some(near) = nearest(name, names.iter().copied()) {
        return error.hint(format!("did you mean {}?", quoted(near)));
    }
    match schema::KEYS.iter().find(|key| key.name == name) {
        Some(home) => error.hint(format!("it belongs under [{}]", home.section)),
        None => error.hint(format!("there are {}", names.join(", "))),
    }
}

/// Judges a value by the row of its key; what is wrong goes to `errors`.
pub fn judge(key: &'static Key, raw: &Raw, errors: &mut Vec<ConfigError>) -> Option<Statement> {
    let before = errors.len();
    let said = Judge { key, errors }.judge(raw);
    // A list or a map with one wrong entry is not half right.
    said.filter(|_| errors.len() == before).map(|said| Statement { key, said })
}

struct Judge<'errors> {
    key: &'static Key,
    errors: &'errors mut Vec<ConfigError>,
}

impl Judge<'_> {
    fn judge(&mut self, raw: &Raw) -> Option<Said> {
        let json = match (&self.key.kind, &raw.value) {
            (Kind::Boolean, RawValue::Boolean(boolean)) => Json::Bool(*boolean),
            (Kind::Boolean, RawValue::Pair(text)) => match text.as_str() {
                "true" | "1" => Json::Bool(true),
                "false" | "0" => Json::Bool(false),
                _ => {
                    return self.wrong(&raw.place, format!("{} is not a boolean", self.show(text)), None);
                }
            },
            (Kind::Choice(words), RawValue::Text(text) | RawValue::Pair(text)) => {
                if !words.contains(&text.as_str()) {
                    let near = did_you_mean(text, words.iter().copied());
                    return self.wrong(&raw.place, format!("{} is not a choice here", self.show(text)), near);
                }
                Json::String(text.clone())
            }
            (Kind::Text(_, check), RawValue::Text(text) | RawValue::Pair(text)) => {
                Json::String(self.check(*check, text, &raw.place)?)
            }
            (Kind::List(_, check), RawValue::List(items)) => {
                Json::Array(items.iter().filter_map(|item| self.item(*check, item)).collect())
            }
            (Kind::Rows(_, names, check), RawValue::List(items)) => {
                Json::Array(items.iter().filter_map(|item| self.row(names, *check, item)).collect())
            }
            (Kind::List(_, check) | Kind::Rows(_, _, check), RawValue::Pair(text)) => {
                let items = commas(text).filter_map(|item| self.check(*check, item, &raw.place));
                Json::Array(items.map(Json::String).collect())
            }
            (Kind::Map(_, check), RawValue::Map(entries)) => {
                let entries = entries.iter().filter_map(|entry| match &entry.value.value {
                    RawValue::Text(value) => self.entry(*check, &entry.key, value, &entry.place),
                    other => {
                        let (what, name) = (other.describe(), quoted(&entry.key));
                        self.wrong(&entry.value.place, format!("the value of {name} is {what}, not text"), None)
                    }
                });
                return Some(Said::Entries(entries.collect()));
            }
            (Kind::Map(_, check), RawValue::Pair(text)) => {
                let entries = commas(text).filter_map(|entry| match entry.split_once('=') {
                    Some((name, value)) => self.entry(*check, name.trim(), value.trim(), &raw.place),
                    None => self.wrong(&raw.place, format!("{} has no \"=\"", quoted(entry)), None),
                });
                return Some(Said::Entries(entries.collect()));
            }
            (_, RawValue::Empty) => {
                let hint = Some("give it a value, or leave the key out".to_owned());
                return self.wrong(&raw.place, "this has no value".to_owned(), hint);
            }
            (kind, other) => {
                let wanted = match kind {
                    Kind::Boolean => "a boolean",
                    Kind::Choice(_) | Kind::Text(..) => "text",
                    Kind::List(..) | Kind::Rows(..) => "a list",
                    Kind::Map(..) => "a map",
                };
                return self.wrong(&raw.place, format!("this is {}, not {wanted}", other.describe()), None);
            }
        };
        Some(Said::Whole(json, raw.place.clone()))
    }

    fn item(&mut self, check: super::checks::Check, item: &Raw) -> Option<Json> {
        match &item.value {
            RawValue::Text(text) => self.check(check, text, &item.place).map(Json::String),
            other => self.wrong(&item.place, format!("an entry of this list is {}, not text", other.describe()), None),
        }
    }

    /// A map is as good as the text that says the same.
    fn row(&mut self, names: &'static [&'static str], check: super::checks::Check, item: &Raw) -> Option<Json> {
        let RawValue::Map(entries) = &item.value else { return self.item(check, item) };
        let mut words = Vec::new();
        for entry in entries {
            let (name, place) = (entry.key.as_str(), &entry.value.place);
            if !names.contains(&name) {
                let near = did_you_mean(name, names.iter().copied());
                return self.wrong(&entry.place, format!("{} is no name here", quoted(name)), near);
            }
            let values = match &entry.value.value {
                RawValue::List(items) => items.iter().collect(),
                _ => vec![&entry.value],
            };
            let values: Option<Vec<&str>> = values.iter().map(|raw| word(&raw.value)).collect();
            match values {
                Some(values) => words.push(format!("{name}={}", values.join("+"))),
                None => {
                    return self.wrong(
                        place,
                        format!("the value of {} is not a word, a number or a list of them", quoted(name)),
                        None,
                    );
                }
            }
        }
        self.check(check, &words.join(" "), &item.place).map(Json::String)
    }

    fn check(&mut self, check: super::checks::Check, text: &str, place: &Place) -> Option<String> {
        match check(text) {
            Ok(right) => Some(right),
            Err(why) => self.wrong(place, format!("{} {why}", self.show(text)), None),
        }
    }

    fn entry(
        &mut self,
        check: fn(&str, &str) -> Result<(), String>,
        name: &str,
        value: &str,
        place: &Place,
    ) -> Option<(String, String, Place)> {
        match check(name, value) {
            Ok(()) => Some((name.to_owned(), value.to_owned(), place.clone())),
            Err(why) => self.wrong(place, format!("{} {why}", quoted(&format!("{name}={value}"))), None),
        }
    }

    /// Notes an error; without a better hint it says what would be right.
    fn wrong<T>(&mut self, place: &Place, message: String, hint: Option<String>) -> Option<T> {
        let hint = match hint {
            Some(hint) => hint,
            None => self.key.right(),
        };
        self.errors.push(ConfigError::new(place, message).about(self.key.path()).hint(hint));
        None
    }

    fn show(&self, text: &str) -> String {
        if self.key.secret { format!("the text of {} characters here", text.chars().count()) } else { quoted(text) }
    }
}

/// A word of letters, digits and hyphens; anything else could be taken for more than one.
fn word(value: &RawValue) -> Option<&str> {
    let (RawValue::Text(text) | RawValue::Number(text)) = value else { return None };
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_word.then_some(text)
}

fn commas(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
