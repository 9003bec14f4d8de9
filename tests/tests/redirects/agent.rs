//! The agent's own step, engine and host, on the node of a [`Wired`].

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use gpuk_agent::config::{Source, load};
use gpuk_agent::engine::{Engine, Silent, Stop};
use gpuk_agent::facts::Facts;
use gpuk_agent::host::Host;
use gpuk_agent::host::cluster::ScriptedCluster;
use gpuk_agent::host::kernel::RecordingKernel;
use gpuk_agent::host::runtime::ScriptedRuntime;
use gpuk_agent::host::units::ScriptedUnits;
use gpuk_agent::host::watch::Watch;
use gpuk_agent::state::{StepRecord, Verdict};
use gpuk_agent::step::{Status, Step};
use gpuk_agent::steps::redirects::Redirects;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use vm_tests::network::Wired;

/// TCP on both ports, and HTTP/3.
pub const INGRESS: &str = "[redirects]\ningress = true\nrules = [\"443:32479 protocols=tcp+udp\"]\n";

/// Nothing is asked for.
pub const NOTHING: &str = "[redirects]\ningress = false\n";

const PATIENCE: Duration = Duration::from_secs(20);

/// The agent on a node, with a `/run` of its own that stays between its rounds.
pub struct Agent<'node> {
    wired: &'node Wired,
    mounts: File,
}

impl<'node> Agent<'node> {
    /// Nothing is done yet.
    pub fn on(wired: &'node Wired) -> Result<Self> {
        let pod = wired.pod.path();
        let mounts = wired.node.inside(|| {
            let none: Option<&str> = None;
            unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mounting /run")?;
            // Where and under which name CNI plugins bind a pod's network.
            fs::create_dir("/run/netns")?;
            symlink(&pod, "/run/netns/cni-pod")?;
            File::open("/proc/thread-self/ns/mnt").context("opening a mount namespace")
        })?;
        Ok(Self { wired, mounts })
    }

    /// One round of `up`.
    pub fn up(&self, configuration: &str) -> Result<StepRecord> {
        self.work(configuration, |runtime, engine| {
            let steps: [Box<dyn Step>; 1] = [Box::new(Redirects)];
            runtime.block_on(engine.bring_up(&steps, PATIENCE)).pop().context("the engine did nothing")
        })
    }

    /// A round that ends with everything in place; answers what it changed.
    pub fn ready(&self, configuration: &str) -> Result<StepRecord> {
        let record = self.up(configuration)?;
        ensure!(record.verdict == Verdict::Ready, "{:?}: {}", record.verdict, record.text);
        Ok(record)
    }

    /// What `reset redirects` does.
    pub fn reset(&self) -> Result<StepRecord> {
        self.work(INGRESS, |runtime, engine| Ok(runtime.block_on(engine.undo(&Redirects))))
    }

    /// Makes a change, and waits until the kernel tells the agent of it.
    pub fn notices(&self, change: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        self.work(INGRESS, |runtime, _| {
            runtime.block_on(async {
                let mut watch = Watch::over("/".as_ref(), Redirects.watches().iter().copied())?;
                change()?;
                tokio::time::timeout(PATIENCE, watch.changed())
                    .await
                    .context("nobody tells the agent of a change of its table")?;
                Ok(())
            })
        })
    }

    /// One look, and how long it took.
    pub fn look(&self, configuration: &str) -> Result<(Status, Duration)> {
        self.work(configuration, |runtime, engine| {
            let began = Instant::now();
            let status = runtime.block_on(engine.look(&Redirects)).map_err(|why| anyhow!(why))?;
            Ok((status, began.elapsed()))
        })
    }

    /// Why something is to be done.
    pub fn complaint(&self, configuration: &str) -> Result<String> {
        match self.look(configuration)?.0 {
            Status::Pending { why, .. } => Ok(why),
            other => Err(anyhow!("nothing is to be done: {other:?}")),
        }
    }

    fn work<T: Send>(
        &self,
        configuration: &str,
        work: impl FnOnce(&tokio::runtime::Runtime, &Engine<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        self.wired.node.inside(|| {
            // A thread that shares its current folder with others cannot change its mounts.
            unshare(CloneFlags::CLONE_FS).context("parting from the other threads' current folder")?;
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("entering a mount namespace")?;
            let config =
                load(vec![Source::file("/etc/gpuk/agent.toml", configuration)]).map_err(|error| anyhow!("{error:?}"))?.config;
            let host = Host {
                units: Box::new(ScriptedUnits::default()),
                kernel: Box::new(RecordingKernel::default()),
                runtime: Box::new(ScriptedRuntime::default()),
                cluster: Box::new(ScriptedCluster::answering(Ok(None))),
                ..Host::real("/".as_ref())?
            };
            let (_switch, stop) = Stop::new();
            let engine = Engine { host: &host, config: &config, facts: &Facts::default(), observer: &Silent, stop };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            work(&runtime, &engine)
        })
    }
}
