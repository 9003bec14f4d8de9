//! People know ports 80 and 443, and the ingress answers behind others: the kernel rewrites the port and nobody notices.

mod answers;
mod listing;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Result, bail};
use async_trait::async_trait;

use crate::host::programs::Question;
use crate::look::Look;
use crate::step::{Change, Command, Finding, Stage, Status, Step, Watched};
use table::Table;

/// What was given to nft(8) last. It lives as long as the rules do: until the next boot.
const FILE: &str = "/run/gpuk-agent/redirects.nft";

/// Where distributions put nft(8).
const NFT: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];

/// Services that load a whole rule set and flush the one that is there.
const FLUSHERS: &[&str] = &["nftables.service", "firewalld.service", "ufw.service", "netfilter-persistent.service"];

const LIMIT: Duration = Duration::from_secs(20);

/// The redirects that are asked for are in the kernel, and no others.
pub struct Redirects;

#[async_trait(?Send)]
impl Step for Redirects {
    fn name(&self) -> &'static str {
        "redirects"
    }

    fn purpose(&self) -> &'static str {
        "the redirected ports reach what answers behind them"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Table(table::NAME)]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        let made_before = look.exists(FILE)?;
        let wanted = look.config.redirects.wanted();
        if wanted.is_empty() {
            return if made_before { unwanted(look).await } else { Ok(Status::Ready("none is asked for".to_owned())) };
        }
        if let Some(finding) = without_nft(look)? {
            return Ok(Status::Broken(finding));
        }
        let table = Table::of(&look.config.redirects);
        let why = match listing(look).await? {
            Some(listing) => listing::difference(&listing, &table)?,
            None if made_before => Some(flushed(look).await?),
            None => Some(format!("table inet {} is not there", table::NAME)),
        };
        match why {
            Some(why) => {
                let load = Command::new(["nft", "--file", FILE], LIMIT).on_running_system();
                Ok(Status::pending(why, vec![Change::write(FILE, table.text()), Change::Run(load)]))
            }
            None => Ok(match answers::behind(look, &wanted).await? {
                Status::Ready(evidence) => Status::Ready(evidence + both_back_ends(look).await?),
                other => other,
            }),
        }
    }

    async fn undo(&self, look: Look<'_>) -> Result<Option<Vec<Change>>> {
        Ok(Some(if look.exists(FILE)? { taken_away(look).await? } else { Vec::new() }))
    }
}

async fn unwanted(look: Look<'_>) -> Result<Status> {
    Ok(Status::pending("redirects are there that nobody asks for any more", taken_away(look).await?))
}

/// Only what was made by this agent, in this boot.
async fn taken_away(look: Look<'_>) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if without_nft(look)?.is_none() && listing(look).await?.is_some() {
        let delete = Command::new(["nft", "delete", "table", "inet", table::NAME], LIMIT);
        changes.push(Change::Run(delete.on_running_system()));
    }
    changes.push(Change::Remove { path: FILE.into(), secret: false });
    Ok(changes)
}

/// Rules in both back ends of iptables(8) contradict each other unseen: each program lists those of its own alone. The redirects do not
/// mind, but whoever answers behind them may.
async fn both_back_ends(look: Look<'_>) -> Result<&'static str> {
    for names in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
        if look.text(names)?.is_some_and(|names| !names.trim().is_empty()) {
            let answer = look.ask(Question::NftTables).await?;
            let both = answer.success() && listing::has_tables_of_iptables(&answer.stdout)?;
            return Ok(if both { "; tables of iptables-legacy and of iptables-nft are both in use" } else { "" });
        }
    }
    Ok("")
}

fn without_nft(look: Look<'_>) -> Result<Option<Finding>> {
    for path in NFT {
        if look.exists(path)? {
            return Ok(None);
        }
    }
    Ok(Some(Finding::new(
        "nft-missing",
        "The program that loads redirects into the kernel is not installed",
        format!("there is none of {}", NFT.join(", ")),
        "apt-get install --no-install-recommends nftables   (dnf install nftables)",
    )))
}

/// The table as the kernel has it, or `None` when it has none.
async fn listing(look: Look<'_>) -> Result<Option<String>> {
    let answer = look.ask(Question::NftTable { name: table::NAME.to_owned() }).await?;
    match answer.code {
        Some(0) => Ok(Some(answer.stdout)),
        // nft(8) has one status for every error; the kernel's ENOENT is what tells this one.
        _ if answer.stderr.contains("No such file or directory") => Ok(None),
        _ => bail!("listing table inet {}: {}", table::NAME, answer.tail()),
    }
}

/// The table was there in this boot and is gone: somebody loaded another rule set.
async fn flushed(look: Look<'_>) -> Result<String> {
    let mut suspects = Vec::new();
    for unit in FLUSHERS {
        if look.unit(unit).await?.is_some_and(|state| state.active == "active") {
            suspects.push(*unit);
        }
    }
    let who = match suspects.as_slice() {
        [] => "nft flush ruleset does that".to_owned(),
        active => format!("{} flushes the rule set when it starts, and is active", active.join(" and ")),
    };
    Ok(format!("table inet {} was removed since it was made: {who}", table::NAME))
}
