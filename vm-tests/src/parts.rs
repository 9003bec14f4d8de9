//! Kubernetes, etcd, containerd and runc are Go programs: their modules and a Go
//! toolchain are enough to have the real ones anywhere.

mod debian;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Recipe};
use crate::command::run;
use crate::progress::timed;
pub use qemu::Qemu;

/// The version of Kubernetes that is built.
pub const KUBERNETES: &str = "v1.34.4";
const CONTAINERD: &str = "v2.4.2";
const RUNC: &str = "1.5.2";

/// A Go module that pins the programs of one project.
struct Module {
    name: &'static str,
    requirements: &'static str,
    checksums: &'static str,
}

const KUBERNETES_MODULE: Module = Module {
    name: "kubernetes",
    requirements: include_str!("../parts/kubernetes/go.mod"),
    checksums: include_str!("../parts/kubernetes/go.sum"),
};
const CONTAINERD_MODULE: Module = Module {
    name: "containerd",
    requirements: include_str!("../parts/containerd/go.mod"),
    checksums: include_str!("../parts/containerd/go.sum"),
};
const RUNC_MODULE: Module =
    Module { name: "runc", requirements: include_str!("../parts/runc/go.mod"), checksums: include_str!("../parts/runc/go.sum") };

const TOOLKIT_MODULE: Module = Module {
    name: "nvidia-container-toolkit",
    requirements: include_str!("../parts/toolkit/go.mod"),
    checksums: include_str!("../parts/toolkit/go.sum"),
};

/// The version of NVIDIA's container toolkit that is built, and its programs.
pub const TOOLKIT: &str = "1.20.0";
const TOOLKIT_PROGRAMS: [&str; 3] = ["nvidia-ctk", "nvidia-container-runtime", "nvidia-cdi-hook"];

/// A program of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Program {
    Kubeadm,
    Kubelet,
    Kubectl,
    ApiServer,
    ControllerManager,
    Scheduler,
    Proxy,
    Etcd,
}

impl Program {
    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Proxy => "kube-proxy",
            Self::Etcd => "etcd",
        }
    }

    fn package(self) -> String {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
            _ => format!("k8s.io/kubernetes/cmd/{}", self.name()),
        }
    }
}

/// A containerd to test against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containerd {
    /// 1.6.20 with runc 1.1.5, as Debian 12 ships them.
    Debian12,
    /// 1.7.24 with runc 1.1.15, as Debian 13 ships them; on an older Debian with that one's own runc.
    Debian13,
    /// 2.4.2 with runc 1.5.2, built here.
    Go2,
}

/// A folder with `containerd`, its shims, `ctr` and `runc`.
#[derive(Clone, Debug)]
pub struct ContainerdBinaries {
    /// The folder, to be put in front of `$PATH`.
    pub directory: PathBuf,
}

impl ContainerdBinaries {
    /// The path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The programs that everything else is put together from, each built when it is first asked for.
#[derive(Clone, Debug)]
pub struct Parts {
    cache: Cache,
}

impl Parts {
    /// Parts in the user's cache.
    pub fn open() -> Result<Self> {
        Ok(Self { cache: Cache::open()? })
    }

    /// The cache they are kept in.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The path of a program of Kubernetes, or of etcd.
    pub fn program(&self, program: Program) -> Result<PathBuf> {
        let build = GoBuild {
            module: &KUBERNETES_MODULE,
            program: program.name(),
            package: program.package(),
            tags: "",
            linker: if program == Program::Etcd { String::new() } else { kubernetes_version() },
            c_compiler: false,
        };
        let recipe = build.recipe(Recipe::new())?;
        let directory = self.cache.entry(program.name(), recipe, |directory| build.build(directory))?;
        Ok(directory.join(program.name()))
    }

    /// A containerd with its runc.
    pub fn containerd(&self, which: Containerd) -> Result<ContainerdBinaries> {
        let directory = match which {
            Containerd::Debian12 => debian::containerd(&self.cache, "bookworm")?,
            Containerd::Debian13 => debian::containerd(&self.cache, "trixie")?,
            Containerd::Go2 => self.newest_containerd()?,
        };
        Ok(ContainerdBinaries { directory })
    }

    /// The programs of NVIDIA's container toolkit. They load the driver's libraries when they need them.
    pub fn toolkit(&self) -> Result<Vec<PathBuf>> {
        let package = "github.com/NVIDIA/nvidia-container-toolkit";
        let build = |program| GoBuild {
            module: &TOOLKIT_MODULE,
            program,
            package: format!("{package}/cmd/{program}"),
            tags: "",
            // Symbols of NVML are looked up when they are called: a driver has not all of them.
            linker: format!("-extldflags=-Wl,-z,lazy -X {package}/internal/info.version={TOOLKIT}"),
            c_compiler: true,
        };
        let builds = TOOLKIT_PROGRAMS.map(build);
        let recipe = builds.iter().try_fold(Recipe::new(), |recipe, build| build.recipe(recipe))?;
        let directory =
            self.cache.entry("toolkit", recipe, |directory| builds.iter().try_for_each(|build| build.build(directory)))?;
        Ok(TOOLKIT_PROGRAMS.iter().map(|program| directory.join(program)).collect())
    }

    /// A QEMU that can have devices which another process plays; fetched only when a machine wants one.
    pub fn qemu_for_played_devices(&self) -> Result<Qemu> {
        qemu::newer(&self.cache)
    }

    fn newest_containerd(&self) -> Result<PathBuf> {
        let containerd = |program, path: &str| GoBuild {
            module: &CONTAINERD_MODULE,
            program,
            package: format!("github.com/containerd/containerd/v2/cmd/{path}"),
            tags: "no_btrfs,no_zfs,no_devmapper",
            linker: format!("-X github.com/containerd/containerd/v2/version.Version={CONTAINERD}"),
            c_compiler: false,
        };
        let builds = [
            containerd("containerd", "containerd"),
            containerd("containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            containerd("ctr", "ctr"),
            GoBuild {
                module: &RUNC_MODULE,
                program: "runc",
                package: "github.com/opencontainers/runc".to_owned(),
                tags: "",
                linker: format!("-linkmode external -extldflags -static -X main.version={RUNC}"),
                c_compiler: true,
            },
        ];
        let mut recipe = Recipe::new();
        for build in &builds {
            recipe = build.recipe(recipe)?;
        }
        self.cache.entry("containerd", recipe, |directory| builds.iter().try_for_each(|build| build.build(directory)))
    }
}

fn kubernetes_version() -> String {
    let mut numbers = KUBERNETES.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let values = [("gitVersion", KUBERNETES), ("gitMajor", major), ("gitMinor", minor)];
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let flags = packages.iter().flat_map(|package| values.map(|(name, value)| format!("-X {package}.{name}={value}")));
    flags.collect::<Vec<_>>().join(" ")
}

/// How one program is built.
struct GoBuild<'a> {
    module: &'a Module,
    program: &'a str,
    package: String,
    tags: &'a str,
    linker: String,
    c_compiler: bool,
}

impl GoBuild<'_> {
    fn recipe(&self, recipe: Recipe) -> Result<Recipe> {
        let go = run(Command::new("go").args(["env", "GOVERSION"]), Duration::from_secs(60));
        Ok(recipe
            .with(self.module.requirements)
            .with(self.module.checksums)
            .with(&self.package)
            .with(self.tags)
            .with(&self.linker)
            .with(go.context("asking Go for its version")?))
    }

    /// Builds into `directory`, in a copy of the module: the build must not depend on where the source tree lies.
    fn build(&self, directory: &Path) -> Result<()> {
        let module = tempfile::tempdir().context("making a folder for the Go module")?;
        fs::write(module.path().join("go.mod"), self.module.requirements)?;
        fs::write(module.path().join("go.sum"), self.module.checksums)?;
        let mut go = Command::new("go");
        go.current_dir(module.path())
            .env("CGO_ENABLED", if self.c_compiler { "1" } else { "0" })
            .env("GOFLAGS", "-mod=readonly -buildvcs=false")
            .env("GOWORK", "off")
            .args(["build", "-p", "2", "-trimpath", "-tags", self.tags])
            .arg(format!("-ldflags=-s -w {}", self.linker))
            .arg("-o")
            .arg(directory.join(self.program))
            .arg(&self.package);
        timed(&format!("building {} ({})", self.program, self.module.name), || run(&mut go, Duration::from_secs(1800)).map(drop))
    }
}
