//! Drift is noticed by the kernel's own events (inotify(7)), so an idle agent costs nothing.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// Directories whose files are watched for being written, moved in or removed.
pub struct Watch {
    events: EventStream<[u8; 4096]>,
}

impl Watch {
    /// Watches those of the directories below `root` that exist; their subdirectories are not watched.
    pub fn over<'a>(root: &Path, directories: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let inotify = Inotify::init().context("watching files (inotify)")?;
        let wanted = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::DELETE | WatchMask::ONLYDIR;
        for directory in directories {
            match inotify.watches().add(root.join(directory.trim_start_matches('/')), wanted) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error).with_context(|| format!("watching {directory}")),
            }
        }
        Ok(Self { events: inotify.into_event_stream([0; 4096]).context("watching files (inotify)")? })
    }

    /// Returns the name of a file that changed, once one does.
    pub async fn changed(&mut self) -> String {
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    if let Some(name) = event.name {
                        return name.to_string_lossy().into_owned();
                    }
                }
                // No further event will come.
                Some(Err(_)) | None => std::future::pending().await,
            }
        }
    }
}
