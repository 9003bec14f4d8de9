//! What a person reads when a configuration is wrong, and what holds when it is right.

use super::*;

fn toml(text: &str) -> Source {
    Source::file("/etc/gpuk/agent.toml", text)
}

fn cloud_config(text: &str) -> Source {
    Source { origin: Origin::UserData, format: Format::CloudConfig(text.to_owned()) }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The whole message of sources that are wrong.
fn message(sources: Vec<Source>) -> String {
    match load(sources) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[track_caller]
fn right(sources: Vec<Source>) -> Loaded {
    match load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => unreachable!("{errors}"),
    }
}

#[track_caller]
fn origin(loaded: &Loaded, key: &str) -> String {
    let setting = loaded.settings.iter().find(|setting| setting.key == key);
    setting.map_or_else(String::new, |setting| setting.origin.to_string())
}

mod layers;
mod messages;
mod mig_layouts;
mod periods;
