//! A control plane node is asked through OpenSSH's client, which believes known host keys alone and offers one key alone.

use std::time::Duration;

use super::{Found, Source, asked, verdict};
use crate::config::SshHost;
use crate::look::Look;
use crate::step::{Change, Command};

/// Where pinned host keys are put for the client.
const KNOWN_HOSTS: &str = "/run/gpuk-agent/join/known_hosts";

/// ssh gives up a connection after [`CONNECT_LIMIT`] and a silent one 10 s later; the API server behind it has 10 s.
const LIMIT: Duration = Duration::from_secs(40);

/// `ConnectTimeout`, in seconds.
const CONNECT_LIMIT: &str = "ConnectTimeout=10";

/// What the client is told beside the files (ssh_config(5)); `-F none` keeps it from everybody's and root's own configuration.
const OPTIONS: [&str; 20] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    CONNECT_LIMIT,
    "ConnectionAttempts=1",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=2",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ControlPath=none",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
];

/// What the host has answered, or the changes that ask it.
pub fn look(look: Look<'_>, source: Source<'_>, host: &SshHost) -> Found {
    let ssh = &look.config.cluster.ssh;
    // ssh would ask without a key and say only that it was refused.
    match look.exists(&ssh.identity_file) {
        Ok(true) => {}
        Ok(false) => return Found::Nothing(verdict::ssh_key_missing(source, &ssh.identity_file, "is missing"), None),
        Err(error) => return Found::Nothing(verdict::ssh_key_missing(source, &ssh.identity_file, &format!("{error:#}")), None),
    }
    let (known_hosts, before) = if ssh.host_keys.is_empty() {
        (ssh.known_hosts_file.display().to_string(), Vec::new())
    } else {
        // A pattern that fits every host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
        let lines: String = ssh.host_keys.iter().map(|key| format!("* {key}\n")).collect();
        (KNOWN_HOSTS.to_owned(), vec![Change::write(KNOWN_HOSTS, lines)])
    };
    let known_hosts = format!("UserKnownHostsFile={}", quoted(&known_hosts));
    let identity_file = format!("IdentityFile={}", quoted(&ssh.identity_file.display().to_string()));
    let mut argv: Vec<&str> = vec!["ssh", "-F", "none", "-T"];
    argv.extend(OPTIONS.iter().chain(&[known_hosts.as_str(), identity_file.as_str()]).flat_map(|option| ["-o", option]));
    let port = host.port.to_string();
    argv.extend(["-p", &port, "-l", &ssh.user, "--", &host.host, "token"]);
    let argv = argv.into_iter().map(str::to_owned).collect();
    let command = Command { argv, ..Command::new([], LIMIT).on_running_system() };
    asked::look(look, source, &format!("ssh-{}-{port}", host.host), command, before, verdict::of_ssh)
}

/// A path as ssh_config(5) takes it: in quotes, since blanks separate several, and with its own signs doubled.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}
