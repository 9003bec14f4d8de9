//! The step that divides GPUs, through the real helper, against the stand-in for NVML's library: what is made, refused, and left standing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::PathBuf;

use async_trait::async_trait;
use gpuk_agent::config::{Source, load};
use gpuk_agent::engine::{Engine, Silent, Stop};
use gpuk_agent::facts::{Facts, Gpu as PciGpu};
use gpuk_agent::host::Host;
use gpuk_agent::host::files::Files;
use gpuk_agent::host::gpus::{GpuReading, Gpus, RealGpus};
use gpuk_agent::look::Look;
use gpuk_agent::state::{StepRecord, Verdict};
use gpuk_agent::step::{Lane, Stage, Status, Step};
use gpuk_agent::steps::mig::Mig;
use integration::nvml::{helper, library};
use integration::write;
use serde_json::{Value, json};

/// Stands for the step that looks at the health of GPUs; whether MIG has anything to do with it, it cannot show.
struct Healthy;

#[async_trait(?Send)]
impl Step for Healthy {
    fn name(&self) -> &'static str {
        "gpus"
    }

    fn purpose(&self) -> &'static str {
        ""
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    async fn check(&self, _look: Look<'_>) -> anyhow::Result<Status> {
        Ok(Status::Ready(String::new()))
    }
}

/// A machine whose NVML is as in a fixture.
struct Machine {
    root: tempfile::TempDir,
    library: PathBuf,
}

impl Machine {
    fn with(fixture: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17\n",
        );
        let library = library(root.path(), fixture);
        Self { root, library }
    }

    /// Changes what NVML says of its GPUs.
    fn describe(&self, change: impl FnOnce(&mut Value)) {
        let path = self.library.with_file_name("libnvidia-ml.so.1.json");
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value["gpus"]);
        std::fs::write(path, value.to_string()).unwrap();
    }

    /// Brings the step up with this layout.
    async fn up(&self, layout: &str) -> StepRecord {
        let text = format!(
            "[gpu]\nmig-layout = {layout}\nnvml-helper = \"{}\"\nnvml-library = \"{}\"\n",
            helper().display(),
            self.library.display()
        );
        let config = load(vec![Source::file("agent.toml", &text)]).unwrap().config;
        let files = Files::as_running_system(self.root.path()).unwrap();
        let host = Host { gpus: Box::new(RealGpus::new(&files)), ..Host::of_fakes(self.root.path()).unwrap() };
        let facts = Facts { gpus: vec![PciGpu::default()], ..Facts::default() };
        let (_switch, stop) = Stop::new();
        let engine = Engine { host: &host, config: &config, facts: &facts, observer: &Silent, stop };
        let steps: Vec<Box<dyn Step>> = vec![Box::new(Healthy), Box::new(Mig)];
        engine.bring_up(&steps, std::time::Duration::ZERO).await.remove(1)
    }

    /// How a GPU is divided: whether, and the number, profile and UUID of each instance.
    async fn divided(&self, gpu: usize) -> (bool, Vec<(u32, String, String)>) {
        let gpus = RealGpus::new(&Files::as_running_system(self.root.path()).unwrap());
        let GpuReading::Reading(reading) = gpus.look(Some(&helper()), Some(&self.library)).await.unwrap() else {
            panic!("NVML does not answer")
        };
        let mig = reading.gpus[gpu].value().unwrap().mig.value().unwrap().clone();
        let instances = mig.instances.iter().map(|instance| instance.value().unwrap());
        let told = instances
            .map(|instance| (instance.index, instance.profile.value().unwrap().clone(), instance.uuid.value().unwrap().clone()));
        (mig.mode.current, told.collect())
    }

    async fn profiles(&self, gpu: usize) -> Vec<String> {
        let mut profiles: Vec<String> = self.divided(gpu).await.1.into_iter().map(|(_, profile, _)| profile).collect();
        profiles.sort();
        profiles
    }
}

/// The finding that a record ended with, and its evidence.
fn found(record: &StepRecord, verdict: Verdict) -> (&str, &str) {
    let finding = record.finding.as_ref().unwrap_or_else(|| panic!("{record:?}"));
    assert_eq!(record.verdict, verdict, "{record:?}");
    (&finding.code, &finding.why)
}

/// The H100s of the fixture, the second without a mode that waits for a reset.
fn h100s() -> Machine {
    let machine = Machine::with("h100-mig");
    machine.describe(|gpus| gpus[1]["mig"] = json!([0, 0]));
    machine
}

#[tokio::test]
async fn a_layout_is_made_once_changed_and_taken_back() {
    let machine = h100s();
    let layout = "[\"3g.40gb:1\", \"1g.10gb:4\"]";
    let made = machine.up(layout).await;
    assert_eq!((made.verdict, made.changes.len()), (Verdict::Ready, 2), "{made:?}");
    let expected = ["1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb", "3g.40gb"];
    // The second was not divided. There the big one must not lie where NVML would put it first, or three small ones remain.
    assert_eq!(
        (machine.profiles(0).await, machine.profiles(1).await),
        (expected.map(Into::into).into(), expected.map(Into::into).into())
    );
    let again = machine.up(layout).await;
    assert_eq!(
        (again.verdict, again.changes.len(), again.text.as_str()),
        (Verdict::Ready, 0, "2 GPUs have the MIG instances 1g.10gb:4,3g.40gb:1")
    );
    // What is wanted again stays, under its name; with media extensions there is one at most.
    let before = machine.divided(0).await.1;
    let changed = machine.up("[\"3g.40gb:1\", \"1g.10gb:1\", \"1g.10gb+me:1\"]").await;
    assert_eq!((changed.verdict, changed.changes.len()), (Verdict::Ready, 2), "{changed:?}");
    let after = machine.divided(0).await.1;
    assert_eq!(machine.profiles(0).await, ["1g.10gb", "1g.10gb+me", "3g.40gb"]);
    assert_eq!(after.iter().filter(|instance| before.contains(instance)).count(), 2, "{before:?} {after:?}");
    let off = machine.up("[\"off\"]").await;
    assert_eq!((off.verdict, off.text.as_str()), (Verdict::Ready, "2 GPUs have MIG mode off"), "{off:?}");
    assert_eq!(machine.divided(0).await, (false, Vec::new()));
    let left = machine.up("[]").await;
    assert_eq!((left.verdict, left.changes.len()), (Verdict::Ready, 0), "{left:?}");
}

#[tokio::test]
async fn who_stands_in_the_way_is_moved_when_nobody_uses_it() {
    let machine = h100s();
    machine.describe(|gpus| gpus[0]["processes"] = json!([{"pid": 4242, "instance": 3}]));
    // The 3g instance stays and the 2g one goes, which a process uses; the second GPU waits for the first.
    let record = machine.up("[\"3g.40gb:1\"]").await;
    let (code, why) = found(&record, Verdict::Waiting);
    assert_eq!(code, "mig-in-use");
    assert_eq!(why, "GPU 0000:1b:00.0: used by process 4242; the GPU has MIG mode on and 2g.20gb:1,3g.40gb:1");
    // Nothing of what it uses goes: another instance beside it can be made.
    machine.describe(|gpus| gpus.as_array_mut().unwrap().truncate(1));
    let beside = machine.up("[\"3g.40gb:1\", \"2g.20gb:1\", \"1g.10gb:1\"]").await;
    assert_eq!(beside.verdict, Verdict::Ready, "{beside:?}");
    // To undivide the GPU its one process is in the way.
    assert_eq!(found(&machine.up("[\"off\"]").await, Verdict::Waiting).0, "mig-in-use");
    machine.describe(|gpus| gpus[0]["processes"] = Value::Null);
    // 4g lies at 0 alone, where the 2g instance is; 3g stays at 4.
    let moved = machine.up("[\"4g.40gb:1\", \"3g.40gb:1\"]").await;
    assert_eq!(moved.verdict, Verdict::Ready, "{moved:?}");
    assert_eq!(machine.profiles(0).await, ["3g.40gb", "4g.40gb"]);
    assert_eq!(machine.up("[\"off\"]").await.verdict, Verdict::Ready);
}

#[tokio::test]
async fn what_holds_the_gpu_and_is_no_process_is_told_by_nvml() {
    let machine = h100s();
    machine.describe(|gpus| {
        gpus[1]["migBusy"] = json!(true);
        gpus.as_array_mut().unwrap().remove(0);
    });
    for _ in 0..2 {
        let record = machine.up("[\"1g.10gb:7\"]").await;
        let (code, why) = found(&record, Verdict::Waiting);
        let said = "GPU 0000:43:00.0: switching MIG mode on: NVML_ERROR_IN_USE (19): In use by another client; \
                    the GPU has MIG mode off and no instances";
        assert_eq!((code, why), ("mig-in-use", said), "and no mode is left that waits for a reset");
    }
    machine.describe(|gpus| gpus[0]["migBusy"] = json!(false));
    assert_eq!(machine.up("[\"1g.10gb:7\"]").await.verdict, Verdict::Ready);
    machine.describe(|gpus| gpus[0]["migBusy"] = json!(true));
    let record = machine.up("[\"7g.80gb:1\"]").await;
    assert!(found(&record, Verdict::Waiting).1.contains("taking away 1g.10gb: NVML_ERROR_IN_USE"), "{record:?}");
    assert_eq!(machine.profiles(0).await.len(), 7);
}

#[tokio::test]
async fn a_layout_that_cannot_be_touches_nothing_and_lists_what_can() {
    let machine = h100s();
    let before = machine.divided(0).await;
    for (layout, said) in [
        (
            "[\"9g.90gb:1\"]",
            "it has no profile 9g.90gb; it offers at most 1g.10gb:7, 2g.20gb:3, 3g.40gb:2, 4g.40gb:1, 7g.80gb:1, 1g.10gb+me:1, 1g.20gb:4",
        ),
        ("[\"3g.40gb:3\"]", "it has no room for 3 of 3g.40gb; it offers at most"),
        (
            "[\"4g.40gb:1\", \"3g.40gb:1\", \"1g.10gb:1\"]",
            "it has no room for 4g.40gb, 3g.40gb, 1g.10gb together; it offers at most",
        ),
    ] {
        let record = machine.up(layout).await;
        let (code, why) = found(&record, Verdict::Broken);
        assert!(code == "mig-layout-impossible" && why.contains(said), "{layout}: {why}");
        assert!(why.ends_with("; the GPU has MIG mode on and 2g.20gb:1,3g.40gb:1"), "{why}");
        assert_eq!(machine.divided(0).await, before);
    }
    // That NVML refuses what should fit is told with what was made by then.
    machine.describe(|gpus| gpus[0]["migFull"] = json!(true));
    let record = machine.up("[\"3g.40gb:1\", \"1g.10gb:1\"]").await;
    let (code, why) = found(&record, Verdict::Broken);
    assert_eq!(code, "mig-layout-impossible");
    assert!(why.contains("making 1g.10gb: NVML_ERROR_INSUFFICIENT_RESOURCES (23)"), "{why}");
    assert!(why.ends_with("the GPU has MIG mode on and 3g.40gb:1"), "{why}");
}

#[tokio::test]
async fn a_mode_that_waits_for_a_reset_is_told_and_goes_on_after_it() {
    let machine = Machine::with("a100");
    // Its library is older than names of profiles.
    let layout = "[\"3g.20gb:1\", \"1g.10gb:1\", \"1g.5gb+me:1\"]";
    let record = machine.up(layout).await;
    let (code, why) = found(&record, Verdict::Broken);
    assert_eq!(code, "mig-needs-reset");
    assert!(why.ends_with("the GPU has MIG mode off (on from the next reset on) and no instances"), "{why}");
    // The second one is in MIG mode already, and is not held up by the first for longer than a round.
    let record = machine.up(layout).await;
    assert_eq!(found(&record, Verdict::Broken), ("mig-needs-reset", "MIG mode goes on at the next reset of GPU 0000:07:00.0"));
    assert_eq!(machine.profiles(1).await, ["1g.10gb", "1g.5gb+me", "3g.20gb"]);
    machine.describe(|gpus| gpus[0]["mig"] = json!([1, 1]));
    let record = machine.up(layout).await;
    assert_eq!((record.verdict, machine.profiles(0).await.len()), (Verdict::Ready, 3), "{record:?}");
}

#[tokio::test]
async fn an_instance_that_was_cut_off_half_made_is_made_anew() {
    let machine = h100s();
    machine.describe(|gpus| {
        gpus[0]["migInstances"][0]["compute"] = Value::Null;
        gpus.as_array_mut().unwrap().truncate(1);
    });
    let record = machine.up("[\"3g.40gb:1\", \"2g.20gb:1\"]").await;
    assert_eq!((record.verdict, machine.profiles(0).await), (Verdict::Ready, vec!["2g.20gb".to_owned(), "3g.40gb".to_owned()]));
}
