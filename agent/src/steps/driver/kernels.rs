//! A kernel loads the module that its own `modules.dep` names; the next kernel has a list of its own, and maybe no driver in it.

use std::cmp::Ordering;

use anyhow::Result;

use super::decision::Kernel;
use crate::look::Look;

/// Where each kernel has its modules.
const MODULES: &str = "/lib/modules";

/// Where DKMS keeps what it builds (dkms(8)).
const DKMS: &str = "/var/lib/dkms";

/// A kernel that needs the driver, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The kernel.
    pub kernel: Kernel,
    /// The driver's module for it, below `/lib/modules/RELEASE`.
    pub module: Option<String>,
    /// The version that DKMS built for it, where it was DKMS.
    pub built: Option<String>,
    /// Why DKMS could not build it.
    pub failure: Option<String>,
}

/// The kernels that need the driver: on a running system the one that runs, then later ones; in an image the latest.
pub fn kernels(look: Look<'_>) -> Result<Vec<Standing>> {
    let mut releases = Vec::new();
    for release in look.list(MODULES)? {
        // A removed kernel leaves a directory with what was built for it behind.
        if look.exists(format!("{MODULES}/{release}/modules.builtin"))? || look.exists(format!("{MODULES}/{release}/kernel"))? {
            releases.push(release);
        }
    }
    releases.sort_by(|one, other| by_version(one, other));
    let running = look.facts.kernel.as_str();
    let wanted: Vec<String> = if look.running_system() {
        let later = releases.into_iter().filter(|release| by_version(release, running) == Ordering::Greater);
        std::iter::once(running.to_owned()).chain(later).collect()
    } else {
        releases.into_iter().next_back().into_iter().collect()
    };
    wanted.into_iter().map(|release| standing(look, release)).collect()
}

fn standing(look: Look<'_>, release: String) -> Result<Standing> {
    let dependencies = look.read(format!("{MODULES}/{release}/modules.dep"))?.unwrap_or_default();
    let dependencies = String::from_utf8_lossy(&dependencies).into_owned();
    let module = dependencies.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path).find(|path| is_driver(path));
    let (built, failure) = dkms(look, &release)?;
    let has_headers = look.exists(format!("{MODULES}/{release}/build/Makefile"))?;
    Ok(Standing { kernel: Kernel { release, has_headers }, module: module.map(str::to_owned), built, failure })
}

/// `updates/dkms/nvidia.ko.zst`, and `nvidia-current.ko`, `nvidia-current-open.ko`, `nvidia-tesla-535-current.ko` as Debian names them.
fn is_driver(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.split_once(".ko").map_or("", |(stem, _)| stem);
    let rest = stem.strip_prefix("nvidia");
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with("-current") || rest.ends_with("-current-open"))
}

/// What DKMS built for a kernel, and why it did not.
fn dkms(look: Look<'_>, release: &str) -> Result<(Option<String>, Option<String>)> {
    let (mut built, mut failure) = (None, None);
    for module in look.list(DKMS)?.into_iter().filter(|module| module.starts_with("nvidia")) {
        for entry in look.list(format!("{DKMS}/{module}"))? {
            if entry.starts_with(&format!("kernel-{release}-")) {
                // A link such as `535.261.03/6.1.0-50-amd64/x86_64`.
                let target = look.link(format!("{DKMS}/{module}/{entry}"))?;
                built = target.and_then(|target| Some(target.iter().next()?.to_string_lossy().into_owned())).or(built);
            } else if let Some(log) = look.read(format!("{DKMS}/{module}/{entry}/build/make.log"))? {
                failure = build_failure(&String::from_utf8_lossy(&log), &module, release).or(failure);
            }
        }
    }
    let failure = failure.filter(|_| built.is_none());
    Ok((built, failure))
}

/// The first error of the compiler in a log of DKMS, where the log is about this kernel.
fn build_failure(log: &str, module: &str, release: &str) -> Option<String> {
    let mut lines = log.lines();
    let is_about = lines.next()?.split_whitespace().any(|word| word == release);
    let error = first_error(log).unwrap_or("the log names no error");
    is_about.then(|| format!("{module}: {error}"))
}

/// The line of a compiler's output that tells what is wrong; later errors often follow from it.
pub fn first_error(log: &str) -> Option<&str> {
    let is_error =
        |line: &&str| line.contains(": error:") || line.contains("fatal error:") || line.contains("modpost: GPL-incompatible");
    log.lines().map(str::trim).find(is_error)
}

/// Compares releases as people do: numbers as numbers.
fn by_version(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
            let (letters, after) = rest.split_at(word);
            let digits = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
            let (number, after) = after.split_at(digits);
            parts.push((number.parse().unwrap_or_default(), letters.to_owned()));
            rest = after;
        }
        parts
    };
    // The letters come before the number of a part, and count first.
    let parts = |text| parts(text).into_iter().map(|(number, letters)| (letters, number)).collect::<Vec<_>>();
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::{build_failure, by_version, is_driver};
    use std::cmp::Ordering::{Equal, Greater, Less};

    #[test]
    fn the_drivers_module_is_told_from_its_neighbours() {
        for path in [
            "updates/dkms/nvidia.ko.zst",
            "updates/dkms/nvidia-current.ko.xz",
            "kernel/nvidia-535/nvidia.ko",
            "extra/nvidia.ko",
            "updates/dkms/nvidia-current-open.ko",
            "updates/dkms/nvidia-tesla-535-current.ko",
        ] {
            assert!(is_driver(path), "{path}");
        }
        for path in [
            "updates/dkms/nvidia-uvm.ko",
            "kernel/drivers/video/fbdev/nvidia/nvidiafb.ko",
            "updates/dkms/nvidia-current-drm.ko",
            "kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko",
            "updates/dkms/nvidia-peermem.ko",
            "nvidia",
        ] {
            assert!(!is_driver(path), "{path}");
        }
    }

    #[test]
    fn kernels_are_ordered_by_their_numbers() {
        for (one, other, expected) in [
            ("6.1.0-9-amd64", "6.1.0-50-amd64", Less),
            ("6.12.107+deb13-cloud-amd64", "6.12.99+deb13-cloud-amd64", Greater),
            ("5.15.0-100-generic", "6.8.0-49-generic", Less),
            ("6.1.0-9-amd64", "6.1.0-9-amd64", Equal),
        ] {
            assert_eq!(by_version(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_log_is_about_one_kernel() {
        let log = "DKMS (dkms-3.2.2) make.log for nvidia-current-open/550.163.01 for kernel 6.12.107+deb13-cloud-amd64 (x86_64)\n\
            /var/lib/dkms/x/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'\nmake: *** [Makefile:1: x] Error 2\n";
        let failure = build_failure(log, "nvidia-current-open", "6.12.107+deb13-cloud-amd64").unwrap();
        assert!(failure.contains("nv-pci.c:237:9: error: too few arguments"), "{failure}");
        assert_eq!(build_failure(log, "nvidia-current-open", "6.12.99+deb13-cloud-amd64"), None);
    }
}
