//! The kernel's own drivers take a GPU before NVIDIA's can, in the initramfs already, unless both places say that they may not.

use std::time::Duration;

use anyhow::Result;

use crate::look::Look;
use crate::step::{Change, Command};

/// Says so where nobody else does.
const FILE: &str = "/etc/modprobe.d/gpuk-agent-nouveau.conf";

const TEXT: &str = "# Written by gpuk-agent: NVIDIA's driver needs the GPUs.\nblacklist nouveau\nblacklist nova_core\noptions nouveau modeset=0\n";

/// Where modprobe.d(5) files live.
const DIRECTORIES: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

/// Programs that make an initramfs, with what has them make it anew.
const MAKERS: [(&str, &[&str]); 2] = [
    ("/usr/sbin/update-initramfs", &["update-initramfs", "-u", "-k", "all"]),
    ("/usr/bin/dracut", &["dracut", "--regenerate-all", "--force"]),
];

/// What keeps the kernel's own drivers away; nothing where that is so already.
pub fn changes(look: Look<'_>) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if !is_blacklisted(look)? {
        changes.push(Change::write(FILE, TEXT));
        changes.extend(new_initramfs(look)?);
    } else if is_older_than_blacklist(look)? {
        changes.extend(new_initramfs(look)?);
    }
    Ok(changes)
}

/// Whether some file says that nouveau may not be loaded.
pub fn is_blacklisted(look: Look<'_>) -> Result<bool> {
    for directory in DIRECTORIES {
        for name in look.list(directory)?.into_iter().filter(|name| name.ends_with(".conf")) {
            let text = look.read(format!("{directory}/{name}"))?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if text.lines().any(|line| line.split_whitespace().eq(["blacklist", "nouveau"])) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Debian's and Ubuntu's name, and that of the RHEL family.
fn initramfs(release: &str) -> [String; 2] {
    [format!("/boot/initrd.img-{release}"), format!("/boot/initramfs-{release}.img")]
}

/// Our file was written after the running kernel's initramfs, and the agent was cut off before it was made anew.
fn is_older_than_blacklist(look: Look<'_>) -> Result<bool> {
    let Some(written) = look.modified(FILE)? else { return Ok(false) };
    for path in initramfs(&look.facts.kernel) {
        if look.modified(path)?.is_some_and(|made| made < written) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has it made anew, where there is one to make.
fn new_initramfs(look: Look<'_>) -> Result<Option<Change>> {
    let has_any = look.list("/boot")?.iter().any(|name| name.starts_with("initrd.img-") || name.starts_with("initramfs-"));
    for (program, words) in MAKERS {
        if has_any && look.exists(program)? {
            let mut command = Command::new([], Duration::from_secs(600));
            command.argv = words.iter().map(|word| (*word).to_owned()).collect();
            return Ok(Some(Change::Run(command)));
        }
    }
    Ok(None)
}
