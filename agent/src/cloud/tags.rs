//! What an owner writes on an instance is short and meant to be read; what is long or secret was meant for a program.

use std::collections::BTreeMap;

/// EC2, Azure and Google allow 256 characters for the value of a tag or label; longer ones are no tags.
const LONGEST: usize = 256;

/// Attributes that hold scripts, keys or credentials ("Predefined metadata keys", Compute Engine documentation; kube-* is GKE's).
const NOT_TAGS: &[&str] = &[
    "user-data",
    "user-data-encoding",
    "startup-script",
    "startup-script-url",
    "shutdown-script",
    "shutdown-script-url",
    "windows-startup-script-ps1",
    "ssh-keys",
    "sshkeys",
    "block-project-ssh-keys",
    "kube-env",
    "kubeconfig",
    "kubelet-config",
    "configure-sh",
    "gke-node-init",
    "windows-keys",
    "instance-template",
];

/// Names with one of these in them may hold secrets.
const SECRET: &[&str] =
    &["password", "passwd", "secret", "token", "credential", "private-key", "private_key", "api-key", "api_key"];

/// The pairs that may be shown.
pub fn tags(pairs: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().filter(|(name, value)| may_be_shown(name, value)).collect()
}

fn may_be_shown(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    value.chars().count() <= LONGEST
        && !value.contains('\n')
        && !NOT_TAGS.contains(&lower.as_str())
        && !SECRET.iter().any(|word| lower.contains(word))
}

/// A tag that is one text: `key=value` or `key:value`, else a name alone.
pub fn split(tag: &str) -> (String, String) {
    let (name, value) = tag.split_once(['=', ':']).unwrap_or((tag, ""));
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{split, tags};

    #[test]
    fn secrets_and_bulk_are_no_tags() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let long = "x".repeat(257);
        let all = [
            pair("pool", "gpu"),
            pair("kube-env", "KEY: 1"),
            pair("User-Data", "a"),
            pair("Join-Token", "a"),
            pair("notes", &long),
            pair("script", "a\nb"),
        ];
        assert_eq!(tags(all).into_keys().collect::<Vec<_>>(), ["pool"]);
    }

    #[test]
    fn a_word_is_split_at_its_first_sign() {
        assert_eq!(split("pool=a:b"), ("pool".to_owned(), "a:b".to_owned()));
        assert_eq!(split("env:prod"), ("env".to_owned(), "prod".to_owned()));
        assert_eq!(split("lke1234"), ("lke1234".to_owned(), String::new()));
    }
}
