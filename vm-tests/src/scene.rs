//! A scene is a cluster, a blank machine with the agent in its image, and user-data that holds the agent's configuration and nothing else.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, ClusterOptions};
use crate::command::{run, tail};
use crate::image::Image;
use crate::machine::{Line, Machine, Output};
use crate::packages::Packages;
use crate::parts::Parts;
use crate::progress::{say, timed, wait_for};

/// Long enough for a cold boot and a join on a busy machine without KVM.
pub const LIMIT: Duration = Duration::from_secs(360);

/// A machine that only answers a question has no excuse to take longer.
pub const SHORT: Duration = Duration::from_secs(60);

/// A cluster and an image with the agent in it.
#[derive(Debug)]
pub struct Stage {
    /// The control plane.
    pub cluster: Cluster,
    /// What machines boot from.
    pub image: Image,
}

impl Stage {
    /// Installs, builds and starts whatever is missing.
    pub fn set(options: ClusterOptions, directory: Option<&Path>) -> Result<Self> {
        let image = Self::image()?;
        let parts = Parts::open()?;
        let cluster = match directory {
            Some(directory) => Cluster::start_in(&parts, options, directory)?,
            None => Cluster::start(&parts, options)?,
        };
        Ok(Self { cluster, image })
    }

    /// The image alone, for machines that need no cluster.
    pub fn image() -> Result<Image> {
        Packages::look().install()?;
        Image::blank(&Parts::open()?)?.with_agent(&agent()?, &repository()?.join("systemd/gpuk-agent.service"))
    }

    /// The image of a node that may run a control plane.
    pub fn control_plane_image() -> Result<Image> {
        Packages::look().install()?;
        Image::control_plane(&Parts::open()?)?.with_agent(&agent()?, &repository()?.join("systemd/gpuk-agent.service"))
    }

    /// The image of a node for GPUs, into which the agent itself baked the driver and the container toolkit.
    pub fn baked_image() -> Result<Image> {
        Packages::look().install()?;
        let (agent, repository) = (agent()?, repository()?);
        Image::baked(&Parts::open()?, &agent, &repository)?.with_agent(&agent, &repository.join("systemd/gpuk-agent.service"))
    }

    /// How a node joins this cluster.
    pub fn way_in(&self) -> Result<WayIn> {
        Ok(WayIn { endpoint: self.cluster.endpoint(), token: self.cluster.token().to_owned(), pin: self.cluster.ca_cert_hash()? })
    }
}

/// What a node must know to join.
#[derive(Clone, Debug)]
pub struct WayIn {
    /// Where the API server is.
    pub endpoint: String,
    /// The bootstrap token.
    pub token: String,
    /// The pin of the cluster's CA.
    pub pin: String,
}

impl WayIn {
    /// User-data with the agent's configuration.
    pub fn user_data(&self) -> String {
        let Self { endpoint, token, pin } = self;
        format!(
            "#cloud-config\ngpuk:\n  cluster:\n    endpoints: [\"{endpoint}\"]\n    token: {token}\n    ca-cert-hashes: [\"{pin}\"]\n"
        )
    }
}

/// The repository's root folder.
pub fn repository() -> Result<PathBuf> {
    // Cargo tells a program that it runs; a program that was started by hand remembers.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(package.parent().context("the package lies in the root folder")?.to_owned())
}

/// Builds the agent as it is shipped; `$GPUK_AGENT` names another binary.
fn agent() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GPUK_AGENT").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let root = repository()?;
    let mut build = Command::new(root.join("packaging/build"));
    timed("building the agent", || run(build.current_dir(&root), Duration::from_secs(1800)))?;
    let binary = root.join("target/dist/gpuk-agent");
    ensure!(binary.exists(), "packaging/build left no {}", binary.display());
    Ok(binary)
}

/// What is worth showing of a boot, besides what the agent says.
const MILESTONES: &[(&str, &str)] = &[
    ("Linux version", "the kernel starts"),
    ("Welcome to", "systemd starts"),
    ("running 'init-local'", "cloud-init reads the seed"),
    ("Reached target network-online.target", "the network is up"),
    ("Started containerd.service", "containerd runs"),
    ("Starting gpuk-agent.service", "the agent starts"),
    ("Started gpuk-agent.service", "the agent says that this machine's part is done"),
    ("Reached target multi-user.target", "the machine has booted"),
    ("Started kubelet.service", "the kubelet starts"),
];

/// What to show of one line of the console, if anything.
pub fn worth_showing(line: &Line) -> Option<String> {
    let text = line.text.trim();
    if let Some((_, meaning)) = MILESTONES.iter().find(|(words, _)| text.contains(words)) {
        return Some(format!("{:7.1} s  {meaning}", line.at.as_secs_f64()));
    }
    // The kernel and systemd begin with a bracket; the agent speaks in sentences of its own.
    let others = ["[", "Starting ", "Stopping ", "Expecting ", "Mounting "];
    let agent = !text.is_empty() && !others.iter().any(|start| text.starts_with(start));
    agent.then(|| format!("{:7.1} s    {}", line.at.as_secs_f64(), line.text))
}

/// `gpuk-agent status --json`, as far as the agent has come.
pub fn status(machine: &mut Machine) -> Result<Value> {
    let output = machine.run("gpuk-agent status --json", SHORT)?;
    serde_json::from_str(&output.stdout).with_context(|| format!("reading the agent's status: {}", output.stderr))
}

/// `gpuk-agent doctor`.
pub fn doctor(machine: &mut Machine) -> Result<Output> {
    machine.run("gpuk-agent doctor", SHORT)
}

/// Waits until the agent calls the node ready, and does so in this boot: what a disk says may be older.
pub fn wait_for_agent(machine: &mut Machine, limit: Duration) -> Result<()> {
    let boot = machine.boot_id(limit)?;
    wait_for("the agent to call the node ready", limit, || {
        let timeline = machine.run("gpuk-agent timeline --json", SHORT)?;
        let timeline: Value = serde_json::from_str(&timeline.stdout).context("reading the agent's timeline")?;
        let round = timeline["rounds"].as_array().and_then(|rounds| rounds.last());
        let now = round.is_some_and(|round| round["bootId"] == boot.as_str());
        Ok((now && status(machine)?["phase"] == "ready").then_some(()))
    })
}

/// The lines of `after` that are not in `before`, and those that are gone.
pub fn changed(before: &str, after: &str) -> Vec<String> {
    let (old, new): (HashSet<&str>, HashSet<&str>) = (before.lines().collect(), after.lines().collect());
    let mut changed: Vec<String> = new.difference(&old).map(|line| format!("+ {line}")).collect();
    changed.extend(old.difference(&new).map(|line| format!("- {line}")));
    changed.sort();
    changed
}

/// Everything that a person wants to see of a machine on which something failed.
pub fn last_words(machine: &mut Machine) -> String {
    let mut ask = |script: &str| match machine.run(script, SHORT) {
        Ok(output) => tail(&format!("{}{}", output.stdout, output.stderr), 60),
        Err(error) => format!("{error:#}"),
    };
    let journal = ask("journalctl --no-pager -o short-monotonic -u gpuk-agent");
    let kubelet = ask("journalctl --no-pager -o cat -n 12 -u kubelet");
    let doctor = ask("gpuk-agent doctor");
    let serial = machine.serial_tail(40);
    format!(
        "--- the console ends with\n{serial}\n--- the kubelet's journal ends with\n{kubelet}\n--- the agent's journal\n{journal}\n--- gpuk-agent doctor\n{doctor}"
    )
}

/// Does `work` with a machine; when it fails, shows the machine's last words.
pub fn watched<T>(machine: &mut Machine, work: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
    let result = work(machine);
    if result.is_err() {
        say(last_words(machine));
    }
    result
}

/// A fault that can be prepared, and what the agent must say about it.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    /// Its name.
    pub name: &'static str,
    /// What is done.
    pub fault: &'static str,
    /// What `gpuk-agent doctor` must say.
    pub verdict: &'static str,
    /// What its remedy must tell people to type.
    pub remedy: &'static str,
    prepare: fn(&Cluster, &mut WayIn) -> Result<()>,
}

/// The faults.
pub const BREAKS: &[Break] = &[
    Break {
        name: "bad-token",
        fault: "the configured bootstrap token is well formed, but the cluster does not know it",
        verdict: "token has expired or never existed",
        remedy: "kubeadm token create --print-join-command",
        prepare: |_, way_in| {
            "zzzzzz.0123456789abcdef".clone_into(&mut way_in.token);
            Ok(())
        },
    },
    Break {
        name: "wrong-pin",
        fault: "the configured pin is not the one of the cluster's CA",
        verdict: "is not the pinned one",
        remedy: "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt",
        prepare: |_, way_in| {
            way_in.pin = format!("sha256:{}", "0123456789abcdef".repeat(4));
            Ok(())
        },
    },
    Break {
        name: "endpoint-down",
        fault: "nothing listens at the configured endpoint",
        verdict: "cannot be reached",
        remedy: "curl -k https://",
        prepare: |_, way_in| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            way_in.endpoint = format!("https://{}:{}", crate::machine::HOST, listener.local_addr()?.port());
            Ok(())
        },
    },
    Break {
        name: "kubelet-cannot-start",
        fault: "the cluster's kubelet-config names a client CA file that no node has",
        verdict: "client CA file",
        remedy: "kubectl -n kube-system edit configmap kubelet-config",
        prepare: |cluster, _| cluster.configure_kubelets("clientCAFile", "/etc/kubernetes/pki/no-such-ca.crt"),
    },
];

impl Break {
    /// The fault of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        BREAKS.iter().find(|one| one.name == name)
    }

    /// Prepares the fault, gives the user-data of a machine that will run into it to `work`, and mends the cluster again.
    pub fn with<T>(&self, stage: &Stage, work: impl FnOnce(String) -> Result<T>) -> Result<T> {
        let kubelets = stage.cluster.kubelet_configuration()?;
        let mut way_in = stage.way_in()?;
        (self.prepare)(&stage.cluster, &mut way_in)?;
        let result = work(way_in.user_data());
        stage.cluster.set_kubelet_configuration(&kubelets)?;
        result
    }

    /// Waits until the agent has a finding and the doctor names this fault; answers what the doctor says.
    pub fn wait_for_verdict(&self, machine: &mut Machine, limit: Duration) -> Result<Output> {
        let mut last = String::new();
        let wait = wait_for(&format!("the doctor to say {:?}", self.verdict), limit, || {
            let status = status(machine)?;
            let steps = status["steps"].as_array();
            if !steps.is_some_and(|steps| steps.iter().any(|step| !step["finding"].is_null())) {
                last = status.to_string();
                return Ok(None);
            }
            let output = doctor(machine)?;
            last = format!("exit status {}\n{}{}", output.code, output.stdout, output.stderr);
            let named = output.code != 0 && output.stdout.contains(self.verdict) && output.stdout.contains(self.remedy);
            Ok(named.then_some(output))
        });
        wait.with_context(|| format!("the last answer was\n{last}"))
    }
}

/// A command and its answer as they would stand in a terminal.
pub fn as_typed(command: &str, output: &Output) -> String {
    format!("\n$ {command}\n{}{}", output.stdout, output.stderr)
}
