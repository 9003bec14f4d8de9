//! A line of the kernel's log is understood when it says what it means, how serious it is and what to type.

use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};

use serde::Serialize;

use crate::cli::Exit;
use crate::kernel_log::{Explainer, Fault, Severity};
use crate::show::{Style, complain};
use crate::state::Verdict;

/// What follows in a longer line is left out. The kernel's are 2 KiB at most.
const LONGEST: u64 = 64 * 1024;

/// A line, explained.
#[derive(Serialize)]
struct Explained<'a> {
    line: &'a str,
    #[serde(flatten)]
    fault: &'a Fault,
}

/// Explains the lines, or without any those on standard input. Lines that are not known are passed over.
pub fn explain(lines: &[OsString], json: bool) -> Exit {
    // Not `show::print`: a reader that went away ends this.
    let out = io::stdout().lock();
    let style = Style::of_stdout();
    let explained = if lines.is_empty() {
        if io::stdin().is_terminal() {
            complain("explaining lines from standard input; end with Ctrl-D");
        }
        all(io::stdin().lock(), out, style, json)
    } else {
        let text: Vec<String> = lines.iter().map(|line| line.to_string_lossy().into_owned()).collect();
        all(text.join("\n").as_bytes(), out, style, json)
    };
    match explained {
        Ok(0) => Exit::Unseen,
        Ok(_) => Exit::Fine,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            complain(&format!("explaining lines: {error}"));
            Exit::Broken
        }
    }
}

/// Explains all lines; returns how many were known.
fn all(mut input: impl BufRead, mut out: impl Write, style: Style, json: bool) -> io::Result<usize> {
    let mut explainer = Explainer::default();
    let mut known = 0;
    while let Some(bytes) = next_line(&mut input)? {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        let Some(fault) = explainer.explain(line) else { continue };
        known += 1;
        if json {
            serde_json::to_writer(&mut out, &Explained { line, fault: &fault })?;
            writeln!(out)?;
        } else {
            out.write_all(human(line, &fault, style).as_bytes())?;
        }
        // Somebody may follow a log with this.
        out.flush()?;
    }
    Ok(known)
}

/// The next line, without what is beyond the longest; `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.take(LONGEST).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

fn human(line: &str, fault: &Fault, style: Style) -> String {
    let sign = match fault.severity {
        Severity::Critical => Verdict::Broken,
        Severity::Warning => Verdict::Pending,
        Severity::Info => Verdict::Ready,
    };
    format!(
        "{} {}: {}, {}\n    line    {}\n    means   {}\n    remedy  {}\n",
        style.sign(sign),
        style.strong(&fault.to_string()),
        fault.severity.word(),
        fault.action.word(),
        style.faint(line),
        fault.meaning,
        fault.remedy
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: &str = "[ 1.5] NVRM: Xid (PCI:0000:05:00): 79, pid=1, name=a, GPU has fallen off the bus.";

    fn explained(input: &[u8], json: bool) -> (usize, String) {
        let mut out = Vec::new();
        let known = all(input, &mut out, Style::default(), json).unwrap();
        (known, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_known_line_is_one_object() {
        let input = format!("usb 1-1: new device\n{LOST}\r\n\nnvidia-nvswitch0: SXid (PCI:x): 12028, Non-fatal, Link 32");
        let (known, out) = explained(input.as_bytes(), true);
        let objects: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((known, objects.len()), (2, 2));
        let expected = serde_json::json!({
            "line": LOST, "kind": "xid", "code": 79, "device": "0000:05:00.0", "name": "GPU has fallen off the bus", "action": "reboot",
            "severity": "critical", "meaning": objects[0]["meaning"], "remedy": objects[0]["remedy"],
        });
        assert_eq!(objects[0], expected);
        assert_eq!((&objects[1]["kind"], &objects[1]["device"]), (&"sxid".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_person_reads_what_it_means_and_what_to_type() {
        let (_, out) = explained(LOST.as_bytes(), false);
        assert!(out.starts_with("✗ Xid 79 (GPU has fallen off the bus) on 0000:05:00.0: critical, reboot\n"), "{out}");
        assert!(
            out.contains(&format!("    line    {LOST}\n    means   The GPU")) && out.contains("    remedy  kubectl"),
            "{out}"
        );
        assert_eq!(explained(b"nothing\nof ours", false), (0, String::new()));
    }

    #[test]
    fn input_of_any_size_and_any_bytes_is_read() {
        let mut input = vec![b'x'; 3 * LONGEST as usize];
        input.extend_from_slice(
            b"NVRM: Xid (PCI:0000:05:00): 79 beyond the longest line\n\xff\xfe NVRM: Xid (PCI:0000:05:00): 31, \xff\n",
        );
        let (known, out) = explained(&input, true);
        assert!(known == 1 && out.contains("\"code\":31"), "{out}");
    }

    #[test]
    fn a_reader_that_went_away_ends_it() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [true, false] {
            let error = all(LOST.as_bytes(), Gone, Style::default(), json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        }
    }
}
