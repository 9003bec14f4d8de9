//! What is left when no step has anything to take away any more: files that were written, and the agent's own memory.

use anyhow::Result;
use async_trait::async_trait;

use crate::host::units::UNIT_DIRECTORIES;
use crate::look::Look;
use crate::show::complain;
use crate::step::{Change, Stage, Status, Step, UnitVerb};

const CONTAINERD: &str = "containerd.service";

/// Every file that the agent wrote is as it was before, unless somebody else wrote it since.
pub struct Written;

#[async_trait(?Send)]
impl Step for Written {
    fn name(&self) -> &'static str {
        "files"
    }

    fn purpose(&self) -> &'static str {
        "every file is as it was before the agent"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    async fn check(&self, _look: Look<'_>) -> Result<Status> {
        Ok(Status::Ready("is only ever undone".to_owned()))
    }

    async fn undo(&self, look: Look<'_>) -> Result<Option<Vec<Change>>> {
        let (mut changes, others) = look.written()?;
        for path in others {
            complain(&format!("{} was changed by somebody else since, and stays", path.display()));
        }
        let touches = |folder: &str| {
            changes.iter().any(|change| match change {
                Change::Write { path, .. } | Change::Remove { path, .. } => path.starts_with(folder),
                _ => false,
            })
        };
        let has_units = UNIT_DIRECTORIES.iter().any(|folder| touches(folder));
        let is_of_containerd = touches("/etc/containerd");
        if has_units {
            changes.push(Change::Unit(UnitVerb::Reload, CONTAINERD.to_owned()));
        }
        if is_of_containerd && look.unit(CONTAINERD).await?.is_some_and(|unit| unit.is_running()) {
            changes.push(Change::Unit(UnitVerb::Restart, CONTAINERD.to_owned()));
        }
        Ok(Some(changes))
    }
}

/// The agent knows nothing of the machine any more. The bytes that it replaced stay.
pub struct History;

/// Where the agent keeps what it knows.
const FOLDER: &str = "/var/lib/gpuk-agent";

#[async_trait(?Send)]
impl Step for History {
    fn name(&self) -> &'static str {
        "state"
    }

    fn purpose(&self) -> &'static str {
        "the agent has no memory of this machine"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    async fn check(&self, _look: Look<'_>) -> Result<Status> {
        Ok(Status::Ready("is only ever undone".to_owned()))
    }

    async fn undo(&self, look: Look<'_>) -> Result<Option<Vec<Change>>> {
        let names = look.list(FOLDER)?;
        let files = names.iter().map(|name| format!("{FOLDER}/{name}")).filter(|path| is_file(look, path));
        Ok(Some(files.map(|path| Change::Remove { path: path.into(), secret: true }).collect()))
    }
}

/// A folder cannot be opened for reading its bytes.
fn is_file(look: Look<'_>, path: &str) -> bool {
    matches!(look.read(path), Ok(Some(_)))
}
