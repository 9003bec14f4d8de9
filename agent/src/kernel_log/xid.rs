//! An Xid has a number that keeps its meaning over all versions of the driver; the words behind it change.

use super::address;
use super::table::{self, Row};
use super::{Action, Code, Fault, Kind, Severity};

/// Xids whose words say whether they are fatal ("XID 144-150 Decode" in NVIDIA's catalogue).
const NVLINK_5: std::ops::RangeInclusive<u32> = 144..=150;

/// `GPU_RECOVERY_ACTION_CHANGED`.
const RECOVERY_ACTION_CHANGED: u32 = 154;

/// What an Xid or SXid in a message means; `None` where there is none.
pub(super) fn explain(text: &str) -> Option<Fault> {
    if let Some((_, rest)) = text.split_once("SXid (") {
        return Report::parse(&format!("({rest}")).map(|report| of_switch(&report));
    }
    let rest = text.split_once("NVRM: Xid").map(|(_, rest)| rest.to_owned());
    // People copy the part that seems to matter.
    let rest = rest.or_else(|| text.split_once("Xid (PCI:").map(|(_, rest)| format!("(PCI:{rest}")))?;
    Report::parse(&rest).map(|report| of_gpu(&report))
}

/// `(PCI:0000:05:00 GPU-I:01): 79, words`; the address may be missing, and so may `PCI:` and the comma.
struct Report<'a> {
    device: Option<String>,
    number: u32,
    words: &'a str,
}

impl<'a> Report<'a> {
    fn parse(rest: &'a str) -> Option<Self> {
        let rest = rest.trim_start();
        let (place, rest) = match rest.strip_prefix('(') {
            Some(inner) => inner.split_once(')')?,
            None => ("", rest),
        };
        // With MIG the instance follows the address.
        let device = place.split_whitespace().next().and_then(address::in_sysfs);
        let rest = rest.trim_start_matches([':', ' ']);
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, words) = rest.split_at(end);
        Some(Self { device, number: number.parse().ok()?, words: words.trim_start_matches([',', ' ']) })
    }

    /// NVLink's reports have the word `Fatal` of its own among `Nonfatal`, `Non-fatal`.
    fn is_fatal(&self) -> bool {
        self.words.split([' ', ',']).any(|word| word == "Fatal")
    }
}

fn of_gpu(report: &Report<'_>) -> Fault {
    let row = table::row(report.number);
    let (action, severity) = match row {
        _ if NVLINK_5.contains(&report.number) && report.is_fatal() => (Action::ResetGpu, Severity::Critical),
        _ if report.number == RECOVERY_ACTION_CHANGED => recovery(report.words),
        Some(row) => (row.action, row.severity),
        None => (Action::Unknown, Severity::Warning),
    };
    let remedy = match row {
        Some(Row { action: listed, .. }) if *listed != action => table::remedy(action),
        Some(row) => row.remedy(),
        None => table::remedy(Action::Unknown),
    };
    Fault {
        kind: Kind::Xid,
        code: Code::Number(report.number),
        name: row.map(|row| row.name),
        action,
        severity,
        meaning: row.map_or(table::UNKNOWN, |row| row.meaning),
        remedy: table::with_device(remedy, report.device.as_deref()),
        device: report.device.clone(),
    }
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`: the words count, and where they are new the number
/// (`nvmlDeviceGpuRecoveryAction_t`, "NVML API Reference").
fn recovery(words: &str) -> (Action, Severity) {
    let to = words.rsplit_once(" to ").map_or("", |(_, to)| to);
    let is_told = |word: &str| to.to_ascii_lowercase().contains(word);
    let number = to.split_whitespace().next();
    if is_told("reboot") || number == Some("0x2") {
        (Action::Reboot, Severity::Critical)
    } else if is_told("drain and reset") || number == Some("0x4") {
        (Action::DrainAndReset, Severity::Critical)
    } else if is_told("drain") || number == Some("0x3") {
        (Action::Drain, Severity::Critical)
    } else if is_told("imex") {
        (Action::RecoverImex, Severity::Critical)
    } else if is_told("reset") || number == Some("0x1") {
        (Action::ResetGpu, Severity::Critical)
    } else if number == Some("0x5") {
        (Action::RecoverImex, Severity::Critical)
    } else if is_told("none") || number == Some("0x0") {
        (Action::None, Severity::Info)
    } else {
        (Action::FollowText, Severity::Warning)
    }
}

fn of_switch(report: &Report<'_>) -> Fault {
    let (action, severity, meaning) = if report.is_fatal() {
        (Action::ResetGpu, Severity::Critical, table::FATAL_OF_SWITCH)
    } else {
        (Action::Observe, Severity::Warning, table::NOT_FATAL_OF_SWITCH)
    };
    let remedy = if report.is_fatal() { table::RESET_FABRIC } else { table::CHECK_FABRIC };
    Fault {
        kind: Kind::Sxid,
        code: Code::Number(report.number),
        name: None,
        action,
        severity,
        meaning,
        remedy: table::with_device(remedy, report.device.as_deref()),
        device: report.device.clone(),
    }
}
