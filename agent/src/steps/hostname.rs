//! A node's name must be unique and must stay: the API server knows the machine by nothing else.

use anyhow::Result;
use async_trait::async_trait;

use crate::identity;
use crate::look::Look;
use crate::step::{Change, Stage, Status, Step};

const ETC_HOSTNAME: &str = "/etc/hostname";
const ETC_HOSTS: &str = "/etc/hosts";
const KERNEL_HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Read by cloud-init after its main file; without it `set_hostname` and `update_etc_hosts` undo the name in every boot.
const CLOUD_INIT_DROP_IN: &str = "/etc/cloud/cloud.cfg.d/99-gpuk-agent-hostname.cfg";
const CLOUD_INIT_TEXT: &str = "\
# Written by gpuk-agent: the host name is the node's name and comes from the instance id.
preserve_hostname: true
manage_etc_hosts: false
";

/// The node has a unique, stable name.
pub struct Hostname;

#[async_trait(?Send)]
impl Step for Hostname {
    fn name(&self) -> &'static str {
        "hostname"
    }

    fn purpose(&self) -> &'static str {
        "the node has a unique, stable name"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn watches(&self) -> &'static [&'static str] {
        &["/etc", "/etc/cloud/cloud.cfg.d"]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        let name = match identity::node_name(look.config, look.facts) {
            Ok(name) => name,
            Err(finding) => return Ok(Status::Broken(finding)),
        };
        let (mut wrong, mut changes) = (Vec::new(), Vec::new());
        let stored = look.text(ETC_HOSTNAME)?.unwrap_or_default();
        if stored.trim() != name {
            wrong.push(format!("{ETC_HOSTNAME} says {:?}", stored.trim()));
            changes.push(Change::write(ETC_HOSTNAME, format!("{name}\n")));
        }
        let current = look.text(KERNEL_HOSTNAME)?.unwrap_or_default();
        if current.trim() != name && look.running_system() {
            wrong.push(format!("the kernel says {:?}", current.trim()));
            changes.push(Change::Hostname(name.clone()));
        }
        let hosts = look.text(ETC_HOSTS)?.unwrap_or_default();
        if let Some(text) = with_name(&hosts, &name) {
            wrong.push(format!("{ETC_HOSTS} does not know it"));
            changes.push(Change::write(ETC_HOSTS, text));
        }
        if look.exists("/etc/cloud/cloud.cfg")? && look.text(CLOUD_INIT_DROP_IN)?.as_deref() != Some(CLOUD_INIT_TEXT) {
            wrong.push("cloud-init would undo it".to_owned());
            changes.push(Change::write(CLOUD_INIT_DROP_IN, CLOUD_INIT_TEXT));
        }
        if changes.is_empty() {
            let source = look.facts.instance.as_ref().map_or("the configuration", |instance| instance.source.as_str());
            return Ok(Status::Ready(format!("{name}, from {source}")));
        }
        Ok(Status::pending(format!("the name should be {name}: {}", wrong.join(", ")), changes))
    }
}

/// hosts(5) with the name in it, or `None` when it is there already. Debian's `127.0.1.1` line gets the name; other lines stay.
fn with_name(hosts: &str, name: &str) -> Option<String> {
    let words = |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if hosts.lines().any(|line| words(line).iter().skip(1).any(|word| word == name)) {
        return None;
    }
    let entry = format!("127.0.1.1 {name}");
    let mut lines: Vec<String> = hosts.lines().map(str::to_owned).collect();
    match lines.iter_mut().find(|line| words(line).first().is_some_and(|address| address == "127.0.1.1")) {
        Some(line) => *line = entry,
        None => lines.push(entry),
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::with_name;

    #[test]
    fn hosts_keeps_every_other_line() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 old # Debian\n\n10.0.0.9 nas\n";
        let text = with_name(hosts, "i-1").unwrap();
        assert_eq!(text, "127.0.0.1 localhost\n127.0.1.1 i-1\n\n10.0.0.9 nas\n");
        assert_eq!(with_name(&text, "i-1"), None);
    }

    #[test]
    fn a_name_in_a_comment_does_not_count() {
        assert_eq!(with_name("127.0.0.1 localhost # i-1\n", "i-1").unwrap(), "127.0.0.1 localhost # i-1\n127.0.1.1 i-1\n");
        assert_eq!(with_name("", "i-1").unwrap(), "127.0.1.1 i-1\n");
    }
}
