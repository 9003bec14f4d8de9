//! Looking must never change a machine, so what a step is handed can only read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use gpuk_nvml::CudaCheck;

use crate::config::{Config, Enabled};
use crate::facts::Facts;
use crate::host::Host;
use crate::host::cluster::{ClusterError, Node};
use crate::host::files::SeekableFile;
use crate::host::gpus::{GpuReading, HelperTrouble};
use crate::host::kernel_log::Record;
use crate::host::ledger::Ledger;
use crate::host::network::{Answer, Get, PlainAnswer, PlainRequest, Unreachable};
use crate::host::programs::{Output, Question};
use crate::host::runtime::{RuntimeStatus, Trial, Tried};
use crate::host::units::UnitState;
use crate::step::Change;

/// Whether a file says nothing: a power cut leaves one without bytes, or on some file systems one of zeros.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

/// The read-only view of a host that steps, facts and the doctor look through.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    host: &'a Host,
    /// The effective configuration.
    pub config: &'a Config,
    /// What was found out about this machine, once, before the first step.
    pub facts: &'a Facts,
}

impl<'a> Look<'a> {
    /// A view of `host`; what the view can do is all in its methods.
    pub fn new(host: &'a Host, config: &'a Config, facts: &'a Facts) -> Self {
        Self { host, config, facts }
    }

    /// False when the root is an image, a chroot or a fixture: nothing is running there.
    pub fn running_system(&self) -> bool {
        self.host.files.is_running_system()
    }

    /// Whether there are GPUs that containers of this node are to get (`gpu.enabled`).
    pub fn wants_gpus(&self) -> bool {
        match self.config.gpu.enabled {
            Enabled::Auto => !self.facts.gpus_for_containers().is_empty(),
            Enabled::Always => true,
            Enabled::Never => false,
        }
    }

    /// The whole file, or `None` when it is absent.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        self.host.files.read(path.as_ref())
    }

    /// The whole file as text (not UTF-8 is an error that names the file), or `None` when it is absent.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        self.host.files.text(path.as_ref())
    }

    /// The same of a file that a driver fills while it is read and may hang in: an error after two seconds. The read itself goes on, in a
    /// thread of its own.
    pub async fn text_of_driver(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        let (files, path) = (self.host.files.clone(), path.as_ref().to_owned());
        let reading = tokio::task::spawn_blocking({
            let path = path.clone();
            move || files.text(&path)
        });
        let limit = Duration::from_secs(2);
        match tokio::time::timeout(limit, reading).await {
            Ok(read) => read.with_context(|| format!("reading {}", path.display()))?,
            Err(_) => bail!("reading {}: the driver did not answer in {} s", path.display(), limit.as_secs()),
        }
    }

    /// The file opened for reading parts of it, or `None` when it is absent.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Option<SeekableFile>> {
        self.host.files.open(path.as_ref())
    }

    /// Whether something is there (links are followed).
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        self.host.files.exists(path.as_ref())
    }

    /// The sorted names in a directory; an absent one has none.
    pub fn list(&self, directory: impl AsRef<Path>) -> Result<Vec<String>> {
        self.host.files.list(directory.as_ref())
    }

    /// What changes have written so far, and how to put it back.
    pub fn written(&self) -> Result<(Vec<Change>, Vec<PathBuf>)> {
        Ledger::read(&self.host.files)?.undoing(&self.host.files)
    }

    /// Where a symbolic link points, or `None` when it is absent or no link.
    pub fn link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        self.host.files.link(path.as_ref())
    }

    /// The named files of a disk that is not mounted (a metadata seed), read without mounting it for anyone else.
    pub fn files_of_disk(&self, device: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
        self.host.kernel.files_of_disk(device, names)
    }

    /// Major and minor number of a device node of the running system, or `None` when it is absent.
    pub fn device_number(&self, path: impl AsRef<Path>) -> Result<Option<(u64, u64)>> {
        self.host.kernel.device_number(path.as_ref())
    }

    /// When a file was last written, or `None` when it is absent.
    pub fn modified(&self, path: impl AsRef<Path>) -> Result<Option<SystemTime>> {
        self.host.files.modified(path.as_ref())
    }

    /// Time since the kernel started (`/proc/uptime`).
    pub fn since_boot(&self) -> Result<Duration> {
        self.host.files.since_boot()
    }

    /// What the running kernel's log still has of this boot, oldest first.
    pub fn kernel_log(&self) -> Result<Vec<Record>> {
        self.host.kernel_log.records()
    }

    /// What systemd says of a unit, or `None` when it knows no such unit.
    pub async fn unit(&self, name: &str) -> Result<Option<UnitState>> {
        self.host.units.state(name).await
    }

    /// Asks a program one of the questions on the read-only list.
    pub async fn ask(&self, question: Question) -> Result<Output> {
        self.host.programs.ask(question).await
    }

    /// One HTTPS request: no proxy, no redirect, a capped answer, a time limit.
    pub async fn get(&self, request: Get) -> Result<Answer, Unreachable> {
        self.host.network.get(request).await
    }

    /// One request to a metadata service: plain HTTP, no proxy, no redirect, a capped answer, a time limit.
    pub async fn plain(&self, request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
        self.host.network.plain(request).await
    }

    /// Whether somebody accepts a TCP connection, asked from the network namespace in a file, or from this machine's own.
    pub async fn connect(&self, to: SocketAddr, namespace: Option<&str>, limit: Duration) -> Result<(), Unreachable> {
        self.host.network.connect(to, namespace.map(Path::new), limit).await
    }

    /// The address from which this machine speaks to the world; `None` where it has no default route.
    pub fn own_address(&self) -> Option<IpAddr> {
        self.host.network.own_address()
    }

    /// What the CRI socket answers to `Status` (Kubernetes CRI API, `runtime.v1`).
    pub async fn runtime_status(&self, socket: &str) -> Result<RuntimeStatus> {
        self.host.runtime.status(socket).await
    }

    /// How many pods the container runtime has, running or not.
    pub async fn pods(&self, socket: &str) -> Result<usize> {
        self.host.runtime.pods(socket).await
    }

    /// This node's object, asked for with the node's own credential.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError> {
        self.host.cluster.node(name).await
    }

    /// The handler of a RuntimeClass, or `None` when there is none of that name; asked for with the node's own credential.
    pub async fn runtime_class(&self, name: &str) -> Result<Option<String>, ClusterError> {
        self.host.cluster.runtime_class(name).await
    }

    /// What NVML says of the GPUs, where the kernel module is loaded. It can take a minute.
    pub async fn gpus(&self) -> Result<GpuReading> {
        let gpu = &self.config.gpu;
        self.host.gpus.look(gpu.nvml_helper.as_deref(), gpu.nvml_library.as_deref()).await
    }

    /// Computes a little on every GPU: for a person who asks for it, since it takes memory on them.
    pub async fn compute(&self) -> Result<CudaCheck, HelperTrouble> {
        self.host.gpus.compute(self.config.gpu.nvml_helper.as_deref()).await
    }

    /// What a container is given that is gone with the call: for a person who asks for it.
    pub async fn try_container(&self, trial: &Trial) -> Result<Tried> {
        self.host.runtime.try_container(trial).await
    }

    /// The wall clock.
    pub fn now(&self) -> SystemTime {
        self.host.clock.now()
    }
}
