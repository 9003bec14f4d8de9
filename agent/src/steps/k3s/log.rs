//! What only k3s itself can see stands in its journal, between lines that say "server is not ready" whatever the matter is.

use crate::host::programs::Question;
use crate::look::Look;
use crate::step::Finding;

/// A known reason, found by words in k3s's own.
struct Cause {
    words: &'static str,
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
}

/// To add a cause, add a row. The words are k3s's (its sources, and etcd's).
const CAUSES: &[Cause] = &[
    Cause {
        words: "duplicate node name found",
        code: "etcd-member-stale",
        what: "etcd still has a member of this node's name",
        remedy: "on another server: kubectl delete node NAME (k3s then removes the member); if the node is gone already: etcdctl member list, \
            etcdctl member remove ID; then on this machine: rm -r /var/lib/rancher/k3s/server/db, and: gpuk-agent up",
    },
    Cause {
        words: "critical configuration value mismatch",
        code: "k3s-server-settings-differ",
        what: "This server's settings differ from those of the cluster's other servers, where they must be the same",
        remedy: "make the values that the line names the same in /etc/rancher/k3s/config.yaml on all servers (k3s documentation, \"k3s server\", \
            \"Critical Configuration Values\"), then: systemctl restart k3s",
    },
    Cause {
        words: "bootstrap data already found and encrypted with different token",
        code: "k3s-server-token-differs",
        what: "The cluster's data was encrypted with another server token",
        remedy: "put the first server's token (/var/lib/rancher/k3s/server/token there) into cluster.token, then: gpuk-agent up",
    },
    Cause {
        words: "failed to find memory cgroup",
        code: "k3s-cgroups",
        what: "The kernel has no memory cgroup, which k3s needs",
        remedy: "add cgroup_memory=1 cgroup_enable=memory to the kernel's command line and reboot",
    },
    Cause {
        words: "flag provided but not defined",
        code: "k3s-flag-unknown",
        what: "This release of k3s does not know one of its flags",
        remedy: "correct the flag that the line names in the unit, or in /etc/rancher/k3s/config.yaml; then: gpuk-agent up",
    },
    Cause {
        words: "address already in use",
        code: "k3s-port-taken",
        what: "Something else listens on a port of k3s",
        remedy: "ss -ltnp 'sport = :6443 or sport = :6444 or sport = :10250', stop that program, then: gpuk-agent up",
    },
    Cause {
        words: "must share the same IP version",
        code: "k3s-address-family",
        what: "The node's address is of another family than the cluster's networks",
        remedy: "correct node.ip in /etc/gpuk/agent.toml, then: gpuk-agent up",
    },
    Cause {
        words: "unknown 'kubernetes.io' or 'k8s.io' labels",
        code: "k3s-label-refused",
        what: "A node may not give itself one of these labels",
        remedy: "take it out of node.labels in /etc/gpuk/agent.toml, and set it from outside: kubectl label node NAME KEY=VALUE",
    },
    Cause {
        words: "unknown flag",
        code: "k3s-kubelet-flag",
        what: "The kubelet in k3s does not know one of its flags",
        remedy: "correct node.kubelet-extra-args in /etc/gpuk/agent.toml, or kubelet-arg in /etc/rancher/k3s; then: gpuk-agent up",
    },
];

/// What k3s's newest lines say.
pub struct Said {
    /// Something that is known, and that waiting does not cure.
    pub finding: Option<Finding>,
    /// The newest line that tells anything, without what looks like a token.
    pub last: Option<String>,
}

/// Reads the unit's newest lines in this boot.
pub async fn read(look: Look<'_>, unit: &str) -> Said {
    match look.ask(Question::UnitLog { unit: unit.to_owned(), lines: 80 }).await {
        Ok(output) => said(&output.stdout.lines().collect::<Vec<_>>(), unit),
        Err(error) => Said { finding: None, last: Some(format!("its log cannot be read: {error:#}")) },
    }
}

/// The newest line that is known counts, and else the newest that is no mere information.
pub fn said(lines: &[&str], unit: &str) -> Said {
    let known =
        lines.iter().rev().find_map(|line| CAUSES.iter().find(|cause| line.contains(cause.words)).map(|cause| (cause, line)));
    let finding =
        known.map(|(cause, line)| Finding::new(cause.code, cause.what, format!("{unit}: {}", shown(line)), cause.remedy));
    let tells =
        |line: &&&str| ["level=fatal", "level=error", "is not ready", "panic:", "Error:"].iter().any(|word| line.contains(word));
    Said { finding, last: lines.iter().rev().find(tells).map(|line| shown(line)) }
}

/// A line for output. Words in which a token could be are left out.
fn shown(line: &str) -> String {
    let word = |word: &str| if word.contains("K10") && word.contains("::") { "(secret)".to_owned() } else { word.to_owned() };
    let words: Vec<String> = line.split(' ').map(word).collect();
    words.join(" ").chars().take(400).collect()
}
