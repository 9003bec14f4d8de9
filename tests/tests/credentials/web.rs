//! OpenSSL's own web server on the loopback interface, under a CA of its own; it answers with whole files.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use vm_tests::command::run;
use vm_tests::process::{Life, Process};
use vm_tests::progress::wait_for;
use vm_tests::{Packages, packages};

use crate::sshd::free_port;

const LIMIT: Duration = Duration::from_secs(60);

/// A web server.
pub struct Web {
    port: u16,
    folder: tempfile::TempDir,
    _process: Process,
}

fn openssl(folder: &Path, words: &str) -> Result<()> {
    run(Command::new("openssl").args(words.split(' ')).current_dir(folder), LIMIT).map(drop)
}

impl Web {
    /// One that has no file yet.
    pub fn start() -> Result<Self> {
        Packages::of_ssh().install()?;
        let folder = tempfile::Builder::new().prefix("gpuk-web-").tempdir()?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(folder.path(), &format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.crt"))?;
        let leaf = "-CA ca.crt -CAkey ca.key -addext basicConstraints=CA:FALSE -addext subjectAltName=IP:127.0.0.1";
        openssl(folder.path(), &format!("req -x509 {key} {leaf} -subj /CN=web -keyout web.key -out web.crt"))?;
        let port = free_port()?;
        let program = packages::find("openssl").context("openssl is not installed")?;
        let address = format!("127.0.0.1:{port}");
        let words =
            ["s_server", "-accept", &address, "-cert", "web.crt", "-key", "web.key", "-HTTP", "-quiet"].map(str::to_owned);
        let process = Process::start("openssl", &program, &words, folder.path(), &folder.path().join("log"), Life::WithUs)?;
        wait_for("the web server to listen", LIMIT, || Ok(Some(TcpStream::connect(("127.0.0.1", port))?)))?;
        Ok(Self { port, folder, _process: process })
    }

    /// Puts a file there and says its address.
    pub fn answer(&self, name: &str, status: &str, body: &str) -> Result<String> {
        let answer = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        fs::write(self.folder.path().join(name), answer)?;
        Ok(format!("https://127.0.0.1:{}/{name}", self.port))
    }

    /// The CA's certificate.
    pub fn authority(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("ca.crt"))?)
    }
}
