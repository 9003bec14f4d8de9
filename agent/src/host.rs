//! Everything outside the program is reached through here, and changed nowhere else.

#![allow(clippy::disallowed_methods, reason = "this is the place with side effects")]

pub mod apply;
pub mod clock;
pub mod cluster;
pub mod files;
pub mod gpus;
pub mod kernel;
pub mod kernel_log;
pub mod ledger;
pub mod minting;
pub mod network;
pub mod programs;
pub mod runtime;
pub mod service;
pub mod units;
pub mod watch;

use std::path::Path;

use anyhow::Result;

/// The machine (or the mounted image) that the agent works on; each part has a fake beside it.
pub struct Host {
    /// Files below the root.
    pub files: files::Files,
    /// Programs to ask or to run.
    pub programs: Box<dyn programs::Programs>,
    /// systemd.
    pub units: Box<dyn units::Units>,
    /// The running kernel.
    pub kernel: Box<dyn kernel::Kernel>,
    /// The running kernel's log.
    pub kernel_log: Box<dyn kernel_log::KernelLog>,
    /// HTTPS to API servers and metadata services.
    pub network: Box<dyn network::Network>,
    /// The container runtime's CRI socket.
    pub runtime: Box<dyn runtime::ContainerRuntime>,
    /// The API server, with the node's own credential.
    pub cluster: Box<dyn cluster::Cluster>,
    /// NVML.
    pub gpus: Box<dyn gpus::Gpus>,
    /// Time.
    pub clock: Box<dyn clock::Clock>,
}

impl Host {
    /// The real machine, or the image or chroot at `root`.
    pub fn real(root: &Path) -> Result<Self> {
        let files = files::Files::below(root)?;
        Ok(Self {
            programs: Box::new(programs::RealPrograms::new(&files)),
            units: Box::new(units::Systemd::new(files.is_running_system())),
            kernel: Box::new(kernel::RunningKernel),
            kernel_log: Box::new(kernel_log::Kmsg),
            network: Box::new(network::RealNetwork::default()),
            runtime: Box::new(runtime::CriSocket),
            cluster: Box::new(cluster::ApiServer::new(&files)),
            gpus: Box::new(gpus::RealGpus::new(&files)),
            clock: Box::new(clock::SystemClock),
            files,
        })
    }

    /// A machine of fakes on the files below `root`, which count as those of the running system. Tests replace the parts they are about.
    pub fn of_fakes(root: &Path) -> Result<Self> {
        Ok(Self {
            files: files::Files::as_running_system(root)?,
            programs: Box::new(programs::ScriptedPrograms::default()),
            units: Box::new(units::ScriptedUnits::default()),
            kernel: Box::new(kernel::RecordingKernel::default()),
            kernel_log: Box::new(kernel_log::ScriptedKernelLog::default()),
            network: Box::new(network::ScriptedNetwork::default()),
            runtime: Box::new(runtime::ScriptedRuntime::default()),
            cluster: Box::new(cluster::ScriptedCluster::answering(Ok(None))),
            gpus: Box::new(gpus::ScriptedGpus::default()),
            clock: Box::new(clock::FixedClock::at(0)),
        })
    }
}

/// An error with all its causes, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
