//! Specifications as `nvidia-ctk cdi generate` writes them, on machines where something else is true.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use gpuk_nvml::{Gpu as NvmlGpu, Mig, MigInstance, Mode};

use super::*;
use crate::config;
use crate::facts::{Facts, Gpu};
use crate::host::Host;
use crate::host::gpus::{GpuReading, ScriptedGpus};
use crate::host::programs::Output;
use crate::host::units::{ScriptedUnits, UnitState};
use crate::steps::tests::put;

/// As nvidia-ctk 1.20 writes it, shortened.
const SPEC: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
    - name: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
    - name: all
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
    deviceNodes:
        - path: /dev/nvidiactl
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
          args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=535.261.03]
    mounts:
        - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.261.03
          containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.261.03
          options: [ro, nosuid, nodev, rbind, rprivate]
"#;

const LOADED: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Wed Jul  2 11:59:13 UTC 2025\n";

struct Machine {
    root: tempfile::TempDir,
    host: Host,
}

impl Machine {
    /// One GPU whose driver and specification are right.
    fn right() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let machine = Self { root, host };
        let library = "usr/lib/x86_64-linux-gnu/libcuda.so.535.261.03";
        for path in ["dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm", "usr/bin/nvidia-cdi-hook", library] {
            machine.put(path, "");
        }
        machine.put("proc/driver/nvidia/version", LOADED);
        machine.put("run/cdi/nvidia.yaml", SPEC);
        machine
    }

    fn put(&self, path: &str, text: &str) {
        put(self.root.path(), path, text);
    }

    fn without(&self, path: &str) {
        std::fs::remove_file(self.root.path().join(path)).unwrap();
    }

    async fn check(&self) -> Status {
        let config = config::load(Vec::new()).unwrap().config;
        let facts = Facts { gpus: vec![Gpu::default()], ..Facts::default() };
        Cdi.check(Look::new(&self.host, &config, &facts)).await.unwrap()
    }

    async fn why(&self) -> String {
        match self.check().await {
            Status::Pending { why, changes } => {
                assert_eq!(changes.len(), 1);
                why
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_true_specification_is_left_alone() {
    let evidence = Status::Ready("nvidia.com/gpu 0, all in /run/cdi/nvidia.yaml, driver 535.261.03".to_owned());
    assert_eq!(Machine::right().check().await, evidence);
}

#[tokio::test]
async fn whatever_a_container_would_miss_is_named() {
    let machine = Machine::right();
    machine.put("dev/nvidia1", "");
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: /dev/nvidia1 is not in it");
    machine.without("dev/nvidia1");
    machine.without("dev/nvidiactl");
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: /dev/nvidiactl is in it and does not exist");
    machine.put("dev/nvidiactl", "");
    machine.without("usr/bin/nvidia-cdi-hook");
    assert!(machine.why().await.contains("/usr/bin/nvidia-cdi-hook is in it and does not exist"));
    let machine = Machine::right();
    machine.put("proc/driver/nvidia/version", &LOADED.replace("535.261.03", "550.163.01"));
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: it is of driver 535.261.03, and 550.163.01 is loaded");
    machine.put("run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\ndevices: 7\n");
    assert!(machine.why().await.starts_with("/run/cdi/nvidia.yaml: it cannot be read"));
    machine.without("run/cdi/nvidia.yaml");
    assert_eq!(machine.why().await, "no specification of nvidia.com/gpu in /etc/cdi or /run/cdi");
}

#[tokio::test]
async fn what_lies_in_run_wins_and_other_vendors_do_not_count() {
    let machine = Machine::right();
    machine.put("etc/cdi/nvidia.yaml", &SPEC.replace("535.261.03", "470.1"));
    machine.put("run/cdi/other.yaml", "kind: example.com/card\ndevices: [{name: x}]\n");
    assert!(matches!(machine.check().await, Status::Ready(_)));
    machine.without("run/cdi/nvidia.yaml");
    assert_eq!(machine.why().await, "/etc/cdi/nvidia.yaml: it is of driver 470.1, and 535.261.03 is loaded");
}

#[tokio::test]
async fn the_toolkits_own_unit_is_asked_where_there_is_one() {
    let mut machine = Machine::right();
    machine.without("run/cdi/nvidia.yaml");
    let changes = async |machine: &Machine| match machine.check().await {
        Status::Pending { changes, .. } => changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    machine.put("usr/local/bin/nvidia-ctk", "");
    assert_eq!(changes(&machine).await, ["run /usr/local/bin/nvidia-ctk --quiet cdi generate --output=/run/cdi/nvidia.yaml"]);
    let loaded = UnitState { load: "loaded".to_owned(), ..UnitState::default() };
    machine.host.units = Box::new(ScriptedUnits::with([(REFRESH, loaded)]));
    assert_eq!(changes(&machine).await, ["restart nvidia-cdi-refresh.service"]);
}

#[tokio::test]
async fn without_a_driver_it_waits_and_a_failure_is_told_in_the_tools_words() {
    let machine = Machine::right();
    machine.without("proc/driver/nvidia/version");
    assert!(matches!(machine.check().await, Status::Waiting(finding) if finding.code == "driver-not-loaded"));
    let output =
        Output { code: Some(1), stderr: "failed to initialize NVML: ERROR_DRIVER_NOT_LOADED".to_owned(), ..Output::default() };
    let (config, facts) = (config::load(Vec::new()).unwrap().config, Facts::default());
    let failure = Failure::Program { command: "nvidia-ctk".to_owned(), output };
    let Some(Status::Broken(finding)) = Cdi.judge(&failure, Look::new(&machine.host, &config, &facts)) else {
        panic!("nobody is called")
    };
    assert!(finding.code == "cdi-not-generated" && finding.why.contains("ERROR_DRIVER_NOT_LOADED"));
}

/// The one GPU, divided into these instances: NVML's number of each, and its UUID.
fn divided(instances: &[(u32, &str)]) -> Box<ScriptedGpus> {
    let instance = |&(index, uuid): &(u32, &str)| {
        let (uuid, profile) = (uuid.to_owned().into(), "1g.10gb".to_owned().into());
        MigInstance { index, uuid, profile }.into()
    };
    let mig = Mig { mode: Mode { current: true, pending: true }, instances: instances.iter().map(instance).collect() };
    let gpu = NvmlGpu { minor: 0.into(), mig: mig.into(), ..NvmlGpu::default() };
    Box::new(ScriptedGpus(GpuReading::Reading(Box::new(Reading { gpus: vec![gpu.into()], ..Reading::default() }))))
}

/// The specification with these further devices, each with the node of its instance.
fn with_instances(names: &[&str]) -> String {
    let device = |name: &&str| {
        let (nodes, own) =
            ("      containerEdits:\n        deviceNodes:\n", "            - path: /dev/nvidia-caps/nvidia-cap66\n");
        format!("    - name: \"{name}\"\n{nodes}            - path: /dev/nvidia0\n{own}")
    };
    let devices: String = names.iter().map(device).collect();
    SPEC.replacen("containerEdits:\n    env:", &format!("{devices}containerEdits:\n    env:"), 1)
}

#[tokio::test]
async fn a_gpu_that_is_divided_anew_wants_a_new_specification() {
    let mut machine = Machine::right();
    machine.put("dev/nvidia-caps/nvidia-cap66", "");
    machine.host.gpus = divided(&[(0, "MIG-a"), (2, "MIG-c")]);
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: MIG instance 0:0 is not in it");
    machine.put("run/cdi/nvidia.yaml", &with_instances(&["0:0", "MIG-a"]));
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: MIG instance 0:2 is not in it");
    // By number, by number in words, and by UUID, as the toolkit is told to name them.
    for names in [&["0:0", "MIG-a", "0:2", "MIG-c"][..], &["mig0:0", "mig0:2"], &["MIG-a", "MIG-c"]] {
        machine.put("run/cdi/nvidia.yaml", &with_instances(names));
        assert!(matches!(machine.check().await, Status::Ready(_)), "{names:?}");
    }
    machine.put("run/cdi/nvidia.yaml", &with_instances(&["0:0", "MIG-a", "0:2", "MIG-b"]));
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: MIG-b is in it, and there is no such MIG instance");
    let bare = with_instances(&["0:0", "0:2"]).replace("            - path: /dev/nvidia-caps/nvidia-cap66\n", "");
    machine.put("run/cdi/nvidia.yaml", &bare);
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: MIG instance 0:0 is in it without its nodes in /dev/nvidia-caps/");
    // Undivided again.
    machine.put("run/cdi/nvidia.yaml", &with_instances(&["0:0"]));
    machine.host.gpus = Box::new(ScriptedGpus::default());
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: 0:0 is in it, and there is no such MIG instance");
}

#[tokio::test]
async fn of_a_gpu_without_instances_there_is_nothing_to_be_given() {
    let mut machine = Machine::right();
    machine.put("run/cdi/nvidia.yaml", &SPEC.replace("/dev/nvidia0", "/dev/nvidiactl"));
    assert_eq!(machine.why().await, "/run/cdi/nvidia.yaml: /dev/nvidia0 is not in it");
    machine.host.gpus = divided(&[]);
    assert!(matches!(machine.check().await, Status::Ready(_)));
}
