//! Where a join credential comes from, against real parts: OpenSSH on both sides, an API server, a web server and programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "credentials/sshd.rs"]
mod sshd;
#[path = "credentials/stranger.rs"]
mod stranger;
#[path = "credentials/web.rs"]
mod web;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use gpuk_agent::state::Verdict;
use gpuk_agent::step::Status;
use serde_json::Value;
use vm_tests::cluster::Reachable;
use vm_tests::parts::Program;
use vm_tests::process::{Life, Process};
use vm_tests::progress::wait_for;
use vm_tests::{Cluster, ClusterOptions, Parts};

use sshd::{Sshd, free_port, new_key, user};
use stranger::{Joined, Stranger};
use web::Web;

fn cluster(parts: &Parts) -> Cluster {
    Cluster::start(parts, ClusterOptions { reachable: Reachable::FromHere, ..ClusterOptions::default() }).unwrap()
}

/// The Secrets of the tokens that were made over SSH.
fn minted(cluster: &Cluster) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "secrets", "-n", "kube-system", "-o", "json"])?)?;
    let items = list["items"].as_array().context("no list")?.iter();
    Ok(items.filter(|item| field(item, "description").contains("gpuk-agent")).cloned().collect())
}

/// A field of a Secret as text.
fn field(secret: &Value, name: &str) -> String {
    let encoded = secret["data"][name].as_str().unwrap_or_default();
    String::from_utf8(base64(encoded)).unwrap()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter: u8| letters.iter().position(|known| *known == letter).and_then(|place| u32::try_from(place).ok());
    let values: Vec<u32> = text.bytes().filter_map(value).collect();
    values
        .chunks(4)
        .flat_map(|chunk| {
            let bits = (0..4).fold(0, |bits, place| bits << 6 | chunk.get(place).copied().unwrap_or_default());
            bits.to_be_bytes()[1..chunk.len()].to_vec()
        })
        .collect()
}

/// Every command line that is seen on this machine until the watch ends.
struct Watch(Arc<AtomicBool>, std::thread::JoinHandle<BTreeSet<String>>);

impl Watch {
    fn begin() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let watching = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
                let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
                seen.extend(lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")));
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Self(ended, watching)
    }

    fn end(self) -> BTreeSet<String> {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap()
    }
}

/// A stranger that asks this host alone, whose key it knows.
fn asking(cluster: &Cluster, sshd: &Sshd) -> Result<Stranger> {
    Ok(Stranger::of(cluster)
        .with_key(&sshd.key)
        .set("cluster.ssh.hosts", &format!("127.0.0.1:{}", sshd.port))
        .set("cluster.ssh.user", &user()?)
        .set("cluster.ssh.host-keys", &sshd.host_key()?))
}

fn reason(joined: &Joined) -> &str {
    &joined.record.finding.as_ref().unwrap().why
}

#[test]
fn a_token_that_is_made_over_ssh_opens_the_cluster() -> Result<()> {
    let parts = Parts::open()?;
    let mut cluster = cluster(&parts);
    let sshd = Sshd::start(&cluster, 30)?;
    let watch = Watch::begin();

    // A look makes nothing, however often.
    let dead = free_port()?;
    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{}", sshd.port);
    let stranger = asking(&cluster, &sshd)?.set("cluster.ssh.hosts", &hosts);
    for _ in 0..3 {
        assert!(matches!(stranger.look(), Status::Pending { .. }));
    }
    assert!(minted(&cluster)?.is_empty() && stranger.seen.borrow().is_empty());

    // The first host is down; the second says the pin, too.
    let joined = stranger.up();
    assert!(joined.opened, "{:?}", joined.record);
    let made = minted(&cluster)?;
    assert_eq!(made.len(), 1);
    assert_eq!(field(&made[0], "description"), "made by gpuk-agent for 127.0.0.1 over SSH");
    assert_eq!(field(&made[0], "auth-extra-groups"), "system:bootstrappers:kubeadm:default-node-token");
    let created = made[0]["metadata"]["creationTimestamp"].as_str().context("no time")?;
    let lifetime = seconds(&field(&made[0], "expiration"))? - seconds(created)?;
    assert!((590..=600).contains(&lifetime), "{lifetime} s");
    // Looking on uses the token that there is.
    let Status::Pending { why, changes } = stranger.look() else { panic!("not pending") };
    assert!(why.contains("accepts its token") && why.contains("Connection refused"), "{why}");
    assert_eq!(minted(&cluster)?.len(), 1);

    let secret = field(&made[0], "token-secret");
    let seen = watch.end();
    assert!(seen.iter().any(|line| line.contains("token serve-ssh")), "the forced command was not seen");
    let lines = seen.iter().chain(&*stranger.seen.borrow()).cloned().collect::<Vec<_>>().join("\n");
    for (place, text) in [
        ("a command line", lines),
        ("the record", format!("{:?}", joined.record)),
        ("the plan", format!("{why} {changes:?}")),
        ("the log of sshd", sshd.log()),
    ] {
        assert!(!text.is_empty() && !text.contains(&secret), "{place} shows the secret");
    }

    // The API server is down: the host says so, and that it may pass.
    cluster.stop_api_server()?;
    let joined = asking(&cluster, &sshd)?.up();
    assert_eq!((joined.code(), joined.record.verdict), ("ssh-not-now", Verdict::Waiting));
    Ok(())
}

/// RFC 3339 in UTC, in seconds since 1970.
fn seconds(text: &str) -> Result<i64> {
    let finished = std::process::Command::new("date").args(["-d", text, "+%s"]).output()?;
    Ok(String::from_utf8(finished.stdout)?.trim().parse()?)
}

#[test]
fn a_host_that_is_not_the_known_one_gets_nothing_and_gives_nothing() -> Result<()> {
    let parts = Parts::open()?;
    let cluster = cluster(&parts);
    let sshd = Sshd::start(&cluster, 1)?;
    let keys = tempfile::tempdir()?;
    new_key(&keys.path().join("other"))?;
    let other = std::fs::read_to_string(keys.path().join("other.pub"))?;

    let joined = asking(&cluster, &sshd)?.set("cluster.ssh.host-keys", other.trim()).up();
    assert_eq!((joined.code(), joined.record.verdict), ("ssh-host-key-changed", Verdict::Broken));
    let unknown = |text: &str| -> Result<Stranger> {
        let stranger = Stranger::of(&cluster).with_key(&sshd.key).set("cluster.ssh.user", &user()?);
        let stranger = stranger.set("cluster.ssh.hosts", &format!("127.0.0.1:{}", sshd.port));
        Ok(stranger.set("cluster.ssh.known-hosts-file", "/etc/gpuk/known_hosts").with("/etc/gpuk/known_hosts", text))
    };
    let joined = unknown("")?.up();
    assert_eq!((joined.code(), joined.record.verdict), ("ssh-host-key-unknown", Verdict::Broken));
    // Neither time was the key as much as offered.
    let log = sshd.log();
    assert!(!log.contains("Accepted") && !log.contains("Failed"), "{log}");

    // Another key is refused, and the static token is what is left.
    let refused = asking(&cluster, &sshd)?.with_key(&keys.path().join("other"));
    let joined = refused.up();
    assert_eq!((joined.code(), joined.record.verdict), ("ssh-key-refused", Verdict::Broken));
    let fallback = refused.set("cluster.token", cluster.token()).set("cluster.ca-cert-hashes", &cluster.ca_cert_hash()?);
    let joined = fallback.up();
    assert!(joined.opened, "{:?}", joined.record);
    let Status::Pending { why, .. } = fallback.look() else { panic!("not pending") };
    assert!(why.contains("warning: ssh 127.0.0.1") && why.contains("Permission denied"), "{why}");
    assert!(minted(&cluster)?.is_empty());

    // With the host in a file of known ones a token is made; a second one within the minute is not.
    let known = format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key()?);
    assert!(unknown(&known)?.up().opened);
    let joined = unknown(&known)?.up();
    assert_eq!((joined.code(), joined.record.verdict), ("ssh-not-now", Verdict::Waiting));
    assert!(reason(&joined).contains("1 tokens were made within a minute: try again in"), "{}", reason(&joined));
    assert_eq!(minted(&cluster)?.len(), 1);
    Ok(())
}

#[test]
fn a_stolen_key_opens_nothing_but_tokens() -> Result<()> {
    let parts = Parts::open()?;
    let cluster = cluster(&parts);
    let sshd = Sshd::start(&cluster, 1000)?;

    // What it is for.
    for words in [&["127.0.0.1"][..], &["127.0.0.1", "token"], &["-A", "127.0.0.1"]] {
        let got = sshd.steal(words)?;
        assert!(got.status.success() && got.stdout.starts_with("kubeadm join 127.0.0.1:"), "{words:?}: {got:?}");
        assert_eq!(got.stdout.lines().count(), 1, "{words:?}: {}", got.stdout);
    }
    // A terminal is not given, and what is typed into it is read by nobody.
    let got = sshd.steal(&["-tt", "127.0.0.1"])?;
    assert!(got.stderr.contains("PTY allocation request failed") && !got.stdout.contains("root:"), "{got:?}");

    // Other commands, and what is made of them.
    // The one without a terminal may end after its client.
    let before =
        wait_for("four tokens", Duration::from_secs(30), || Ok(Some(minted(&cluster)?.len()).filter(|count| *count == 4)))?;
    for command in ["id", "sh", "token; id", "token $(id)", "kubectl get secrets", "rsync --server . /", "gpuk-agent up"] {
        let got = sshd.steal(&["127.0.0.1", command])?;
        assert_eq!((got.status.code(), got.stdout.as_str()), (Some(64), ""), "{command}: {got:?}");
    }
    let got = sshd.steal(&["-s", "127.0.0.1", "sftp"])?;
    assert!(got.stdout.is_empty() && !got.status.success(), "{got:?}");
    let folder = tempfile::tempdir()?;
    let remote = format!("{}@127.0.0.1:/etc/hostname", user()?);
    for flags in [&[][..], &["-O"]] {
        let mut scp = sshd.client("scp", "-P");
        let got = vm_tests::command::finish(scp.args(flags).arg(&remote).arg(folder.path()), b"", Duration::from_secs(60))?;
        assert!(!got.status.success() && std::fs::read_dir(folder.path())?.next().is_none(), "{got:?}");
    }

    // Connections through the host: to the API server, from there to here, and by standard input.
    let port = free_port()?;
    let forward = format!("127.0.0.1:{port}:127.0.0.1:{}", cluster.port());
    let log = folder.path().join("log");
    let mut words: Vec<String> = sshd.client("ssh", "-p").get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    words.extend(["-N", "-l", &user()?, "-L", &forward, "127.0.0.1"].map(str::to_owned));
    let ssh = vm_tests::packages::find("ssh").context("no ssh")?;
    let _tunnel = Process::start("ssh", &ssh, &words, folder.path(), &log, Life::WithUs)?;
    let mut through = wait_for("ssh to listen", Duration::from_secs(30), || Ok(Some(TcpStream::connect(("127.0.0.1", port))?)))?;
    through.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = through.read_to_end(&mut answer);
    assert!(answer.is_empty());
    wait_for("the refusal", Duration::from_secs(30), || {
        Ok(std::fs::read_to_string(&log)?.contains("administratively prohibited").then_some(()))
    })?;
    let back = format!("127.0.0.1:{}:127.0.0.1:{}", free_port()?, cluster.port());
    let got = sshd.steal(&["-o", "ExitOnForwardFailure=yes", "-N", "-R", &back, "127.0.0.1"])?;
    assert!(!got.status.success(), "{got:?}");
    let got = sshd.steal(&["-W", &format!("127.0.0.1:{}", cluster.port()), "127.0.0.1"])?;
    assert!(!got.status.success() && got.stdout.is_empty(), "{got:?}");
    assert_eq!(minted(&cluster)?.len(), before, "something else made a token");
    Ok(())
}

#[test]
fn a_program_and_a_web_server_give_tokens_or_say_why() -> Result<()> {
    let parts = Parts::open()?;
    let cluster = cluster(&parts);
    let folder = tempfile::tempdir()?;
    let program = |name: &str, script: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    };
    let pinned = || Ok::<_, anyhow::Error>(Stranger::of(&cluster).set("cluster.ca-cert-hashes", &cluster.ca_cert_hash()?));

    // kubeadm's own words, from a program with arguments.
    let kubeadm = parts.program(Program::Kubeadm)?;
    let create = program("create", "exec \"$1\" --kubeconfig \"$2\" token create --ttl 10m --print-join-command")?;
    let argv = format!("{create},{},{}", kubeadm.display(), cluster.kubeconfig().display());
    let joined = pinned()?.set("cluster.token-command", &argv).up();
    assert!(joined.opened, "{:?}", joined.record);
    let tail = "; echo 'kubeadm join x --token abcdef.fedcba9876543210 --discovery-token-ca-cert-hash sha256:";
    for (name, script, code) in [
        ("fails", "env >&2; echo abcdef.0123456789abcdef >&2; exit 1".to_owned(), "token-command-failed"),
        ("later", "exit 75".to_owned(), "token-command-failed"),
        ("nonsense", "echo hello".to_owned(), "token-malformed"),
        ("large", "head -c 100000 /dev/zero".to_owned(), "token-malformed"),
        ("wrong", format!("echo {}.0000000000000000", cluster.token().split('.').next().unwrap()), "token-secret-wrong"),
        ("other", format!("true{tail}{}'", "a".repeat(64)), "pin-differs"),
    ] {
        let joined = pinned()?.set("cluster.token-command", &program(name, &script)?).up();
        assert_eq!(joined.code(), code, "{name}");
        assert_eq!(joined.record.verdict, if name == "later" { Verdict::Waiting } else { Verdict::Broken }, "{name}");
        let shown = format!("{:?}", joined.record);
        assert!(!shown.contains("0123456789abcdef") && !shown.contains("fedcba9876543210"), "{shown}");
        if name == "fails" {
            // PWD and the like are the shell's own.
            assert!(shown.contains("HOME=/root") && !shown.contains("CARGO") && !shown.contains("GPUK"), "{shown}");
        }
    }
    let joined = pinned()?.set("cluster.token-command", "/no/such/program").up();
    assert_eq!(joined.code(), "token-command-missing");

    let web = Web::start()?;
    let ca = |text: &str| {
        Ok::<_, anyhow::Error>(pinned()?.set("cluster.token-url-ca-file", "/etc/gpuk/ca.crt").with("/etc/gpuk/ca.crt", text))
    };
    let good = web.answer("token", "200 OK", &format!("{}\n", cluster.token()))?;
    assert!(ca(&web.authority()?)?.set("cluster.token-url", &good).up().opened);
    for (name, status, body, code) in [
        ("absent", "404 Not Found", "", "token-url-refused"),
        ("closed", "403 Forbidden", "", "token-url-refused"),
        ("moved", "302 Found\r\nLocation: /token", "", "token-url-refused"),
        ("page", "200 OK", "<html>", "token-malformed"),
        ("large", "200 OK", &"x".repeat(2 << 20), "token-malformed"),
    ] {
        let url = web.answer(name, status, body)?;
        assert_eq!(ca(&web.authority()?)?.set("cluster.token-url", &url).up().code(), code, "{name}");
    }
    let elsewhere = format!("https://127.0.0.1:{}/token", free_port()?);
    assert_eq!(ca(&web.authority()?)?.set("cluster.token-url", &elsewhere).up().code(), "token-url-unreachable");
    // Under the cluster's CA the web server is a stranger.
    let other = std::fs::read_to_string(cluster.directory().join("pki/ca.crt"))?;
    let joined = ca(&other)?.set("cluster.token-url", &good).up();
    assert_eq!((joined.code(), joined.record.verdict), ("token-url-not-trusted", Verdict::Broken));
    Ok(())
}
