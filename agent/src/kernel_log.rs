//! What ails a GPU is told in the kernel's log first, and often nowhere else, in lines that name a number and no remedy.

mod address;
mod nvrm;
pub mod standing;
mod table;
#[cfg(test)]
mod tests;
mod xid;

use serde::{Serialize, Serializer};

/// What a known line of the kernel's log means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Who reports it.
    pub kind: Kind,
    /// Which one it is.
    pub code: Code,
    /// The device's PCI address as sysfs writes it, e.g. `0000:05:00.0`; `None` where the line has no complete one.
    pub device: Option<String>,
    /// What NVIDIA calls it; `None` for a code that is in no table.
    pub name: Option<&'static str>,
    /// What has to be done.
    pub action: Action,
    /// How serious it is.
    pub severity: Severity,
    /// What it means, in one sentence.
    pub meaning: &'static str,
    /// What someone can paste.
    pub remedy: String,
}

impl Fault {
    /// A stable name for programs, e.g. `xid-79`, `nvrm-fallen-off-the-bus`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.kind.word(), self.code)
    }
}

/// For people: `Xid 79 (GPU has fallen off the bus) on 0000:05:00.0`.
impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.kind, self.name) {
            (Kind::Xid | Kind::Sxid, name) => {
                write!(formatter, "{} {}", if self.kind == Kind::Xid { "Xid" } else { "SXid" }, self.code)?;
                name.map_or(Ok(()), |name| write!(formatter, " ({name})"))?;
            }
            (_, name) => formatter.write_str(name.unwrap_or_default())?,
        }
        self.device.as_ref().map_or(Ok(()), |device| write!(formatter, " on {device}"))
    }
}

/// Who reports a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The driver, about a GPU ("Xid Errors", NVIDIA).
    Xid,
    /// The driver of NVSwitches, about a switch ("Fabric Manager User Guide", NVIDIA).
    Sxid,
    /// The driver, about itself and the GPUs that it takes.
    Nvrm,
    /// The kernel, about the driver's modules.
    Module,
}

impl Kind {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Xid => "xid",
            Self::Sxid => "sxid",
            Self::Nvrm => "nvrm",
            Self::Module => "module",
        }
    }
}

/// Which fault it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Code {
    /// NVIDIA's number.
    Number(u32),
    /// Our name, where NVIDIA has no number.
    Name(&'static str),
}

impl std::fmt::Display for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// How serious a fault is, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing has to be done.
    Info,
    /// The GPU goes on, but somebody lost work or should look.
    Warning,
    /// The GPU does not do its work until something is done.
    Critical,
}

impl Severity {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The class of what has to be done ("Analyzing Xid Errors with the Xid Catalog", NVIDIA: immediate action), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing.
    None,
    /// Nothing now; a pattern may tell something.
    Observe,
    /// The application is started again.
    RestartApplication,
    /// It follows from other lines.
    Workflow,
    /// The line itself says it.
    FollowText,
    /// The code is in no table.
    Unknown,
    /// NVIDIA or the vendor of the machine has to be asked.
    ContactSupport,
    /// Another driver, or a driver signed or built otherwise.
    ChangeDriver,
    /// Work that uses several GPUs has to end.
    Drain,
    /// The IMEX domain of several nodes has to be recovered.
    RecoverImex,
    /// Work ends as it likes, then the GPU is reset.
    DrainAndReset,
    /// The GPU is reset.
    ResetGpu,
    /// The machine is started again.
    Reboot,
    /// Seats, cables and power supply have to be looked at.
    Mechanical,
}

impl Action {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Observe => "observe",
            Self::RestartApplication => "restart-application",
            Self::Workflow => "workflow",
            Self::FollowText => "follow-text",
            Self::Unknown => "unknown",
            Self::ContactSupport => "contact-support",
            Self::ChangeDriver => "change-driver",
            Self::Drain => "drain",
            Self::RecoverImex => "recover-imex",
            Self::DrainAndReset => "drain-and-reset",
            Self::ResetGpu => "reset-gpu",
            Self::Reboot => "reboot",
            Self::Mechanical => "mechanical",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Every known line has one of these, and hardly any other line does: a whole log is read quickly.
const TELLING: [&str; 6] = ["NVRM:", "Xid (", "nvidia", "nouveau", "module", "Key was"];

/// Explains lines one after the other, however they were copied: as dmesg, the journal, syslog or `/dev/kmsg` write them.
#[derive(Default)]
pub struct Explainer {
    /// The driver breaks some messages over several lines, and only the first names the GPU.
    device: Option<String>,
}

impl Explainer {
    /// What the line means, or `None` for one that is not known.
    pub fn explain(&mut self, line: &str) -> Option<Fault> {
        let earlier = self.device.take();
        if !TELLING.iter().any(|word| line.contains(word)) {
            return None;
        }
        let text = one_line(line);
        let Some(mut fault) = explain(&text) else {
            if let Some((_, rest)) = text.split_once("NVRM:") {
                self.device = address::first_in(rest).or(earlier);
            }
            return None;
        };
        if fault.kind == Kind::Nvrm && fault.device.is_none() {
            fault.device = earlier;
            fault.remedy = table::with_device(&fault.remedy, fault.device.as_deref());
        }
        Some(fault)
    }
}

/// A message of several lines as one: it has line ends as they are, as `/dev/kmsg` escapes them, or as rsyslog does.
fn one_line(text: &str) -> String {
    let text = text.replace("\\x0a", "\n").replace("#012", "\n");
    text.trim_end().replace("\nNVRM:", " ").replace('\n', " ")
}

/// What one whole message means.
fn explain(text: &str) -> Option<Fault> {
    xid::explain(text).or_else(|| nvrm::explain(text))
}
