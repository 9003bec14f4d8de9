//! A replay of what Felix (Calico's agent) does to the tables that a redirect passes; it decides about no packet, so policies are not shown.
//!
//! Calico's documentation of `ChainInsertMode: Insert` and felix/rules/static.go say what it writes: chains of its own, to which it
//! jumps from the top of the kernel's, and marks in the upper half. Whatever comes to stand above is overtaken again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use vm_tests::Network;

use crate::iptables::Iptables;
use crate::parts::Node;

/// How often the real one is seen to do it.
const PERIOD: Duration = Duration::from_secs(2);

const JUMP: &str = "PREROUTING -m comment --comment \"cali:replayed\" -j cali-PREROUTING";

/// Its chains and their rules, table by table.
const CHAINS: [(&str, &str); 3] = [
    (
        "raw",
        ":cali-PREROUTING - [0:0]\n\
         -A cali-PREROUTING -j MARK --set-xmark 0x0/0xffff0000\n\
         -A cali-PREROUTING -i pod+ -j MARK --set-xmark 0x40000/0x40000\n\
         -A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT\n",
    ),
    (
        "mangle",
        ":cali-PREROUTING - [0:0]\n\
         -A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT\n",
    ),
    ("nat", ":cali-PREROUTING - [0:0]\n:cali-fip-dnat - [0:0]\n-A cali-PREROUTING -j cali-fip-dnat\n"),
];

/// It goes on until it is ended.
pub struct Felix {
    insertions: Arc<AtomicUsize>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Felix {
    /// Makes its chains on a node and keeps its jumps at the top.
    pub fn beside(node: &Node) -> Result<Self> {
        write(&node.iptables, &node.wired.node, |(table, chains)| format!("*{table}\n{chains}-I {JUMP}\nCOMMIT\n"))?;
        let (iptables, network, insertions) =
            (node.iptables.clone(), node.wired.node.try_clone()?, Arc::new(AtomicUsize::new(0)));
        let (stop, stopped) = mpsc::channel();
        let count = Arc::clone(&insertions);
        let thread = thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
                write(&iptables, &network, |(table, _)| format!("*{table}\n-D {JUMP}\n-I {JUMP}\nCOMMIT\n"))?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { insertions, stop, thread })
    }

    /// How often it put its jumps first.
    pub fn insertions(&self) -> usize {
        self.insertions.load(Ordering::Relaxed)
    }

    /// Its rules stay.
    pub fn end(self) -> Result<()> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the thread that plays Felix panicked"))?
    }
}

fn write(iptables: &Iptables, network: &Network, text: impl Fn((&str, &str)) -> String) -> Result<()> {
    let all: String = CHAINS.into_iter().map(text).collect();
    ["iptables-restore", "ip6tables-restore"]
        .iter()
        .try_for_each(|program| iptables.run_with(network, &[program, "--noflush", "--wait"], &all).map(drop))
}
