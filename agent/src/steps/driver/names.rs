//! A package is named after the driver's branch, the flavour of its modules, and the kernel that it is for.

use super::decision::Situation;
use super::table::{Kind, Manager, Row};

/// A package to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What its version begins with, where it has the driver's own.
    pub version: Option<String>,
}

impl Package {
    /// As its manager takes it: the name, and which versions will do.
    pub fn word(&self, manager: Manager) -> String {
        match (&self.version, manager) {
            (None, _) => self.name.clone(),
            (Some(version), Manager::Apt) => format!("{}={version}*", self.name),
            (Some(version), Manager::Dnf) => format!("{}-{version}*", self.name),
        }
    }
}

/// The packages of a kind of modules in a row, with all that belongs to them, each once.
pub fn packages(situation: &Situation<'_>, row: &Row, kind: &Kind, branch: u16, server: bool) -> Vec<Package> {
    let number = branch.to_string();
    let line = if server { format!("{number}-server") } else { number.clone() };
    let version = situation.asked.branch.version.clone().unwrap_or_else(|| format!("{number}."));
    let running = situation.kernels.first().map(|kernel| kernel.release.as_str()).unwrap_or_default();
    let flavour = kernel_flavour(running, &situation.os.id, &situation.os.version);
    let companions = row.companions.iter().filter(|(of, _)| *of == branch).flat_map(|(_, names)| names.iter());
    let [before, from] = row.fabric_manager.unwrap_or_default();
    let fabric_manager = if branch < 580 { before } else { from };
    let fabric_manager = Some(fabric_manager).filter(|name| situation.has_nvswitches && !name.is_empty());
    let templates = kind.packages.iter().chain(row.userland).chain(companions).copied().chain(fabric_manager);
    let mut packages: Vec<Package> = Vec::new();
    let mut put = |template: &str, release: &str| {
        let (template, has_version) = template.strip_suffix('=').map_or((template, false), |template| (template, true));
        let name = template
            .replace("{branch}", &line)
            .replace("{number}", &number)
            .replace("{kernel}", &flavour)
            .replace("{each}", release)
            .replace("{numbers}", numbers(release))
            .replace("{version}", &version)
            .replace("{bare}", release);
        let package = Package { name, version: has_version.then(|| version.clone()) };
        // A kernel whose release is not known has no packages.
        if !package.name.ends_with('-') && !packages.contains(&package) {
            packages.push(package);
        }
    };
    for template in templates {
        let of_each = template.contains("{each}") || template.contains("{numbers}");
        if of_each || template.contains("{bare}") {
            let wanted = situation.kernels.iter().filter(|kernel| of_each || !kernel.has_headers);
            wanted.for_each(|kernel| put(template, &kernel.release));
        } else {
            put(template, "");
        }
    }
    packages
}

/// `5.14.0-503.11.1` of `5.14.0-503.11.1.el9_5.x86_64`: NVIDIA's packages for RHEL leave out distribution and architecture.
pub fn numbers(release: &str) -> &str {
    release.split_once(".el").map_or(release, |(numbers, _)| numbers)
}

/// The kernel that each release of Ubuntu began with; later ones are its hardware-enablement kernels.
const UBUNTU_KERNELS: [(&str, &str); 3] = [("20.04", "5.4."), ("22.04", "5.15."), ("24.04", "6.8.")];

/// What comes behind the numbers in a kernel's release (`amd64`, `cloud-amd64`, `aws`), as its packages are called.
fn kernel_flavour(release: &str, distribution: &str, version: &str) -> String {
    let parts = release.split('-').skip_while(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let flavour = parts.collect::<Vec<_>>().join("-");
    let began = UBUNTU_KERNELS.iter().find(|(ubuntu, _)| distribution == "ubuntu" && *ubuntu == version);
    match began {
        Some((_, kernel)) if flavour == "generic" && !release.starts_with(kernel) => format!("generic-hwe-{version}"),
        _ => flavour,
    }
}

#[cfg(test)]
mod tests {
    use super::kernel_flavour;

    #[test]
    fn a_kernels_packages_are_called_by_its_flavour() {
        for (release, distribution, version, expected) in [
            ("6.1.0-50-amd64", "debian", "12", "amd64"),
            ("6.12.107+deb13-cloud-amd64", "debian", "13", "cloud-amd64"),
            ("6.8.0-1014-aws", "ubuntu", "22.04", "aws"),
            ("5.15.0-100-generic", "ubuntu", "22.04", "generic"),
            ("6.8.0-49-generic", "ubuntu", "22.04", "generic-hwe-22.04"),
            ("6.8.0-49-generic", "ubuntu", "24.04", "generic"),
            ("", "debian", "12", ""),
        ] {
            assert_eq!(kernel_flavour(release, distribution, version), expected, "{release}");
        }
    }
}
