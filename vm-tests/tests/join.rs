//! A blank machine becomes a node, stays one over a reboot, and becomes one although the agent was killed on the way.

use anyhow::{Result, ensure};
use vm_tests::progress::{say, seconds};
use vm_tests::scene::{LIMIT, SHORT, Stage, changed, doctor, wait_for_agent, watched};
use vm_tests::{ClusterOptions, Machine, MachineOptions};

/// From now on each start of kubeadm is written down.
const WATCH_KUBEADM: &str = "mv /usr/bin/kubeadm /usr/bin/kubeadm.real && \
    printf '#!/bin/sh\\necho \"$@\" >> /var/log/kubeadm-started\\nexec /usr/bin/kubeadm.real \"$@\"\\n' > /usr/bin/kubeadm && \
    chmod 0755 /usr/bin/kubeadm";

const KUBEADM_WAS_STARTED: &str = "cat /var/log/kubeadm-started 2>/dev/null || true";

#[test]
fn a_blank_machine_joins_and_a_second_run_and_a_reboot_change_nothing() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let mut machine = Machine::boot(&stage.image, MachineOptions::new("i-JOIN", &stage.way_in()?.user_data()))?;
    watched(&mut machine, |machine| {
        stage.cluster.wait_ready("i-join", LIMIT)?;
        say(format_args!("Ready {} after power-on", seconds(machine.uptime())));
        wait_for_agent(machine, LIMIT)?;
        ensure!(doctor(machine)?.code == 0, "the doctor does not call a Ready node healthy");
        machine.check(WATCH_KUBEADM, SHORT)?;

        second_run(machine)?;
        seed_disk_without_cloud_init(machine)?;
        // Figures to read, in an emulated machine many times slower than a real one; `tests/bench` has the goals.
        let figures = "systemctl show gpuk-agent -p CPUUsageNSec -p MemoryCurrent; grep VmRSS /proc/$(systemctl show gpuk-agent -p MainPID --value)/status; \
            time gpuk-agent up > /dev/null";
        let output = machine.run(figures, SHORT)?;
        say(format_args!("{}{}", output.stdout, output.stderr));

        machine.reboot(LIMIT)?;
        let boot = machine.boot_id(SHORT)?;
        stage.cluster.wait_ready_in_boot("i-join", &boot, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;
        ensure!(doctor(machine)?.code == 0, "the doctor does not call the node healthy after a reboot");
        let started = machine.check(KUBEADM_WAS_STARTED, SHORT)?;
        ensure!(started.is_empty(), "kubeadm was started on a machine that had joined: {started}");
        Ok(())
    })
}

/// Where cloud-init left nothing, the agent reads the seed disk itself, and nobody sees it mounted.
fn seed_disk_without_cloud_init(machine: &mut Machine) -> Result<()> {
    let data = "/run/cloud-init/instance-data.json";
    machine.check(&format!("mv {data} {data}.aside"), SHORT)?;
    let doctor = machine.run("gpuk-agent doctor; grep cidata /proc/mounts", SHORT)?;
    machine.check(&format!("mv {data}.aside {data}"), SHORT)?;
    let read = doctor.stdout.contains("instance i-JOIN, from meta-data on /dev/disk/by-label/cidata");
    ensure!(read && doctor.stdout.contains("is healthy"), "the seed disk was not read:\n{}{}", doctor.stdout, doctor.stderr);
    Ok(())
}

/// Nothing that is right already is touched, not even its time.
fn second_run(machine: &mut Machine) -> Result<()> {
    let files = "find /etc /usr /var/lib/gpuk-agent /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env \
        -xdev -type f -printf '%p %T@ %i\\n' | sort | grep -v -e /etc/machine-id";
    let before = machine.check(files, SHORT)?;
    let output = machine.run("gpuk-agent up", LIMIT)?;
    ensure!(output.code == 0, "a second run ended with {}:\n{}{}", output.code, output.stdout, output.stderr);
    let after = machine.check(files, SHORT)?;
    let changed = changed(&before, &after);
    ensure!(changed.is_empty(), "a second run changed files: {changed:#?}");
    let started = machine.check(KUBEADM_WAS_STARTED, SHORT)?;
    ensure!(started.is_empty(), "a second run started kubeadm: {started}");
    Ok(())
}

#[test]
fn an_agent_killed_in_the_middle_of_a_join_joins_after_a_reboot_and_survives_a_power_cut() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let mut machine = Machine::boot(&stage.image, MachineOptions::new("i-killed", &stage.way_in()?.user_data()))?;
    watched(&mut machine, |machine| {
        let kill = "until pgrep -f '^(/usr/bin/)?kubeadm join' > /dev/null; do read -t 0.05 < <(:) || true; done; \
            systemctl kill --kill-whom=main --signal=KILL gpuk-agent.service";
        machine.check(kill, LIMIT)?;
        ensure!(stage.cluster.node("i-killed")?.is_none(), "the node had joined already when the agent was killed");
        machine.reboot(LIMIT)?;
        let boot = machine.boot_id(SHORT)?;
        stage.cluster.wait_ready_in_boot("i-killed", &boot, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;

        machine.power_cut(LIMIT)?;
        let boot = machine.boot_id(SHORT)?;
        stage.cluster.wait_ready_in_boot("i-killed", &boot, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;
        ensure!(doctor(machine)?.code == 0, "the doctor does not call the node healthy after a power cut");
        Ok(())
    })
}
