//! Drift is noticed by the kernel's own events (inotify(7), nfnetlink), so an idle agent costs nothing.

mod packet_filter;

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

use crate::step::Watched;
use packet_filter::TableWatch;

/// Directories whose files are watched for being written, moved in or removed, and a table of the packet filter.
pub struct Watch {
    events: EventStream<[u8; 4096]>,
    table: Option<TableWatch>,
}

impl Watch {
    /// Watches those of the directories below `root` that exist, without their subdirectories, and the tables.
    pub fn over(root: &Path, things: impl IntoIterator<Item = Watched>) -> Result<Self> {
        let inotify = Inotify::init().context("watching files (inotify)")?;
        let wanted = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::DELETE | WatchMask::ONLYDIR;
        let mut table = None;
        for thing in things {
            match thing {
                Watched::Directory(directory) => {
                    match inotify.watches().add(root.join(directory.trim_start_matches('/')), wanted) {
                        Ok(_) => {}
                        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                        Err(error) => return Err(error).with_context(|| format!("watching {directory}")),
                    }
                }
                Watched::Table(name) => match TableWatch::over(name) {
                    Ok(watch) => table = Some(watch),
                    // Without nftables in the kernel there is no table either.
                    Err(error) => tracing::warn!("{error:#}; changes of table {name} are found by the slow look alone"),
                },
            }
        }
        Ok(Self { events: inotify.into_event_stream([0; 4096]).context("watching files (inotify)")?, table })
    }

    /// Returns what changed, once something does: a file's name, or the table.
    pub async fn changed(&mut self) -> String {
        let Self { events, table } = self;
        let table_changed = async {
            match table {
                Some(table) => table.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = file(events) => name,
            () = table_changed => "the packet filter".to_owned(),
        }
    }
}

/// The name of a file that changed, once one does.
async fn file(events: &mut EventStream<[u8; 4096]>) -> String {
    loop {
        match events.next().await {
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
