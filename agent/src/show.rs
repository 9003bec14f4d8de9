//! What a tired person reads: one line for one thing, colour only where it helps and only on a terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use crate::state::{StepRecord, Verdict};
use crate::step::Finding;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colour.
    pub colour: bool,
    /// Lines that are drawn over again while something takes long.
    pub live: bool,
}

impl Style {
    /// Colour and live lines on a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
    pub fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colour: terminal && !dumb && !set("NO_COLOR"), live: terminal && !dumb }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Bold.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Faint.
    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// The sign before a step's line.
    pub fn sign(self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Ready => self.paint("32", "✓"),
            Verdict::Pending => self.paint("33", "•"),
            Verdict::Waiting => self.paint("33", "…"),
            Verdict::Broken => self.paint("31", "✗"),
            Verdict::Unknown => self.paint("33", "?"),
            Verdict::Left => self.paint("2", "→"),
        }
    }

    /// A finding in full: what, why, what to type.
    pub fn finding(self, finding: &Finding) -> String {
        let mut text = format!("  {} {}\n", self.paint("31", "✗"), self.strong(&finding.what));
        let mut part = |label: &str, words: &str| {
            for (number, line) in words.lines().enumerate() {
                let label = if number == 0 { label } else { "" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "      {:<8}{line}", label);
            }
        };
        part("why", &finding.why);
        part("remedy", &finding.remedy);
        text
    }
}

/// A duration as a person would say it: `12 ms`, `3.4 s`, `5 min 12 s`.
pub fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", millis / 60_000, millis / 1000 % 60),
    }
}

/// One step's line: sign, name, evidence, time.
pub fn step_line(style: Style, step: &StepRecord) -> String {
    let took = duration(Duration::from_millis(step.took));
    let text = step.text.lines().next().unwrap_or_default();
    format!(
        "{} {}  {text}  {}\n",
        style.sign(step.verdict),
        style.strong(&format!("{:<11}", step.name)),
        style.faint(&format!("({took})"))
    )
}

/// A point in time as the Kubernetes API writes it: RFC 3339, UTC, whole seconds. Times before 1970 become 1970.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()).unwrap_or_default().to_string()
}

/// Prints to standard output; a reader that went away is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints one JSON value and the end of the line.
pub fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => complain(&format!("cannot print JSON: {error}")),
    }
}

/// Says what went wrong, on standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "gpuk-agent: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_api_does() {
        assert_eq!(utc(SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_717_400_900)), "2025-11-21T09:30:00Z");
    }

    #[test]
    fn durations_are_short() {
        let say = |millis| duration(Duration::from_millis(millis));
        assert_eq!((say(12), say(3400), say(312_000)), ("12 ms".to_owned(), "3.4 s".to_owned(), "5 min 12 s".to_owned()));
    }
}
