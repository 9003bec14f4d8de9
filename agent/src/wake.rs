//! What a boot is to a machine decides what may be expected of it: a good token, a valid certificate, the same address, the same disk.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::Role;
use crate::host::Host;
use crate::identity::decision::{Decision, Standing, standing};
use crate::look::Look;
use crate::step::Contents;

/// When and where the service was last at work on this disk.
const LAST_SEEN: &str = "/var/lib/gpuk-agent/last-seen.json";

/// How old that may become while the service is at work.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// A token lives for a day where nobody says otherwise (kubeadm, `kubeadm token create --ttl`): a longer sleep outlives it.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What this boot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Wake {
    /// The disk has never been at work.
    FirstBoot,
    /// The machine was off for a while, as it often is.
    Reboot,
    /// It was off for so long that tokens, and maybe its certificate, have expired.
    #[serde(rename_all = "camelCase")]
    LongSleep {
        /// How long, in seconds, within an hour.
        seconds: u64,
    },
    /// The disk is another machine's, copied.
    #[serde(rename_all = "camelCase")]
    Cloned {
        /// That machine's node.
        from: String,
    },
    /// The system is a new one and what the agent kept is not: the machine id is another one.
    Reimaged,
    /// The machine speaks from another address than before.
    #[serde(rename_all = "camelCase")]
    MovedNetwork {
        /// The address before.
        from: String,
        /// The address now.
        to: String,
    },
}

impl std::fmt::Display for Wake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FirstBoot => write!(formatter, "first boot"),
            Self::Reboot => write!(formatter, "reboot"),
            Self::LongSleep { seconds } => write!(formatter, "woke after {} days", seconds / (24 * 3600)),
            Self::Cloned { from } => write!(formatter, "cloned from node {from}"),
            Self::Reimaged => write!(formatter, "re-imaged, with what the agent had kept"),
            Self::MovedNetwork { from, to } => write!(formatter, "moved from address {from} to {to}"),
        }
    }
}

/// What is kept of the service's work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LastSeen {
    boot_id: String,
    machine_id: String,
    address: Option<String>,
    /// Seconds after 1970, by the machine's clock.
    time: u64,
}

impl LastSeen {
    /// A file that was cut off says nothing.
    fn read(look: Look<'_>) -> Result<Option<Self>> {
        Ok(look.text(LAST_SEEN)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn now(look: Look<'_>) -> Self {
        let address = look.own_address().map(|address| address.to_string());
        let (boot_id, machine_id) = (look.facts.boot_id.clone(), look.facts.machine_id.clone());
        Self { boot_id, machine_id, address, time: seconds(look.now()) }
    }

    /// A full disk must not keep a node out; the next boot is then called a reboot.
    fn keep(&self, host: &Host) {
        let text = serde_json::to_string(self).unwrap_or_default();
        if let Err(error) = host.record(Path::new(LAST_SEEN), &Contents::plain(text)) {
            tracing::warn!(error = format!("{error:#}"), "that the service is at work could not be kept");
        }
    }
}

/// What this boot is, from files alone. A copy is a copy whatever else it is, and so on down.
pub fn of(look: Look<'_>) -> Result<Wake> {
    let decision = Decision::read(look)?.ok().flatten();
    let (last, now) = (LastSeen::read(look)?, LastSeen::now(look));
    if let (Standing::Copied | Standing::Foreign, Some(decision)) = (standing(decision.as_ref(), look.facts), &decision) {
        return Ok(Wake::Cloned { from: decision.node.clone() });
    }
    let Some(last) = last else {
        return Ok(if decision.is_some() { Wake::Reboot } else { Wake::FirstBoot });
    };
    let slept = now.time.saturating_sub(last.time);
    Ok(match (&last.address, &now.address) {
        _ if last.machine_id != now.machine_id => Wake::Reimaged,
        (Some(from), Some(to)) if from != to => Wake::MovedNetwork { from: from.clone(), to: to.clone() },
        _ if slept >= LONG.as_secs() => Wake::LongSleep { seconds: slept },
        _ => Wake::Reboot,
    })
}

/// Keeps that the service is at work, once an hour or when something is different.
pub fn remember(host: &Host, look: Look<'_>) {
    // On an observed node nothing on the disk is ours.
    if look.config.node.role == Role::Observed {
        return;
    }
    let now = LastSeen::now(look);
    let kept = LastSeen::read(look).ok().flatten().unwrap_or_default();
    let is_same = LastSeen { time: now.time, ..kept.clone() } == now;
    if is_same && now.time.abs_diff(kept.time) < KEPT_FOR.as_secs() {
        return;
    }
    now.keep(host);
}

/// Keeps when the service's work ended.
pub fn ends(host: &Host) {
    let kept = host.files.text(Path::new(LAST_SEEN)).ok().flatten();
    let kept: Option<LastSeen> = kept.and_then(|text| serde_json::from_str(&text).ok());
    if let Some(kept) = kept {
        LastSeen { time: seconds(host.clock.now()), ..kept }.keep(host);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::facts::{Facts, Instance};
    use crate::host::clock::FixedClock;
    use crate::host::network::ScriptedNetwork;

    const NOW: u64 = 1_780_272_000;

    /// A machine at a time and an address.
    fn seen<T>(root: &Path, facts: &Facts, now: u64, address: &str, work: impl FnOnce(&Host, Look<'_>) -> T) -> T {
        let mut host = Host::of_fakes(root).unwrap();
        host.clock = Box::new(FixedClock::at(now));
        let mut network = ScriptedNetwork::default();
        network.address = address.parse().ok();
        host.network = Box::new(network);
        let config = load(Vec::new()).unwrap().config;
        work(&host, Look::new(&host, &config, facts))
    }

    fn facts(instance: &str, machine_id: &str, boot_id: &str) -> Facts {
        let instance = Instance { cloud: "nocloud", id: instance.to_owned(), ..Instance::default() };
        Facts { instance: Some(instance), machine_id: machine_id.to_owned(), boot_id: boot_id.to_owned(), ..Facts::default() }
    }

    #[test]
    fn each_kind_of_boot_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let wake = |facts: &Facts, now, address: &str| seen(root.path(), facts, now, address, |_, look| of(look).unwrap());
        let first = facts("i-1", "m", "b-1");
        assert_eq!(wake(&first, NOW, "10.0.0.5"), Wake::FirstBoot);
        // It is given its name, works, and is switched off.
        seen(root.path(), &first, NOW, "10.0.0.5", |host, look| {
            let decision = crate::identity::of(look).unwrap().unwrap().decision.unwrap();
            let Ok(crate::step::Change::Write { path, contents, .. }) = decision.change() else { unreachable!() };
            host.record(&path, &contents).unwrap();
            remember(host, look);
        });
        let second = facts("i-1", "m", "b-2");
        assert_eq!(wake(&second, NOW + 60, "10.0.0.5"), Wake::Reboot);
        assert_eq!(wake(&second, NOW + 24 * 3600 - 1, "10.0.0.5"), Wake::Reboot);
        let month = Wake::LongSleep { seconds: 30 * 24 * 3600 };
        assert_eq!(wake(&second, NOW + 30 * 24 * 3600, "10.0.0.5"), month);
        assert_eq!(month.to_string(), "woke after 30 days");
        let moved = Wake::MovedNetwork { from: "10.0.0.5".to_owned(), to: "10.1.0.5".to_owned() };
        assert_eq!(wake(&second, NOW + 30 * 24 * 3600, "10.1.0.5"), moved);
        // An address that is not there yet is none that changed, and a clock that went back is no sleep.
        assert_eq!(wake(&second, NOW - 7200, ""), Wake::Reboot);
        assert_eq!(wake(&facts("i-1", "other", "b-2"), NOW, "10.1.0.5"), Wake::Reimaged);
        assert_eq!(wake(&facts("i-2", "m", "b-2"), NOW, "10.1.0.5"), Wake::Cloned { from: "i-1".to_owned() });
    }

    #[test]
    fn it_is_kept_once_an_hour_and_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let kept = |now, address: &str, is_last: bool| {
            seen(root.path(), &facts("i-1", "m", "b"), now, address, |host, look| {
                if is_last {
                    ends(host)
                } else {
                    remember(host, look)
                }
                LastSeen::read(look).unwrap().unwrap().time
            })
        };
        assert_eq!(kept(NOW, "10.0.0.5", false), NOW);
        assert_eq!(kept(NOW + 3599, "10.0.0.5", false), NOW);
        assert_eq!(kept(NOW + 3600, "10.0.0.5", false), NOW + 3600);
        assert_eq!(kept(NOW + 3700, "10.0.0.6", false), NOW + 3700);
        assert_eq!(kept(NOW + 3701, "10.0.0.6", true), NOW + 3701);
    }
}
