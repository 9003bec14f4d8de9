//! From a baked image to a GPU in a pod, by the agent alone. The card and NVML's library are played; the driver's modules, the container
//! toolkit, containerd and the kubelet are real.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vm_tests::image::File;
use vm_tests::oci::{PAUSE, SingleProgram};
use vm_tests::packages::find;
use vm_tests::progress::{say, seconds, wait_for};
use vm_tests::scene::{LIMIT, SHORT, Stage, repository, watched};
use vm_tests::{Cluster, ClusterOptions, Gpu, Machine, MachineOptions, nvml};

const NODE: &str = "i-gpu";

/// An image whose program lists what a container finds in `/dev`.
const IMAGE: &str = "localhost/looker:1";

/// Where the only card is.
const ADDRESS: &str = "0000:00:06.0";

#[test]
fn a_pod_that_asks_for_a_gpu_is_given_it() -> Result<()> {
    let archive = tempfile::NamedTempFile::new()?;
    let busybox = find("busybox").context("busybox is not installed")?;
    SingleProgram { name: IMAGE, program: busybox, place: "bin/ls".to_owned(), command: &["/bin/ls", "/dev"] }
        .write(archive.path())?;
    let repository = repository()?;
    let mut files = vec![File::program("/root/looker.tar", archive.path())?];
    files.extend(nvml::files(&repository, &nvml::described(&repository, "t4", ADDRESS)?)?);
    let image = Stage::baked_image()?.with_files(&files)?;
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let user_data = stage.way_in()?.user_data() + &format!("  containerd: {{pause-image: \"{PAUSE}\"}}\n");
    let options = MachineOptions { gpus: vec![Gpu::TESLA_T4], memory: 2048, ..MachineOptions::new(NODE, &user_data) };
    let mut machine = Machine::boot(&image, options)?;
    watched(&mut machine, |machine| {
        stage.cluster.wait_ready(NODE, LIMIT)?;
        say(format_args!("Ready {} after power-on", seconds(machine.uptime())));
        ensure!(
            condition(&stage.cluster, "GPUReady")?.is_none_or(|status| status != "True"),
            "GPUs are ready before anybody tried them"
        );
        wait_for("a container to be given the GPU", LIMIT, || Ok((verdict(machine, "trial")? == "ready").then_some(())))?;
        say(format_args!("a container was given the GPU {} after power-on", seconds(machine.uptime())));
        pods(&stage.cluster, machine)?;

        // The node is one, and says of its GPUs what is missing: no device plugin is to be had here.
        wait_for("the condition NodeBootstrapped", LIMIT, || {
            Ok(condition(&stage.cluster, "NodeBootstrapped")?.filter(|status| status == "True"))
        })?;
        wait_for("the condition GPUReady", LIMIT, || {
            Ok(condition(&stage.cluster, "GPUReady")?.filter(|status| status == "False"))
        })?;
        wait_for("the label of the GPU's product", LIMIT, || {
            let node = stage.cluster.node(NODE)?.unwrap_or_default();
            Ok((node["metadata"]["labels"]["nvidia.com/gpu.product"] == "Tesla-T4").then_some(()))
        })?;
        let taints = stage.cluster.kubectl(&["get", "node", NODE, "--output=jsonpath={.spec.taints[*].key}"])?;
        ensure!(taints.contains("nvidia.com/gpu"), "the node registered without the taint of GPUs: {taints}");
        let second = machine.run("gpuk-agent plan --json", SHORT)?.stdout;
        let plan: Value = serde_json::from_str(&second)?;
        let changes: Vec<&Value> =
            plan["steps"].as_array().context("no steps")?.iter().flat_map(|step| step["changes"].as_array()).flatten().collect();
        ensure!(changes.is_empty(), "a second look would change something: {changes:?}");
        lane(machine)?;
        faults(&repository, machine)?;
        computing(&repository, machine)
    })
}

/// What a round costs in which nothing is to be done: figures to read, in an emulated machine many times slower than a real one.
fn lane(machine: &mut Machine) -> Result<()> {
    let said = machine.run("gpuk-agent up --json", LIMIT)?.stdout;
    let round: Value = serde_json::from_str(&said).with_context(|| format!("up said {said}"))?;
    let lane = ["toolkit", "driver", "modules", "gpu-faults", "gpus", "mig", "cdi", "trial", "labels"];
    let steps = round["steps"].as_array().context("no steps")?.iter();
    let took = steps.filter_map(|step| Some((lane.iter().find(|name| step["name"] == **name)?, step["took"].as_u64()?)));
    let took: Vec<_> = took.collect();
    say(format_args!("the GPU lane took {} ms: {took:?}", took.iter().map(|(_, took)| took).sum::<u64>()));
    Ok(())
}

/// `doctor --gpu --deep` computes through CUDA's library, which is played as well.
fn computing(repository: &std::path::Path, machine: &mut Machine) -> Result<()> {
    machine.check(
        "cp --remove-destination {} \"$(readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1)\""
            .replace("{}", nvml::LIBRARY)
            .as_str(),
        SHORT,
    )?;
    for (forgets, expected) in [(false, "ready"), (true, "broken")] {
        let mut description = nvml::described(repository, "t4", ADDRESS)?;
        description["cudaDevices"] = json!([{"busId": ADDRESS, "forgets": forgets}]);
        machine.write(nvml::DESCRIPTION, description.to_string().as_bytes(), SHORT)?;
        let said = machine.run("gpuk-agent doctor --gpu --deep --json", LIMIT)?.stdout;
        let report: Value = serde_json::from_str(&said).with_context(|| format!("the doctor said {said}"))?;
        let computing = report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "computing"));
        let verdict = computing.map_or(&Value::Null, |check| &check["verdict"]);
        ensure!(verdict == expected, "memory that forgets ({forgets}) is {verdict}:\n{said}");
    }
    Ok(())
}

/// One pod with the RuntimeClass `nvidia` and one without.
fn pods(cluster: &Cluster, machine: &mut Machine) -> Result<()> {
    machine.check("ctr --namespace k8s.io images import /root/looker.tar", LIMIT)?;
    let class =
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"});
    wait_for("the account of pods", SHORT, || cluster.kubectl(&["get", "serviceaccount", "default"]).map(Some))?;
    cluster.kubectl_with(&["apply", "-f", "-"], &class.to_string())?;
    let mut given = |name: &str, class: Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "nodeName": NODE,
            "runtimeClassName": class,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "looker",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
            }],
        }});
        cluster.kubectl_with(&["apply", "-f", "-"], &pod.to_string())?;
        wait_for(&format!("the words of the pod {name}"), LIMIT, || {
            let said = machine.run(&format!("cat /var/log/pods/default_{name}_*/looker/*.log"), SHORT)?;
            Ok(said.stdout.contains("zero").then_some(said.stdout))
        })
    };
    let without = given("without", Value::Null)?;
    ensure!(!without.contains("nvidia"), "a pod that asks for no GPU was given one:\n{without}");
    let with = given("with", json!("nvidia"))?;
    for device in ["nvidia0", "nvidiactl", "nvidia-uvm"] {
        ensure!(with.contains(device), "the pod was not given {device}:\n{with}");
    }
    Ok(())
}

/// What the doctor names first, when something breaks.
fn faults(repository: &std::path::Path, machine: &mut Machine) -> Result<()> {
    machine.check("systemctl stop gpuk-agent", SHORT)?;
    let described = |machine: &mut Machine, fixture: &str, code: &str| -> Result<()> {
        let description = nvml::described(repository, fixture, ADDRESS)?.to_string();
        machine.write(nvml::DESCRIPTION, description.as_bytes(), SHORT)?;
        expect(machine, fixture, "gpus", code)
    };
    described(machine, "lost", "gpu-lost")?;
    described(machine, "reset-required", "gpu-reset-required")?;
    described(machine, "version-mismatch", "driver-version-mismatch")?;
    described(machine, "crash", "nvml-crashes")?;
    described(machine, "t4", "")?;
    for (what, damage, repair, step, code) in [
        (
            "a specification of another driver",
            "sed -i.bak s/550.163/535.1/ /run/cdi/nvidia.yaml",
            "mv /run/cdi/nvidia.yaml.bak /run/cdi/nvidia.yaml",
            "cdi",
            "not-done-yet",
        ),
        ("no specification", "mv /run/cdi/nvidia.yaml /root", "mv /root/nvidia.yaml /run/cdi/", "cdi", "not-done-yet"),
        (
            "no runtime",
            "mv /usr/bin/nvidia-container-runtime /root",
            "mv /root/nvidia-container-runtime /usr/bin",
            "toolkit",
            "not-done-yet",
        ),
        ("no device node", "rm /dev/nvidia0", "mknod /dev/nvidia0 c 195 0", "modules", "not-done-yet"),
        (
            "a wrong device node",
            "rm /dev/nvidia0; mknod /dev/nvidia0 c 1 3",
            "rm /dev/nvidia0; mknod /dev/nvidia0 c 195 0",
            "modules",
            "not-done-yet",
        ),
        (
            "an Xid that a program wrote",
            "echo '<3>NVRM: Xid (PCI:0000:00:06): 79, pid=1, GPU has fallen off the bus.' > /dev/kmsg",
            "true",
            "gpu-faults",
            "",
        ),
    ] {
        machine.check(damage, SHORT)?;
        expect(machine, what, step, code)?;
        machine.check(repair, SHORT)?;
    }
    Ok(())
}

fn expect(machine: &mut Machine, what: &str, step: &str, code: &str) -> Result<()> {
    let said = machine.run("gpuk-agent doctor --json", LIMIT)?.stdout;
    let report: Value = serde_json::from_str(&said).with_context(|| format!("the doctor said {said}"))?;
    let checks = report["checks"].as_array().context("no checks")?;
    // The cluster has no device plugin, and the driver itself knows that the card is none.
    let is_known = |check: &Value| ["allocatable", "gpu-faults"].iter().any(|name| check["name"] == *name);
    let wrong = checks.iter().find(|check| check["verdict"] != "ready" && !is_known(check));
    let dead = checks.iter().find(|check| check["name"] == "gpu-faults").map_or(&Value::Null, |check| &check["finding"]["code"]);
    ensure!(dead == "nvrm-adapter-init-failed", "the kernel's log says that the card is dead, and the doctor says {dead}");
    let found = wrong.map_or("", |check| check["finding"]["code"].as_str().unwrap_or("no finding"));
    say(format_args!("{what}: {found} {}", wrong.map_or(&Value::Null, |check| &check["text"])));
    ensure!(
        found == code && (code.is_empty() || wrong.is_some_and(|check| check["name"] == step)),
        "{what}: not {step} {code}:\n{said}"
    );
    Ok(())
}

fn verdict(machine: &mut Machine, step: &str) -> Result<String> {
    let said = machine.run("gpuk-agent status --json", SHORT)?.stdout;
    let status: Value = serde_json::from_str(&said).unwrap_or_default();
    let steps = status["steps"].as_array().cloned().unwrap_or_default();
    let record = steps.iter().find(|record| record["name"] == step);
    Ok(record.and_then(|record| record["verdict"].as_str()).unwrap_or_default().to_owned())
}

fn condition(cluster: &Cluster, kind: &str) -> Result<Option<String>> {
    let path = format!("--output=jsonpath={{.status.conditions[?(@.type==\"{kind}\")].status}}");
    let status = cluster.kubectl(&["get", "node", NODE, &path])?;
    Ok(Some(status.trim().to_owned()).filter(|status| !status.is_empty()))
}
