//! A node's name must be unique and must stay: the API server knows the machine by nothing else.

mod opinions;

use anyhow::Result;
use async_trait::async_trait;

use crate::identity::decision::Decision;
use crate::identity::{self, Identity};
use crate::look::Look;
use crate::step::{Change, Stage, Status, Step, Watched};

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

/// cloud-init is there when its main file is.
const CLOUD_INIT: &str = "/etc/cloud/cloud.cfg";

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

    fn needs(&self) -> &'static [&'static str] {
        &["identity"]
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/etc"), Watched::Directory("/etc/cloud/cloud.cfg.d")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        let identity = match identity::of(look)? {
            Ok(identity) => identity,
            Err(finding) => return Ok(Status::Broken(finding)),
        };
        let name = &identity.name;
        let others = identity.decision.as_ref().map(Decision::others).unwrap_or_default();
        let differences = differences(look, name, &others)?;
        if differences.is_empty() {
            return Ok(Status::Ready(evidence(look, &identity)?));
        }
        let (wrong, changes): (Vec<String>, Vec<Change>) = differences.into_iter().unzip();
        Ok(Status::pending(format!("the name should be {name}: {}", wrong.join(", ")), changes))
    }
}

/// Every place where the system's name is not this one, with the change that makes it so. `others` are names of other machines.
pub fn differences(look: Look<'_>, name: &str, others: &[&str]) -> Result<Vec<(String, Change)>> {
    let mut differences = Vec::new();
    let mut differs = |what: String, change: Change| differences.push((what, change));
    let stored = look.text(ETC_HOSTNAME)?.unwrap_or_default();
    if stored.trim() != name {
        differs(format!("{ETC_HOSTNAME} says {:?}", stored.trim()), Change::write(ETC_HOSTNAME, format!("{name}\n")));
    }
    let current = look.text(KERNEL_HOSTNAME)?.unwrap_or_default();
    let current = current.trim();
    if current != name && look.running_system() {
        let others = opinions::all(look).into_iter().filter(|opinion| opinion.is_for(current)).map(|opinion| opinion.whose);
        let others: Vec<String> = others.chain((current == stored.trim()).then(|| ETC_HOSTNAME.to_owned())).collect();
        let whose = if others.is_empty() { String::new() } else { format!(", as {} would have it", others.join(" and ")) };
        differs(format!("the kernel says {current:?}{whose}"), Change::Hostname(name.to_owned()));
    }
    let hosts = look.text(ETC_HOSTS)?.unwrap_or_default();
    if let Some(text) = with_name(&hosts, name, others) {
        differs(format!("{ETC_HOSTS} does not know it"), Change::write(ETC_HOSTS, text));
    }
    if look.exists(CLOUD_INIT)? && look.text(CLOUD_INIT_DROP_IN)?.as_deref() != Some(CLOUD_INIT_TEXT) {
        differs("cloud-init would undo it".to_owned(), Change::write(CLOUD_INIT_DROP_IN, CLOUD_INIT_TEXT));
    }
    Ok(differences)
}

/// The name, who says so, and whether cloud-init would have had another one.
fn evidence(look: Look<'_>, identity: &Identity) -> Result<String> {
    let mut evidence = format!("{}: {}", identity.name, identity.because);
    if look.exists(CLOUD_INIT)? {
        let mut wanted = opinions::all(look).into_iter().rev().filter(|opinion| opinion.is_cloud_inits);
        if let Some(opinion) = wanted.next().filter(|opinion| !opinion.is_for(&identity.name)) {
            evidence.push_str(&format!("; cloud-init wanted {} and is told not to", opinion.name));
        }
    }
    Ok(evidence)
}

/// The address that Debian gives to the machine's own names (Debian Reference, "The hostname resolution").
const LOCAL: &str = "127.0.1.1";

/// hosts(5) with the name in it, or `None` when it is there already. Debian's `127.0.1.1` line gets it as its first name, which is the
/// canonical one; the other names, comments and lines stay, but for names of other machines.
fn with_name(hosts: &str, name: &str, others: &[&str]) -> Option<String> {
    let words = |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if hosts.lines().any(|line| words(line).iter().skip(1).any(|word| word == name)) {
        return None;
    }
    let mut lines: Vec<String> = hosts.lines().map(str::to_owned).collect();
    match lines.iter_mut().find(|line| words(line).first().is_some_and(|address| address == LOCAL)) {
        Some(line) => {
            let (names, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
            let is_kept = |part: &&str| !others.contains(&part.trim());
            let kept: String = names.split_inclusive(char::is_whitespace).filter(is_kept).collect();
            let named = kept.replacen(LOCAL, &format!("{LOCAL} {name}"), 1);
            *line = format!("{named}{comment}").trim_end().to_owned();
        }
        None => lines.push(format!("{LOCAL} {name}")),
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests;
