//! The labels of GPUs against a real API server, with the credential of a node: what it lets a node set on itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use gpuk_agent::config::{Source, load};
use gpuk_agent::facts::{Facts, Gpu as PciGpu, Instance};
use gpuk_agent::host::Host;
use gpuk_agent::host::cluster::{ApiServer, ClusterError, KUBELET_KUBECONFIG};
use gpuk_agent::host::files::Files;
use gpuk_agent::host::gpus::{GpuReading, ScriptedGpus};
use gpuk_agent::look::Look;
use gpuk_agent::step::{Change, Status, Step};
use gpuk_agent::steps::labels::Labels;
use gpuk_nvml::{Gpu, Reading};
use integration::write;
use vm_tests::cluster::Reachable;
use vm_tests::{Cluster, ClusterOptions, Parts};

/// A machine with one GPU, whose name in its cluster is gpu-1.
fn machine(root: &std::path::Path) -> Host {
    let gpu = Gpu { name: "Tesla T4".to_owned().into(), address: "0000:00:1e.0".to_owned().into(), ..Gpu::default() };
    let (driver, cuda) = ("535.161.07".to_owned().into(), "12.2".to_owned().into());
    let reading = Reading { driver, cuda, gpus: vec![gpu.into()], ..Reading::default() };
    Host {
        cluster: Box::new(ApiServer::new(&Files::below(root).unwrap())),
        gpus: Box::new(ScriptedGpus(GpuReading::Reading(Box::new(reading)))),
        ..Host::of_fakes(root).unwrap()
    }
}

async fn check(host: &Host) -> Status {
    let config = load(vec![Source::flags(vec![("cluster.endpoints".to_owned(), "https://10.0.0.1:6443".to_owned())])]).unwrap();
    let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
    let facts = Facts { gpus: vec![PciGpu::default()], instance: Some(instance), ..Facts::default() };
    Labels.check(Look::new(host, &config.config, &facts)).await.unwrap()
}

#[tokio::test]
async fn a_node_may_give_itself_the_labels_of_its_gpus_and_no_other_node() {
    let options = ClusterOptions { reachable: Reachable::FromHere, ..ClusterOptions::default() };
    let cluster = Cluster::start(&Parts::open().unwrap(), options).unwrap();
    for node in ["gpu-1", "gpu-2"] {
        let object = format!(
            r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{node}", "labels": {{"pool": "t4", "nvidia.com/gpu.count": "2"}}}}}}"#
        );
        cluster.kubectl_with(&["create", "-f", "-"], &object).unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let kubeconfig = cluster.kubeconfig_of_kubelet("gpu-1").unwrap();
    write(root.path(), KUBELET_KUBECONFIG.trim_start_matches('/'), &kubeconfig);
    let host = machine(root.path());
    let labels = match check(&host).await {
        Status::Pending { changes, .. } => match &changes[..] {
            [Change::NodeLabels { node, labels }] if node == "gpu-1" => labels.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    host.cluster.set_labels("gpu-1", &labels).await.unwrap();
    let settled = check(&host).await;
    assert!(matches!(settled, Status::Ready(_)), "{settled:?}");
    let node = cluster.node("gpu-1").unwrap().unwrap();
    let label = |name: &str| node["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    let found = ["pool", "nvidia.com/gpu.count", "nvidia.com/gpu.product", "nvidia.com/cuda.driver-version.full"].map(label);
    assert_eq!(found, ["t4", "1", "Tesla-T4", "535.161.07"]);

    for (node, labels) in
        [("gpu-2", labels), ("gpu-1", BTreeMap::from([("node-role.kubernetes.io/gpu".to_owned(), String::new())]))]
    {
        let refused = host.cluster.set_labels(node, &labels).await;
        assert!(matches!(&refused, Err(ClusterError::Refused(403, _))), "{refused:?}");
    }
    let absent = host.cluster.set_labels("gpu-3", &BTreeMap::new()).await;
    assert!(matches!(absent, Err(ClusterError::Refused(..))), "{absent:?}");
}
