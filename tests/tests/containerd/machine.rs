//! A root directory with a real containerd in it, and the agent's own machinery over it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gpuk_agent::config::{self, Config};
use gpuk_agent::engine::{Engine, Event, Observer, Stop};
use gpuk_agent::facts::{Facts, Gpu};
use gpuk_agent::host::Host;
use gpuk_agent::look::Look;
use gpuk_agent::state::StepRecord;
use gpuk_agent::step::{Status, Step};
use gpuk_agent::steps::containerd::Containerd;
use gpuk_agent::steps::containerd::effective::{Effective, effective};
use gpuk_agent::steps::containerd::generation::{self, Generation};
use gpuk_agent::steps::containerd::{files, wanted::Wanted};
use toml::Table;

/// The root of an image with containerd in it.
pub struct Machine {
    root: tempfile::TempDir,
    host: Host,
    config: Config,
    facts: Facts,
}

impl Machine {
    /// Puts the program, its libraries and these files into a new root.
    pub fn new(containerd: &Path, version: &str, files: &[(&str, &str)], settings: &[(&str, &str)]) -> Result<Self> {
        let root = tempfile::tempdir()?;
        let place = |path: &Path| root.path().join(path.strip_prefix("/").unwrap_or(path));
        for library in libraries(containerd)? {
            copy(&library, &place(&library))?;
        }
        copy(containerd, &place(Path::new("/usr/bin/containerd")))?;
        // Debian's programs do not carry their version: dpkg knows it.
        write(
            &place(Path::new("/var/lib/dpkg/status")),
            &format!(
                "Package: adduser\nStatus: install ok installed\nVersion: 3\n\nPackage: containerd\nStatus: install ok installed\nVersion: {version}\n"
            ),
        )?;
        write(&place(Path::new("/var/lib/dpkg/info/containerd.list")), "/.\n/usr/bin/containerd\n")?;
        for (path, text) in files {
            write(&place(Path::new(path)), text)?;
        }
        let pairs = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = config::load(vec![config::Source::flags(pairs)]).map_err(|errors| anyhow::anyhow!("{errors:?}"))?.config;
        let gpu = Gpu { address: "0000:00:03.0".to_owned(), device: 0x1eb8, ..Gpu::default() };
        let facts = Facts { gpus: vec![gpu], ..Facts::default() };
        Ok(Self { host: Host::real(root.path())?, root, config, facts })
    }

    /// A path on this machine.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// A view of it.
    pub fn look(&self) -> Look<'_> {
        Look::new(&self.host, &self.config, &self.facts)
    }

    /// One look of the step.
    pub async fn check(&self) -> Result<Status> {
        Containerd.check(self.look()).await
    }

    /// Lets the engine do what the step wants, and look again.
    pub async fn bring_up(&self) -> Result<StepRecord> {
        let (_switch, stop) = Stop::new();
        let engine = Engine { host: &self.host, config: &self.config, facts: &self.facts, observer: &Silent, stop };
        let steps: Vec<Box<dyn Step>> = vec![Box::new(Containerd)];
        engine.bring_up(&steps, std::time::Duration::from_secs(60)).await.pop().context("no record")
    }

    /// What our reader makes of the files.
    pub fn read(&self) -> Result<(Generation, Effective)> {
        let wanted = Wanted::of(self.look());
        let generation = generation::read(self.look(), Path::new("/usr/bin/containerd"))?.context("no generation")?;
        let files = files::load(self.look(), &wanted.config_file, &generation)?.map_err(anyhow::Error::new)?;
        Ok((generation.clone(), effective(&files, &generation)))
    }

    /// What containerd makes of them.
    pub fn dump(&self) -> Result<Table> {
        // Without a file it runs on its defaults, but 1.x cannot dump them.
        let verb = if self.path("etc/containerd/config.toml").exists() { "dump" } else { "default" };
        let output = Command::new("chroot").arg(self.root.path()).args(["/usr/bin/containerd", "config", verb]).output()?;
        ensure!(output.status.success(), "containerd config dump: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.parse()?)
    }

    /// Every file below /etc/containerd with its bytes.
    pub fn configuration(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut all = Vec::new();
        let mut folders = vec![self.path("etc/containerd")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { all.push((path.clone(), fs::read(&path)?)) }
            }
        }
        all.sort();
        Ok(all)
    }
}

struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("no parent")?)?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// By a process of its own: a descriptor open for writing here would be inherited by what other tests start, and keep the program busy.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    let status = Command::new("cp").arg("--dereference").arg(from).arg(to).status()?;
    ensure!(status.success(), "copying {}", from.display());
    Ok(())
}

/// The files that the dynamic linker would load; none for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from).collect())
}
