//! A machine of fakes on files: what its name is, who else would have had another one, and hosts(5).
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use super::super::identity::OwnIdentity;
use super::super::join::fixtures;
use super::super::tests::{changes, check, facts, machine, settles, written};
use super::{Hostname, with_name};
use crate::step::{Change, Status, Step};

#[tokio::test]
async fn the_hostname_is_the_instance_id_and_cloud_init_is_kept_from_it() {
    let files = [
        ("etc/hostname", "debian\n"),
        ("proc/sys/kernel/hostname", "i-1\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/cloud/cloud.cfg", ""),
    ];
    let (_root, host) = machine(&files);
    let made = settles(&Hostname, &host, &facts(), "").await;
    assert_eq!(written(&made, "/etc/hostname"), "i-1\n");
    assert!(written(&made, "/etc/cloud/cloud.cfg.d/99-gpuk-agent-hostname.cfg").contains("preserve_hostname: true"));
    let (_root, host) =
        machine(&[("etc/hostname", "i-1\n"), ("proc/sys/kernel/hostname", "dhcp-7\n"), ("etc/hosts", "127.0.1.1 i-1\n")]);
    assert_eq!(changes(check(&Hostname, &host, &facts(), "").await), [Change::Hostname("i-1".to_owned())]);
}

#[tokio::test]
async fn the_hostname_step_says_who_else_names_the_machine() {
    let lease = ("run/systemd/netif/leases/2", "HOSTNAME=ip-10-0-0-5\n");
    let (_root, host) = machine(&[
        ("etc/hostname", "i-1\n"),
        ("etc/hosts", "127.0.1.1 i-1\n"),
        ("proc/sys/kernel/hostname", "ip-10-0-0-5\n"),
        lease,
    ]);
    let Status::Pending { why, changes } = check(&Hostname, &host, &facts(), "").await else { unreachable!() };
    assert_eq!(
        why,
        "the name should be i-1: the kernel says \"ip-10-0-0-5\", as the DHCP lease /run/systemd/netif/leases/2 would have it"
    );
    assert_eq!(changes, [Change::Hostname("i-1".to_owned())]);
    let (_root, host) = machine(&[
        ("etc/hostname", "i-1\n"),
        ("etc/hosts", "127.0.1.1 i-1\n"),
        ("proc/sys/kernel/hostname", "i-1\n"),
        ("etc/cloud/cloud.cfg", ""),
        ("run/cloud-init/instance-data.json", "{\"v1\": {\"local_hostname\": \"ip-10-0-0-5\"}}"),
        lease,
    ]);
    settles(&Hostname, &host, &facts(), "").await;
    let Status::Ready(evidence) = check(&Hostname, &host, &facts(), "").await else { unreachable!() };
    assert_eq!(evidence, "i-1: node.name is \"{instance-id}\"; cloud-init wanted ip-10-0-0-5 and is told not to");
    // No cloud-init, no word about it.
    let (_root, host) =
        machine(&[("etc/hostname", "i-1\n"), ("etc/hosts", "127.0.1.1 i-1\n"), ("proc/sys/kernel/hostname", "i-1\n")]);
    assert_eq!(check(&Hostname, &host, &facts(), "").await, Status::Ready("i-1: node.name is \"{instance-id}\"".to_owned()));
}

#[tokio::test]
async fn the_name_is_said_to_be_from_where_it_is() {
    let named = |name: &str| {
        [
            ("etc/hostname", format!("{name}\n")),
            ("etc/hosts", format!("127.0.1.1 {name}\n")),
            ("proc/sys/kernel/hostname", format!("{name}\n")),
        ]
    };
    for (name, configuration, certificate, because) in [
        ("gpu-7", "[node]\nname = \"gpu-7\"\n", "", "node.name is \"gpu-7\""),
        ("gpu-1", "", fixtures::NODE_CERTIFICATE, "the kubelet's certificate is for it"),
    ] {
        let files = named(name);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let (_root, host) =
            machine(&[files.as_slice(), &[("var/lib/kubelet/pki/kubelet-client-current.pem", certificate)]].concat());
        assert_eq!(check(&Hostname, &host, &facts(), configuration).await, Status::Ready(format!("{name}: {because}")));
    }
}

#[tokio::test]
async fn a_kept_name_is_told_from_what_the_template_would_give_now() {
    let json = |joined: bool| {
        format!(
            "{{\"instanceId\": \"i-1\", \"cloud\": \"nocloud\", \"node\": \"old\", \"template\": \"{{instance-id}}\", \"joined\": {joined}}}"
        )
    };
    let (root, host) = machine(&[
        ("var/lib/gpuk-agent/identity.json", &json(true)),
        ("etc/hostname", "old\n"),
        ("etc/hosts", "127.0.1.1 old\n"),
        ("proc/sys/kernel/hostname", "old\n"),
    ]);
    let ready = async |step: &dyn Step, configuration: &str| match check(step, &host, &facts(), configuration).await {
        Status::Ready(evidence) => evidence,
        other => unreachable!("{other:?}"),
    };
    let new = "[node]\nname = \"new\"\n";
    assert_eq!(ready(&Hostname, new).await, "old: chosen before for instance i-1");
    let kept = ready(&OwnIdentity, new).await;
    assert_eq!(kept, "instance i-1, from the seed; node.name would now give new; a joined node keeps its name");
    std::fs::write(root.path().join("var/lib/gpuk-agent/identity.json"), json(false)).unwrap();
    let kept = ready(&OwnIdentity, "").await;
    assert!(kept.ends_with("; node.name would now give i-1; a name once chosen is kept"), "{kept}");
    let made = changes(check(&Hostname, &host, &facts(), "[node]\nname = \"new\"\n").await);
    assert_eq!(written(&made, "/etc/hostname"), "new\n", "nobody knows the old name yet");
}

#[test]
fn hosts_keeps_every_other_line_name_and_comment() {
    let hosts = "127.0.0.1 localhost\n127.0.1.1\told.example.com old # Debian, i-1\n\n10.0.0.9 nas\n";
    let text = with_name(hosts, "i-1", &[]).unwrap();
    assert_eq!(text, "127.0.0.1 localhost\n127.0.1.1 i-1\told.example.com old # Debian, i-1\n\n10.0.0.9 nas\n");
    assert_eq!(with_name(&text, "i-1", &[]), None);
}

#[test]
fn the_name_of_the_machine_that_a_disk_was_copied_from_leads_there_again() {
    let text = with_name("127.0.1.1 i-1\tgpu.example.com i-10 i-1 # i-1\n10.0.0.9 i-1\n", "i-2", &["i-1"]).unwrap();
    assert_eq!(text, "127.0.1.1 i-2 gpu.example.com i-10 # i-1\n10.0.0.9 i-1\n");
}

#[test]
fn a_name_in_a_comment_does_not_count() {
    assert_eq!(with_name("127.0.0.1 localhost # i-1\n", "i-1", &[]).unwrap(), "127.0.0.1 localhost # i-1\n127.0.1.1 i-1\n");
    assert_eq!(with_name("", "i-1", &[]).unwrap(), "127.0.1.1 i-1\n");
}
