//! A cloud answers its machines at addresses that this machine must never have, so such a machine runs in a network of its own.
//!
//! QEMU's user-mode network opens each connection of its guest from QEMU's own process: in a network namespace with
//! `169.254.169.254` on its loopback interface, the guest finds there whatever listens there. The host's addresses stay as they
//! are, and chosen ports of its loopback interface are passed on, so that a control plane is where it always is.

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, unshare};

use crate::command::run;

const LIMIT: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a loopback interface and nothing else.
#[derive(Debug)]
pub struct Network {
    namespace: File,
    /// Does its work inside of the namespace.
    inside: mpsc::Sender<Job>,
}

impl Network {
    /// A network where these IPv4 addresses are local, and these ports of this machine's 127.0.0.1 are too.
    pub fn apart(addresses: &[&str], ports: &[u16]) -> Result<Self> {
        let (inside, jobs) = mpsc::channel::<Job>();
        let (sender, receiver) = mpsc::channel();
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        // A namespace belongs to a thread: what this one opens and starts lies inside.
        thread::spawn(move || {
            let entered = enter(&addresses);
            let failed = entered.is_err();
            if sender.send(entered).is_ok() && !failed {
                jobs.into_iter().for_each(|job| job());
            }
        });
        let namespace = receiver.recv().map_err(|_| anyhow!("the thread of a network namespace is gone"))??;
        let network = Self { namespace, inside };
        for port in ports.iter().copied() {
            let listener = network.listen(&format!("127.0.0.1:{port}"))?;
            thread::spawn(move || pass_on(&listener, port));
        }
        Ok(network)
    }

    /// A socket that listens inside; it may be used from anywhere.
    pub fn listen(&self, address: &str) -> Result<TcpListener> {
        let (sender, receiver) = mpsc::channel();
        let at = address.to_owned();
        let job: Job = Box::new(move || drop(sender.send(TcpListener::bind(at))));
        let gone = || anyhow!("the thread of a network namespace is gone");
        self.inside.send(job).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?.with_context(|| format!("listening on {address} in a network namespace"))
    }

    /// The words that start a program inside.
    pub(crate) fn prefix(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())]
    }
}

fn enter(addresses: &[String]) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (is this root?)")?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]), LIMIT)?;
    for address in addresses {
        run(Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]), LIMIT)?;
    }
    File::open("/proc/thread-self/ns/net").context("opening a network namespace")
}

/// Passes connections on to the same port outside, until the listener is gone.
fn pass_on(listener: &TcpListener, port: u16) {
    while let Ok((inner, _)) = listener.accept() {
        let Ok(outer) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let both =
            || -> io::Result<_> { Ok([(inner.try_clone()?, outer.try_clone()?), (outer.try_clone()?, inner.try_clone()?)]) };
        for (mut from, mut to) in both().into_iter().flatten() {
            thread::spawn(move || {
                // However it ends, the other side must learn of it.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn an_address_inside_is_not_outside_and_a_port_outside_is_inside() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = outside.local_addr().unwrap().port();
        let network = Network::apart(&["192.0.2.77"], &[port]).unwrap();
        let _listener = network.listen("192.0.2.77:80").unwrap();
        assert!(TcpListener::bind("192.0.2.77:80").is_err(), "the address is this machine's too");
        let [program, namespace] = network.prefix();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; head -c 3 <&3");
        let mut inside = Command::new(program);
        inside.args([namespace.as_str(), "bash", "-c", &script]);
        let asked = thread::spawn(move || run(&mut inside, LIMIT).unwrap());
        let mut stream = outside.accept().unwrap().0;
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello\n");
        stream.write_all(b"bye").unwrap();
        assert_eq!(asked.join().unwrap(), "bye");
    }
}
