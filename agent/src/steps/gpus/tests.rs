//! What NVML can say of GPUs, and what that means for the node.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use gpuk_nvml::{Answer, EccErrors, Fabric, FabricState, Range, RecoveryAction, RemappedRows};

use super::*;
use crate::config;
use crate::facts::{Facts, Gpu as PciGpu};
use crate::host::Host;
use crate::host::gpus::ScriptedGpus;

const ADDRESSES: [&str; 2] = ["0000:00:1e.0", "0000:00:1f.0"];

fn gpu(address: &str) -> Gpu {
    Gpu {
        address: address.to_owned().into(),
        name: "Tesla T4".to_owned().into(),
        uuid: "GPU-1".to_owned().into(),
        ..Gpu::default()
    }
}

/// The answer on a machine with two GPUs on its bus, of which NVML says this.
async fn check(reading: GpuReading) -> Status {
    let root = tempfile::tempdir().unwrap();
    let host = Host { gpus: Box::new(ScriptedGpus(reading)), ..Host::of_fakes(root.path()).unwrap() };
    let gpus = ADDRESSES.map(|address| PciGpu { address: address.to_owned(), ..PciGpu::default() });
    let facts = Facts { gpus: gpus.to_vec(), ..Facts::default() };
    Gpus.check(Look::new(&host, &config::load(Vec::new()).unwrap().config, &facts)).await.unwrap()
}

fn of(gpus: Vec<Answer<Gpu>>) -> GpuReading {
    let (driver, cuda) = ("535.261.03".to_owned().into(), "12.2".to_owned().into());
    GpuReading::Reading(Box::new(Reading { driver, cuda, gpus, ..Reading::default() }))
}

async fn broken(reading: GpuReading) -> Finding {
    match check(reading).await {
        Status::Broken(finding) => finding,
        other => panic!("{other:?}"),
    }
}

/// The second GPU has something.
async fn second(change: impl FnOnce(&mut Gpu)) -> Status {
    let mut other = gpu(ADDRESSES[1]);
    change(&mut other);
    check(of(vec![gpu(ADDRESSES[0]).into(), other.into()])).await
}

#[tokio::test]
async fn healthy_gpus_are_counted_and_remarks_are_made() {
    let healthy = second(|_| {}).await;
    assert_eq!(healthy, Status::Ready("2 Tesla T4, driver 535.261.03, CUDA 12.2".to_owned()));
    let Status::Ready(text) = second(|gpu| {
        gpu.pcie_width = Range { current: 8, max: 16 }.into();
        gpu.ecc_uncorrected = EccErrors { volatile: 3, aggregate: 9 }.into();
        gpu.persistence = false.into();
    })
    .await
    else {
        panic!("a remark is no fault")
    };
    assert!(text.ends_with("; 0000:00:1f.0: its PCIe link has 8 of 16 lanes; 0000:00:1f.0: 3 uncorrectable memory errors since the driver was loaded; 0000:00:1f.0: persistence mode is off"), "{text}");
}

#[tokio::test]
async fn each_fault_of_a_gpu_is_named_with_its_cure() {
    let rows = RemappedRows { correctable: 1, uncorrectable: 2, pending: false, failure: false };
    let fabric = |state| Fabric { state, failure: Some(Failure::new(ReturnCode(999), "no route")) };
    type Change = Box<dyn FnOnce(&mut Gpu)>;
    let cases: Vec<(Change, &str, &str)> = vec![
        (
            Box::new(move |gpu| gpu.remapped_rows = RemappedRows { failure: true, ..rows }.into()),
            "gpu-row-remap-failed",
            "replaced",
        ),
        (
            Box::new(move |gpu| gpu.remapped_rows = RemappedRows { pending: true, ..rows }.into()),
            "gpu-row-remap-pending",
            "--gpu-reset --id=0000:00:1f.0",
        ),
        (Box::new(|gpu| gpu.retired_pages_pending = true.into()), "gpu-pages-pending", "reboot"),
        (Box::new(|gpu| gpu.recovery_action = RecoveryAction::GpuReset.into()), "gpu-reset-required", "--gpu-reset"),
        (Box::new(|gpu| gpu.recovery_action = RecoveryAction::NodeReboot.into()), "gpu-reboot-required", "reboot"),
        (Box::new(|gpu| gpu.recovery_action = RecoveryAction::DrainAndReset.into()), "gpu-drain-required", "drain"),
        (Box::new(|gpu| gpu.recovery_action = RecoveryAction::Unknown(9).into()), "gpu-recovery-required", "reboot"),
        (Box::new(move |gpu| gpu.fabric = fabric(FabricState::Completed).into()), "gpu-fabric-failed", "fabricmanager"),
        (
            Box::new(|gpu| gpu.ecc = Answer(Err(Failure::new(ReturnCode::CORRUPTED_INFOROM, "x")))),
            "gpu-inforom-corrupted",
            "replaced",
        ),
    ];
    for (change, code, remedy) in cases {
        let Status::Broken(finding) = second(change).await else { panic!("{code}: nobody is called") };
        assert_eq!(finding.code, code);
        assert!(
            finding.why.starts_with("GPU 0000:00:1f.0 (Tesla T4, GPU-1): ") && finding.remedy.contains(remedy),
            "{finding:?}"
        );
    }
    assert!(
        matches!(second(|gpu| gpu.remapped_rows = rows.into()).await, Status::Ready(_)),
        "rows that were replaced are no fault"
    );
    let joining = second(move |gpu| gpu.fabric = fabric(FabricState::InProgress).into()).await;
    assert!(matches!(joining, Status::Waiting(finding) if finding.code == "gpu-joins-fabric"));
}

#[tokio::test]
async fn a_gpu_that_says_nothing_is_a_fault_and_one_that_is_not_there_too() {
    let silent = |code| Answer(Err(Failure::new(code, "no words")));
    for (code, expected) in [
        (ReturnCode::GPU_IS_LOST, "gpu-lost"),
        (ReturnCode::RESET_REQUIRED, "gpu-reset-required"),
        (ReturnCode::UNKNOWN, "gpu-does-not-answer"),
    ] {
        let finding = broken(of(vec![gpu(ADDRESSES[0]).into(), silent(code)])).await;
        assert_eq!(finding.code, expected);
        assert!(finding.why.starts_with("GPU 1: NVML_ERROR"), "{}", finding.why);
    }
    let missing = broken(of(vec![gpu(ADDRESSES[1]).into()])).await;
    assert_eq!((missing.code.as_str(), missing.why.as_str()), ("gpus-missing", "1 of 2 are missing: 0000:00:1e.0"));
    let two = broken(of(vec![silent(ReturnCode::GPU_IS_LOST), silent(ReturnCode::RESET_REQUIRED)])).await;
    assert!(two.code == "gpu-lost" && two.why.ends_with("; GPU 1: gpu-reset-required"), "{}", two.why);
}

#[tokio::test]
async fn nvml_as_a_whole_has_its_own_findings() {
    for (code, expected) in [
        (ReturnCode::LIB_RM_VERSION_MISMATCH, "driver-version-mismatch"),
        (ReturnCode::LIBRARY_NOT_FOUND, "nvml-missing"),
        (ReturnCode::DRIVER_NOT_LOADED, "gpu-does-not-initialise"),
        (ReturnCode::UNKNOWN, "nvml-failed"),
    ] {
        assert_eq!(broken(GpuReading::Failed(Failure::new(code, "x"))).await.code, expected);
    }
    for (trouble, expected) in [
        (HelperTrouble::Hung(Duration::from_secs(60)), "nvml-hangs"),
        (HelperTrouble::Stuck(7), "nvml-hangs"),
        (HelperTrouble::Crashed("SIGSEGV".to_owned()), "nvml-crashes"),
        (HelperTrouble::Nonsense("x".to_owned()), "nvml-not-asked"),
    ] {
        assert_eq!(broken(GpuReading::NotAsked(trouble)).await.code, expected);
    }
    assert!(matches!(check(GpuReading::NoDriver).await, Status::Waiting(_)));
}
