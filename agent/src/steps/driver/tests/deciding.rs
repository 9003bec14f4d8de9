//! Generations × distributions × Secure Boot × what somebody asked for.

use super::super::decision::{Decision, Kernel, Situation, Source, decide};
use super::super::rules::Flavour::{Open, Proprietary};
use super::super::table::Modules::{Dkms, Precompiled};
use crate::config::{Config, Source as Layer, load};
use crate::facts::{Architecture, Gpu, OperatingSystem};
use crate::step::Finding;

/// GPUs by their models.
pub(super) fn gpus(models: &str) -> Vec<Gpu> {
    use Architecture::{Ada, Ampere, Blackwell, Hopper, Kepler, Maxwell, Pascal, Turing, Volta};
    let gpu = |model: &str| {
        let architecture = match model {
            "K80" => Some(Kepler),
            "M60" => Some(Maxwell),
            "P100" => Some(Pascal),
            "V100" => Some(Volta),
            "T4" => Some(Turing),
            "A100" | "A16" => Some(Ampere),
            "L40S" => Some(Ada),
            "H100" | "H200" => Some(Hopper),
            "B200" | "B300" => Some(Blackwell),
            _ => None,
        };
        Gpu { address: "0000:01:00.0".to_owned(), model: Some(model.to_owned()), architecture, ..Gpu::default() }
    };
    models.split_whitespace().map(gpu).collect()
}

pub(super) fn os(text: &str) -> OperatingSystem {
    let (id, version) = text.split_once(' ').unwrap();
    let like = if ["rocky", "almalinux"].contains(&id) { vec!["rhel".to_owned()] } else { Vec::new() };
    OperatingSystem { id: id.to_owned(), version: version.to_owned(), like, name: String::new() }
}

pub(super) fn config(lines: &str) -> Config {
    load(vec![Layer::file("agent.toml", format!("[gpu.driver]\n{}", lines.replace(", ", "\n")))]).unwrap().config
}

pub(super) const REPOSITORY: &str = "repository = 'https://a.example/compute/cuda/repos/x/x86_64/', repository-key = '/k'";

pub(super) fn kernel(os: &OperatingSystem) -> Kernel {
    let release = match (os.id.as_str(), os.version.as_str()) {
        ("debian", "12") => "6.1.0-50-amd64",
        ("debian", _) => "6.12.107+deb13-cloud-amd64",
        ("ubuntu", "22.04") => "6.8.0-1014-aws",
        ("ubuntu", _) => "6.8.0-49-generic",
        _ => "5.14.0-503.el9.x86_64",
    };
    Kernel { release: release.to_owned(), has_headers: false }
}

fn decided(models: &str, distribution: &str, secure_boot: bool, lines: &str) -> Result<Decision, Finding> {
    let (gpus, os, config) = (gpus(models), os(distribution), config(lines));
    let kernels = [kernel(&os)];
    let has_nvswitches = models.contains("H200");
    let (gpus, asked) = (gpus.iter().collect(), &config.gpu.driver);
    decide(&Situation { gpus, has_nvswitches, os: &os, kernels: &kernels, secure_boot, asked })
}

/// `branch flavour modules: packages`, or the code of the refusal.
fn said(models: &str, distribution: &str, secure_boot: bool, lines: &str) -> String {
    match decided(models, distribution, secure_boot, lines) {
        Ok(decision) => {
            let version = decision.version.clone().unwrap_or_else(|| decision.branch.to_string());
            let modules = if decision.modules == Precompiled { "precompiled" } else { "dkms" };
            let from = match &decision.source {
                Source::RunFile(file) => file.clone(),
                Source::Packages { manager, packages, stream } => {
                    let words = packages.iter().map(|package| package.word(*manager));
                    stream.iter().map(|stream| format!("@{stream}")).chain(words).collect::<Vec<_>>().join(" ")
                }
            };
            format!("{version} {} {modules}: {from}", decision.flavour.word())
        }
        Err(finding) => finding.code,
    }
}

#[test]
fn the_table_of_decisions() {
    const SECURE: bool = true;
    const OPEN_BOOT: bool = false;
    let nvidias = |lines: &str| if lines.is_empty() { REPOSITORY.to_owned() } else { format!("{REPOSITORY}, {lines}") };
    for (models, distribution, secure_boot, lines, expected) in [
        // Debian has one branch a release, and builds it at home.
        (
            "T4",
            "debian 12",
            OPEN_BOOT,
            "",
            "535 proprietary dkms: nvidia-kernel-dkms=535.* linux-headers-6.1.0-50-amd64 linux-headers-amd64 libcuda1=535.*",
        ),
        ("A100", "debian 12", OPEN_BOOT, "flavour = 'open'", "535 open dkms: nvidia-open-kernel-dkms=535.* "),
        (
            "T4",
            "debian 13",
            OPEN_BOOT,
            "",
            "550 proprietary dkms: nvidia-kernel-dkms=550.* linux-headers-6.12.107+deb13-cloud-amd64 linux-headers-cloud-amd64 ",
        ),
        ("T4", "debian 13", OPEN_BOOT, "branch = '535'", "535 proprietary dkms: nvidia-tesla-535-kernel-dkms=535.* "),
        ("T4", "debian 13", OPEN_BOOT, "branch = '535', flavour = 'open'", "driver-not-packaged"),
        ("V100", "debian 12", OPEN_BOOT, "branch = '535.261.03'", "535.261.03 proprietary dkms: nvidia-kernel-dkms=535.261.03* "),
        ("B200", "debian 13", OPEN_BOOT, "", "driver-not-packaged"),
        ("T4", "debian 12", OPEN_BOOT, "branch = '550'", "driver-not-packaged"),
        ("T4", "debian 12", OPEN_BOOT, "branch = '535-server'", "driver-not-packaged"),
        ("T4", "debian 12", OPEN_BOOT, "kernel-modules = 'precompiled'", "driver-not-packaged"),
        ("H200", "debian 12", OPEN_BOOT, "", "driver-not-packaged"),
        ("T4", "debian 12", SECURE, "", "secure-boot-unsigned"),
        ("T4", "debian 11", OPEN_BOOT, "", "distribution-unknown"),
        ("B200", "debian 12", OPEN_BOOT, &nvidias(""), "580 open dkms: nvidia-kernel-open-dkms=580.* "),
        // Ubuntu has every branch, precompiled and signed.
        (
            "T4",
            "ubuntu 22.04",
            OPEN_BOOT,
            "branch = '535'",
            "535 proprietary precompiled: nvidia-headless-no-dkms-535=535.* linux-modules-nvidia-535-6.8.0-1014-aws nvidia-utils-535=535.* libtinfo5 libncurses5",
        ),
        (
            "T4",
            "ubuntu 22.04",
            OPEN_BOOT,
            "",
            "580 open precompiled: nvidia-headless-no-dkms-580-server-open=580.* linux-modules-nvidia-580-server-open-6.8.0-1014-aws nvidia-utils-580-server=580.*",
        ),
        ("T4", "ubuntu 22.04", OPEN_BOOT, "branch = '570'", "570 proprietary precompiled: "),
        ("T4 L40S", "ubuntu 24.04", OPEN_BOOT, "branch = '570-server'", "570 proprietary precompiled: "),
        ("L40S", "ubuntu 24.04", OPEN_BOOT, "branch = '570-server'", "570 open precompiled: "),
        ("A16", "ubuntu 24.04", SECURE, "branch = '550-server'", "550 proprietary precompiled: "),
        ("A16", "ubuntu 24.04", SECURE, "kernel-modules = 'dkms'", "secure-boot-unsigned"),
        (
            "A16",
            "ubuntu 24.04",
            OPEN_BOOT,
            "kernel-modules = 'dkms', branch = '550-server'",
            "550 proprietary dkms: nvidia-headless-550-server=550.* nvidia-dkms-550-server=550.* linux-headers-6.8.0-49-generic linux-headers-generic ",
        ),
        (
            "H200",
            "ubuntu 24.04",
            OPEN_BOOT,
            "",
            "580 open precompiled: nvidia-headless-no-dkms-580-server-open=580.* linux-modules-nvidia-580-server-open-6.8.0-49-generic nvidia-utils-580-server=580.* nvidia-fabricmanager-580=580.*",
        ),
        ("H200", "ubuntu 24.04", OPEN_BOOT, "branch = '580'", "driver-not-packaged"),
        ("V100", "ubuntu 24.04", OPEN_BOOT, "", "580 proprietary precompiled: "),
        ("V100", "ubuntu 24.04", SECURE, "", "580 proprietary precompiled: "),
        ("B200", "ubuntu 24.04", OPEN_BOOT, "", "580 open precompiled: "),
        ("B300", "ubuntu 24.04", OPEN_BOOT, "", "580 open precompiled: "),
        ("T4", "ubuntu 20.04", OPEN_BOOT, "", "535 proprietary precompiled: "),
        ("B200", "ubuntu 20.04", OPEN_BOOT, "", "driver-not-packaged"),
        ("K80", "ubuntu 22.04", OPEN_BOOT, "branch = '470-server'", "470 proprietary precompiled: "),
        // What no driver can do, whoever packages it.
        ("V100", "ubuntu 24.04", OPEN_BOOT, "flavour = 'open'", "driver-does-not-suit"),
        ("V100", "ubuntu 24.04", OPEN_BOOT, "branch = '590'", "driver-does-not-suit"),
        ("B200", "ubuntu 24.04", OPEN_BOOT, "flavour = 'proprietary'", "driver-does-not-suit"),
        ("B200", "ubuntu 24.04", OPEN_BOOT, "branch = '565'", "driver-does-not-suit"),
        ("B300", "ubuntu 24.04", OPEN_BOOT, "branch = '575'", "driver-does-not-suit"),
        ("L40S", "ubuntu 24.04", OPEN_BOOT, "branch = '515'", "driver-does-not-suit"),
        ("T4", "ubuntu 24.04", OPEN_BOOT, "branch = '620', flavour = 'proprietary'", "driver-does-not-suit"),
        // Mixed machines get what suits all.
        ("V100 H100", "ubuntu 24.04", OPEN_BOOT, "", "580 proprietary precompiled: "),
        ("P100 T4", "debian 12", OPEN_BOOT, "", "535 proprietary dkms: "),
        ("T4 B200", "ubuntu 24.04", OPEN_BOOT, "", "580 open precompiled: "),
        ("V100 B200", "ubuntu 24.04", OPEN_BOOT, "", "gpus-need-different-drivers"),
        ("K80 H100", "debian 12", OPEN_BOOT, "", "gpus-need-different-drivers"),
        // A GPU that nobody knows.
        ("Q1", "ubuntu 24.04", OPEN_BOOT, "", "gpu-generation-unknown"),
        ("Q1", "ubuntu 24.04", OPEN_BOOT, "flavour = 'open'", "580 open precompiled: "),
        // The RHEL family has no packages of its own.
        ("T4", "rocky 9.4", OPEN_BOOT, "", "driver-not-packaged"),
        (
            "T4",
            "rocky 9.4",
            OPEN_BOOT,
            &nvidias("branch = '570'"),
            "570 proprietary dkms: @570-dkms kmod-nvidia-latest-dkms-570.* kernel-devel-5.14.0-503.el9.x86_64 kernel-headers nvidia-driver-cuda-570.* nvidia-persistenced-570.*",
        ),
        (
            "H200",
            "rhel 9.4",
            OPEN_BOOT,
            &nvidias(""),
            "580 open dkms: @580-open kmod-nvidia-open-dkms-580.* kernel-devel-5.14.0-503.el9.x86_64 kernel-headers nvidia-driver-cuda-580.* nvidia-persistenced-580.* nvidia-fabricmanager-580.*",
        ),
        // Its precompiled modules are proprietary, and named after the whole version of the driver and the numbers of the kernel.
        (
            "A100",
            "rhel 9.4",
            OPEN_BOOT,
            &nvidias("branch = '580.82.07', kernel-modules = 'precompiled'"),
            "580.82.07 proprietary precompiled: @580 kmod-nvidia-580.82.07-5.14.0-503-580.82.07* nvidia-driver-cuda-580.82.07* nvidia-persistenced-580.82.07*",
        ),
        ("A100", "rocky 8.10", SECURE, &nvidias("branch = '580.82.07'"), "secure-boot-unsigned"),
        (
            "A100",
            "rocky 8.10",
            SECURE,
            &nvidias("branch = '580.82.07', kernel-modules = 'precompiled'"),
            "580.82.07 proprietary precompiled: @580 kmod-nvidia-580.82.07-",
        ),
        ("A100", "rhel 9.4", OPEN_BOOT, &nvidias("branch = '580.82.07'"), "580.82.07 open dkms: @580-open "),
        ("A100", "rhel 9.4", OPEN_BOOT, &nvidias("branch = '580', kernel-modules = 'precompiled'"), "driver-not-packaged"),
        ("B200", "rhel 9.4", OPEN_BOOT, &nvidias("branch = '580.82.07', kernel-modules = 'precompiled'"), "driver-not-packaged"),
        ("A100", "rhel 10.0", OPEN_BOOT, &nvidias("branch = '580.82.07', kernel-modules = 'precompiled'"), "driver-not-packaged"),
        ("L40S", "almalinux 10.0", OPEN_BOOT, &nvidias(""), "580 open dkms: kmod-nvidia-open-dkms-580.* "),
        ("L40S", "almalinux 10.0", SECURE, &nvidias(""), "secure-boot-unsigned"),
        // NVIDIA's .run file goes anywhere.
        ("T4", "arch 1", OPEN_BOOT, RUN_FILE, "535.261.03 proprietary dkms: /opt/NVIDIA-Linux-x86_64-535.261.03.run"),
        ("T4", "arch 1", SECURE, RUN_FILE, "secure-boot-unsigned"),
        ("B200", "arch 1", OPEN_BOOT, RUN_FILE, "driver-does-not-suit"),
        ("T4", "arch 1", OPEN_BOOT, "", "distribution-unknown"),
    ] {
        let said = said(models, distribution, secure_boot, lines);
        assert!(said.starts_with(expected), "{models}, {distribution}, Secure Boot {secure_boot}, {lines}: {said}");
    }
}

const RUN_FILE: &str = "run-file = '/opt/NVIDIA-Linux-x86_64-535.261.03.run', \
    run-file-sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'";

#[test]
fn a_decision_explains_itself() {
    let text = |models, distribution, lines| decided(models, distribution, false, lines).unwrap().to_string();
    assert_eq!(
        text("T4", "debian 12", ""),
        "driver 535 with proprietary modules: branch 535 because it is the one for debian 12; proprietary modules because they are \
         NVIDIA's default before branch 560; built here by DKMS because there are none precompiled"
    );
    assert_eq!(
        text("V100 H100", "ubuntu 24.04", "branch = '580-server'"),
        "driver 580 with proprietary modules: branch 580-server because gpu.driver.branch asks for it; proprietary modules because \
         V100 (Volta) at 0000:01:00.0 has no open modules: they begin with Turing; precompiled modules because the distribution has them"
    );
    assert!(text("T4", "ubuntu 24.04", "branch = '570'").contains("Turing GPUs are run with open ones only from branch 575 on"));
    assert!(text("T4", "ubuntu 24.04", "kernel-modules = 'dkms'").contains("gpu.driver.kernel-modules asks for it"));
}

#[test]
fn a_refusal_says_why() {
    let why = |models, distribution, secure_boot, lines| decided(models, distribution, secure_boot, lines).unwrap_err().why;
    assert!(why("V100", "debian 12", false, "flavour = 'open'").contains("V100 (Volta) at 0000:01:00.0 has no open modules"));
    assert!(why("V100", "debian 12", false, "branch = '590'").contains("is known to branches up to 580, and this is 590"));
    assert!(why("B200", "debian 13", false, "").contains("is known from branch 570 on, and this is 550"));
    assert!(why("T4", "debian 12", true, "").contains("not signed"));
    assert!(why("H200", "debian 12", false, "").contains("fabric manager"));
}

#[test]
fn each_kernel_gets_its_own_modules_or_headers() {
    let (gpus, os) = (gpus("T4"), os("ubuntu 22.04"));
    let kernel = |release: &str, has_headers| Kernel { release: release.to_owned(), has_headers };
    let kernels = [kernel("6.8.0-1014-aws", true), kernel("6.8.0-1015-aws", false)];
    let names = |lines: &str| {
        let config = config(lines);
        let situation = Situation {
            gpus: gpus.iter().collect(),
            has_nvswitches: false,
            os: &os,
            kernels: &kernels,
            secure_boot: false,
            asked: &config.gpu.driver,
        };
        match decide(&situation).unwrap().source {
            Source::Packages { packages, .. } => packages.into_iter().map(|package| package.name).collect::<Vec<_>>(),
            Source::RunFile(file) => vec![file],
        }
    };
    let precompiled = names("branch = '535'");
    assert!(precompiled.contains(&"linux-modules-nvidia-535-6.8.0-1014-aws".to_owned()));
    assert!(precompiled.contains(&"linux-modules-nvidia-535-6.8.0-1015-aws".to_owned()));
    let built = names("branch = '535', kernel-modules = 'dkms'");
    assert!(!built.contains(&"linux-headers-6.8.0-1014-aws".to_owned()), "they are there: {built:?}");
    assert!(built.contains(&"linux-headers-6.8.0-1015-aws".to_owned()) && built.contains(&"linux-headers-aws".to_owned()));
}

#[test]
fn an_image_gets_what_suits_most_without_a_gpu_to_ask() {
    let decision = decided("", "ubuntu 24.04", false, "install = 'always'").unwrap();
    assert_eq!((decision.branch, decision.flavour, decision.modules), (580, Open, Precompiled));
    let decision = decided("", "debian 12", false, "install = 'always'").unwrap();
    assert_eq!((decision.branch, decision.flavour, decision.modules), (535, Proprietary, Dkms));
}
