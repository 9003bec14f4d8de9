//! What a machine is in its cluster is written on it by its owner, or shows in what it carries; the answer says why.

use std::fmt;

use serde::Serialize;

use crate::config::{Config, Origin, Role, Setting, Source};
use crate::facts::Facts;

/// The names under which clouds let an owner write the role on a machine. EC2 allows no slash in a tag that the machine may read, GCE and
/// Linode neither slash nor colon ("Instance metadata and user data", EC2; "About VM metadata", GCE).
pub const TAGS: [&str; 5] = ["gpuk/role", "gpuk:role", "gpuk.role", "gpuk-role", "gpuk_role"];

/// The role that the facts speak for, as a layer below everything that a person wrote: its origin is the reason.
pub fn layer(facts: &Facts) -> Option<Source> {
    let (role, why) = decide(facts)?;
    Some(Source::machine(why, vec![("node.role".to_owned(), role)]))
}

/// The tag counts before what the platform and the disk show: whoever wrote it knew them.
fn decide(facts: &Facts) -> Option<(String, String)> {
    let instance = facts.instance.as_ref();
    let tag = instance.and_then(|instance| TAGS.iter().find_map(|tag| Some((*tag, instance.tags.get(*tag)?))));
    if let Some((tag, role)) = tag {
        return Some((role.clone(), format!("tag {tag}={role}")));
    }
    if let Some(why) = instance.and_then(|instance| instance.managed.as_ref()).or(facts.marks.managed.as_ref()) {
        return Some((Role::Observed.word().to_owned(), why.clone()));
    }
    let file = facts.marks.control_plane.as_ref()?;
    Some((Role::ControlPlane.word().to_owned(), format!("{file} is there")))
}

/// Whether a person gave the machine its role; otherwise it rests on what could be seen.
pub fn is_given(settings: &[Setting]) -> bool {
    let setting = settings.iter().find(|setting| setting.key == "node.role");
    setting.is_some_and(|setting| !matches!(setting.origin.origin, Origin::Default | Origin::Machine(_)))
}

/// The role of a machine and its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What it is in its cluster.
    pub role: Role,
    /// It has NVIDIA GPUs for its containers.
    pub gpu: bool,
    /// Why, in words.
    pub because: Vec<String>,
}

impl fmt::Display for Answer {
    /// `worker, gpu, because tag gpuk/role=worker and 1 NVIDIA GPU at 0000:00:1e.0`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpu = if self.gpu { ", gpu" } else { "" };
        write!(formatter, "{}{gpu}, because {}", self.role.word(), self.because.join(" and "))
    }
}

/// The role in effect, with its reasons.
pub fn answer(config: &Config, settings: &[Setting], facts: &Facts) -> Answer {
    let origin = settings.iter().find(|setting| setting.key == "node.role").map(|setting| &setting.origin);
    let mut because = match origin {
        Some(place) if place.origin == Origin::Default => vec!["nothing says otherwise".to_owned()],
        Some(place) if matches!(place.origin, Origin::Machine(_)) => vec![place.to_string()],
        Some(place) => vec![format!("node.role in {place}")],
        None => Vec::new(),
    };
    let gpus = facts.gpus_for_containers();
    match gpus.as_slice() {
        [] => {}
        [gpu] => because.push(format!("1 NVIDIA GPU at {}", gpu.address)),
        [first, .., last] => {
            because.push(format!("{} NVIDIA GPUs from {} to {}", gpus.len(), first.address, last.address));
        }
    }
    Answer { role: config.node.role, gpu: !gpus.is_empty(), because }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigErrors, Loaded};
    use crate::facts::{Gpu, Instance, Marks};

    fn loaded(facts: &Facts, file: &str) -> Result<Loaded, ConfigErrors> {
        crate::config::load(layer(facts).into_iter().chain([Source::file("/etc/gpuk/agent.toml", file)]).collect())
    }

    fn said(facts: &Facts, file: &str) -> (Role, String) {
        let loaded = loaded(facts, file).unwrap();
        (loaded.config.node.role, answer(&loaded.config, &loaded.settings, facts).to_string())
    }

    fn tagged(tag: &str, value: &str) -> Facts {
        let tags = [(tag.to_owned(), value.to_owned())].into();
        Facts { instance: Some(Instance { tags, ..Instance::default() }), ..Facts::default() }
    }

    #[test]
    fn a_machine_about_which_nothing_is_said_is_a_worker() {
        assert_eq!(said(&Facts::default(), ""), (Role::Worker, "worker, because nothing says otherwise".to_owned()));
    }

    #[test]
    fn a_gpu_that_is_kept_for_a_virtual_machine_makes_no_gpu_node() {
        let gpu =
            |address: &str, driver: &str| Gpu { address: address.to_owned(), driver: Some(driver.to_owned()), ..Gpu::default() };
        let mut facts = Facts { gpus: vec![gpu("0000:01:00.0", "vfio-pci")], ..Facts::default() };
        assert_eq!(said(&facts, "").1, "worker, because nothing says otherwise");
        facts.gpus.push(gpu("0000:02:00.0", "nvidia"));
        assert_eq!(said(&facts, "").1, "worker, gpu, because nothing says otherwise and 1 NVIDIA GPU at 0000:02:00.0");
    }

    #[test]
    fn every_spelling_of_the_tag_counts_and_is_named() {
        for tag in TAGS {
            let (role, why) = said(&tagged(tag, "control-plane"), "");
            assert_eq!(role, Role::ControlPlane);
            assert!(why.contains(&format!("tag {tag}=control-plane")), "{why}");
        }
    }

    #[test]
    fn a_tag_with_a_wrong_role_is_an_error_that_names_it() {
        let error = loaded(&tagged("gpuk:role", "workers"), "").unwrap_err().to_string();
        assert!(error.contains("tag gpuk:role=workers") && error.contains("did you mean \"worker\""), "{error}");
    }

    #[test]
    fn the_configuration_is_louder_than_a_tag_and_a_tag_louder_than_the_platform() {
        let mut facts = tagged("gpuk-role", "worker");
        facts.marks = Marks { control_plane: Some("/x".to_owned()), managed: Some("EKS: /etc/eks is there".to_owned()) };
        assert_eq!(said(&facts, "").0, Role::Worker);
        let (role, why) = said(&facts, "[node]\nrole = \"observed\"\n");
        assert_eq!((role, why.as_str()), (Role::Observed, "observed, because node.role in /etc/gpuk/agent.toml:2:8"));
        facts.instance = None;
        assert_eq!(said(&facts, ""), (Role::Observed, "observed, because EKS: /etc/eks is there".to_owned()));
        facts.marks.managed = None;
        assert_eq!(said(&facts, ""), (Role::ControlPlane, "control-plane, because /x is there".to_owned()));
    }
}
