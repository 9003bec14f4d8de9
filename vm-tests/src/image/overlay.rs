//! Files can be put into an ext4 file system without mounting it, so a new build of the agent costs a copy of the disk and not a new image.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::administrators_path;
use crate::cache::Recipe;
use crate::command::{finish, run};

/// What a file in an image holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this path.
    Link(String),
}

/// A file to be put into an image; one that is there already is replaced.
#[derive(Clone, Debug)]
pub struct File {
    path: String,
    mode: u32,
    content: Content,
}

impl File {
    /// A program, copied from this machine.
    pub fn program(path: &str, source: &Path) -> Result<Self> {
        let bytes = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
        Ok(Self { path: path.to_owned(), mode: 0o755, content: Content::Bytes(bytes) })
    }

    /// A text that everybody may read.
    pub fn text(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content: Content::Bytes(text.into().into_bytes()) }
    }

    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, content: Content::Link(target.to_owned()) }
    }

    /// The same with other permissions.
    pub fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(super) fn add_to(&self, recipe: Recipe) -> Recipe {
        let recipe = recipe.with(&self.path).with(self.mode.to_le_bytes());
        match &self.content {
            Content::Bytes(bytes) => recipe.with("bytes").with(bytes),
            Content::Link(target) => recipe.with("link").with(target),
        }
    }
}

/// Writes a copy of `disk` with `files` to `copy`.
pub(super) fn write(disk: &Path, files: &[File], copy: &Path) -> Result<()> {
    let limit = Duration::from_secs(120);
    run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(disk).arg(copy), limit)?;
    let sources = tempfile::tempdir().context("making a folder for the files of an image")?;
    let mut folders = BTreeSet::new();
    let mut lines = String::new();
    for (number, file) in files.iter().enumerate() {
        let path = &file.path;
        ensure!(
            path.starts_with('/') && !path.contains([' ', '"', '\n']),
            "{path:?} is no plain absolute path: it cannot be put into an image"
        );
        let above = Path::new(path).ancestors().skip(1).filter(|folder| *folder != Path::new("/"));
        folders.extend(above.map(|folder| folder.display().to_string()));
        lines += &format!("rm {path}\n");
        match &file.content {
            Content::Bytes(bytes) => {
                let source = sources.path().join(number.to_string());
                fs::write(&source, bytes)?;
                lines += &format!("write {} {path}\n", source.display());
                lines += &format!("set_inode_field {path} mode 0{:o}\n", 0o100_000 | file.mode);
                lines += &format!("set_inode_field {path} uid 0\nset_inode_field {path} gid 0\n");
            }
            Content::Link(target) => lines += &format!("symlink {path} {target}\n"),
        }
    }
    // Shorter paths sort first, so each folder comes after the one it lies in.
    let folders: String = folders.iter().map(|folder| format!("mkdir {folder}\n")).collect();
    let commands = sources.path().join("commands");
    fs::write(&commands, folders + &lines)?;
    let debugfs = |arguments: &[&str]| {
        let mut command = Command::new("debugfs");
        command.args(arguments).arg(copy).env("PATH", administrators_path()).env("DEBUGFS_PAGER", "cat");
        finish(&mut command, b"", limit)
    };
    // Making folders that are there and removing files that are not there fails, and may.
    debugfs(&["-w", "-f", &commands.display().to_string()])?;
    for file in files {
        let found = debugfs(&["-R", &format!("stat {}", file.path)])?;
        let (size, kind) = match &file.content {
            Content::Bytes(bytes) => (bytes.len(), "Type: regular"),
            Content::Link(target) => (target.len(), "Type: symlink"),
        };
        let whole = found.stdout.contains(kind) && found.stdout.contains(&format!("Size: {size}\n"));
        ensure!(whole, "{} did not get into the image:\n{}{}", file.path, found.stdout, found.stderr);
    }
    Ok(())
}
