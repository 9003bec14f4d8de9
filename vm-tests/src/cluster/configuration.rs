//! The command lines below are what `kubeadm init` writes into its static pods, for an address on the loopback interface.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::parts::KUBERNETES;
use crate::process::{Life, Process};

/// The bootstrap token that every cluster begins with.
pub const TOKEN: &str = "abcdef.0123456789abcdef";

const SERVICES: &str = "10.96.0.0/12";
/// Only Services that ask for it get an address of it.
const SERVICES_IPV6: &str = "fd00:96::/108";
const PODS: &str = "10.244.0.0/16";

#[derive(Debug)]
pub(super) struct Ports {
    pub(super) api_server: u16,
    pub(super) etcd_client: u16,
    pub(super) etcd_peer: u16,
    pub(super) controller_manager: u16,
    pub(super) scheduler: u16,
}

/// What the servers of one cluster have in common.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) address: &'static str,
    pub(super) ports: Ports,
    /// Its etcd listens at `address`, too.
    pub(super) grows: bool,
    pub(super) life: Life,
    pub(super) anonymous_access: bool,
}

impl Settings {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn endpoint(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.api_server)
    }

    pub(super) fn start(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Process> {
        let log = self.file(&format!("{name}.log"));
        Process::start(name, program, arguments, &self.directory, &log, self.life)
    }

    /// What `kubeadm` reads. The uploaded one must not name a folder of this
    /// machine: joining nodes would write the cluster's CA there.
    pub(super) fn kubeadm_configuration(&self, with_folder: bool) -> String {
        let folder = if with_folder { self.file("pki").display().to_string() } else { "/etc/kubernetes/pki".to_owned() };
        let (address, port) = (self.address, self.ports.api_server);
        // kubeadm refuses to advertise a loopback address.
        let advertised = crate::machine::HOST;
        format!(
            r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {advertised}, bindPort: {port}}}
nodeRegistration: {{name: control-plane, criSocket: "unix:///run/containerd/containerd.sock"}}
bootstrapTokens:
- token: {TOKEN}
  ttl: 24h0m0s
  usages: [signing, authentication]
  groups: ["system:bootstrappers:kubeadm:default-node-token"]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {KUBERNETES}
certificatesDir: {folder}
encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: "{address}:{port}"
networking: {{podSubnet: {PODS}, serviceSubnet: {SERVICES}}}
apiServer: {{certSANs: [127.0.0.1, localhost, {advertised}]}}
"#
        )
    }

    pub(super) fn etcd(&self) -> Vec<String> {
        let address = if self.grows { self.address } else { "127.0.0.1" };
        let client = format!("https://{address}:{}", self.ports.etcd_client);
        let peer = format!("https://{address}:{}", self.ports.etcd_peer);
        let local = |port: u16| if self.grows { format!(",https://127.0.0.1:{port}") } else { String::new() };
        words(&[
            "--name=control-plane",
            "--data-dir=etcd",
            &format!("--listen-client-urls={client}{}", local(self.ports.etcd_client)),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}{}", local(self.ports.etcd_peer)),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=control-plane={peer}"),
            "--cert-file=pki/etcd/server.crt",
            "--key-file=pki/etcd/server.key",
            "--trusted-ca-file=pki/etcd/ca.crt",
            "--client-cert-auth",
            "--peer-cert-file=pki/etcd/peer.crt",
            "--peer-key-file=pki/etcd/peer.key",
            "--peer-trusted-ca-file=pki/etcd/ca.crt",
            "--peer-client-cert-auth",
            // A test's data need not survive this machine.
            "--unsafe-no-fsync",
        ])
    }

    /// What kubeadm reads of the mirror pod of etcd, and a Node so that the pod is not collected.
    pub(super) fn mirror_pod(&self) -> String {
        let (address, port) = (self.address, self.ports.etcd_client);
        format!(
            r#"apiVersion: v1
kind: Node
metadata: {{name: control-plane, labels: {{node-role.kubernetes.io/control-plane: ""}}}}
spec: {{taints: [{{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: etcd-control-plane
  namespace: kube-system
  labels: {{component: etcd, tier: control-plane}}
  annotations: {{kubeadm.kubernetes.io/etcd.advertise-client-urls: "https://{address}:{port}"}}
spec:
  nodeName: control-plane
  hostNetwork: true
  tolerations: [{{operator: Exists}}]
  containers: [{{name: etcd, image: none, imagePullPolicy: Never}}]
"#
        )
    }

    pub(super) fn api_server(&self) -> Vec<String> {
        words(&[
            &format!("--etcd-servers=https://127.0.0.1:{}", self.ports.etcd_client),
            "--etcd-cafile=pki/etcd/ca.crt",
            "--etcd-certfile=pki/apiserver-etcd-client.crt",
            "--etcd-keyfile=pki/apiserver-etcd-client.key",
            "--bind-address=127.0.0.1",
            &format!("--advertise-address={}", crate::machine::HOST),
            &format!("--secure-port={}", self.ports.api_server),
            "--allow-privileged=true",
            &format!("--anonymous-auth={}", self.anonymous_access),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--client-ca-file=pki/ca.crt",
            "--tls-cert-file=pki/apiserver.crt",
            "--tls-private-key-file=pki/apiserver.key",
            "--kubelet-client-certificate=pki/apiserver-kubelet-client.crt",
            "--kubelet-client-key=pki/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-account-key-file=pki/sa.pub",
            "--service-account-signing-key-file=pki/sa.key",
            &format!("--service-cluster-ip-range={SERVICES},{SERVICES_IPV6}"),
            "--requestheader-client-ca-file=pki/front-proxy-ca.crt",
            "--proxy-client-cert-file=pki/front-proxy-client.crt",
            "--proxy-client-key-file=pki/front-proxy-client.key",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
        ])
    }

    pub(super) fn controller_manager(&self) -> Vec<String> {
        let mut arguments = self.client("controller-manager", self.ports.controller_manager);
        arguments.extend(words(&[
            "--controllers=*,bootstrapsigner,tokencleaner",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            &format!("--cluster-cidr={PODS}"),
            &format!("--service-cluster-ip-range={SERVICES}"),
            "--client-ca-file=pki/ca.crt",
            "--cluster-signing-cert-file=pki/ca.crt",
            "--cluster-signing-key-file=pki/ca.key",
            "--root-ca-file=pki/ca.crt",
            "--service-account-private-key-file=pki/sa.key",
        ]));
        arguments
    }

    pub(super) fn scheduler(&self) -> Vec<String> {
        self.client("scheduler", self.ports.scheduler)
    }

    fn client(&self, role: &str, port: u16) -> Vec<String> {
        let file = format!("kubeconfig/{role}.conf");
        words(&[
            &format!("--kubeconfig={file}"),
            &format!("--authentication-kubeconfig={file}"),
            &format!("--authorization-kubeconfig={file}"),
            "--bind-address=127.0.0.1",
            &format!("--secure-port={port}"),
            "--leader-elect=false",
        ])
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
