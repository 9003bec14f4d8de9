//! What is configured, against what NVML says of how GPUs are divided.

use gpuk_nvml::{Answer, Failure as NvmlFailure, MigInstance, Refusal, ReturnCode};

use super::*;
use crate::config;
use crate::facts::{Facts, Gpu as PciGpu};
use crate::host::Host;
use crate::host::gpus::{GpuReading, ScriptedGpus};
use crate::steps::tests::{code, machine};

const LAYOUT: &str = "[gpu]\nmig-layout = [\"3g.40gb:1\", \"1g.10gb:2\"]\n";
const OFF: &str = "[gpu]\nmig-layout = [\"off\"]\n";

/// A GPU in MIG mode `mode` (now, and after a reset) with instances of these profiles.
fn gpu(number: u32, mode: (bool, bool), profiles: &[&str]) -> Gpu {
    let instance = |(index, profile): (usize, &&str)| {
        let uuid = format!("MIG-{index}").into();
        Answer::from(MigInstance { index: index as u32, uuid, profile: (*profile).to_owned().into() })
    };
    let mode = Mode { current: mode.0, pending: mode.1 };
    Gpu { mig: Divided { mode, instances: profiles.iter().enumerate().map(instance).collect() }.into(), ..undivided(number) }
}

/// A GPU that MIG cannot divide.
fn undivided(number: u32) -> Gpu {
    let (address, uuid) = (format!("0000:0{number}:00.0").into(), format!("GPU-{number}").into());
    Gpu { index: number, address, uuid, ..Gpu::default() }
}

async fn looked(gpus: Vec<Gpu>, configuration: &str) -> Result<Status> {
    let reading = Reading { gpus: gpus.into_iter().map(Answer::from).collect(), ..Reading::default() };
    let (_root, host) = machine(&[]);
    let host = Host { gpus: Box::new(ScriptedGpus(GpuReading::Reading(Box::new(reading)))), ..host };
    let config = config::load(vec![config::Source::file("agent.toml", configuration)]).unwrap().config;
    let facts = Facts { gpus: vec![PciGpu::default()], ..Facts::default() };
    Mig.check(Look::new(&host, &config, &facts)).await
}

async fn check(gpus: Vec<Gpu>, configuration: &str) -> Status {
    looked(gpus, configuration).await.unwrap()
}

async fn ready(gpus: Vec<Gpu>, configuration: &str) -> String {
    match check(gpus, configuration).await {
        Status::Ready(evidence) => evidence,
        other => panic!("{other:?}"),
    }
}

/// Why something is to be changed, and the changes.
async fn pending(gpus: Vec<Gpu>, configuration: &str) -> (String, Vec<String>) {
    match check(gpus, configuration).await {
        Status::Pending { why, changes } => (why, changes.iter().map(ToString::to_string).collect()),
        other => panic!("{other:?}"),
    }
}

const ON: (bool, bool) = (true, true);

#[tokio::test]
async fn what_nobody_configured_is_left_alone() {
    for mode in [ON, (true, false), (false, true), (false, false)] {
        assert!(ready(vec![gpu(1, mode, &["7g.80gb"])], "").await.starts_with("left as it is"));
    }
}

#[tokio::test]
async fn what_is_as_configured_is_left_alone_in_whatever_order() {
    let two = vec![gpu(1, ON, &["1g.10gb", "3g.40gb", "1g.10gb"]), gpu(2, ON, &["1g.10gb", "1g.10gb", "3g.40gb"])];
    assert_eq!(ready(two, LAYOUT).await, "2 GPUs have the MIG instances 1g.10gb:2,3g.40gb:1");
    let beside = vec![undivided(1), gpu(2, (false, false), &[])];
    assert_eq!(ready(beside, OFF).await, "1 GPU has MIG mode off");
    assert_eq!(ready(vec![undivided(1)], LAYOUT).await, "no GPU of this machine can be divided by MIG");
}

#[tokio::test]
async fn what_differs_is_changed_gpu_by_gpu() {
    let gpus = vec![
        gpu(1, ON, &["3g.40gb", "1g.10gb"]),
        gpu(2, ON, &["1g.10gb", "3g.40gb", "1g.10gb"]),
        gpu(3, (false, false), &[]),
        undivided(4),
    ];
    let (why, changes) = pending(gpus, LAYOUT).await;
    assert_eq!(
        why,
        "GPU 0000:01:00.0 has the MIG instances 1g.10gb:1,3g.40gb:1, GPU 0000:03:00.0 has MIG mode off, \
         and is to have the MIG instances 1g.10gb:2,3g.40gb:1"
    );
    let divide = |number| format!("divide GPU 0000:0{number}:00.0 by MIG into 1g.10gb:2,3g.40gb:1");
    assert_eq!(changes, [divide(1), divide(3)]);
    let (why, changes) = pending(vec![gpu(1, ON, &[])], OFF).await;
    assert_eq!(why, "GPU 0000:01:00.0 has no MIG instances, and is to have MIG mode off");
    assert_eq!(changes, ["switch MIG mode of GPU 0000:01:00.0 off"]);
    // Somebody asked for the other mode, and the GPU has not been reset yet.
    assert_eq!(pending(vec![gpu(1, (false, true), &[])], OFF).await.1.len(), 1);
    assert_eq!(pending(vec![gpu(1, (true, false), &["3g.40gb", "1g.10gb", "1g.10gb"])], LAYOUT).await.1.len(), 1);
}

#[tokio::test]
async fn a_mode_that_waits_for_a_reset_is_told_once_all_else_is_done() {
    let status = check(vec![gpu(1, (false, true), &[])], LAYOUT).await;
    assert!(matches!(&status, Status::Broken(finding) if finding.why.contains("0000:01:00.0")), "{status:?}");
    assert_eq!(code(&status), "mig-needs-reset");
    assert_eq!(code(&check(vec![gpu(1, (true, false), &["1g.10gb"])], OFF).await), "mig-needs-reset");
    let (_, changes) = pending(vec![gpu(1, (false, true), &[]), gpu(2, ON, &[])], LAYOUT).await;
    assert_eq!(changes, ["divide GPU 0000:02:00.0 by MIG into 1g.10gb:2,3g.40gb:1"]);
}

#[tokio::test]
async fn what_cannot_be_seen_is_an_error() {
    let lost = || Answer(Err(NvmlFailure::new(ReturnCode::GPU_IS_LOST, "GPU is lost")));
    let silent = Gpu { mig: lost(), ..undivided(1) };
    assert!(looked(vec![silent], LAYOUT).await.unwrap_err().to_string().contains("GPU_IS_LOST"));
    let mut divided = gpu(1, ON, &["1g.10gb"]);
    if let Answer(Ok(Some(mig))) = &mut divided.mig {
        mig.instances.push(Answer(Err(NvmlFailure::new(ReturnCode::UNKNOWN, "?"))));
    }
    assert!(looked(vec![divided], LAYOUT).await.is_err());
    let nameless = Gpu { uuid: Answer::default(), ..gpu(1, ON, &[]) };
    assert!(looked(vec![nameless], LAYOUT).await.is_err());
}

#[tokio::test]
async fn a_refusal_says_what_stands() {
    let (_root, host) = machine(&[]);
    let (config, facts) = (config::load(Vec::new()).unwrap().config, Facts::default());
    let judged = |reason| {
        let stands = Some("MIG mode on and 3g.40gb:1".to_owned());
        let refusal = Refusal { reason, why: "used by process 7".to_owned(), stands };
        Mig.judge(&Failure::NotDivided("0000:01:00.0".to_owned(), refusal), Look::new(&host, &config, &facts))
    };
    let Some(Status::Waiting(finding)) = judged(RefusalReason::InUse) else { panic!("a GPU in use passes") };
    assert_eq!(finding.code, "mig-in-use");
    assert_eq!(finding.why, "GPU 0000:01:00.0: used by process 7; the GPU has MIG mode on and 3g.40gb:1");
    for (reason, expected) in
        [(RefusalReason::Impossible, "mig-layout-impossible"), (RefusalReason::NeedsReset, "mig-needs-reset")]
    {
        assert!(matches!(judged(reason), Some(Status::Broken(finding)) if finding.code == expected), "{reason:?}");
    }
    assert_eq!(judged(RefusalReason::Failed), None);
}
