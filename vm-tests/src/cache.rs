//! What takes minutes to make is made once: an entry is named after a digest of
//! everything it is made from, so a changed recipe makes a new entry and an old
//! one is never wrong.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::progress::say;

/// A digest of everything that goes into a cache entry.
pub struct Recipe(ring::digest::Context);

impl Recipe {
    /// An empty recipe.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds one ingredient. Its length is part of the digest, so that two
    /// ingredients never read like one.
    pub fn with(mut self, ingredient: impl AsRef<[u8]>) -> Self {
        let bytes = ingredient.as_ref();
        self.0.update(&bytes.len().to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the content of a file.
    pub fn with_file(self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(self.with(bytes))
    }

    fn name(self) -> String {
        hex(&self.0.finish().as_ref()[..8])
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of cached parts.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// `$GPUK_CACHE`, else `gpuk-agent` in the user's cache folder.
    pub fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = variable("GPUK_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|base| base.join("gpuk-agent")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/gpuk-agent")))
            .context("no place for the cache: set GPUK_CACHE or HOME")?;
        Self::at(&directory)
    }

    /// A cache in a folder of the caller's choice.
    pub fn at(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        Ok(Self { directory })
    }

    /// The cache's own folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A folder that is not keyed by content, for instance for downloads that
    /// carry their own checksums.
    pub fn shelf(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// The folder made from `recipe`; `make` fills an empty one the first time.
    ///
    /// Two processes never make the same entry twice, and an entry that could
    /// not be finished is never seen.
    pub fn entry(&self, name: &str, recipe: Recipe, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = format!("{name}-{}", recipe.name());
        let path = self.directory.join(&name);
        let _lock = self.lock(&name)?;
        if !path.exists() {
            let partial = self.directory.join(format!("{name}.partial"));
            if partial.exists() {
                fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
            }
            fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
            make(&partial)?;
            fs::rename(&partial, &path).with_context(|| format!("renaming to {}", path.display()))?;
        }
        File::open(&path)?.set_modified(SystemTime::now()).context("marking a cache entry as used")?;
        Ok(path)
    }

    /// Removes all but the `keep` last used entries whose name begins with `name`.
    pub fn prune(&self, name: &str, keep: usize) -> Result<()> {
        let prefix = format!("{name}-");
        let mut entries: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.directory)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().strip_prefix(&prefix).is_some_and(is_digest))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        entries.sort();
        for (_, path) in entries.iter().rev().skip(keep) {
            fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> Result<File> {
        let path = self.shelf("locks")?.join(name);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        if file.try_lock().is_err() {
            say(format_args!("waiting for another process that makes {name}"));
            file.lock().with_context(|| format!("locking {}", path.display()))?;
        }
        Ok(file)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once_for_each_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let make = |path: &Path| Ok(fs::write(path.join("content"), "made")?);
        let first = cache.entry("thing", Recipe::new().with("a"), make).unwrap();
        let again = cache.entry("thing", Recipe::new().with("a"), |_| panic!("made twice")).unwrap();
        let other = cache.entry("thing", Recipe::new().with("b"), make).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }

    #[test]
    fn an_unfinished_entry_is_never_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        cache.entry("thing", Recipe::new(), |_| anyhow::bail!("cut off")).unwrap_err();
        let path = cache.entry("thing", Recipe::new(), |path| Ok(fs::write(path.join("content"), "")?)).unwrap();
        assert!(path.join("content").exists());
    }

    #[test]
    fn pruning_keeps_the_last_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let make = |text: &str| cache.entry("thing", Recipe::new().with(text), |_| Ok(())).unwrap();
        let (old, new) = (make("old"), make("new"));
        let other = cache.entry("thing-else", Recipe::new(), |_| Ok(())).unwrap();
        let before = SystemTime::now() - std::time::Duration::from_secs(60);
        File::open(&old).unwrap().set_modified(before).unwrap();
        cache.prune("thing", 1).unwrap();
        assert!(!old.exists() && new.exists() && other.exists());
    }

    #[test]
    fn two_ingredients_do_not_read_like_one() {
        assert_ne!(Recipe::new().with("ab").with("c").name(), Recipe::new().with("a").with("bc").name());
    }
}
