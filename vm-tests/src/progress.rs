//! Work that takes minutes must say what it is doing, and afterwards how long it took.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// Writes one line for the person who waits. It goes past the capturing of
/// test output, because a test that builds for minutes must not look stuck.
pub fn say(line: impl Display) {
    // A closed terminal is no reason to stop the work.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Does `work` under a heading and says how long it took.
pub fn timed<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    say(format_args!("{what} ..."));
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "" } else { " failed after" };
    say(format_args!("{what}{verdict}: {}", seconds(start.elapsed())));
    result
}

/// A duration as people read it: `0.4 s`, `41 s`, `3 min 7 s`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// Looks again and again until `look` finds something or the limit is over.
///
/// An error from `look` is kept for the message of the time-out: what is not
/// there yet often cannot be asked yet.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= limit {
            let text = format!("waited {} for {what}", seconds(limit));
            return Err(match last {
                Some(error) => error.context(text),
                None => anyhow::anyhow!(text),
            });
        }
        std::thread::sleep(Duration::from_millis(200).min(limit / 20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        assert_eq!(seconds(Duration::from_millis(440)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(41)), "41 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 7 s");
    }

    #[test]
    fn waiting_ends_with_the_last_cause() {
        let limit = Duration::from_millis(20);
        let error = wait_for::<()>("rain", limit, || anyhow::bail!("dry")).unwrap_err();
        assert!(format!("{error:#}").contains("for rain: dry"), "{error:#}");
    }
}
