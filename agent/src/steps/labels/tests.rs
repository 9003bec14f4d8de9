//! What NVML says of GPUs, and with which labels the Node ends.

#![allow(clippy::disallowed_methods, reason = "a test prepares the machine that is looked at")]

use anyhow::bail;
use async_trait::async_trait;
use gpuk_nvml::{Answer, ComputeCapability, CudaCheck, Division, Failure, Gpu, Mig, Mode, Reading, ReturnCode};

use super::*;
use crate::config::{self, Source};
use crate::facts::{Dmi, Facts, Gpu as PciGpu};
use crate::host::Host;
use crate::host::cluster::ScriptedCluster;
use crate::host::gpus::{DivideGpu, GpuReading, Gpus, HelperTrouble, ScriptedGpus};
use crate::steps::tests::{check, code, facts as facts_of_instance, settles};

const JOINS: &str = "[cluster]\nendpoints = [\"https://10.0.0.1:6443\"]\ntoken = \"abcdef.0123456789abcdef\"\n\
    ca-cert-hashes = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]\n";

/// GPUs of one name, with their compute capability and memory in MiB.
fn gpus(count: usize, name: &str, (major, minor): (u32, u32), mebibytes: u64) -> Vec<Gpu> {
    let gpu = Gpu {
        name: name.to_owned().into(),
        compute_capability: ComputeCapability { major, minor }.into(),
        memory: (mebibytes << 20).into(),
        ..Gpu::default()
    };
    vec![gpu; count]
}

/// What NVML says: GPU N has the address `0000:0N:00.0`.
fn reading(driver: &str, gpus: Vec<Gpu>) -> Reading {
    let gpus = gpus.into_iter().enumerate();
    let gpus = gpus.map(|(index, gpu)| Gpu { address: format!("0000:0{index}:00.0").into(), ..gpu }.into()).collect();
    Reading { driver: driver.to_owned().into(), cuda: "12.2".to_owned().into(), gpus, ..Reading::default() }
}

/// A machine of which NVML says this, whose Node has these labels; its GPUs have these classes on the bus.
fn machine(reading: Reading, classes: &[&str], labels: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    for (index, class) in classes.iter().enumerate() {
        let device = root.path().join(format!("sys/bus/pci/devices/0000:0{index}:00.0"));
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
    }
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    let node = Node { name: "i-1".to_owned(), labels, ..Node::default() };
    let host = Host {
        gpus: Box::new(ScriptedGpus(GpuReading::Reading(Box::new(reading)))),
        cluster: Box::new(ScriptedCluster::answering(Ok(Some(node)))),
        ..Host::of_fakes(root.path()).unwrap()
    };
    (root, host)
}

fn facts() -> Facts {
    let dmi = Dmi { product_name: Some("Standard PC (Q35 + ICH9, 2009)".to_owned()), ..Dmi::default() };
    Facts { gpus: vec![PciGpu::default()], dmi, ..facts_of_instance() }
}

/// All labels of the Node, a line each, once the step has settled.
async fn labelled(reading: Reading, classes: &[&str], labels: &[(&str, &str)], configuration: &str) -> String {
    let (_root, host) = machine(reading, classes, labels);
    settles(&Labels, &host, &facts(), &format!("{JOINS}{configuration}")).await;
    let node = host.cluster.node("i-1").await.unwrap().unwrap();
    let lines: Vec<String> = node.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
    lines.join("\n").replace("nvidia.com/", "")
}

fn h100(divided: bool) -> Vec<Gpu> {
    let mode = Mode { current: divided, pending: divided };
    let mut gpus = gpus(2, "NVIDIA H100 80GB HBM3", (9, 0), 81559);
    gpus.iter_mut().for_each(|gpu| gpu.mig = Mig { mode, instances: Vec::new() }.into());
    gpus
}

#[tokio::test]
async fn a_t4_has_the_labels_of_feature_discovery_and_the_nodes_others_stay() {
    let t4 = reading("535.161.07", gpus(1, "Tesla T4", (7, 5), 15360));
    let found = [("kubernetes.io/os", "linux"), ("nvidia.com/gpu.count", "2"), ("nvidia.com/gpu.present", "true")];
    let expected = "kubernetes.io/os=linux\n\
        cuda.driver-version.full=535.161.07\ncuda.driver-version.major=535\ncuda.driver-version.minor=161\ncuda.driver-version.revision=07\n\
        cuda.runtime-version.full=12.2\ncuda.runtime-version.major=12\ncuda.runtime-version.minor=2\n\
        gpu.compute.major=7\ngpu.compute.minor=5\ngpu.count=1\ngpu.family=turing\ngpu.machine=Standard-PC-Q35-ICH9-2009\n\
        gpu.memory=15360\ngpu.mode=compute\ngpu.present=true\ngpu.product=Tesla-T4\nmig.capable=false";
    assert_eq!(labelled(t4, &["0x030200"], &found, "").await, expected);
}

#[tokio::test]
async fn each_kind_of_machine_has_its_labels() {
    let driver = "570.86";
    let mut mixed = gpus(1, "NVIDIA L4", (8, 9), 23034);
    mixed.extend(gpus(2, "Tesla T4", (7, 5), 15360));
    let even = [gpus(1, "NVIDIA L4", (8, 9), 23034), gpus(1, "Tesla T4", (7, 5), 15360)].concat();
    for (gpus, classes, expected) in [
        (
            gpus(4, "NVIDIA A16", (8, 6), 15356),
            vec!["0x030200"; 4],
            "gpu.compute.major=8\ngpu.compute.minor=6\ngpu.count=4\ngpu.family=ampere\ngpu.memory=15356\ngpu.mode=compute\ngpu.product=NVIDIA-A16\nmig.capable=false",
        ),
        (
            h100(true),
            vec!["0x030200"; 2],
            "gpu.compute.major=9\ngpu.compute.minor=0\ngpu.count=2\ngpu.family=hopper\ngpu.memory=81559\ngpu.mode=compute\ngpu.product=NVIDIA-H100-80GB-HBM3\nmig.capable=true",
        ),
        (
            h100(false),
            vec!["0x030200"],
            "gpu.compute.major=9\ngpu.compute.minor=0\ngpu.count=2\ngpu.family=hopper\ngpu.memory=81559\ngpu.mode=unknown\ngpu.product=NVIDIA-H100-80GB-HBM3\nmig.capable=true",
        ),
        (
            gpus(2, "NVIDIA RTX 4000 Ada Generation", (8, 9), 20475),
            vec!["0x030000"; 2],
            "gpu.compute.major=8\ngpu.compute.minor=9\ngpu.count=2\ngpu.family=ada-lovelace\ngpu.memory=20475\ngpu.mode=graphics\ngpu.product=NVIDIA-RTX-4000-Ada-Generation\nmig.capable=false",
        ),
        (
            mixed,
            vec!["0x030000", "0x030200", "0x030200"],
            "gpu.compute.major=7\ngpu.compute.minor=5\ngpu.count=2\ngpu.family=turing\ngpu.memory=15360\ngpu.mode=unknown\ngpu.product=Tesla-T4\nmig.capable=false",
        ),
        (
            even,
            vec!["0x030200"; 2],
            "gpu.compute.major=8\ngpu.compute.minor=9\ngpu.count=1\ngpu.family=ada-lovelace\ngpu.memory=23034\ngpu.mode=compute\ngpu.product=NVIDIA-L4\nmig.capable=false",
        ),
        (
            gpus(1, "NVIDIA <b>Something®</b>  (new), rev. 2 -", (99, 1), 0),
            Vec::new(),
            "gpu.compute.major=99\ngpu.compute.minor=1\ngpu.count=1\ngpu.family=undefined\ngpu.mode=unknown\ngpu.product=NVIDIA-bSomethingb-new-rev.-2\nmig.capable=false",
        ),
    ] {
        let labels = labelled(reading(driver, gpus), &classes, &[], "").await;
        let (of_versions, rest): (Vec<&str>, Vec<&str>) =
            labels.lines().filter(|line| !line.starts_with("gpu.machine")).partition(|line| line.starts_with("cuda"));
        assert_eq!(rest.join("\n"), expected);
        assert_eq!(
            of_versions[..4].join(" "),
            "cuda.driver-version.full=570.86 cuda.driver-version.major=570 cuda.driver-version.minor=86 cuda.driver-version.revision="
        );
    }
}

#[tokio::test]
async fn only_what_differs_is_set_and_the_configuration_wins() {
    let two = || reading("535.161.07", gpus(2, "Tesla T4", (7, 5), 15360));
    let (_root, host) = machine(two(), &[], &[("nvidia.com/gpu.count", "1"), ("nvidia.com/gpu.product", "Tesla-T4")]);
    let Status::Pending { why, changes } = check(&Labels, &host, &facts(), JOINS).await else { panic!("nothing differs") };
    assert_eq!(why, "Node i-1 is not labelled with what NVML says of its GPUs; it has nvidia.com/gpu.count=1");
    let [change @ Change::NodeLabels { node, labels }] = &changes[..] else { panic!("{changes:?}") };
    assert!(node == "i-1" && labels["nvidia.com/gpu.count"] == "2" && !labels.contains_key(PRODUCT), "{labels:?}");
    let text = change.to_string();
    assert!(text.starts_with("label Node i-1 with nvidia.com/cuda.driver-version.full=535.161.07, "), "{text}");
    let own = "[node]\nlabels = { \"nvidia.com/gpu.count\" = \"7\", \"nvidia.com/gpu.product\" = \"ours\" }\n";
    let labels = labelled(two(), &[], &[("nvidia.com/gpu.count", "7")], own).await;
    assert!(
        labels.contains("gpu.count=7\n") && !labels.contains("gpu.product") && labels.contains("gpu.memory=15360"),
        "{labels}"
    );
}

/// Nobody may ask it.
struct Unasked;

#[async_trait(?Send)]
impl Gpus for Unasked {
    async fn look(&self, _helper: Option<&std::path::Path>, _library: Option<&std::path::Path>) -> Result<GpuReading> {
        bail!("NVML was asked")
    }

    async fn divide(&self, _division: &DivideGpu) -> Result<Division, HelperTrouble> {
        Err(HelperTrouble::NotEmbedded)
    }

    async fn compute(&self, _helper: Option<&std::path::Path>) -> std::result::Result<CudaCheck, HelperTrouble> {
        Err(HelperTrouble::NotEmbedded)
    }
}

#[tokio::test]
async fn what_feature_discovery_labels_is_left_to_it() {
    for owner in ["nvidia.com/gfd.timestamp", "nvidia.com/gpu.replicas"] {
        let (_root, host) = machine(Reading::default(), &[], &[(owner, "1"), ("nvidia.com/gpu.count", "9")]);
        let host = Host { gpus: Box::new(Unasked), ..host };
        let status = check(&Labels, &host, &facts(), JOINS).await;
        let said = format!("GPU Feature Discovery labels Node i-1 (it has {owner}): left to it");
        assert_eq!(status, Status::Ready(said));
    }
}

/// A machine whose API server answers this.
fn served(answer: Result<Option<Node>, ClusterError>) -> (tempfile::TempDir, Host) {
    let (root, host) = machine(reading("535.161.07", gpus(1, "Tesla T4", (7, 5), 15360)), &[], &[]);
    (root, Host { cluster: Box::new(ScriptedCluster::answering(answer)), ..host })
}

#[tokio::test]
async fn without_a_node_there_is_nothing_to_label() {
    let unreachable = ClusterError::Unreachable("no route".to_owned());
    for (answer, expected) in [(Ok(None), "node-not-registered"), (Err(unreachable), "api-unreachable")] {
        let (_root, host) = served(answer);
        assert_eq!(code(&check(&Labels, &host, &facts(), JOINS).await), expected);
        assert!(
            matches!(check(&Labels, &host, &facts(), "[cluster]\nkind = \"none\"\n").await, Status::Ready(_)),
            "nobody asked it to join"
        );
        let none = Facts { gpus: Vec::new(), ..facts() };
        assert!(matches!(check(&Labels, &host, &none, JOINS).await, Status::Ready(_)), "it has no GPU");
    }
}

async fn cannot_look(said: GpuReading) -> String {
    let (_root, host) = machine(Reading::default(), &[], &[]);
    let host = Host { gpus: Box::new(ScriptedGpus(said)), ..host };
    let config = config::load(vec![Source::file("agent.toml", JOINS)]).unwrap().config;
    Labels.check(Look::new(&host, &config, &facts())).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_answer_that_failed_is_no_label_that_went_away() {
    assert!(cannot_look(GpuReading::NoDriver).await.contains("no driver is loaded"));
    let failed = || Failure::new(ReturnCode::UNKNOWN, "no words");
    let mut silent = gpus(1, "Tesla T4", (7, 5), 15360);
    silent[0].memory = Answer(Err(failed()));
    let lost = Reading { gpus: vec![Answer(Err(failed()))], ..Reading::default() };
    for (reading, what) in [
        (reading("535.161.07", silent), "how much memory a GPU has"),
        (lost, "what a GPU is"),
        (reading("535", gpus(1, "Tesla T4", (7, 5), 15360)), "is not of the form"),
    ] {
        let why = cannot_look(GpuReading::Reading(Box::new(reading))).await;
        assert!(why.contains(what), "{why}");
    }
}

#[tokio::test]
async fn a_node_that_may_not_label_itself_needs_a_person() {
    let config = config::load(Vec::new()).unwrap().config;
    let (facts, change) = (facts(), Change::NodeLabels { node: "i-1".to_owned(), labels: BTreeMap::new() });
    for (status, expected) in [(403, Some("labels-refused")), (500, None)] {
        let (_root, host) = served(Err(ClusterError::Refused(status, "is not allowed to modify labels".to_owned())));
        let failure = host.apply(&change).await.unwrap_err();
        let judged = Labels.judge(&failure, Look::new(&host, &config, &facts));
        assert_eq!(judged.as_ref().map(code), expected, "{judged:?}");
        assert!(judged.is_none_or(|status| format!("{status:?}").contains("is not allowed to modify labels")));
    }
}
