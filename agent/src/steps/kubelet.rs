//! Labels, taints and provider id count only when the kubelet registers its Node, so its flags must be right before it starts.

pub mod differences;
mod environment_file;
pub mod registration;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;

use super::join::CERTIFICATE;
use super::k3s;
use crate::host::units::{UNIT_DIRECTORIES, UnitState};
use crate::identity;
use crate::look::Look;
use crate::step::{Change, Finding, Stage, Status, Step, UnitVerb, Watched};
use differences::differences;
use environment_file::{quoted, unquoted};
use registration::Registration;

/// The unit that kubeadm's packages install.
pub const UNIT: &str = "kubelet.service";

/// Sorts after kubeadm's `10-kubeadm.conf`, whose `KUBELET_EXTRA_ARGS` is the place for an operator's own flags.
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/50-gpuk-agent.conf";
const FLAGS_FILE: &str = "/var/lib/gpuk-agent/kubelet.env";
const DROP_IN_TEXT: &str = "\
# Written by gpuk-agent. A later EnvironmentFile wins over kubeadm's (systemd.exec(5)); the operator's own flags are in it too.
[Service]
EnvironmentFile=-/var/lib/gpuk-agent/kubelet.env
";

/// Where kubeadm's drop-in reads the operator's flags (Debian's and Red Hat's place).
const OPERATOR_FLAGS: &[&str] = &["/etc/default/kubelet", "/etc/sysconfig/kubelet"];

/// The kubelet's configuration, written by kubeadm at the join from the cluster's ConfigMap `kube-system/kubelet-config`.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// The kubelet registers its Node with the right flags.
pub struct Kubelet;

#[async_trait(?Send)]
impl Step for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn purpose(&self) -> &'static str {
        "the kubelet registers with the right address, labels and taints"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    /// Whatever makes systemd start the kubelet comes after the credentials on the disk are known to be this node's.
    fn needs(&self) -> &'static [&'static str] {
        &["identity"]
    }

    fn watches(&self) -> &'static [Watched] {
        &[
            Watched::Directory("/etc/systemd/system/kubelet.service.d"),
            Watched::Directory("/etc/default"),
            Watched::Directory("/etc/rancher/k3s/config.yaml.d"),
        ]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if k3s::is_wanted(look.config) {
            return k3s::kubelet(look).await;
        }
        let mut installed = false;
        for place in UNIT_DIRECTORIES {
            installed = installed || look.exists(format!("{place}/{UNIT}"))?;
        }
        if !installed {
            return Ok(Status::Broken(Finding::new(
                "kubelet-not-installed",
                "The kubelet is not installed",
                format!("no {UNIT} in {}", UNIT_DIRECTORIES.join(", ")),
                "install the packages kubelet and kubeadm of the cluster's minor version, then: gpuk-agent up",
            )));
        }
        if let Some(finding) = cgroup_driver(look)? {
            return Ok(Status::Broken(finding));
        }
        let written = look.text(FLAGS_FILE)?;
        let wanted = Registration::wanted(look);
        // What a Node was registered with stays written down: the file is read when the Node was deleted and registers again.
        // The kubelet registers within seconds of getting its certificate. Only root may read that, but more may see it.
        let is_registered = look.exists(CERTIFICATE)?;
        let registered = written.as_deref().filter(|_| is_registered).and_then(Registration::read);
        let registration = registered.as_ref().unwrap_or(&wanted);
        let flags = Flags::of(look, registration);
        let environment = environment(look, registration, &flags.all())?;
        let (mut wrong, mut changes) = (Vec::new(), Vec::new());
        if written.as_deref() != Some(&environment) {
            wrong.push("its flags are not written down".to_owned());
            changes.push(Change::write(FLAGS_FILE, environment));
        }
        if look.text(DROP_IN)?.as_deref() != Some(DROP_IN_TEXT) {
            wrong.push("its unit does not read them".to_owned());
            changes.push(Change::write(DROP_IN, DROP_IN_TEXT));
        }
        if look.running_system() {
            let unit = look.unit(UNIT).await?.unwrap_or_default();
            let drop_in_changes = changes
                .iter()
                .any(|change| matches!(change, Change::Write { path, .. } if path == std::path::Path::new(DROP_IN)));
            // Enabling makes systemd read all unit files again, and one such reading is enough.
            if unit.file == "disabled" {
                wrong.push("it is not started at boot".to_owned());
                changes.push(Change::Unit(UnitVerb::Enable, UNIT.to_owned()));
            } else if unit.needs_reload || drop_in_changes {
                wrong.push("systemd has not read its unit".to_owned());
                changes.push(Change::Unit(UnitVerb::Reload, UNIT.to_owned()));
            }
            if let Some(flag) = missing_flag(look, &unit, &flags.enforced(is_registered))? {
                if changes.is_empty() && !is_older(look, &unit)? {
                    return Ok(Status::Broken(ignores(&flag)));
                }
                wrong.push(format!("it runs without {flag}"));
                changes.push(Change::Unit(UnitVerb::Restart, UNIT.to_owned()));
            }
        }
        if changes.is_empty() {
            let flags = flags.all();
            let flags = if flags.is_empty() { "no flags of ours".to_owned() } else { flags.join(" ") };
            let name = identity::name(look).unwrap_or_else(|| "NAME".to_owned());
            let differing =
                registered.and_then(|registered| differences(&registered, &wanted, look.config, &name, (FLAGS_FILE, "kubelet")));
            return Ok(Status::Ready(differing.map_or(flags.clone(), |differing| format!("{flags}; {differing}"))));
        }
        Ok(Status::pending(wrong.join(", "), changes))
    }
}

/// Our flags, in three parts.
struct Flags {
    address: Option<String>,
    registration: Vec<String>,
    extra: Vec<String>,
}

impl Flags {
    fn of(look: Look<'_>, registration: &Registration) -> Self {
        let node = &look.config.node;
        let address = node.ip.map(|ip| format!("--node-ip={ip}"));
        Self { address, registration: registration.flags(), extra: node.kubelet_extra_args.clone() }
    }

    fn all(&self) -> Vec<String> {
        self.address.iter().chain(&self.registration).chain(&self.extra).cloned().collect()
    }

    /// Those without which the kubelet may not run: of a registered Node only those that still count.
    fn enforced(&self, is_registered: bool) -> Vec<String> {
        if is_registered { self.address.iter().chain(&self.extra).cloned().collect() } else { self.all() }
    }
}

/// The environment file: the operator's own flags first, then ours.
fn environment(look: Look<'_>, registration: &Registration, flags: &[String]) -> Result<String> {
    let mut all = Vec::new();
    for place in OPERATOR_FLAGS {
        let text = look.text(place)?.unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("KUBELET_EXTRA_ARGS="));
        all.extend(lines.map(unquoted).filter(|value| !value.is_empty()));
    }
    all.extend(flags.iter().cloned());
    let (heading, line) = ("# Written by gpuk-agent: the operator's flags, then ours.", registration.line());
    Ok(format!("{heading}\n{line}\nKUBELET_EXTRA_ARGS={}\n", quoted(&all.join(" "))))
}

/// The first of these flags that the running kubelet was not started with.
fn missing_flag(look: Look<'_>, unit: &UnitState, flags: &[String]) -> Result<Option<String>> {
    let line = look.read(format!("/proc/{}/cmdline", unit.main_pid))?.unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    // A process that systemd has only just forked is not the kubelet yet.
    if !unit.is_running() || !words.first().is_some_and(|program| program.ends_with(b"kubelet")) {
        return Ok(None);
    }
    Ok(flags.iter().find(|flag| !words.contains(&flag.as_bytes())).cloned())
}

/// Whether the kubelet was started before its flags were written down: then it cannot know them.
fn is_older(look: Look<'_>, unit: &UnitState) -> Result<bool> {
    let Some(written) = look.modified(FLAGS_FILE)? else { return Ok(true) };
    let age = look.since_boot()?.saturating_sub(Duration::from_micros(unit.active_since));
    let started = look.now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    // Both times are rounded on the way.
    Ok(started < written + Duration::from_secs(1))
}

fn ignores(flag: &str) -> Finding {
    Finding::new(
        "kubelet-ignores-flags",
        "The kubelet's unit ignores the flags that the agent wrote down",
        format!("it was started after {FLAGS_FILE} was written, and runs without {flag}"),
        format!(
            "systemctl cat {UNIT}   (its ExecStart must end with $KUBELET_EXTRA_ARGS, and no later drop-in may set that), then: systemctl restart kubelet"
        ),
    )
}

/// The kubelet and the runtime must manage cgroups the same way; containerd is put on systemd's by its own step.
fn cgroup_driver(look: Look<'_>) -> Result<Option<Finding>> {
    let text = look.text(KUBELET_CONFIG)?.unwrap_or_default();
    let driver = text.lines().find_map(|line| line.strip_prefix("cgroupDriver:")).map(str::trim);
    Ok(driver.filter(|driver| *driver != "systemd").map(|driver| {
        Finding::new(
            "cgroup-driver-differs",
            "The kubelet and containerd manage cgroups differently",
            format!("{KUBELET_CONFIG} says cgroupDriver: {driver}, containerd is set to systemd"),
            "set cgroupDriver: systemd with: kubectl -n kube-system edit configmap kubelet-config; and on this node in /var/lib/kubelet/config.yaml, then: systemctl restart kubelet",
        )
    }))
}
