//! An ingress as clusters have it: a pod behind a NodePort, with kube-proxy in front of it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::image::File;
use crate::oci::{PAUSE, SingleProgram};
use crate::packages::find;
use crate::parts::Program;
use crate::progress::wait_for;
use crate::scene::{LIMIT, SHORT};
use crate::{Cluster, Image, Machine, Parts};

/// A web server that has nothing to show but the files that Kubernetes gives to every container.
const IMAGE: &str = "localhost/ingress:1";

/// What a node needs in its user-data for it: the redirects, and the one pause image that is to be had without a registry.
pub fn user_data() -> String {
    format!("  redirects: {{ingress: true}}\n  containerd: {{pause-image: \"{PAUSE}\"}}\n")
}

/// The image with kube-proxy and the ingress's own image on it.
pub fn image(image: &Image) -> Result<Image> {
    let archive = tempfile::NamedTempFile::new()?;
    let busybox = find("busybox").context("busybox is not installed")?;
    let command = ["/bin/httpd", "-f", "-p", "8080", "-h", "/"];
    SingleProgram { name: IMAGE, program: busybox, place: "bin/httpd".to_owned(), command: &command }.write(archive.path())?;
    image.with_files(&[
        File::program("/usr/bin/kube-proxy", &Parts::open()?.program(Program::Proxy)?)?,
        File::program("/root/ingress.tar", archive.path())?,
    ])
}

/// Starts it on a node of the cluster: kube-proxy, which no image is to be had for, as a unit of systemd.
pub fn start(cluster: &Cluster, machine: &mut Machine, node: &str) -> Result<()> {
    machine.check("ctr --namespace k8s.io images import /root/ingress.tar", LIMIT)?;
    machine.write("/etc/kubernetes/proxy.conf", cluster.kubeconfig_of_nodes()?.as_bytes(), SHORT)?;
    let proxy = format!("kube-proxy --kubeconfig=/etc/kubernetes/proxy.conf --proxy-mode=iptables --hostname-override={node}");
    machine.check(&format!("systemd-run --quiet --unit=kube-proxy /usr/bin/{proxy}"), SHORT)?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ingress", "labels": {"app": "ingress"}}, "spec": {
        "nodeName": node,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "ingress", "image": IMAGE, "imagePullPolicy": "Never"}],
    }});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ingress"}, "spec": {
        "type": "NodePort",
        "selector": {"app": "ingress"},
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": 32245}],
    }});
    // The account that every pod has is made a moment after its namespace.
    wait_for("the account of pods", SHORT, || cluster.kubectl(&["get", "serviceaccount", "default"]).map(Some))?;
    for object in [pod, service] {
        cluster.kubectl_with(&["apply", "-f", "-"], &object.to_string())?;
    }
    Ok(())
}

/// A port of this machine that can lead to port 80 of another.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits for port 80 of the node, which is this port of our own, to answer: with the pod's host name, which is its own.
pub fn answer(port: u16) -> Result<String> {
    let said = wait_for("the ingress to answer on port 80", LIMIT, || ask(port).map(Some))?;
    ensure!(said.contains("200 OK") && said.ends_with("ingress\n"), "port 80 answers {said:?}");
    Ok(said)
}

/// What it says now.
pub fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /etc/hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.is_empty(), "the connection was closed without an answer");
    Ok(answer)
}
