//! The table of what is seen, what it means, and who can cure it.

use std::time::Duration;

use super::{Action, Verdict, skew_text};
use crate::host::network::UnreachableKind;
use crate::identity::decision::same_uuid;
use crate::step::{Finding, Status};
use crate::steps::join::name;
use crate::steps::join::target::Target;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who can cure it.
    pub action: Action,
    /// The finding's code.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// What was seen.
    pub saw: String,
    /// What to do.
    pub remedy: String,
    /// How long whoever was asked wants to be left alone.
    pub leave_alone: Option<Duration>,
}

impl Row {
    /// How a look ends that this row decides.
    pub fn status(&self) -> Status {
        let finding = self.finding(self.saw.clone());
        if self.action == Action::Wait { Status::Waiting(finding) } else { Status::Broken(finding) }
    }

    /// The finding, from what was seen.
    pub fn finding(&self, saw: String) -> Finding {
        Finding::new(self.code, self.what.clone(), saw, self.remedy.clone()).leaving_alone(self.leave_alone)
    }
}

/// A row from anything that reads as text.
pub fn row(
    action: Action,
    code: &'static str,
    what: impl Into<String>,
    saw: impl Into<String>,
    remedy: impl Into<String>,
) -> Row {
    Row { action, code, what: what.into(), saw: saw.into(), remedy: remedy.into(), leave_alone: None }
}

/// How to make a token, and where it goes.
pub const NEW_TOKEN: &str = "on a control plane node: kubeadm token create --print-join-command; \
    then put the new token into cluster.token in /etc/gpuk/agent.toml (or into the file that cluster.token-file names)";

/// How to compute the right pin, and where it goes.
const RIGHT_PIN: &str = "on a control plane node: openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | \
    openssl pkey -pubin -outform der | sha256sum; then put \"sha256:\" and the digits into cluster.ca-cert-hashes in /etc/gpuk/agent.toml";

const ASK_FOR_CLUSTER_INFO: &str = "on a control plane node: kubeadm init phase bootstrap-token (it makes cluster-info and its RoleBinding \
    kube-public/kubeadm:bootstrap-signer-clusterinfo again)";

/// What else it may be when two machines have one machine id.
const CLONED: &str = "; if it stays Ready, another machine was cloned from the same disk: give one of them a machine id of its own \
    (rm /etc/machine-id; systemd-machine-id-setup)";

/// One answer's status and message, for the evidence.
fn http(status: u16, message: &str) -> String {
    if message.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {message}") }
}

impl Verdict {
    /// The table. The order of the variants is the order of the rows.
    pub fn row(&self, endpoint: &str, target: &Target) -> Row {
        use Action::{NextCredential, NextEndpoint, Stop, Wait};
        let id = target.token.id();
        let name = &target.name;
        let reach = format!("curl -k {endpoint}/readyz");
        let see_certificate = format!(
            "openssl s_client -connect {} </dev/null | openssl x509 -noout -dates -issuer -ext subjectAltName",
            endpoint.trim_start_matches("https://")
        );
        match self {
            Self::Unreachable(failure) => {
                let saw = match failure.kind {
                    UnreachableKind::Refused => "connection refused: nobody listens there".to_owned(),
                    UnreachableKind::Timeout => "no answer in time".to_owned(),
                    UnreachableKind::Name => format!("its name does not resolve ({failure})"),
                    _ => failure.to_string(),
                };
                row(Wait, "endpoint-unreachable", "The API server cannot be reached", saw, reach)
            }
            Self::Busy { status, retry_after } => {
                let asked = retry_after.map_or(String::new(), |wait| format!(", it asks to wait {} s", wait.as_secs()));
                let saw = format!("HTTP {status}{asked}");
                let busy = row(Wait, "endpoint-busy", "The API server is overloaded or not ready", saw, reach);
                Row { leave_alone: *retry_after, ..busy }
            }
            Self::Starting { saw } => row(Wait, "endpoint-starting", "The API server is still starting", saw, reach),
            Self::SignerDown => row(
                Wait,
                "signer-down",
                "The cluster does not sign bootstrap tokens at the moment",
                format!("token {id} is accepted, but cluster-info has no signature for it"),
                format!(
                    "kubectl -n kube-system get pods -l component=kube-controller-manager; if that runs, the token lacks the usage \
                     \"signing\": kubeadm token list | grep {id}"
                ),
            ),
            Self::ClockWrong { saw, skew } => row(
                Wait,
                "clock-wrong",
                "This machine's clock is wrong",
                format!("it is {} the API server's; {saw}", skew_text(*skew)),
                "timedatectl timesync-status (or: chronyc tracking), then repair time synchronisation; the join goes on by itself",
            ),
            Self::OwnNodeStillReady(node) => {
                // A machine id is copied with its disk; a UUID of the firmware is not.
                let may_be_cloned = same_uuid(Some(&node.system_uuid), target.product_uuid.as_deref()).is_none();
                let cloned = if may_be_cloned { CLONED } else { "" };
                row(
                    Wait,
                    "own-node-still-ready",
                    "The node that this machine was before still counts as Ready",
                    name::saw(node, target),
                    format!("wait 50 s, or: kubectl delete node {name}{cloned}"),
                )
            }
            Self::WrongName(text) => row(
                NextEndpoint,
                "certificate-wrong-name",
                "The API server's certificate is for other names than this endpoint's",
                text,
                format!(
                    "use one of the certificate's names in cluster.endpoints ({see_certificate}), or add this name to apiServer.certSANs and \
                     renew the certificate on the control plane node"
                ),
            ),
            Self::CertificateDates(text) => row(
                NextEndpoint,
                "certificate-dates",
                "The API server's certificate has expired or is not valid yet, and this machine's clock is right",
                text,
                "on that control plane node: kubeadm certs check-expiration, then kubeadm certs renew apiserver and restart kube-apiserver",
            ),
            Self::UnknownAuthority(text) => row(
                NextEndpoint,
                "certificate-unknown-authority",
                "This endpoint belongs to another cluster, or something between breaks TLS open",
                text,
                format!("find out who answers there: {see_certificate}; after a change of the cluster's CA: {RIGHT_PIN}"),
            ),
            Self::NotAnApiServer(saw) => row(
                NextEndpoint,
                "not-an-api-server",
                "Something else than a Kubernetes API server answers there",
                saw,
                format!("correct cluster.endpoints in /etc/gpuk/agent.toml; see what answers: {reach}"),
            ),
            Self::AnonymousOff => row(
                Stop,
                "anonymous-access-off",
                "The cluster answers no anonymous request, so it cannot be discovered by a token",
                "cluster-info without a credential: HTTP 401",
                "allow anonymous access to cluster-info (kube-apiserver --anonymous-auth=true, or an AuthenticationConfiguration with that path)",
            ),
            Self::ClusterInfoForbidden(message) => row(
                Stop,
                "cluster-info-forbidden",
                "Strangers may not read cluster-info: its RoleBinding kube-public/kubeadm:bootstrap-signer-clusterinfo is gone",
                http(403, message),
                ASK_FOR_CLUSTER_INFO,
            ),
            Self::ClusterInfoMissing(saw) => row(
                Stop,
                "cluster-info-missing",
                "The cluster was not made by kubeadm, or its setup was not finished: cluster-info is missing or unusable",
                saw,
                ASK_FOR_CLUSTER_INFO,
            ),
            Self::AnswerChanged => row(
                Stop,
                "cluster-info-changed",
                "Two looks at cluster-info gave two answers, twice: somebody is in between, or the cluster is changing its CA",
                "the kubeconfig in cluster-info differs between the unverified and the verified connection",
                format!(
                    "compare with what the cluster says: kubectl -n kube-public get configmap cluster-info -o yaml; {see_certificate}"
                ),
            ),
            Self::Unsigned => row(
                NextCredential,
                "token-unsigned",
                "The token has expired or never existed, or the cluster's controller manager is down",
                format!(
                    "cluster-info has no signature for token {id}, and without cluster.ca-cert-hashes there is no server to try it on"
                ),
                NEW_TOKEN,
            ),
            Self::TokenRejected { signed } => {
                let signature = if *signed { "its secret is right" } else { "cluster-info has no signature for it either" };
                let what = if *signed {
                    "The bootstrap token has expired, or was made without the usage \"authentication\""
                } else {
                    "The bootstrap token has expired or never existed"
                };
                row(NextCredential, "token-rejected", what, format!("HTTP 401 to token {id}; {signature}"), NEW_TOKEN)
            }
            Self::TokenForbidden(message) => row(
                NextCredential,
                "token-forbidden",
                "The bootstrap token lacks the group system:bootstrappers:kubeadm:default-node-token",
                http(403, message),
                NEW_TOKEN,
            ),
            Self::WrongSignature { pinned: true } => row(
                NextCredential,
                "token-secret-wrong",
                "The bootstrap token's secret is wrong, or somebody is between this machine and the API server",
                format!("the signature of cluster-info for token {id} does not fit; the CA in it is the pinned one"),
                NEW_TOKEN,
            ),
            Self::WrongSignature { pinned: false } => row(
                Stop,
                "cluster-info-forged",
                "The token's secret is wrong, or this is another cluster, or somebody is between",
                format!("the signature of cluster-info for token {id} does not fit, and no pin vouches for the CA in it"),
                format!("check where cluster.endpoints leads to; {NEW_TOKEN}"),
            ),
            Self::PinMismatch { seen } => row(
                Stop,
                "pin-mismatch",
                "The cluster's CA is not the pinned one: another cluster, or somebody in between",
                format!("the cluster's pin is {}, configured is {}", seen.join(", "), target.pins.join(", ")),
                format!("only if this is the right cluster, correct the pin: {RIGHT_PIN}"),
            ),
            Self::NameTaken(holder) => row(
                Stop,
                "name-taken",
                format!("Another machine has the name {name}"),
                name::saw(holder, target),
                format!(
                    "if that machine lives, in /etc/gpuk/agent.toml: another [node] name, or name-taken = \"suffix\"; \
                     if it is gone: kubectl delete node {name}, or name-taken = \"take-over\""
                ),
            ),
        }
    }
}
