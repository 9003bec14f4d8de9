//! dnf upgrades whatever a repository has newer, unless its plugin `versionlock` keeps it from other versions (dnf-plugin-versionlock(8)).

use std::path::PathBuf;

use anyhow::Result;

use super::changes::{INSTALL_LIMIT, run};
use super::names::Package;
use super::table::Manager;
use crate::config::{Driver, Repository};
use crate::look::Look;
use crate::step::Change;

/// The repository for dnf. It is off: only the agent's own commands turn it on. That it is there says that the driver is the agent's.
pub const YUM: &str = "/etc/yum.repos.d/gpuk-agent-nvidia.repo";

const YUM_NAME: &str = "gpuk-agent-nvidia";

/// What the plugin reads: a pattern a line, of somebody else too.
const LOCKS: &str = "/etc/dnf/plugins/versionlock.list";

/// The plugin's package, as the RHEL family calls it.
const PLUGIN: &str = "python3-dnf-plugin-versionlock";

const COMMENT: &str = "# Written by gpuk-agent: all parts of NVIDIA's driver are of one version.";

/// Every part of the driver in NVIDIA's repository. A pattern shuts out all other versions of what it matches, so none may match the
/// container toolkit.
const PARTS: &[&str] = &[
    "nvidia-driver*",
    "kmod-nvidia*",
    "nvidia-kmod-common*",
    "nvidia-modprobe*",
    "nvidia-persistenced*",
    "nvidia-settings*",
    "nvidia-xconfig*",
    "nvidia-fabric*",
    "nvidia-open*",
    "libnvidia-cfg*",
    "libnvidia-fbc*",
    "libnvidia-gpucomp*",
    "libnvidia-ml*",
    "cuda-drivers*",
];

/// What installs these packages, whatever other version of them is there.
pub fn install(look: Look<'_>, packages: &[Package], stream: Option<&str>, version_start: &str) -> Result<Vec<Change>> {
    let asked: &Driver = &look.config.gpu.driver;
    let repository = asked.repository.iter();
    let mut changes: Vec<Change> = repository
        .map(|repository| Change::write(YUM, yum_source(YUM_NAME, repository, asked.repository_key.as_ref())))
        .chain(lock(look, version_start)?)
        .collect();
    if let Some(stream) = stream {
        // A stream that is enabled is not left for another by enabling that (dnf(8), "Module Command").
        changes.push(dnf(&["module", "reset", "nvidia-driver"], &[]));
        changes.push(dnf(&["module", "enable"], &[format!("nvidia-driver:{stream}")]));
    }
    let words: Vec<String> = packages.iter().map(|package| package.word(Manager::Dnf)).chain([PLUGIN.to_owned()]).collect();
    changes.push(dnf(&["--allowerasing", "install"], &words));
    Ok(changes)
}

/// Installs these beside what is there.
pub fn add(packages: &[Package]) -> Change {
    dnf(&["install"], &packages.iter().map(|package| package.word(Manager::Dnf)).collect::<Vec<_>>())
}

/// What locks all parts to versions that begin so; nothing where that is so already. Lines of somebody else stay.
pub fn lock(look: Look<'_>, version_start: &str) -> Result<Option<Change>> {
    let old = look.text(LOCKS)?.unwrap_or_default();
    let is_ours = |line: &&str| *line == COMMENT || PARTS.iter().any(|part| line.starts_with(&format!("{part}-")));
    let others = old.lines().filter(|line| !is_ours(line)).map(str::to_owned);
    let ours = PARTS.iter().map(|part| format!("{part}-{}*-*", version_start.trim_end_matches('*')));
    let new: String = others.chain([COMMENT.to_owned()]).chain(ours).map(|line| line + "\n").collect();
    Ok((new != old).then(|| Change::write(LOCKS, new)))
}

fn dnf(words: &[&str], more: &[String]) -> Change {
    let enable = format!("--enablerepo={YUM_NAME}");
    run(INSTALL_LIMIT, &[&["dnf", "--assumeyes", &enable], words].concat(), more)
}

/// A file for dnf's yum.repos.d (dnf.conf(5)).
pub fn yum_source(name: &str, repository: &Repository, key: Option<&PathBuf>) -> String {
    let key = key.map(|path| format!("gpgkey=file://{}\n", path.display())).unwrap_or_default();
    format!(
        "# Written by gpuk-agent. It is off, so that nothing but the agent upgrades from it.\n[{name}]\nname={name}\n\
         baseurl={}\nenabled=0\nskip_if_unavailable=0\ngpgcheck=1\n{key}",
        repository.url
    )
}
