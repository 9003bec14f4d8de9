//! The agent is tested as people use it: the program itself, on files and beside real parts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests call this, and a panic is how a test fails")]

pub mod certificates;
pub mod joiner;
pub mod nvml;
pub mod proxy;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The agent's program: the one that `GPUK_AGENT` names, else built from this tree.
pub fn agent() -> PathBuf {
    use std::sync::OnceLock;
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("GPUK_AGENT").filter(|path| !path.is_empty()) {
                return path.into();
            }
            let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "gpuk-agent"]).status().unwrap();
            assert!(built.success(), "cargo build --package gpuk-agent failed");
            // target/debug/deps/TEST → target/debug/gpuk-agent
            std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("gpuk-agent")
        })
        .clone()
}

/// What a run of the agent left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit status.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs the agent on the root `root` with a clean environment.
pub fn run(root: &Path, words: &[&str]) -> Ran {
    Command::new(agent()).arg("--root").arg(root).args(words).env_clear().output().unwrap().into()
}

/// The few files of a Debian image that the steps look at. containerd is known by its package and is configured already.
const IMAGE: &[(&str, &str)] = &[
    ("etc/os-release", "ID=debian\nVERSION_ID=13\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"),
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n"),
    ("usr/lib/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n"),
    ("usr/bin/containerd", ""),
    ("var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.7.24~ds1-6\n\n"),
    ("var/lib/dpkg/info/containerd.list", "/usr/bin/containerd\n"),
    (
        "etc/containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
    ),
];

/// Puts the files of a Debian image below `root`.
pub fn put_image(root: &Path) {
    for (path, text) in IMAGE {
        write(root, path, text);
    }
}

/// A temporary root with the files of a Debian image.
pub fn image_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put_image(root.path());
    root
}

/// Writes a file below `root`, with the directories above it.
pub fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Every file below `root` with its bytes, in order: two of these are equal when nothing was changed.
pub fn snapshot(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}
