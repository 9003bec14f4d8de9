//! Where no driver can be had, the reason is worth more than the refusal.

use super::decision::Situation;
use super::rules::{self, Flavour};
use crate::facts::OperatingSystem;
use crate::step::Finding;

/// Why modules that were built at home do not help.
pub const UNSIGNED: &str = "Secure Boot is on, and the kernel refuses modules that were built here: they are not signed";

/// What can be said before anything else: whether any driver, and any that was asked for, drives all GPUs.
pub fn before_all(situation: &Situation<'_>, number: Option<u16>) -> Result<(), Finding> {
    let both = [Flavour::Open, Flavour::Proprietary];
    let any = |branches: &[u16], flavours: &[Flavour]| {
        let suits = |branch, flavour| {
            rules::not_published(branch, flavour).is_none()
                && situation.gpus.iter().all(|gpu| rules::refusal(gpu, branch, flavour).is_none())
        };
        branches.iter().any(|branch| flavours.iter().any(|flavour| suits(*branch, *flavour)))
    };
    if !any(rules::LAST_BRANCHES, &both) {
        let names: Vec<String> = situation.gpus.iter().map(|gpu| rules::name(gpu)).collect();
        return Err(Finding::new(
            "gpus-need-different-drivers",
            "No driver drives all GPUs of this machine",
            format!("{}: the older need proprietary modules up to branch 580, the newer open ones", names.join(", ")),
            "take one kind out, or keep it from this node by binding it to vfio-pci",
        ));
    }
    let unknown = situation.gpus.iter().find(|gpu| gpu.architecture.is_none());
    if let (Some(gpu), None) = (unknown, situation.asked.flavour.named()) {
        return Err(Finding::new(
            "gpu-generation-unknown",
            "The generation of a GPU is not known, so its driver cannot be chosen",
            format!("{} is neither in the agent's table nor in the system's pci.ids", rules::name(gpu)),
            "apt-get install pci.ids (dnf install hwdata), or write flavour = \"open\" and a branch under [gpu.driver]",
        ));
    }
    let flavours = situation.asked.flavour.named().map_or(both.to_vec(), |flavour| vec![flavour]);
    if any(number.as_ref().map_or(rules::LAST_BRANCHES, std::slice::from_ref), &flavours) {
        return Ok(());
    }
    let tried = number.unwrap_or(580);
    let why = flavours.iter().flat_map(|flavour| {
        let gpus = situation.gpus.iter().find_map(|gpu| rules::refusal(gpu, tried, *flavour));
        gpus.or_else(|| rules::not_published(tried, *flavour))
    });
    Err(Finding::new(
        "driver-does-not-suit",
        "The driver that the configuration asks for does not drive the GPUs of this machine",
        why.collect::<Vec<_>>().join("; "),
        "write branch = \"auto\" and flavour = \"auto\" under [gpu.driver], or a branch that knows every GPU",
    ))
}

/// Nothing that is packaged comes up to everything that was asked for; `against` has the reasons.
pub fn nothing_fits(situation: &Situation<'_>, packager: &str, against: &[String]) -> Finding {
    if situation.secure_boot && against.iter().any(|why| why == UNSIGNED) {
        return Finding::new(
            "secure-boot-unsigned",
            "No driver whose modules this kernel would load can be installed",
            UNSIGNED,
            "turn Secure Boot off, use Ubuntu's precompiled modules, or sign modules in the image with a key that the firmware knows",
        );
    }
    let mut why = against.join("; ");
    if situation.has_nvswitches {
        why += "; NVSwitches need a fabric manager, which Debian does not package and Ubuntu builds for its -server lines";
    }
    Finding::new(
        "driver-not-packaged",
        format!("{packager} has no driver for this machine"),
        why,
        "ask for another branch, flavour or kind of modules, or give repository and repository-key, or a run-file, under [gpu.driver]",
    )
}

/// The table has no packages for a distribution; `is_known` where it has some of a repository.
pub fn no_rows(os: &OperatingSystem, is_known: bool) -> Finding {
    let what = if os.name.is_empty() { format!("{} {}", os.id, os.version) } else { os.name.clone() };
    if is_known {
        return Finding::new(
            "driver-not-packaged",
            "The distribution has no packages of the driver",
            format!("{what} leaves them to NVIDIA's repository"),
            "give repository and repository-key under [gpu.driver], or a run-file",
        );
    }
    Finding::new(
        "distribution-unknown",
        "The agent knows no packages of the driver for this distribution",
        format!("{what} is none of Debian 12 and 13, Ubuntu 20.04 to 24.04, and the RHEL family from 8 to 10"),
        "give run-file and run-file-sha256 under [gpu.driver], or install the driver into the image and write install = \"never\"",
    )
}

/// The version of a `.run` file is only in its name.
pub fn run_file_unnamed(file: &str) -> Finding {
    Finding::new(
        "run-file-unnamed",
        "The .run file's name does not tell its version",
        format!("{file} is not named as NVIDIA does, e.g. NVIDIA-Linux-x86_64-535.261.03.run"),
        "give it its own name back, or write branch = \"VERSION\" under [gpu.driver]",
    )
}
