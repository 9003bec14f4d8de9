//! What tests ask a cluster, and what they change in it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::{DecodePem as _, Encode as _};

use super::{Cluster, TOKEN};
use crate::cache::hex;
use crate::command::run;
use crate::progress::wait_for;

impl Cluster {
    /// The bootstrap token that the cluster began with.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// The pin of the cluster's CA, as `--discovery-token-ca-cert-hash` wants it.
    pub fn ca_cert_hash(&self) -> Result<String> {
        let path = self.settings.file("pki/ca.crt");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let certificate = Certificate::from_pem(&text).with_context(|| format!("parsing {}", path.display()))?;
        let key = certificate.tbs_certificate().subject_public_key_info().to_der()?;
        Ok(format!("sha256:{}", hex(ring::digest::digest(&ring::digest::SHA256, &key).as_ref())))
    }

    /// Makes another bootstrap token; `token` is `id.secret`, `lifetime` for example `2h` or `0` for ever.
    pub fn create_token(&self, token: &str, lifetime: &str) -> Result<()> {
        let mut command = Command::new(&self.tools.kubeadm);
        command.args(["token", "create", token, "--ttl", lifetime, "--kubeconfig"]).arg(self.kubeconfig());
        run(&mut command, Duration::from_secs(60)).map(drop)
    }

    /// The client certificate and key of a node's kubelet, from this cluster's CA, that was valid in January 2025.
    pub fn expired_certificate(&self, node: &str) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let configuration = "[ca]\ndefault_ca = here\n[here]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\n\
            policy = any\n[any]\norganizationName = supplied\ncommonName = supplied\n";
        for (name, text) in [("ca.cnf", configuration), ("index", ""), ("serial", "01\n")] {
            fs::write(folder.path().join(name), text)?;
        }
        let openssl =
            |words: &[&str]| run(Command::new("openssl").current_dir(folder.path()).args(words), Duration::from_secs(60));
        let subject = format!("/O=system:nodes/CN=system:node:{node}");
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &subject,
            "-keyout",
            "key",
            "-out",
            "request",
        ])?;
        let (authority, key) = (self.directory().join("pki/ca.crt"), self.directory().join("pki/ca.key"));
        let (authority, key) = (authority.display().to_string(), key.display().to_string());
        let dates = ["-startdate", "20250101000000Z", "-enddate", "20250201000000Z"];
        let words = [
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-cert",
            &authority,
            "-keyfile",
            &key,
            "-in",
            "request",
            "-out",
            "certificate",
        ];
        openssl(&[&words[..], &dates[..]].concat())?;
        Ok(fs::read_to_string(folder.path().join("certificate"))? + &fs::read_to_string(folder.path().join("key"))?)
    }

    /// A kubeconfig with the credential that this node's kubelet would have (Kubernetes documentation, "Using Node Authorization").
    pub fn kubeconfig_of_kubelet(&self, node: &str) -> Result<String> {
        let user = ["kubeconfig", "user", "--config", "certificates.yaml", "--org", "system:nodes", "--client-name"];
        let mut command = Command::new(&self.tools.kubeadm);
        command.args(user).arg(format!("system:node:{node}")).current_dir(&self.settings.directory);
        let kubeconfig = run(&mut command, Duration::from_secs(60))?;
        Ok(super::with_server(&kubeconfig, &self.endpoint()))
    }

    /// Sets the address that `cluster-info` tells to joining nodes.
    pub fn announce(&self, endpoint: &str) -> Result<()> {
        let text = self.kubectl(&["get", "configmap", "cluster-info", "-n", "kube-public", "-o", "json"])?;
        let object: Value = serde_json::from_str(&text)?;
        let kubeconfig = object["data"]["kubeconfig"].as_str().context("cluster-info has no kubeconfig")?;
        self.patch_data("kube-public", "cluster-info", "kubeconfig", &super::with_server(kubeconfig, endpoint))
    }

    /// Changes one line of the kubelets' common configuration, or adds it.
    pub fn configure_kubelets(&self, key: &str, value: &str) -> Result<()> {
        let current = self.kubelet_configuration()?;
        let prefix = format!("{key}:");
        let indent = current.lines().find_map(|line| Some(&line[..line.find(&prefix)?])).unwrap_or_default();
        ensure!(indent.trim().is_empty(), "{key} is not a plain line of the kubelets' configuration");
        let kept = current.lines().filter(|line| !line.trim_start().starts_with(&prefix));
        // A key that stood inside a section must go back where it was.
        let mut lines: Vec<String> = kept.map(str::to_owned).collect();
        let place = current.lines().position(|line| line.trim_start().starts_with(&prefix)).unwrap_or(lines.len());
        lines.insert(place, format!("{indent}{prefix} {value}"));
        self.set_kubelet_configuration(&(lines.join("\n") + "\n"))
    }

    /// The kubelets' common configuration, a YAML text.
    pub fn kubelet_configuration(&self) -> Result<String> {
        let path = "jsonpath={.data.kubelet}";
        self.kubectl(&["get", "configmap", "kubelet-config", "-n", "kube-system", "-o", path])
    }

    /// Replaces the kubelets' common configuration.
    pub fn set_kubelet_configuration(&self, text: &str) -> Result<()> {
        self.patch_data("kube-system", "kubelet-config", "kubelet", text)
    }

    fn patch_data(&self, namespace: &str, name: &str, key: &str, value: &str) -> Result<()> {
        let patch = json!({"data": {key: value}}).to_string();
        self.kubectl(&["patch", "configmap", name, "-n", namespace, "--type=merge", "-p", &patch]).map(drop)
    }

    /// A Node, if the cluster has it.
    pub fn node(&self, name: &str) -> Result<Option<Value>> {
        self.object(&["node", name])
    }

    /// Any one object, if the cluster has it; the words are what `kubectl get` wants.
    pub fn object(&self, words: &[&str]) -> Result<Option<Value>> {
        let text = self.kubectl(&[&["get", "--ignore-not-found", "-o", "json"], words].concat())?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// When the node's kubelet last said that it lives.
    pub fn lease(&self, name: &str) -> Result<Option<String>> {
        let lease = self.object(&["lease", name, "-n", "kube-node-lease"])?;
        Ok(lease.and_then(|lease| Some(lease["spec"]["renewTime"].as_str()?.to_owned())))
    }

    /// Waits until the node is Ready and its lease was renewed after this call.
    ///
    /// Ready alone proves nothing: the Node says it for most of a minute after its machine died.
    /// After a reboot [`Cluster::wait_ready_in_boot`] knows more.
    pub fn wait_ready(&self, name: &str, limit: Duration) -> Result<Value> {
        let before = self.lease(name)?;
        wait_for(&format!("node {name} to be Ready with a renewed lease"), limit, || {
            let Some(node) = self.node(name)? else {
                return Ok(None);
            };
            let renewed = self.lease(name)?.is_some_and(|lease| Some(lease) != before);
            Ok((renewed && is_ready(&node)).then_some(node))
        })
    }

    /// Waits until the node is Ready and was reported by this very boot of its machine.
    ///
    /// A kubelet renews its lease before it reports its node, so for a moment after a reboot a
    /// renewed lease stands beside the Ready of the boot before.
    pub fn wait_ready_in_boot(&self, name: &str, boot_id: &str, limit: Duration) -> Result<Value> {
        wait_for(&format!("node {name} to be Ready in boot {boot_id}"), limit, || {
            let Some(node) = self.node(name)? else { return Ok(None) };
            Ok((is_ready(&node) && node["status"]["nodeInfo"]["bootID"] == boot_id).then_some(node))
        })
    }
}

/// Whether a Node's Ready condition is True.
pub fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
