//! modprobe(8) passes on what the kernel says of a module in a few fixed words; each has one cause.

use std::time::Duration;

use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Finding, Status};

/// One try of the driver to take its GPUs.
const ONE_LOAD: Duration = Duration::from_secs(2);

/// Words of modprobe's, a code, what is wrong, and what to do.
const KNOWN: &[(&[&str], &str, &str, &str)] = &[
    (
        &["Key was rejected by service", "Required key not available"],
        "module-signature-rejected",
        "Secure Boot is on, and the driver's module is not signed by a key that the firmware knows",
        "turn Secure Boot off, take precompiled modules (Ubuntu), or enrol the key: mokutil --import /var/lib/dkms/mok.pub, then reboot",
    ),
    (
        &["not found in directory", "Module nvidia not found", "Module nvidia-current not found"],
        "driver-modules-missing",
        "The running kernel has no module of the driver",
        "dkms status tells for which kernels it was built; apt-get install linux-headers-$(uname -r) && dkms autoinstall",
    ),
    (
        &["No such device"],
        "gpu-not-supported",
        "The driver takes none of the GPUs",
        "journalctl --dmesg --grep NVRM tells why: another flavour or branch (see gpu.driver), or a GPU that is broken",
    ),
    (
        &["Exec format error", "disagrees about version of symbol", "Invalid argument", "Unknown symbol"],
        "driver-of-another-kernel",
        "The driver's module was built for another kernel",
        "dkms remove and dkms install for the running kernel, or reboot into the kernel it was built for",
    ),
    (
        &["Operation not permitted"],
        "modules-locked",
        "The kernel takes no more modules",
        "sysctl kernel.modules_disabled is 1, or the kernel is locked down: load the driver earlier, or reboot without that",
    ),
    (
        &["nvidia-modprobe: No such file", "starting nvidia-modprobe"],
        "nvidia-modprobe-missing",
        "The program that makes the device nodes is not installed",
        "apt-get install nvidia-modprobe   (dnf install nvidia-modprobe)",
    ),
];

/// What a failed change of the step means; `None` for "only try again".
pub fn judge(failure: &Failure, look: Look<'_>) -> Option<Status> {
    let said = match failure {
        Failure::Program { output, .. } => format!("{}\n{}", output.stderr, output.stdout),
        other => other.to_string(),
    };
    KNOWN.iter().find_map(|(words, code, what, remedy)| {
        let line = said.lines().find(|line| words.iter().any(|word| line.contains(word)))?;
        let kernel = words_of_driver(look).map(|words| format!("; the kernel's log: {words}")).unwrap_or_default();
        Some(Status::Broken(Finding::new(code, *what, format!("{}{kernel}", line.trim()), *remedy)))
    })
}

/// What the driver said when it was loaded last: it goes through a GPU's needs and stops at the first that is not met.
fn words_of_driver(look: Look<'_>) -> Option<String> {
    let records = look.kernel_log().ok()?;
    let said: Vec<_> = records.iter().filter(|record| record.is_from_kernel() && record.text.contains("NVRM: ")).collect();
    let last = said.last()?.since_boot;
    let of_last_time = said.iter().find(|record| record.since_boot + ONE_LOAD >= last)?;
    Some(of_last_time.text.trim().to_owned())
}
