//! KVM is many times faster than emulation, and often is not there: in a nested
//! machine `/dev/kvm` may even answer and then not be able to run an ordinary kernel.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::packages::find;
use crate::process::{Life, Process};
use crate::progress::{say, wait_for};

/// How a machine's processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the real ones.
    Kvm,
    /// By emulation, which works everywhere.
    Tcg,
}

impl Accelerator {
    pub(super) fn arguments(self) -> &'static str {
        match self {
            Self::Kvm => "-accel kvm -cpu host",
            Self::Tcg => "-accel tcg,thread=multi -cpu Nehalem",
        }
    }

    /// What the kernel must be told beside.
    pub(super) fn kernel_line(self) -> &'static str {
        match self {
            Self::Kvm => "",
            // On a busy host emulation now and then loses an interrupt of a timer. Where timers are set one by one the processor then
            // sleeps for ever; with a tick it only oversleeps.
            Self::Tcg => "nohz=off highres=off",
        }
    }
}

static KNOWN: Mutex<Option<Accelerator>> = Mutex::new(None);

/// KVM where it boots this kernel; `GPUK_VM_ACCEL=tcg|kvm` decides without a trial.
pub(super) fn best(kernel: &Path) -> Result<Accelerator> {
    match std::env::var("GPUK_VM_ACCEL").as_deref() {
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok("tcg") => return Ok(Accelerator::Tcg),
        Ok("") | Err(_) => {}
        Ok(other) => bail!("GPUK_VM_ACCEL is {other:?}: it must be tcg or kvm"),
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(accelerator) = *known {
        return Ok(accelerator);
    }
    let accelerator = match boots_with_kvm(kernel) {
        Ok(()) => Accelerator::Kvm,
        Err(error) => {
            let cause = format!("{error:#}");
            let cause = cause.lines().find(|line| line.contains("qemu-system")).or_else(|| cause.lines().next());
            say(format_args!("virtual machines are emulated, KVM does not work here: {}", cause.unwrap_or_default()));
            Accelerator::Tcg
        }
    };
    *known = Some(accelerator);
    Ok(accelerator)
}

/// Boots the kernel without any disk: it works if the kernel gets as far as missing it.
fn boots_with_kvm(kernel: &Path) -> Result<()> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").context("opening /dev/kvm")?;
    let folder = tempfile::tempdir()?;
    let program = find("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?;
    let console = folder.path().join("console");
    let arguments = "-M q35 -m 256 -nodefaults -no-user-config -display none -no-reboot -serial file:console";
    let mut words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    words.extend(Accelerator::Kvm.arguments().split(' ').map(str::to_owned));
    words.extend(["-kernel".to_owned(), kernel.display().to_string()]);
    words.extend(["-append".to_owned(), "console=ttyS0 panic=-1".to_owned()]);
    let mut qemu = Process::start("qemu", &program, &words, folder.path(), &folder.path().join("log"), Life::WithUs)?;
    let verdict = wait_for("a kernel to boot with KVM", Duration::from_secs(10), || {
        let text = std::fs::read(&console).unwrap_or_default();
        let booted = String::from_utf8_lossy(&text).contains("Unable to mount root fs");
        match (booted, qemu.has_ended()?) {
            (true, _) => Ok(Some(Ok(()))),
            (false, true) => Ok(Some(Err(qemu.expect_running().err()))),
            (false, false) => Ok(None),
        }
    })?;
    verdict.map_err(|error| error.unwrap_or_else(|| anyhow::anyhow!("QEMU ended")))
}
