//! QEMU's guest agent runs programs in a machine and answers in lines of JSON; it serves one client at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::progress::seconds;

/// What a script in a machine answered.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status; 128 and more for a signal.
    pub code: i64,
    /// Its standard output.
    pub stdout: String,
    /// Its error output.
    pub stderr: String,
}

#[derive(Debug)]
pub(super) struct GuestAgent {
    socket: PathBuf,
    channel: Option<Channel>,
}

#[derive(Debug)]
struct Channel {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl GuestAgent {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket, channel: None }
    }

    pub(super) fn disconnect(&mut self) {
        self.channel = None;
    }

    /// Makes sure that the agent answers us and not somebody before us.
    pub(super) fn connect(&mut self, limit: Duration) -> Result<()> {
        if self.channel.as_mut().is_some_and(|channel| channel.synchronize(limit).is_ok()) {
            return Ok(());
        }
        self.channel = None;
        let stream = UnixStream::connect(&self.socket).with_context(|| format!("connecting to {}", self.socket.display()))?;
        let mut channel = Channel { stream, unread: Vec::new() };
        channel.synchronize(limit)?;
        self.channel = Some(channel);
        Ok(())
    }

    pub(super) fn run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        self.run_with_input(script, b"", limit)
    }

    pub(super) fn run_with_input(&mut self, script: &str, input: &[u8], limit: Duration) -> Result<Output> {
        let channel = self.channel.as_mut().context("not connected to the guest agent")?;
        let result = channel.execute(script, input, limit);
        if result.is_err() {
            // An answer that comes late must not be taken for the next one.
            self.channel = None;
        }
        result
    }
}

impl Channel {
    fn synchronize(&mut self, limit: Duration) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let id = now.as_micros() as u64 & 0x7fff_ffff;
        self.unread.clear();
        // A byte that is not JSON makes the agent forget what it had half read.
        self.stream.write_all(&[0xff])?;
        self.send("guest-sync-delimited", &json!({"id": id}))?;
        let deadline = Instant::now() + limit;
        while self.receive(deadline)?["return"] != id {}
        Ok(())
    }

    fn execute(&mut self, script: &str, input: &[u8], limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let mut arguments = json!({"path": "/bin/bash", "arg": ["-c", script], "capture-output": true});
        if !input.is_empty() {
            arguments["input-data"] = BASE64.encode(input).into();
        }
        let started = self.ask("guest-exec", &arguments)?;
        let question = json!({"pid": started["pid"]});
        let mut pause = Duration::from_millis(30);
        loop {
            let state = self.ask("guest-exec-status", &question)?;
            if state["exited"] == true {
                let text = |key: &str| -> Result<String> {
                    let bytes = BASE64.decode(state[key].as_str().unwrap_or_default())?;
                    Ok(String::from_utf8_lossy(&bytes).into_owned())
                };
                let signal = state["signal"].as_i64().map(|signal| 128 + signal);
                let code = state["exitcode"].as_i64().or(signal).unwrap_or(-1);
                return Ok(Output { code, stdout: text("out-data")?, stderr: text("err-data")? });
            }
            if Instant::now() >= deadline {
                bail!("not finished after {}", seconds(limit));
            }
            std::thread::sleep(pause);
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
        }
    }

    fn ask(&mut self, question: &str, arguments: &Value) -> Result<Value> {
        self.send(question, arguments)?;
        let mut answer = self.receive(Instant::now() + Duration::from_secs(30))?;
        match answer.get("error") {
            Some(error) => Err(anyhow!("{question}: {error}")),
            None => Ok(answer["return"].take()),
        }
    }

    fn send(&mut self, question: &str, arguments: &Value) -> Result<()> {
        let line = format!("{}\n", json!({"execute": question, "arguments": arguments}));
        self.stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        self.stream.write_all(line.as_bytes()).context("writing to the guest agent")
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let text: Vec<u8> = line.into_iter().filter(|byte| *byte != 0xff).collect();
                return serde_json::from_slice(&text).context("reading an answer of the guest agent");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no answer from the guest agent");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 1 << 14];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the guest agent's channel was closed"),
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("reading from the guest agent"),
            }
        }
    }
}
