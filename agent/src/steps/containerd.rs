//! The kubelet reaches every container through containerd, and containerd believes its files, not its flags.
//!
//! **Where it writes.** A value is changed in the file and table that count for containerd, and nowhere else: there is no drop-in of
//! our own. With releases that replace sections (1.6, 1.7) a drop-in would have to repeat the operator's whole CRI section and would
//! mask every later edit of it; a version 2 drop-in cannot be added to a version 1 file at all; and with releases that merge
//! (2.x) it would gain nothing. Edited in place, the files stay what their author would have written: comments and
//! order stay, and nothing is masked that was not masked before. The price is that a second owner (nvidia-ctk, the GPU operator)
//! may rewrite its file; it starts from the effective configuration, so what is right survives that, and what does not is drift.
//!
//! **Versions.** An existing version 2 file stays one: every release from 1.6 to today reads it. A version 1 file becomes version 2 with
//! 1.6 and 1.7, because 2.0 to 2.2 ignore its CRI section without a word. A new file is version 2 (1.x) or 3 (2.x).
//!
//! **Right** means: CRI not disabled; systemd as the cgroup driver of every runtime of runc's shim; a default runtime that exists; the
//! pause image and the CNI folders that were asked for; with a GPU a runtime `nvidia`, a clone of runc's with the NVIDIA binary.

use anyhow::Result;
use async_trait::async_trait;

use crate::config::Enabled;
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Finding, Stage, Status, Step, Watched};
use crate::steps::k3s;

pub mod changes;
pub mod edit;
pub mod effective;
pub mod files;
pub mod generation;
pub mod running;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wanted;

use view::View;
use wanted::{CniFolders, Wanted};

/// The step.
pub struct Containerd;

#[async_trait(?Send)]
impl Step for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn purpose(&self) -> &'static str {
        "containerd runs pods with the systemd cgroup driver, the right pause image, CNI directories and, with a GPU, the NVIDIA runtime"
    }

    fn stage(&self) -> Stage {
        Stage::Image
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/etc/containerd"), Watched::Directory("/etc/containerd/conf.d")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(finding) = without_gpu(look) {
            return Ok(Status::Broken(finding));
        }
        if k3s::is_wanted(look.config) {
            return k3s::containerd(look);
        }
        examine(look, &Wanted::of(look)).await
    }

    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        match failure {
            // 125 to 127 are chroot's own: it could not even start the program.
            Failure::Program { command, output } if !matches!(output.code, Some(125..=127)) => {
                changes::refused(command, &output.tail())
            }
            _ => None,
        }
    }
}

/// A machine whose owner says that it has GPUs, and that has none: a wrong machine, or a broken one. An image is built anywhere.
fn without_gpu(look: Look<'_>) -> Option<Finding> {
    let facts = look.facts;
    let is_missing = look.config.gpu.enabled == Enabled::Always && facts.gpus_for_containers().is_empty();
    if !is_missing || !look.running_system() {
        return None;
    }
    let seen = match facts.gpus.len() {
        0 => "there is no NVIDIA GPU on the PCI bus".to_owned(),
        count => {
            format!("NVIDIA GPUs on the PCI bus: {count}, each bound to vfio-pci or divided into functions that are not there")
        }
    };
    Some(Finding::new(
        "gpu-absent",
        "This machine has no GPU for its containers",
        format!("gpu.enabled is \"always\", and {seen}"),
        "see what there is: lspci -nnk -d 10de: ; if this machine may be without: [gpu] enabled = \"auto\" in /etc/gpuk/agent.toml",
    ))
}

/// Looks at containerd with this in mind.
pub async fn examine(look: Look<'_>, wanted: &Wanted) -> Result<Status> {
    let Some(service) = generation::service(look)? else { return Ok(Status::Broken(absent(look))) };
    let Some(generation) = generation::read(look, &service.binary)? else {
        return Ok(Status::Broken(unknown(&service.binary.display().to_string())));
    };
    if (generation.major, generation.minor.unwrap_or(6)) < (1, 6) {
        return Ok(Status::Broken(too_old(look, &generation.evidence)));
    }
    let main = service.config_file.as_ref().unwrap_or(&wanted.config_file);
    let old = match files::load(look, main, &generation)? {
        Ok(files) => files,
        Err(finding) => return Ok(Status::Broken(finding)),
    };
    let plan = match edit::plan(&old, &generation, wanted, CniFolders::look(look)?) {
        Ok(plan) => plan,
        Err(finding) => return Ok(Status::Broken(finding)),
    };
    if plan.files != old {
        let mut why = format!("containerd {}: {}", generation.evidence, plan.reasons.join(", "));
        for masked in &plan.masked {
            why = format!("{why}; {masked}");
        }
        return Ok(Status::pending(why, changes::replace(&service.binary, &old, &plan.files, look.running_system())));
    }
    let copies = changes::clean_up(look, &old)?;
    if !copies.is_empty() {
        let due = look.running_system() && look.exists(changes::RESTART_DUE)?;
        let restart = if due { Vec::from(changes::restart()) } else { Vec::new() };
        return Ok(Status::pending("an earlier round left copies behind", restart.into_iter().chain(copies).collect()));
    }
    let evidence = evidence(&generation.evidence, &plan.view, &plan.masked);
    if !look.running_system() {
        return Ok(Status::Ready(evidence));
    }
    running::examine(look, wanted, &plan.view, evidence).await
}

fn evidence(version: &str, view: &View, masked: &[String]) -> String {
    let runtimes: Vec<&str> = view.runtimes.keys().map(String::as_str).collect();
    let or_default = |value: Option<&str>| value.unwrap_or("containerd's default").to_owned();
    let folders = view.cni_bin.as_ref().map(|folders| folders.join(":"));
    let mut text = format!(
        "containerd {version}: SystemdCgroup; runtimes {} (default {}); pause image {}; CNI plugins in {}",
        runtimes.join(", "),
        view.default_runtime,
        or_default(view.pause_image.as_deref()),
        or_default(folders.as_deref()),
    );
    for masked in masked {
        text = format!("{text}; note: {masked}");
    }
    text
}

/// The command that installs or upgrades containerd on this distribution.
fn install(look: Look<'_>) -> &'static str {
    let os = &look.facts.os;
    let is = |names: &[&str]| names.contains(&os.id.as_str()) || os.like.iter().any(|like| names.contains(&like.as_str()));
    if is(&["debian", "ubuntu"]) {
        "apt-get update && apt-get install -y containerd"
    } else if is(&["suse", "opensuse", "sles"]) {
        "zypper --non-interactive install containerd"
    } else if is(&["amzn", "fedora"]) && os.id != "rhel" && !is(&["rhel"]) {
        "dnf install -y containerd"
    } else if is(&["rhel", "centos", "fedora"]) {
        "dnf install -y containerd.io   # from Docker's repository; the distribution has no containerd"
    } else {
        "install containerd 1.6 or later with its containerd.service (https://containerd.io/downloads)"
    }
}

fn absent(look: Look<'_>) -> Finding {
    Finding::new(
        "containerd-absent",
        "containerd is not installed",
        "containerd.service starts no program that exists, and there is none in /usr/local/bin or /usr/bin",
        install(look),
    )
}

fn unknown(binary: &str) -> Finding {
    Finding::new(
        "containerd-unknown",
        format!("it cannot be told which containerd {binary} is"),
        "its build information does not name containerd, and no installed package of dpkg owns it",
        format!("{binary} --version   # is it containerd? replace it by a release of 1.6 or later"),
    )
}

fn too_old(look: Look<'_>, version: &str) -> Finding {
    Finding::new(
        "containerd-too-old",
        format!("containerd {version} is too old for today's kubelet"),
        "CRI v1 needs containerd 1.6 or later",
        install(look),
    )
}
