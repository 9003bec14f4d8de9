//! A kubelet that is given a label or taint it does not like does not start, so the agent refuses it first.

use std::fmt;
use std::str::FromStr;

use super::values::{is_dns_name, written_as_text};

/// Labels in the namespaces of Kubernetes that a kubelet may give its own node.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Namespaces of Kubernetes in which a kubelet may choose labels freely, also in those below them.
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Namespaces that belong to Kubernetes.
const KUBERNETES: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// Checks one label that the kubelet is to give its node with `--node-labels`.
pub(super) fn check_label(key: &str, value: &str) -> Result<(), String> {
    check_key(key)?;
    check_value(value)?;
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let is_within = |outer: &str| namespace.strip_suffix(outer).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    let belongs_to_kubernetes = KUBERNETES.into_iter().any(is_within);
    if !belongs_to_kubernetes || OWN_LABELS.contains(&key) || OWN_NAMESPACES.into_iter().any(is_within) {
        return Ok(());
    }
    let instead = if namespace == "node-role.kubernetes.io" || key == "kubernetes.io/role" {
        "; roles are given from outside, with kubectl label node"
    } else {
        ""
    };
    Err(format!("may not be set by a node on itself: a kubelet that is told to does not start{instead}"))
}

fn check_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, _)) if !is_dns_name(prefix) => {
            return Err("has a prefix before the slash that is not a lower-case DNS name".into());
        }
        Some((_, name)) => name,
        None => key,
    };
    if is_name(name) { Ok(()) } else { Err(format!("has a key that is not {NAME}")) }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(format!("has a value that is not {NAME}")) }
}

pub(super) const NAME: &str = "1 to 63 letters, digits, \"-\", \"_\" or \".\" with a letter or digit at both ends";

pub(super) fn is_name(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63 && ends(text.bytes().next()) && ends(text.bytes().last()) && text.bytes().all(inner)
}

/// The nearest valid value of a label: other characters become hyphens, 63 remain, a letter or digit at both ends.
/// `None` when nothing is left.
pub fn label_value(text: &str) -> Option<String> {
    let is_end = |letter: char| letter.is_ascii_alphanumeric();
    let valid = |letter: char| if is_end(letter) || matches!(letter, '-' | '_' | '.') { letter } else { '-' };
    let trimmed = text.trim_matches(|letter| !is_end(letter));
    let value: String = trimmed.chars().map(valid).take(63).collect();
    let value = value.trim_end_matches(|letter| !is_end(letter));
    (!value.is_empty()).then(|| value.to_owned())
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// They are not placed on the node.
    NoSchedule,
    /// They are placed elsewhere where possible.
    PreferNoSchedule,
    /// They are not placed, and those that run are evicted.
    NoExecute,
}

/// A taint that the node registers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Key, such as `nvidia.com/gpu`.
    pub key: String,
    /// Value, where there is one.
    pub value: Option<String>,
    /// Effect.
    pub effect: Effect,
}

impl Taint {
    /// Whether a node can have only one of the two (kubelet, `--register-with-taints`).
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.key == other.key && self.effect == other.effect
    }
}

written_as_text!(Taint);

impl fmt::Display for Taint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(formatter, "{}={value}:{:?}", self.key, self.effect),
            None => write!(formatter, "{}:{:?}", self.key, self.effect),
        }
    }
}

impl FromStr for Taint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subject, effect) = text.rsplit_once(':').ok_or("has no effect after a colon")?;
        let effect = match effect {
            "NoSchedule" => Effect::NoSchedule,
            "PreferNoSchedule" => Effect::PreferNoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => {
                return Err("has an effect that is none of NoSchedule, PreferNoSchedule, NoExecute".into());
            }
        };
        let (key, value) = match subject.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (subject, None),
        };
        check_key(key)?;
        check_value(value.unwrap_or_default())?;
        Ok(Self { key: key.to_owned(), value: value.map(str::to_owned), effect })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_kubelet() {
        for key in [
            "pool",
            "example.com/pool",
            "node.kubernetes.io/lifecycle",
            "gpu.node.kubernetes.io/x",
            "kubelet.kubernetes.io/x",
            "topology.kubernetes.io/zone",
            "kubernetes.io/os",
            "notkubernetes.io/x",
        ] {
            assert_eq!(check_label(key, "a"), Ok(()), "{key}");
        }
        for key in [
            "node-role.kubernetes.io/worker",
            "kubernetes.io/role",
            "kubernetes.io/instance-type",
            "topology.kubernetes.io/rack",
            "node-restriction.kubernetes.io/x",
            "x.k8s.io/y",
            "k8s.io/y",
            "",
            "/",
            "a/b/c",
            "-a",
            "A.example/b",
        ] {
            assert!(check_label(key, "a").is_err(), "{key}");
        }
        assert!(check_label("pool", &"a".repeat(64)).is_err());
        assert!(check_label("pool", "").is_ok());
    }

    #[test]
    fn any_text_becomes_a_label_value_or_nothing() {
        for (text, expected) in [
            ("eu-west-1a", "eu-west-1a"),
            ("Standard_NC4as_T4_v3", "Standard_NC4as_T4_v3"),
            ("g1 large/gpu", "g1-large-gpu"),
            (" -zone é.", "zone"),
            ("é✂", ""),
            ("", ""),
        ] {
            assert_eq!(label_value(text).unwrap_or_default(), expected, "{text}");
        }
        assert_eq!(label_value(&format!("{}-b", "a".repeat(62))), Some("a".repeat(62)), "never ends with a hyphen");
        assert!(label_value(&"x".repeat(100)).is_some_and(|value| check_value(&value).is_ok()));
    }

    #[test]
    fn taints_print_as_they_are_read() {
        for text in ["nvidia.com/gpu:NoSchedule", "pool=gpu:NoExecute", "pool=:PreferNoSchedule"] {
            assert_eq!(text.parse::<Taint>().map(|taint| taint.to_string()), Ok(text.to_owned()));
        }
        assert!("pool=gpu".parse::<Taint>().is_err_and(|why| why.contains("no effect")));
        assert!("pool=gpu:noschedule".parse::<Taint>().is_err_and(|why| why.contains("NoSchedule")));
    }
}
