//! Pods need overlay mounts, bridged packets that netfilter sees, forwarding, and (unless allowed) no swap.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use crate::host::apply::sysctl_path;
use crate::look::Look;
use crate::step::{Change, Command, Stage, Status, Step, Watched};

/// A module, and the path that is there once it is loaded or when it is built in.
const MODULES: &[(&str, &str)] = &[("overlay", "/sys/module/overlay"), ("br_netfilter", "/proc/sys/net/bridge")];

/// Kernel parameters that kubeadm's preflight and every bridge CNI expect ("Container Runtimes", Kubernetes documentation).
const PARAMETERS: &[(&str, &str)] =
    &[("net.ipv4.ip_forward", "1"), ("net.bridge.bridge-nf-call-iptables", "1"), ("net.bridge.bridge-nf-call-ip6tables", "1")];

const MODULES_FILE: &str = "/etc/modules-load.d/gpuk-agent.conf";
const PARAMETERS_FILE: &str = "/etc/sysctl.d/99-gpuk-agent.conf";

/// Where modules-load.d(5) and sysctl.d(5) files live, the most important directory first.
const DIRECTORIES: &[&str] = &["/etc", "/run", "/usr/local/lib", "/usr/lib"];

/// The kernel is set up for pods, now and after a reboot.
pub struct Kernel;

#[async_trait(?Send)]
impl Step for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn purpose(&self) -> &'static str {
        "the kernel is set up for pods"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/etc/sysctl.d"), Watched::Directory("/etc/modules-load.d")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        let mut found = Found::default();
        modules(look, &mut found)?;
        parameters(look, &mut found)?;
        if !look.config.node.allow_swap {
            swap(look, &mut found)?;
        }
        if found.changes.is_empty() {
            let swap = if look.config.node.allow_swap { "swap as it is" } else { "swap off" };
            return Ok(Status::Ready(format!("overlay and br_netfilter, forwarding, bridge filtering, {swap}")));
        }
        Ok(Status::pending(found.wrong.join(", "), found.changes))
    }
}

#[derive(Default)]
struct Found {
    wrong: Vec<String>,
    changes: Vec<Change>,
}

/// The lines of every `*.conf` file of one kind that takes part at boot, in order; a file in an earlier directory hides later ones of its name.
fn boot_lines(look: Look<'_>, kind: &str) -> Result<Vec<String>> {
    let mut files = std::collections::BTreeMap::new();
    for directory in DIRECTORIES {
        for name in look.list(format!("{directory}/{kind}"))?.into_iter().filter(|name| name.ends_with(".conf")) {
            files.entry(name.clone()).or_insert_with(|| format!("{directory}/{kind}/{name}"));
        }
    }
    let mut lines = Vec::new();
    for path in files.values() {
        let text = look.read(path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        lines.extend(
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).map(str::to_owned),
        );
    }
    Ok(lines)
}

fn modules(look: Look<'_>, found: &mut Found) -> Result<()> {
    let at_boot = boot_lines(look, "modules-load.d")?;
    let forgotten: Vec<&str> =
        MODULES.iter().map(|(name, _)| *name).filter(|name| !at_boot.iter().any(|line| line == name)).collect();
    if !forgotten.is_empty() {
        found.wrong.push(format!("{} not loaded at boot", forgotten.join(" and ")));
        let all: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
        found.changes.push(Change::write(MODULES_FILE, format!("# Written by gpuk-agent.\n{}\n", all.join("\n"))));
    }
    if look.running_system() {
        let mut modprobe = vec!["modprobe", "--all"];
        for (name, sign) in MODULES {
            if !look.exists(sign)? {
                modprobe.push(name);
            }
        }
        if let [_, _, absent @ ..] = modprobe.as_slice()
            && !absent.is_empty()
        {
            found.wrong.push(format!("{} not loaded", absent.join(" and ")));
            let mut command = Command::new([], Duration::from_secs(30)).on_running_system();
            command.argv = modprobe.iter().map(|word| (*word).to_owned()).collect();
            found.changes.push(Change::Run(command));
        }
    }
    Ok(())
}

fn parameters(look: Look<'_>, found: &mut Found) -> Result<()> {
    let at_boot = boot_lines(look, "sysctl.d")?;
    let kept = |key: &str| {
        let value = |line: &String| {
            let (name, value) = line.split_once('=')?;
            let name = name.trim().trim_start_matches('-').replace('/', ".");
            (name == key).then(|| value.trim().to_owned())
        };
        at_boot.iter().rev().find_map(value)
    };
    let forgotten: Vec<&str> =
        PARAMETERS.iter().filter(|(key, value)| kept(key).as_deref() != Some(*value)).map(|(key, _)| *key).collect();
    let lines: Vec<String> = PARAMETERS.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let text = format!("# Written by gpuk-agent.\n{}\n", lines.join("\n"));
    // A later file may say otherwise on purpose; then the running kernel is put right at every boot instead.
    if !forgotten.is_empty() && look.text(PARAMETERS_FILE)?.as_deref() != Some(&text) {
        found.wrong.push(format!("{} not set at boot", forgotten.join(", ")));
        found.changes.push(Change::write(PARAMETERS_FILE, text));
    }
    if look.running_system() {
        for (key, wanted) in PARAMETERS {
            let current = look.text(sysctl_path(key))?;
            if current.as_deref().map(str::trim) != Some(wanted) {
                found.wrong.push(format!("{key} is {}", current.as_deref().map_or("absent", str::trim)));
                found.changes.push(Change::Sysctl { key: (*key).to_owned(), value: (*wanted).to_owned() });
            }
        }
    }
    Ok(())
}

fn swap(look: Look<'_>, found: &mut Found) -> Result<()> {
    let table = look.text("/etc/fstab")?.unwrap_or_default();
    let is_swap = |line: &str| !line.trim_start().starts_with('#') && line.split_whitespace().nth(2) == Some("swap");
    if table.lines().any(is_swap) {
        let lines = table
            .lines()
            .map(|line| if is_swap(line) { format!("# gpuk-agent: no swap on a node: {line}") } else { line.to_owned() });
        found.wrong.push("/etc/fstab turns swap on at boot".to_owned());
        found.changes.push(Change::write("/etc/fstab", lines.collect::<Vec<_>>().join("\n") + "\n"));
    }
    let active = look.text("/proc/swaps")?.unwrap_or_default();
    if look.running_system() && active.lines().count() > 1 {
        let names: Vec<&str> = active.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        found.wrong.push(format!("swap is on ({})", names.join(", ")));
        found.changes.push(Change::Run(Command::new(["swapoff", "--all"], Duration::from_secs(120)).on_running_system()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
