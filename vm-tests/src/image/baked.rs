//! What a GPU node needs is put into its image by the agent itself, with real apt and a real build of the driver's modules.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::administrators_path;
use crate::cache::{Cache, Recipe};
use crate::command::run;
use crate::packages::Archive;
use crate::progress::say;

/// What the agent is told for it: an image has no GPUs to choose a driver for.
const SETTINGS: [&str; 6] = [
    "gpu.enabled=always",
    "gpu.driver.install=always",
    "gpu.driver.branch=550",
    "gpu.driver.flavour=proprietary",
    "gpu.toolkit.install=always",
    "gpu.toolkit.mode=cdi",
];

/// What of the agent decides what is in the image, besides its settings.
const DECIDES: [&str; 3] = ["agent/src/steps/driver", "agent/src/steps/driver.rs", "agent/src/steps/toolkit.rs"];

/// A build of the driver takes three minutes on two processors.
const LIMIT: Duration = Duration::from_secs(2400);

/// What the image depends on: not every change of the agent, since a build of the driver takes minutes.
pub(super) fn ingredients(recipe: Recipe, repository: &Path, toolkit: &[PathBuf]) -> Result<Recipe> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in DECIDES.map(|path| repository.join(path)) {
        match fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file())),
            Err(_) => files.push(path),
        }
    }
    files.sort();
    let recipe = files.iter().try_fold(recipe, |recipe, file| recipe.with_file(file))?;
    let recipe = toolkit.iter().fold(recipe, |recipe, program| recipe.with(program.to_string_lossy().as_bytes()));
    Ok(recipe.with(SETTINGS.join(" ")).with(include_str!("baked.rs")))
}

/// Lets the agent bake what GPUs need into the root: a second time changes nothing, and the packages are held.
pub(super) fn bake(cache: &Cache, archive: &Archive, suite: &str, agent: &Path, toolkit: &[PathBuf], root: &Path) -> Result<()> {
    for program in toolkit {
        let target = root.join("usr/bin").join(program.file_name().context("a program without a name")?);
        fs::copy(program, &target).with_context(|| format!("copying {}", program.display()))?;
    }
    let sources = root.join("etc/apt/sources.list");
    fs::write(&sources, format!("{} contrib non-free non-free-firmware\n", archive.line(suite)))?;
    let resolver = root.join("etc/resolv.conf");
    fs::copy("/etc/resolv.conf", &resolver).context("copying /etc/resolv.conf")?;
    // No service starts in a folder.
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
    let downloads = cache.shelf(&format!("packages-{suite}"))?;

    let first = up(agent, root, &downloads)?;
    say(format_args!("the agent made {} changes in the image", changes(&first).len()));
    let again = changes(&up(agent, root, &downloads)?);
    ensure!(again.is_empty(), "a second run changed something: {again:?}");
    let held = chroot(root, &["apt-mark", "showhold"])?;
    ensure!(held.lines().any(|package| package == "nvidia-kernel-dkms"), "the driver is not held:\n{held}");
    let refused = chroot(root, &["apt-get", "--simulate", "--yes", "install", "nvidia-kernel-dkms=535.*"]);
    ensure!(refused.is_err(), "apt would replace a driver that is held");

    fs::write(&resolver, "")?;
    for path in [policy, sources] {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    chroot(root, &["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/lib/dkms/*/*/build"]).map(drop)
}

/// One run of the agent over the image, in a mount namespace of its own: nothing that is mounted for it can be left behind.
fn up(agent: &Path, root: &Path, downloads: &Path) -> Result<Value> {
    let script = "for folder in proc sys dev; do mount --rbind /$folder \"$1/$folder\"; done; \
        mount --bind \"$2\" \"$1/var/cache/apt/archives\"; agent=$0; root=$1; shift 2; exec \"$agent\" --root \"$root\" --json up \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-e", "-c", script]).arg(agent).arg(root).arg(downloads);
    command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting])).env_clear();
    command.env("PATH", administrators_path());
    let said = run(&mut command, LIMIT).context("the agent did not finish the image")?;
    serde_json::from_str(&said).with_context(|| format!("the agent said no JSON: {said}"))
}

fn changes(said: &Value) -> Vec<String> {
    let steps = said["steps"].as_array().into_iter().flatten();
    let changes = steps.filter_map(|step| step["changes"].as_array()).flatten();
    changes.filter_map(|change| change.as_str().map(str::to_owned)).collect()
}

fn chroot(root: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new("chroot");
    run(command.env("PATH", administrators_path()).arg(root).args(words), LIMIT)
}
