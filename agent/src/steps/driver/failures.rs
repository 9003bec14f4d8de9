//! What apt, dpkg, DKMS, dnf and NVIDIA's installer say when they fail tells a person what to do, if one knows their words.

use super::{kernels, run_file};
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Finding, Status};

/// What a failed change of the step means; `None` for "only try again".
pub fn judge(failure: &Failure, look: Look<'_>) -> Option<Status> {
    let Failure::Program { command, output } = failure else { return None };
    let mut said = format!("{}\n{}", output.stderr, output.stdout);
    // NVIDIA's installer leaves what a compiler said to its log.
    if said.contains(run_file::LOG)
        && let Ok(Some(log)) = look.read(run_file::LOG)
    {
        said = format!("{said}\n{}", String::from_utf8_lossy(&log));
    }
    KNOWN.iter().find_map(|known| known.status(command, &said, look))
}

/// A way to fail.
struct Known {
    /// Words of which one is in the output.
    words: &'static [&'static str],
    /// What they mean.
    meaning: fn(&Said<'_>) -> Status,
}

/// What a program said, around the words by which it was known.
struct Said<'a> {
    command: &'a str,
    text: &'a str,
    /// The line with the words.
    line: &'a str,
    look: Look<'a>,
}

impl Known {
    fn status(&self, command: &str, text: &str, look: Look<'_>) -> Option<Status> {
        let line = text.lines().find(|line| self.words.iter().any(|word| line.contains(word)))?;
        Some((self.meaning)(&Said { command, text, line: line.trim(), look }))
    }
}

/// The first that fits counts: a build that ran out of disk is no fault of the compiler.
const KNOWN: &[Known] = &[
    Known {
        // Where apt waited and got the lock, it says so as well, with other words in front.
        words: &[
            "E: Could not get lock",
            "E: Unable to acquire",
            "E: Unable to lock",
            "dpkg: error: dpkg frontend lock was locked",
        ],
        meaning: locked,
    },
    Known {
        words: &["No space left on device", "You don't have enough free space", "more space needed on the", "more space on the"],
        meaning: full,
    },
    Known {
        words: &[
            "NO_PUBKEY",
            "BADSIG",
            "EXPKEYSIG",
            "REVKEYSIG",
            "is not signed",
            "no valid OpenPGP",
            "Sub-process /usr/bin/sqv returned an error",
            "Missing key",
            "GPG check FAILED",
            "repomd.xml GPG signature verification error",
        ],
        meaning: unsigned,
    },
    Known {
        words: &[
            "Hash Sum mismatch",
            "unexpected size",
            "lzma error",
            "unexpected end of file",
            "is not a Debian format archive",
            "Checksum doesn't match",
            "MD5 mismatch",
            "has incorrect checksum",
            "have incorrect checksum",
            "but all mirrors were already tried without success",
            "header read failed",
            "Package not complete",
            "DIGEST: NOT OK",
        ],
        meaning: damaged,
    },
    Known { words: &["computed checksum did NOT match", "no properly formatted checksum lines"], meaning: wrong_sum },
    Known {
        words: &[
            "Unable to locate package",
            "has no installation candidate",
            "E: Version '",
            "E: Release '",
            "Couldn't find any package",
            "Unable to find a match",
            "No match for argument",
            "missing groups or modules",
        ],
        meaning: unavailable,
    },
    Known {
        words: &["Held packages were changed", "unmet dependencies", "held broken packages", "conflicting requests"],
        meaning: conflict,
    },
    Known {
        words: &[
            "Bad return status for module build",
            "module build on kernel",
            "(bad exit status:",
            "Unable to build the NVIDIA kernel module",
            "The kernel module failed to build",
            "performing the step: \"Building kernel modules\"",
        ],
        meaning: build_failed,
    },
    Known {
        words: &["Your kernel headers for kernel", "kernel headers for kernel", "Unable to find the kernel source tree"],
        meaning: headers_missing,
    },
    Known {
        words: &[
            "appears to already be loaded in your kernel",
            "driver appears to be in use",
            "NVIDIA driver is currently installed and running",
        ],
        meaning: in_use,
    },
    Known { words: &["Installation has failed", "Installation of the NVIDIA"], meaning: installer_failed },
    Known {
        words: &[
            "Could not resolve",
            "Temporary failure resolving",
            "Could not connect",
            "Connection timed out",
            "Unable to connect",
            "Failed to fetch",
            "Failed to download metadata for repo",
            "Cannot download",
            "Curl error",
        ],
        meaning: unreachable,
    },
];

fn locked(said: &Said<'_>) -> Status {
    let why = format!("apt waited for it: {}", said.line);
    let remedy = "wait for the other process (unattended-upgrades at boot, most often): the agent tries again by itself";
    Status::Waiting(Finding::new("package-lock-held", "Another process holds the lock of the package manager", why, remedy))
}

fn full(said: &Said<'_>) -> Status {
    let remedy = "make room on the disk (apt-get clean; journalctl --vacuum-size=200M), then: gpuk-agent up";
    Status::Broken(Finding::new("disk-full", "The disk is too full for the driver", said.line, remedy))
}

fn unsigned(said: &Said<'_>) -> Status {
    let of_ours = said.look.config.gpu.driver.repository.as_ref();
    let whose = of_ours.map_or("a package source of this machine".to_owned(), |repository| format!("perhaps {}", repository.url));
    Status::Broken(Finding::new(
        "repository-key-wrong",
        "A package repository is not signed by the key that is trusted for it",
        format!("{whose}: {}", said.line),
        "put the repository's right key where gpu.driver.repository-key says (or mend the source that the line names), then: gpuk-agent up",
    ))
}

fn damaged(said: &Said<'_>) -> Status {
    let remedy = "nothing, if a mirror is just being written: the agent tries again; else: apt-get clean && apt-get update, or mend the mirror";
    Status::Waiting(Finding::new("package-damaged", "A package did not arrive as its repository lists it", said.line, remedy))
}

fn wrong_sum(said: &Said<'_>) -> Status {
    let remedy = "copy the .run file again, or put what sha256sum prints for it into gpu.driver.run-file-sha256";
    let why = format!("{}: {}", said.command, said.line);
    Status::Broken(Finding::new("run-file-damaged", "The .run file is not the one that the configuration names", why, remedy))
}

fn unavailable(said: &Said<'_>) -> Status {
    let is_headers = said.line.contains("linux-headers") || said.line.contains("kernel-devel");
    if is_headers {
        return headers_missing(said);
    }
    let lines =
        said.text.lines().filter(|line| line.starts_with("E: ") || line.starts_with("Error: ") || line.contains("No match"));
    let os = &said.look.facts.os;
    let remedy = match os.id.as_str() {
        "debian" => {
            "add the components contrib and non-free to apt's sources (sources.list(5)), or give repository and repository-key under [gpu.driver]"
        }
        "ubuntu" => {
            "enable restricted and multiverse in apt's sources, write another branch, or give repository and repository-key under [gpu.driver]"
        }
        _ => "write another branch, or give the right repository and repository-key under [gpu.driver]",
    };
    let why = lines.take(6).collect::<Vec<_>>().join("\n");
    let why = if why.is_empty() { said.line.to_owned() } else { why };
    Status::Broken(Finding::new("driver-not-available", "The package sources do not have this driver", why, remedy))
}

fn conflict(said: &Said<'_>) -> Status {
    let after: Vec<&str> = said.text.lines().skip_while(|line| !line.contains(said.line)).take(8).map(str::trim_end).collect();
    Status::Broken(Finding::new(
        "driver-packages-conflict",
        "The packages of the driver cannot be installed together with what is there",
        after.join("\n"),
        "apt-mark showhold; apt-get --simulate install PACKAGE tells which package is in the way: remove it, then: gpuk-agent up",
    ))
}

fn build_failed(said: &Said<'_>) -> Status {
    Status::Broken(build_finding(said.look, Some(said.text)))
}

/// The finding on modules that could not be built; the compiler's words are in DKMS's log, seldom in the output.
fn build_finding(look: Look<'_>, text: Option<&str>) -> Finding {
    let standings = kernels::kernels(look).unwrap_or_default();
    let failed = standings.iter().find_map(|standing| Some((standing.kernel.release.as_str(), standing.failure.clone()?)));
    let of_output = text.and_then(|text| {
        let begin = "error processing package ";
        let line = text.lines().find(|line| line.contains(begin))?;
        line.split_once(begin)?.1.split_whitespace().next()
    });
    let package = of_output.map(|package| format!("package {package}, ")).unwrap_or_default();
    let first = text.and_then(kernels::first_error).map(str::to_owned);
    let (release, why) = match failed {
        Some((release, why)) => (release, why),
        None => (look.facts.kernel.as_str(), first.unwrap_or_else(|| "see /var/lib/dkms/nvidia*/*/build/make.log".to_owned())),
    };
    Finding::new(
        "driver-build-failed",
        format!("The driver's modules could not be built for kernel {release}"),
        format!("{package}{why}"),
        "the kernel is newer than this driver, most often: write flavour = \"proprietary\" or a later branch under [gpu.driver], or run \
         an older kernel; then: gpuk-agent up",
    )
}

fn headers_missing(said: &Said<'_>) -> Status {
    Status::Broken(Finding::new(
        "kernel-headers-missing",
        "The headers of a kernel cannot be installed, and its modules not be built without them",
        said.line,
        "the archive has only those of its newest kernel, most often: install that kernel, reboot, then: gpuk-agent up",
    ))
}

fn in_use(said: &Said<'_>) -> Status {
    Status::Broken(Finding::new(
        "driver-in-use",
        "NVIDIA's installer does not replace a driver that runs",
        said.line,
        "drain the node, write install = \"never\" under [gpu.driver], reboot without the nvidia modules, or take packages in place of the .run file",
    ))
}

fn installer_failed(said: &Said<'_>) -> Status {
    let errors = said.text.lines().map(str::trim).filter(|line| line.starts_with("ERROR: "));
    let mut errors: Vec<&str> = errors.filter(|line| !line.contains("Installation has failed")).collect();
    errors.dedup();
    let why = errors.into_iter().take(4).collect::<Vec<_>>().join("\n");
    Status::Broken(Finding::new(
        "run-file-failed",
        "NVIDIA's installer could not install the driver",
        if why.is_empty() { said.line.to_owned() } else { why },
        format!("mend what {} names, then: gpuk-agent up", run_file::LOG),
    ))
}

fn unreachable(said: &Said<'_>) -> Status {
    let remedy = "look after name resolution, the proxy of apt or dnf, and the mirror; the agent tries again by itself";
    Status::Waiting(Finding::new("packages-unreachable", "The package sources cannot be reached", said.line, remedy))
}
