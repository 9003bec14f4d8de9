//! The kernel tells of every change of nftables' rules (nfnetlink, group `NFNLGRP_NFTABLES`), so nobody has to ask again and again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt::RcvBufForce,
};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES` (7) as a bit (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 1 << 6;

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h): the upper byte of a message's type.
const SUBSYSTEM: u8 = 10;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_NEWCHAIN`, `NFT_MSG_DELCHAIN`, `NFT_MSG_NEWRULE` and `NFT_MSG_DELRULE` (linux/netfilter/nf_tables.h).
/// In all of them attribute 1 is the table's name; for `NFT_MSG_DELTABLE` it is `NFTA_TABLE_NAME`.
const TELLING: [u8; 5] = [2, 3, 5, 6, 8];

/// `struct nlmsghdr`, and `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const FAMILY: usize = 4;

/// kube-proxy writes thousands of rules at once; what does not fit in here counts as a change.
const BUFFER: usize = 1 << 20;

/// Waits for a change of one table.
pub struct TableWatch {
    socket: AsyncFd<OwnedFd>,
    table: &'static str,
}

impl TableWatch {
    /// Watches a table of any of nftables' families. It needs CAP_NET_ADMIN.
    pub fn over(table: &'static str) -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = || -> nix::Result<OwnedFd> {
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
            setsockopt(&socket, RcvBufForce, &BUFFER)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
            Ok(socket)
        };
        let socket = open().context("watching the packet filter (nfnetlink)")?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may change their descriptor, which an OwnedFd does not"
        )]
        let socket = AsyncFd::new(socket).context("watching the packet filter (nfnetlink)")?;
        Ok(Self { socket, table })
    }

    /// Returns once somebody changed the table, or may have.
    pub async fn changed(&self) {
        let mut buffer = [0; 32 * 1024];
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|socket| recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from));
            match read {
                // Not ready after all.
                Err(_) => {}
                Ok(Ok(length)) if is_about(&buffer[..length.min(buffer.len())], self.table) => return,
                Ok(Ok(_)) => {}
                // More happened than the buffer holds.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return,
                Ok(Err(_)) => return std::future::pending().await,
            }
        }
    }
}

/// Whether one of these netlink messages (netlink(7)) tells of a change of the table. Nothing in them is taken on trust.
fn is_about(mut messages: &[u8], table: &str) -> bool {
    let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    while let Some(length) = number(messages.get(..4)).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = messages.get(..length).filter(|message| message.len() >= HEADER + FAMILY) else { return false };
        let [operation, subsystem] = u16::from_ne_bytes([message[4], message[5]]).to_le_bytes();
        if subsystem == SUBSYSTEM
            && TELLING.contains(&operation)
            && first_attribute(&message[HEADER + FAMILY..]) == Some(table.as_bytes())
        {
            return true;
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// The value of the attribute 1 where it is the first, without the NUL at its end.
fn first_attribute(attributes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u16::from_ne_bytes([*attributes.get(at)?, *attributes.get(at + 1)?]));
    let length = usize::from(number(0)?);
    let value = attributes.get(4..length).filter(|_| number(2) == Some(1))?;
    Some(value.strip_suffix(&[0]).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::is_about;

    fn message(subsystem: u8, operation: u8, table: &str) -> Vec<u8> {
        let length = u16::try_from(4 + table.len() + 1).unwrap();
        let mut body = vec![1, 0, 0, 0];
        body.extend(length.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(table.as_bytes());
        body.push(0);
        let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(u16::from_le_bytes([operation, subsystem]).to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn only_changes_of_the_table_count() {
        let about = |messages: &[Vec<u8>]| is_about(&messages.concat(), "gpuk");
        for operation in [2, 3, 5, 6, 8] {
            assert!(about(&[message(10, operation, "gpuk")]), "{operation}");
        }
        assert!(about(&[message(10, 8, "kube-proxy"), message(10, 8, "gpuk")]), "the second of two");
        for other in [message(10, 8, "gpuk2"), message(10, 8, "gpu"), message(1, 8, "gpuk"), message(10, 15, "gpuk")] {
            assert!(!about(&[other]));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = [message(10, 8, "x"), message(10, 2, "gpuk")].concat();
        for cut in 0..whole.len() {
            is_about(&whole[..cut], "gpuk");
            for value in [0, 1, 3, 0xff] {
                let mut wrong = whole.clone();
                wrong[cut] = value;
                is_about(&wrong, "gpuk");
            }
        }
    }
}
