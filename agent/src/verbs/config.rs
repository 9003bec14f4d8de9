//! A value is only understood when it says where it came from.

use std::path::Path;

use serde_json::json;

use crate::cli::Exit;
use crate::config::{self, Source};
use crate::host::files::Files;
use crate::session::{Session, Trouble};
use crate::show::{complain, print, print_json};

/// Prints every effective value, secrets redacted.
pub fn show(session: &Session, origin: bool, json: bool) -> Exit {
    if json {
        print_json(&json!({ "settings": session.settings }));
        return Exit::Fine;
    }
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
    Exit::Fine
}

/// Checks one file by itself.
pub fn check(file: &Path, json: bool) -> Exit {
    let source = match read(file) {
        Ok(source) => source,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Exit::Configuration;
        }
    };
    match config::load(vec![source]) {
        Ok(_) if json => print_json(&json!({ "errors": [] })),
        Ok(_) => print(&format!("{}: fine\n", file.display())),
        Err(errors) => return super::say(&Trouble::Configuration(errors), json),
    }
    Exit::Fine
}

fn read(file: &Path) -> anyhow::Result<Source> {
    let file = std::path::absolute(file)?;
    let text = Files::below(Path::new("/"))?.text(&file)?;
    let text = text.ok_or_else(|| anyhow::anyhow!("{}: there is no such file", file.display()))?;
    let path = file.display().to_string();
    // A file of user-data is checked as that.
    Ok(Source::user_data(&text).unwrap_or_else(|| Source::file(path, text)))
}
