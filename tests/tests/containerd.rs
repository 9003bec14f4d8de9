//! containerd itself is the referee of what its configuration means: real 1.6.20, 1.7.24 and 2.4.2, before and after our edits.

#![allow(clippy::disallowed_methods, reason = "a test makes machines out of files and programs")]

#[path = "containerd/fixtures.rs"]
mod fixtures;
#[path = "containerd/machine.rs"]
mod machine;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpuk_agent::host::runtime::{ContainerRuntime, CriSocket, RuntimeStatus};
use gpuk_agent::state::Verdict;
use gpuk_agent::step::Status;
use gpuk_agent::steps::containerd::effective::{find, leaves};
use gpuk_agent::steps::containerd::generation;
use toml::{Table, Value};
use vm_tests::parts::{Containerd, Parts};

use fixtures::{FOR_1, FOR_2, Fixture};
use machine::Machine;

const DEBIAN_12: (Containerd, &str, (u32, u32)) = (Containerd::Debian12, "1.6.20~ds1-1+deb12u1", (1, 6));
const DEBIAN_13: (Containerd, &str, (u32, u32)) = (Containerd::Debian13, "1.7.24~ds1-6+b4", (1, 7));
const GO_2: (Containerd, &str, (u32, u32)) = (Containerd::Go2, "", (2, 4));

fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[test]
fn containerd_1_6_agrees_before_and_after() -> Result<()> {
    run(all_agree(DEBIAN_12, FOR_1))
}

#[test]
fn containerd_1_7_agrees_before_and_after() -> Result<()> {
    run(all_agree(DEBIAN_13, FOR_1))
}

#[test]
fn containerd_2_agrees_before_and_after() -> Result<()> {
    run(all_agree(GO_2, FOR_2))
}

async fn all_agree((which, package, generation): (Containerd, &str, (u32, u32)), fixtures: &[Fixture]) -> Result<()> {
    let program = Parts::open()?.containerd(which)?.program("containerd");
    for fixture in fixtures {
        let settings = [("containerd.pause-image", "registry.example/pause:42")];
        let machine = Machine::new(&program, package, fixture.files, &settings)?;
        agrees(&machine, fixture, generation).await.with_context(|| format!("{which:?}, {}", fixture.name))?;
    }
    Ok(())
}

async fn agrees(machine: &Machine, fixture: &Fixture, expected: (u32, u32)) -> Result<()> {
    let (generation, _) = machine.read()?;
    ensure!((generation.major, generation.minor) == (expected.0, Some(expected.1)), "read {generation:?}");
    compare(machine).context("before")?;
    ensure!(matches!(machine.check().await?, Status::Pending { .. }), "something must be missing before");
    let record = machine.bring_up().await?;
    ensure!(record.verdict == Verdict::Ready, "after the changes: {record:?}");
    let written = machine.configuration()?;
    let again = machine.bring_up().await?;
    ensure!(again.verdict == Verdict::Ready && again.changes.is_empty(), "the second round did {:?}", again.changes);
    ensure!(machine.configuration()? == written, "the second round changed bytes");
    let left: Vec<_> = machine.look().list("/run/gpuk-agent/containerd/etc/containerd")?;
    ensure!(!left.iter().any(|name| name.ends_with(".toml")), "copies were left: {left:?}");

    let dump = compare(machine).context("after")?;
    let all = cri_leaves(&dump);
    let expect = |end: &str, value: &str| -> Result<()> {
        let found: Vec<_> = all.iter().filter(|(path, _)| path.ends_with(end)).map(|(_, value)| value.as_str()).collect();
        ensure!(found.contains(&value), "{end} is {found:?}, not {value:?}, in\n{}", show(machine)?);
        Ok(())
    };
    let pause = if expected.0 == 1 { "sandbox_image" } else { "pinned_images.sandbox" };
    expect(pause, "registry.example/pause:42")?;
    for name in ["runc", "nvidia"] {
        expect(&format!("runtimes.{name}.options.SystemdCgroup"), "true")?;
        expect(&format!("runtimes.{name}.runtime_type"), "io.containerd.runc.v2")?;
    }
    let binary = all.iter().find(|(path, _)| path.ends_with("runtimes.nvidia.options.BinaryName"));
    ensure!(binary.is_some_and(|(_, value)| value.ends_with("/nvidia-container-runtime")), "{binary:?}");
    if expected == (1, 7) {
        expect("enable_cdi", "true")?;
    }
    let disabled = dump.get("disabled_plugins").map(Value::to_string).unwrap_or_default();
    ensure!(!disabled.contains("cri"), "still disabled: {disabled}");
    for (end, value) in fixture.keeps {
        expect(end, value)?;
    }
    for (file, line) in fixture.lines {
        let text = std::fs::read_to_string(machine.path(file))?;
        ensure!(text.lines().any(|one| one == *line), "{file} lost {line:?}:\n{text}");
    }
    Ok(())
}

/// Everything that our reader finds in the CRI sections must be in the dump, with the same value.
fn compare(machine: &Machine) -> Result<Table> {
    let (_, ours) = machine.read()?;
    let dump = machine.dump()?;
    let plugins = dump.get("plugins").and_then(Value::as_table).context("no plugins in the dump")?;
    // containerd leaves plugins out of the dump that are disabled.
    if ours.disabled.is_empty() {
        for (id, section) in &ours.sections {
            let theirs = plugins.get(*id).and_then(Value::as_table).with_context(|| format!("no {id} in the dump"))?;
            for (path, value) in leaves(section) {
                ensure!(
                    find(theirs, &path) == Some(&value),
                    "{id} {path:?}: we read {value}, containerd {:?}",
                    find(theirs, &path)
                );
            }
            // A runtime of theirs that we do not see would be one that we do not put under systemd.
            for (path, value) in leaves(theirs).iter().filter(|(path, _)| path.ends_with(&["SystemdCgroup".to_owned()])) {
                ensure!(
                    find(section, path).unwrap_or(&Value::Boolean(false)) == value,
                    "{path:?} is {value} for containerd only"
                );
            }
        }
    }
    let theirs = dump.get("disabled_plugins").and_then(Value::as_array).context("no disabled_plugins in the dump")?;
    let theirs = theirs.iter().filter_map(Value::as_str).any(|name| name.ends_with("cri"));
    ensure!(theirs != ours.disabled.is_empty(), "disabled: we read {:?}, containerd {theirs}", ours.disabled);
    Ok(dump)
}

/// All values of the CRI sections in a dump, by dotted path.
fn cri_leaves(dump: &Table) -> Vec<(String, String)> {
    let plugins = dump.get("plugins").and_then(Value::as_table).into_iter().flatten();
    let sections = plugins.filter(|(id, _)| id.contains("cri")).filter_map(|(_, value)| value.as_table());
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Array(list) if list.len() == 1 => list[0].as_str().unwrap_or_default().to_owned(),
        other => other.to_string(),
    };
    sections.flat_map(leaves).map(|(path, value)| (path.join("."), text(value))).collect()
}

fn show(machine: &Machine) -> Result<String> {
    let files = machine.configuration()?;
    Ok(files.iter().map(|(path, bytes)| format!("--- {}\n{}", path.display(), String::from_utf8_lossy(bytes))).collect())
}

#[test]
fn the_generation_of_a_real_program_is_read_in_no_time() -> Result<()> {
    for (which, package, expected) in [DEBIAN_12, DEBIAN_13, GO_2] {
        let machine = Machine::new(&Parts::open()?.containerd(which)?.program("containerd"), package, &[], &[])?;
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            let generation = generation::read(machine.look(), Path::new("/usr/bin/containerd"))?.context("nothing was read")?;
            times.push(start.elapsed());
            ensure!((generation.major, generation.minor) == (expected.0, Some(expected.1)), "{generation:?}");
        }
        times.sort();
        println!("{which:?}: median {:?}, worst {:?}", times[10], times[19]);
        ensure!(times[10] < Duration::from_millis(3), "reading {which:?} took {:?}", times[10]);
    }
    Ok(())
}

#[test]
fn what_containerd_refuses_is_told_and_changes_nothing() -> Result<()> {
    // A type that our reader does not look at, and containerd does.
    let files = [("etc/containerd/config.toml", "version = 2\noom_score = \"high\"\n")];
    let (which, package, _) = DEBIAN_13;
    run(async {
        let machine = Machine::new(&Parts::open()?.containerd(which)?.program("containerd"), package, &files, &[])?;
        let record = machine.bring_up().await?;
        let finding = record.finding.with_context(|| format!("{:?} {}", record.verdict, record.text))?;
        ensure!(finding.code == "containerd-config-refused", "{finding:?}");
        ensure!(finding.why.contains("oom_score") || finding.why.contains("(2,"), "containerd's own words: {finding:?}");
        ensure!(std::fs::read_to_string(machine.path(files[0].0))? == files[0].1, "the file was touched");
        Ok(())
    })
}

#[test]
fn containerd_1_6_starts_pods_with_it() -> Result<()> {
    run(starts_pods(DEBIAN_12, 2)).map(drop)
}

#[test]
fn containerd_1_7_starts_pods_with_it() -> Result<()> {
    run(starts_pods(DEBIAN_13, 2)).map(drop)
}

#[test]
fn containerd_2_starts_pods_with_it_and_lists_nvidia() -> Result<()> {
    run(async {
        let status = starts_pods(GO_2, 3).await?;
        ensure!(status.handlers.iter().any(|name| name == "nvidia"), "handlers: {:?}", status.handlers);
        Ok(())
    })
    .map(drop)
}

/// A private containerd with the rendered file says RuntimeReady.
async fn starts_pods((which, package, _): (Containerd, &str, (u32, u32)), version: u8) -> Result<RuntimeStatus> {
    let binaries = Parts::open()?.containerd(which)?;
    let own = tempfile::tempdir()?;
    let at = |name: &str| own.path().join(name).display().to_string();
    let text = format!(
        "version = {version}\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.snapshotter.v1.devmapper', \
         'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.internal.v1.opt', \
         'io.containerd.nri.v1.nri', 'io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{}'\n[ttrpc]\naddress = '{}'\n",
        at("root"),
        at("state"),
        at("socket"),
        at("socket.ttrpc"),
    );
    let files = [("etc/containerd/config.toml", text.as_str())];
    let machine = Machine::new(&binaries.program("containerd"), package, &files, &[])?;
    let record = machine.bring_up().await?;
    ensure!(record.verdict == Verdict::Ready, "{record:?}");
    let log = std::fs::File::create(own.path().join("log"))?;
    let path = format!("{}:{}", binaries.directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut daemon = Command::new(binaries.program("containerd"));
    daemon.arg("--config").arg(machine.path("etc/containerd/config.toml")).env("PATH", path).stderr(log).stdout(Stdio::null());
    let mut daemon = Daemon(daemon.spawn()?);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match CriSocket.status(&at("socket")).await {
            Ok(status) if status.runtime_ready => return Ok(status),
            answer if Instant::now() > deadline || daemon.0.try_wait()?.is_some() => {
                bail!("{answer:?}\n{}\n{}", std::fs::read_to_string(own.path().join("log"))?, show(&machine)?)
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
