//! Whoever changes somebody's files keeps a list: what was there before, and how to know that nobody else wrote since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::files::Files;
use crate::digest::sha256;
use crate::step::{Change, Contents};

/// Where the list is kept.
const LEDGER: &str = "/var/lib/gpuk-agent/written.json";

/// Folders whose files are the agent's own, are gone at the next boot, or belong to a join and go with it.
const OWN: [&str; 4] = ["/var/lib/gpuk-agent", "/run", "/etc/kubernetes", "/var/lib/kubelet"];

/// Files that changes replaced, made or took away, by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger(BTreeMap<PathBuf, Entry>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Where the bytes are that somebody else wrote last; `None` where there was no file.
    original: Option<PathBuf>,
    /// Permission bits of that file.
    mode: Option<u32>,
    /// SHA-256 of what the agent left there; `None` where it left no file.
    left: Option<String>,
}

impl Ledger {
    /// The list below the root; absent is an empty one.
    pub fn read(files: &Files) -> Result<Self> {
        let Some(text) = files.text(Path::new(LEDGER))? else { return Ok(Self::default()) };
        serde_json::from_str(&text).with_context(|| format!("reading {LEDGER}"))
    }

    /// Whether a change of this file is listed.
    pub fn lists(path: &Path) -> bool {
        !OWN.iter().any(|own| path.starts_with(own))
    }

    /// Lists a change that is about to be made: `old` is what is there, with its mode and the place where it is kept.
    pub fn note(&mut self, path: &Path, old: Option<(&[u8], u32, PathBuf)>, new: Option<&[u8]>) {
        let left = new.map(sha256);
        let seen = old.as_ref().map(|(bytes, ..)| sha256(bytes));
        match self.0.get_mut(path) {
            // Nobody else wrote since.
            Some(entry) if entry.left == seen => entry.left = left,
            _ => {
                let (original, mode) = old.map(|(_, mode, kept)| (kept, mode)).unzip();
                self.0.insert(path.to_owned(), Entry { original, mode, left });
            }
        }
    }

    /// What must not be kept anywhere cannot come back.
    pub fn forget(files: &Files, path: &Path) -> Result<()> {
        let mut ledger = Self::read(files)?;
        if ledger.0.remove(path).is_some() { ledger.save(files) } else { Ok(()) }
    }

    /// Writes the list.
    pub fn save(&self, files: &Files) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).with_context(|| format!("writing {LEDGER}"))?;
        files.write(Path::new(LEDGER), &text, 0o600)
    }

    /// What puts every listed file back, but for those that somebody else wrote since, which come second.
    pub fn undoing(&self, files: &Files) -> Result<(Vec<Change>, Vec<PathBuf>)> {
        let (mut changes, mut others) = (Vec::new(), Vec::new());
        for (path, entry) in &self.0 {
            let now = files.read(path)?;
            let original = entry.original.as_ref().map(|kept| files.read(kept)).transpose()?.flatten();
            if now == original {
                continue;
            }
            // Without the bytes it cannot be put back, and it was somebody's.
            let is_lost = entry.original.is_some() && original.is_none();
            if is_lost || now.as_deref().map(sha256) != entry.left {
                others.push(path.clone());
                continue;
            }
            changes.push(match original {
                Some(bytes) => {
                    let contents = Contents { bytes, secret: entry.mode.is_some_and(|mode| mode & 0o077 == 0) };
                    Change::Write { path: path.clone(), contents, mode: entry.mode.unwrap_or(0o644) }
                }
                None => Change::Remove { path: path.clone(), secret: false },
            });
        }
        Ok((changes, others))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use super::*;
    use crate::host::Host;

    async fn apply_all(host: &Host, changes: &[Change]) {
        for change in changes {
            host.apply(change).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_file_is_as_it_was_and_what_others_wrote_since_stays() {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| root.path().join(&path[1..]);
        let text = |path: &str| std::fs::read_to_string(place(path)).ok();
        std::fs::create_dir_all(place("/etc/x")).unwrap();
        for name in ["replaced", "removed", "edited", "edited-between"] {
            std::fs::write(place(&format!("/etc/x/{name}")), format!("{name} by hand\n")).unwrap();
        }
        let host = Host::of_fakes(root.path()).unwrap();
        apply_all(
            &host,
            &[
                Change::write("/etc/x/replaced", "agent 1\n"),
                Change::write("/etc/x/replaced", "agent 2\n"),
                Change::write("/etc/x/made", "agent\n"),
                Change::Remove { path: "/etc/x/removed".into(), secret: false },
                Change::write("/etc/x/edited", "agent\n"),
                Change::write("/etc/x/edited-between", "agent\n"),
                Change::write("/run/x", "agent\n"),
                Change::write("/etc/x/secret", "agent\n"),
                Change::Remove { path: "/etc/x/secret".into(), secret: true },
            ],
        )
        .await;
        std::fs::write(place("/etc/x/edited"), "somebody since\n").unwrap();
        std::fs::write(place("/etc/x/edited-between"), "somebody between\n").unwrap();
        apply_all(&host, &[Change::write("/etc/x/edited-between", "agent again\n")]).await;

        let ledger = Ledger::read(&host.files).unwrap();
        let (changes, others) = ledger.undoing(&host.files).unwrap();
        assert_eq!(others, [PathBuf::from("/etc/x/edited")]);
        apply_all(&host, &changes).await;
        assert_eq!(text("/etc/x/replaced").unwrap(), "replaced by hand\n");
        assert_eq!(text("/etc/x/removed").unwrap(), "removed by hand\n");
        assert_eq!(text("/etc/x/made"), None);
        assert_eq!(text("/etc/x/edited").unwrap(), "somebody since\n");
        assert_eq!(text("/etc/x/edited-between").unwrap(), "somebody between\n");
        assert_eq!(text("/run/x").unwrap(), "agent\n");
        let again = Ledger::read(&host.files).unwrap().undoing(&host.files).unwrap();
        assert_eq!(again, (Vec::new(), vec![PathBuf::from("/etc/x/edited")]), "nothing is left to do");
    }
}
