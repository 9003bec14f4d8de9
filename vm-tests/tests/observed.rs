//! A node that its platform joined and configured is looked at and reported on, and not a byte on it changes.

use anyhow::{Result, ensure};
use vm_tests::progress::wait_for;
use vm_tests::scene::{LIMIT, SHORT, Stage, changed, doctor, status, wait_for_agent, watched};
use vm_tests::{ClusterOptions, Machine, MachineOptions};

/// The mark of an image that EKS made. Nothing else says that this node is managed.
const USER_DATA: &str = "#cloud-config\nbootcmd: [[mkdir, -p, /etc/eks]]\n";

/// Every file of the disk with what changes when it does: a change time cannot be set back. The platform's own programs write where they
/// always do.
const FILES: &str = "find / -xdev \\( -path /var/log -o -path /var/lib/kubelet -o -path /var/lib/containerd -o -path /var/lib/cloud \
    -o -path /var/lib/systemd -o -path /var/tmp -o -path /run \\) -prune -o -printf '%p %i %s %m %U %T@ %C@\\n' | sort";

#[test]
fn an_observed_node_is_reported_on_and_stays_as_it_is() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let mut options = MachineOptions::new("i-observed", USER_DATA);
    "local-hostname: ip-10-0-0-7\n".clone_into(&mut options.meta_data);
    let mut machine = Machine::boot(&stage.image, options)?;
    watched(&mut machine, |machine| {
        // Before its platform has joined it, the agent waits and touches nothing.
        wait_for("the agent's first look", LIMIT, || Ok((status(machine)?["phase"] == "waiting").then_some(())))?;
        ensure!(!doctor(machine)?.stdout.contains("gpuk-agent up"), "the doctor wants to change a node that is only observed");
        let way_in = stage.way_in()?;
        let endpoint = way_in.endpoint.trim_start_matches("https://");
        let platform = format!(
            "modprobe -a overlay br_netfilter && sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 && \
             systemctl -q enable kubelet && kubeadm join {endpoint} --token {} --discovery-token-ca-cert-hash {} 2>&1",
            way_in.token, way_in.pin
        );
        machine.check(&platform, LIMIT)?;
        stage.cluster.wait_ready("ip-10-0-0-7", LIMIT)?;

        machine.check("systemctl stop gpuk-agent && rm -rf /run/gpuk-agent", SHORT)?;
        let before = machine.check(FILES, SHORT)?;
        machine.check("systemctl start gpuk-agent", SHORT)?;
        wait_for_agent(machine, LIMIT)?;
        let plan = machine.run("gpuk-agent plan", SHORT)?;
        ensure!(plan.code == 0 && plan.stdout.contains("Nothing to do."), "plan is not empty: {}", plan.stdout);
        let doctor = doctor(machine)?;
        ensure!(doctor.code == 0 && doctor.stdout.contains("Node ip-10-0-0-7 is Ready"), "{}{}", doctor.stdout, doctor.stderr);
        let facts = machine.run("gpuk-agent facts", SHORT)?.stdout;
        ensure!(facts.contains("observed, because EKS: /etc/eks is there"), "{facts}");
        machine.check("gpuk-agent up", SHORT)?;
        let after = machine.check(FILES, SHORT)?;
        let changed = changed(&before, &after);
        ensure!(changed.is_empty(), "the disk was changed: {changed:#?}");

        // What the cluster sees is all that it leaves behind.
        let node = stage.cluster.node("ip-10-0-0-7")?.unwrap_or_default();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let reported =
            conditions.iter().any(|condition| condition["type"] == "NodeBootstrapped" && condition["status"] == "True");
        ensure!(reported, "no condition was reported: {conditions:#?}");
        Ok(())
    })
}
