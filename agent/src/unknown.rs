//! What a node is to be cannot be guessed: while something that decides it is unknown, the agent looks and changes nothing.

use std::fmt;

use crate::cli::Exit;
use crate::cloud::Trouble;
use crate::session::MAIN_FILE;
use crate::state::{StepRecord, Verdict};
use crate::step::Finding;

/// What is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// What the platform says: who the machine is, and the configuration in its user-data.
    Metadata,
    /// What the owner wrote on the instance, perhaps its role.
    Tags,
    /// What the files on the disk tell of its role.
    Marks,
    /// Which GPUs it has.
    Gpus,
}

/// Something that decides what the node is to be, and why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    about: About,
    trouble: Trouble,
}

impl Unknown {
    /// What is not known, and why.
    pub fn new(about: About, trouble: Trouble) -> Self {
        Self { about, trouble }
    }

    /// Whether waiting may cure it.
    pub fn may_pass(&self) -> bool {
        self.trouble.may_pass()
    }

    /// The name of what was looked at, as among the sources of the facts.
    pub fn name(&self) -> &'static str {
        match self.about {
            About::Metadata | About::Tags => "metadata",
            About::Marks => "files",
            About::Gpus => "pci",
        }
    }

    /// How it stands: someone waits for it, or a person is needed.
    pub fn verdict(&self) -> Verdict {
        if self.may_pass() { Verdict::Waiting } else { Verdict::Broken }
    }

    /// How every verb ends that would have changed something.
    pub fn exit(&self) -> Exit {
        if self.may_pass() { Exit::Waiting } else { Exit::Broken }
    }

    /// What is wrong, for every verb alike.
    pub fn finding(&self) -> Finding {
        let ask = |url: &str| format!("curl -sS --max-time 5 {url}   (must answer; then: gpuk-agent up)");
        let cloud = format!("under [cloud] in {MAIN_FILE}: limit = \"60s\" waits longer for it, name = \"none\" asks nobody");
        let role =
            format!("or say what this node is: gpuk-agent --set node.role=worker up   (for the service: [node] in {MAIN_FILE})");
        let (code, what, remedy) = match (self.about, &self.trouble) {
            (About::Tags, Trouble::Unreachable { url, .. }) => (
                "metadata-silent",
                "The tags of this machine are not told, and one may say its role",
                format!("{}\n{cloud}\n{role}", ask(url)),
            ),
            (_, Trouble::Unreachable { url, .. }) => (
                "metadata-silent",
                "The metadata service does not answer, and what it says may decide what this node is",
                format!("{}\n{cloud}", ask(url)),
            ),
            (About::Metadata, Trouble::Unreadable(_)) => (
                "metadata-unreadable",
                "What the platform says of this machine cannot be read, and it may decide what this node is",
                format!(
                    "gpuk-agent facts   (asks again)\n\
                     under [cloud] in {MAIN_FILE}: name and endpoint name the right service, name = \"none\" asks nobody"
                ),
            ),
            (About::Tags, Trouble::Unreadable(_)) => (
                "metadata-unreadable",
                "The tags of this machine cannot be read, and one may say its role",
                format!("gpuk-agent facts   (asks again)\n{role}"),
            ),
            (About::Marks, Trouble::Unreadable(_)) => (
                "machine-unreadable",
                "What was installed on this machine cannot be read, and it may say its role",
                format!("mend what is named above, then: gpuk-agent up\n{role}"),
            ),
            (About::Gpus, Trouble::Unreadable(_)) => (
                "machine-unreadable",
                "A device that may be a GPU cannot be read",
                "cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/class >/dev/null   \
                 (as root, must say nothing; then: gpuk-agent up)"
                    .to_owned(),
            ),
        };
        Finding::new(code, what, self.trouble.to_string(), remedy)
    }

    /// It as the one thing that a round came to. `took` is in milliseconds.
    pub fn record(&self, took: u64) -> StepRecord {
        StepRecord { took, ..StepRecord::of(self.name(), self.verdict(), self.finding()) }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trouble.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_names_its_cause_and_something_to_type() {
        let silent = || Trouble::Unreachable { url: "http://[fd00:ec2::254]/latest".to_owned(), why: "no answer".to_owned() };
        let unreadable = || Trouble::Unreadable("no answer".to_owned());
        for (about, trouble, code, typed) in [
            (About::Metadata, silent(), "metadata-silent", "curl -sS --max-time 5 http://[fd00:ec2::254]/latest "),
            (About::Tags, silent(), "metadata-silent", "gpuk-agent --set node.role=worker up"),
            (About::Metadata, unreadable(), "metadata-unreadable", "name = \"none\""),
            (About::Tags, unreadable(), "metadata-unreadable", "gpuk-agent --set node.role=worker up"),
            (About::Marks, unreadable(), "machine-unreadable", "gpuk-agent --set node.role=worker up"),
            (About::Gpus, unreadable(), "machine-unreadable", "cat /sys/bus/pci/devices"),
        ] {
            let unknown = Unknown::new(about, trouble);
            let finding = unknown.finding();
            assert_eq!((finding.code.as_str(), finding.why.as_str()), (code, "no answer"), "{about:?}");
            assert!(finding.remedy.contains(typed), "{about:?}: {}", finding.remedy);
            let waits = code == "metadata-silent";
            assert_eq!((unknown.exit() == Exit::Waiting, unknown.verdict() == Verdict::Waiting), (waits, waits));
        }
    }
}
