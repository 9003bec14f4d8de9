//! The last voice wins: whole for a value or a list, entry by entry for a map.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::error::{ConfigError, ConfigErrors, quoted};
use super::join_credential::join_credential;
use super::k3s_token::{K3sToken, contains_long_token};
use super::labels::Taint;
use super::layer::{Said, Statement, judge};
use super::place::{Origin, Place};
use super::raw::{Raw, RawValue};
use super::redirect::{self, Redirect};
use super::schema::{KEYS, Key, Kind, SECTIONS};
use super::secret::REDACTED;
use super::sections::Config;
use super::{driver, mig_layout, token_sources, toolkit};

/// One value in effect, for showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Such as `cluster.endpoints`, or `node.labels.example.com/pool` for an entry of a map.
    pub key: String,
    /// The value as JSON text, `(secret)` for a secret, or nothing when it is not set.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Place,
}

const TOKEN: &str = "cluster.token";
const TOKEN_COMMAND: &str = "cluster.token-command";

/// Says what kind of token the cluster takes.
const KIND: &str = "cluster.kind";

/// What k3s has elsewhere (k3s documentation, "Advanced Options / Configuration").
const OF_K3S: [(&str, &str); 2] = [
    ("containerd.socket", "/run/k3s/containerd/containerd.sock"),
    ("containerd.config-file", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
];
/// Two ways to say one thing: the secret, and the file that holds it.
const SECRETS: [(&str, &str); 1] = [("cluster.certificate-key", "cluster.certificate-key-file")];

/// Together they say what is redirected.
const REDIRECTS: &str = "redirects.rules";
const INGRESS: &str = "redirects.ingress";

/// Lists in which each key and effect may stand once.
const TAINTS: [&str; 3] = ["node.taints", "gpu.taints", "gpu.startup-taints"];

/// The layers so far, laid over each other: one slot for each row of the schema.
pub struct Merged(Vec<Slot>);

enum Slot {
    Whole(Json, Place),
    Entries(BTreeMap<String, (String, Place)>),
}

impl Merged {
    /// What holds when nobody says anything.
    pub fn defaults(errors: &mut Vec<ConfigError>) -> Self {
        let place = Place::of(Origin::Default);
        let slot = |key: &'static Key| {
            let empty = match key.kind {
                Kind::Map(..) => Slot::Entries(BTreeMap::new()),
                Kind::List(..) | Kind::Rows(..) => Slot::Whole(Json::Array(Vec::new()), place.clone()),
                Kind::Boolean | Kind::Choice(_) | Kind::Text(..) => Slot::Whole(Json::Null, place.clone()),
            };
            let default = key.default.and_then(|text| {
                let raw = Raw { place: place.clone(), value: RawValue::Pair(text.to_owned()) };
                judge(key, &raw, errors)
            });
            match default {
                Some(statement) => empty.covered_by(statement.said),
                None => empty,
            }
        };
        Self(KEYS.iter().map(slot).collect())
    }

    /// Lays the statements of a layer over what was said before. A later secret takes the place of an earlier one however each is given.
    pub fn lay_over(&mut self, statements: Vec<Statement>) {
        let says = |path: &str| statements.iter().any(|statement| statement.key.path() == path);
        for (given, other) in SECRETS.into_iter().flat_map(|(secret, file)| [(secret, file), (file, secret)]) {
            if says(given)
                && let Some((slot, _)) = self.0.iter_mut().zip(KEYS).find(|(_, row)| row.path() == other)
            {
                *slot = Slot::Whole(Json::Null, Place::of(Origin::Default));
            }
        }
        for Statement { key, said } in statements {
            if let Some((slot, _)) = self.0.iter_mut().zip(KEYS).find(|(_, row)| row.path() == key.path()) {
                let before = std::mem::replace(slot, Slot::Entries(BTreeMap::new()));
                *slot = before.covered_by(said);
            }
        }
    }

    /// Defaults that hold for one kind of cluster alone.
    pub fn follow_kind(&mut self) {
        if self.said(KIND).is_none_or(|(kind, _)| kind != "k3s") {
            return;
        }
        for (slot, key) in self.0.iter_mut().zip(KEYS) {
            let of_k3s = OF_K3S.iter().find(|(path, _)| *path == key.path());
            if let (Some((_, text)), Slot::Whole(value, place)) = (of_k3s, slot)
                && place.origin == Origin::Default
            {
                *value = Json::String((*text).to_owned());
            }
        }
    }

    /// What the layers say that cannot hold together.
    pub fn contradictions(&self) -> Vec<ConfigError> {
        let taints = self.rows().filter(|(key, _)| TAINTS.contains(&key.path().as_str()));
        let taints = taints.filter_map(|(key, slot)| twice_in_one_place(key, slot));
        let mut drivers = driver::contradictions(&|path| self.said(path));
        drivers.extend(toolkit::contradictions(&|path| self.said(path)));
        let given_twice = SECRETS.into_iter().filter_map(|(secret, file)| self.given_twice(secret, file));
        self.token_sources()
            .into_iter()
            .chain(self.wrong_token())
            .chain(given_twice)
            .chain(taints)
            .chain(self.redirects_that_meet())
            .chain(self.layout())
            .chain(drivers)
            .collect()
    }

    /// The text that a key has, and its place; `None` where it has none.
    fn said(&self, path: &str) -> Option<(&str, &Place)> {
        match self.rows().find(|(key, _)| key.path() == path)? {
            (_, Slot::Whole(Json::String(text), place)) => Some((text, place)),
            _ => None,
        }
    }

    fn layout(&self) -> Option<ConfigError> {
        let (_, slot) = self.rows().find(|(key, _)| key.path() == mig_layout::KEY)?;
        let Slot::Whole(Json::Array(entries), place) = slot else { return None };
        let entries: Vec<String> = entries.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect();
        mig_layout::contradiction(&entries, place)
    }

    fn redirects_that_meet(&self) -> Option<ConfigError> {
        let whole = |path: &str| match self.rows().find(|(key, _)| key.path() == path)? {
            (_, Slot::Whole(value, place)) => Some((value, place)),
            _ => None,
        };
        let (rules, place) = whole(REDIRECTS)?;
        let rules: Vec<Redirect> = rules.as_array()?.iter().filter_map(|rule| rule.as_str()?.parse().ok()).collect();
        let ingress = whole(INGRESS).is_some_and(|(value, _)| *value == Json::Bool(true));
        let message = redirect::contradiction(&redirect::all(&rules, ingress))?;
        let beside = if ingress { " (with redirects.ingress = true)" } else { "" };
        Some(ConfigError::new(place, format!("{message}{beside}")).about(REDIRECTS).hint("keep one of them"))
    }

    fn token_sources(&self) -> Vec<ConfigError> {
        let command = self.rows().find(|(key, _)| key.path() == TOKEN_COMMAND).and_then(|(_, slot)| match slot {
            Slot::Whole(Json::Array(words), place) => {
                token_sources::relative_program(&words.iter().filter_map(Json::as_str).collect::<Vec<_>>(), place)
            }
            _ => None,
        });
        token_sources::contradictions(&|path| self.said(path)).into_iter().chain(command).collect()
    }

    /// A token that the kind of cluster does not take.
    fn wrong_token(&self) -> Option<ConfigError> {
        let (token, place) = self.said(TOKEN)?;
        let (row, is_k3s) = (KEYS.iter().find(|key| key.path() == TOKEN)?, self.said(KIND)?.0 == "k3s");
        let (wrong, hint) = if is_k3s {
            (
                K3sToken::parse(token).err()?,
                "right would be what /var/lib/rancher/k3s/server/node-token on a server says".to_owned(),
            )
        } else {
            let of_k3s = if contains_long_token(token) { "; for k3s's token: cluster.kind = \"k3s\"" } else { "" };
            (join_credential(token).err()?, format!("{}{of_k3s}", row.right()))
        };
        let message = format!("the text of {} characters here {wrong}", token.chars().count());
        Some(ConfigError::new(place, message).about(TOKEN).hint(hint))
    }

    fn given_twice(&self, secret: &str, file: &'static str) -> Option<ConfigError> {
        let place_of = |path: &str| {
            let named = self.rows().find(|(key, _)| key.path() == path);
            named.and_then(|(_, slot)| match slot {
                Slot::Whole(value, place) if !value.is_null() => Some(place),
                _ => None,
            })
        };
        let (place, other) = (place_of(file)?, place_of(secret)?);
        let message = format!("this is given at {place}, and {secret} at {other}");
        Some(ConfigError::new(place, message).about(file).hint("keep one of them"))
    }

    /// The typed values.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        let mut sections: BTreeMap<&str, Map<String, Json>> = SECTIONS.iter().map(|section| (section.name, Map::new())).collect();
        for (key, slot) in self.rows() {
            let value = match slot {
                Slot::Whole(value, _) => value.clone(),
                Slot::Entries(entries) => {
                    entries.iter().map(|(name, (value, _))| (name.clone(), Json::String(value.clone()))).collect()
                }
            };
            sections.entry(key.section).or_default().insert(key.name.to_owned(), value);
        }
        let mut tree = Map::new();
        // In the order of their names a section comes before those inside of it.
        for (name, keys) in sections {
            match name.split_once('.').and_then(|(outer, inner)| Some((tree.get_mut(outer)?.as_object_mut()?, inner))) {
                Some((outer, inner)) => outer.insert(inner.to_owned(), Json::Object(keys)),
                None => tree.insert(name.to_owned(), Json::Object(keys)),
            };
        }
        // Every value was checked, so this says that a row of the schema and its field do not agree.
        serde_json::from_value(Json::Object(tree)).map_err(|error| {
            let message = format!("the schema of this agent is wrong: {error}");
            ConfigErrors(vec![ConfigError::new(&Place::of(Origin::Default), message)])
        })
    }

    /// The values as they are shown.
    pub fn settings(&self) -> Vec<Setting> {
        let mut shown = Vec::new();
        for (key, slot) in self.rows() {
            match slot {
                Slot::Whole(value, place) => {
                    let value = match value {
                        Json::Null => None,
                        _ if key.secret => Some(REDACTED.to_owned()),
                        value => Some(value.to_string()),
                    };
                    shown.push(Setting { key: key.path(), value, origin: place.clone() });
                }
                Slot::Entries(entries) => shown.extend(entries.iter().map(|(name, (value, place))| Setting {
                    key: format!("{}.{name}", key.path()),
                    value: Some(Json::String(value.clone()).to_string()),
                    origin: place.clone(),
                })),
            }
        }
        shown
    }

    fn rows(&self) -> impl Iterator<Item = (&'static Key, &Slot)> {
        KEYS.iter().zip(&self.0)
    }
}

/// The first two taints of a list that a node cannot have both.
fn twice_in_one_place(key: &Key, slot: &Slot) -> Option<ConfigError> {
    let Slot::Whole(Json::Array(texts), place) = slot else { return None };
    let read = |text: &Json| text.as_str().and_then(|text| text.parse::<Taint>().ok());
    let taints: Vec<Taint> = texts.iter().filter_map(read).collect();
    let mut pairs = taints.iter().enumerate().flat_map(|(index, one)| taints[index + 1..].iter().map(move |other| (one, other)));
    let (one, other) = pairs.find(|(one, other)| one.is_same_place(other))?;
    let (one, other) = (quoted(&one.to_string()), quoted(&other.to_string()));
    let message = format!("{one} and {other} have the same key and effect, and a node takes one taint of them");
    Some(ConfigError::new(place, message).about(key.path()).hint("keep one of them"))
}

impl Slot {
    fn covered_by(self, said: Said) -> Self {
        match (self, said) {
            (Slot::Entries(mut before), Said::Entries(entries)) => {
                before.extend(entries.into_iter().map(|(name, value, place)| (name, (value, place))));
                Slot::Entries(before)
            }
            (_, Said::Whole(value, place)) => Slot::Whole(value, place),
            (whole @ Slot::Whole(..), Said::Entries(_)) => whole,
        }
    }
}
