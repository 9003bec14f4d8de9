//! A kernel with the driver in it, as sysfs and procfs show it.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use super::super::tests::{changes, check, code, link, machine, put};
use super::Modules;
use crate::config;
use crate::facts::{Facts, Gpu};
use crate::host::Host;
use crate::host::apply::Failure;
use crate::host::kernel::RecordingKernel;
use crate::host::kernel_log::ScriptedKernelLog;
use crate::host::programs::Output;
use crate::host::units::{ScriptedUnits, UnitState};
use crate::look::Look;
use crate::step::{Status, Step};

const ADDRESSES: [&str; 2] = ["0000:00:1e.0", "0000:00:1f.0"];

/// The numbers of every node that two GPUs need.
const NODES: [(&str, (u64, u64)); 6] = [
    ("/dev/nvidia0", (195, 0)),
    ("/dev/nvidia1", (195, 1)),
    ("/dev/nvidiactl", (195, 255)),
    ("/dev/nvidia-modeset", (195, 254)),
    ("/dev/nvidia-uvm", (510, 0)),
    ("/dev/nvidia-uvm-tools", (510, 1)),
];

fn facts() -> Facts {
    let gpu = |address: &&str| Gpu { address: (*address).to_owned(), model: Some("T4".to_owned()), ..Gpu::default() };
    Facts { gpus: ADDRESSES.iter().map(gpu).collect(), kernel: "6.1.0-50-amd64".to_owned(), ..Facts::default() }
}

fn unit(active: &str, file: &str) -> UnitState {
    UnitState { load: "loaded".to_owned(), active: active.to_owned(), file: file.to_owned(), ..UnitState::default() }
}

/// Two GPUs whose driver is loaded, with all that belongs to it.
fn healthy() -> (tempfile::TempDir, Host) {
    let (root, mut host) = machine(&[
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Wed Jul  2 11:59:13 UTC 2025\n",
        ),
        ("sys/module/nvidia/refcnt", "0\n"),
        ("sys/module/nvidia_uvm/version", "550.163.01\n"),
        ("sys/module/nvidia_modeset/version", "550.163.01\n"),
        (
            "proc/devices",
            "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n510 nvidia-uvm\n\nBlock devices:\n  8 sd\n",
        ),
    ]);
    link(root.path(), "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.550.163.01");
    for (minor, address) in ADDRESSES.iter().enumerate() {
        link(root.path(), &format!("sys/bus/pci/devices/{address}/driver"), "../../../bus/pci/drivers/nvidia");
        let text = format!("Model: \t\t Tesla T4\nIRQ:   \t\t 35\nDevice Minor: \t {minor}\n");
        put(root.path(), &format!("proc/driver/nvidia/gpus/{address}/information"), &text);
    }
    for (path, (major, minor)) in NODES {
        link(root.path(), &format!("dev/char/{major}:{minor}"), &format!("..{}", path.trim_start_matches("/dev")));
    }
    let devices = NODES.map(|(path, number)| (path.to_owned(), number)).into();
    host.kernel = Box::new(RecordingKernel { devices, ..RecordingKernel::default() });
    host.units = Box::new(ScriptedUnits::with([("nvidia-persistenced.service", unit("active", "enabled"))]));
    (root, host)
}

async fn looked(host: &Host) -> Status {
    check(&Modules, host, &facts(), "").await
}

async fn lines(host: &Host) -> Vec<String> {
    changes(looked(host).await).iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_healthy_machine_has_nothing_to_do() {
    let (_root, host) = healthy();
    let Status::Ready(text) = looked(&host).await else { unreachable!() };
    assert_eq!(text, "550.163.01 loaded, 2 of 2 GPUs driven, device nodes there");
    let none = check(&Modules, &host, &Facts::default(), "").await;
    assert_eq!(none, Status::Ready("no NVIDIA GPU for containers".to_owned()));
}

#[tokio::test]
async fn modules_that_are_absent_are_loaded() {
    let (root, host) = healthy();
    std::fs::remove_dir_all(root.path().join("sys/module/nvidia_uvm")).unwrap();
    assert_eq!(lines(&host).await, ["run modprobe --all nvidia-uvm"]);
    std::fs::remove_dir_all(root.path().join("sys/module")).unwrap();
    assert_eq!(lines(&host).await, ["run modprobe --all nvidia nvidia-uvm nvidia-modeset"]);
}

#[tokio::test]
async fn a_library_of_another_version_needs_a_reboot() {
    let (root, host) = healthy();
    link(root.path(), "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.550.200.10");
    // Even where another module is missing: loading it would only mix them.
    std::fs::remove_dir_all(root.path().join("sys/module/nvidia_uvm")).unwrap();
    let status = looked(&host).await;
    assert_eq!(code(&status), "driver-version-mismatch");
    let Status::Broken(finding) = status else { unreachable!() };
    assert!(finding.why.contains("550.163.01") && finding.why.contains("550.200.10"), "{finding:?}");
}

#[tokio::test]
async fn a_gpu_in_other_hands_is_named() {
    let (root, host) = healthy();
    for (driver, expected) in [("nouveau", "nouveau-bound"), ("NovaCore", "nouveau-bound"), ("nova_core", "nouveau-bound")] {
        link(root.path(), &format!("sys/bus/pci/devices/{}/driver", ADDRESSES[1]), &format!("../../../bus/pci/drivers/{driver}"));
        assert_eq!(code(&looked(&host).await), expected, "{driver}");
    }
    std::fs::remove_file(root.path().join(format!("sys/bus/pci/devices/{}/driver", ADDRESSES[1]))).unwrap();
    let status = looked(&host).await;
    assert_eq!(code(&status), "gpu-not-supported");
    let Status::Broken(finding) = status else { unreachable!() };
    assert!(finding.why.contains(ADDRESSES[1]) && !finding.why.contains(ADDRESSES[0]), "{finding:?}");
}

#[tokio::test]
async fn device_nodes_have_the_numbers_of_their_driver() {
    let (_root, mut host) = healthy();
    let mut devices: std::collections::BTreeMap<String, (u64, u64)> =
        NODES.map(|(path, number)| (path.to_owned(), number)).into();
    devices.insert("/dev/nvidia-uvm".to_owned(), (509, 0));
    devices.remove("/dev/nvidia1");
    host.kernel = Box::new(RecordingKernel { devices, ..RecordingKernel::default() });
    let Status::Pending { why, .. } = looked(&host).await else { unreachable!() };
    assert_eq!(why, "/dev/nvidia1 is missing, /dev/nvidia-uvm is 509:0 and the driver's is 510:0");
    let expected = ["run nvidia-modprobe -c 0 -c 1", "run nvidia-modprobe -u -c 0", "run nvidia-modprobe -m"];
    assert_eq!(lines(&host).await, expected);
}

#[tokio::test]
async fn a_device_is_found_by_its_number() {
    let (root, host) = healthy();
    std::fs::remove_file(root.path().join("dev/char/195:1")).unwrap();
    link(root.path(), "dev/char/510:0", "../something-else");
    let expected = [
        "run ln --symbolic --force --no-dereference ../nvidia1 /dev/char/195:1",
        "run ln --symbolic --force --no-dereference ../nvidia-uvm /dev/char/510:0",
    ];
    assert_eq!(lines(&host).await, expected);
}

#[tokio::test]
async fn persistence_runs_now_and_at_boot_and_its_failure_stops_nothing() {
    let (_root, mut host) = healthy();
    host.units = Box::new(ScriptedUnits::with([("nvidia-persistenced.service", unit("inactive", "disabled"))]));
    assert_eq!(lines(&host).await, ["enable nvidia-persistenced.service", "start nvidia-persistenced.service"]);
    for (units, words) in [
        (ScriptedUnits::with([("nvidia-persistenced.service", unit("failed", "enabled"))]), ", nvidia-persistenced cannot start"),
        (ScriptedUnits::default(), ", no nvidia-persistenced"),
    ] {
        host.units = Box::new(units);
        let Status::Ready(text) = looked(&host).await else { unreachable!() };
        assert!(text.ends_with(words), "{text}");
    }
}

#[tokio::test]
async fn switches_need_the_fabric_manager_of_the_drivers_version() {
    let (root, mut host) = healthy();
    let facts = Facts { nvswitches: vec!["0000:05:00.0".to_owned()], ..facts() };
    assert_eq!(code(&check(&Modules, &host, &facts, "").await), "fabric-manager-missing");
    let with = |state| Box::new(ScriptedUnits::with([("nvidia-fabricmanager.service", state)]));
    host.units = with(unit("inactive", "disabled"));
    let made = changes(check(&Modules, &host, &facts, "").await);
    assert_eq!(made.last().unwrap().to_string(), "start nvidia-fabricmanager.service");
    host.units = with(unit("failed", "enabled"));
    assert_eq!(code(&check(&Modules, &host, &facts, "").await), "fabric-manager-failed");
    host.units = with(unit("active", "enabled"));
    assert!(matches!(check(&Modules, &host, &facts, "").await, Status::Ready(_)));
    let package = "Package: nvidia-fabricmanager-550\nStatus: install ok installed\nVersion: 550.90.07-1\n";
    put(root.path(), "var/lib/dpkg/status", package);
    assert_eq!(code(&check(&Modules, &host, &facts, "").await), "fabric-manager-version");
}

#[tokio::test]
async fn what_modprobe_says_is_judged() {
    let (_root, host) = healthy();
    let config = config::load(Vec::new()).unwrap().config;
    let facts = facts();
    let look = Look::new(&host, &config, &facts);
    for (stderr, expected) in [
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "module-signature-rejected"),
        ("modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1.0-50-amd64", "driver-modules-missing"),
        ("modprobe: ERROR: could not insert 'nvidia_current': No such device", "gpu-not-supported"),
        ("modprobe: ERROR: could not insert 'nvidia': Exec format error", "driver-of-another-kernel"),
        (
            "modprobe: ERROR: could not insert 'nvidia': Unknown symbol in module, or unknown parameter (see dmesg)",
            "driver-of-another-kernel",
        ),
        ("modprobe: ERROR: could not insert 'nvidia': Operation not permitted", "modules-locked"),
    ] {
        let output = Output { code: Some(1), stdout: String::new(), stderr: stderr.to_owned() };
        let failure = Failure::Program { command: "modprobe --all nvidia".to_owned(), output };
        let status = Modules.judge(&failure, look).unwrap();
        assert_eq!(code(&status), expected, "{stderr}");
    }
    let log = [
        "NVRM: of an earlier try",
        "x",
        "x",
        "NVRM: Can't find an IRQ for your NVIDIA card!",
        "NVRM: None of the NVIDIA devices were initialized.",
    ];
    let host = Host { kernel_log: Box::new(ScriptedKernelLog::of(&log)), ..host };
    let look = Look::new(&host, &config, &facts);
    let output = Output { code: Some(1), stderr: "could not insert 'nvidia': No such device".to_owned(), ..Output::default() };
    let failure = Failure::Program { command: "modprobe".to_owned(), output };
    let Some(Status::Broken(finding)) = Modules.judge(&failure, look) else { panic!("nobody is called") };
    assert!(finding.why.ends_with("; the kernel's log: NVRM: Can't find an IRQ for your NVIDIA card!"), "{}", finding.why);
    let failure = Failure::Other(anyhow::anyhow!("starting nvidia-modprobe -c 0: No such file or directory (os error 2)"));
    assert_eq!(code(&Modules.judge(&failure, look).unwrap()), "nvidia-modprobe-missing");
    let other = Output { code: Some(1), stdout: String::new(), stderr: "Segmentation fault".to_owned() };
    assert!(Modules.judge(&Failure::Program { command: "modprobe".to_owned(), output: other }, look).is_none());
}
