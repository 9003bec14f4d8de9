//! k3s writes its containerd's configuration anew at every start and puts in each runtime that it finds then: whoever else writes there
//! loses.
//!
//! It looks for NVIDIA's in two folders (k3s, `pkg/agent/containerd/runtimes.go`), so a toolkit that comes later takes another start.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};

/// The GPU Operator's folder, and that of packages.
const FOLDERS: [&str; 2] = ["/usr/local/nvidia/toolkit", "/usr/bin"];

const PROGRAM: &str = "nvidia-container-runtime";

/// In place of the built-in template, for containerd 1.7 and for 2 (k3s documentation, "Configuring containerd").
const TEMPLATES: [&str; 2] = [
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
    "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
];

/// The step `containerd` of a k3s node: nothing is changed, and nothing waited for, as it runs only after the join.
pub fn containerd(look: Look<'_>) -> Result<Status> {
    let mut evidence = "k3s brings its own containerd and writes its configuration at every start".to_owned();
    for template in TEMPLATES {
        if look.exists(template)? {
            evidence.push_str(&format!("; from the template {template}"));
        }
    }
    let cni = [look.config.containerd.cni_bin_dir.as_ref(), look.config.containerd.cni_conf_dir.as_ref()];
    if cni.iter().any(Option::is_some) {
        evidence.push_str("; note: containerd.cni-bin-dir and cni-conf-dir do not count with k3s");
    }
    Ok(Status::Ready(evidence))
}

/// Whether pods can ask for GPUs: what has to come first. `None` where they can.
pub async fn runtime_for_gpus(look: Look<'_>) -> Result<Option<Status>> {
    let path = &look.config.containerd.config_file;
    let Some(text) = look.text(path)? else {
        return Ok(Some(Status::Waiting(Finding::new(
            "k3s-runtime-not-started",
            "k3s has not started its containerd yet",
            format!("there is no {}; k3s writes it once it has joined", path.display()),
            "gpuk-agent doctor   (the step join has the cause)",
        ))));
    };
    if has_runtime(&text).with_context(|| format!("reading {}", path.display()))? {
        return Ok(None);
    }
    let written = look.modified(path)?.unwrap_or(SystemTime::UNIX_EPOCH);
    for folder in FOLDERS {
        let program = format!("{folder}/{PROGRAM}");
        let Some(file) = look.open(&program)? else { continue };
        // When it came here; the time of its contents is that of its making.
        let metadata = file.metadata()?;
        let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
        let came =
            SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).unwrap_or(0).min(999_999_999));
        if came >= written {
            let restart = Change::Unit(UnitVerb::Restart, super::unit(look.config).to_owned());
            let why = format!("{program} came after k3s last looked for runtimes, which it does at a start");
            return Ok(Some(Status::pending(why, vec![restart])));
        }
        return Ok(Some(Status::Broken(passed_over(look, &program)?)));
    }
    Ok(Some(Status::Broken(Finding::new(
        "k3s-runtime-not-found",
        "k3s does not find NVIDIA's container runtime",
        format!("there is no {PROGRAM} in {}, where k3s looks", FOLDERS.join(" or ")),
        format!(
            "ln -s /usr/local/bin/{PROGRAM} /usr/bin/   (or install the package nvidia-container-toolkit), then: gpuk-agent up"
        ),
    ))))
}

/// Whether the effective configuration has a runtime of the name that pods ask for.
fn has_runtime(text: &str) -> Result<bool> {
    let config: toml::Table = text.parse()?;
    let plugins = config.get("plugins").and_then(toml::Value::as_table);
    let runtimes = |plugin: &toml::Value| Some(plugin.get("containerd")?.get("runtimes")?.get("nvidia")?.is_table());
    Ok(plugins.is_some_and(|plugins| plugins.values().any(|plugin| runtimes(plugin) == Some(true))))
}

/// k3s saw it, and its configuration does not have it.
fn passed_over(look: Look<'_>, program: &str) -> Result<Finding> {
    let mut template = None;
    for path in TEMPLATES {
        if look.exists(path)? {
            template = Some(path);
        }
    }
    let (why, remedy) = match template {
        Some(path) => (
            format!("{program} is there, and the template {path} does not put it into containerd's configuration"),
            format!(
                "begin {path} with {{{{ template \"base\" . }}}}, which has the runtimes that k3s finds, then: systemctl restart {}",
                super::unit(look.config)
            ),
        ),
        None => (
            format!("{program} is there, and {} does not have it", look.config.containerd.config_file.display()),
            format!("journalctl --boot --unit {} | grep -i runtime", super::unit(look.config)),
        ),
    };
    Ok(Finding::new("k3s-runtime-passed-over", "k3s's containerd cannot hand GPUs to containers", why, remedy))
}
