//! A Node's labels, taints and provider id are taken from the kubelet's flags when it registers; later ones change nothing.
//!
//! Only zone, region and instance type follow the flags again at every start of the kubelet (its `updateDefaultLabels`).

use std::collections::BTreeMap;

use crate::config::{Enabled, ProviderId, Taint, label_value};
use crate::facts::gpu::most_frequent_model;
use crate::look::Look;

// GPU Feature Discovery's names (NVIDIA/k8s-device-plugin), so that both agree.
const GPU_PRESENT: &str = "nvidia.com/gpu.present";
const GPU_COUNT: &str = "nvidia.com/gpu.count";
/// Ours: `nvidia.com/gpu.product` is Feature Discovery's, in the driver's words, which are not known yet.
const GPU_MODEL: &str = "gpuk/gpu-model";

/// Labels from what the GPUs are.
pub const OF_GPUS: [&str; 3] = [GPU_PRESENT, GPU_COUNT, GPU_MODEL];

/// Labels from what the platform says (Kubernetes, "Well-Known Labels, Annotations and Taints").
pub const OF_PLATFORM: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "node.kubernetes.io/instance-type"];

/// The line of the flags file that says with what the Node registers.
const HEADING: &str = "# Registers with:";

/// What a Node registers with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, no two of one key and effect.
    pub taints: Vec<Taint>,
}

impl Registration {
    /// What configuration, GPUs and platform ask for now. The configuration wins.
    pub fn wanted(look: Look<'_>) -> Self {
        let (node, config, instance) = (&look.config.node, &look.config.gpu, look.facts.instance.as_ref());
        let mut labels = BTreeMap::new();
        let mut taints: Vec<Taint> = Vec::new();
        let mut add = |more: &[Taint]| {
            for taint in more {
                if !taints.iter().any(|taint_before| taint_before.is_same_place(taint)) {
                    taints.push(taint.clone());
                }
            }
        };
        add(&node.taints);
        let gpus = look.facts.gpus_for_containers();
        if config.enabled != Enabled::Never && !gpus.is_empty() {
            add(&config.taints);
            add(&config.startup_taints);
            labels.insert(GPU_PRESENT.to_owned(), "true".to_owned());
            labels.insert(GPU_COUNT.to_owned(), gpus.len().to_string());
            labels.extend(most_frequent_model(&gpus).map(|model| (GPU_MODEL.to_owned(), model)));
        }
        if let Some(instance) = instance {
            let known = [&instance.region, &instance.zone, &instance.instance_type];
            for (key, value) in OF_PLATFORM.into_iter().zip(known) {
                labels.extend(value.as_deref().and_then(label_value).map(|value| (key.to_owned(), value)));
            }
        }
        labels.extend(node.labels.clone());
        let of_platform = || instance?.provider_id.as_deref()?.parse().ok();
        let provider_id = match node.provider_id.clone().or_else(of_platform) {
            Some(ProviderId::Is(id)) => Some(id),
            Some(ProviderId::None) | None => None,
        };
        Self { provider_id, labels, taints }
    }

    /// The kubelet's flags for it.
    pub fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = self.provider_id.iter().map(|id| format!("--provider-id={id}")).collect();
        if !self.labels.is_empty() {
            let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            flags.push(format!("--node-labels={}", labels.join(",")));
        }
        if !self.taints.is_empty() {
            let taints: Vec<String> = self.taints.iter().map(ToString::to_string).collect();
            flags.push(format!("--register-with-taints={}", taints.join(",")));
        }
        flags
    }

    /// The line of the flags file by which it is known again.
    pub fn line(&self) -> String {
        let words: Vec<String> = std::iter::once(HEADING.to_owned()).chain(self.flags()).collect();
        words.join(" ")
    }

    /// Reads it back from the flags file; `None` where that has no such line, or not one of ours.
    pub fn read(file: &str) -> Option<Self> {
        let words = file.lines().find_map(|line| line.strip_prefix(HEADING))?;
        let mut found = Self::default();
        for word in words.split_whitespace() {
            match word.split_once('=')? {
                ("--provider-id", id) => found.provider_id = Some(id.to_owned()),
                ("--node-labels", labels) => {
                    for label in labels.split(',') {
                        let (key, value) = label.split_once('=')?;
                        found.labels.insert(key.to_owned(), value.to_owned());
                    }
                }
                ("--register-with-taints", taints) => {
                    found.taints = taints.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
                }
                _ => return None,
            }
        }
        Some(found)
    }
}
