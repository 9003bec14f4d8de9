//! A process in state D does not die when it is killed, so nothing waits for one without a limit.

use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::{Either, select};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::timeout;

use super::HelperTrouble;

/// Bytes of an answer; one of 16 GPUs has about 30 KB.
const ANSWER_CAP: u64 = 1 << 20;

/// Bytes of standard error that are kept, the newest ones.
const SAID_CAP: usize = 2048;

/// How long a child's last words may take after its end: a program that the library started may hold its standard error open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(2);

/// What the child printed until it ended well. After an error it may still run.
pub(super) async fn printed(child: &mut Child, limit: Duration) -> Result<Vec<u8>, HelperTrouble> {
    timeout(limit, ended(child)).await.unwrap_or(Err(HelperTrouble::Hung(limit)))
}

async fn ended(child: &mut Child) -> Result<Vec<u8>, HelperTrouble> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut said = Vec::new();
    let (printed, status) = {
        let talking = pin!(keep_end(stderr, &mut said));
        let working = pin!(async {
            let printed = all(stdout).await?;
            let status = child.wait().await.map_err(|error| HelperTrouble::CannotStart(format!("waiting for it: {error}")))?;
            Ok::<_, HelperTrouble>((printed, status))
        });
        match select(working, talking).await {
            Either::Left((worked, talking)) => {
                let worked = worked?;
                // Without them the answer is the same.
                let _ = timeout(LAST_WORDS, talking).await;
                worked
            }
            Either::Right(((), working)) => working.await?,
        }
    };
    judge(status, &said).map(|()| printed)
}

fn judge(status: ExitStatus, said: &[u8]) -> Result<(), HelperTrouble> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(HelperTrouble::Exited(code, String::from_utf8_lossy(said).trim().to_owned())),
        (None, signal) => {
            let number = signal.unwrap_or_default();
            let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
            Err(HelperTrouble::Crashed(name))
        }
    }
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, HelperTrouble> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let read = stream.take(ANSWER_CAP + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| HelperTrouble::Nonsense(format!("reading it: {error}")))?;
    }
    if bytes.len() as u64 > ANSWER_CAP {
        return Err(HelperTrouble::Nonsense(format!("more than {} MiB", ANSWER_CAP >> 20)));
    }
    Ok(bytes)
}

async fn keep_end(stream: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let mut buffer = [0_u8; 8192];
    if let Some(mut stream) = stream {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            said.extend_from_slice(&buffer[..count]);
            said.drain(..said.len().saturating_sub(SAID_CAP));
        }
    }
}

/// Kills the child and what it started; its process id when it is not gone soon after.
pub(super) async fn end(child: &mut Child) -> Option<u32> {
    let process = child.id()?;
    // It leads a process group of its own, and may have ended by itself in between.
    let _ = killpg(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
    match timeout(DEATH, child.wait()).await {
        Ok(_) => None,
        Err(_) => Some(process),
    }
}
