//! A join that is cut off anywhere is finished by the next start, and leaves nothing behind.
//!
//! The machine is this very program, started again for it: agent, kubeadm and kubelet die together at one point, as in a power cut that loses
//! nothing that was written. Every point is tried: both edges of each change, and each file of kubeadm and the kubelet before it is there, empty,
//! half and whole.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gpuk_agent::state::Verdict;
use integration::joiner::{Machine, Orders, Points, kubelet, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vm_tests::ClusterOptions;

use crate::scene::{Scene, files_with, on_this_thread};

/// Ends this process at the point of this number, and writes down those before.
struct Cut {
    at: Option<usize>,
    log: PathBuf,
    reached: RefCell<Vec<String>>,
}

impl Points for Cut {
    fn reached(&self, point: &str) {
        let mut reached = self.reached.borrow_mut();
        if self.at == Some(reached.len()) {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
        reached.push(point.to_owned());
        std::fs::write(&self.log, reached.join("\n")).unwrap();
    }
}

/// The machine between two cuts; only `machine` below starts it.
#[test]
#[ignore = "it is a part of the test below"]
fn one_start() {
    let word = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(word("GPUK_KILLED_FOLDER"));
    let orders = Orders {
        endpoints: vec![word("GPUK_KILLED_ENDPOINT")],
        token: word("GPUK_KILLED_TOKEN"),
        pin: Some(word("GPUK_KILLED_PIN")),
        name: word("GPUK_KILLED_NAME"),
        request_limit: Duration::from_secs(5),
        pace: 2,
        kubelet_pause: Duration::from_millis(50),
    };
    let cut = Cut { at: word("GPUK_KILLED_AT").parse().ok(), log: folder.join("points"), reached: RefCell::default() };
    on_this_thread(async {
        let machine = Machine::boot(&folder.join("root"), orders, Box::new(cut));
        let record = machine.bring_up(Duration::from_secs(100)).await;
        assert_eq!(record.verdict, Verdict::Ready, "{record:?}");
        let registered = until(Duration::from_secs(20), || kubelet::is_registered(&machine).then_some(())).await;
        assert!(registered.is_some(), "the kubelet did not register");
        // The next round may still note down that a cluster knows the name, and has nothing to join.
        let record = machine.bring_up(Duration::from_secs(100)).await;
        assert!(record.verdict == Verdict::Ready && record.changes.is_empty(), "{record:?}");
    });
}

/// Starts the machine in `folder`, to be cut off at a point.
fn start(scene: &Scene, folder: &Path, name: &str, at: Option<usize>) -> (ExitStatus, String) {
    std::fs::create_dir_all(folder.join("root")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::one_start", "--ignored", "--nocapture"]).stdin(Stdio::null());
    command.env("GPUK_KILLED_FOLDER", folder).env("GPUK_KILLED_ENDPOINT", scene.cluster.endpoint());
    command.env("GPUK_KILLED_TOKEN", scene.cluster.token()).env("GPUK_KILLED_PIN", scene.cluster.ca_cert_hash().unwrap());
    command.env("GPUK_KILLED_NAME", name).env("GPUK_KILLED_AT", at.map(|at| at.to_string()).unwrap_or_default());
    let output = command.output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The files of a machine that matter, with what is in those that are the same on every machine of one name.
fn files(root: &Path, name: &str) -> Vec<(String, String)> {
    let files = integration::snapshot(root).into_iter().filter_map(|(path, bytes)| {
        let path = path.strip_prefix(root).unwrap().display().to_string();
        // What is of the moment, or kept for a person after a repair, or tells of a Node that the first start had made.
        let is_other = path.starts_with("proc/") || path.contains("/replaced/") || path.ends_with("/joined-onto");
        let text = String::from_utf8_lossy(&bytes).replace(name, "NAME");
        let text = if path.contains("kubelet-client") { "a certificate".to_owned() } else { text };
        (!is_other).then_some((path, text))
    });
    files.collect()
}

#[test]
fn a_join_that_is_killed_anywhere_is_finished_by_the_next_start() {
    let scene = Scene::set(ClusterOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let uncut = folder.path().join("uncut");
    let (status, said) = start(&scene, &uncut, "uncut", None);
    assert!(status.success(), "{said}");
    let points = std::fs::read_to_string(uncut.join("points")).unwrap();
    let points: Vec<&str> = points.lines().collect();
    eprintln!("{} points:\n{}", points.len(), points.join("\n"));
    assert!(points.len() > 30 && points.iter().any(|point| point.contains("half of /etc/kubernetes/pki/ca.crt")));
    let expected = files(&uncut.join("root"), "uncut");

    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < points.len()) {
                    if let Err(why) = cut_and_start_again(&scene, &folder.path().join(at.to_string()), at, &expected) {
                        failed.lock().unwrap().push(format!("killed at {at} ({}): {why}", points[at]));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), points.len(), failed.join("\n\n"));
    let mut names: Vec<String> = (0..points.len()).map(|at| format!("killed-{at}")).chain(["uncut".to_owned()]).collect();
    names.sort();
    let mut nodes = scene.nodes();
    nodes.sort();
    assert_eq!(nodes, names);
}

fn cut_and_start_again(scene: &Scene, folder: &Path, at: usize, expected: &[(String, String)]) -> Result<(), String> {
    let name = format!("killed-{at}");
    let (status, said) = start(scene, folder, &name, Some(at));
    if status.signal() != Some(Signal::SIGKILL as i32) {
        return Err(format!("it was not killed: {status}\n{said}"));
    }
    let (status, said) = start(scene, folder, &name, None);
    if !status.success() {
        return Err(format!("the next start: {status}\n{said}"));
    }
    let root = folder.join("root");
    let left = files_with(&root, scene.secret());
    if !left.is_empty() {
        return Err(format!("the secret is left in {left:?}"));
    }
    let found = files(&root, &name);
    if found != expected {
        let differ =
            found.iter().filter(|file| !expected.contains(file)).chain(expected.iter().filter(|file| !found.contains(file)));
        return Err(format!("other files than without a cut: {:?}", differ.collect::<Vec<_>>()));
    }
    Ok(())
}
