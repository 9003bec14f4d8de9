//! The environment is shared with everyone, so names that only look like the agent's are worth an error.

use super::checks::nearest;
use super::error::{ConfigError, quoted};
use super::layer::{Statement, judge, unknown_key};
use super::place::Place;
use super::raw::{Raw, RawEntry, RawValue};
use super::schema::{self, Key, Kind, RESERVED_VARIABLES, SECTIONS, VARIABLE_PREFIX};

/// The statements of an environment; variables that are not the agent's are passed over, and so are empty ones.
pub fn environment(variables: &[(String, String)], layer: &Place, errors: &mut Vec<ConfigError>) -> Vec<Statement> {
    let is_ours = |name: &str| name.starts_with(VARIABLE_PREFIX) && !is_reserved(name);
    let mut found = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| is_ours(name)) {
        let place = layer.named(name);
        match schema::KEYS.iter().find(|key| key.variable() == *name) {
            // A unit file or a template that had nothing to put in leaves an empty variable behind.
            Some(_) if value.is_empty() => {}
            Some(key) => found.extend(judge(key, &pair(value, &place), errors)),
            None => errors.push(unknown_variable(name, &place)),
        }
    }
    found
}

fn is_reserved(name: &str) -> bool {
    RESERVED_VARIABLES.iter().any(|reserved| match reserved.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *reserved,
    })
}

fn unknown_variable(name: &str, place: &Place) -> ConfigError {
    let known: Vec<String> = schema::KEYS.iter().map(Key::variable).collect();
    let end = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    let near = nearest(name, known.iter().map(String::as_str))
        .or_else(|| known.iter().map(String::as_str).find(|known| known.ends_with(&format!("_{end}"))));
    let error = ConfigError::new(place, format!("unknown variable {}", quoted(name)));
    match near {
        Some(near) => error.hint(format!("did you mean {}?", quoted(near))),
        None => error.hint("names are GPUK_SECTION_KEY, e.g. GPUK_CLUSTER_ENDPOINTS"),
    }
}

/// The statements of `--set SECTION.KEY=VALUE`; `SECTION.KEY.ENTRY` gives one entry of a map.
pub fn flags(pairs: &[(String, String)], layer: &Place, errors: &mut Vec<ConfigError>) -> Vec<Statement> {
    let mut found = Vec::new();
    for (path, value) in pairs {
        let place = layer.named(path);
        let Some((section, name)) = split(path) else {
            errors.push(unknown_path(path, &place));
            continue;
        };
        let member = name.split_once('.').and_then(|(name, member)| Some((schema::find(section, name)?, member)));
        match (schema::find(section, name), member) {
            (Some(key), _) => found.extend(judge(key, &pair(value, &place), errors)),
            (None, Some((key, member))) if matches!(key.kind, Kind::Map(..)) => {
                let value = Raw { place: place.clone(), value: RawValue::Text(value.clone()) };
                let entry = RawEntry { place: place.clone(), key: member.to_owned(), value };
                found.extend(judge(key, &Raw { place, value: RawValue::Map(vec![entry]) }, errors));
            }
            _ if SECTIONS.iter().any(|known| known.name == section) => {
                errors.push(unknown_key(section, name, &place));
            }
            _ => errors.push(unknown_path(path, &place)),
        }
    }
    found
}

/// A path as its section and the rest; of sections inside each other the inner one.
fn split(path: &str) -> Option<(&str, &str)> {
    let within = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let inner = SECTIONS.iter().map(|section| section.name).filter(|name| within(name)).max_by_key(|name| name.len());
    inner.map_or_else(|| path.split_once('.'), |name| Some((name, &path[name.len() + 1..])))
}

fn unknown_path(path: &str, place: &Place) -> ConfigError {
    let known: Vec<String> = schema::KEYS.iter().map(Key::path).collect();
    let near = nearest(path, known.iter().map(String::as_str))
        .or_else(|| known.iter().map(String::as_str).find(|known| known.ends_with(&format!(".{path}"))));
    let error = ConfigError::new(place, format!("unknown key {}", quoted(path)));
    match near {
        Some(near) => error.hint(format!("did you mean {}?", quoted(near))),
        None => error.hint("write SECTION.KEY=VALUE, e.g. cluster.endpoints=https://api.example.com"),
    }
}

fn pair(value: &str, place: &Place) -> Raw {
    Raw { place: place.clone(), value: RawValue::Pair(value.to_owned()) }
}
