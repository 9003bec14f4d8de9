//! A value is only understood when it says where it came from.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use crate::cli::Exit;
use crate::config::{self, ConfigErrors, Source, user_data};
use crate::host::files::Files;
use crate::session::{Session, Trouble};
use crate::show::{complain, print, print_json};

/// Prints every effective value, secrets redacted. While it is unknown what the node is to be, there may be other ones, and it ends as
/// every other verb does.
pub fn show(session: &Session, origin: bool, json: bool) -> Exit {
    if json {
        print_json(&json!({ "settings": session.settings }));
    } else {
        print_settings(session, origin);
    }
    session.unknown.as_ref().map_or(Exit::Fine, |unknown| {
        let finding = unknown.finding();
        complain(&format!("{finding}. Without that these values are not all. Remedy: {}", finding.remedy));
        unknown.exit()
    })
}

fn print_settings(session: &Session, origin: bool) {
    let width = session
        .settings
        .iter()
        .map(|setting| setting.key.len() + setting.value.as_deref().map_or(1, str::len) + 3)
        .max()
        .unwrap_or(0)
        .min(70);
    for setting in &session.settings {
        let value = format!("{} = {}", setting.key, setting.value.as_deref().unwrap_or("-"));
        if origin {
            print(&format!("{value:<width$}  # {}\n", setting.origin));
        } else {
            print(&format!("{value}\n"));
        }
    }
}

/// Checks one file by itself.
pub fn check(file: &Path, json: bool) -> Exit {
    let checked = match read(file) {
        Ok(sources) => sources.and_then(config::load),
        Err(error) => {
            super::say(&Trouble::Other(error), json);
            return Exit::Configuration;
        }
    };
    match checked {
        Ok(_) if json => print_json(&json!({ "errors": [] })),
        Ok(_) => print(&format!("{}: fine\n", file.display())),
        Err(errors) => return super::say(&Trouble::Configuration(errors), json),
    }
    Exit::Fine
}

/// A file of user-data is checked as that; any other is TOML.
fn read(file: &Path) -> anyhow::Result<Result<Vec<Source>, ConfigErrors>> {
    let file = std::path::absolute(file)?;
    let path = file.display().to_string();
    let bytes = Files::below(Path::new("/"))?.read(&file)?;
    let bytes = bytes.ok_or_else(|| anyhow::anyhow!("{path}: there is no such file"))?;
    let layers = user_data::unpack(&bytes).and_then(|user_data| user_data.layers(None));
    if layers.as_ref().is_ok_and(Vec::is_empty) {
        let text = String::from_utf8(bytes).with_context(|| format!("{path}: this is not UTF-8 text"))?;
        return Ok(Ok(vec![Source::file(path, text)]));
    }
    Ok(layers)
}
