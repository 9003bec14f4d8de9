//! An operator's file is edited as its author would: the value that counts is changed where it stands, and nothing else moves.

use std::path::Path;

use toml::Value;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike};

use super::effective::{Effective, Layout, effective, find};
use super::files::ConfigFile;
use super::generation::Generation;
use super::view::{Setting, View};
use super::wanted::{CniFolders, Wanted, differences};
use crate::step::Finding;

/// The files as they must be, and what that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// All files that containerd reads, in its order, with their new texts.
    pub files: Vec<ConfigFile>,
    /// What is not as it must be, one phrase each.
    pub reasons: Vec<String>,
    /// The settings once the files are in place.
    pub view: View,
    /// What has no effect, and why.
    pub masked: Vec<String>,
}

/// Rounds of editing and reading again: version, lists, settings, and one to see that it holds.
const ROUNDS: usize = 5;

/// Edits the files, in memory, until their effect is what is wanted.
pub fn plan(files: &[ConfigFile], generation: &Generation, wanted: &Wanted, cni: CniFolders) -> Result<Plan, Finding> {
    let mut files = files.to_vec();
    let mut reasons = Vec::new();
    for _ in 0..ROUNDS {
        let state = effective(&files, generation);
        let view = View::of(&state, generation);
        let mut edits = structural_edits(&files, &state, generation, &mut reasons);
        if edits.is_empty() {
            let different = differences(&view, wanted, cni, generation);
            if different.is_empty() {
                return Ok(Plan { files, reasons, view, masked: state.masked });
            }
            explain(&view, &different, &mut reasons);
            edits = different
                .into_iter()
                .map(|(setting, value)| setting_edit(&files, &state, &view, generation, &setting, value))
                .collect();
        }
        for (number, edit) in edits {
            let file = &files[number];
            let text = edited(&file.text, &edit).map_err(|why| cannot_edit(&file.path, &why))?;
            files[number] = ConfigFile::parse(file.path.clone(), text, file.mode, file.absent)?;
        }
    }
    let state = effective(&files, generation);
    let left = differences(&View::of(&state, generation), wanted, cni, generation);
    let settings: Vec<String> = left.iter().map(|(setting, _)| setting.to_string()).collect();
    let names: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    let why = format!("no edit gives effect to {}; {}", settings.join(", "), state.masked.join("; "));
    Err(Finding::new(
        "containerd-config-masked",
        format!("containerd's files contradict each other: {}", names.join(", ")),
        why.trim_end_matches("; "),
        format!("containerd --config {} config dump   # then give all files the same version", wanted.config_file.display()),
    ))
}

/// Versions that lose settings, and disabled plugins: they come before any setting.
fn structural_edits(
    files: &[ConfigFile],
    state: &Effective,
    generation: &Generation,
    reasons: &mut Vec<String>,
) -> Vec<(usize, Edit)> {
    let mut edits = Vec::new();
    for &number in &state.outdated {
        if !files[number].absent {
            reasons.push(format!("{} is a version 1 file", files[number].path.display()));
        }
        // In 1.x the main file's version holds for all; from 2.0 on each file has its own.
        let state_version = number == 0 || files[number].version() == 1 || generation.merges_sections();
        edits.push((number, Edit::Modernize { state_version }));
    }
    if edits.is_empty() {
        for (number, name) in &state.disabled {
            reasons.push(format!("{} disables the plugin {name}", files[*number].path.display()));
            edits.push((*number, Edit::Allow(name.clone())));
        }
    }
    edits
}

fn explain(view: &View, different: &[(Setting, Value)], reasons: &mut Vec<String>) {
    for (setting, value) in different {
        let reason = match setting {
            Setting::Runtime(name, _) if !view.runtimes.contains_key(name) => format!("there is no runtime {name}"),
            setting => format!("{setting} is not {value}"),
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
}

/// The file in which a setting is written so that it counts.
fn setting_edit(
    files: &[ConfigFile],
    state: &Effective,
    view: &View,
    generation: &Generation,
    setting: &Setting,
    value: Value,
) -> (usize, Edit) {
    let place = |number: usize| setting.place(state.layouts[number], view.bin_dirs);
    let number = if generation.merges_sections() {
        let says = |number: &usize| {
            let (plugin, keys) = place(*number);
            files[*number].plugin(plugin).is_some_and(|section| find(section, &keys).is_some())
        };
        let fits = |number: &usize| match (files[*number].version(), state.layouts[*number]) {
            (0 | 1, _) => true,
            (2, layout) => layout == Layout::Version2,
            (_, layout) => layout == Layout::Version3,
        };
        let all = 0..files.len();
        all.clone()
            .rfind(says)
            .or_else(|| all.clone().find(|number| *number == 0 && fits(number)))
            .or_else(|| all.clone().rfind(fits))
    } else {
        state.winner
    };
    let number = number.unwrap_or(0);
    let (plugin, keys) = place(number);
    // A list where the layout wants a list, a string where it wants a string.
    let value = match (keys.last().map(String::as_str), value) {
        (Some("bin_dir"), Value::Array(list)) => list.into_iter().next().unwrap_or_else(|| Value::String(String::new())),
        (_, value) => value,
    };
    let version = match state.layouts[number] {
        Layout::Version1 => None,
        Layout::Version2 => Some(2),
        Layout::Version3 => Some(generation.file_version()),
    };
    let keys = ["plugins".to_owned(), plugin.to_owned()].into_iter().chain(keys).collect();
    (number, Edit::Set { keys, value, version })
}

/// One edit of one file.
#[derive(Clone, Debug, PartialEq)]
enum Edit {
    /// Sets a value; states `version` when the file states none.
    Set { keys: Vec<String>, value: Value, version: Option<i64> },
    /// Takes a name out of `disabled_plugins`.
    Allow(String),
    /// Gives the plugins their names of version 2.
    Modernize { state_version: bool },
}

const NEW_FILE: &str = "# containerd had no configuration here. gpuk-agent wrote what a node needs; the rest is yours.\n";

fn edited(text: &str, edit: &Edit) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let is_new = text.is_empty();
    match edit {
        Edit::Set { keys, value, version } => {
            if let (Some(version), false) = (version, document.contains_key("version")) {
                document.insert("version", toml_edit::value(*version));
            }
            let value = edit_value(value).ok_or("a table cannot be set as a value")?;
            set(document.as_table_mut(), keys, value)?;
        }
        Edit::Allow(name) => {
            if let Some(list) = document.get_mut("disabled_plugins").and_then(Item::as_array_mut) {
                list.retain(|value| value.as_str() != Some(name));
            }
        }
        Edit::Modernize { state_version } => {
            if let Some(plugins) = document.get_mut("plugins").and_then(Item::as_table_like_mut) {
                rename_plugins(plugins);
            }
            for list in ["disabled_plugins", "required_plugins"] {
                for value in document.get_mut(list).and_then(Item::as_array_mut).into_iter().flat_map(|list| list.iter_mut()) {
                    if let Some(new) = value.as_str().and_then(modern_name) {
                        replace(value, new.into());
                    }
                }
            }
            if *state_version {
                set(document.as_table_mut(), &["version".to_owned()], 2.into())?;
            }
        }
    }
    let new = document.to_string();
    Ok(if is_new { format!("{NEW_FILE}{new}") } else { new })
}

fn set(mut table: &mut dyn TableLike, keys: &[String], value: toml_edit::Value) -> Result<(), String> {
    let Some((last, parents)) = keys.split_last() else { return Err("no key was given".to_owned()) };
    let mut inline = false;
    for key in parents {
        let item = table.entry(key).or_insert_with(|| {
            if inline {
                return Item::Value(InlineTable::new().into());
            }
            let mut new = Table::new();
            new.set_implicit(true);
            Item::Table(new)
        });
        inline = item.is_inline_table();
        table = item.as_table_like_mut().ok_or_else(|| format!("{key} is not a table"))?;
    }
    match table.get_mut(last) {
        Some(Item::Value(old)) => replace(old, value),
        Some(item) if !item.is_none() => return Err(format!("{last} is a table")),
        _ => {
            table.insert(last, Item::Value(value));
        }
    }
    Ok(())
}

/// Puts a value in another's place and keeps the white space and comments around it.
fn replace(old: &mut toml_edit::Value, mut new: toml_edit::Value) {
    *new.decor_mut() = old.decor().clone();
    *old = new;
}

fn edit_value(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Array(list) => toml_edit::Value::Array(list.iter().filter_map(edit_value).collect()),
        Value::Datetime(_) => return None,
        Value::Table(table) => {
            let pairs = table.iter().filter_map(|(key, value)| Some((key.as_str(), edit_value(value)?)));
            toml_edit::Value::InlineTable(pairs.collect())
        }
    })
}

fn rename_plugins(plugins: &mut dyn TableLike) {
    let names: Vec<String> = plugins.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        if let Some(new) = modern_name(&name)
            && let Some(section) = plugins.remove(&name)
        {
            plugins.insert(&new, section);
        }
    }
}

/// The name in version 2 of a plugin of version 1; `None` when it has one already (containerd's `v1MigratePluginName`).
fn modern_name(name: &str) -> Option<String> {
    if name.contains('.') {
        return None;
    }
    let kind = match name {
        "cgroups" => "monitor",
        "linux" => "runtime",
        "scheduler" => "gc",
        "bolt" => "metadata",
        "task" => return Some("io.containerd.runtime.v2.task".to_owned()),
        "opt" | "restart" | "tracing" => "internal",
        "otlp" => "tracing.processor",
        "aufs" | "btrfs" | "devmapper" | "native" | "overlayfs" | "zfs" => "snapshotter",
        service if service.ends_with("-service") => "service",
        _ => "grpc",
    };
    Some(format!("io.containerd.{kind}.v1.{name}"))
}

fn cannot_edit(path: &Path, why: &str) -> Finding {
    let file = path.display();
    Finding::new(
        "containerd-config-shape",
        format!("{file} has a value where containerd expects a table, or the reverse"),
        format!("{file}: {why}; nothing was changed"),
        format!("containerd --config {file} config dump"),
    )
}
