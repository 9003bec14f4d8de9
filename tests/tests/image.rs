//! On the files of an image: plan touches nothing, up does what plan said, a second up does nothing, and JSON keeps its shape.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use integration::{agent, image_root, run, snapshot, write};
use serde_json::Value;

fn json(root: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let ran = run(root, &[words, &["--json"]].concat());
    let value = serde_json::from_str(&ran.out).unwrap_or_else(|error| unreachable!("{error}: {ran:?}"));
    (ran.code, value)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn times(root: &Path) -> Vec<SystemTime> {
    snapshot(root).iter().map(|(path, _)| path.metadata().unwrap().modified().unwrap()).collect()
}

#[test]
fn plan_up_and_up_again() {
    let root = image_root();
    let before = snapshot(root.path());
    let plan = run(root.path(), &["plan"]);
    assert_eq!(plan.code, Some(2), "{plan:?}");
    assert!(plan.out.contains("-/swapfile none swap sw 0 0") && plan.out.contains("+br_netfilter"), "{}", plan.out);
    assert_eq!(snapshot(root.path()), before, "plan touches nothing");

    let up = run(root.path(), &["up"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let text = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!(text("etc/modules-load.d/gpuk-agent.conf"), "# Written by gpuk-agent.\noverlay\nbr_netfilter\n");
    assert_eq!(text("etc/fstab"), "/dev/sda1 / ext4 defaults 0 1\n# gpuk-agent: no swap on a node: /swapfile none swap sw 0 0\n");
    assert_eq!(text("etc/hostname"), "localhost\n", "a name is for the boot");
    let kept = std::fs::read_dir(root.path().join("var/lib/gpuk-agent/replaced/etc")).unwrap();
    let kept: Vec<String> = kept.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(kept, ["/dev/sda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n"], "the old bytes can be had back");

    let (bytes, modified) = (snapshot(root.path()), times(root.path()));
    run(root.path(), &["up"]);
    run(root.path(), &["up"]);
    assert_eq!(snapshot(root.path()), bytes, "a further up changes nothing");
    assert_eq!(times(root.path()), modified, "and writes no file");
}

#[test]
fn what_is_already_right_is_left_alone() {
    let root = image_root();
    write(root.path(), "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n");
    write(root.path(), "usr/lib/modules-load.d/k8s.conf", "overlay\nbr_netfilter\n");
    write(
        root.path(),
        "etc/sysctl.d/k8s.conf",
        "net.ipv4.ip_forward=1\nnet/bridge/bridge-nf-call-iptables = 1\n-net.bridge.bridge-nf-call-ip6tables = 1\n",
    );
    let (_, plan) = json(root.path(), &["plan"]);
    let kernel = plan["steps"].as_array().unwrap().iter().find(|step| step["name"] == "kernel").unwrap();
    assert_eq!(kernel["verdict"], "ready", "{kernel}");
}

#[test]
fn json_keeps_its_shape() {
    let root = image_root();
    let (_, plan) = json(root.path(), &["plan"]);
    assert_eq!(keys(&plan), ["node", "refused", "steps"]);
    let kernel = plan["steps"].as_array().unwrap().iter().find(|step| step["name"] == "kernel").unwrap();
    assert_eq!(keys(kernel), ["changes", "finding", "name", "text", "verdict"]);
    assert_eq!(keys(&kernel["changes"][0]), ["diff", "leftForBoot", "text"]);
    let (_, up) = json(root.path(), &["up"]);
    assert_eq!(keys(&up), ["node", "refused", "steps"]);
    let record = ["because", "changes", "finding", "name", "started", "text", "took", "verdict"];
    assert_eq!(keys(&up["steps"][2]), record);
    let (exit, reset) = json(root.path(), &["reset", "redirects"]);
    assert_eq!((exit, keys(&reset), keys(&reset["steps"][0])), (Some(0), vec!["refused", "steps"], record.to_vec()));
    let (_, status) = json(root.path(), &["status"]);
    assert_eq!(keys(&status), ["node", "phase", "since", "steps"]);
    assert_eq!(keys(&status["steps"][0]), record);
    let (_, timeline) = json(root.path(), &["timeline"]);
    assert_eq!(keys(&timeline), ["instanceId", "node", "rounds"]);
    assert_eq!(keys(&timeline["rounds"][0]), ["bootId", "finished", "sinceBoot", "started", "steps", "verb", "version"]);
    let (_, doctor) = json(root.path(), &["doctor"]);
    assert_eq!(keys(&doctor), ["checks", "node", "unseen", "verdict"]);
    assert_eq!(keys(&doctor["checks"][0]), ["finding", "followsFrom", "name", "purpose", "repaired", "text", "verdict"]);
    let (_, facts) = json(root.path(), &["facts"]);
    assert_eq!(
        keys(&facts),
        [
            "because",
            "bootId",
            "cgroup",
            "disks",
            "dmi",
            "driver",
            "gpu",
            "gpus",
            "gpusUnseen",
            "hostname",
            "instance",
            "kernel",
            "machineId",
            "marks",
            "memory",
            "node",
            "nvswitches",
            "os",
            "role",
            "sources",
            "unknown",
            "unseen"
        ]
    );
    assert_eq!(keys(&facts["sources"][0]), ["name", "tookMicroseconds"]);
    let (_, config) = json(root.path(), &["config", "show", "--origin"]);
    assert_eq!(keys(&config["settings"][0]), ["key", "origin", "value"]);
}

#[test]
fn layers_and_their_origins() {
    let root = image_root();
    write(root.path(), "etc/gpuk/agent.toml", "[node]\nname = \"one\"\nallow-swap = true\n");
    write(root.path(), "etc/gpuk/agent.toml.d/10-name.toml", "[node]\nname = \"two\"\n");
    let show = |words: &[&str]| run(root.path(), &[&["config", "show", "--origin"], words].concat()).out;
    let line = |out: &str| out.lines().find(|line| line.starts_with("node.name")).unwrap().to_owned();
    assert!(line(&show(&[])).ends_with("# /etc/gpuk/agent.toml.d/10-name.toml:2:8"), "{}", show(&[]));
    assert!(line(&show(&["--set", "node.name=three"])).ends_with("# flag --set"));
}

#[test]
fn the_service_ends_cleanly_and_leaves_the_lock_to_others() {
    let root = image_root();
    write(root.path(), "etc/gpuk/agent.toml", "[cluster]\nkind = \"none\"\n");
    let mut service = Command::new(agent())
        .arg("--root")
        .arg(root.path())
        .arg("run")
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let state = root.path().join("var/lib/gpuk-agent/state.json");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(&state).is_ok_and(|text| text.contains("\"finished\":true")) {
        assert!(Instant::now() < deadline, "the service's first round does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The service is at rest now, so an up by hand does not have to wait for it.
    let up = run(root.path(), &["up"]);
    assert!(!up.err.contains("another agent"), "{up:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(service.id()).unwrap()), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert_eq!(service.wait().unwrap().code(), Some(0));
}

#[test]
fn two_agents_never_work_at_once() {
    let root = image_root();
    write(root.path(), "run/gpuk-agent/lock", "");
    let file = std::fs::OpenOptions::new().write(true).open(root.path().join("run/gpuk-agent/lock")).unwrap();
    let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let before = snapshot(root.path());
    let up = run(root.path(), &["up", "--set", "cluster.patience=1s"]);
    assert_eq!(up.code, Some(75), "{up:?}");
    assert!(up.err.contains("another agent is at work"), "{}", up.err);
    assert_eq!(snapshot(root.path()), before);
    drop(held);
    assert_ne!(run(root.path(), &["up"]).code, Some(75));
}
