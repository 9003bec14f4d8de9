//! containerd reads its main file, then the files that it imports, breadth first, each at most once.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use toml::{Table, Value};

use super::generation::Generation;
use crate::look::Look;
use crate::step::Finding;

/// One file that containerd reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text; empty when it is absent.
    pub text: String,
    /// The same, parsed.
    pub table: Table,
    /// Its permission bits.
    pub mode: u32,
    /// It is not there yet (only the main file may be).
    pub absent: bool,
}

impl ConfigFile {
    /// A file with this text, or what is wrong with the text.
    pub fn parse(path: PathBuf, text: String, mode: u32, absent: bool) -> Result<Self, Finding> {
        match text.parse::<Table>() {
            Ok(table) => Ok(Self { path, text, table, mode, absent }),
            Err(error) => {
                let (line, column) = error.span().map_or((1, 1), |span| position(&text, span.start));
                Err(unreadable(&path, line, column, error.message()))
            }
        }
    }

    /// The `version` it says; 0 when it says none.
    pub fn version(&self) -> i64 {
        self.table.get("version").and_then(Value::as_integer).unwrap_or(0)
    }

    /// The `plugins` table.
    pub fn plugin(&self, id: &str) -> Option<&Table> {
        self.table.get("plugins")?.as_table()?.get(id)?.as_table()
    }

    /// The strings of a list at the top level.
    pub fn list(&self, key: &str) -> Vec<String> {
        let list = self.table.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// It holds credentials, so its text must not be shown or kept elsewhere.
    pub fn is_secret(&self) -> bool {
        self.mode & 0o077 == 0 || holds_credential(&self.table)
    }
}

fn holds_credential(table: &Table) -> bool {
    table.iter().any(|(key, value)| {
        let named = ["auth", "password", "identitytoken"].contains(&key.as_str());
        let filled = value.as_str().is_some_and(|text| !text.is_empty());
        (named && filled) || value.as_table().is_some_and(holds_credential)
    })
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, before.chars().rev().take_while(|character| *character != '\n').count() + 1)
}

fn unreadable(path: &Path, line: usize, column: usize, message: &str) -> Finding {
    let (file, message) = (path.display(), message.trim().replace('\n', ", "));
    Finding::new(
        "containerd-config-unreadable",
        format!("containerd's configuration {file} is not valid TOML"),
        format!("{file}, line {line}, column {column}: {message}; nothing was changed"),
        format!("sensible-editor +{line} {file} && containerd --config {file} config dump >/dev/null"),
    )
}

/// A file's text and permission bits, or `None` when it is absent.
fn fetch(look: Look<'_>, path: &Path) -> Result<Option<(String, u32)>> {
    let Some(text) = look.text(path)? else { return Ok(None) };
    let mode = match look.open(path)? {
        Some(file) => file.metadata()?.permissions().mode() & 0o7777,
        None => 0o644,
    };
    Ok(Some((text, mode)))
}

/// All files that containerd reads, in the order in which it merges them; the main file comes first and may be absent.
pub fn load(look: Look<'_>, main: &Path, generation: &Generation) -> Result<Result<Vec<ConfigFile>, Finding>> {
    let mut files: Vec<ConfigFile> = Vec::new();
    let mut pending = VecDeque::from([(main.to_owned(), main.to_owned())]);
    while let Some((path, importer)) = pending.pop_front() {
        if files.iter().any(|file| file.path == path) {
            continue;
        }
        let parsed = match fetch(look, &path)? {
            Some((text, mode)) => ConfigFile::parse(path, text, mode, false),
            None if files.is_empty() => ConfigFile::parse(path, String::new(), 0o644, true),
            None => return Ok(Err(import_absent(&path, &importer))),
        };
        let file = match parsed {
            Ok(file) => file,
            Err(finding) => return Ok(Err(finding)),
        };
        for import in file.list("imports") {
            pending.extend(resolve(look, &file.path, &import, generation)?.into_iter().map(|path| (path, file.path.clone())));
        }
        files.push(file);
    }
    Ok(Ok(files))
}

fn import_absent(path: &Path, importer: &Path) -> Finding {
    Finding::new(
        "containerd-import-absent",
        format!("{} imports {}, which does not exist", importer.display(), path.display()),
        "containerd does not start when a file that is imported by name is absent",
        format!("sensible-editor {}   # take {} out of imports, or put the file there", importer.display(), path.display()),
    )
}

/// The files that one entry of `imports` stands for.
fn resolve(look: Look<'_>, importer: &Path, import: &str, generation: &Generation) -> Result<Vec<PathBuf>> {
    let is_pattern = import.contains('*');
    let base = match importer.parent() {
        Some(parent) if !is_pattern || generation.resolves_relative_patterns() => parent,
        // The working directory of containerd.service.
        _ => Path::new("/"),
    };
    let path = clean(&base.join(import));
    if is_pattern { glob(look, &path) } else { Ok(vec![path]) }
}

/// Takes `.` and `..` out of an absolute path without looking at it.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => cleaned.push(part),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

/// The existing files that match, folder by folder in the order of their names.
fn glob(look: Look<'_>, pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let Component::Normal(part) = component else { continue };
        let part = part.to_string_lossy();
        let mut next = Vec::new();
        for directory in found {
            if part.contains(['*', '?', '[', '\\']) {
                // A plain file in the place of a folder has nothing in it.
                let names = look.list(&directory).unwrap_or_default();
                next.extend(names.iter().filter(|name| matches(&part, name)).map(|name| directory.join(name)));
            } else if look.exists(directory.join(&*part))? {
                next.push(directory.join(&*part));
            }
        }
        found = next;
    }
    Ok(found)
}

/// Go's filepath.Match for one part of a path: `*`, `?`, `[a-z]`, `[^a]` and a backslash before a plain character.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else { return name.is_empty() };
    let mut characters = name.chars();
    let after = rest.as_str();
    match first {
        '*' => (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(after, &name[at..])),
        '?' => characters.next().is_some() && matches(after, characters.as_str()),
        '[' => {
            let (Some((set, after)), Some(character)) = (after.split_once(']'), characters.next()) else { return false };
            let (set, wanted) = set.strip_prefix('^').map_or((set, true), |set| (set, false));
            within(set, character) == wanted && matches(after, characters.as_str())
        }
        '\\' => rest.next().is_some_and(|plain| characters.next() == Some(plain)) && matches(rest.as_str(), characters.as_str()),
        plain => characters.next() == Some(plain) && matches(after, characters.as_str()),
    }
}

fn within(set: &str, character: char) -> bool {
    let set: Vec<char> = set.chars().collect();
    let mut index = 0;
    while let Some(low) = set.get(index) {
        let high = if set.get(index + 1) == Some(&'-') { set.get(index + 2) } else { None };
        if (*low..=*high.unwrap_or(low)).contains(&character) {
            return true;
        }
        index += if high.is_some() { 3 } else { 1 };
    }
    false
}
