//! The serial console is the one witness of a boot that is there from the first moment to the last.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// A line of the console.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it came, counted from the first power-on.
    pub at: Duration,
    /// What it says, without colours.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:7.1}  {}", self.at.as_secs_f64(), self.text)
    }
}

/// Someone who sees each line as it comes.
#[derive(Clone, Default)]
pub struct Listener(Option<Arc<Ear>>);

type Ear = dyn Fn(&Line) + Send + Sync;

impl Listener {
    /// Calls `hear` for each line.
    pub fn new(hear: impl Fn(&Line) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Listener({})", self.0.is_some())
    }
}

/// Follows what QEMU writes to `serial.raw`, and writes it with times to `serial.log`.
#[derive(Debug)]
pub(super) struct Serial {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serial {
    pub(super) fn follow(directory: &Path, listener: Listener) -> Result<Self> {
        let raw = directory.join("serial.raw");
        // QEMU appends to it; it may not have begun yet.
        let source = File::options().create(true).append(true).read(true).open(&raw);
        let source = source.with_context(|| format!("opening {}", raw.display()))?;
        let log = File::create(directory.join("serial.log")).context("creating serial.log")?;
        let shared = Arc::new(Shared::default());
        let reader = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || follow(source, log, &shared, &listener)
        });
        Ok(Self { shared, reader: Some(reader) })
    }

    /// The first line that contains `text`, not looking at the first `skip`; waits for more lines at most once.
    pub(super) fn find(&self, skip: usize, text: &str, wait: Duration) -> Option<Line> {
        let search = |lines: &[Line]| lines.iter().skip(skip).find(|line| line.text.contains(text)).cloned();
        let lines = self.shared.lines();
        if let Some(line) = search(&lines) {
            return Some(line);
        }
        let (lines, _) = self.shared.more.wait_timeout(lines, wait).unwrap_or_else(PoisonError::into_inner);
        search(&lines)
    }

    pub(super) fn count(&self) -> usize {
        self.shared.lines().len()
    }

    pub(super) fn tail(&self, count: usize) -> String {
        let lines = self.shared.lines();
        let last = lines.iter().skip(lines.len().saturating_sub(count));
        last.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // A listener that panicked has said so already.
            let _ = reader.join();
        }
    }
}

fn follow(mut source: File, mut log: File, shared: &Shared, listener: &Listener) {
    let start = Instant::now();
    let mut waiting = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !shared.stop.load(Ordering::Relaxed) {
        let count = source.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        waiting.extend_from_slice(&buffer[..count]);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let bytes: Vec<u8> = waiting.drain(..=end).collect();
            let line = Line { at: start.elapsed(), text: plain(&String::from_utf8_lossy(&bytes)) };
            // The lines in memory are the ones that tests look at.
            let _ = writeln!(log, "{line}");
            if let Some(hear) = &listener.0 {
                hear(&line);
            }
            shared.lines().push(line);
            shared.more.notify_all();
        }
    }
}

/// A terminal's colours and cursor movements are not part of what a line says.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            match characters.next() {
                Some('[') => drop(characters.by_ref().find(|end| end.is_ascii_alphabetic())),
                // A command to the terminal itself, up to BEL or ESC \.
                Some(']') => {
                    characters
                        .by_ref()
                        .find(|end| matches!(end, '\u{7}' | '\u{1b}'))
                        .filter(|end| *end == '\u{1b}')
                        .and_then(|_| characters.next());
                }
                _ => {}
            }
        } else if !character.is_control() || character == '\t' {
            plain.push(character);
        }
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(plain("[\u{1b}[0;32m  OK  \u{1b}[0m] Started \u{1b}[0;1;39mx\u{1b}[0m.\r\n"), "[  OK  ] Started x.");
        assert_eq!(plain("\u{1b}]104\u{7}\u{1b}[!pready"), "ready");
        assert_eq!(plain("\u{1b}]104\u{1b}\\ready"), "ready");
    }

    #[test]
    fn lines_come_with_their_times_and_reach_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let listener = Listener::new(move |line: &Line| ear.lock().unwrap().push(line.text.clone()));
        let serial = Serial::follow(folder.path(), listener).unwrap();
        std::fs::write(folder.path().join("serial.raw"), "one\ntwo\nthr").unwrap();
        // Each look waits for one more line at most, and "one" is such a line.
        let two = (0..100).find_map(|_| serial.find(0, "two", Duration::from_millis(100)));
        assert_eq!(two.map(|line| line.text).as_deref(), Some("two"));
        assert!(serial.find(0, "thr", Duration::from_millis(60)).is_none());
        assert!(serial.find(1, "one", Duration::from_millis(1)).is_none());
        assert_eq!(*heard.lock().unwrap(), ["one", "two"]);
    }
}
