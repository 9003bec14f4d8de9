//! kubeadm is handed a cluster that is already proven, so that its own discovery has nothing left to decide.
//!
//! A *discovery file* with the verified CA and a user that holds the token makes kubeadm keep the file's server address everywhere,
//! `kubelet.conf` included; with token discovery it would take the address inside cluster-info (kubeadm,
//! "Implementation details", "Discovery cluster-info").

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::discovery::Discovered;
use super::joined::{AUTHORITY, CERTIFICATE};
use super::target::Target;
use super::verdict::NEW_TOKEN;
use super::{KUBELET, control_plane, kubelet_log};
use crate::host::apply::Failure;
use crate::host::cluster::KUBELET_KUBECONFIG;
use crate::identity::decision::Decision;
use crate::look::Look;
use crate::step::{Change, Command, Finding, Status};

/// The verified cluster with the token: on a file system in memory, and only while kubeadm runs.
pub const DISCOVERY_FILE: &str = "/run/gpuk-agent/join/discovery.conf";
/// What kubeadm is told; for a control plane node the certificate key is in it.
pub const JOIN_FILE: &str = "/run/gpuk-agent/join/kubeadm.conf";
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// kubeadm's own limits add up to two minutes, and its preflight asks containerd.
const LIMIT: Duration = Duration::from_secs(300);

/// What a join that was cut off leaves behind and the next one may write over. Nothing that hides a fault of the machine: a stranger
/// on the kubelet's port shows in the kubelet's log.
pub const IGNORED_CHECKS: [&str; 4] = [
    "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "Port-10250",
];

/// What makes a stranger a member.
pub fn changes(look: Look<'_>, target: &Target, cluster: &Discovered, bad_certificate: bool) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    // The kubelet dies of a certificate file that it cannot read. Only the link goes, when it is one.
    if bad_certificate {
        changes.push(Change::Remove { path: CERTIFICATE.into(), secret: true });
    }
    // kubeadm takes an old kubelet.conf for the end of the bootstrap, and does not wait for the certificate.
    if look.exists(KUBELET_KUBECONFIG)? {
        changes.push(Change::Remove { path: KUBELET_KUBECONFIG.into(), secret: true });
    }
    // kubeadm never replaces a ca.crt, be it of 0 bytes or of another cluster.
    if look.read(AUTHORITY)?.is_some_and(|old| old.trim_ascii() != cluster.authority.as_bytes().trim_ascii()) {
        changes.push(Change::Remove { path: AUTHORITY.into(), secret: false });
    }
    // Without it the kubelet of a worker complains once a second. kubeadm wants it empty.
    if !look.exists(MANIFESTS)? {
        changes.push(Change::Run(Command::new(["mkdir", "-p", MANIFESTS], Duration::from_secs(10))));
    }
    changes.extend(join(target, cluster, &[])?);
    Ok(changes)
}

/// kubeadm, but for the phases that it has done already, and what comes after it.
pub fn join(target: &Target, cluster: &Discovered, done: &[&str]) -> Result<Vec<Change>> {
    let text = join_configuration(target, done)?;
    let run = |limit| Command::new(["kubeadm", "join", "--config", JOIN_FILE], limit);
    let (configuration, command) = match target.control_plane {
        // Its kubelet ends by itself, and is started again, when its own API server takes more than five minutes to answer ("No valid client
        // certificate is found and the server is responsive, exiting"): that is no reason to stop kubeadm.
        Some(_) => (Change::write_secret(JOIN_FILE, text), run(control_plane::LIMIT).on_running_system()),
        None => (Change::write(JOIN_FILE, text), run(LIMIT).watching(KUBELET)),
    };
    let mut changes =
        vec![Change::write_secret(DISCOVERY_FILE, kubeconfig(target, cluster)?), configuration, Change::Run(command)];
    // From here on a cluster knows the machine by this name.
    changes.extend(name_is_known(target.decision.as_ref())?);
    changes.extend([Change::Sync, Change::Remove { path: DISCOVERY_FILE.into(), secret: true }]);
    Ok(changes)
}

/// Keeps that a cluster knows the machine by its name, unless that is kept already.
pub fn name_is_known(decision: Option<&Decision>) -> Result<Option<Change>> {
    let decision = decision.filter(|decision| !decision.joined);
    decision.map(|decision| Decision { joined: true, ..decision.clone() }.change()).transpose()
}

/// A kubeconfig of the verified cluster, with the token; JSON is YAML.
pub fn kubeconfig(target: &Target, cluster: &Discovered) -> Result<String> {
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {
            "server": cluster.endpoint,
            "certificate-authority-data": STANDARD.encode(&cluster.authority),
        }}],
        "users": [{"name": "bootstrap", "user": {"token": target.token.bearer().expose()}}],
        "contexts": [{"name": "join", "context": {"cluster": "cluster", "user": "bootstrap"}}],
        "current-context": "join",
    });
    serde_json::to_string_pretty(&file).context("writing a kubeconfig with the bootstrap token")
}

/// `JoinConfiguration` (kubeadm API, `kubeadm.k8s.io/v1beta4`). The limits replace defaults of 4 and 5 minutes, which kubeadm spends
/// even on what cannot succeed.
fn join_configuration(target: &Target, done: &[&str]) -> Result<String> {
    let mut configuration = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {"file": {"kubeConfigPath": DISCOVERY_FILE}},
        "nodeRegistration": {
            "name": target.name,
            "criSocket": format!("unix://{}", target.runtime_socket),
            "ignorePreflightErrors": IGNORED_CHECKS,
        },
        "timeouts": {
            "discovery": "20s",
            "kubernetesAPICall": "10s",
            "kubeletHealthCheck": "30s",
            "tlsBootstrap": "60s",
        },
    });
    if let Some(control_plane) = &target.control_plane {
        control_plane.complete(&mut configuration);
    }
    if !done.is_empty() {
        configuration["skipPhases"] = json!(done);
    }
    serde_json::to_string_pretty(&configuration).context("writing the configuration for kubeadm")
}

/// What a failed change of this step means. kubeadm exits 1 for everything, so its words decide.
pub fn judge(failure: &Failure) -> Option<Status> {
    match failure {
        Failure::UnitCannotStart { unit, log, .. } if unit == KUBELET => {
            let log: Vec<&str> = log.iter().map(String::as_str).collect();
            let reason = kubelet_log::last_words(&log);
            // A packaged kubelet fails until kubeadm has configured it: nothing is wrong, kubeadm was only stopped too early.
            if reason.as_deref().is_some_and(kubelet_log::is_before_join) {
                return None;
            }
            Some(Status::Broken(kubelet_log::finding(reason.as_deref())))
        }
        Failure::Program { command, output } if command.starts_with("kubeadm ") => read(&output.stderr),
        _ => None,
    }
}

/// One line of kubeadm's, known by its words. What the API server said, or failed to say, is never the last word: the agent's own look comes
/// next, and tells a server that starts, or a network that fails, from a token that is dead.
struct Line {
    words: &'static str,
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
    waits: bool,
}

const LOST: &str = "The API server failed kubeadm after it had answered this program";
const READYZ: &str = "kubectl get --raw '/readyz?verbose', on a control plane node";

/// The first row that fits counts. To add a line, add a row.
const LINES: &[Line] = &[
    Line {
        words: "Secret \"kubeadm-certs\" was not found",
        code: "certificate-key-expired",
        what: "The cluster no longer holds the control plane's certificates for joining nodes: they are kept for two hours",
        remedy: "on a control plane node: kubeadm init phase upload-certs --upload-certs (it prints the new key); expected in \
            cluster.certificate-key or cluster.certificate-key-file",
        waits: false,
    },
    Line {
        words: "error decoding secret data with provided key",
        code: "certificate-key-wrong",
        what: "The certificate key does not open the control plane's certificates: they were uploaded with another one",
        remedy: "on a control plane node: kubeadm init phase upload-certs --upload-certs (it prints the key that fits from then on); expected in \
            cluster.certificate-key or cluster.certificate-key-file",
        waits: false,
    },
    Line {
        words: "doesn't have a stable controlPlaneEndpoint address",
        code: "no-control-plane-endpoint",
        what: "The cluster was made for one control plane node: it has no address that could lead to another one",
        remedy: "on a control plane node, set controlPlaneEndpoint in kubectl -n kube-system edit configmap kubeadm-config, to an address that all \
            API servers will be found at, and make their certificates anew",
        waits: false,
    },
    Line {
        words: "etcd cluster is not healthy",
        code: "etcd-unhealthy",
        what: "A member of etcd does not answer, so kubeadm adds no other one",
        remedy: "on a control plane node that works: etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \
            --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt --key=/etc/kubernetes/pki/etcd/healthcheck-client.key member list; a member whose \
            node is gone for good: the same with member remove ID in place of member list",
        waits: true,
    },
    Line {
        words: "error creating local etcd static pod manifest file",
        code: "etcd-join-failed",
        what: "This node's member of etcd did not come up beside the others",
        remedy: "crictl logs $(crictl ps --all --quiet --name etcd | head -n 1) (are ports 2379 and 2380 open between control plane nodes?); where there \
            is no such container: journalctl --boot --unit kubelet (can the pause image be had? containerd.pause-image); a member that was removed \
            (\"permanently removed from the cluster\") needs an empty folder: mv /var/lib/etcd /var/lib/etcd.aside",
        waits: true,
    },
    Line {
        words: "failed while waiting for the control plane to start",
        code: "control-plane-slow",
        what: "kubeadm stopped waiting for the control plane's own pods to start",
        remedy: "crictl ps --all, then crictl logs of the container that keeps ending",
        waits: true,
    },
    Line {
        words: "already exists in the cluster",
        code: "name-taken",
        what: "A node of this name is already Ready in the cluster",
        remedy: "give this machine another name (node.name in /etc/gpuk/agent.toml), or: kubectl delete node NAME",
        waits: false,
    },
    Line {
        words: "failed while waiting for the kubelet to start",
        code: "kubelet-slow",
        what: "kubeadm stopped waiting for the kubelet to start",
        remedy: "journalctl --unit kubelet --boot --lines 100",
        waits: true,
    },
    Line {
        words: "failed while waiting for TLS bootstrap",
        code: "certificate-not-issued",
        what: "The cluster has not issued the kubelet's certificate: nobody approves the request, or it was refused",
        remedy: "kubectl get csr: Pending means that kube-controller-manager is down or the ClusterRoleBinding kubeadm:node-autoapprove-bootstrap \
            is missing; no request of this node means that kubeadm:kubelet-bootstrap is missing (kubeadm init phase bootstrap-token makes both again)",
        waits: true,
    },
    Line {
        words: "Unauthorized",
        code: "token-rejected",
        what: "The bootstrap token was refused while the node was joining",
        remedy: NEW_TOKEN,
        // The next look tries it again, and the next source after it.
        waits: true,
    },
    Line {
        words: "is forbidden: User \"system:bootstrap:",
        code: "token-forbidden",
        what: "The bootstrap token may not read what a join needs",
        remedy: "on a control plane node: kubeadm init phase bootstrap-token (it makes the roles for joining nodes again)",
        waits: true,
    },
    Line {
        words: "couldn't validate the identity of the API Server",
        code: "endpoint-lost",
        what: LOST,
        remedy: READYZ,
        waits: true,
    },
    Line { words: "failed to get config map", code: "endpoint-lost", what: LOST, remedy: READYZ, waits: true },
    Line { words: "cannot get Node", code: "endpoint-lost", what: LOST, remedy: READYZ, waits: true },
    Line {
        words: "[ERROR ",
        code: "preflight",
        what: "kubeadm's preflight checks found something wrong with this machine",
        remedy: "repair what the [ERROR ...] lines name; then: gpuk-agent up",
        waits: false,
    },
    Line {
        words: "strict decoding error",
        code: "kubeadm-configuration",
        what: "kubeadm does not understand the configuration that the agent gave it",
        remedy: "kubeadm version: the agent writes kubeadm.k8s.io/v1beta4, which kubeadm reads from 1.31 on",
        waits: false,
    },
    Line {
        words: "no kind \"JoinConfiguration\" is registered",
        code: "kubeadm-configuration",
        what: "This kubeadm is too old for the agent's configuration",
        remedy: "install kubeadm 1.31 or newer: the agent writes kubeadm.k8s.io/v1beta4",
        waits: false,
    },
    Line {
        words: "Invalid value",
        code: "kubeadm-configuration",
        what: "kubeadm refuses a value of the configuration",
        remedy: "correct the value that kubeadm names in /etc/gpuk/agent.toml; then: gpuk-agent up",
        waits: false,
    },
];

/// The rows as people read them: kubeadm's words, code, what is wrong, whether it is waited for, remedy.
#[cfg(test)]
pub fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str, bool, &'static str)> {
    LINES.iter().map(|line| (line.words, line.code, line.what, line.waits, line.remedy))
}

fn read(said: &str) -> Option<Status> {
    let line = LINES.iter().find(|line| said.contains(line.words))?;
    let telling = |text: &&str| text.contains(line.words) || text.trim_start().starts_with("[ERROR ");
    let lines: Vec<&str> = said.lines().filter(telling).map(str::trim).take(6).collect();
    let finding = Finding::new(line.code, line.what, format!("kubeadm: {}", lines.join("; ")), line.remedy);
    Some(if line.waits { Status::Waiting(finding) } else { Status::Broken(finding) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::programs::Output;

    fn judged(stderr: &str) -> Option<Status> {
        let output = Output { code: Some(1), stdout: String::new(), stderr: stderr.to_owned() };
        judge(&Failure::Program { command: "kubeadm join --config x".to_owned(), output })
    }

    #[test]
    fn kubeadms_words_become_findings() {
        for (said, code, waits) in [
            (
                "error: error execution phase control-plane-prepare/download-certs: error downloading certs: error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret might have expired. Please, run `kubeadm init phase upload-certs --upload-certs` on a control plane to generate a new one",
                "certificate-key-expired",
                false,
            ),
            (
                "error: error execution phase control-plane-prepare/download-certs: error downloading certs: error decoding secret data with provided key: cipher: message authentication failed",
                "certificate-key-wrong",
                false,
            ),
            (
                "error: error execution phase check-etcd: etcd cluster is not healthy: failed to dial endpoint https://10.0.0.3:2379 with maintenance client: context deadline exceeded",
                "etcd-unhealthy",
                true,
            ),
            (
                "error: error execution phase etcd-join: error creating local etcd static pod manifest file: etcdserver: can only promote a learner member which is in sync with leader",
                "etcd-join-failed",
                true,
            ),
            (
                "error: error execution phase wait-control-plane: failed while waiting for the control plane to start: [kube-apiserver check failed]",
                "control-plane-slow",
                true,
            ),
            (
                "error: error execution phase preflight: \nOne or more conditions for hosting a new control plane instance is not satisfied.\n\nunable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint address",
                "no-control-plane-endpoint",
                false,
            ),
            (
                "error: error execution phase kubelet-start: a Node with name \"a\" and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node",
                "name-taken",
                false,
            ),
            (
                "error: error execution phase kubelet-wait-bootstrap: failed while waiting for TLS bootstrap: context deadline exceeded",
                "certificate-not-issued",
                true,
            ),
            (
                "error: error execution phase kubelet-wait-bootstrap: failed while waiting for the kubelet to start: The HTTP call equal to 'curl'",
                "kubelet-slow",
                true,
            ),
            (
                "error: error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: failed to get config map: Unauthorized",
                "token-rejected",
                true,
            ),
            (
                "failed to get config map: configmaps \"kubeadm-config\" is forbidden: User \"system:bootstrap:abcdef\" cannot get resource",
                "token-forbidden",
                true,
            ),
            (
                "error: error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: failed to get config map: Get \"https://10.0.0.1:6443/api\": dial tcp: connection refused",
                "endpoint-lost",
                true,
            ),
            (
                "error: error execution phase preflight: couldn't validate the identity of the API Server: failed to request the cluster-info ConfigMap: EOF",
                "endpoint-lost",
                true,
            ),
            (
                "error: error execution phase preflight: [preflight] Some fatal errors occurred:\n\t[ERROR FileContent--proc-sys-net-ipv4-ip_forward]: /proc/sys/net/ipv4/ip_forward contents are not set to 1\n",
                "preflight",
                false,
            ),
            (
                "no kind \"JoinConfiguration\" is registered for version \"kubeadm.k8s.io/v1beta4\"",
                "kubeadm-configuration",
                false,
            ),
        ] {
            match judged(said) {
                Some(Status::Waiting(finding)) => assert!(waits && finding.code == code, "{said}: {finding:?}"),
                Some(Status::Broken(finding)) => {
                    assert!(!waits && finding.code == code, "{said}: {finding:?}");
                    assert!(finding.why.starts_with("kubeadm: ") && finding.why.len() > 20, "{finding:?}");
                }
                other => panic!("{said}: {other:?}"),
            }
        }
        assert_eq!(judged("something new"), None);
    }

    #[test]
    fn the_watched_kubelets_log_is_read() {
        let failure = |line: &str| Failure::UnitCannotStart {
            command: "kubeadm join".to_owned(),
            unit: KUBELET.to_owned(),
            log: vec![line.to_owned(), "kubelet.service: Failed with result 'exit-code'.".to_owned()],
        };
        let wrong_ca = r#"E1 1 run.go:72] "command failed" err="unable to load client CA file /x.crt: open /x.crt: no such file or directory""#;
        let Some(Status::Broken(finding)) = judge(&failure(wrong_ca)) else { panic!("a finding") };
        assert_eq!(finding.code, "kubelet-cannot-start");
        assert!(finding.why.contains("/x.crt"), "{}", finding.why);
        let before = r#"E1 1 run.go:72] "command failed" err="failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: open /var/lib/kubelet/config.yaml: no such file or directory""#;
        assert_eq!(judge(&failure(before)), None);
        assert_eq!(judge(&Failure::Other(anyhow::anyhow!("x"))), None);
    }
}
