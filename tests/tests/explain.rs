//! `explain` is used in pipes: with logs of any size, any bytes in them, and readers that leave early.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use integration::{Ran, agent};

const LOST: &str = "[   12.345678] NVRM: Xid (PCI:0000:05:00): 79, pid=1234, name=python3, GPU has fallen off the bus.";
const SWITCH: &str = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)";

fn explain(words: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(agent());
    command.arg("explain").args(words).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Lines as arguments leave standard input unread.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    ran
}

#[test]
fn lines_are_arguments_or_standard_input() {
    for (words, input) in
        [(vec!["--json", LOST, "usb 1-1: new device", SWITCH], String::new()), (vec!["--json"], format!("{LOST}\nx\n{SWITCH}"))]
    {
        let ran = explain(&words, input.as_bytes());
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
        let objects: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let field = |name: &str| objects.iter().map(|object| object[name].to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!((field("kind"), field("code")), ("\"xid\" \"sxid\"".to_owned(), "79 12028".to_owned()));
        assert_eq!(
            (field("action"), field("severity")),
            ("\"reboot\" \"observe\"".to_owned(), "\"critical\" \"warning\"".to_owned())
        );
        assert_eq!(field("device"), "\"0000:05:00.0\" \"0000:05:00.0\"");
        assert_eq!((objects[0]["line"].as_str(), objects[1]["line"].as_str()), (Some(LOST), Some(SWITCH)));
    }
    let person = explain(&[LOST], b"");
    assert!(person.code == Some(0) && person.out.contains("means") && person.out.contains("systemctl reboot"), "{person:?}");
}

#[test]
fn nothing_known_is_said_by_the_exit_code_alone() {
    for (words, input) in [(vec!["usb 1-1: new device"], ""), (vec![], ""), (vec!["--json"], "a\nb\n")] {
        let ran = explain(&words, input.as_bytes());
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(3), "", ""), "{words:?}");
    }
}

#[test]
fn large_input_of_any_bytes_is_read_line_by_line() {
    let mut input = b"\xff\xfe\x00 no text\n".repeat(200_000);
    input.extend_from_slice(&[b'x'; 1_000_000]);
    input.extend_from_slice(format!("\n{LOST}").as_bytes());
    let ran = explain(&["--json"], &input);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 1), "{}", ran.err);
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let mut command = Command::new(agent());
    command.args(["explain", "--json"]).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    writeln!(stdin, "{LOST}").unwrap();
    let mut first = String::new();
    // Each line is answered at once, as somebody who follows a log needs it.
    reader.read_line(&mut first).unwrap();
    assert!(first.starts_with('{'), "{first}");
    drop(reader);
    // The agent goes, and then nobody reads this.
    while writeln!(stdin, "{LOST}").is_ok() {}
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}
