//! NVML hangs, crashes and holds GPUs open, so it is asked by a child that carries its library, and killed when it takes too long.
//!
//! Without the kernel module there is nothing to ask, and as root the library would make `/dev/nvidiactl` all the same; so the child is
//! started only where `/proc/driver/nvidia/version` exists.

mod child;
mod division;
mod helper;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use gpuk_nvml::{CudaCheck, Division, Failure, Printed, Reading};

pub use division::DivideGpu;
use serde::{Serialize, Serializer};

use super::files::Files;

/// Exists while the kernel module is loaded (NVIDIA driver README, "Using the /proc File System Interface").
pub const LOADED_MODULE: &str = "/proc/driver/nvidia/version";

/// Without persistence mode NVML initialises every GPU first, which takes 1 to 3 s each; machines have up to 16.
const LIMIT: Duration = Duration::from_secs(60);

/// Switching MIG mode may reset the GPU, and every instance is made by a call of its own.
const LIMIT_TO_DIVIDE: Duration = Duration::from_secs(180);

/// How long an answer is good for another step of the same round; a step that waits looks less often.
const FRESH: Duration = Duration::from_secs(2);

/// What NVML says of this machine's GPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GpuReading {
    /// The kernel module is not loaded, so nothing was asked.
    #[default]
    NoDriver,
    /// NVML answered.
    Reading(Box<Reading>),
    /// NVML as a whole did not answer, and said why.
    Failed(Failure),
    /// NVML could not be asked, or did not say anything.
    NotAsked(HelperTrouble),
}

/// Why the helper brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelperTrouble {
    /// This agent was built without it.
    NotEmbedded,
    /// It could not be started from any place; each with its reason.
    CannotStart(String),
    /// It was killed at its limit.
    Hung(Duration),
    /// Killed, but not dead: the kernel does not let go of this process (state D), a former look's or this one's.
    Stuck(u32),
    /// A signal ended it, e.g. `SIGSEGV`.
    Crashed(String),
    /// It ended with this exit status; the last words it said.
    Exited(i32, String),
    /// What it printed was not what it should; what is wrong with it.
    Nonsense(String),
}

impl fmt::Display for HelperTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmbedded => write!(f, "this agent was built without the NVML helper"),
            Self::CannotStart(why) => write!(f, "the NVML helper cannot be started: {why}"),
            Self::Hung(limit) => write!(f, "NVML did not answer within {} s; the helper was killed", limit.as_secs()),
            Self::Stuck(process) => write!(f, "the NVML helper (process {process}) hangs in the kernel and cannot be killed"),
            Self::Crashed(signal) => write!(f, "NVML crashed the helper ({signal})"),
            Self::Exited(code, said) if said.is_empty() => write!(f, "the NVML helper ended with status {code}"),
            Self::Exited(code, said) => write!(f, "the NVML helper ended with status {code}: {said}"),
            Self::Nonsense(why) => write!(f, "the NVML helper printed something else than an answer: {why}"),
        }
    }
}

impl std::error::Error for HelperTrouble {}

impl Serialize for HelperTrouble {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Asking NVML.
#[async_trait(?Send)]
pub trait Gpus {
    /// One look. `helper` is used in place of the program that the agent carries, `library` in place of the `libnvidia-ml.so.1` that the
    /// loader finds.
    async fn look(&self, helper: Option<&Path>, library: Option<&Path>) -> Result<GpuReading>;

    /// Computes a little on every GPU, with CUDA; `helper` as above. It takes memory on them, and seconds.
    async fn compute(&self, helper: Option<&Path>) -> Result<CudaCheck, HelperTrouble>;

    /// Divides a GPU by MIG; what is right already stays, and nothing is taken away that is used.
    async fn divide(&self, division: &DivideGpu) -> Result<Division, HelperTrouble>;
}

/// The GPUs of this machine.
pub struct RealGpus {
    files: Files,
    limit: Duration,
    fresh: Duration,
    /// What NVML said last, and when: what steps ask one after the other is asked once.
    said: RefCell<Option<(Instant, GpuReading)>>,
}

thread_local! {
    /// A child that was killed and did not die; it outlives the round in which it was started.
    static STUCK: RefCell<Option<tokio::process::Child>> = const { RefCell::new(None) };
}

impl RealGpus {
    /// The GPUs of the machine whose files these are; an image has none.
    pub fn new(files: &Files) -> Self {
        Self { files: files.clone(), limit: LIMIT, fresh: FRESH, said: RefCell::new(None) }
    }

    /// The same with another limit.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// A former child that is still there, unless it has died in the meantime.
    fn still_stuck() -> Option<u32> {
        STUCK.with_borrow_mut(|stuck| {
            if let Some(Ok(None)) = stuck.as_mut().map(tokio::process::Child::try_wait) {
                return stuck.as_ref().and_then(tokio::process::Child::id);
            }
            *stuck = None;
            None
        })
    }

    async fn printed(&self, helper: Option<&Path>, words: &[&OsStr], limit: Duration) -> Result<Vec<u8>, HelperTrouble> {
        // One that hangs in the kernel is not joined by a second one at every look.
        if let Some(process) = Self::still_stuck() {
            return Err(HelperTrouble::Stuck(process));
        }
        let mut child = helper::start(&self.files, helper, words)?;
        let printed = child::printed(&mut child, limit).await;
        if printed.is_err()
            && let Some(process) = child::end(&mut child).await
        {
            STUCK.set(Some(child));
            return Err(HelperTrouble::Stuck(process));
        }
        printed
    }
}

#[async_trait(?Send)]
impl Gpus for RealGpus {
    async fn look(&self, helper: Option<&Path>, library: Option<&Path>) -> Result<GpuReading> {
        if !self.files.is_running_system() || !self.files.exists(Path::new(LOADED_MODULE))? {
            return Ok(GpuReading::NoDriver);
        }
        if let Some((when, said)) = &*self.said.borrow()
            && when.elapsed() < self.fresh
        {
            return Ok(said.clone());
        }
        let words: Vec<&OsStr> = library.map(Path::as_os_str).into_iter().collect();
        let printed = match self.printed(helper, &words, self.limit).await {
            Ok(printed) => printed,
            Err(trouble) => return Ok(GpuReading::NotAsked(trouble)),
        };
        Ok(match serde_json::from_slice(&printed) {
            Ok(Printed::Reading(reading)) => {
                let said = GpuReading::Reading(Box::new(reading));
                self.said.replace(Some((Instant::now(), said.clone())));
                said
            }
            Ok(Printed::Failed(failure)) => GpuReading::Failed(failure),
            Err(error) => GpuReading::NotAsked(HelperTrouble::Nonsense(error.to_string())),
        })
    }

    async fn compute(&self, helper: Option<&Path>) -> Result<CudaCheck, HelperTrouble> {
        let printed = self.printed(helper, &[OsStr::new("--cuda")], self.limit).await?;
        serde_json::from_slice(&printed).map_err(|error| HelperTrouble::Nonsense(error.to_string()))
    }

    async fn divide(&self, division: &DivideGpu) -> Result<Division, HelperTrouble> {
        // Whatever comes of it, what NVML said before may be true no more.
        self.said.replace(None);
        let layout = division.layout.to_string();
        let words = [OsStr::new("--mig"), OsStr::new(&division.gpu), OsStr::new(&layout)];
        let words: Vec<&OsStr> = words.into_iter().chain(division.library.as_deref().map(Path::as_os_str)).collect();
        let printed = self.printed(division.helper.as_deref(), &words, LIMIT_TO_DIVIDE).await?;
        serde_json::from_slice(&printed).map_err(|error| HelperTrouble::Nonsense(error.to_string()))
    }
}

/// A fake: answers the same at every look.
#[derive(Default)]
pub struct ScriptedGpus(pub GpuReading);

#[async_trait(?Send)]
impl Gpus for ScriptedGpus {
    async fn look(&self, _helper: Option<&Path>, _library: Option<&Path>) -> Result<GpuReading> {
        Ok(self.0.clone())
    }

    async fn compute(&self, _helper: Option<&Path>) -> Result<CudaCheck, HelperTrouble> {
        Err(HelperTrouble::NotEmbedded)
    }

    async fn divide(&self, _division: &DivideGpu) -> Result<Division, HelperTrouble> {
        Err(HelperTrouble::NotEmbedded)
    }
}
