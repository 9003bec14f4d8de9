//! The words of the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::Period;

/// Turns a fresh machine with GPUs into a healthy Kubernetes node, and says exactly what is wrong when it can't.
#[derive(Debug, Parser)]
#[command(name = "gpuk-agent", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,

    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every verb.
#[derive(Args, Debug)]
pub struct Common {
    /// Work on the image, chroot or fixture tree at DIR instead of /
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// Set one value of the configuration, e.g. --set node.name=gpu-1 (again for more)
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub settings: Vec<(String, String)>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what would be changed, with diffs; changes nothing
    Plan,
    /// Make it so, each step verified by looking again
    Up,
    /// `up`, then stay: watch for drift and report (the systemd service)
    Run,
    /// Take away what steps made, or everything, and nothing else
    ///
    /// Files that the agent wrote are as they were before it; those that somebody changed since stay and are named. Packages stay.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Reset {
        /// The steps, e.g. redirects
        #[arg(group = "what", value_name = "STEP")]
        steps: Vec<String>,
        /// Everything: drain, leave the cluster, and put every file back
        #[arg(long, group = "what")]
        all: bool,
        /// Leave the cluster and join the one that is configured now
        #[arg(long, group = "what")]
        rejoin: bool,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Say what is wrong, why, and what to type; changes nothing
    Doctor {
        /// GPUs alone, proven by a container that comes and goes
        #[arg(long)]
        gpu: bool,
        /// And by computing a little on each
        #[arg(long, requires = "gpu")]
        deep: bool,
    },
    /// Everything known about this machine, and where from
    Facts,
    /// How the last round ended
    Status,
    /// What happened when, and how long it took
    Timeline,
    /// What lines of the kernel's log mean: Xid, SXid, NVRM and refused modules
    ///
    /// Says of each known line what it means, how serious it is and what to type, with --json as one object a line. Lines that are not
    /// known are passed over; where none was known the exit code is 3.
    Explain {
        /// The lines; without any, standard input is read: journalctl --boot --dmesg | gpuk-agent explain
        #[arg(value_name = "LINE")]
        lines: Vec<OsString>,
    },
    /// Bootstrap tokens, on a control plane node
    Token {
        /// What about them.
        #[command(subcommand)]
        about: AboutTokens,
    },
    /// The configuration
    Config {
        /// What about it.
        #[command(subcommand)]
        about: About,
    },
}

/// What about tokens.
#[derive(Debug, Subcommand)]
pub enum AboutTokens {
    /// Make one token and print the join command that has it: the forced command of a key in authorized_keys
    ///
    /// restrict,command="/usr/bin/gpuk-agent token serve-ssh" ssh-ed25519 AAAA...
    ///
    /// Whoever holds that key gets a token and nothing else; docs/join-credentials.md has the whole setup.
    ServeSsh(ServeSsh),
}

/// How tokens are made.
#[derive(Args, Debug)]
pub struct ServeSsh {
    /// How long a token lives, from 1m to 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time_to_live)]
    pub ttl: Duration,
    /// How many are made in any minute
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub per_minute: u32,
    /// Whose credential makes them
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf")]
    pub kubeconfig: PathBuf,
    /// Where is kept when tokens were made
    #[arg(long, value_name = "DIR", default_value = "/run/gpuk-agent/tokens")]
    pub state: PathBuf,
}

/// What about the configuration.
#[derive(Debug, Subcommand)]
pub enum About {
    /// The effective values
    Show {
        /// Say of each value where it came from
        #[arg(long)]
        origin: bool,
    },
    /// Check one file alone
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Exit codes, in the order of sysexits.h from 64 on.
const EXIT_CODES: &str = "\
Exit codes:
   0  done, nothing to do, nothing wrong
   1  something is wrong and a person is needed
   2  plan: there is something to do
   3  doctor, facts, plan: nothing wrong was found, but something could not be looked at;
      explain: no line was known
  64  wrong words on the command line
  75  not ready yet: the outside world is not, e.g. the metadata service; or another agent is at work
  77  root is needed
  78  the configuration is wrong";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, nothing to do, nothing wrong.
    Fine = 0,
    /// Something is wrong and a person is needed.
    Broken = 1,
    /// `plan`: there is something to do.
    Pending = 2,
    /// `doctor`, `facts` and `plan`: nothing wrong was found, but something could not be looked at. `explain`: no line was known.
    Unseen = 3,
    /// Wrong words on the command line.
    Usage = 64,
    /// Not ready yet.
    Waiting = 75,
    /// Root is needed.
    NoPermission = 77,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let Period(time) = text.parse()?;
    let right = Duration::from_secs(60)..=Duration::from_secs(3600);
    if right.contains(&time) { Ok(time) } else { Err("right would be a time from 1m to 1h".to_owned()) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("right would be KEY=VALUE, e.g. node.name=gpu-1")?;
    Ok((key.to_owned(), value.to_owned()))
}
