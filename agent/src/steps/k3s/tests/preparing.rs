//! k3s's program, its settings, and its containerd.

use super::*;
use crate::facts::Gpu;
use crate::steps::containerd::Containerd;
use crate::steps::kubelet::Kubelet;

#[tokio::test]
async fn a_missing_program_or_unit_is_named() {
    let machine = Machine::new(&[]);
    std::fs::remove_file(machine.folder.path().join("usr/local/bin/k3s")).unwrap();
    let finding = machine.broken(&Kubelet).await;
    assert!(finding.code == "k3s-not-installed" && finding.why.contains("/usr/local/bin/k3s"), "{finding:?}");
    std::fs::remove_file(machine.folder.path().join("etc/systemd/system/k3s.service")).unwrap();
    let finding = machine.set("node.role", Some("control-plane")).broken(&Kubelet).await;
    assert!(finding.why.contains("no k3s.service") && finding.remedy.contains("install.sh server"), "{finding:?}");
}

#[tokio::test]
async fn settings_are_there_before_k3s_starts() {
    let machine = Machine::new(&[]).set("node.labels", Some("a=b"));
    let (_, changes) = machine.pending(&Kubelet).await;
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("write {DROP_IN}")]);
    machine.host.apply(&changes[0]).await.unwrap();
    machine.ready(&Kubelet).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_registered_stays_and_what_counts_at_every_start_follows() {
    let machine = Machine::new(&[(A, Server::good())]).set("node.labels", Some("a=b"));
    machine.make().await;
    machine.join();
    let machine = machine.running_for(60).set("node.labels", Some("a=c"));
    machine.date(DROP_IN, 61);
    let evidence = machine.ready(&Kubelet).await;
    assert!(
        evidence.contains("registered with a=b, now c") && evidence.contains("kubectl label node gpu-1 --overwrite a=c"),
        "{evidence}"
    );
    let machine = machine.set("node.ip", Some("10.0.0.8"));
    let (_, changes) = machine.pending(&Kubelet).await;
    let made: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(made, [format!("write {DROP_IN}"), "restart k3s-agent.service".to_owned()]);
    machine.host.apply(&changes[0]).await.unwrap();
    let text = machine.read(DROP_IN).unwrap();
    assert!(text.contains("a=b") && text.contains("server: \"https://10.0.0.1:6443\"") && text.contains("token-file"), "{text}");
    // Cut off before the restart: k3s is older than its settings.
    machine.date(DROP_IN, 10);
    let (_, changes) = machine.pending(&Kubelet).await;
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart k3s-agent.service"]);
}

#[tokio::test]
async fn a_louder_file_or_flag_is_named() {
    let machine = Machine::new(&[]).set("node.labels", Some("a=b"));
    machine.write("/etc/rancher/k3s/config.yaml", "node-label: [\"x=y\"]\nnode-name: other\n");
    machine.write("/etc/rancher/k3s/config.yaml.d/60-mine.yaml", "node-label+: [\"x=y\"]\nwrite-kubeconfig-mode: \"0644\"\n");
    machine.write("/etc/rancher/k3s/config.yaml.d/40-mine.yaml", "node-label: [\"x=y\"]\n");
    machine.pending(&Kubelet).await;
    machine.write("/etc/rancher/k3s/config.yaml.d/60-mine.yaml", "node-label: [\"x=y\"]\n");
    let finding = machine.broken(&Kubelet).await;
    assert!(finding.code == "k3s-settings-overridden" && finding.why.contains("60-mine.yaml sets node-label"), "{finding:?}");
    machine.write("/etc/rancher/k3s/config.yaml.d/60-mine.yaml", "");
    machine.write(
        "/etc/systemd/system/k3s-agent.service",
        "[Service]\nExecStart=/usr/local/bin/k3s \\\n  agent \\\n\t'--node-name' \\\n\t'x' \\\n",
    );
    assert!(machine.broken(&Kubelet).await.why.contains("k3s-agent.service sets --node-name"));
}

const CONTAINERD: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";

/// What the step `trial` needs first, on a machine with a GPU.
async fn first(machine: &Machine) -> Option<Status> {
    let facts = Facts { gpus: vec![Gpu::default()], ..machine.facts() };
    super::super::runtime_for_gpus(Look::new(&machine.host, &machine.config(), &facts)).await.unwrap()
}

#[tokio::test]
async fn k3s_finds_the_nvidia_runtime_by_itself_at_a_start() {
    let machine = Machine::new(&[]);
    assert!(machine.ready(&Containerd).await.contains("k3s brings its own containerd"));
    let code = |status: Option<Status>| match status {
        Some(Status::Waiting(finding) | Status::Broken(finding)) => finding.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(first(&machine).await), "k3s-runtime-not-started");
    machine.write(CONTAINERD, "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n");
    assert_eq!(code(first(&machine).await), "k3s-runtime-not-found");
    machine.write("/usr/bin/nvidia-container-runtime", "");
    machine.date(CONTAINERD, 0);
    let Some(Status::Pending { changes, .. }) = first(&machine).await else { panic!("not pending") };
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["restart k3s-agent.service"]);
    // k3s has looked since, and its configuration comes from a template without it.
    let file = std::fs::File::options().write(true).open(machine.folder.path().join(&CONTAINERD[1..])).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    machine.write(&format!("{CONTAINERD}.tmpl"), "version = 2\n");
    let Some(Status::Broken(finding)) = first(&machine).await else { panic!("not broken") };
    assert!(finding.code == "k3s-runtime-passed-over" && finding.remedy.contains("template \"base\""), "{finding:?}");
    for plugin in ["'io.containerd.cri.v1.runtime'", "\"io.containerd.grpc.v1.cri\""] {
        machine.write(
            CONTAINERD,
            &format!("version = 2\n[plugins.{plugin}.containerd.runtimes.\"nvidia\"]\nruntime_type = \"x\"\n"),
        );
        assert_eq!(first(&machine).await, None);
    }
}
