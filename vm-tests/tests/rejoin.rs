//! A node that was one before is one again without a hand: its API server moved, its certificate expired in its sleep, files were
//! lost, its Node was deleted, its API server was away.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use vm_tests::progress::{say, seconds, wait_for};
use vm_tests::scene::{LIMIT, SHORT, Stage, doctor, wait_for_agent, watched};
use vm_tests::{ClusterOptions, Machine, MachineOptions};

const NODE: &str = "i-rejoin";

/// From now on each start of kubeadm is written down: none of these cures needs it.
const WATCH_KUBEADM: &str = "mv /usr/bin/kubeadm /usr/bin/kubeadm.real && \
    printf '#!/bin/sh\\necho \"$@\" >> /var/log/kubeadm-started\\nexec /usr/bin/kubeadm.real \"$@\"\\n' > /usr/bin/kubeadm && \
    chmod 0755 /usr/bin/kubeadm";

/// The service looks slowly at what does not change; a watched folder that changes makes it look at once.
const LOOK_NOW: &str = "touch /etc/kubernetes/look && rm /etc/kubernetes/look";

#[test]
fn a_node_comes_back_from_whatever_befell_it_and_kubeadm_is_not_needed() -> Result<()> {
    let mut stage = Stage::set(ClusterOptions::default(), None)?;
    let evening = Balancer::before(stage.cluster.port())?;
    let morning = Balancer::before(stage.cluster.port())?;
    morning.closed.store(true, Ordering::Relaxed);
    let user_data = stage.way_in()?.user_data();
    let both = format!("\"{}\", \"{}\"", evening.endpoint(), morning.endpoint());
    let user_data = user_data.replace(&format!("\"{}\"", stage.cluster.endpoint()), &both);
    let mut machine = Machine::boot(&stage.image, MachineOptions::new(NODE, &user_data))?;
    watched(&mut machine, |machine| {
        stage.cluster.wait_ready(NODE, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;
        machine.check(WATCH_KUBEADM, SHORT)?;

        endpoint_moved(&stage, machine, &evening, &morning)?;
        certificate_expired(&stage, machine)?;
        for what in ["certificate emptied", "kubelet.conf cut"] {
            file_lost(&stage, machine, what)?;
        }
        node_deleted(&stage, machine)?;
        api_server_away(&mut stage, machine)?;

        ensure!(doctor(machine)?.code == 0, "the doctor does not call the node healthy");
        let left = machine.run("ls /etc/kubernetes/bootstrap-kubelet.conf", SHORT)?;
        ensure!(left.code != 0, "the bootstrap token is left on the disk");
        let started = machine.check("cat /var/log/kubeadm-started 2>/dev/null || true", SHORT)?;
        ensure!(started.is_empty(), "kubeadm was started: {started}");
        Ok(())
    })
}

/// While the machine slept its load balancer was taken away, and made again with another address.
fn endpoint_moved(stage: &Stage, machine: &mut Machine, evening: &Balancer, morning: &Balancer) -> Result<()> {
    machine.shut_down(LIMIT)?;
    evening.close();
    morning.closed.store(false, Ordering::Relaxed);
    wake(stage, machine, "the API server has another address")?;
    let server = machine.check("grep server: /etc/kubernetes/kubelet.conf", SHORT)?;
    ensure!(server.contains(&morning.endpoint()), "the kubelet asks {server}");
    Ok(())
}

/// The certificate is one that the cluster's own CA gave, with dates that are over.
fn certificate_expired(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let expired = stage.cluster.expired_certificate(NODE)?;
    machine.write("/var/lib/kubelet/pki/expired.pem", expired.as_bytes(), SHORT)?;
    let replace = "systemctl stop gpuk-agent kubelet && cd /var/lib/kubelet/pki && chmod 0600 expired.pem && \
        ln -sf /var/lib/kubelet/pki/expired.pem kubelet-client-current.pem && sync";
    machine.check(replace, SHORT)?;
    machine.power_off_hard()?;
    wake(stage, machine, "its certificate expired while it slept")
}

/// What a power cut may leave.
fn file_lost(stage: &Stage, machine: &mut Machine, what: &str) -> Result<()> {
    let lose = match what {
        "certificate emptied" => ": > \"$(readlink -f /var/lib/kubelet/pki/kubelet-client-current.pem)\"",
        _ => "truncate --size 300 /etc/kubernetes/kubelet.conf",
    };
    machine.check(&format!("systemctl stop gpuk-agent kubelet && {lose} && sync"), SHORT)?;
    machine.power_off_hard()?;
    wake(stage, machine, what)
}

/// An autoscaler, or a person, took the Node away; the running kubelet does not mind.
fn node_deleted(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let uid = |stage: &Stage| Ok::<_, anyhow::Error>(stage.cluster.node(NODE)?.map(|node| node["metadata"]["uid"].clone()));
    let before = uid(stage)?;
    let began = machine.uptime();
    stage.cluster.kubectl(&["delete", "node", NODE])?;
    machine.check(LOOK_NOW, SHORT)?;
    wait_for("another Node of the same name", LIMIT, || Ok(uid(stage)?.filter(|uid| Some(uid) != before.as_ref())))?;
    stage.cluster.wait_ready(NODE, LIMIT)?;
    say(format_args!("its Node was deleted: Ready again after {}", seconds(machine.uptime() - began)));
    wait_for_agent(machine, LIMIT)
}

/// The cluster was away so long that it gave the node up.
fn api_server_away(stage: &mut Stage, machine: &mut Machine) -> Result<()> {
    stage.cluster.stop_api_server()?;
    let outage = "until journalctl -q -u kubelet --since -20s | grep -q 'Failed to ensure lease exists'; do read -t 1 < <(:) || true; done";
    machine.check(outage, LIMIT)?;
    stage.cluster.start_api_server()?;
    let began = machine.uptime();
    machine.check(LOOK_NOW, SHORT)?;
    stage.cluster.wait_ready(NODE, LIMIT)?;
    say(format_args!("its API server was away: Ready {} after its return", seconds(machine.uptime() - began)));
    wait_for_agent(machine, LIMIT)
}

/// Power on, and Ready in this boot.
fn wake(stage: &Stage, machine: &mut Machine, why: &str) -> Result<()> {
    machine.power_on()?;
    machine.wait_for_shell(LIMIT)?;
    let boot = machine.boot_id(SHORT)?;
    stage.cluster.wait_ready_in_boot(NODE, &boot, LIMIT)?;
    say(format_args!("{why}: Ready {} after power-on", seconds(machine.uptime())));
    wait_for_agent(machine, LIMIT)
}

/// A TCP load balancer before the API server, whose address can go away.
struct Balancer {
    port: u16,
    closed: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Balancer {
    fn before(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let own = Self { port: listener.local_addr()?.port(), closed: Arc::default(), open: Arc::default() };
        let (closed, open) = (Arc::clone(&own.closed), Arc::clone(&own.open));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to) in [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))] {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    if let (Ok(mut open), Ok(kept)) = (open.lock(), from.try_clone()) {
                        open.push(kept);
                    }
                    std::thread::spawn(move || copy(from, to));
                }
            }
        });
        Ok(own)
    }

    fn endpoint(&self) -> String {
        format!("https://{}:{}", vm_tests::machine::HOST, self.port)
    }

    /// Hangs up on everybody, from now on.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for stream in self.open.lock().into_iter().flat_map(|mut open| std::mem::take(&mut *open)) {
            // The other side may have hung up already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown(Shutdown::Both);
}
