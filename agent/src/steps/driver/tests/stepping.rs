//! The step on machines made of files, as dpkg, DKMS, depmod and the firmware write them.

use std::path::Path;

use super::super::Driver;
use super::deciding::gpus;
use crate::facts::{Disk, Facts};
use crate::host::Host;
use crate::host::apply::Failure;
use crate::host::programs::Output;
use crate::look::Look;
use crate::step::{Change, Status, Step};
use crate::steps::tests::{changes, check, code, link, machine, put, written};

const KERNEL: &str = "6.12.107+deb13-cloud-amd64";
const NEXT: &str = "6.12.110+deb13-cloud-amd64";

/// Debian 13 with these GPUs.
fn facts(models: &str) -> Facts {
    Facts { gpus: gpus(models), kernel: KERNEL.to_owned(), os: super::deciding::os("debian 13"), ..Facts::default() }
}

fn bare() -> (tempfile::TempDir, Host) {
    let (root, host) =
        machine(&[("usr/bin/apt-get", ""), ("usr/sbin/dkms", ""), ("boot/initrd.img-x", ""), ("usr/sbin/update-initramfs", "")]);
    add_kernel(root.path(), KERNEL, "");
    (root, host)
}

fn add_kernel(root: &Path, release: &str, modules: &str) {
    put(root, &format!("lib/modules/{release}/modules.builtin"), "");
    put(
        root,
        &format!("lib/modules/{release}/modules.dep"),
        &format!("kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\n{modules}"),
    );
}

/// dpkg's status with the packages `name version want state`.
fn add_packages(root: &Path, lines: &[&str]) {
    let paragraph = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!(
            "Package: {}\nStatus: {} ok {}\nArchitecture: amd64\nVersion: {}\nDescription: x\n",
            words[0], words[2], words[3], words[1]
        )
    };
    put(root, "var/lib/dpkg/status", &lines.iter().map(paragraph).collect::<Vec<_>>().join("\n"));
}

/// Debian's packages of the proprietary flavour, installed and built for a kernel.
fn add_driver(root: &Path, version: &str, want: &str) {
    let names = [
        "nvidia-kernel-dkms",
        "libcuda1",
        "libnvidia-ml1",
        "libnvidia-ptxjitcompiler1",
        "libnvidia-nvvm4",
        "libnvidia-cfg1",
        "nvidia-smi",
    ];
    let lines: Vec<String> = names.iter().map(|name| format!("{name} {version}-2 {want} installed")).collect();
    add_packages(root, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    link(root, "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1", &format!("libnvidia-ml.so.{version}"));
    put(root, "etc/modprobe.d/nvidia-blacklists-nouveau.conf", "# see #580894\nblacklist nouveau\n");
    add_kernel(
        root,
        KERNEL,
        "updates/dkms/nvidia-current.ko.xz:\nupdates/dkms/nvidia-current-uvm.ko.xz: updates/dkms/nvidia-current.ko.xz\n",
    );
    link(root, &format!("var/lib/dkms/nvidia-current/kernel-{KERNEL}-x86_64"), &format!("{version}/{KERNEL}/x86_64"));
}

const PIN: &str = "etc/apt/preferences.d/gpuk-agent-nvidia-driver";

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

fn evidence(status: Status) -> String {
    match status {
        Status::Ready(text) => text,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_without_gpus_needs_none() {
    let (_root, host) = bare();
    assert_eq!(evidence(check(&Driver, &host, &facts(""), "").await), "no NVIDIA GPU for containers");
    let left_alone = evidence(check(&Driver, &host, &facts("T4"), "[gpu]\nenabled = \"never\"\n").await);
    assert!(left_alone.contains("gpu.enabled"), "{left_alone}");
    let mut facts = facts("T4");
    facts.gpus[0].driver = Some("vfio-pci".to_owned());
    assert_eq!(evidence(check(&Driver, &host, &facts, "").await), "no NVIDIA GPU for containers");
}

#[tokio::test]
async fn a_bare_machine_gets_what_is_decided_and_the_plan_says_why() {
    let (root, host) = bare();
    let status = check(&Driver, &host, &facts("T4"), "").await;
    let Status::Pending { why, changes } = status else { unreachable!("{status:?}") };
    assert!(why.starts_with("no driver is installed; driver 550 with proprietary modules: branch 550 because"), "{why}");
    let pin = written(&changes, &format!("/{PIN}"));
    assert!(pin.ends_with("Package: *nvidia* libcuda1 libnvcuvid1\nPin: version 550.*\nPin-Priority: 1001\n"), "{pin}");
    assert!(written(&changes, "/etc/modprobe.d/gpuk-agent-nouveau.conf").contains("blacklist nova_core"));
    let lines = lines(&changes);
    let apt = "run env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get --yes --option DPkg::Lock::Timeout=10 \
        --option Dpkg::Options::=--force-confold";
    assert_eq!(lines[1], "run update-initramfs -u -k all");
    assert_eq!(lines[3], format!("{apt} --option APT::Update::Error-Mode=any update"));
    assert_eq!(
        lines[4],
        format!(
            "{apt} --no-install-recommends --allow-change-held-packages --allow-downgrades install nvidia-kernel-dkms=550.* \
             linux-headers-{KERNEL} linux-headers-cloud-amd64 libcuda1=550.* libnvidia-ml1=550.* libnvidia-ptxjitcompiler1=550.* \
             libnvidia-nvvm4=550.* libnvidia-cfg1=550.* nvidia-smi=550.* nvidia-persistenced nvidia-modprobe"
        )
    );
    assert_eq!(lines.len(), 5, "{lines:?}");
    // A repository of the operator's own, with its key.
    let text = "[gpu.driver]\nrepository = \"https://a.example/x trixie main\"\nrepository-key = \"/etc/keys/a.gpg\"\n";
    assert_eq!(code(&check(&Driver, &host, &facts("T4"), text).await), "repository-key-missing");
    put(root.path(), "etc/keys/a.gpg", "");
    let source = written(
        &self::changes(check(&Driver, &host, &facts("T4"), text).await),
        "/etc/apt/sources.list.d/gpuk-agent-nvidia.sources",
    );
    assert_eq!(
        source,
        "# Written by gpuk-agent.\nTypes: deb\nURIs: https://a.example/x\nSuites: trixie\nComponents: main\nSigned-By: /etc/keys/a.gpg\n"
    );
}

#[tokio::test]
async fn what_is_installed_is_pinned_and_held_and_then_left_alone() {
    let (root, host) = bare();
    add_driver(root.path(), "550.163.01", "install");
    put(root.path(), PIN, "the pin for the branch");
    let made = changes(check(&Driver, &host, &facts("T4"), "").await);
    assert!(written(&made, &format!("/{PIN}")).contains("Pin: version 550.163.01*\n"));
    let hold = "run apt-mark hold nvidia-kernel-dkms libcuda1 libnvidia-ml1 libnvidia-ptxjitcompiler1 libnvidia-nvvm4 libnvidia-cfg1 nvidia-smi";
    assert_eq!(lines(&made)[1], hold);
    host.apply(&made[0]).await.unwrap();
    assert_eq!(lines(&changes(check(&Driver, &host, &facts("T4"), "").await))[1], hold, "the hold is still missing");
    std::fs::remove_dir_all(root.path().join("usr/lib")).unwrap();
    std::fs::remove_dir_all(root.path().join("var/lib/dkms")).unwrap();
    add_driver(root.path(), "550.163.01", "hold");
    let text = evidence(check(&Driver, &host, &facts("T4"), "").await);
    assert_eq!(text, format!("550.163.01, proprietary modules, for kernel {KERNEL}, held"));
}

#[tokio::test]
async fn a_driver_of_somebody_else_is_only_verified() {
    let (root, host) = bare();
    add_driver(root.path(), "550.163.01", "install");
    let text = evidence(check(&Driver, &host, &facts("T4"), "").await);
    assert_eq!(text, format!("550.163.01, proprietary modules, for kernel {KERNEL}"));
    // Secure Boot is no reason against one that is there.
    put(root.path(), "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\u{6}\0\0\0\u{1}");
    assert!(matches!(check(&Driver, &host, &facts("T4"), "").await, Status::Ready(_)));
    // One that does not suit is named, and replaced only on request.
    for (models, lines, word) in [
        ("B200", "", "has no proprietary modules"),
        ("T4", "branch = \"535\"\n", "gpu.driver.branch asks for 535"),
        ("T4", "flavour = \"open\"\n", "gpu.driver.flavour asks for the others"),
    ] {
        let text = format!("[gpu.driver]\n{lines}");
        let status = check(&Driver, &host, &facts(models), &text).await;
        assert_eq!(code(&status), "driver-not-as-configured", "{status:?}");
        let Status::Broken(finding) = &status else { unreachable!("{status:?}") };
        assert!(finding.why.contains(word), "{finding:?}");
        assert_eq!(
            code(&check(&Driver, &host, &facts(models), &format!("{text}install = \"never\"\n")).await),
            "driver-not-as-configured"
        );
    }
    std::fs::remove_dir_all(root.path().join("sys")).unwrap();
    let other = "[gpu.driver]\nflavour = \"open\"\ninstall = \"always\"\n";
    let Status::Pending { why, changes } = check(&Driver, &host, &facts("T4"), other).await else { unreachable!() };
    assert!(why.starts_with("the driver that is there is replaced: its modules are the proprietary ones"), "{why}");
    let lines = lines(&changes);
    assert!(lines.iter().any(|line| line.ends_with("--allow-change-held-packages purge nvidia-kernel-dkms")), "{lines:?}");
    assert!(lines.last().unwrap().contains(" install nvidia-open-kernel-dkms=550.* "), "{lines:?}");
}

#[tokio::test]
async fn a_driver_that_nobody_may_install_is_waited_for() {
    let (_root, host) = bare();
    let status = check(&Driver, &host, &facts("T4"), "[gpu.driver]\ninstall = \"never\"\n").await;
    assert!(matches!(status, Status::Waiting(_)));
    assert_eq!(code(&status), "driver-missing");
    let (root, host) = bare();
    put(root.path(), "run/nvidia/driver/usr/bin/nvidia-smi", "");
    assert!(evidence(check(&Driver, &host, &facts("T4"), "").await).contains("driver container"));
}

#[tokio::test]
async fn that_the_next_kernel_has_no_module_yet_is_told_and_takes_nothing_from_the_running_one() {
    let (root, host) = bare();
    add_driver(root.path(), "550.163.01", "hold");
    add_kernel(root.path(), NEXT, "");
    add_kernel(root.path(), "6.12.99+deb13-cloud-amd64", "");
    put(root.path(), "lib/modules/6.12.200-removed/updates/dkms/nvidia-current.ko", "");
    let text = evidence(check(&Driver, &host, &facts("T4"), "").await);
    assert!(text.ends_with(&format!("; not for {NEXT}: not built yet")), "{text}");
    let log = format!(
        "DKMS (dkms-3.2.2) make.log for nvidia-current/550.163.01 for kernel {NEXT} (x86_64)\nnv-pci.c:237:9: error: too few arguments\n"
    );
    put(root.path(), "var/lib/dkms/nvidia-current/550.163.01/build/make.log", &log);
    let text = evidence(check(&Driver, &host, &facts("T4"), "").await);
    assert!(text.ends_with(&format!("; not for {NEXT}: nvidia-current: nv-pci.c:237:9: error: too few arguments")), "{text}");
}

#[tokio::test]
async fn the_running_kernel_without_a_module_gets_one() {
    let (root, host) = bare();
    add_driver(root.path(), "550.163.01", "hold");
    let on_next = || Facts { kernel: NEXT.to_owned(), ..facts("T4") };
    // Somebody else's driver is not touched.
    assert!(
        matches!(check(&Driver, &host, &on_next(), "").await, Status::Waiting(finding) if finding.why.contains("somebody else"))
    );
    put(root.path(), PIN, "the pin");
    let status = check(&Driver, &host, &on_next(), "").await;
    let Status::Pending { why, changes } = status else { unreachable!("{status:?}") };
    assert!(why.starts_with(&format!("driver 550.163.01 has no module for kernel {NEXT}; driver 550")), "{why}");
    assert_eq!(lines(&changes).last().unwrap(), &format!("run dkms autoinstall --kernelver {NEXT}"));
    // A module that an earlier version left behind is none.
    std::fs::remove_dir_all(root.path().join("var/lib/dkms")).unwrap();
    link(root.path(), &format!("var/lib/dkms/nvidia-current/kernel-{KERNEL}-x86_64"), &format!("535.1.1/{KERNEL}/x86_64"));
    assert!(matches!(check(&Driver, &host, &facts("T4"), "").await, Status::Pending { .. }));
}

/// What the build of Debian 13's `nvidia-open-kernel-dkms` leaves behind on its own kernel.
fn half_built() -> (tempfile::TempDir, Host) {
    let (root, host) = bare();
    put(root.path(), PIN, "the pin for the branch");
    put(root.path(), "etc/modprobe.d/nvidia-blacklists-nouveau.conf", "blacklist nouveau\n");
    add_packages(
        root.path(),
        &["nvidia-open-kernel-dkms 550.163.01-2 install half-configured", "libnvidia-ml1 550.163.01-2 install installed"],
    );
    link(root.path(), "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1", "libnvidia-ml.so.550.163.01");
    let log = format!(
        "DKMS (dkms-3.2.2) make.log for nvidia-current-open/550.163.01 for kernel {KERNEL} (x86_64)\n CONFTEST: dma_fence_set_error\n\
         /var/lib/dkms/nvidia-current-open/550.163.01/build/nvidia/nv-pci.c:237:9: error: too few arguments to function ‘pci_resize_resource’\n"
    );
    put(root.path(), "var/lib/dkms/nvidia-current-open/550.163.01/build/make.log", &log);
    (root, host)
}

#[tokio::test]
async fn a_build_that_failed_is_ended_by_dpkg_or_purged_for_another_flavour() {
    let (_root, host) = half_built();
    let open = "[gpu.driver]\nflavour = \"open\"\n";
    let Status::Pending { why, changes } = check(&Driver, &host, &facts("T4"), open).await else { unreachable!() };
    assert!(why.contains("dpkg did not finish nvidia-open-kernel-dkms") && why.contains("pci_resize_resource"), "{why}");
    assert_eq!(
        lines(&changes),
        ["run env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 dpkg --force-confold --configure --pending"]
    );
    let Status::Pending { changes, .. } = check(&Driver, &host, &facts("T4"), "").await else { unreachable!() };
    let lines = lines(&changes);
    assert!(lines.iter().any(|line| line.ends_with("purge nvidia-open-kernel-dkms")), "{lines:?}");
    assert!(lines.last().unwrap().contains("install nvidia-kernel-dkms=550.*"), "{lines:?}");
}

#[tokio::test]
async fn what_is_missing_for_an_installation_is_said_before_it_begins() {
    let full = Disk { mount: "/".to_owned(), size: 8 << 30, free: 1 << 30 };
    let (root, host) = bare();
    assert_eq!(code(&check(&Driver, &host, &Facts { disks: vec![full.clone()], ..facts("T4") }, "").await), "disk-full");
    let roomy = Disk { mount: "/var".to_owned(), size: 80 << 30, free: 60 << 30 };
    let usr = Disk { mount: "/usr".to_owned(), ..roomy.clone() };
    let split = Facts { disks: vec![full, roomy, usr], ..facts("T4") };
    assert!(
        matches!(check(&Driver, &host, &split, "").await, Status::Pending { .. }),
        "only the disks that are written to count"
    );
    std::fs::remove_file(root.path().join("usr/bin/apt-get")).unwrap();
    assert_eq!(code(&check(&Driver, &host, &facts("T4"), "").await), "package-manager-missing");
    put(root.path(), "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\u{6}\0\0\0\u{1}");
    assert_eq!(code(&check(&Driver, &host, &facts("T4"), "").await), "secure-boot-unsigned");
}

#[tokio::test]
async fn a_run_file_is_compared_before_it_runs() {
    let (root, host) = bare();
    let sum = "e".repeat(64);
    let text = format!("[gpu.driver]\nrun-file = \"/opt/NVIDIA-Linux-x86_64-580.82.07.run\"\nrun-file-sha256 = \"{sum}\"\n");
    for (missing, path) in [
        ("run-file-missing", "opt/NVIDIA-Linux-x86_64-580.82.07.run".to_owned()),
        ("compiler-missing", "usr/bin/cc".to_owned()),
        ("compiler-missing", "usr/bin/make".to_owned()),
        ("kernel-headers-missing", format!("lib/modules/{KERNEL}/build/Makefile")),
    ] {
        assert_eq!(code(&check(&Driver, &host, &facts("L40S"), &text).await), missing);
        put(root.path(), &path, "");
    }
    let changes = changes(check(&Driver, &host, &facts("L40S"), &text).await);
    let sums = written(&changes, "/var/lib/gpuk-agent/nvidia-driver.sha256");
    assert_eq!(sums, format!("{sum}  /opt/NVIDIA-Linux-x86_64-580.82.07.run\n"));
    let lines = lines(&changes);
    assert_eq!(
        lines[lines.len() - 2..],
        [
            "run sha256sum --strict --check /var/lib/gpuk-agent/nvidia-driver.sha256",
            "run sh /opt/NVIDIA-Linux-x86_64-580.82.07.run --silent --no-x-check --no-nouveau-check --dkms \
             --allow-installation-with-running-driver --kernel-module-type=open"
        ]
    );
}

#[tokio::test]
async fn the_rhel_family_gets_a_stream_and_a_repository_that_is_off() {
    let (root, host) = bare();
    put(root.path(), "usr/bin/dnf", "");
    put(root.path(), "etc/pki/nvidia.pub", "");
    let facts = Facts { os: super::deciding::os("rocky 9.4"), ..facts("L40S") };
    let text = "[gpu.driver]\nrepository = \"https://a.example/rhel9\"\nrepository-key = \"/etc/pki/nvidia.pub\"\n";
    let changes = changes(check(&Driver, &host, &facts, text).await);
    let repository = written(&changes, "/etc/yum.repos.d/gpuk-agent-nvidia.repo");
    assert!(repository.ends_with(
        "baseurl=https://a.example/rhel9\nenabled=0\nskip_if_unavailable=0\ngpgcheck=1\ngpgkey=file:///etc/pki/nvidia.pub\n"
    ));
    let lines = lines(&changes);
    assert!(
        lines.contains(&"run dnf --assumeyes --enablerepo=gpuk-agent-nvidia module enable nvidia-driver:580-open".to_owned())
    );
    assert!(lines.last().unwrap().contains("install kmod-nvidia-open-dkms-580.* "), "{lines:?}");
    let locks = written(&changes, "/etc/dnf/plugins/versionlock.list");
    assert!(locks.contains("\nnvidia-driver*-580.*-*\n") && locks.contains("\nlibnvidia-ml*-580.*-*\n"), "{locks}");
    assert!(
        !locks.contains("libnvidia-c*") && !locks.contains("\nnvidia-c"),
        "the container toolkit has other versions: {locks}"
    );
}

#[tokio::test]
async fn what_rpm_installed_is_locked_beside_the_locks_of_somebody_else() {
    let (root, host) =
        machine(&[("etc/yum.repos.d/gpuk-agent-nvidia.repo", ""), ("etc/dnf/plugins/versionlock.list", "zlib-0:1.2-1.*\n")]);
    add_kernel(root.path(), KERNEL, "extra/nvidia.ko.xz:\n");
    link(root.path(), "usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.580.82.07");
    put(root.path(), "etc/modprobe.d/nvidia.conf", "blacklist nouveau\n");
    let facts = Facts { os: super::deciding::os("rocky 9.4"), ..facts("L40S") };
    for _ in 0..2 {
        let made = changes(check(&Driver, &host, &facts, "").await);
        let locks = written(&made, "/etc/dnf/plugins/versionlock.list");
        assert!(locks.starts_with("zlib-0:1.2-1.*\n# Written by gpuk-agent"), "{locks}");
        assert!(locks.contains("\nkmod-nvidia*-580.82.07*-*\n"), "{locks}");
        host.apply(&made[0]).await.unwrap();
        let text = evidence(check(&Driver, &host, &facts, "").await);
        assert_eq!(text, format!("580.82.07, for kernel {KERNEL}, held"));
        // Locks of another version, as an earlier run of the agent wrote them, are replaced and not added to.
        put(root.path(), "etc/dnf/plugins/versionlock.list", &locks.replace("580.82.07", "580.65.06"));
    }
}

/// What a failure is judged to be: `code` of what waits, `code!` of what a person has to mend.
fn judged(host: &Host, facts: &Facts, stderr: &str, stdout: &str) -> (String, String) {
    let config = crate::config::load(Vec::new()).unwrap().config;
    let output = Output { code: Some(100), stdout: stdout.to_owned(), stderr: stderr.to_owned() };
    let failure = Failure::Program { command: "apt-get install x".to_owned(), output };
    match Driver.judge(&failure, Look::new(host, &config, facts)) {
        Some(Status::Waiting(finding)) => (finding.code, finding.why),
        Some(Status::Broken(finding)) => (format!("{}!", finding.code), finding.why),
        None => (String::new(), String::new()),
        Some(other) => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn every_failure_is_judged_by_what_was_said() {
    let (_root, host) = bare();
    for (expected, stderr) in [
        (
            "package-lock-held",
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        ),
        ("package-lock-held", "dpkg: error: dpkg frontend lock was locked by another process with pid 812"),
        ("package-lock-held", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)"),
        (
            "disk-full!",
            "dpkg: error processing archive x.deb (--unpack):\n cannot copy extracted data: failed to write (No space left on device)",
        ),
        ("disk-full!", "E: You don't have enough free space in /var/cache/apt/archives/."),
        ("disk-full!", "Error: Transaction test error:\n  installing package x needs 200MB more space on the / filesystem"),
        (
            "repository-key-wrong!",
            "W: GPG error: https://a.example trixie InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0123456789ABCDEF\nE: The repository 'https://a.example trixie InRelease' is not signed.",
        ),
        (
            "repository-key-wrong!",
            "W: GPG error: https://a.example trixie InRelease: The following signatures were invalid: BADSIG 0123456789ABCDEF x",
        ),
        (
            "repository-key-wrong!",
            "Err:1 file:/srv ./ InRelease\n  Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 0123456789ABCDEF, which is needed to verify signature.",
        ),
        ("repository-key-wrong!", "Error: GPG check FAILED"),
        ("package-damaged", "E: Failed to fetch https://a.example/x.deb  Hash Sum mismatch"),
        (
            "package-damaged",
            "E: Failed to fetch https://a.example/x.deb  File has unexpected size (10 != 20). Mirror sync in progress?",
        ),
        (
            "package-damaged",
            "dpkg-deb (subprocess): decompressing archive 'x.deb' (size=10) member 'data.tar': lzma error: unexpected end of input",
        ),
        ("package-damaged", "Error: Some packages from local repository have incorrect checksum"),
        (
            "packages-unreachable",
            "Error: Failed to download metadata for repo 'x': Cannot download repomd.xml: All mirrors were tried",
        ),
        ("run-file-damaged!", "sha256sum: WARNING: 1 computed checksum did NOT match"),
        ("driver-not-available!", "E: Unable to locate package nvidia-kernel-dkms"),
        ("driver-not-available!", "E: Version '535.*' for 'nvidia-kernel-dkms' was not found"),
        ("driver-not-available!", "E: Package 'nvidia-kernel-dkms' has no installation candidate"),
        ("driver-not-available!", "Error: Unable to find a match: kmod-nvidia-open-dkms-580.*"),
        ("kernel-headers-missing!", "E: Unable to locate package linux-headers-6.12.99+deb13-cloud-amd64"),
        (
            "driver-packages-conflict!",
            "The following packages have unmet dependencies:\n libcuda1 : Depends: nvidia-alternative (= 550.163.01-2) but it is not installable\nE: Unable to correct problems, you have held broken packages.",
        ),
        ("driver-packages-conflict!", "E: Held packages were changed and -y was used without --allow-change-held-packages."),
        ("driver-build-failed!", "Error! Bad return status for module build on kernel: 6.12.107+deb13-cloud-amd64 (x86_64)"),
        ("driver-build-failed!", "ERROR: Unable to build the NVIDIA kernel module."),
        (
            "kernel-headers-missing!",
            "Error! Your kernel headers for kernel 6.12.107 cannot be found at /lib/modules/6.12.107/build",
        ),
        ("packages-unreachable", "E: Failed to fetch http://a.example/x  Temporary failure resolving 'a.example'"),
        (
            "packages-unreachable",
            "E: Failed to fetch http://a.example/x  Could not connect to a.example:80 (10.0.0.1). - connect (113: No route to host)",
        ),
        ("", "Segmentation fault"),
    ] {
        let (code, why) = judged(&host, &facts("T4"), stderr, "");
        assert_eq!(code, expected, "{stderr}");
        assert!(
            expected.is_empty() || stderr.lines().any(|line| why.contains(line.trim())) || expected.starts_with("driver-build"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn a_failed_build_names_package_kernel_and_the_compilers_first_error() {
    let (_root, host) = half_built();
    let stdout = "Setting up nvidia-open-kernel-dkms (550.163.01-2) ...\n\
        Building module(s).................................................................................(bad exit status: 2)\n";
    let stderr = "E: Can not write log (Is /dev/pts mounted?) - posix_openpt (19: No such device)\n\
        Error! Bad return status for module build on kernel: 6.12.107+deb13-cloud-amd64 (x86_64)\n\
        Consult /var/lib/dkms/nvidia-current-open/550.163.01/build/make.log for more information.\n\
        dpkg: error processing package nvidia-open-kernel-dkms (--configure):\n \
        installed nvidia-open-kernel-dkms package post-installation script subprocess returned error exit status 10\n\
        Errors were encountered while processing:\n nvidia-open-kernel-dkms\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n";
    let (code, why) = judged(&host, &facts("T4"), stderr, stdout);
    assert_eq!(code, "driver-build-failed!");
    assert!(why.starts_with("package nvidia-open-kernel-dkms, nvidia-current-open: /var/lib/dkms"), "{why}");
    assert!(why.ends_with("nv-pci.c:237:9: error: too few arguments to function ‘pci_resize_resource’"), "{why}");
    // apt that waited for a lock, got it, and then failed otherwise.
    let waited = "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (apt)...\n";
    assert_eq!(judged(&host, &facts("T4"), stderr, waited).0, "driver-build-failed!");
}
