//! A node is healthy when a short list of things is true of it; a step looks at one of them and answers with data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::host::apply::Failure;
use crate::host::gpus::DivideGpu;
use crate::host::runtime::Trial;
use crate::look::Look;

/// One thing that must be true of a node, e.g. "containerd knows the NVIDIA runtime".
#[async_trait(?Send)]
pub trait Step {
    /// The step's name in output, state and journal: one lower-case word.
    fn name(&self) -> &'static str;

    /// What is true of the node once the step is ready, as a person would say it.
    fn purpose(&self) -> &'static str;

    /// When in a node's life the step can be done.
    fn stage(&self) -> Stage;

    /// Whether what it does after it held once puts right what somebody undid. False for a step that does more, or anew, as other
    /// things change.
    fn may_drift(&self) -> bool {
        true
    }

    /// Beside which steps it is done.
    fn lane(&self) -> Lane {
        Lane::Node
    }

    /// Names of the steps without which this one cannot hold: the links of the causal chain.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Where a change may mean drift; the resident service watches it.
    fn watches(&self) -> &'static [Watched] {
        &[]
    }

    /// How long one look may take before it counts as "could not look".
    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How long one round waits for it at most. What is somebody else's work is not asked for again and again: a later round sees it.
    fn patience(&self) -> Duration {
        Duration::MAX
    }

    /// Looks, never touches. An `Err` means "could not look", which is neither a pass nor a fault.
    async fn check(&self, look: Look<'_>) -> Result<Status>;

    /// What would take away what this step made and leave everything else as it is: no changes where nothing of it is left.
    /// `None` for a step that cannot do that.
    async fn undo(&self, _look: Look<'_>) -> Result<Option<Vec<Change>>> {
        Ok(None)
    }

    /// What a failed change of this step means: `Waiting` or `Broken` with a finding, or `None` for "only try again".
    fn judge(&self, _failure: &Failure, _look: Look<'_>) -> Option<Status> {
        None
    }
}

/// Something of which the kernel says when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The files in a directory, without its subdirectories.
    Directory(&'static str),
    /// A table of nftables, of this name.
    Table(&'static str),
}

/// When in a node's life a step can be done; later stages include what earlier ones need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Already in an image: no identity, no running system needed.
    Image,
    /// At boot: this machine's identity and its running kernel.
    Boot,
    /// Needs the cluster's control plane.
    Cluster,
}

/// Steps of different lanes do not wait for each other, unless one needs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What makes the machine a node: a GPU never keeps it out of its cluster.
    Node,
    /// What makes its GPUs usable; a driver may take minutes to build.
    Gpu,
}

/// What a look at one step found.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// True already; the text is the evidence.
    Ready(String),
    /// Not true yet; these changes, in this order, would make it so.
    Pending {
        /// What is not true yet.
        why: String,
        /// What would make it true.
        changes: Vec<Change>,
    },
    /// The outside world is not ready: check again later.
    Waiting(Finding),
    /// No waiting and no change of ours will help: a person is needed.
    Broken(Finding),
}

impl Status {
    /// A `Pending` from anything that reads as its reason.
    pub fn pending(why: impl Into<String>, changes: Vec<Change>) -> Self {
        Self::Pending { why: why.into(), changes }
    }
}

/// Something that is wrong, told so that a tired person can act on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable name for programs, lower case with hyphens, e.g. `token-rejected`.
    pub code: String,
    /// What is wrong, in one sentence.
    pub what: String,
    /// The evidence: what was seen, where.
    pub why: String,
    /// A command or an edit that someone can paste.
    pub remedy: String,
    /// How long whoever was asked wants to be left alone. It matters only to who waits now.
    #[serde(skip)]
    pub leave_alone: Option<Duration>,
    /// Nothing but a reboot cures it.
    #[serde(skip)]
    pub cured_by_reboot: bool,
}

impl Finding {
    /// All four parts are required: a finding without a remedy is only a complaint.
    pub fn new(code: &str, what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
            leave_alone: None,
            cured_by_reboot: false,
        }
    }

    /// Nothing but a reboot cures it.
    #[must_use]
    pub fn cured_by_reboot(self) -> Self {
        Self { cured_by_reboot: true, ..self }
    }

    /// Not to be looked at again before that.
    #[must_use]
    pub fn leaving_alone(self, time: Option<Duration>) -> Self {
        Self { leave_alone: time, ..self }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Finding {}

/// One thing to do to the machine. Safe to be cut off in, and safe to do again.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Put a file in place: temporary file, fsync, rename, fsync of the directory.
    Write {
        /// Absolute path, below the root the host was given.
        path: PathBuf,
        /// The whole new file.
        contents: Contents,
        /// Permission bits, e.g. `0o644`.
        mode: u32,
    },
    /// Take a file away. Its bytes are kept beside the state unless `secret`.
    Remove {
        /// Absolute path, below the root the host was given.
        path: PathBuf,
        /// The file holds a secret and must not be kept anywhere.
        secret: bool,
    },
    /// Run a program to its end.
    Run(Command),
    /// Run a program apart from the agent's environment, and keep what it says, be it a secret or a complaint.
    Ask(Asking),
    /// Ask systemd to do something with a unit, and wait for the end of its job.
    Unit(UnitVerb, String),
    /// Set the kernel's host name (not `/etc/hostname`, which is a `Write`).
    Hostname(String),
    /// Set a kernel parameter now, by its dotted name (keeping it over a reboot is a `Write`).
    Sysctl {
        /// Dotted name as in sysctl.conf(5), e.g. `net.ipv4.ip_forward`.
        key: String,
        /// The text to write.
        value: String,
    },
    /// Start a container that ends at once, and see that it is given these devices of the host (names in `/dev`).
    TryContainer {
        /// The container.
        container: Trial,
        /// What it must be given.
        devices: Vec<String>,
    },
    /// Divide a GPU by MIG, or undivide it.
    DivideGpu(DivideGpu),
    /// Set labels of this node's own object, with its own credential; the object's other labels stay.
    NodeLabels {
        /// The Node's name.
        node: String,
        /// What each is to be.
        labels: BTreeMap<String, String>,
    },
    /// Keep new pods off this node and ask those that can go elsewhere to do so, with the node's own credential: as far as it can be done
    /// within the limit, for a cluster that is gone cannot be asked.
    Drain {
        /// The Node's name.
        node: String,
        /// How long it may take.
        limit: Duration,
    },
    /// Stop and remove every pod of the container runtime.
    RemovePods {
        /// The CRI socket.
        socket: String,
    },
    /// Apply an object of the cluster as its administrator, without taking fields over that somebody else set (server-side apply).
    ClusterObject {
        /// Its path in the API.
        path: String,
        /// The object, as far as it is to be so.
        object: serde_json::Value,
    },
    /// Reboot the machine in good order; the call returns before it happens.
    Reboot {
        /// Why nothing else will do.
        why: String,
    },
    /// Flush every file system to disk, so that what was done survives a power cut.
    Sync,
}

impl Change {
    /// A `Write` of a file that anyone may read (mode 0644).
    pub fn write(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), contents: Contents::plain(text), mode: 0o644 }
    }

    /// A `Write` of a file that holds a secret (mode 0600); its bytes are never shown or kept elsewhere.
    pub fn write_secret(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::Write { path: path.into(), contents: Contents::secret(text), mode: 0o600 }
    }

    /// Whether the change only makes sense on a running system, not in a mounted image.
    pub fn needs_running_system(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Remove { .. } | Self::Sync => false,
            Self::Run(command) => command.needs_running_system,
            Self::Ask(asking) => asking.command.needs_running_system,
            Self::Unit(..)
            | Self::Hostname(_)
            | Self::Sysctl { .. }
            | Self::TryContainer { .. }
            | Self::DivideGpu(_)
            | Self::NodeLabels { .. }
            | Self::Drain { .. }
            | Self::RemovePods { .. }
            | Self::Reboot { .. }
            | Self::ClusterObject { .. } => true,
        }
    }
}

/// The change in a few words, without contents and without secrets.
impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { path, .. } => write!(formatter, "write {}", path.display()),
            Self::Remove { path, .. } => write!(formatter, "remove {}", path.display()),
            Self::Run(command) => write!(formatter, "run {command}"),
            Self::Ask(asking) => write!(formatter, "run {} and keep its answer in {}", asking.command, asking.keep.display()),
            Self::Unit(verb, unit) => write!(formatter, "{} {unit}", verb.word()),
            Self::Hostname(name) => write!(formatter, "set the host name to {name}"),
            Self::Sysctl { key, value } => write!(formatter, "set {key} = {value}"),
            Self::TryContainer { container, devices } => {
                write!(
                    formatter,
                    "try a container of the runtime {}, which must be given {}",
                    container.handler,
                    devices.join(", ")
                )
            }
            Self::DivideGpu(division) => division.fmt(formatter),
            Self::NodeLabels { node, labels } => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(formatter, "label Node {node} with {}", labels.join(", "))
            }
            Self::Drain { node, limit } => write!(formatter, "drain Node {node}, as far as it goes in {} s", limit.as_secs()),
            Self::RemovePods { .. } => write!(formatter, "stop and remove every pod"),
            Self::ClusterObject { path, .. } => write!(formatter, "apply {path}"),
            Self::Reboot { why } => write!(formatter, "reboot, because {why}"),
            Self::Sync => write!(formatter, "sync file systems"),
        }
    }
}

/// The bytes of a file, which know whether they may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Never shown in a plan, log or error.
    pub secret: bool,
}

impl Contents {
    /// Contents that anyone may see.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { bytes: text.into().into_bytes(), secret: false }
    }

    /// Contents that nobody may see.
    pub fn secret(text: impl Into<String>) -> Self {
        Self { bytes: text.into().into_bytes(), secret: true }
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.secret {
            write!(formatter, "Contents(secret, {} bytes)", self.bytes.len())
        } else {
            write!(formatter, "Contents({:?})", String::from_utf8_lossy(&self.bytes))
        }
    }
}

/// A program with its arguments, run to its end and never through a shell. Nothing in it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long it may take before it is killed.
    pub limit: Duration,
    /// Give up early, with a diagnosis, when this unit cannot start (e.g. the kubelet under `kubeadm join`).
    pub watched_unit: Option<String>,
    /// It cannot do its work in a chroot of an image.
    pub needs_running_system: bool,
}

impl Command {
    /// A command from its words.
    pub fn new<const N: usize>(argv: [&str; N], limit: Duration) -> Self {
        Self {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            limit,
            watched_unit: None,
            needs_running_system: false,
        }
    }

    /// Give up early when `unit` cannot start.
    pub fn watching(mut self, unit: &str) -> Self {
        self.watched_unit = Some(unit.to_owned());
        self.on_running_system()
    }

    /// Leave it for the boot when the root is an image.
    pub fn on_running_system(mut self) -> Self {
        self.needs_running_system = true;
        self
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.argv.join(" "))
    }
}

/// A program whose answer the next look judges: that it fails is an answer as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The program.
    pub command: Command,
    /// The file for [`crate::host::programs::Said`] (mode 0600).
    pub keep: PathBuf,
    /// Which time it is, from 1: to ask again is another change than to have asked.
    pub attempt: u32,
}

/// What systemd can be asked to do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitVerb {
    /// Start it unless it is active.
    Start,
    /// Stop it, start it.
    Restart,
    /// Stop it, and forget that it failed.
    Stop,
    /// Start it at every boot (systemd reads all unit files again on the way).
    Enable,
    /// Read all unit files again (the unit's name is ignored).
    Reload,
}

impl UnitVerb {
    /// The word systemctl uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Enable => "enable",
            Self::Reload => "daemon-reload for",
        }
    }
}
