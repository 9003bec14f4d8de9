//! An ingress on a NodePort answers on port 80 of a joined node, and still does after somebody flushed the rule set.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vm_tests::image::File;
use vm_tests::oci::{PAUSE, SingleProgram};
use vm_tests::packages::find;
use vm_tests::parts::Program;
use vm_tests::progress::{say, seconds, wait_for};
use vm_tests::scene::{LIMIT, SHORT, Stage, doctor, wait_for_agent, watched};
use vm_tests::{Cluster, ClusterOptions, Machine, MachineOptions, Parts};

const NODE: &str = "i-ingress";

/// A web server that has nothing to show but the files that Kubernetes gives to every container.
const IMAGE: &str = "localhost/ingress:1";

#[test]
fn an_ingress_on_a_node_port_answers_on_port_80() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let archive = tempfile::NamedTempFile::new()?;
    let busybox = find("busybox").context("busybox is not installed")?;
    let command = ["/bin/httpd", "-f", "-p", "8080", "-h", "/"];
    SingleProgram { name: IMAGE, program: &busybox, place: "bin/httpd", command: &command }.write(archive.path())?;
    let image = stage.image.with_files(&[
        File::program("/usr/bin/kube-proxy", &Parts::open()?.program(Program::Proxy)?)?,
        File::program("/root/ingress.tar", archive.path())?,
    ])?;
    let more = format!("  redirects: {{ingress: true}}\n  containerd: {{pause-image: \"{PAUSE}\"}}\n");
    let user_data = stage.way_in()?.user_data() + &more;
    let mut options = MachineOptions::new(NODE, &user_data);
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    options.forwards = vec![(port, 80)];
    let mut machine = Machine::boot(&image, options)?;
    watched(&mut machine, |machine| {
        stage.cluster.wait_ready(NODE, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;
        say(format_args!("Ready {} after power-on", seconds(machine.uptime())));
        ensure!(ask(port).is_err(), "somebody answers before there is an ingress");
        machine.check("ctr --namespace k8s.io images import /root/ingress.tar", LIMIT)?;
        // As a pod of a DaemonSet does it, whose image is not to be had here.
        machine.write("/etc/kubernetes/proxy.conf", stage.cluster.kubeconfig_of_nodes()?.as_bytes(), SHORT)?;
        let proxy =
            format!("kube-proxy --kubeconfig=/etc/kubernetes/proxy.conf --proxy-mode=iptables --hostname-override={NODE}");
        machine.check(&format!("systemd-run --quiet --unit=kube-proxy /usr/bin/{proxy}"), SHORT)?;
        make_ingress(&stage.cluster)?;
        let answer = || wait_for("the ingress to answer on port 80", LIMIT, || ask(port).map(Some));
        let said = answer()?;
        ensure!(said.contains("200 OK") && said.ends_with("ingress\n"), "port 80 answers {said:?}");
        say(format_args!("port 80 answers {} after power-on", seconds(machine.uptime())));
        let evidence = doctor(machine)?;
        ensure!(evidence.code == 0 && evidence.stdout.contains("80 to 32245 (answers"), "{}", evidence.stdout);

        machine.check("nft flush ruleset", SHORT)?;
        let broken = doctor(machine)?.stdout;
        ensure!(
            broken.contains("table inet gpuk was removed since it was made"),
            "the doctor does not miss the rules:\n{broken}"
        );
        machine.check("gpuk-agent up && systemctl restart kube-proxy", LIMIT)?;
        answer().map(drop)
    })
}

/// A pod on the node, and a Service in front of it.
fn make_ingress(cluster: &Cluster) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ingress", "labels": {"app": "ingress"}}, "spec": {
        "nodeName": NODE,
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

/// What port 80 of the node says from outside: the pod's host name, which is its own.
fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /etc/hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.is_empty(), "the connection was closed without an answer");
    Ok(answer)
}
