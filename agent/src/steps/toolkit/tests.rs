//! A toolkit that is there, one that is not, and somebody else's.

use super::*;
use crate::facts::{Facts, Gpu};
use crate::steps::tests::machine;

const COMPLETE: [&str; 3] = ["usr/bin/nvidia-container-runtime", "usr/bin/nvidia-ctk", "usr/bin/nvidia-cdi-hook"];

/// The answer on a machine with a GPU, these files and this configuration.
async fn check(files: &[(&str, &str)], text: &str) -> Status {
    let (_root, host) = machine(files);
    let facts = Facts { gpus: vec![Gpu::default()], ..Facts::default() };
    crate::steps::tests::check(&Toolkit, &host, &facts, text).await
}

fn empty<'a>(paths: &[&'a str]) -> Vec<(&'a str, &'static str)> {
    paths.iter().map(|path| (*path, "")).collect()
}

async fn changes(files: &[(&str, &str)], text: &str) -> (String, Vec<Change>) {
    match check(files, text).await {
        Status::Pending { why, changes } => (why, changes),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    assert_eq!(check(&empty(&COMPLETE), "").await, Status::Ready("nvidia-container-runtime in /usr/bin".to_owned()));
    let operators = check(&empty(&["usr/local/nvidia/toolkit/nvidia-container-runtime"]), "").await;
    assert!(matches!(operators, Status::Ready(text) if text.starts_with("the GPU Operator's")));
    assert!(matches!(check(&[], "[gpu]\nenabled = \"never\"\n").await, Status::Ready(_)));
}

#[tokio::test]
async fn what_is_missing_is_installed_or_told() {
    let (why, made) = changes(&empty(&["usr/bin/apt-get", "usr/bin/nvidia-ctk"]), "").await;
    assert_eq!(why, "there is no nvidia-container-runtime and no nvidia-cdi-hook in /usr/bin or /usr/local/bin");
    let words: Vec<String> = made.iter().map(ToString::to_string).collect();
    assert!(
        words[0].ends_with("update") && words[1].ends_with("--no-install-recommends install nvidia-container-toolkit"),
        "{words:?}"
    );

    let own = "[gpu.toolkit]\nrepository = \"https://packages.example.com/stable/deb/amd64 /\"\nrepository-key = \"/usr/share/keyrings/x.gpg\"\n";
    let (_, made) = changes(&empty(&["usr/bin/apt-get"]), own).await;
    let Change::Write { path, contents, .. } = &made[0] else { panic!("{made:?}") };
    let text = String::from_utf8_lossy(&contents.bytes);
    assert_eq!(path.to_str(), Some(APT_SOURCE));
    assert!(
        text.contains("URIs: https://packages.example.com/stable/deb/amd64\nSuites: /\nSigned-By: /usr/share/keyrings/x.gpg\n"),
        "{text}"
    );

    for (files, text) in [(&["usr/bin/apt-get"][..], "[gpu.toolkit]\ninstall = \"never\"\n"), (&[], "")] {
        let Status::Broken(finding) = check(&empty(files), text).await else { panic!("nobody is called") };
        assert_eq!(finding.code, "toolkit-missing");
    }
}

#[tokio::test]
async fn the_mode_is_changed_where_it_stands() {
    let text = "# mine\n[nvidia-container-runtime]\nlog-level = \"info\" # why not\nmode = \"auto\"\n";
    let mut files = empty(&COMPLETE);
    files.push(("etc/nvidia-container-runtime/config.toml", text));
    let cdi = "[gpu.toolkit]\nmode = \"cdi\"\n";
    let (why, made) = changes(&files, cdi).await;
    assert_eq!(why, "/etc/nvidia-container-runtime/config.toml does not say mode \"cdi\"");
    let Change::Write { contents, .. } = &made[0] else { panic!("{made:?}") };
    let changed = text.replace("\"auto\"", "\"cdi\"");
    assert_eq!(String::from_utf8_lossy(&contents.bytes), changed);
    files.pop();
    files.push(("etc/nvidia-container-runtime/config.toml", &changed));
    assert!(matches!(check(&files, cdi).await, Status::Ready(_)));
    files.pop();
    assert_eq!(changes(&files, cdi).await.1.len(), 1, "a file that is not there is made");
}
