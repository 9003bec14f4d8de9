//! The one place that changes a machine: it takes one change at a time and leaves either the old state or the new.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error};
use gpuk_nvml::{Division, Refusal};

use super::Host;
use super::ledger::Ledger;
use super::programs::{Output, Question, Said};
use crate::digest::sha256;
use crate::step::{Change, Command, Contents};

/// Where the bytes of replaced and removed files are kept, by their path below the root.
pub const REPLACED: &str = "/var/lib/gpuk-agent/replaced";

/// How long systemd may take for one job.
const UNIT_LIMIT: Duration = Duration::from_secs(120);

/// How often a watched unit is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(400);

/// Why a change could not be made. The machine is as it was before that change.
#[derive(Debug)]
pub enum Failure {
    /// A program ended with an error.
    Program {
        /// The command line (no secret is ever in one).
        command: String,
        /// What it said.
        output: Output,
    },
    /// A program was ended early because the unit it waits for cannot start.
    UnitCannotStart {
        /// The program that was waiting.
        command: String,
        /// The unit.
        unit: String,
        /// The newest lines of the unit's log, oldest first.
        log: Vec<String>,
    },
    /// A container was started and was not given what it needs.
    NotGiven(String),
    /// The GPU of this PCI address could not be divided, and why.
    NotDivided(String, Refusal),
    /// Anything else.
    Other(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program { command, output } => match output.code {
                Some(code) => write!(formatter, "{command} ended with status {code}: {}", output.tail()),
                None => write!(formatter, "{command} was ended by a signal: {}", output.tail()),
            },
            Self::UnitCannotStart { command, unit, log } => {
                write!(
                    formatter,
                    "{command} waits for {unit}, which cannot start: {}",
                    log.last().map_or("", |line| line.as_str())
                )
            }
            Self::NotGiven(lacking) => formatter.write_str(lacking),
            Self::NotDivided(gpu, refusal) => write!(formatter, "GPU {gpu}: {refusal}"),
            Self::Other(error) => write!(formatter, "{error:#}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Host {
    /// Makes one change and returns when it is made.
    pub(crate) async fn apply(&self, change: &Change) -> Result<(), Failure> {
        match change {
            Change::Write { path, contents, mode } => {
                let old = self.files.read(path)?;
                if old.as_deref() == Some(&contents.bytes) && self.files.mode(path)? == Some(*mode) {
                    return Ok(());
                }
                self.list(path, old, Some(contents))?;
                self.files.write(path, &contents.bytes, *mode)?;
            }
            Change::Remove { path, secret } => {
                if *secret {
                    Ledger::forget(&self.files, path)?;
                } else {
                    self.list(path, self.files.read(path)?, None)?;
                }
                self.files.remove(path)?;
            }
            Change::Run(command) => self.run(command).await?,
            Change::Ask(asking) => {
                let began = self.clock.now();
                let end = self.programs.run_apart(&asking.command.argv, asking.command.limit).await;
                let said = Said::new(&asking.command.argv, asking.attempt, began, end);
                self.files.write(&asking.keep, &said.to_file()?, 0o600)?;
            }
            Change::Unit(verb, unit) => self.units.act(*verb, unit, UNIT_LIMIT).await?,
            Change::Hostname(name) => self.kernel.set_hostname(name)?,
            Change::Sysctl { key, value } => self.files.poke(&sysctl_path(key), value)?,
            Change::TryContainer { container, devices } => {
                if let Some(lacking) = self.runtime.try_container(container).await?.lacks(container, devices) {
                    return Err(Failure::NotGiven(lacking));
                }
            }
            Change::DivideGpu(division) => {
                let divided = self.gpus.divide(division).await.with_context(|| division.to_string())?;
                if let Division::Refused(refusal) = divided {
                    return Err(Failure::NotDivided(division.address.clone(), refusal));
                }
            }
            Change::NodeLabels { node, labels } => self.cluster.set_labels(node, labels).await.map_err(Error::from)?,
            Change::Drain { node, limit } => {
                if let Err(why) = self.cluster.drain(node, *limit).await {
                    tracing::warn!("Node {node} could not be drained, which changes nothing about what follows: {why}");
                }
            }
            Change::RemovePods { socket } => self.runtime.remove_pods(socket).await?,
            Change::ClusterObject { path, object } => self.cluster.apply_object(path, object).await.map_err(Error::from)?,
            Change::Reboot { .. } => self.units.reboot().await?,
            Change::Sync => self.kernel.sync(),
        }
        Ok(())
    }

    /// Writes a record of the agent's own (its state); anyone may read it, and nothing old is kept.
    pub(crate) fn record(&self, path: &Path, contents: &Contents) -> Result<(), Error> {
        self.files.write(path, &contents.bytes, 0o644)
    }

    /// Keeps what is about to be replaced or removed, and lists it. Nothing of what lies below /run, where tokens lie.
    fn list(&self, path: &Path, old: Option<Vec<u8>>, new: Option<&Contents>) -> Result<(), Error> {
        // What takes the place of a secret is one: neither is kept anywhere.
        if path.starts_with("/run") || new.is_some_and(|new| new.secret) {
            return Ok(());
        }
        let kept = old.as_ref().map(|old| self.keep(path, old)).transpose()?;
        if !Ledger::lists(path) {
            return Ok(());
        }
        let mode = self.files.mode(path)?.unwrap_or(0o644);
        let old = old.as_deref().zip(kept).map(|(old, kept)| (old, mode, kept));
        let mut ledger = Ledger::read(&self.files)?;
        ledger.note(path, old, new.map(|new| new.bytes.as_slice()));
        ledger.save(&self.files)
    }

    /// Keeps the bytes of a file that is about to be replaced, once per content: only root may read them.
    fn keep(&self, path: &Path, old: &[u8]) -> Result<PathBuf, Error> {
        let short: String = sha256(old).chars().take(12).collect();
        let relative = path.strip_prefix("/").unwrap_or(path);
        let mut name = relative.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{short}"));
        let kept = Path::new(REPLACED).join(relative).with_file_name(name);
        if self.files.read(&kept)?.is_none() {
            self.files.write(&kept, old, 0o600).with_context(|| format!("keeping the old {}", path.display()))?;
        }
        Ok(kept)
    }

    async fn run(&self, command: &Command) -> Result<(), Failure> {
        let running = self.programs.run(&command.argv, command.limit);
        let output = match &command.watched_unit {
            None => running.await?,
            Some(unit) => {
                tokio::select! {
                    output = running => output?,
                    log = self.unit_cannot_start(unit) => {
                        return Err(Failure::UnitCannotStart { command: command.to_string(), unit: unit.clone(), log });
                    }
                }
            }
        };
        if output.success() { Ok(()) } else { Err(Failure::Program { command: command.to_string(), output }) }
    }

    /// Ends, with the unit's log, once the unit has ended with an error and stays so.
    async fn unit_cannot_start(&self, unit: &str) -> Vec<String> {
        let mut failures = 0;
        loop {
            tokio::time::sleep(WATCH_PERIOD).await;
            // A unit that cannot be asked about does not stop the program: it may still succeed.
            let Ok(Some(state)) = self.units.state(unit).await else { continue };
            // A unit that is just being started over needs a moment: judge what lasts.
            failures = if state.cannot_start() { failures + 1 } else { 0 };
            if failures >= 3 {
                let question = Question::UnitLog { unit: unit.to_owned(), lines: 60 };
                let log = self.programs.ask(question).await.map(|output| output.stdout).unwrap_or_default();
                return log.lines().map(str::to_owned).collect();
            }
        }
    }
}

/// `/proc/sys/...` of a dotted name; a slash in the dotted name stands for a dot in the path (sysctl.d(5)).
pub fn sysctl_path(key: &str) -> PathBuf {
    let path: String = key
        .chars()
        .map(|character| match character {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    Path::new("/proc/sys").join(path)
}
