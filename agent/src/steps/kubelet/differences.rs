//! Once a Node is registered, its labels and taints are an administrator's to change; a node may not change its own taints.

use std::collections::BTreeSet;

use super::registration::{OF_GPUS, OF_PLATFORM, Registration};
use crate::config::{Config, Taint};

/// What the Node was registered with and would not be now, and how an administrator changes what the configuration asks for.
/// A fact that changed (a GPU is gone, the platform is silent) is only said: it may be back at the next boot.
/// `place` is the file with the flags, and the unit that reads it.
pub fn differences(
    registered: &Registration,
    wanted: &Registration,
    config: &Config,
    node: &str,
    place: (&str, &str),
) -> Option<String> {
    let mut said = Said::default();
    labels(&mut said, registered, wanted, config);
    taints(&mut said, registered, wanted, config);
    if registered.provider_id != wanted.provider_id {
        let show = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
        said.texts.push(format!(
            "registered with provider id {}, now {}",
            show(&registered.provider_id),
            show(&wanted.provider_id)
        ));
    }
    for (arguments, what) in [(said.labels, "label"), (said.taints, "taint")] {
        if !arguments.is_empty() {
            said.texts.push(format!("to change it: kubectl {what} node {node} --overwrite {}", arguments.join(" ")));
        }
    }
    if said.by_restart {
        said.texts.push(format!("to change it: rm {}, then: gpuk-agent up, then: systemctl restart {}", place.0, place.1));
    }
    (!said.texts.is_empty()).then(|| said.texts.join("; "))
}

#[derive(Default)]
struct Said {
    texts: Vec<String>,
    /// Arguments of `kubectl label`.
    labels: Vec<String>,
    /// Arguments of `kubectl taint`.
    taints: Vec<String>,
    /// The kubelet itself brings it up to date.
    by_restart: bool,
}

fn labels(said: &mut Said, registered: &Registration, wanted: &Registration, config: &Config) {
    let keys: BTreeSet<&String> = registered.labels.keys().chain(wanted.labels.keys()).collect();
    for key in keys {
        let (before, now) = (registered.labels.get(key), wanted.labels.get(key));
        said.texts.push(match (before, now) {
            (Some(before), Some(now)) if before != now => format!("registered with {key}={before}, now {now}"),
            (Some(before), None) => format!("registered with {key}={before}, now without"),
            (None, Some(now)) => format!("registered without {key}, now {now}"),
            _ => continue,
        });
        if OF_PLATFORM.contains(&key.as_str()) {
            // What kubectl changes here, the kubelet changes back at its next start.
            said.by_restart |= now.is_some();
        } else if !OF_GPUS.contains(&key.as_str()) || config.node.labels.contains_key(key) {
            said.labels.push(now.map_or_else(|| format!("{key}-"), |now| format!("{key}={now}")));
        }
    }
}

fn taints(said: &mut Said, registered: &Registration, wanted: &Registration, config: &Config) {
    let at = |taints: &[Taint], place: &Taint| taints.iter().find(|taint| taint.is_same_place(place)).cloned();
    for before in &registered.taints {
        match at(&wanted.taints, before) {
            Some(now) if now == *before => {}
            Some(now) => {
                said.texts.push(format!("registered with taint {before}, now {now}"));
                said.taints.push(now.to_string());
            }
            None => {
                said.texts.push(format!("registered with taint {before}, now without"));
                // The GPUs' own taints go when the GPUs do, and those may be back.
                if at(&config.gpu.taints, before).or(at(&config.gpu.startup_taints, before)).is_none() {
                    said.taints.push(format!("{}:{:?}-", before.key, before.effect));
                }
            }
        }
    }
    for now in &wanted.taints {
        // A startup taint is for a node that starts its life.
        if at(&registered.taints, now).is_none() && !config.gpu.startup_taints.contains(now) {
            said.texts.push(format!("registered without taint {now}"));
            said.taints.push(now.to_string());
        }
    }
}
