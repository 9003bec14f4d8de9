#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{GpuReading, Gpus, HelperTrouble, RealGpus, helper};
use crate::host::files::Files;

/// A machine with a loaded kernel module.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("proc/driver/nvidia")).unwrap();
    std::fs::write(root.path().join("proc/driver/nvidia/version"), "").unwrap();
    root
}

/// What a look at this machine gives with this script in place of the helper.
async fn looked(root: &Path, script: &str) -> GpuReading {
    let helper = root.join("helper");
    std::fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Another test's child, still between fork and exec, may hold the file open for writing: the shell is started, and reads it.
    let gpus = RealGpus::new(&Files::as_running_system(root).unwrap()).with_limit(Duration::from_secs(30));
    gpus.look(Some(Path::new("/bin/sh")), Some(&helper)).await.unwrap()
}

#[tokio::test]
async fn an_answer_and_a_failure_are_read() {
    let root = machine();
    let read =
        looked(root.path(), "echo '{\"reading\": {\"driver\": \"535.1\", \"nvml\": null, \"cuda\": null, \"gpus\": []}}'").await;
    assert!(matches!(&read, GpuReading::Reading(reading) if reading.driver.value().is_some_and(|it| it == "535.1")), "{read:?}");
    let failed = looked(root.path(), "echo '{\"failed\": {\"code\": 18, \"name\": null, \"text\": \"mismatch\"}}'").await;
    assert!(matches!(&failed, GpuReading::Failed(failure) if failure.code.0 == 18), "{failed:?}");
}

#[tokio::test]
async fn a_helper_that_brings_no_answer_says_which_way() {
    let root = machine();
    for (script, expected) in [
        ("kill -SEGV $$", "NVML crashed the helper (SIGSEGV)"),
        ("echo worse >&2; exit 3", "the NVML helper ended with status 3: worse"),
        ("echo hello", "the NVML helper printed something else than an answer: expected value"),
        ("exit 0", "the NVML helper printed something else than an answer: EOF"),
        ("yes", "the NVML helper printed something else than an answer: more than 1 MiB"),
        // What it leaves behind may hold standard error open.
        ("sleep 5 >/dev/null & echo '{'", "the NVML helper printed something else than an answer: EOF"),
    ] {
        let GpuReading::NotAsked(trouble) = looked(root.path(), script).await else { panic!("{script}") };
        assert!(trouble.to_string().starts_with(expected), "{script}: {trouble}");
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_killed_and_the_next_look_starts_anew() {
    let root = machine();
    let script = root.path().join("script");
    std::fs::write(&script, "echo $$ >>\"$(dirname \"$0\")/started\"; exec sleep 1000\n").unwrap();
    // Long enough for a shell to start on a busy machine.
    let limit = Duration::from_secs(2);
    let gpus = RealGpus::new(&Files::as_running_system(root.path()).unwrap()).with_limit(limit);
    for _ in 0..2 {
        let hung = gpus.look(Some(Path::new("/bin/sh")), Some(&script)).await.unwrap();
        assert_eq!(hung, GpuReading::NotAsked(HelperTrouble::Hung(limit)));
    }
    let started = std::fs::read_to_string(root.path().join("started")).unwrap();
    for process in started.lines() {
        assert!(!Path::new("/proc").join(process).exists(), "{process} is still there");
    }
}

#[tokio::test]
async fn nothing_is_started_where_no_module_is_loaded_or_nothing_runs() {
    let trace = |root: &Path| root.join("started");
    let script = |root: &Path| format!("touch {}", trace(root).display());
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(looked(empty.path(), &script(empty.path())).await, GpuReading::NoDriver);
    let image = machine();
    let gpus = RealGpus::new(&Files::below(image.path()).unwrap());
    assert_eq!(gpus.look(Some(Path::new("/usr/bin/touch")), Some(&trace(image.path()))).await.unwrap(), GpuReading::NoDriver);
    assert!(!trace(empty.path()).exists() && !trace(image.path()).exists());
    // With a module it would have been.
    let loaded = machine();
    looked(loaded.path(), &script(loaded.path())).await;
    assert!(trace(loaded.path()).exists());
}

#[tokio::test]
async fn an_agent_without_a_helper_says_so() {
    let root = machine();
    let files = Files::as_running_system(root.path()).unwrap();
    let seen = RealGpus::new(&files).look(None, None).await.unwrap();
    assert_eq!(seen, GpuReading::NotAsked(HelperTrouble::NotEmbedded));
    let absent = RealGpus::new(&files).look(Some(Path::new("/absent/helper")), None).await.unwrap();
    let GpuReading::NotAsked(HelperTrouble::CannotStart(why)) = absent else { panic!("{absent:?}") };
    assert!(why.contains("/absent/helper: No such file"), "{why}");
}

/// Starts `/bin/cat` as if it were the helper, on the file that names its own program, and returns that program's path.
async fn started_from(root: &Path) -> Result<PathBuf, HelperTrouble> {
    let files = Files::as_running_system(root).unwrap();
    let program = std::fs::read("/bin/cat").unwrap();
    let child = helper::start_carried(&files, &program, &["/proc/self/maps".as_ref()])?;
    let said = child.wait_with_output().await.unwrap();
    let maps = String::from_utf8(said.stdout).unwrap();
    let first = maps.lines().next().unwrap().split_whitespace().nth(5).unwrap().to_owned();
    Ok(first.into())
}

#[tokio::test]
async fn the_helper_is_kept_in_the_state_directory_and_replaced_when_it_is_another_one() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().canonicalize().unwrap().join("var/lib/gpuk-agent/helper");
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    let first = started_from(root.path()).await.unwrap();
    assert_eq!(first.parent(), Some(directory.as_path()));
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o7777, 0o500);
    let written = std::fs::metadata(&first).unwrap().modified().unwrap();
    std::fs::write(directory.join("gpuk-nvml-former"), "").unwrap();
    assert_eq!(started_from(root.path()).await.unwrap(), first);
    assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), written, "the same bytes are not written again");
    std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(&first, "something else").unwrap();
    assert_eq!(started_from(root.path()).await.unwrap(), first, "what somebody changed is put right");
    let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [first], "the former one is gone");
}

#[tokio::test]
async fn on_a_machine_that_the_agent_does_not_keep_nothing_of_it_outlives_the_boot() {
    let root = tempfile::tempdir().unwrap();
    let from = started_from(root.path()).await.unwrap();
    assert_eq!(from.parent(), Some(root.path().canonicalize().unwrap().join("run/gpuk-agent/helper").as_path()));
    assert!(!root.path().join("var").exists());
}

#[tokio::test]
async fn where_the_state_directory_lets_no_program_start_it_starts_from_memory() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
    std::fs::write(root.path().join("var/lib/gpuk-agent"), "not a directory").unwrap();
    assert_eq!(started_from(root.path()).await.unwrap(), Path::new("/memfd:gpuk-nvml"));
}

#[tokio::test]
async fn what_steps_ask_one_after_the_other_is_asked_once() {
    let root = machine();
    let script = root.path().join("script");
    let answer = r#"{"reading":{"driver":"550.163.01","nvml":null,"cuda":null,"gpus":[]}}"#;
    std::fs::write(&script, format!("echo x >>\"$(dirname \"$0\")/started\"\necho '{answer}'\n")).unwrap();
    let files = Files::as_running_system(root.path()).unwrap();
    let gpus = RealGpus { fresh: Duration::from_secs(3600), ..RealGpus::new(&files) };
    for _ in 0..2 {
        let read = gpus.look(Some(Path::new("/bin/sh")), Some(&script)).await.unwrap();
        assert!(matches!(read, GpuReading::Reading(_)), "{read:?}");
    }
    let started = || std::fs::read_to_string(root.path().join("started")).unwrap().lines().count();
    assert_eq!(started(), 1);
    // Another round asks anew.
    RealGpus::new(&files).look(Some(Path::new("/bin/sh")), Some(&script)).await.unwrap();
    assert_eq!(started(), 2);
}
