//! What a Node says of its GPUs, and what that means.

use gpuk_nvml::{Answer, Gpu as NvmlGpu, Mig, MigInstance, Mode};

use super::*;
use crate::facts::{Facts, Gpu, Instance};
use crate::host::Host;
use crate::host::cluster::ScriptedCluster;
use crate::host::gpus::{GpuReading, ScriptedGpus};
use crate::steps::tests::machine;

const JOINS: &str = "[cluster]\nendpoints = [\"https://10.0.0.1:6443\"]\ntoken = \"abcdef.0123456789abcdef\"\n\
    ca-cert-hashes = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]\n";

/// The answer on a machine with two GPUs in `/dev`.
async fn check(gpus: Option<Offered>, class: Option<&str>, files: &[&str], more: &str) -> Status {
    check_as(ScriptedGpus::default(), gpus, class, files, more).await
}

async fn check_as(says: ScriptedGpus, gpus: Option<Offered>, class: Option<&str>, files: &[&str], more: &str) -> Status {
    let files: Vec<(&str, &str)> = ["dev/nvidia0", "dev/nvidia1"].iter().chain(files).map(|path| (*path, "")).collect();
    let (_root, host) = machine(&files);
    let taints = vec!["nvidia.com/gpu=true:NoSchedule".to_owned()];
    let node = Node { name: "i-1".to_owned(), gpus, taints, ..Node::default() };
    let cluster = ScriptedCluster { runtime_class: class.map(str::to_owned), ..ScriptedCluster::answering(Ok(Some(node))) };
    let host = Host { cluster: Box::new(cluster), gpus: Box::new(says), ..host };
    let instance = Some(Instance { id: "i-1".to_owned(), ..Instance::default() });
    let facts = Facts { gpus: vec![Gpu::default(), Gpu::default()], instance, ..Facts::default() };
    crate::steps::tests::check(&Allocatable, &host, &facts, &format!("{JOINS}{more}")).await
}

async fn waits(gpus: Option<Offered>, class: Option<&str>, files: &[&str]) -> Finding {
    match check(gpus, class, files, "").await {
        Status::Waiting(finding) => finding,
        other => panic!("{other:?}"),
    }
}

const fn of(capacity: u64, allocatable: u64) -> Option<Offered> {
    Some(Offered { capacity, allocatable })
}

#[tokio::test]
async fn what_the_cluster_does_not_count_is_named() {
    assert_eq!(check(of(2, 2), Some("nvidia"), &[], "").await, Status::Ready("the cluster hands out 2 of 2".to_owned()));
    let socket = "var/lib/kubelet/device-plugins/nvidia-gpu.sock";
    let missing = waits(None, Some("nvidia"), &[]).await;
    assert!(missing.code == "device-plugin-missing" && missing.why.contains("nvidia.com/gpu=true:NoSchedule"), "{missing:?}");
    assert_eq!(waits(None, Some("nvidia"), &[socket]).await.code, "device-plugin-registers-none");
    assert_eq!(waits(of(0, 0), Some("nvidia"), &[socket]).await.code, "device-plugin-registers-none");
    assert_eq!(waits(of(1, 1), Some("nvidia"), &[socket]).await.why, "the device plugin offers 1 of 2");
    assert_eq!(waits(of(2, 1), Some("nvidia"), &[socket]).await.why, "1 of 2 are allocatable");
    // Shared ones are more than there are.
    assert!(matches!(check(of(8, 8), Some("nvidia"), &[], "").await, Status::Ready(_)));
}

#[tokio::test]
async fn a_runtime_class_is_needed_where_the_default_runtime_is_another() {
    assert_eq!(waits(of(2, 2), None, &[]).await.code, "runtime-class-missing");
    assert!(waits(of(2, 2), Some("runc"), &[]).await.why.contains("has the handler \"runc\""));
    let by_default = "[containerd]\ndefault-runtime = \"nvidia\"\n";
    assert!(matches!(check(of(2, 2), None, &[], by_default).await, Status::Ready(_)));
}

/// Two GPUs, the first of them divided into seven.
fn divided() -> ScriptedGpus {
    let instance = |index| MigInstance { index, uuid: Answer::default(), profile: "1g.10gb".to_owned().into() };
    let mig =
        Mig { mode: Mode { current: true, pending: true }, instances: (0..7).map(|index| instance(index).into()).collect() };
    let gpus = vec![NvmlGpu { mig: mig.into(), ..NvmlGpu::default() }.into(), NvmlGpu::default().into()];
    ScriptedGpus(GpuReading::Reading(Box::new(Reading { gpus, ..Reading::default() })))
}

#[tokio::test]
async fn a_divided_gpu_counts_as_its_instances() {
    let offered = async |capacity| check_as(divided(), of(capacity, capacity), Some("nvidia"), &[], "").await;
    assert_eq!(offered(8).await, Status::Ready("the cluster hands out 8 of 8".to_owned()));
    // With the device plugin's MIG strategy none there are two, and one of them cannot be used as a whole.
    let Status::Waiting(finding) = offered(2).await else { panic!("two are too few") };
    assert_eq!(finding.code, "gpus-uncounted");
    let why =
        "the device plugin offers 2 of 8, 7 of them MIG instances, which it counts with its MIG strategy single or mixed alone";
    assert_eq!(finding.why, why);
}
