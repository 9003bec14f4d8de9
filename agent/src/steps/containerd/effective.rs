//! What containerd does is what its files say together, and releases put files together in three different ways.
//!
//! | release | imported files | versions |
//! |---|---|---|
//! | 1.6, 1.7 | a plugin's section replaces the same section of earlier files whole | one for all files, the last one given |
//! | 2.0 to 2.2 | sections are merged, key by key; lists are replaced | likewise, but a file without version counts as the newest |
//! | 2.3 and later | likewise | each file is brought to the newest version first |
//!
//! Read from containerd's `LoadConfig`, and compared with `containerd config dump` in the tests.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::files::ConfigFile;
use super::generation::Generation;

/// The CRI plugin of version 2 files, and its gRPC service in later ones.
pub const CRI: &str = "io.containerd.grpc.v1.cri";
/// The CRI plugin's runtime half in version 3 files.
pub const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
/// The CRI plugin's image half in version 3 files.
pub const CRI_IMAGES: &str = "io.containerd.cri.v1.images";

/// How the settings of the CRI plugin are laid out in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[plugins.cri]`.
    Version1,
    /// `[plugins."io.containerd.grpc.v1.cri"]`.
    Version2,
    /// `[plugins."io.containerd.cri.v1.runtime"]` and `.images`.
    Version3,
}

/// What all files say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The layout of each file.
    pub layouts: Vec<Layout>,
    /// The CRI plugin's sections as containerd uses them, by plugin, without containerd's defaults.
    pub sections: BTreeMap<&'static str, Table>,
    /// The disabled plugins that are parts of CRI: number of the file, and the name as it is written there.
    pub disabled: Vec<(usize, String)>,
    /// With whole sections: the number of the file whose section counts.
    pub winner: Option<usize>,
    /// Settings in files that have no effect, as sentences.
    pub masked: Vec<String>,
    /// Files that are read as version 1 although their CRI section needs more.
    pub outdated: Vec<usize>,
}

/// Puts the files together as this generation does.
pub fn effective(files: &[ConfigFile], generation: &Generation) -> Effective {
    if generation.merges_sections() { merged(files, generation) } else { replaced(files) }
}

/// containerd 1.x.
fn replaced(files: &[ConfigFile]) -> Effective {
    let version = files.iter().map(ConfigFile::version).rfind(|version| *version != 0).unwrap_or(1);
    let (id, layout) = if version <= 1 { ("cri", Layout::Version1) } else { (CRI, Layout::Version2) };
    let winner = files.iter().rposition(|file| file.plugin(id).is_some());
    let section = winner.and_then(|winner| files[winner].plugin(id)).cloned().unwrap_or_default();
    let mut masked = Vec::new();
    for file in winner.into_iter().flat_map(|winner| &files[..winner]) {
        let hidden: Vec<String> = leaves(file.plugin(id).unwrap_or(&Table::new()))
            .into_iter()
            .filter(|(path, value)| find(&section, path) != Some(value))
            .map(|(path, _)| path.join("."))
            .collect();
        if let (false, Some(winner)) = (hidden.is_empty(), winner) {
            let (by, of) = (files[winner].path.display(), file.path.display());
            masked.push(format!("{by} replaces the CRI section of {of}, so {of} has no say in {}", hidden.join(", ")));
        }
    }
    Effective {
        layouts: vec![layout; files.len()],
        sections: BTreeMap::from([(CRI, section)]),
        disabled: disabled(files, &[id]),
        winner,
        masked,
        outdated: if version <= 1 { (0..files.len()).collect() } else { Vec::new() },
    }
}

/// containerd 2.x.
fn merged(files: &[ConfigFile], generation: &Generation) -> Effective {
    let each = generation.migrates_each_file();
    let mut version = 3;
    let mut plugins = Table::new();
    let mut outdated = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let mut own = file.table.get("plugins").and_then(Value::as_table).cloned().unwrap_or_default();
        if file.version() < 2 {
            // Before 2.3 such a file counts as the newest version, and what is written the older way is lost.
            if own.contains_key("cri") || (!each && version == 3 && own.contains_key(CRI)) {
                outdated.push(number);
            }
            if let Some(old) = own.remove("cri") {
                own.insert(CRI.to_owned(), old);
            }
        } else {
            version = file.version();
        }
        if each && file.version() < 4 {
            migrate(&mut own, generation);
        }
        merge(&mut plugins, own);
    }
    if !each && version < 3 {
        migrate(&mut plugins, generation);
    }
    let layouts: Vec<Layout> = files.iter().map(|file| layout(file, if each { file.version() } else { version })).collect();
    let mut masked = Vec::new();
    for (file, _) in files.iter().zip(&layouts).filter(|(file, _)| !each && version >= 3 && file.version() == 2) {
        if file.plugin(CRI).is_some() {
            masked.push(format!(
                "{} says version 2, but another file says version {version}: {CRI} in it has no effect",
                file.path.display()
            ));
        }
    }
    let section = |id| plugins.get(id).and_then(Value::as_table).cloned().unwrap_or_default();
    Effective {
        sections: BTreeMap::from([(CRI_RUNTIME, section(CRI_RUNTIME)), (CRI_IMAGES, section(CRI_IMAGES))]),
        disabled: disabled(files, &["cri", CRI, CRI_RUNTIME, CRI_IMAGES]),
        winner: None,
        masked,
        outdated,
        layouts,
    }
}

fn layout(file: &ConfigFile, version: i64) -> Layout {
    let newer = file.plugin(CRI_RUNTIME).is_some() || file.plugin(CRI_IMAGES).is_some();
    match version {
        2 => Layout::Version2,
        0 | 1 if file.plugin("cri").is_some() => Layout::Version1,
        0 | 1 if file.plugin(CRI).is_some() && !newer => Layout::Version2,
        _ => Layout::Version3,
    }
}

fn disabled(files: &[ConfigFile], names: &[&str]) -> Vec<(usize, String)> {
    let of_file = |(number, file): (usize, &ConfigFile)| {
        let listed: BTreeSet<String> = file.list("disabled_plugins").into_iter().collect();
        listed.into_iter().filter(|name| names.contains(&name.as_str())).map(|name| (number, name)).collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(of_file).collect()
}

/// Tables are merged key by key, anything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Keys of the version 2 section that went to the image half.
const IMAGE_KEYS: [&str; 6] = [
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
];
/// Keys of its table `containerd` that went there.
const SNAPSHOT_KEYS: [&str; 3] = ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];
/// Keys that stay with the gRPC service.
const SERVER_KEYS: [&str; 6] = [
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
];

/// Version 2's CRI section in the places where version 3 has it.
fn migrate(plugins: &mut Table, generation: &Generation) {
    let Some(Value::Table(old)) = plugins.remove(CRI) else { return };
    let mut images = take_table(plugins, CRI_IMAGES);
    let mut runtime = take_table(plugins, CRI_RUNTIME);
    for (key, value) in &old {
        match (key.as_str(), value) {
            ("sandbox_image", value) => {
                let mut pinned = take_table(&mut images, "pinned_images");
                pinned.insert("sandbox".to_owned(), value.clone());
                images.insert("pinned_images".to_owned(), pinned.into());
            }
            (key, value) if IMAGE_KEYS.contains(&key) => {
                images.insert(key.to_owned(), value.clone());
            }
            (key, _) if SERVER_KEYS.contains(&key) => {}
            ("enable_cdi", _) if !generation.has_bin_dir() => {}
            ("cni", Value::Table(cni)) => {
                let mut new = take_table(&mut runtime, "cni");
                for (key, value) in cni {
                    let rename = key == "bin_dir" && generation.has_bin_dirs();
                    let (key, value) =
                        if rename { ("bin_dirs", vec![value.clone()].into()) } else { (key.as_str(), value.clone()) };
                    new.entry(key).or_insert(value);
                }
                runtime.insert("cni".to_owned(), new.into());
            }
            ("containerd", Value::Table(containerd)) => {
                let mut new = take_table(&mut runtime, "containerd");
                for (key, value) in containerd {
                    if SNAPSHOT_KEYS.contains(&key.as_str()) {
                        images.insert(key.clone(), value.clone());
                    } else {
                        new.entry(key).or_insert(value.clone());
                    }
                }
                rename_sandbox_modes(&mut new);
                runtime.insert("containerd".to_owned(), new.into());
            }
            (key, value) => {
                runtime.entry(key).or_insert(value.clone());
            }
        }
    }
    plugins.insert(CRI_IMAGES.to_owned(), images.into());
    plugins.insert(CRI_RUNTIME.to_owned(), runtime.into());
}

fn rename_sandbox_modes(containerd: &mut Table) {
    let runtimes = containerd.get_mut("runtimes").and_then(Value::as_table_mut);
    for runtime in runtimes.into_iter().flat_map(|runtimes| runtimes.iter_mut()).filter_map(|(_, value)| value.as_table_mut()) {
        if !runtime.contains_key("sandboxer")
            && let Some(mode) = runtime.remove("sandbox_mode")
        {
            runtime.insert("sandboxer".to_owned(), mode);
        }
    }
}

fn take_table(from: &mut Table, key: &str) -> Table {
    match from.remove(key) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

/// The value at a path of keys.
pub fn find<'table, Key: AsRef<str>>(table: &'table Table, path: &[Key]) -> Option<&'table Value> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for key in parents {
        table = table.get(key.as_ref())?.as_table()?;
    }
    table.get(last.as_ref())
}

/// Everything in a table that is not a table itself, with its path.
pub fn leaves(table: &Table) -> Vec<(Vec<String>, Value)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                all.extend(leaves(inner).into_iter().map(|(mut path, value)| {
                    path.insert(0, key.clone());
                    (path, value)
                }));
            }
            value => all.push((vec![key.clone()], value.clone())),
        }
    }
    all
}
