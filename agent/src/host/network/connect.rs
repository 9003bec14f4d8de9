//! Whether somebody answers a port is found out by connecting, from this machine's network or from another on the same machine.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::{Unreachable, UnreachableKind};

/// Connects over TCP and hangs up. `namespace` is the file of a network namespace to connect from (setns(2), root only).
pub(super) async fn connect(to: SocketAddr, namespace: Option<PathBuf>, limit: Duration) -> Result<(), Unreachable> {
    let failed = |kind, text: String| Unreachable { kind, text };
    let ended = |kind| failed(kind, format!("{to}: the connecting thread ended early"));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: it never comes back from the other namespace.
    std::thread::spawn(move || {
        // Whoever asked may have stopped waiting.
        let _ = sender.send(enter(namespace).and_then(|()| TcpStream::connect_timeout(&to, limit)));
    });
    let connected = receiver.await.map_err(|_| ended(UnreachableKind::Other))?;
    connected.map(drop).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => UnreachableKind::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => UnreachableKind::Timeout,
            _ => UnreachableKind::Other,
        };
        failed(kind, error.to_string())
    })
}

fn enter(namespace: Option<PathBuf>) -> std::io::Result<()> {
    match namespace {
        Some(path) => Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?),
        None => Ok(()),
    }
}

/// The address from which this machine speaks to the world, IPv4 first. Nothing is sent: a datagram socket only chooses its route.
pub(super) fn own_address() -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and the default route leads there.
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")].iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}
