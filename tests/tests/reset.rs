//! What was made in an image is taken away again to the byte, but for what somebody else changed since.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

use integration::{image_root, run, snapshot, write};

/// Every file but the agent's own memory, and its lock, which goes with the boot.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    snapshot(root)
        .into_iter()
        .filter(|(path, _)| !["var/lib/gpuk-agent", "run"].iter().any(|own| path.starts_with(root.join(own))))
        .collect()
}

#[test]
fn reset_all_leaves_an_image_as_it_was() {
    let root = image_root();
    let before = files(root.path());
    assert_eq!(run(root.path(), &["up"]).code, Some(0));
    let after = snapshot(root.path());
    assert_ne!(files(root.path()), before);

    let shown = run(root.path(), &["reset", "--all", "--dry-run"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for line in ["join: nothing of it is there", "files: write /etc/fstab", "files: remove /etc/modules-load.d/gpuk-agent.conf"] {
        assert!(shown.out.contains(line), "{line}: {}", shown.out);
    }
    assert_eq!(snapshot(root.path()), after, "a dry run touches nothing");

    let reset = run(root.path(), &["reset", "--all"]);
    assert_eq!(reset.code, Some(0), "{reset:?}");
    assert_eq!(files(root.path()), before);
    let kept: Vec<_> =
        std::fs::read_dir(root.path().join("var/lib/gpuk-agent")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["replaced"], "only the bytes that were replaced stay");
    assert_eq!(run(root.path(), &["reset", "--all"]).code, Some(0), "and a second time there is nothing to do");
}

#[test]
fn what_somebody_changed_since_stays_and_is_named() {
    let root = image_root();
    run(root.path(), &["up"]);
    write(root.path(), "etc/fstab", "/dev/sdb1 / ext4 defaults 0 1\n");
    let reset = run(root.path(), &["reset", "--all"]);
    assert_eq!(reset.code, Some(0), "{reset:?}");
    assert!(reset.err.contains("/etc/fstab was changed by somebody else since, and stays"), "{reset:?}");
    assert_eq!(std::fs::read_to_string(root.path().join("etc/fstab")).unwrap(), "/dev/sdb1 / ext4 defaults 0 1\n");
    assert!(!root.path().join("etc/modules-load.d/gpuk-agent.conf").exists());
}

#[test]
fn what_is_to_be_reset_is_said() {
    let root = image_root();
    for words in [&["reset"][..], &["reset", "--all", "--rejoin"], &["reset", "join", "--all"], &["reset", "nonsense"]] {
        assert_eq!(run(root.path(), words).code, Some(64), "{words:?}");
    }
}
