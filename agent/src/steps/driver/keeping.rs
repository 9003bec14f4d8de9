//! A driver that is there and right stays as it is: what the agent installed is kept at its version, of somebody else's nothing is touched.

use anyhow::Result;

use super::present::Present;
use super::{blacklist, changes, dnf, evidence};
use crate::look::Look;
use crate::step::{Change, Status};

/// The driver is there and right. What the agent installed is also kept at its version.
/// The next kernel gets its module from the packages' own hooks; that it has none yet is told and takes nothing from the running one.
pub fn kept(look: Look<'_>, present: &Present) -> Result<Status> {
    if !present.is_ours {
        return Ok(Status::Ready(evidence(present)));
    }
    let version = present.version.clone().unwrap_or_default();
    let (of_apt, of_dnf) = (look.exists(changes::PIN)?, look.exists(dnf::YUM)?);
    let mut keeping = if of_apt { pinned_and_held(look, present, &version)? } else { Vec::new() };
    if of_dnf {
        keeping.extend(dnf::lock(look, &version)?);
    }
    if !keeping.is_empty() {
        return Ok(Status::pending(format!("driver {version} is installed, and not kept at that version"), keeping));
    }
    let blacklist = blacklist::changes(look)?;
    if !blacklist.is_empty() {
        return Ok(Status::pending("nouveau may still take the GPUs", blacklist));
    }
    // Nothing upgrades what a .run file installed.
    let held = if of_apt || of_dnf { ", held" } else { "" };
    Ok(Status::Ready(format!("{}{held}", evidence(present))))
}

/// What keeps dpkg's packages at a version; nothing where they are.
fn pinned_and_held(look: Look<'_>, present: &Present, version: &str) -> Result<Vec<Change>> {
    let packages = present.packages.iter().filter(|package| package.is_installed());
    let parts: Vec<_> = packages.filter(|package| package.driver() == Some(version)).collect();
    let is_pinned = look.text(changes::PIN)?.as_deref() == Some(&changes::pin(&format!("{version}*")));
    let is_kept = is_pinned && parts.iter().all(|package| package.is_held);
    Ok(if is_kept { Vec::new() } else { changes::keep(version, &parts) })
}
