//! A kubelet that cannot start says why in one line, and systemd starts it again for ever.

use crate::step::Finding;

/// A known reason, found by words in the kubelet's own.
struct Cause {
    /// Any of these words.
    words: &'static [&'static str],
    what: &'static str,
    remedy: &'static str,
}

/// Where the kubelet's configuration comes from; a rerun of the join reads the ConfigMap again.
const EDIT_CONFIG: &str = "kubectl -n kube-system edit configmap kubelet-config (for all nodes; a join that is not finished reads it again) \
    or edit /var/lib/kubelet/config.yaml on this node and: systemctl restart kubelet";

const EDIT_FLAGS: &str = "correct node.kubelet-extra-args in /etc/gpuk/agent.toml, or the flags in /var/lib/kubelet/kubeadm-flags.env \
    and /etc/default/kubelet; then: systemctl restart kubelet";

/// The rows as people read them: the kubelet's words, what is wrong, remedy.
#[cfg(test)]
pub fn rows() -> impl Iterator<Item = (&'static [&'static str], &'static str, &'static str)> {
    CAUSES.iter().map(|cause| (cause.words, cause.what, cause.remedy))
}

/// To add a cause, add a row.
const CAUSES: &[Cause] = &[
    Cause {
        words: &["unable to load client CA file"],
        what: "The kubelet cannot start: its configuration names a client CA file that it cannot read (authentication.x509.clientCAFile)",
        remedy: EDIT_CONFIG,
    },
    Cause {
        words: &["swap on is not supported", "Swap is on"],
        what: "The kubelet cannot start: swap is on, and its configuration does not allow that (failSwapOn)",
        remedy: "swapoff -a, and take the swap lines out of /etc/fstab; then: systemctl restart kubelet",
    },
    Cause {
        words: &["cgroup driver"],
        what: "The kubelet cannot start: it and containerd use different cgroup drivers",
        remedy: "set SystemdCgroup = true for runc in /etc/containerd/config.toml, restart containerd, and cgroupDriver: systemd in the \
            ConfigMap (kubectl -n kube-system edit configmap kubelet-config)",
    },
    Cause {
        words: &["cgroup v1"],
        what: "The kubelet cannot start: this machine runs with cgroup v1, which this kubelet refuses",
        remedy: "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
    },
    Cause {
        words: &["unknown 'kubernetes.io' or 'k8s.io' labels", "is not allowed to set the following labels"],
        what: "The kubelet cannot start: a node may not give itself these labels",
        remedy: "take them out of node.labels in /etc/gpuk/agent.toml (and out of /var/lib/kubelet/kubeadm-flags.env), and set them \
            from outside: kubectl label node NAME KEY=VALUE",
    },
    Cause {
        words: &["unknown flag", "failed to parse kubelet flag", "invalid argument"],
        what: "The kubelet cannot start: it does not know one of its flags, or a flag's value",
        remedy: EDIT_FLAGS,
    },
    Cause {
        words: &["validate service connection", "container runtime is not running", "containerd.sock"],
        what: "The kubelet cannot start: no container runtime answers at its socket",
        remedy: "systemctl status containerd; then: systemctl restart containerd kubelet",
    },
    Cause {
        words: &["failed to initialize client certificate manager", "unable to load bootstrap kubeconfig"],
        what: "The kubelet cannot start: it has no usable credential for the cluster",
        remedy: "gpuk-agent up (it joins again with the bootstrap token)",
    },
    Cause {
        words: &["address already in use"],
        what: "The kubelet cannot start: something else listens on its port",
        remedy: "ss -ltnp 'sport = :10250 or sport = :10248', stop that program, then: systemctl restart kubelet",
    },
    Cause {
        words: &[
            "failed to load kubelet config file",
            "failed to load Kubelet config file",
            "strict decoding error",
            "failed to validate kubelet configuration",
        ],
        what: "The kubelet cannot start: it does not understand its configuration",
        remedy: EDIT_CONFIG,
    },
];

/// The newest reason in a kubelet's log (oldest line first): what its last `"command failed"` line says, without quotes.
pub fn last_words(log: &[&str]) -> Option<String> {
    let reason = log.iter().rev().find_map(|line| {
        let (_, rest) = line.split_once("\"command failed\"")?;
        let (_, quoted) = rest.split_once("err=")?;
        Some(unquote(quoted.trim()))
    });
    // A kubelet that panics, or stops before its logger runs, writes no such line.
    reason.or_else(|| {
        // klog's fatal lines begin with F and the date.
        let is_fatal =
            |line: &str| line.strip_prefix('F').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
        let is_last_word = |line: &str| line.starts_with("panic:") || line.starts_with("Error:") || is_fatal(line);
        log.iter().rev().find(|line| is_last_word(line)).map(|line| (*line).to_owned())
    })
}

/// The kubelet has not been told yet how to start: what a packaged kubelet does before every join.
pub fn is_before_join(reason: &str) -> bool {
    reason.contains("/var/lib/kubelet/config.yaml") && reason.contains("no such file")
}

/// What the kubelet's last words mean.
pub fn finding(reason: Option<&str>) -> Finding {
    const CODE: &str = "kubelet-cannot-start";
    let Some(reason) = reason else {
        return Finding::new(
            CODE,
            "The kubelet cannot start",
            "kubelet.service keeps failing, and its log does not say why",
            "journalctl --unit kubelet --boot --lines 100",
        );
    };
    let cause = CAUSES.iter().find(|cause| cause.words.iter().any(|words| reason.contains(words)));
    let why = format!("kubelet: {reason}");
    match cause {
        Some(cause) => Finding::new(CODE, cause.what, why, cause.remedy),
        None => Finding::new(
            CODE,
            "The kubelet cannot start",
            why,
            format!("journalctl --unit kubelet --boot --lines 100; if its configuration is at fault: {EDIT_CONFIG}"),
        ),
    }
}

/// Undoes Go's `strconv.Quote`, as klog writes values (structured logging, "key=value"); an unquoted value ends at a space.
fn unquote(text: &str) -> String {
    let Some(body) = text.strip_prefix('"') else { return text.split(' ').next().unwrap_or_default().to_owned() };
    let mut plain = String::new();
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('r') => plain.push('\r'),
                Some(kind @ ('x' | 'u' | 'U')) => {
                    let length = match kind {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let digits: String = letters.by_ref().take(length).collect();
                    let decoded = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    plain.push(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG_CA: &str = r#"E1121 07:13:02.123456    1234 run.go:72] "command failed" err="failed to construct kubelet dependencies: unable to load client CA file /etc/kubernetes/pki/\"nope\".crt: open /etc/kubernetes/pki/nope.crt: no such file or directory""#;

    #[test]
    fn the_last_command_failed_line_is_quoted_without_its_escapes() {
        let log = [
            r#"E1121 07:00:00.000000 1 run.go:72] "command failed" err="failed to run Kubelet: running with swap on is not supported""#,
            "kubelet.service: Main process exited, code=exited, status=1/FAILURE",
            WRONG_CA,
            "kubelet.service: Scheduled restart job, restart counter is at 7.",
        ];
        let reason = last_words(&log).expect("a reason");
        assert!(reason.starts_with("failed to construct kubelet dependencies: unable to load client CA file"), "{reason}");
        assert!(reason.contains(r#"/etc/kubernetes/pki/"nope".crt"#), "{reason}");
        let finding = finding(Some(&reason));
        assert_eq!(finding.code, "kubelet-cannot-start");
        assert!(finding.what.contains("clientCAFile"), "{}", finding.what);
        assert!(finding.why.contains("no such file or directory"), "{}", finding.why);
        assert!(finding.remedy.contains("/var/lib/kubelet/config.yaml"), "{}", finding.remedy);
        assert!(finding.remedy.contains("kubectl -n kube-system edit configmap kubelet-config"), "{}", finding.remedy);
    }

    #[test]
    fn each_known_cause_reads_its_line() {
        for (reason, words) in [
            (
                "failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false",
                "swap",
            ),
            (
                "failed to run Kubelet: misconfiguration: kubelet cgroup driver: \"systemd\" is different from docker cgroup driver",
                "cgroup driver",
            ),
            ("failed to parse kubelet flag: unknown flag: --bogus", "flags"),
            (
                "failed to run Kubelet: validate service connection: validate CRI v1 runtime API for endpoint \"unix:///run/containerd/containerd.sock\": rpc error",
                "container runtime",
            ),
            (
                "failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role.kubernetes.io/gpu]",
                "labels",
            ),
            (
                "failed to run Kubelet: unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf: no such file or directory",
                "credential",
            ),
            (
                "failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: strict decoding error: unknown field \"x\"",
                "configuration",
            ),
        ] {
            let finding = finding(Some(reason));
            assert!(finding.what.contains(words), "{reason}: {}", finding.what);
            assert!(finding.why.contains(reason));
        }
    }

    #[test]
    fn a_log_without_a_reason_still_makes_a_finding() {
        assert_eq!(last_words(&["Started kubelet.service"]), None);
        assert_eq!(last_words(&["panic: runtime error", "goroutine 1"]).as_deref(), Some("panic: runtime error"));
        assert!(finding(None).remedy.contains("journalctl"));
        assert!(finding(Some("new words")).why.contains("new words"));
    }

    #[test]
    fn escapes_that_are_cut_off_do_no_harm() {
        assert_eq!(unquote(r#""a\tb\x41é""#), "a\tbAé");
        assert_eq!(unquote(r#""a\u00"#), "a\0");
        assert_eq!(unquote("\"a\\"), "a");
        assert_eq!(unquote("plain rest"), "plain");
    }

    #[test]
    fn a_kubelet_without_configuration_is_only_waiting_for_the_join() {
        let reason = "failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: failed to load Kubelet config file \
            /var/lib/kubelet/config.yaml, error failed to read kubelet config file \"/var/lib/kubelet/config.yaml\", error: open \
            /var/lib/kubelet/config.yaml: no such file or directory";
        assert!(is_before_join(reason));
        assert!(!is_before_join("unable to load client CA file /x: no such file or directory"));
    }
}
