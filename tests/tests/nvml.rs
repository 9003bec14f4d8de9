//! The helper against the stand-in for NVML's library, and the agent with the helper: every GPU, and every way in which NVML fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gpuk_agent::host::files::Files;
use gpuk_agent::host::gpus::{GpuReading, Gpus, HelperTrouble, RealGpus};
use gpuk_nvml::{
    Answer, ClockEventReasons, CudaCheck, EccErrors, FabricState, Failure, Gpu, Mode, NvLinks, Range, Reading, RecoveryAction,
    RemappedRows, ReturnCode,
};
use integration::nvml::{helper, library};
use integration::{agent, write};

/// More than a busy machine needs for anything but what never ends.
const GENEROUS: Duration = Duration::from_secs(60);

/// A machine with a loaded kernel module.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17\n");
    root
}

/// What the agent sees where NVML is as in this fixture.
async fn seen_within(limit: Duration, fixture: &str) -> GpuReading {
    let root = machine();
    let library = library(root.path(), fixture);
    let gpus = RealGpus::new(&Files::as_running_system(root.path()).unwrap()).with_limit(limit);
    gpus.look(Some(&helper()), Some(&library)).await.unwrap()
}

async fn reading(fixture: &str) -> Reading {
    match seen_within(GENEROUS, fixture).await {
        GpuReading::Reading(reading) => *reading,
        other => panic!("{fixture}: {other:?}"),
    }
}

/// The GPUs of a fixture in which every GPU answers.
async fn gpus(fixture: &str) -> Vec<Gpu> {
    let answers = reading(fixture).await.gpus;
    answers.into_iter().map(|answer| answer.0.unwrap().unwrap()).collect()
}

fn text(text: &str) -> Answer<String> {
    Answer::from(text.to_owned())
}

/// The code that an answer failed with.
fn code<T>(answer: &Answer<T>) -> Option<ReturnCode> {
    answer.failure().map(|failure| failure.code)
}

#[tokio::test]
async fn everything_about_a_t4() {
    let reading = reading("t4").await;
    assert_eq!((&reading.driver, &reading.nvml, &reading.cuda), (&text("535.161.07"), &text("12.535.161.07"), &text("12.2")));
    let on = Mode { current: true, pending: true };
    let t4 = Gpu {
        index: 0,
        address: text("0000:00:1e.0"),
        minor: Answer::from(0),
        uuid: text("GPU-00000001-0000-4000-8000-000000000001"),
        name: text("Tesla T4"),
        brand: text("tesla"),
        architecture: text("turing"),
        compute_capability: Answer::from(gpuk_nvml::ComputeCapability { major: 7, minor: 5 }),
        memory: Answer::from(15 << 30),
        ecc: Answer::from(on),
        ecc_uncorrected: Answer::from(EccErrors { volatile: 0, aggregate: 0 }),
        retired_pages_pending: Answer::from(false),
        clock_event_reasons: Answer::from(ClockEventReasons { mask: 1, words: vec!["idle".to_owned()] }),
        pcie_generation: Answer::from(Range { current: 1, max: 3 }),
        pcie_width: Answer::from(Range { current: 16, max: 16 }),
        power_draw: Answer::from(9_500),
        power_limit: Answer::from(70_000),
        temperature: Answer::from(38),
        persistence: Answer::from(true),
        // A T4 cannot be divided, remaps no rows, and is linked to nothing; its driver is older than recovery actions.
        ..Gpu::default()
    };
    assert_eq!(reading.gpus, [Answer::from(t4)]);
}

#[tokio::test]
async fn machines_of_several_gpus() {
    for (fixture, count, name, architecture, last) in [
        ("a16", 4, "NVIDIA A16", "ampere", "0000:b9:00.0"),
        ("l40s", 2, "NVIDIA L40S", "ada", "0000:3d:00.0"),
        ("h200", 8, "NVIDIA H200", "hopper", "0000:db:00.0"),
    ] {
        let gpus = gpus(fixture).await;
        assert_eq!((gpus.len(), &gpus.last().unwrap().address), (count, &text(last)), "{fixture}");
        assert!(gpus.iter().all(|gpu| gpu.name == text(name) && gpu.architecture == text(architecture)), "{gpus:?}");
        assert_eq!(gpus.iter().map(|gpu| gpu.index).collect::<Vec<_>>(), (0..gpus.len() as u32).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_divided_gpu_and_one_that_is_to_be() {
    let gpus = gpus("h100-mig").await;
    let divided = gpus[0].mig.value().unwrap();
    assert_eq!(divided.mode, Mode { current: true, pending: true });
    let parts: Vec<_> = divided.instances.iter().map(|answer| answer.value().unwrap()).collect();
    let profiles: Vec<_> = parts.iter().map(|part| part.profile.value().unwrap().as_str()).collect();
    assert_eq!(profiles, ["3g.40gb", "2g.20gb"], "a free place between them is none");
    assert_eq!(parts[1].uuid, text("MIG-00000002-0000-5000-8000-000000000002"));
    let waiting = gpus[1].mig.value().unwrap();
    assert_eq!((waiting.mode, waiting.instances.len()), (Mode { current: false, pending: true }, 0));
    assert_eq!(gpus[1].nvlinks, Answer::from(NvLinks { count: 18, active: 16 }));
}

#[tokio::test]
async fn a_lost_gpu_does_not_hide_the_others() {
    let reading = reading("lost").await;
    assert_eq!(reading.gpus[0].value().unwrap().name, text("NVIDIA H200"));
    assert_eq!(reading.gpus[1], Answer(Err(Failure::new(ReturnCode::GPU_IS_LOST, "GPU is lost"))));
}

#[tokio::test]
async fn a_gpu_that_needs_a_reset_says_so_where_it_does_not_answer() {
    let gpu = gpus("reset-required").await.remove(0);
    assert_eq!(code(&gpu.memory), Some(ReturnCode::RESET_REQUIRED));
    assert_eq!(code(&gpu.ecc_uncorrected), Some(ReturnCode::RESET_REQUIRED));
    assert_eq!(code(&gpu.power_draw), Some(ReturnCode::RESET_REQUIRED));
    assert_eq!((gpu.recovery_action, gpu.persistence), (Answer::from(RecoveryAction::GpuReset), Answer::from(true)));
}

#[tokio::test]
async fn memory_that_fails() {
    let gpus = gpus("memory-errors").await;
    assert_eq!(gpus[0].ecc_uncorrected, Answer::from(EccErrors { volatile: 2, aggregate: 7 }));
    let rows = |correctable, uncorrectable, pending, failure| {
        Answer::from(RemappedRows { correctable, uncorrectable, pending, failure })
    };
    assert_eq!((&gpus[0].remapped_rows, &gpus[1].remapped_rows), (&rows(0, 1, true, false), &rows(3, 8, false, true)));
    assert_eq!(gpus[0].recovery_action, Answer::from(RecoveryAction::DrainAndReset));
    assert_eq!(gpus[2].retired_pages_pending, Answer::from(true));
    assert_eq!(gpus[2].ecc, Answer::from(Mode { current: false, pending: true }));
    assert_eq!(gpus[2].remapped_rows, Answer::default(), "a T4 has none");
}

#[tokio::test]
async fn a_fabric_that_is_not_there_yet_and_numbers_that_nobody_knows() {
    let gpus = gpus("unhealthy").await;
    let fabric: Vec<_> = gpus.iter().map(|gpu| gpu.fabric.value().unwrap()).collect();
    assert_eq!((fabric[0].state, &fabric[0].failure), (FabricState::InProgress, &None));
    assert_eq!(fabric[1].state, FabricState::Completed);
    assert_eq!(fabric[1].failure.as_ref().map(|failure| failure.code), Some(ReturnCode::UNKNOWN));
    let words = &gpus[0].clock_event_reasons.value().unwrap().words;
    assert_eq!(*words, ["hardware slowdown", "hardware thermal slowdown"]);
    assert_eq!(gpus[0].pcie_width, Answer::from(Range { current: 8, max: 16 }));
    assert_eq!(
        (&gpus[0].persistence, &gpus[0].recovery_action),
        (&Answer::from(false), &Answer::from(RecoveryAction::Unknown(77)))
    );
    assert_eq!((&gpus[1].architecture, &gpus[1].brand), (&text("42"), &text("99")));
}

#[tokio::test]
async fn nvml_as_a_whole_fails_by_name_and_number() {
    for (fixture, expected) in [
        ("version-mismatch", "NVML_ERROR_LIB_RM_VERSION_MISMATCH (18): Driver/library version mismatch"),
        ("not-loaded", "NVML_ERROR_DRIVER_NOT_LOADED (9): Driver Not Loaded"),
    ] {
        let GpuReading::Failed(failure) = seen_within(GENEROUS, fixture).await else { panic!("{fixture}") };
        assert_eq!(failure.to_string(), expected);
    }
    let root = machine();
    let files = Files::as_running_system(root.path()).unwrap();
    for (path, part) in [("/absent/libnvidia-ml.so.1", "No such file"), ("/bin/true", "executable")] {
        let seen = RealGpus::new(&files).look(Some(&helper()), Some(Path::new(path))).await.unwrap();
        let GpuReading::Failed(failure) = seen else { panic!("{seen:?}") };
        assert!(failure.code == ReturnCode::LIBRARY_NOT_FOUND && failure.text.contains(part), "{failure}");
    }
}

#[tokio::test]
async fn a_library_that_crashes_or_hangs_costs_the_helper_alone() {
    let crashed = seen_within(GENEROUS, "crash").await;
    assert_eq!(crashed, GpuReading::NotAsked(HelperTrouble::Crashed("SIGSEGV".to_owned())));
    let limit = Duration::from_secs(1);
    assert_eq!(seen_within(limit, "hang").await, GpuReading::NotAsked(HelperTrouble::Hung(limit)));
}

#[tokio::test]
async fn a_library_that_talks_does_not_disturb_the_answer() {
    assert_eq!(reading("chatter").await, reading("t4").await);
}

#[test]
fn cuda_is_tried_on_every_device() {
    let check = |fixture: &str| {
        let root = tempfile::tempdir().unwrap();
        let output = Command::new(helper()).arg("--cuda").arg(library(root.path(), fixture)).env_clear().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<CudaCheck>(&output.stdout).unwrap()
    };
    let CudaCheck::Devices(devices) = check("cuda") else { panic!("no devices") };
    let failures: Vec<_> = devices.iter().map(|device| device.failure.as_ref().map(ToString::to_string)).collect();
    let changed = "comparing what was read back: 1 of 8388608 bytes came back changed";
    let busy = "cuCtxCreate_v2: CUDA_ERROR_DEVICE_UNAVAILABLE (46)";
    assert_eq!(failures, [None, Some(changed.to_owned()), Some(busy.to_owned())]);
    let addresses: Vec<_> = devices.iter().map(|device| device.address.as_deref().unwrap()).collect();
    assert_eq!(addresses, ["0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0"]);
    let CudaCheck::Failed(failure) = check("cuda-mismatch") else { panic!("it works") };
    assert_eq!(failure.to_string(), "cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)");
}

/// As root, NVML makes device nodes and starts a program that loads modules.
#[test]
fn the_library_is_called_without_the_right_to_make_devices_or_load_modules() {
    // linux/capability.h: CAP_SYS_ADMIN is 21, CAP_MKNOD 27.
    no_more_is_kept(&[], 1 << 21);
    // Only who divides a GPU makes the nodes of its instances.
    no_more_is_kept(&["--mig", "GPU-1", "off"], 1 << 21 | 1 << 27);
}

/// The library is called with no capability but these when the helper is given these words.
fn no_more_is_kept(words: &[&str], kept: u64) {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path(), "hang");
    let mut child = Command::new(helper()).args(words).arg(library).env_clear().stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + GENEROUS;
    let status = loop {
        // The library is mapped when it is called, and then it hangs.
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        if maps.contains("libnvml_stand_in") {
            break std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        }
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the library was never called");
        std::thread::sleep(Duration::from_millis(5));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        let capabilities = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(capabilities & !kept, 0, "{words:?}: {set} {capabilities:x}");
    }
}

/// The agent's own look, on this machine with the `/proc/driver/nvidia` of another one. Needs root, as continuous integration has it.
#[test]
fn facts_tell_what_nvml_says() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path(), "t4");
    let script = "set -e; mount --make-rprivate /; mkdir -p /var/lib/gpuk-agent /run/gpuk-agent
        mount -t tmpfs none /proc/driver; mount -t tmpfs none /var/lib/gpuk-agent; mount -t tmpfs none /run/gpuk-agent
        mkdir /proc/driver/nvidia; echo 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17' > /proc/driver/nvidia/version
        code=0; $AGENT facts --json || code=$?; ls /var/lib/gpuk-agent >&2; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("AGENT", agent()).env("GPUK_CLOUD_NAME", "none");
    command.env("GPUK_GPU_NVML_LIBRARY", &library);
    // The agent as it is shipped carries a helper.
    let is_shipped = std::env::var_os("GPUK_AGENT").is_some_and(|path| !path.is_empty());
    if !is_shipped {
        command.env("GPUK_GPU_NVML_HELPER", helper());
    }
    let output = command.output().unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(facts["driver"]["module"]["flavour"], "proprietary");
    let gpu = &facts["driver"]["nvml"]["reading"]["gpus"][0];
    assert_eq!((&gpu["name"], &gpu["address"]), (&"Tesla T4".into(), &"0000:00:1e.0".into()), "{output:?}");
    let kept = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(kept.contains("helper"), is_shipped, "{kept}");
}
