//! A key for signing, made for one test.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::run;

/// The name that the key is known by.
pub const NAME: &str = "archive@example.com";

/// A new key in a folder of its own.
pub struct Keys(tempfile::TempDir);

impl Keys {
    /// A key of this algorithm, as gpg(1) calls it.
    pub fn new(algorithm: &str) -> Result<Self> {
        let keys = Self(tempfile::tempdir()?);
        keys.gpg(&["--quick-generate-key", NAME, algorithm, "sign", "never"])?;
        Ok(keys)
    }

    /// Where gpg keeps it.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Writes the public key.
    pub fn export(&self, file: &Path) -> Result<()> {
        std::fs::create_dir_all(file.parent().context("a key is in a folder")?)?;
        let _ = std::fs::remove_file(file);
        // dnf takes keys as text only (dnf.conf(5), "gpgkey"), apt takes both.
        self.gpg(&["--armor", "--output", &file.display().to_string(), "--export"])
    }

    /// Runs gpg on it.
    pub fn gpg(&self, words: &[&str]) -> Result<()> {
        let quiet = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
        run(Command::new("gpg").arg("--homedir").arg(self.0.path()).args(quiet).args(words)).map(drop)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // gpg left an agent behind that holds the folder of its keys.
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).output();
    }
}
