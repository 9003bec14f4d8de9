//! Every distribution cuts the driver into packages of its own names; a row has the names of one distribution.
//!
//! Debian's are from its archive (`apt-cache show`, bookworm and trixie), Ubuntu's from packages.ubuntu.com (focal to noble), those of
//! NVIDIA's network repository from "Compute-only and Desktop Installation" and "Kernel Modules" in NVIDIA's Driver Installation Guide.
//!
//! In a name, `{branch}` stands for `535` or `535-server`, `{number}` for `535`, `{open}` for `-open` or nothing, `{kernel}` for the
//! flavour of the running kernel; a name with `{each}` or `{numbers}` is taken once for each kernel, one with `{bare}` for each kernel without
//! headers, and one with `{version}` only where the whole version was asked for.
//! One that ends with `=` has the driver's own version, the others have versions of their own.

use super::rules::Flavour::{self, Open, Proprietary};

/// What installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// apt(8).
    Apt,
    /// dnf(8).
    Dnf,
}

/// How the kernel modules come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modules {
    /// Built and signed by the distribution.
    Precompiled,
    /// Built here.
    Dkms,
}

/// Where packages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The distribution's archive, or a repository with packages as there.
    Distribution,
    /// NVIDIA's network repository.
    Nvidia,
}

/// The packages of one kind of kernel modules.
pub struct Kind {
    /// How they come to be.
    pub modules: Modules,
    /// Of which flavour.
    pub flavour: Flavour,
    /// Their packages.
    pub packages: &'static [&'static str],
    /// The stream of the module `nvidia-driver` that they are in, behind the number of the branch.
    pub stream: &'static str,
}

/// The packages of one distribution.
pub struct Row {
    /// `ID` in os-release(5); `rhel` stands for those that are like it.
    pub distribution: &'static str,
    /// `VERSION_ID`, of `rhel` only the part before the dot.
    pub releases: &'static [&'static str],
    /// Where they come from.
    pub origin: Origin,
    /// What installs them.
    pub manager: Manager,
    /// The branches there are.
    pub branches: std::ops::RangeInclusive<u16>,
    /// Those to take where nobody asks for one, the best first.
    pub automatic: &'static [u16],
    /// Each branch has a server line as well.
    pub has_server_lines: bool,
    /// The kernel modules, the best first.
    pub kinds: &'static [Kind],
    /// Libraries and programs.
    pub userland: &'static [&'static str],
    /// What a branch needs besides: `(branch, packages)`.
    pub companions: &'static [(u16, &'static [&'static str])],
    /// The fabric manager before branch 580, and from there on.
    pub fabric_manager: Option<[&'static str; 2]>,
    /// A stream of the module `nvidia-driver` has to be enabled before anything can be installed.
    pub has_streams: bool,
}

const fn dkms(flavour: Flavour, packages: &'static [&'static str]) -> Kind {
    Kind { modules: Modules::Dkms, flavour, packages, stream: "" }
}

const fn precompiled(flavour: Flavour, packages: &'static [&'static str]) -> Kind {
    Kind { modules: Modules::Precompiled, flavour, packages, stream: "" }
}

const fn row(distribution: &'static str, releases: &'static [&'static str], origin: Origin, manager: Manager) -> Row {
    Row {
        distribution,
        releases,
        origin,
        manager,
        branches: 0..=0,
        automatic: &[],
        has_server_lines: false,
        kinds: &[],
        userland: &[],
        companions: &[],
        fabric_manager: None,
        has_streams: false,
    }
}

const DEBIAN_USERLAND: &[&str] = &[
    "libcuda1=",
    "libnvidia-ml1=",
    "libnvidia-ptxjitcompiler1=",
    "libnvidia-nvvm4=",
    "libnvidia-cfg1=",
    "nvidia-smi=",
    "nvidia-persistenced",
    "nvidia-modprobe",
];

const DEBIAN_KINDS: &[Kind] = &[
    dkms(Proprietary, &["nvidia-kernel-dkms=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
    dkms(Open, &["nvidia-open-kernel-dkms=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
];

const UBUNTU_KINDS: &[Kind] = &[
    precompiled(Open, &["nvidia-headless-no-dkms-{branch}-open=", "linux-modules-nvidia-{branch}-open-{each}"]),
    precompiled(Proprietary, &["nvidia-headless-no-dkms-{branch}=", "linux-modules-nvidia-{branch}-{each}"]),
    dkms(
        Open,
        &["nvidia-headless-{branch}-open=", "nvidia-dkms-{branch}-open=", "linux-headers-{bare}", "linux-headers-{kernel}"],
    ),
    dkms(Proprietary, &["nvidia-headless-{branch}=", "nvidia-dkms-{branch}=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
];

const UBUNTU: Row = Row {
    branches: 470..=999,
    automatic: &[580, 570, 550, 535],
    has_server_lines: true,
    kinds: UBUNTU_KINDS,
    userland: &["nvidia-utils-{branch}="],
    fabric_manager: Some(["nvidia-fabricmanager-{number}=", "nvidia-fabricmanager-{number}="]),
    ..row("ubuntu", &["24.04"], Origin::Distribution, Manager::Apt)
};

/// The streams are from "guide-rhel8" of NVIDIA's "yum-packaging-nvidia-driver" and the guide's "Kernel Modules": `580-open`, `580-dkms`, and `580`
/// with precompiled modules, which are proprietary ones. Such a package is named after driver and kernel ("yum-packaging-precompiled-kmod"), and
/// not every kernel has one: they are last, so that only a wish leads to them.
const RPM_KINDS: &[Kind] = &[
    Kind { stream: "-open", ..dkms(Open, &["kmod-nvidia-open-dkms=", "kernel-devel-{bare}", "kernel-headers"]) },
    Kind { stream: "-dkms", ..dkms(Proprietary, &["kmod-nvidia-latest-dkms=", "kernel-devel-{bare}", "kernel-headers"]) },
    precompiled(Proprietary, &["kmod-nvidia-{version}-{numbers}="]),
];

/// Without streams, and without precompiled modules.
const NVIDIA_RPM: Row = Row {
    branches: 550..=999,
    automatic: &[580],
    kinds: RPM_KINDS.split_at(2).0,
    userland: &["nvidia-driver-cuda=", "nvidia-persistenced="],
    fabric_manager: Some(["nvidia-fabric-manager=", "nvidia-fabricmanager="]),
    ..row("rhel", &["10"], Origin::Nvidia, Manager::Dnf)
};

/// The rows. A later one for the same distribution has other branches.
pub static ROWS: &[Row] = &[
    Row {
        branches: 535..=535,
        automatic: &[535],
        kinds: DEBIAN_KINDS,
        userland: DEBIAN_USERLAND,
        ..row("debian", &["12"], Origin::Distribution, Manager::Apt)
    },
    Row {
        branches: 550..=550,
        automatic: &[550],
        kinds: DEBIAN_KINDS,
        userland: DEBIAN_USERLAND,
        ..row("debian", &["13"], Origin::Distribution, Manager::Apt)
    },
    Row {
        branches: 535..=535,
        kinds: &[dkms(Proprietary, &["nvidia-tesla-535-kernel-dkms=", "linux-headers-{bare}", "linux-headers-{kernel}"])],
        userland: &[
            "libnvidia-tesla-535-cuda1=",
            "libnvidia-tesla-535-ml1=",
            "libnvidia-tesla-535-ptxjitcompiler1=",
            "libnvidia-tesla-535-nvvm4=",
            "libnvidia-tesla-535-cfg1=",
            "nvidia-tesla-535-smi=",
            "nvidia-persistenced",
            "nvidia-modprobe",
        ],
        ..row("debian", &["13"], Origin::Distribution, Manager::Apt)
    },
    Row {
        branches: 570..=999,
        automatic: &[580],
        kinds: &[
            dkms(Open, &["nvidia-kernel-open-dkms=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
            dkms(Proprietary, &["nvidia-kernel-dkms=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
        ],
        userland: &["nvidia-driver-cuda=", "nvidia-persistenced"],
        fabric_manager: Some(["nvidia-fabricmanager-{number}=", "nvidia-fabricmanager="]),
        ..row("debian", &["12", "13"], Origin::Nvidia, Manager::Apt)
    },
    Row { releases: &["20.04"], automatic: &[535], ..UBUNTU },
    Row { releases: &["22.04"], companions: &[(535, &["libtinfo5", "libncurses5"])], ..UBUNTU },
    UBUNTU,
    Row {
        branches: 535..=589,
        automatic: &[580, 570],
        has_server_lines: false,
        kinds: &[
            dkms(Open, &["nvidia-headless-{number}-open=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
            dkms(Proprietary, &["nvidia-headless-{number}=", "linux-headers-{bare}", "linux-headers-{kernel}"]),
        ],
        userland: &["nvidia-utils-{number}="],
        fabric_manager: Some(["nvidia-fabricmanager-{number}=", "nvidia-fabricmanager="]),
        ..row("ubuntu", &["20.04", "22.04", "24.04"], Origin::Nvidia, Manager::Apt)
    },
    Row { releases: &["8", "9"], kinds: RPM_KINDS, has_streams: true, ..NVIDIA_RPM },
    NVIDIA_RPM,
];
