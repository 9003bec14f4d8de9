//! The tree of files that becomes a disk: a distribution's packages, then the few files that are ours.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::administrators_path;
use crate::cache::{Cache, Recipe};
use crate::command::run;
use crate::oci::{PAUSE, SingleProgram};
use crate::packages::Archive;
use crate::process::{Life, Process};
use crate::progress::{timed, wait_for};

const KERNEL: &str = include_str!("../../image/kernel.sh");
const IMPORT: &str = include_str!("../../image/containerd-for-import.toml");

/// Text files of the image.
const FILES: &[(&str, &str)] = &[
    ("usr/lib/systemd/system/kubelet.service", include_str!("../../image/kubelet.service")),
    ("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", include_str!("../../image/10-kubeadm.conf")),
    ("etc/cni/net.d/10-bridge.conflist", include_str!("../../image/10-bridge.conflist")),
    ("etc/cloud/cloud.cfg", include_str!("../../image/cloud.cfg")),
    ("etc/fstab", ""),
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    // Empty: systemd makes an id and keeps it, and does not preset every unit anew.
    ("etc/machine-id", ""),
    // No resolver: nothing outside can be reached, and a silent one costs every look-up ten seconds.
    ("etc/resolv.conf", ""),
];

/// Units that do nothing for a test machine but take their time in an emulated boot.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "ldconfig.service",
    "man-db.timer",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hibernate-clear.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-pcrmachine.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
];

/// Rules of udev for hardware that no test machine has: each device event runs through all of them.
const UNUSED_RULES: &[&str] = &[
    "60-autosuspend",
    "60-evdev",
    "60-fido-id",
    "60-input-id",
    "60-persistent-alsa",
    "60-persistent-input",
    "60-persistent-storage-mtd",
    "60-persistent-storage-tape",
    "60-persistent-v4l",
    "60-sensor",
    "70-camera",
    "70-joystick",
    "70-mouse",
    "70-touchpad",
    "75-probe_mtd",
    "78-sound-card",
];

/// Units that Debian leaves to the administrator.
const WANTED: &[(&str, &str)] =
    &[("multi-user.target", "systemd-networkd.service"), ("network-online.target", "systemd-networkd-wait-online.service")];

pub(super) fn ingredients(recipe: Recipe) -> Recipe {
    let files = FILES.iter().fold(recipe, |recipe, (path, text)| recipe.with(path).with(text));
    files.with(IMPORT).with(include_str!("root.rs"))
}

/// The archive of a plain distribution with these packages, as `mmdebstrap` makes it.
///
/// It is an entry of its own, so that a change of our few files does not cost a new
/// installation; downloads are kept for the next one.
pub(super) fn distribution(cache: &Cache, archive: &Archive, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let recipe = Recipe::new().with(archive.line(suite)).with(packages.join(" ")).with(KERNEL).with(OPTIONS.join(" "));
    let directory = cache.entry(&format!("debian-{suite}"), recipe, |directory| {
        timed(&format!("installing Debian {suite} into an archive"), || {
            install(cache, archive, suite, packages, &directory.join(ARCHIVE))
        })
    })?;
    Ok(directory.join(ARCHIVE))
}

const ARCHIVE: &str = "root.tar";

const OPTIONS: &[&str] = &[
    "--mode=root",
    "--variant=minbase",
    "--format=tar",
    "--architectures=amd64",
    "--skip=essential/unlink,download/empty,check/qemu",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--aptopt=Acquire::Languages \"none\"",
];

fn install(cache: &Cache, archive: &Archive, suite: &str, packages: &[&str], target: &Path) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "making an image needs root: it runs programs in the new root folder");
    let downloads = cache.shelf(&format!("packages-{suite}"))?;
    let script = tempfile::NamedTempFile::with_suffix(".sh")?;
    fs::write(script.path(), KERNEL)?;
    let hook = |phase: &str, text: String| format!("--{phase}-hook={text}");
    let folder = "/var/cache/apt/archives";
    let mut command = Command::new("mmdebstrap");
    command
        .args(OPTIONS)
        .arg(hook("setup", format!("mkdir -p \"$1\"{folder}")))
        .arg(hook("setup", format!("sync-in {} {folder}", downloads.display())))
        .arg(hook("customize", format!("sh {} \"$1\"", script.path().display())))
        .arg(hook("customize", format!("sync-out {folder} {}", downloads.display())))
        .arg(hook("customize", format!("rm -rf \"$1\"{folder} \"$1\"/var/lib/apt/lists && mkdir -p \"$1\"{folder}/partial")))
        .arg(format!("--include={}", packages.join(",")))
        .arg(suite)
        .arg(target)
        .arg(archive.line(suite))
        .env("PATH", administrators_path());
    run(&mut command, Duration::from_secs(1200)).map(drop)
}

/// Unpacks an archive with everything that a file system can hold.
pub(super) fn unpack(archive: &Path, root: &Path) -> Result<()> {
    fs::create_dir(root).with_context(|| format!("creating {}", root.display()))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "--file"]);
    run(tar.arg(archive).arg("--directory").arg(root), Duration::from_secs(300)).map(drop)
}

/// Makes of a plain distribution the image of a node that was not set up yet.
pub(super) fn customize(root: &Path, programs: &[PathBuf], images: &[SingleProgram]) -> Result<()> {
    for (path, text) in FILES {
        let path = root.join(path);
        make_way(&path)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for program in programs {
        let target = root.join("usr/bin").join(program.file_name().context("a program without a name")?);
        fs::copy(program, &target).with_context(|| format!("copying {}", program.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    }
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    for rule in UNUSED_RULES {
        link("/dev/null", &root.join(format!("etc/udev/rules.d/{rule}.rules")))?;
    }
    for (target, unit) in WANTED {
        link(&format!("/usr/lib/systemd/system/{unit}"), &units.join(format!("{target}.wants")).join(unit))?;
    }
    link("/usr/lib/systemd/system/multi-user.target", &units.join("default.target"))?;
    timed("importing container images", || import(root, images))
}

fn link(target: &str, path: &Path) -> Result<()> {
    make_way(path)?;
    symlink(target, path).with_context(|| format!("linking {}", path.display()))
}

/// The folder is there, and the file is not: a link must not lead the writer elsewhere.
fn make_way(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The kernel that was unpacked into the root.
pub(super) fn kernel(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))?;
    let mut names = entries.filter_map(Result::ok).map(|entry| entry.path());
    let kernel = names.find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    kernel.with_context(|| format!("no kernel in {}", boot.display()))
}

/// Puts the pause image and these into the store of the root's own containerd, which runs here for a moment:
/// natively this takes a second, in an emulated machine it takes long.
fn import(root: &Path, images: &[SingleProgram]) -> Result<()> {
    let folder = root.join("run/import");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("containerd.toml"), IMPORT)?;
    let busybox = root.join("usr/bin/busybox");
    let pause =
        SingleProgram { name: PAUSE, program: busybox, place: "bin/sleep".to_owned(), command: &["/bin/sleep", "2147483647"] };
    // In a mount namespace of its own, nothing that is mounted for containerd can be left behind.
    let script = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" containerd --config /run/import/containerd.toml";
    let arguments = ["--mount", "--propagation=private", "sh", "-c", script, &root.display().to_string()];
    let arguments = arguments.map(str::to_owned);
    let log = root.with_extension("import.log");
    let mut server = Process::start("containerd", Path::new("unshare"), &arguments, root, &log, Life::WithUs)?;
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        command.env("PATH", administrators_path()).arg(root);
        command.args(["ctr", "--address", "/run/import/containerd.sock", "-n", "k8s.io"]).args(arguments);
        run(&mut command, Duration::from_secs(60))
    };
    wait_for("containerd in the image", Duration::from_secs(30), || {
        server.expect_running()?;
        ctr(&["images", "list"]).map(Some)
    })?;
    for image in std::iter::once(&pause).chain(images) {
        image.write(&folder.join("image.tar"))?;
        ctr(&["images", "import", "/run/import/image.tar"])?;
    }
    server.kill()?;
    // Version 1.7 leaves one of its own beside the one that was asked for.
    for folder in [folder, root.join("run/containerd")].iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))
}
