//! A kernel made of files: what is missing, and swap.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use super::super::tests::{changes, check, facts, machine, settles, written};
use super::Kernel;
use crate::step::Change;

const KERNEL_FILES: [(&str, &str); 6] = [
    ("proc/sys/net/ipv4/ip_forward", "0\n"),
    ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
    ("proc/sys/net/bridge/bridge-nf-call-ip6tables", "1\n"),
    ("sys/module/overlay/refcnt", "1\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("etc/fstab", "UUID=1 / ext4 defaults 0 1\n"),
];

#[tokio::test]
async fn the_kernel_gets_what_is_missing_and_nothing_else() {
    let (root, host) = machine(&KERNEL_FILES);
    let made = settles(&Kernel, &host, &facts(), "").await;
    assert!(made.contains(&Change::Sysctl { key: "net.ipv4.ip_forward".to_owned(), value: "1".to_owned() }));
    assert!(!made.iter().any(|change| matches!(change, Change::Run(_))), "the modules are loaded: {made:?}");
    assert_eq!(std::fs::read_to_string(root.path().join("proc/sys/net/ipv4/ip_forward")).unwrap(), "1\n");
}

#[tokio::test]
async fn swap_goes_off_unless_it_is_allowed() {
    let mut files = KERNEL_FILES;
    files[4].1 = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n";
    files[5].1 = "/dev/sda2 none swap sw 0 0\n";
    let (_root, host) = machine(&files);
    let made = changes(check(&Kernel, &host, &facts(), "").await);
    assert!(made.iter().any(|change| change.to_string() == "run swapoff --all"), "{made:?}");
    assert!(written(&made, "/etc/fstab").starts_with("# gpuk-agent: no swap on a node: /dev/sda2"));
    let made = changes(check(&Kernel, &host, &facts(), "[node]\nallow-swap = true\n").await);
    assert!(!made.iter().any(|change| change.to_string().contains("swap") || change.to_string().contains("fstab")), "{made:?}");
}
