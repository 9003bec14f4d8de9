//! A build that is going to fail is better not begun: what it needs can be seen before.

use anyhow::Result;

use super::decision::{Decision, Source};
use super::present::Present;
use super::table::{Manager, Modules};
use crate::look::Look;
use crate::step::{Finding, Status};

/// The firmware's variable: four bytes of attributes, then 1 where Secure Boot is on (UEFI specification, "Globally Defined Variables").
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What packages, sources and objects of a build take, in bytes: the compiler, headers and five modules of a kernel took 1.9 GB.
const ROOM: u64 = 2 << 30;

/// Whether the kernel loads signed modules only. An image has no firmware.
pub fn secure_boot(look: Look<'_>) -> Result<bool> {
    let bytes = if look.running_system() { look.read(SECURE_BOOT)? } else { None };
    Ok(bytes.is_some_and(|bytes| bytes.get(4) == Some(&1)))
}

/// What is missing before the driver can be installed.
pub fn missing(look: Look<'_>, decision: &Decision, present: &Present) -> Result<Option<Status>> {
    let finding = match &decision.source {
        Source::Packages { manager, .. } => without_manager(look, *manager)?.or(without_key(look)?),
        Source::RunFile(file) => without_run_file(look, file)?.or(without_compiler(look)?).or(without_headers(decision, present)),
    };
    Ok(finding.or_else(|| without_room(look)).map(Status::Broken))
}

fn without_manager(look: Look<'_>, manager: Manager) -> Result<Option<Finding>> {
    let path = match manager {
        Manager::Apt => "/usr/bin/apt-get",
        Manager::Dnf => "/usr/bin/dnf",
    };
    let remedy = "install the driver into the image and write install = \"never\" under [gpu.driver], or give a run-file";
    let finding =
        || Finding::new("package-manager-missing", "The package manager is missing", format!("there is no {path}"), remedy);
    Ok((!look.exists(path)?).then(finding))
}

fn without_key(look: Look<'_>) -> Result<Option<Finding>> {
    let Some(key) = &look.config.gpu.driver.repository_key else { return Ok(None) };
    let finding = || {
        let why = format!("gpu.driver.repository-key is {}, and no such file is there", key.display());
        let remedy = format!("put the key of the repository at {}, then: gpuk-agent up", key.display());
        Finding::new("repository-key-missing", "The key of the driver's repository is missing", why, remedy)
    };
    Ok((!look.exists(key)?).then(finding))
}

fn without_run_file(look: Look<'_>, file: &str) -> Result<Option<Finding>> {
    let finding = || {
        let remedy = format!("copy it to {file}, then: gpuk-agent up");
        Finding::new("run-file-missing", "The driver's .run file is missing", format!("gpu.driver.run-file is {file}"), remedy)
    };
    Ok((!look.exists(file)?).then(finding))
}

/// Packages bring a compiler with them; a `.run` file does not.
fn without_compiler(look: Look<'_>) -> Result<Option<Finding>> {
    for program in ["/usr/bin/cc", "/usr/bin/make"] {
        if !look.exists(program)? {
            let remedy = "apt-get install gcc make   (dnf install gcc make), then: gpuk-agent up";
            let why = format!("there is no {program}");
            return Ok(Some(Finding::new("compiler-missing", "The .run file cannot build its modules", why, remedy)));
        }
    }
    Ok(None)
}

/// Packages bring the headers with them; a `.run` file does not.
fn without_headers(decision: &Decision, present: &Present) -> Option<Finding> {
    let standing =
        present.kernels.first().filter(|standing| decision.modules == Modules::Dkms && !standing.kernel.has_headers)?;
    let release = &standing.kernel.release;
    Some(Finding::new(
        "kernel-headers-missing",
        format!("The headers of kernel {release} are missing, and its modules cannot be built without them"),
        format!("/lib/modules/{release}/build has no Makefile"),
        format!("apt-get install linux-headers-{release}   (dnf install kernel-devel-{release}), then: gpuk-agent up"),
    ))
}

fn without_room(look: Look<'_>) -> Option<Finding> {
    let holds = |path: &str, mount: &str| path == mount || path.starts_with(&format!("{}/", mount.trim_end_matches('/')));
    for path in ["/usr", "/var"] {
        let disks = look.facts.disks.iter().filter(|disk| holds(path, &disk.mount));
        if let Some(disk) = disks.max_by_key(|disk| disk.mount.len()).filter(|disk| disk.free < ROOM) {
            let why =
                format!("{} has {} MB free; the driver and its build take up to {} MB", disk.mount, disk.free >> 20, ROOM >> 20);
            let remedy = "make room on the disk (apt-get clean; journalctl --vacuum-size=200M), then: gpuk-agent up";
            return Some(Finding::new("disk-full", "The disk is too full for the driver", why, remedy));
        }
    }
    None
}
