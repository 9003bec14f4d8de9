//! A distribution as an image: an overlay over this machine's own files, in which the agent installs with real programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What is not to be there of this machine: its own sources, kernels and configuration.
const EMPTIED: [&str; 9] = [
    "etc/apt/sources.list.d",
    "etc/apt/preferences.d",
    "var/lib/apt/lists",
    "etc/yum.repos.d",
    "etc/dnf/plugins",
    "var/lib/rpm",
    "var/cache/dnf",
    "usr/lib/modules",
    "etc/gpuk",
];

/// An image. Its mounts end with the thread of the test.
pub struct Image {
    /// Where it is mounted.
    pub root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Image {
    /// One of this distribution (os-release(5)) with one kernel, and this section `[gpu.driver]`.
    pub fn new(os_release: &str, kernel: &str, driver: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (none, place): (Option<&str>, _) = (None, folder.path());
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace (root only)")?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=1g"))?;
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(place.join(name))?;
        }
        let root = place.join("root");
        let layers = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", place.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))?;
        for name in ["dev", "proc"] {
            mount(Some(&Path::new("/").join(name)), &root.join(name), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        }
        for path in EMPTIED {
            let _ = std::fs::remove_dir_all(root.join(path));
            std::fs::create_dir_all(root.join(path))?;
        }
        put(&root, "etc/apt/sources.list", "")?;
        put(&root, "etc/os-release", os_release)?;
        put(&root, &format!("usr/lib/modules/{kernel}/modules.builtin"), "")?;
        let configuration = format!("[cluster]\npatience = \"1s\"\n[gpu.driver]\ninstall = \"always\"\n{driver}");
        put(&root, "etc/gpuk/agent.toml", &configuration)?;
        Ok(Self { root, _folder: folder })
    }

    /// Changes the configuration.
    pub fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let file = self.root.join("etc/gpuk/agent.toml");
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains(from), "the configuration has no {from}: {text}");
        Ok(std::fs::write(&file, text.replace(from, to))?)
    }

    /// What `up` says of the driver.
    pub fn up(&self) -> Result<Value> {
        let mut agent = Command::new(integration::agent());
        let ran = agent.arg("--root").arg(&self.root).args(["up", "--json"]).env_clear().env("PATH", PATH).output()?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&ran.stdout).context(said)?;
        let steps = answer["steps"].as_array().context("steps")?;
        steps.iter().find(|step| step["name"] == "driver").cloned().context("no step for the driver")
    }

    /// `up` once more, which must change nothing.
    pub fn up_again(&self) -> Result<()> {
        let again = self.up()?;
        let nothing = Value::Array(Vec::new());
        ensure!(again["verdict"] == "ready" && again["changes"] == nothing, "a second run changes something: {again:#}");
        Ok(())
    }

    /// A command in the image, with nothing of the machine's environment.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words).env_clear().env("PATH", PATH).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// The code of a step's finding.
pub fn code(step: &Value) -> &str {
    step["finding"]["code"].as_str().unwrap_or_default()
}

/// Writes a file below `root`.
pub fn put(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    // In an overlay a link of the machine must not be followed.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Runs a program to its end, and gives what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?}: {}{}", said(&output.stdout), said(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
