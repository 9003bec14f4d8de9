//! Which driver a machine gets follows from its GPUs, its distribution, Secure Boot and what somebody asked for; every choice says why.

use super::names::{self, Package};
use super::refusals;
use super::rules::{self, Flavour};
use super::table::{Kind, Manager, Modules, Origin, ROWS, Row};
use crate::config::{Driver, KernelModules};
use crate::facts::{Gpu, OperatingSystem};
use crate::step::Finding;

/// What the decision is made from.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The GPUs for containers; none in an image, where they do not show.
    pub gpus: Vec<&'a Gpu>,
    /// There are NVSwitches.
    pub has_nvswitches: bool,
    /// The distribution.
    pub os: &'a OperatingSystem,
    /// The kernels that need modules, the one to run first.
    pub kernels: &'a [Kernel],
    /// The firmware lets the kernel load signed modules only.
    pub secure_boot: bool,
    /// What the configuration asks for.
    pub asked: &'a Driver,
}

/// A kernel that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// What modules are built against is there.
    pub has_headers: bool,
}

/// Where the driver comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Packages.
    Packages {
        /// What installs them.
        manager: Manager,
        /// All of them.
        packages: Vec<Package>,
        /// The stream of dnf's module `nvidia-driver`.
        stream: Option<String>,
    },
    /// NVIDIA's `.run` file.
    RunFile(String),
}

/// A driver to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its branch.
    pub branch: u16,
    /// The whole version, where one was asked for.
    pub version: Option<String>,
    /// Flavour of the kernel modules.
    pub flavour: Flavour,
    /// How the kernel modules come to be.
    pub modules: Modules,
    /// Where it comes from.
    pub source: Source,
    /// One sentence for each choice.
    pub because: Vec<String>,
}

impl Decision {
    /// The beginning of every version that is right, e.g. `535.`.
    pub fn version_start(&self) -> String {
        self.version.clone().unwrap_or_else(|| format!("{}.", self.branch))
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.version.clone().unwrap_or_else(|| self.branch.to_string());
        write!(formatter, "driver {version} with {} modules: {}", self.flavour.word(), self.because.join("; "))
    }
}

/// The driver for a situation, or why there is none.
pub fn decide(situation: &Situation<'_>) -> Result<Decision, Finding> {
    let asked = situation.asked;
    let run_file = asked.run_file.as_ref().map(|path| path.display().to_string());
    let mut number = asked.branch.number;
    let mut version = asked.branch.version.clone();
    if let Some(file) = &run_file {
        version = version.or_else(|| version_of_run_file(file));
        number = number.or_else(|| version.as_ref()?.split('.').next()?.parse().ok());
    }
    refusals::before_all(situation, number)?;
    let rows = if run_file.is_some() { Vec::new() } else { rows(situation)? };
    let branches: Vec<u16> = match (number, &run_file) {
        (Some(number), _) => vec![number],
        (None, Some(file)) => return Err(refusals::run_file_unnamed(file)),
        (None, None) => rows.iter().flat_map(|row| row.automatic.iter().copied()).collect(),
    };
    let mut against = Vec::new();
    for branch in branches {
        let (preferred, why) = rules::preferred(&situation.gpus, branch);
        let other = if preferred == Flavour::Open { Flavour::Proprietary } else { Flavour::Open };
        for flavour in [preferred, other] {
            if let Some(why) = refusal(situation, branch, flavour) {
                against.push(why);
                continue;
            }
            let reason = flavour_reason(situation, branch, flavour, &why);
            let mut because = vec![branch_reason(situation, branch), reason];
            let found = match &run_file {
                Some(file) => Some((Modules::Dkms, Source::RunFile(file.clone()))),
                None => rows
                    .iter()
                    .filter(|row| row.branches.contains(&branch))
                    .find_map(|row| kind(situation, row, branch, flavour, &mut because)),
            };
            match found {
                Some((Modules::Dkms, _)) if situation.secure_boot => against.push(refusals::UNSIGNED.to_owned()),
                Some((modules, source)) => {
                    return Ok(Decision { branch, version, flavour, modules, source, because });
                }
                None => against.push(format!("{} has no {} modules of branch {branch}", packager(situation), flavour.word())),
            }
        }
    }
    against.dedup();
    Err(refusals::nothing_fits(situation, &packager(situation), &against))
}

/// Why not this branch with this flavour.
fn refusal(situation: &Situation<'_>, branch: u16, flavour: Flavour) -> Option<String> {
    let of_gpu = situation.gpus.iter().find_map(|gpu| rules::refusal(gpu, branch, flavour));
    let unasked = situation.asked.flavour.named().is_some_and(|asked| asked != flavour);
    rules::not_published(branch, flavour)
        .or(of_gpu)
        .or_else(|| unasked.then(|| format!("gpu.driver.flavour is not \"{}\"", flavour.word())))
}

fn branch_reason(situation: &Situation<'_>, branch: u16) -> String {
    if situation.asked.branch.number.is_some() {
        format!("branch {} because gpu.driver.branch asks for it", situation.asked.branch)
    } else if situation.asked.run_file.is_some() {
        format!("branch {branch} because the .run file is of it")
    } else {
        format!("branch {branch} because it is the one for {}", packager(situation))
    }
}

fn flavour_reason(situation: &Situation<'_>, branch: u16, flavour: Flavour, preference: &str) -> String {
    let other = if flavour == Flavour::Open { Flavour::Proprietary } else { Flavour::Open };
    let reason = if situation.asked.flavour.named().is_some() {
        "gpu.driver.flavour asks for them".to_owned()
    } else if let Some(why) = refusal(situation, branch, other) {
        why
    } else if rules::preferred(&situation.gpus, branch).0 == flavour {
        preference.to_owned()
    } else {
        format!("{} has no {} ones", packager(situation), other.word())
    };
    format!("{} modules because {reason}", flavour.word())
}

/// The rows for this distribution and source.
fn rows(situation: &Situation<'_>) -> Result<Vec<&'static Row>, Finding> {
    let os = situation.os;
    let is_rhel =
        ["rhel", "rocky", "almalinux", "ol", "centos"].contains(&os.id.as_str()) || os.like.iter().any(|like| like == "rhel");
    let id = if is_rhel { "rhel" } else { os.id.as_str() };
    let release = if is_rhel { os.version.split('.').next().unwrap_or_default() } else { os.version.as_str() };
    let repository = situation.asked.repository.as_ref();
    // For the RHEL family nobody but NVIDIA has packages of the driver: any repository with them has NVIDIA's names.
    let is_nvidias = repository.is_some_and(|repository| is_rhel || repository.is_nvidias());
    let origin = if is_nvidias { Origin::Nvidia } else { Origin::Distribution };
    let of_release = |row: &&Row| row.distribution == id && row.releases.contains(&release);
    let rows: Vec<&Row> = ROWS.iter().filter(of_release).filter(|row| row.origin == origin).collect();
    if !rows.is_empty() {
        return Ok(rows);
    }
    Err(refusals::no_rows(os, ROWS.iter().any(|row| of_release(&row))))
}

fn packager(situation: &Situation<'_>) -> String {
    let os = situation.os;
    match &situation.asked.repository {
        Some(repository) => format!("{} {} at {}", os.id, os.version, repository.url),
        None => format!("{} {}", os.id, os.version),
    }
}

/// The first kind of modules in a row that is asked for and that the kernel would load.
fn kind(
    situation: &Situation<'_>,
    row: &Row,
    branch: u16,
    flavour: Flavour,
    because: &mut Vec<String>,
) -> Option<(Modules, Source)> {
    let asked = |modules| match situation.asked.kernel_modules {
        KernelModules::Auto => true,
        KernelModules::Precompiled => modules == Modules::Precompiled,
        KernelModules::Dkms => modules == Modules::Dkms,
    };
    let server = situation.asked.branch.server || (row.has_server_lines && situation.asked.branch.number.is_none());
    let has_line = row.has_server_lines || !server;
    let has_fabric_manager = !situation.has_nvswitches || row.fabric_manager.is_some();
    // Ubuntu builds its fabric manager for the server lines only.
    let suits_switches = !situation.has_nvswitches || !row.has_server_lines || server;
    // A package that is named after the whole version cannot be asked for without it.
    let has_name = |kind: &&Kind| {
        situation.asked.branch.version.is_some() || !kind.packages.iter().any(|package| package.contains("{version}"))
    };
    let kind = row.kinds.iter().filter(has_name).find(|kind| kind.flavour == flavour && asked(kind.modules));
    let kind = kind.filter(|_| has_line && has_fabric_manager && suits_switches)?;
    because.push(match (kind.modules, situation.asked.kernel_modules) {
        (Modules::Precompiled, _) if situation.secure_boot && row.manager == Manager::Dnf => {
            "precompiled modules because Secure Boot is on and they are signed, with a key of NVIDIA's that the firmware has to know".to_owned()
        }
        (Modules::Precompiled, _) if situation.secure_boot => {
            "precompiled modules because Secure Boot is on and they are signed".to_owned()
        }
        (_, KernelModules::Precompiled | KernelModules::Dkms) => {
            format!("{} because gpu.driver.kernel-modules asks for it", modules_in_words(kind.modules))
        }
        (Modules::Precompiled, _) => "precompiled modules because the distribution has them".to_owned(),
        (Modules::Dkms, _) => "built here by DKMS because there are none precompiled".to_owned(),
    });
    let packages = names::packages(situation, row, kind, branch, server);
    let stream = row.has_streams.then(|| format!("{branch}{}", kind.stream));
    Some((kind.modules, Source::Packages { manager: row.manager, packages, stream }))
}

fn modules_in_words(modules: Modules) -> &'static str {
    match modules {
        Modules::Precompiled => "precompiled modules",
        Modules::Dkms => "built here by DKMS",
    }
}

/// `NVIDIA-Linux-x86_64-535.261.03.run`, as NVIDIA names them.
pub fn version_of_run_file(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?.strip_suffix(".run")?;
    let version = name.split('-').find(|part| part.contains('.') && part.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(version.to_owned())
}
