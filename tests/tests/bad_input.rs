//! Bad input gets a clear error that names the place and what would be right, and leaves everything as it was.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use integration::{Ran, agent, image_root, run, snapshot, write};

/// Runs `up` on an image with this configuration; nothing may change, and the exit code says "configuration".
fn refused(configuration: &str) -> String {
    let root = image_root();
    write(root.path(), "etc/gpuk/agent.toml", configuration);
    let before = snapshot(root.path());
    let ran = run(root.path(), &["up"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert_eq!(snapshot(root.path()), before, "nothing was changed");
    assert!(ran.err.contains("the configuration is wrong; nothing was changed"), "{}", ran.err);
    ran.err
}

#[test]
fn not_toml() {
    let error = refused("[cluster]\nendpoints = [\"https://a\"\ntoken = = 3\n");
    assert!(error.contains("/etc/gpuk/agent.toml:3:"), "{error}");
}

#[test]
fn a_wrong_type() {
    let error = refused("[node]\nallow-swap = \"perhaps\"\n");
    assert!(error.contains("/etc/gpuk/agent.toml:2:14: node.allow-swap:") && error.contains("right would be"), "{error}");
}

#[test]
fn an_unknown_key() {
    let error = refused("[cluster]\nendpoint = \"https://a\"\n");
    assert!(
        error.contains("/etc/gpuk/agent.toml:2:1: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?"),
        "{error}"
    );
}

#[test]
fn a_malformed_endpoint() {
    let error = refused("[cluster]\nendpoints = [\"http//a b\"]\n");
    assert!(error.contains("/etc/gpuk/agent.toml:2:14: cluster.endpoints:") && error.contains("right would be"), "{error}");
}

#[test]
fn a_malformed_token_is_not_shown() {
    let error = refused("[cluster]\ntoken = \"hunter2hunter2\"\n");
    assert!(error.contains("/etc/gpuk/agent.toml:2:9: cluster.token:") && error.contains("abcdef.0123456789abcdef"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_pin_that_is_too_short_says_how_long_it_is() {
    let error = refused("[cluster]\nca-cert-hashes = [\"sha256:abcd\"]\n");
    assert!(error.contains("cluster.ca-cert-hashes:") && error.contains('4') && error.contains("64"), "{error}");
}

#[test]
fn user_data_and_environment_are_named_too() {
    let root = image_root();
    write(root.path(), "var/lib/cloud/seed/nocloud/meta-data", "instance-id: i-1\n");
    write(root.path(), "var/lib/cloud/seed/nocloud/user-data", "#cloud-config\ngpuk:\n  node:\n    nam: x\n");
    let ran = run(root.path(), &["plan"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.err.contains("user-data:4:5: unknown key \"nam\" in [node]; did you mean \"name\"?"), "{}", ran.err);
    let ran: Ran = Command::new(agent()).args(["plan"]).env_clear().env("GPUK_NODE_NAM", "x").output().unwrap().into();
    assert!(ran.err.contains("GPUK_NODE_NAM") && ran.err.contains("did you mean"), "{}", ran.err);
}

#[test]
fn config_check_reads_one_file() {
    let root = image_root();
    write(root.path(), "good.toml", "[node]\nname = \"gpu-1\"\n");
    write(root.path(), "bad.toml", "[node]\nname = \"Gpu 1\"\n");
    let check = |name: &str| -> Ran {
        Command::new(agent()).args(["config", "check"]).arg(root.path().join(name)).env_clear().output().unwrap().into()
    };
    assert_eq!(check("good.toml").code, Some(0));
    let bad = check("bad.toml");
    assert_eq!(bad.code, Some(78));
    assert!(bad.err.contains("bad.toml:2:8: node.name:"), "{}", bad.err);
    let absent = check("absent.toml");
    assert!(absent.code == Some(78) && absent.err.contains("absent.toml: there is no such file"), "{absent:?}");
}

/// Runs a script with `ROOT` and `AGENT` set, in a mount namespace of its own. Needs root, as continuous integration has it.
fn in_mount_namespace(root: &std::path::Path, script: &str) -> Ran {
    let command = format!("set -e; mount --make-rprivate /; {script}");
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &command])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("ROOT", root)
        .env("AGENT", agent())
        .output()
        .unwrap()
        .into()
}

#[test]
fn a_full_disk_is_told_and_the_old_file_stays_whole() {
    let root = image_root();
    let script = "mount -t tmpfs -o size=16k none $ROOT/etc/; echo '/s none swap sw 0 0' > $ROOT/etc/fstab; \
        dd if=/dev/zero of=$ROOT/etc/filler bs=1k 2>/dev/null || true; \
        code=0; $AGENT --root $ROOT up || code=$?; cat $ROOT/etc/fstab; ls -A $ROOT/etc; exit $code";
    let ran = in_mount_namespace(root.path(), script);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("No space left on device") && ran.out.contains("writing /etc/"), "{}", ran.out);
    assert!(ran.out.contains("\n/s none swap sw 0 0\n"), "the old file is whole: {}", ran.out);
    assert!(!ran.out.contains(".gpuk-new"), "no temporary file is left: {}", ran.out);
}

#[test]
fn a_read_only_etc_is_told() {
    let root = image_root();
    let script = "mount --bind $ROOT/etc $ROOT/etc; mount -o remount,bind,ro $ROOT/etc; exec $AGENT --root $ROOT up";
    let ran = in_mount_namespace(root.path(), script);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("Read-only file system") && ran.out.contains("/etc/"), "{}", ran.out);
}

#[test]
fn without_root_up_says_so_and_plan_and_doctor_work() {
    let copy = agent_for_everyone();
    let as_nobody = |words: &[&str]| -> Ran {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&*copy).args(words);
        command.env_clear().env("PATH", "/usr/bin:/bin").output().unwrap().into()
    };
    let nobody = |verb| as_nobody(&[verb]);
    let nobody_below = |root: &std::path::Path| as_nobody(&["--root", root.to_str().unwrap(), "doctor"]);
    let up = nobody("up");
    assert_eq!(up.code, Some(77), "{up:?}");
    assert!(up.err.contains("needs root") && up.err.contains("sudo gpuk-agent up"), "{}", up.err);
    let plan = nobody("plan");
    assert_eq!(plan.code, Some(2), "{plan:?}");
    assert_eq!(nobody("doctor").code, Some(1));
    let root = image_root();
    let open =
        |path: &str, mode| std::fs::set_permissions(root.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    open("", 0o755);
    open("etc/fstab", 0o600);
    let doctor = nobody_below(root.path());
    assert!(doctor.out.contains("could not look: opening /etc/fstab: EACCES: Permission denied"), "{}", doctor.out);
}

/// A copy of the agent that another user may run wherever the build directory is.
fn agent_for_everyone() -> tempfile::TempPath {
    let copy = tempfile::Builder::new().prefix("gpuk-agent-").tempfile_in("/tmp").unwrap().into_temp_path();
    std::fs::copy(agent(), &copy).unwrap();
    copy
}
