//! containerd that refuses its configuration takes every pod with it, so it reads a copy first and the real files are written last.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use toml_edit::{DocumentMut, Item};

use super::files::ConfigFile;
use crate::look::Look;
use crate::step::{Change, Command, Contents, Finding, Status, UnitVerb};

/// Where copies are tried, by their real paths. It is gone after a boot, as is every running containerd.
pub const STAGE: &str = "/run/gpuk-agent/containerd";
/// Present from just before the first real write until containerd was restarted: a round that was cut off is seen by it.
pub const RESTART_DUE: &str = "/run/gpuk-agent/containerd/restart-due";
/// The unit.
pub const UNIT: &str = "containerd.service";

/// Reading a configuration takes a tenth of a second; a cold disk may need many.
const DUMP_LIMIT: Duration = Duration::from_secs(60);

/// What has to be done to put `new` in the place of `old`: try copies, write, restart, clean up.
pub fn replace(binary: &Path, old: &[ConfigFile], new: &[ConfigFile], running: bool) -> Vec<Change> {
    let paths: Vec<PathBuf> = new.iter().map(|file| staged(&file.path)).collect();
    let Some(main) = paths.first() else { return Vec::new() };
    let secret = new.iter().any(ConfigFile::is_secret);
    let mut changes = Vec::new();
    for (number, (file, path)) in new.iter().zip(&paths).enumerate() {
        // All files are imported by the copy of the main file, in their order: that is how containerd goes through them too.
        let imports = if number == 0 { &paths[1..] } else { &[] };
        let text = with_imports(&file.text, imports);
        changes.push(Change::Write { path: path.clone(), contents: contents(text, secret), mode: 0o600 });
    }
    let (binary, main) = (binary.display().to_string(), main.display().to_string());
    changes.push(Change::Run(Command::new([&binary, "--config", &main, "config", "dump"], DUMP_LIMIT)));
    if running {
        changes.push(Change::write(RESTART_DUE, ""));
    }
    for (file, _) in new.iter().zip(old).filter(|(new, old)| new.text != old.text) {
        let contents = contents(file.text.clone(), file.is_secret());
        changes.push(Change::Write { path: file.path.clone(), contents, mode: file.mode });
    }
    if running {
        changes.extend(restart());
    }
    // Copies need not be kept anywhere.
    changes.extend(paths.into_iter().map(|path| Change::Remove { path, secret: true }));
    changes
}

/// Restarts containerd and forgets that it was due.
pub fn restart() -> [Change; 2] {
    [Change::Unit(UnitVerb::Restart, UNIT.to_owned()), Change::Remove { path: RESTART_DUE.into(), secret: true }]
}

/// What takes away the copies that a round left which was cut off, or in which containerd refused them.
pub fn clean_up(look: Look<'_>, files: &[ConfigFile]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for path in files.iter().map(|file| staged(&file.path)) {
        if look.exists(&path)? {
            changes.push(Change::Remove { path, secret: true });
        }
    }
    Ok(changes)
}

fn staged(path: &Path) -> PathBuf {
    Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path))
}

fn contents(text: String, secret: bool) -> Contents {
    if secret { Contents::secret(text) } else { Contents::plain(text) }
}

/// The text with these imports and no others.
fn with_imports(text: &str, imports: &[PathBuf]) -> String {
    // It was parsed before; if it could not be, containerd says so when it reads the copy.
    let Ok(mut document) = text.parse::<DocumentMut>() else { return text.to_owned() };
    if imports.is_empty() {
        document.remove("imports");
    } else {
        let list: toml_edit::Array = imports.iter().map(|path| path.display().to_string()).collect();
        document.insert("imports", Item::Value(list.into()));
    }
    document.to_string()
}

/// What it means that containerd refused the copies.
pub fn refused(command: &str, said: &str) -> Option<Status> {
    if !command.ends_with(" config dump") {
        return None;
    }
    // The copies lie at their real paths below the stage.
    let said = said.replace(STAGE, "");
    let main = command.split_whitespace().nth(2).unwrap_or_default().replace(STAGE, "");
    Some(Status::Broken(Finding::new(
        "containerd-config-refused",
        format!("containerd refuses the configuration that {main} would become; nothing was replaced"),
        said,
        format!("{command} >/dev/null   # then correct {main}"),
    )))
}
