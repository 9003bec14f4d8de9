//! A driver is installed as one version of all its parts, and stays that version: an upgrade of the libraries under a loaded module is
//! the most common way in which GPUs stop to work.

use std::path::PathBuf;
use std::time::Duration;

use super::decision::{Decision, Source};
use super::names::Package;
use super::packages::Installed;
use super::rules::Flavour;
use super::table::Manager;
use crate::config::{Driver, Repository};
use crate::step::{Change, Command};

/// Keeps apt at one version (apt_preferences(5)); that it is there says that the driver is the agent's.
pub const PIN: &str = "/etc/apt/preferences.d/gpuk-agent-nvidia-driver";

/// The repository for dnf. It is off: only the agent's own commands turn it on, so that nothing else upgrades from it.
pub const YUM: &str = "/etc/yum.repos.d/gpuk-agent-nvidia.repo";

const APT_SOURCE: &str = "/etc/apt/sources.list.d/gpuk-agent-nvidia.sources";
const YUM_NAME: &str = "gpuk-agent-nvidia";
const SUM: &str = "/run/gpuk-agent/nvidia-driver.sha256";

/// A build for several kernels takes minutes on a small machine.
pub const INSTALL_LIMIT: Duration = Duration::from_secs(45 * 60);
const UPDATE_LIMIT: Duration = Duration::from_secs(300);

/// How long apt waits for another process's lock, in seconds; after that the step waits.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=10";

/// Every part of the driver, whatever the distribution calls it. The toolkit has other versions, which no pin of the driver matches.
const PARTS: &str = "*nvidia* libcuda1 libnvcuvid1";

/// What the changes depend on besides the decision.
pub struct Ground<'a> {
    /// Packages in the way.
    pub remove: Vec<&'a Installed>,
    /// The kernel of an image, which does not run.
    pub release: Option<&'a str>,
    /// DKMS is there for a `.run` file to use.
    pub has_dkms: bool,
}

/// What installs a decided driver.
pub fn install(decision: &Decision, asked: &Driver, ground: &Ground<'_>) -> Vec<Change> {
    match &decision.source {
        Source::RunFile(file) => run_file(decision, asked, file, ground),
        Source::Packages { manager: Manager::Apt, packages, .. } => {
            let mut changes = vec![Change::write(PIN, pin(&format!("{}*", decision.version_start())))];
            if let Some(repository) = &asked.repository {
                changes.push(Change::write(APT_SOURCE, apt_source(repository, asked.repository_key.as_ref())));
            }
            changes.push(apt_update());
            if let Some(purge) = purge(&ground.remove) {
                // What is there goes once what takes its place is here.
                changes.extend([apt_download(packages), purge]);
            }
            changes.push(apt_install(packages));
            changes
        }
        Source::Packages { manager: Manager::Dnf, packages, stream } => {
            let enable = format!("--enablerepo={YUM_NAME}");
            let words: Vec<String> = packages.iter().map(|package| package.word(Manager::Dnf)).collect();
            let mut changes: Vec<Change> = asked
                .repository
                .iter()
                .map(|repository| Change::write(YUM, yum_source(YUM_NAME, repository, asked.repository_key.as_ref())))
                .collect();
            if let Some(stream) = stream {
                let stream = format!("nvidia-driver:{stream}");
                changes.push(run(INSTALL_LIMIT, &["dnf", "--assumeyes", &enable, "module", "reset", "nvidia-driver"], &[]));
                changes.push(run(INSTALL_LIMIT, &["dnf", "--assumeyes", &enable, "module", "enable", &stream], &[]));
            }
            changes.push(run(INSTALL_LIMIT, &["dnf", "--assumeyes", &enable, "--allowerasing", "install"], &words));
            changes
        }
    }
}

/// apt reads what its repositories have; one that cannot be read is an error.
pub fn apt_update() -> Change {
    apt(UPDATE_LIMIT, &["--option", "APT::Update::Error-Mode=any", "update"], &[])
}

/// apt fetches these and all that they need.
fn apt_download(packages: &[Package]) -> Change {
    let words: Vec<String> = packages.iter().map(|package| package.word(Manager::Apt)).collect();
    let options = ["--no-install-recommends", "--allow-change-held-packages", "--allow-downgrades", "--download-only", "install"];
    apt(INSTALL_LIMIT, &options, &words)
}

/// apt installs these, at the versions that will do.
pub fn apt_install(packages: &[Package]) -> Change {
    let words: Vec<String> = packages.iter().map(|package| package.word(Manager::Apt)).collect();
    // A package that was held by the agent may change with its version.
    apt(INSTALL_LIMIT, &["--no-install-recommends", "--allow-change-held-packages", "--allow-downgrades", "install"], &words)
}

/// Takes packages away with their configuration, those that are half done too.
pub fn purge(packages: &[&Installed]) -> Option<Change> {
    let words: Vec<String> = packages.iter().map(|package| package.name.clone()).collect();
    (!words.is_empty()).then(|| apt(INSTALL_LIMIT, &["--allow-change-held-packages", "purge"], &words))
}

/// Ends what dpkg began.
pub fn configure_rest() -> Change {
    run(INSTALL_LIMIT, &["env", NONINTERACTIVE, SUSPENDED, "dpkg", "--force-confold", "--configure", "--pending"], &[])
}

/// Builds every module of DKMS that a kernel lacks.
pub fn build(release: &str) -> Change {
    run(INSTALL_LIMIT, &["dkms", "autoinstall", "--kernelver", release], &[])
}

/// Pins all parts to the very version that is there, and holds them.
pub fn keep(version: &str, packages: &[&Installed]) -> Vec<Change> {
    let words: Vec<String> = packages.iter().map(|package| package.name.clone()).collect();
    vec![Change::write(PIN, pin(&format!("{version}*"))), run(UPDATE_LIMIT, &["apt-mark", "hold"], &words)]
}

/// The text of the pin for a version.
pub fn pin(version: &str) -> String {
    format!(
        "# Written by gpuk-agent: all parts of NVIDIA's driver are of one version.\nPackage: {PARTS}\nPin: version {version}\nPin-Priority: 1001\n"
    )
}

const NONINTERACTIVE: &str = "DEBIAN_FRONTEND=noninteractive";
/// needrestart(1) would otherwise restart the kubelet and containerd in the middle of this.
const SUSPENDED: &str = "NEEDRESTART_SUSPEND=1";

/// apt-get without questions, waiting a while for another process that has the lock.
pub fn apt(limit: Duration, words: &[&str], more: &[String]) -> Change {
    let begin = [
        "env",
        NONINTERACTIVE,
        SUSPENDED,
        "apt-get",
        "--yes",
        "--option",
        LOCK_TIMEOUT,
        "--option",
        "Dpkg::Options::=--force-confold",
    ];
    run(limit, &[&begin, words].concat(), more)
}

/// A command of these words.
pub fn run(limit: Duration, words: &[&str], more: &[String]) -> Change {
    let mut command = Command::new([], limit);
    command.argv = words.iter().map(|word| (*word).to_owned()).chain(more.iter().cloned()).collect();
    Change::Run(command)
}

/// A file for apt's sources.list.d (sources.list(5), "deb822-style format").
pub fn apt_source(repository: &Repository, key: Option<&PathBuf>) -> String {
    let Repository { url, suite, components } = repository;
    let components = if components.is_empty() { String::new() } else { format!("Components: {}\n", components.join(" ")) };
    let key = key.map(|path| format!("Signed-By: {}\n", path.display())).unwrap_or_default();
    format!("# Written by gpuk-agent.\nTypes: deb\nURIs: {url}\nSuites: {suite}\n{components}{key}")
}

/// A file for dnf's yum.repos.d (dnf.conf(5)).
pub fn yum_source(name: &str, repository: &Repository, key: Option<&PathBuf>) -> String {
    let key = key.map(|path| format!("gpgkey=file://{}\n", path.display())).unwrap_or_default();
    format!(
        "# Written by gpuk-agent. It is off, so that nothing but the agent upgrades from it.\n[{name}]\nname={name}\n\
         baseurl={}\nenabled=0\ngpgcheck=1\n{key}",
        repository.url
    )
}

/// Options of `NVIDIA-Linux-*.run` (its `--advanced-options`). Before branch 560 the open modules are chosen by their directory.
fn run_file(decision: &Decision, asked: &Driver, file: &str, ground: &Ground<'_>) -> Vec<Change> {
    let sum = asked.run_file_sha256.clone().unwrap_or_default();
    let mut words = vec!["sh", file, "--silent", "--no-x-check", "--no-nouveau-check"];
    if ground.has_dkms {
        words.push("--dkms");
    }
    let of_type = format!("--kernel-module-type={}", decision.flavour.word());
    if decision.branch >= 560 {
        words.push(&of_type);
    } else if decision.flavour == Flavour::Open {
        words.push("--kernel-module-build-directory=kernel-open");
    }
    let kernel = ground.release.map(|release| format!("--kernel-name={release}"));
    vec![
        Change::write(SUM, format!("{sum}  {file}\n")),
        run(UPDATE_LIMIT, &["sha256sum", "--strict", "--check", SUM], &[]),
        run(INSTALL_LIMIT, &words, &kernel.into_iter().collect::<Vec<_>>()),
    ]
}
