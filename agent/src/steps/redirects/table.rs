//! A packet's port is rewritten before connection tracking, so that whoever decides about the target port decides as ever.
//!
//! A REDIRECT or DNAT in the nat table ends the packet's way through that table: a rule for port 80 keeps kube-proxy's and portmap's
//! rules from ever seeing the packet. Here the packet has its new port before anybody's nat looks at it, and gets the old one back on
//! its way out, after everybody's: no order among the others matters, and none of their rules is touched.
//!
//! One thing is lost: an ICMP error about a packet on its way back names the port that people know, and connection tracking knows the
//! other one. Path MTU discovery towards clients behind a narrower link works for TCP by its own probing only
//! (`net.ipv4.tcp_mtu_probing`).

use std::fmt::Write as _;
use std::iter;

use crate::config::{Redirect, Redirects};
use crate::digest::sha256;

/// The table, in nftables' family `inet`. Everything in it is the agent's.
pub const NAME: &str = "gpuk";

/// Before connection tracking (-200) and before whoever puts rules right in front of it (-300, "raw"); Netfilter hook priorities,
/// `NF_IP_PRI_*` in linux/netfilter_ipv4.h.
const BEFORE_TRACKING: i32 = -350;

/// Right after connection tracking, before mangle (-150) and nat (-100).
const AFTER_TRACKING: i32 = -151;

/// After nat (100) and after the last of the kernel's own (`NF_IP_PRI_SELINUX_LAST`, 225; conntrack helpers, 300).
const AFTER_ALL: i32 = 310;

/// What the kernel must hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// In the order in which they are made.
    pub chains: Vec<Chain>,
}

/// One chain at a hook of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// The kernel's hook, e.g. `prerouting`.
    pub hook: &'static str,
    /// When its turn comes among those at the hook.
    pub priority: i32,
    /// Its rules, without their comments.
    pub rules: Vec<String>,
}

impl Table {
    /// The table for these redirects. A packet from outside passes `prerouting` and `postrouting`, one of the node itself `output` and `input`.
    pub fn of(config: &Redirects) -> Self {
        let wanted = config.wanted();
        let rewrite: Vec<String> = wanted.iter().flat_map(|redirect| rewrite(redirect, config.mark.0)).collect();
        let restore: Vec<String> = wanted.iter().flat_map(|redirect| restore(redirect, config.mark.0)).collect();
        // What the node sends to itself comes by here a second time, rewritten already.
        let forget = |from| wanted.iter().flat_map(move |redirect| forget(redirect, config.mark.0, from));
        let remember_foreign = iter::once(remember(config.mark.0)).chain(forget("iifname != \"lo\" ")).collect();
        let remember_own = iter::once(remember(config.mark.0)).chain(forget("")).collect();
        let chain = |name, hook, priority, rules: &Vec<String>| Chain { name, hook, priority, rules: rules.clone() };
        let mut chains = vec![
            chain("rewrite", "prerouting", BEFORE_TRACKING, &rewrite),
            chain("remember", "prerouting", AFTER_TRACKING, &remember_foreign),
            chain("restore", "postrouting", AFTER_ALL, &restore),
        ];
        if config.from_node {
            chains.extend([
                chain("rewrite-own", "output", BEFORE_TRACKING, &rewrite),
                chain("remember-own", "output", AFTER_TRACKING, &remember_own),
                chain("restore-own", "input", AFTER_ALL, &restore),
            ]);
        }
        Self { chains }
    }

    /// As nft(8) reads it: whatever the table held is replaced, in one transaction.
    pub fn text(&self) -> String {
        let mut text = format!("# Written by gpuk-agent.\ntable inet {NAME}\ndelete table inet {NAME}\ntable inet {NAME} {{\n");
        for chain in &self.chains {
            let Chain { name, hook, priority, .. } = chain;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\tchain {name} {{\n\t\ttype filter hook {hook} priority {priority}; policy accept;");
            for (rule, comment) in chain.rules.iter().zip(chain.comments()) {
                let _ = writeln!(text, "\t\t{rule} comment \"{comment}\"");
            }
            text.push_str("\t}\n");
        }
        text + "}\n"
    }
}

impl Chain {
    /// What each rule is known by. nft(8) prints rules in other words in each of its versions; a comment stays as it is.
    pub fn comments(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| {
            let digest = sha256(rule.as_bytes());
            format!("gpuk-agent {}", digest.get(..16).unwrap_or(&digest))
        })
    }
}

fn rewrite(redirect: &Redirect, mark: u32) -> Vec<String> {
    let Redirect { port, to, .. } = redirect;
    each(redirect, |family, protocol| {
        format!(
            "{family}fib daddr type local {protocol} dport {port} meta mark set meta mark or {mark:#x} {protocol} dport set {to} accept"
        )
    })
}

/// The packet's mark is only the way from before connection tracking to behind it, and is taken off again.
fn remember(mark: u32) -> String {
    format!("meta mark and {mark:#x} != 0 ct mark set ct mark or {mark:#x} meta mark set meta mark and {:#x} accept", !mark)
}

/// A connection stays known for a while when it is over (UDP: 30 s to 2 min): whoever uses the target port itself then, from the same
/// port, is not redirected. The port is asked for because ICMP errors have their connection's direction and mark, too.
fn forget(redirect: &Redirect, mark: u32, from: &str) -> Vec<String> {
    let to = redirect.to;
    each(redirect, |family, protocol| {
        format!(
            "{from}{family}{protocol} dport {to} ct direction original ct mark and {mark:#x} != 0 ct mark set ct mark and {:#x}",
            !mark
        )
    })
}

fn restore(redirect: &Redirect, mark: u32) -> Vec<String> {
    let Redirect { port, to, .. } = redirect;
    each(redirect, |family, protocol| {
        format!("{family}ct direction reply ct mark and {mark:#x} != 0 {protocol} sport {to} {protocol} sport set {port} accept")
    })
}

fn each(redirect: &Redirect, rule: impl Fn(&str, &str) -> String) -> Vec<String> {
    let family = match redirect.families.as_slice() {
        [only] => format!("meta nfproto {} ", only.word()),
        _ => String::new(),
    };
    redirect.protocols.iter().map(|protocol| rule(&family, protocol.word())).collect()
}
