//! A repository for dnf with signed packages and the streams of a module, as NVIDIA's has them for RHEL 9, made for one test.
//!
//! Names, epoch, streams and what needs what are those of NVIDIA's packages (their spec files, "yum-packaging-*"); of the files there are
//! only those by which a driver is known.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};

use crate::image::run;
use crate::keys::{self, Keys};

/// Two versions of branch 580.
pub const OLD: &str = "580.65.06";
/// The one that an upgrade would take.
pub const NEW: &str = "580.82.07";
/// The kernel of the image.
pub const KERNEL: &str = "5.14.0-503.11.1.el9_5.x86_64";

/// The same without distribution and architecture, as NVIDIA's precompiled packages name it.
const KERNEL_NUMBERS: &str = "5.14.0-503.11.1";

/// NVIDIA's packages that have the driver's version: a name, and what it needs of the very same version.
const PARTS: [(&str, &[&str]); 7] = [
    ("kmod-nvidia-open-dkms", &["nvidia-kmod-common"]),
    ("kmod-nvidia-latest-dkms", &["nvidia-kmod-common"]),
    ("nvidia-kmod-common", &["nvidia-kmod"]),
    ("nvidia-driver-cuda", &["nvidia-driver-cuda-libs", "nvidia-kmod-common"]),
    ("nvidia-driver-cuda-libs", &["libnvidia-ml"]),
    ("libnvidia-ml", &[]),
    ("nvidia-persistenced", &[]),
];

/// A repository below a folder.
pub struct Repository {
    folder: PathBuf,
    keys: Keys,
}

impl Repository {
    /// A copy of the one that is built once for all tests of a program, and its key.
    pub fn copy(to: &Path, key: &Path) -> Result<()> {
        static BUILT: Mutex<Option<(Repository, tempfile::TempDir)>> = Mutex::new(None);
        let mut built = BUILT.lock().map_err(|_| anyhow!("another test could not build the repository"))?;
        if built.is_none() {
            let folder = tempfile::tempdir()?;
            *built = Some((Self::new(folder.path())?, folder));
        }
        let (repository, folder) = built.as_ref().context("it was built just now")?;
        std::fs::create_dir_all(to.parent().context("a folder is in a folder")?)?;
        run(Command::new("cp").arg("--recursive").arg(folder.path()).arg(to))?;
        repository.keys.export(key)
    }

    /// All packages, signed.
    fn new(folder: &Path) -> Result<Self> {
        let repository = Self { folder: folder.to_owned(), keys: Keys::new("rsa3072")? };
        for version in [OLD, NEW] {
            for (name, needs) in PARTS {
                let needs: String = needs.iter().map(|need| format!("Requires: {need} = 3:{version}\n")).collect();
                let script = match name {
                    "libnvidia-ml" => library(version),
                    "kmod-nvidia-open-dkms" | "kmod-nvidia-latest-dkms" => module(),
                    _ => String::new(),
                };
                let more = if name.starts_with("kmod") { modules_of_one_kind(version) } else { String::new() };
                repository.package(name, &format!("3:{version}-1.el9"), &format!("{needs}{more}"), &script)?;
            }
            let precompiled = format!("kmod-nvidia-{version}-{KERNEL_NUMBERS}");
            repository.package(&precompiled, &format!("3:{version}-3.el9_5"), &modules_of_one_kind(version), &module())?;
        }
        let (numbers, _) = KERNEL.rsplit_once('.').context("a kernel has an architecture")?;
        let makefile = format!("mkdir -p usr/lib/modules/{KERNEL}/build\ntouch usr/lib/modules/{KERNEL}/build/Makefile\n");
        repository.package("kernel-devel", &format!("0:{numbers}"), "", &makefile)?;
        repository.package("kernel-headers", &format!("0:{numbers}"), "", "")?;
        repository.package("python3-dnf-plugin-versionlock", "0:4.3.0-20.el9", "", "")?;
        repository.list()?;
        Ok(repository)
    }

    /// Builds a package whose files `script` makes in an empty folder, and signs it.
    fn package(&self, name: &str, version: &str, needs: &str, script: &str) -> Result<()> {
        let (epoch, rest) = version.split_once(':').context("a version has an epoch")?;
        let (version, release) = rest.rsplit_once('-').context("a version has a release")?;
        let work = tempfile::tempdir()?;
        let spec = format!(
            "Name: {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: {release}\nSummary: x\nLicense: x\n{needs}\
             %description\nx\n%install\nmkdir -p %{{buildroot}}\ncd %{{buildroot}}\n{script}mkdir -p usr/share/doc\ntouch usr/share/doc/{name}\nfind . -type f -o -type l | sed s,^.,, > %{{_builddir}}/files\n\
             %files -f %{{_builddir}}/files\n"
        );
        std::fs::write(work.path().join("x.spec"), spec)?;
        let define = |key: &str, value: &str| ["--define".to_owned(), format!("{key} {value}")];
        let mut build = Command::new("rpmbuild");
        build.args(["-bb", "--quiet", "--target", "x86_64"]);
        build.args(define("_topdir", &work.path().display().to_string()));
        build.args(define("_rpmdir", &self.folder.display().to_string()));
        build.args(define("_rpmfilename", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"));
        build.args(define("_build_id_links", "none")).args(define("__os_install_post", "%{nil}"));
        run(build.arg(work.path().join("x.spec")))?;
        let mut sign = Command::new("rpmsign");
        sign.args(define("_gpg_name", keys::NAME)).args(define("_gpg_path", &self.keys.folder().display().to_string()));
        // Debian's rpm looks for gpg2, which is gpg here.
        sign.args(define("__gpg", "/usr/bin/gpg"));
        sign.args(define("_gpg_sign_cmd_extra_args", "--batch --pinentry-mode loopback --passphrase ''"));
        run(sign.arg("--addsign").arg(self.folder.join(format!("{name}-{version}-{release}.x86_64.rpm")))).map(drop)
    }

    /// Lists the packages, and the streams of the module `nvidia-driver`.
    fn list(&self) -> Result<()> {
        run(Command::new("createrepo_c").arg("--quiet").arg(&self.folder))?;
        let file = self.folder.join("modules.yaml");
        std::fs::write(&file, streams()?)?;
        run(Command::new("modifyrepo_c").arg("--mdtype=modules").arg(&file).arg(self.folder.join("repodata"))).map(drop)
    }
}

/// DKMS's modules and precompiled ones cannot be there together (the spec file of "yum-packaging-precompiled-kmod").
fn modules_of_one_kind(version: &str) -> String {
    format!("Provides: nvidia-kmod = 3:{version}\nConflicts: nvidia-kmod\n")
}

/// NVML's file, large enough to fill a small disk.
fn library(version: &str) -> String {
    format!(
        "mkdir -p usr/lib64\nhead --bytes=256K /dev/urandom > usr/lib64/libnvidia-ml.so.{version}\n\
         ln -s libnvidia-ml.so.{version} usr/lib64/libnvidia-ml.so.1\n"
    )
}

/// A module that is there already, where DKMS or a link step would put the one that it made.
fn module() -> String {
    let folder = format!("usr/lib/modules/{KERNEL}");
    format!("mkdir -p {folder}/extra\ntouch {folder}/extra/nvidia.ko\necho extra/nvidia.ko: > {folder}/modules.dep\n")
}

/// The module's description (modulemd, "Modulemd YAML Format: Stream Modulemd, Version 2").
fn streams() -> Result<String> {
    let mut text = String::new();
    for (stream, kmod) in
        [("580", None), ("580-dkms", Some("kmod-nvidia-latest-dkms")), ("580-open", Some("kmod-nvidia-open-dkms"))]
    {
        write!(
            text,
            "---\ndocument: modulemd\nversion: 2\ndata:\n  name: nvidia-driver\n  stream: {stream}\n  version: 20260101000000\n  context: 0123abcd\n  \
             arch: x86_64\n  summary: x\n  description: x\n  license:\n    module: [MIT]\n  artifacts:\n    rpms:\n"
        )?;
        for version in [OLD, NEW] {
            let common = PARTS.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("kmod"));
            for name in common.chain(kmod) {
                writeln!(text, "    - {name}-3:{version}-1.el9.x86_64")?;
            }
            if kmod.is_none() {
                writeln!(text, "    - kmod-nvidia-{version}-{KERNEL_NUMBERS}-3:{version}-3.el9_5.x86_64")?;
            }
        }
        text += "...\n";
    }
    Ok(text)
}
