//! A program that is run to its end has a time limit, and when it fails its last words matter.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its error output.
    pub stderr: String,
}

/// Runs a program and answers its standard output; anything but exit status 0 is an error.
pub fn run(command: &mut Command, limit: Duration) -> Result<String> {
    run_with_input(command, b"", limit)
}

/// Like [`run`], with something to read on standard input.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<String> {
    let finished = finish(command, input, limit)?;
    if !finished.status.success() {
        let words = if finished.stderr.trim().is_empty() { &finished.stdout } else { &finished.stderr };
        bail!("{}: {}\n{}", shown(command), finished.status, tail(words, 30));
    }
    Ok(finished.stdout)
}

/// Runs a program to its end, whatever its exit status.
pub fn finish(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let what = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program may end without reading all: its exit status says whether that was right.
                let _ = stdin.write_all(input);
            }
        });
        let stdout = scope.spawn(move || read_all(stdout));
        let stderr = scope.spawn(move || read_all(stderr));
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let text = |reader: thread::ScopedJoinHandle<'_, Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        match status {
            Some(status) => Ok(Finished { status, stdout, stderr }),
            None => bail!("{what}: not finished after {}\n{}", crate::progress::seconds(limit), tail(&stderr, 30)),
        }
    })
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read until the error is all there is to show.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// A command line for people to read, cut where it grows too long.
pub fn shown(command: &Command) -> String {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_words() {
        let error = run(Command::new("ls").arg("/no/such/path"), Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("not finished"), "{error}");
    }

    #[test]
    fn input_comes_out_again() {
        let output = run_with_input(&mut Command::new("cat"), b"words", Duration::from_secs(10)).unwrap();
        assert_eq!(output, "words");
    }
}
