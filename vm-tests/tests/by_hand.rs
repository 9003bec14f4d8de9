//! The harness without the agent: a node is set up and joined by hand.

use std::time::Duration;

use anyhow::Result;
use vm_tests::progress::{say, seconds};
use vm_tests::{Cluster, ClusterOptions, Image, Machine, MachineOptions, Packages, Parts};

const LONG: Duration = Duration::from_secs(240);

#[test]
#[ignore = "shows that the harness works, with no agent in it"]
fn a_node_joined_by_hand_comes_back_after_a_reboot_and_a_power_cut() -> Result<()> {
    Packages::look().install()?;
    let parts = Parts::open()?;
    let image = Image::blank(&parts)?;
    let cluster = Cluster::start(&parts, ClusterOptions::default())?;
    let mut machine =
        Machine::boot(&image, MachineOptions::new("i-hand", "#cloud-config\nruncmd: [\"echo seed was read > /dev/ttyS0\"]\n"))?;
    machine.wait_for_shell(LONG)?;
    say(format_args!("shell after {}", seconds(machine.uptime())));
    machine.wait_for_line("seed was read", LONG)?;
    say(format_args!("cloud-init ran its commands after {}", seconds(machine.uptime())));
    say(machine.check("hostname; systemd-analyze; systemctl --failed --no-legend; systemctl is-enabled kubelet; cat /etc/machine-id; ip -br a", LONG).unwrap_or_default());
    machine.check(
        "modprobe br_netfilter; sysctl -w net.ipv4.ip_forward=1; hostnamectl hostname i-hand; containerd config default | \
         sed 's/SystemdCgroup = false/SystemdCgroup = true/; s#bin_dir = .*#bin_dir = \"/usr/lib/cni\"#; s#sandbox_image = .*#sandbox_image = \"registry.k8s.io/pause:3.10.1\"#' \
         > /etc/containerd/config.toml; systemctl restart containerd; echo '127.0.1.1 i-hand' >> /etc/hosts; systemctl enable kubelet",
        LONG,
    )?;
    let start = machine.uptime();
    let join = format!(
        "kubeadm join {} --token {} --discovery-token-ca-cert-hash {} 2>&1",
        cluster.endpoint().trim_start_matches("https://"),
        cluster.token(),
        cluster.ca_cert_hash()?
    );
    let output = machine.run(&join, LONG)?;
    say(format_args!("kubeadm join took {}: {}\n{}", seconds(machine.uptime() - start), output.code, output.stdout));
    cluster.wait_ready("i-hand", LONG)?;
    say(format_args!("Ready {} after the join began", seconds(machine.uptime() - start)));
    say(cluster.kubectl(&["get", "nodes", "-o", "wide"])?);

    for (what, cut) in [("reboot", false), ("power cut", true)] {
        let start = machine.uptime();
        if cut {
            machine.power_cut(LONG)?
        } else {
            machine.reboot(LONG)?
        }
        say(format_args!("{what}: shell after {}", seconds(machine.uptime() - start)));
        let boot = machine.boot_id(LONG)?;
        cluster.wait_ready_in_boot("i-hand", &boot, LONG)?;
        say(format_args!("{what}: Ready in that boot after {}", seconds(machine.uptime() - start)));
    }
    Ok(())
}
