//! A driver is installed as one version of all its parts, and stays that version: an upgrade of the libraries under a loaded module is
//! the most common way in which GPUs stop to work.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::decision::{Decision, Source};
use super::names::Package;
use super::packages::Installed;
use super::table::Manager;
use super::{dnf, run_file};
use crate::config::Repository;
use crate::look::Look;
use crate::step::{Change, Command};

/// Keeps apt at one version (apt_preferences(5)); that it is there says that the driver is the agent's.
pub const PIN: &str = "/etc/apt/preferences.d/gpuk-agent-nvidia-driver";

const APT_SOURCE: &str = "/etc/apt/sources.list.d/gpuk-agent-nvidia.sources";

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
pub fn install(look: Look<'_>, decision: &Decision, ground: &Ground<'_>) -> Result<Vec<Change>> {
    let asked = &look.config.gpu.driver;
    Ok(match &decision.source {
        Source::RunFile(file) => run_file::install(decision, asked, file, ground),
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
            dnf::install(look, packages, stream.as_deref(), &decision.version_start())?
        }
    })
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
    let hold = (!words.is_empty()).then(|| run(UPDATE_LIMIT, &["apt-mark", "hold"], &words));
    [Change::write(PIN, pin(&format!("{version}*")))].into_iter().chain(hold).collect()
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
