//! OpenSSH's own sshd on the loopback interface, with the minting verb behind a key, as docs/join-credentials.md sets it up.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use vm_tests::command::{Finished, finish, run};
use vm_tests::process::{Life, Process};
use vm_tests::progress::wait_for;
use vm_tests::{Cluster, Packages, packages};

const LIMIT: Duration = Duration::from_secs(60);

/// A control plane node's sshd.
pub struct Sshd {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The private key that gets tokens.
    pub key: PathBuf,
    folder: tempfile::TempDir,
    _process: Process,
}

/// A new key without a passphrase.
pub fn new_key(path: &Path) -> Result<()> {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(path), LIMIT).map(drop)
}

/// The name of whoever runs this.
pub fn user() -> Result<String> {
    Ok(run(Command::new("id").arg("-un"), LIMIT)?.trim().to_owned())
}

/// A port on which nobody listens.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Sshd {
    /// Makes tokens of the cluster, so many in a minute.
    pub fn start(cluster: &Cluster, per_minute: u32) -> Result<Self> {
        Packages::of_ssh().install()?;
        let folder = tempfile::Builder::new().prefix("gpuk-sshd-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let key = file("join-key");
        new_key(&file("host-key"))?;
        new_key(&key)?;
        let forced = format!(
            "{} token serve-ssh --kubeconfig {} --state {} --per-minute {per_minute}",
            integration::agent().display(),
            cluster.kubeconfig().display(),
            file("tokens").display(),
        );
        let public = fs::read_to_string(file("join-key.pub"))?;
        fs::write(file("authorized_keys"), format!("restrict,command=\"{forced}\" {public}"))?;
        let port = free_port()?;
        // Nothing here but the line in authorized_keys keeps a thief from anything.
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAllowTcpForwarding yes\n\
             PermitTunnel yes\nX11Forwarding yes\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\n",
            file("host-key").display(),
            file("authorized_keys").display(),
        );
        fs::write(file("sshd_config"), configuration)?;
        // A system without a running ssh service lacks it; only root needs it.
        let _ = fs::create_dir_all("/run/sshd");
        let program = packages::find("sshd").context("sshd is not installed")?;
        let arguments = ["-D", "-e", "-f", "sshd_config"].map(str::to_owned);
        let process = Process::start("sshd", &program, &arguments, folder.path(), &file("log"), Life::WithUs)?;
        wait_for("sshd to listen", LIMIT, || Ok(Some(TcpStream::connect(("127.0.0.1", port))?)))?;
        Ok(Self { port, key, folder, _process: process })
    }

    /// The host's public key, as it stands in its file.
    pub fn host_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("host-key.pub"))?.trim().to_owned())
    }

    /// Everything that sshd and the forced command said there.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A program of OpenSSH's client, with the key and without any scruple.
    pub fn client(&self, program: &str, port_flag: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]);
        command
            .args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=INFO", "-i"])
            .arg(&self.key)
            .args([port_flag, &self.port.to_string()]);
        command
    }

    /// What a thief gets who asks for this.
    pub fn steal(&self, words: &[&str]) -> Result<Finished> {
        let mut command = self.client("ssh", "-p");
        command.args(["-l", &user()?]).args(words);
        finish(&mut command, b"id\ncat /etc/shadow\n", LIMIT)
    }
}
