//! A server that a test starts must end with the test, however the test ends.
//!
//! `Drop` is not enough for that: statics are never dropped and a killed test
//! drops nothing. So the kernel is asked to kill each server when the thread
//! that started it dies, and one thread, which lives as long as the program,
//! starts them all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::tail;

/// How long a server lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Until this program ends, at the latest.
    #[default]
    WithUs,
    /// Until somebody ends it.
    Detached,
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    life: Life,
}

const NAMESPACE: &str = "/proc/thread-self/ns/net";

type Job = Box<dyn FnOnce() + Send>;

static STARTER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Job>();
    std::thread::spawn(move || receiver.into_iter().for_each(|job| job()));
    Mutex::new(sender)
});

impl Process {
    /// Starts a server in `directory`; what it prints is appended to `log`.
    pub fn start(name: &str, program: &Path, arguments: &[String], directory: &Path, log: &Path, life: Life) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("opening {}", log.display()))?;
        let mut command = match life {
            Life::WithUs => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            Life::Detached => Command::new(program),
        };
        command.args(arguments).current_dir(directory).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(command).with_context(|| format!("starting {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), life })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The life it was started with.
    pub fn life(&self) -> Life {
        self.life
    }

    /// An error with its last words when it runs no more.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_words(20)),
        }
    }

    /// How it ended, if it did.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The end of what it printed.
    pub fn last_words(&self, lines: usize) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), lines)
    }

    /// SIGKILL, and waits for the end: only then its ports and files are free.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for the end of {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.life == Life::WithUs {
            // Nothing is left to do when this fails; the kernel kills it with this program.
            let _ = self.kill();
        }
    }
}

/// Ends a process that another run of this program left behind, if the given
/// word still stands in its command line.
pub fn kill_left_behind(id: u32, word: &str) -> Result<bool> {
    let Ok(line) = std::fs::read(format!("/proc/{id}/cmdline")) else {
        return Ok(false);
    };
    if !String::from_utf8_lossy(&line).contains(word) {
        return Ok(false);
    }
    kill(Pid::from_raw(id.try_into()?), Signal::SIGKILL).with_context(|| format!("killing process {id}"))?;
    Ok(true)
}

/// Starts a program in the network namespace of the thread that asks for it.
fn spawn(mut command: Command) -> io::Result<Child> {
    let (sender, receiver) = mpsc::channel();
    let namespace = File::open(NAMESPACE)?;
    let job: Job = Box::new(move || {
        let mut start = || {
            let home = File::open(NAMESPACE)?;
            if home.metadata()?.ino() == namespace.metadata()?.ino() {
                return command.spawn();
            }
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let child = command.spawn();
            setns(&home, CloneFlags::CLONE_NEWNET)?;
            child
        };
        // The receiver below waits for exactly this answer.
        let _ = sender.send(start());
    });
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    STARTER.lock().unwrap_or_else(PoisonError::into_inner).send(job).map_err(|_| gone(()))?;
    receiver.recv().map_err(|_| gone(()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_outlives_the_thread_that_asked_for_it_and_ends_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, log) = (folder.path().to_owned(), folder.path().join("log"));
        let asked = std::thread::spawn(move || {
            Process::start("sleep", Path::new("sleep"), &["60".into()], &directory, &log, Life::WithUs).unwrap()
        });
        let mut process = asked.join().unwrap();
        process.expect_running().unwrap();
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
