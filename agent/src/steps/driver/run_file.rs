//! NVIDIA's installer in a `.run` file is a program of somebody else: it runs only when its SHA-256 is the one that was given.

use super::changes::{Ground, INSTALL_LIMIT, run};
use super::decision::Decision;
use super::rules::Flavour;
use crate::config::Driver;
use crate::step::Change;

/// What sha256sum(1) compares; that it is there says that the driver is the agent's.
pub const SUM: &str = "/var/lib/gpuk-agent/nvidia-driver.sha256";

/// What the installer writes, and where nothing else is said, all that it says (its option `--log-file-name`).
pub const LOG: &str = "/var/log/nvidia-installer.log";

/// From here on the installer takes the flavour by its name; `--kernel-module-build-directory` is deprecated since (`--advanced-options` of
/// 575.57.08 and of 535).
const TYPE_FROM: u16 = 560;

/// From here on it can install beside a driver that runs; that of 535 has no such option, and refuses.
const BESIDE_RUNNING_FROM: u16 = 550;

/// What installs from a file. Options are those of `NVIDIA-Linux-*.run --advanced-options`; an unknown one ends the installer.
pub fn install(decision: &Decision, asked: &Driver, file: &str, ground: &Ground<'_>) -> Vec<Change> {
    let sum = asked.run_file_sha256.clone().unwrap_or_default();
    // nouveau is blacklisted already, and the step `modules` says so where it still runs.
    let mut words = vec!["sh", file, "--silent", "--no-x-check", "--no-nouveau-check"];
    if ground.has_dkms {
        words.push("--dkms");
    }
    if decision.branch >= BESIDE_RUNNING_FROM {
        words.push("--allow-installation-with-running-driver");
    }
    let of_type = format!("--kernel-module-type={}", decision.flavour.word());
    if decision.branch >= TYPE_FROM {
        words.push(&of_type);
    } else if decision.flavour == Flavour::Open {
        words.push("--kernel-module-build-directory=kernel-open");
    }
    let kernel = ground.release.map(|release| format!("--kernel-name={release}"));
    vec![
        Change::write(SUM, format!("{sum}  {file}\n")),
        run(INSTALL_LIMIT, &["sha256sum", "--strict", "--check", SUM], &[]),
        run(INSTALL_LIMIT, &words, &kernel.into_iter().collect::<Vec<_>>()),
    ]
}
