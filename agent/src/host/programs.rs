//! Programs are asked or run as an argument vector with a time limit, never through a shell.

mod said;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use super::files::Files;
pub use said::{End, Said};

/// The whole list of programs that a look may start, with the only arguments it may give them. All of them only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The newest lines that a unit logged in this boot, oldest first.
    UnitLog {
        /// The unit, e.g. `kubelet.service`.
        unit: String,
        /// How many lines at most.
        lines: u16,
    },
    /// A table of nftables' family `inet`, as JSON (libnftables-json(5)).
    NftTable {
        /// The table's name.
        name: String,
    },
    /// The names of all of nftables' tables, as JSON.
    NftTables,
    /// kubeadm's own version, e.g. `v1.34.4`.
    KubeadmVersion,
}

impl Question {
    /// The program and its arguments.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::UnitLog { unit, lines } => [
                "journalctl",
                "--boot",
                "--unit",
                unit,
                "--lines",
                &lines.to_string(),
                "--output",
                "cat",
                "--no-pager",
                "--quiet",
            ]
            .map(str::to_owned)
            .to_vec(),
            Self::KubeadmVersion => ["kubeadm", "version", "--output", "short"].map(str::to_owned).to_vec(),
            Self::NftTables => ["nft", "--json", "list", "tables"].map(str::to_owned).to_vec(),
            Self::NftTable { name } => ["nft", "--json", "list", "table", "inet", name].map(str::to_owned).to_vec(),
        }
    }
}

/// What a program left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, at most [`OUTPUT_CAP`] bytes of its end.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Exit status 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The last few lines of what it said on standard error, or else on standard output.
    pub fn tail(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Bytes of each stream that are kept, the newest ones.
pub const OUTPUT_CAP: usize = 256 * 1024;

/// Starting programs.
#[async_trait(?Send)]
pub trait Programs {
    /// Asks one of the questions on the read-only list; 10 seconds at most.
    async fn ask(&self, question: Question) -> Result<Output>;

    /// Runs a program to its end, or kills it (and its process group) at the limit. Dropping the future kills it too.
    async fn run(&self, argv: &[String], limit: Duration) -> Result<Output>;

    /// The same for a program that is no part of the system: of the agent's environment, in which there may be secrets, it gets nothing.
    async fn run_apart(&self, argv: &[String], limit: Duration) -> End;
}

/// The environment of a program that is run apart: that of a system unit (systemd.exec(5), "Environment Variables in Spawned Processes").
const APART: [(&str, &str); 3] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("LC_ALL", "C.UTF-8")];

/// Programs of the machine, or of the image at the root (then in a chroot).
pub struct RealPrograms {
    chroot: Option<PathBuf>,
}

impl RealPrograms {
    /// Programs below the same root as `files`.
    pub fn new(files: &Files) -> Self {
        Self { chroot: (!files.is_running_system()).then(|| files.root().to_owned()) }
    }
}

#[async_trait(?Send)]
impl Programs for RealPrograms {
    async fn ask(&self, question: Question) -> Result<Output> {
        self.run(&question.argv(), Duration::from_secs(10)).await
    }

    async fn run(&self, argv: &[String], limit: Duration) -> Result<Output> {
        let mut command = self.command(argv)?;
        command.env("LC_ALL", "C.UTF-8").env_remove("NOTIFY_SOCKET");
        match finish(command, limit).await {
            Ok(Some(output)) => Ok(output),
            Ok(None) => bail!("{} was killed: it had not ended after {} s", argv.join(" "), limit.as_secs()),
            Err(error) => Err(error).with_context(|| format!("starting {}", argv.join(" "))),
        }
    }

    async fn run_apart(&self, argv: &[String], limit: Duration) -> End {
        let mut command = match self.command(argv) {
            Ok(command) => command,
            Err(error) => return End::NotStarted(format!("{error:#}")),
        };
        command.env_clear().envs(APART);
        match finish(command, limit).await {
            Ok(Some(output)) => output.into(),
            Ok(None) => End::TooSlow,
            Err(error) => End::NotStarted(error.to_string()),
        }
    }
}

impl RealPrograms {
    fn command(&self, argv: &[String]) -> Result<tokio::process::Command> {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(root) = &self.chroot {
            words.extend(["chroot".into(), root.into()]);
        }
        words.extend(argv.iter().map(Into::into));
        let Some((program, arguments)) = words.split_first() else { bail!("an empty command cannot be run") };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments);
        Ok(command)
    }
}

/// Runs it to its end; `None` when it (and its process group) was killed at the limit.
async fn finish(mut command: tokio::process::Command, limit: Duration) -> std::io::Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let group = ProcessGroup(child.id());
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err, status) = tokio::join!(tail_of(&mut stdout), tail_of(&mut stderr), child.wait());
        status.map(|status| Output { code: status.code(), stdout: out, stderr: err })
    };
    match tokio::time::timeout(limit, work).await {
        Ok(ended) => {
            std::mem::forget(group);
            ended.map(Some)
        }
        Err(_) => Ok(None),
    }
}

/// A child's process group, killed when it goes out of scope.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself in between: nothing to kill then.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

async fn tail_of(stream: &mut Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut kept: VecDeque<u8> = VecDeque::new();
    let mut buffer = [0_u8; 8192];
    if let Some(stream) = stream {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            kept.extend(&buffer[..count]);
            let excess = kept.len().saturating_sub(OUTPUT_CAP);
            kept.drain(..excess);
        }
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

/// A fake: answers by the beginning of the command line, and remembers what was run.
#[derive(Default)]
pub struct ScriptedPrograms {
    answers: Vec<(String, Output)>,
    /// Every command line that was asked or run, in order.
    pub seen: RefCell<Vec<String>>,
}

impl ScriptedPrograms {
    /// Answers `output` to every command line that begins with `prefix`.
    #[must_use]
    pub fn answering(mut self, prefix: &str, output: Output) -> Self {
        self.answers.push((prefix.to_owned(), output));
        self
    }
}

#[async_trait(?Send)]
impl Programs for ScriptedPrograms {
    async fn ask(&self, question: Question) -> Result<Output> {
        self.run(&question.argv(), Duration::ZERO).await
    }

    async fn run(&self, argv: &[String], _limit: Duration) -> Result<Output> {
        let line = argv.join(" ");
        let answer = self.answers.iter().find(|(prefix, _)| line.starts_with(prefix.as_str())).map(|(_, output)| output.clone());
        self.seen.borrow_mut().push(line.clone());
        answer.with_context(|| format!("the fake has no answer to {line}"))
    }

    async fn run_apart(&self, argv: &[String], limit: Duration) -> End {
        self.run(argv, limit).await.map_or_else(|error| End::NotStarted(error.to_string()), End::from)
    }
}
