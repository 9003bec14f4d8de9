//! iptables has two back ends, which do not see each other's rules; programs take the one that they find in `$PATH`.

use std::env;
use std::fmt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vm_tests::Network;
use vm_tests::command::run_with_input;
use vm_tests::packages::find;

/// Where rules of iptables(8) land in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// nftables.
    Nft,
    /// The older tables.
    Legacy,
}

impl fmt::Display for BackEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        })
    }
}

/// The programs of one back end under their plain names.
#[derive(Clone)]
pub struct Iptables {
    folder: Arc<tempfile::TempDir>,
}

const LIMIT: Duration = Duration::from_secs(20);

impl Iptables {
    /// An error says what is missing: a row of the matrix is never left out in silence.
    pub fn with(back_end: BackEnd) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let suffix = if back_end == BackEnd::Nft { "nft" } else { "legacy" };
        for family in ["iptables", "ip6tables"] {
            for end in ["", "-save", "-restore"] {
                let program = format!("{family}-{suffix}{end}");
                let place = find(&program).with_context(|| format!("{program} is not installed"))?;
                symlink(place, folder.path().join(format!("{family}{end}")))?;
            }
        }
        let iptables = Self { folder: Arc::new(folder) };
        let empty = Network::apart(&[], &[])?;
        for family in ["iptables", "ip6tables"] {
            let tried = iptables.run(&empty, &[family, "-t", "nat", "-S"]);
            tried.with_context(|| format!("this kernel cannot do {back_end}: what needs it cannot be tested here"))?;
        }
        Ok(iptables)
    }

    /// `$PATH` with these programs first.
    pub fn path(&self) -> String {
        let others = env::var("PATH").unwrap_or_default();
        format!("{}:{others}:/usr/sbin:/sbin", self.folder.path().display())
    }

    /// Runs one of them in a network and answers its standard output.
    pub fn run(&self, network: &Network, words: &[&str]) -> Result<String> {
        self.run_with(network, words, "")
    }

    /// Likewise, with something to read.
    pub fn run_with(&self, network: &Network, words: &[&str], input: &str) -> Result<String> {
        ensure!(!words.is_empty(), "an empty command cannot be run");
        let mut command = Command::new(self.folder.path().join(words[0]));
        command.args(&words[1..]).env("PATH", self.path());
        network.inside(|| run_with_input(&mut command, input.as_bytes(), LIMIT))
    }
}
