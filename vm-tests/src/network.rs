//! A cloud answers its machines at addresses that this machine must never have, so such a machine runs in a network of its own.
//!
//! QEMU's user-mode network opens each connection of its guest from QEMU's own process: in a network namespace with
//! `169.254.169.254` on its loopback interface, the guest finds there whatever listens there. The host's addresses stay as they
//! are, and chosen ports of its loopback interface are passed on, so that a control plane is where it always is.

mod asking;
mod wired;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command::run;
pub use asking::{Answers, Protocol, answer, ask};
pub use wired::{Joint, Wired};

const LIMIT: Duration = Duration::from_secs(20);

/// A network namespace with a loopback interface and nothing else.
#[derive(Debug)]
pub struct Network {
    namespace: File,
}

impl Network {
    /// A network where these IPv4 addresses are local, and these ports of this machine's 127.0.0.1 are too.
    pub fn apart(addresses: &[&str], ports: &[u16]) -> Result<Self> {
        let namespace = on_a_thread(|| enter(addresses))?;
        let network = Self { namespace };
        for port in ports.iter().copied() {
            let listener = network.listen(&format!("127.0.0.1:{port}"))?;
            thread::spawn(move || pass_on(&listener, port));
        }
        Ok(network)
    }

    /// Makes an address local to the network for what comes from the network itself, which then comes from 127.0.0.1: QEMU hands such a
    /// connection on as one of the machine's gateway, and any other with the address that it came from.
    pub fn stands_for(&self, address: &str) -> Result<()> {
        self.run("ip", &["route", "add", "local", address, "dev", "lo", "src", "127.0.0.1"]).map(drop)
    }

    /// A socket that listens inside; it may be used from anywhere.
    pub fn listen(&self, address: &str) -> Result<TcpListener> {
        self.inside(|| TcpListener::bind(address).with_context(|| format!("listening on {address} in a network namespace")))
    }

    /// The words that start a program inside.
    pub fn prefix(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.path())]
    }

    /// The same network once more, for another thread to keep.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { namespace: self.namespace.try_clone().context("keeping a network namespace twice")? })
    }

    /// Where other programs find the namespace for as long as this lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Moves the calling thread inside.
    pub fn enter(&self) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")
    }

    /// Does `work` on a thread inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| self.enter().and_then(|()| work()))
    }

    /// Runs a program inside and answers its standard output.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.inside(|| run(&mut command, LIMIT))
    }
}

/// A namespace belongs to a thread: what a thread opens inside stays inside when the thread is over.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let done = thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|_| Err(anyhow!("the thread in a network namespace panicked")))
}

fn enter(addresses: &[&str]) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace, which only root may")?;
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
