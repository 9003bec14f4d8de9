//! A virtual machine boots its kernel directly, finds its disk on NVMe and its
//! identity on a seed disc, and is spoken to through QEMU's guest agent: no
//! network, no boot loader and no initrd stand between a test and its node.

mod accelerator;
mod gpu;
mod guest_agent;
mod hardware;
mod options;
mod seed;
mod serial;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{run, tail};
use crate::image::Image;
use crate::process::Process;
use crate::progress::{seconds, wait_for};
pub use accelerator::Accelerator;
pub use gpu::Gpu;
use guest_agent::GuestAgent;
pub use guest_agent::Output;
use hardware::Hardware;
pub use options::{Disc, MachineOptions};
use serial::Serial;
pub use serial::{Line, Listener};

/// The address of the host in QEMU's user-mode network.
pub const HOST: &str = "10.0.2.2";

/// The address of every machine in its own user-mode network.
pub const OWN: &str = "10.0.2.15";

/// A virtual machine with a disk of its own.
#[derive(Debug)]
pub struct Machine {
    options: MachineOptions,
    directory: PathBuf,
    started: Instant,
    serial: Serial,
    agent: GuestAgent,
    qemu: Process,
    /// After the process, which asks for it.
    hardware: Hardware,
    /// Removes the folder at last.
    _folder: Option<tempfile::TempDir>,
}

impl Machine {
    /// Boots a machine that keeps its files in a temporary folder.
    pub fn boot(image: &Image, options: MachineOptions) -> Result<Self> {
        let folder = temporary()?;
        let mut machine = Self::boot_in(image, options, folder.path())?;
        machine._folder = Some(folder);
        Ok(machine)
    }

    /// Boots a machine that keeps its files in `directory`, which must be empty.
    pub fn boot_in(image: &Image, options: MachineOptions, directory: &Path) -> Result<Self> {
        let accelerator = accelerator::best(image.kernel())?;
        let mut overlay = Command::new("qemu-img");
        overlay.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.disk()).arg(directory.join("disk.qcow2"));
        run(&mut overlay, Duration::from_secs(60))?;
        Self::start_in(accelerator, image.kernel(), options, directory)
    }

    /// Starts it in a folder that has its disk.
    fn start_in(accelerator: Accelerator, kernel: &Path, options: MachineOptions, directory: &Path) -> Result<Self> {
        seed::write(&options, directory)?;
        let hardware = Hardware::new(accelerator, kernel, &options, directory)?;
        let qemu = hardware.power_on(&options, directory)?;
        Ok(Self {
            serial: Serial::follow(directory, options.listener.clone())?,
            agent: GuestAgent::at(directory.join("agent.socket")),
            started: Instant::now(),
            directory: directory.to_owned(),
            options,
            qemu,
            hardware,
            _folder: None,
        })
    }

    /// The folder with its disk, sockets and `serial.log`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How its processors are made.
    pub fn accelerator(&self) -> Accelerator {
        self.hardware.accelerator
    }

    /// The process id of QEMU.
    pub fn process_id(&self) -> u32 {
        self.qemu.id()
    }

    /// The time since it was first powered on.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until commands can be run in it.
    pub fn wait_for_shell(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while let Err(error) = self.agent.connect(Duration::from_secs(1)) {
            self.qemu.expect_running()?;
            if Instant::now() >= deadline {
                let text = format!(
                    "no answer from the machine's guest agent within {}; its console ends with\n{}",
                    seconds(limit),
                    self.serial_tail(15)
                );
                return Err(error.context(text));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Runs a bash script in the machine and waits for its end, for `limit` at most, boot included.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        self.wait_for_shell(limit)?;
        let left = deadline.saturating_duration_since(Instant::now());
        self.agent.run(script, left).with_context(|| format!("running in the machine: {script}"))
    }

    /// Runs a script in a machine that another program left running, by the machine's folder.
    pub fn ask(directory: &Path, script: &str, limit: Duration) -> Result<Output> {
        let mut agent = GuestAgent::at(directory.join("agent.socket"));
        agent.connect(Duration::from_secs(5))?;
        agent.run(script, limit)
    }

    /// Like [`Machine::run`], and anything but exit status 0 is an error; answers the standard output.
    pub fn check(&mut self, script: &str, limit: Duration) -> Result<String> {
        let output = self.run(script, limit)?;
        match output.code {
            0 => Ok(output.stdout),
            code => {
                bail!("in the machine: {script}\nexit status {code}\n{}{}", tail(&output.stdout, 20), tail(&output.stderr, 20))
            }
        }
    }

    /// Puts a file into the running machine.
    pub fn write(&mut self, path: &str, content: &[u8], limit: Duration) -> Result<()> {
        self.wait_for_shell(limit)?;
        let script = format!("mkdir -p \"$(dirname {path})\" && cat > {path}");
        let output = self.agent.run_with_input(&script, content, limit)?;
        if output.code != 0 {
            bail!("writing {path} in the machine: {}", output.stderr);
        }
        Ok(())
    }

    /// The id of the boot it is in.
    pub fn boot_id(&mut self, limit: Duration) -> Result<String> {
        Ok(self.check("cat /proc/sys/kernel/random/boot_id", limit)?.trim().to_owned())
    }

    /// Reboots it in good order and waits until it answers again.
    pub fn reboot(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let before = self.boot_id(limit)?;
        // The answer may be lost with the machine; the new boot id is what counts.
        let _ = self.agent.run("systemctl reboot", Duration::from_secs(10));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.boot_id(left.min(Duration::from_secs(5))) {
                Ok(now) if now != before => return Ok(()),
                Err(error) if left.is_zero() => return Err(error.context("rebooting")),
                Ok(_) if left.is_zero() => bail!("the machine was told to reboot and did not within {}", seconds(limit)),
                _ => self.agent.disconnect(),
            }
            self.qemu.expect_running()?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes the power away: what the machine had not written is lost.
    pub fn power_off_hard(&mut self) -> Result<()> {
        self.agent.disconnect();
        self.qemu.kill()
    }

    /// Boots the same disk again after [`Machine::power_off_hard`].
    pub fn power_on(&mut self) -> Result<()> {
        self.qemu = self.hardware.power_on(&self.options, &self.directory)?;
        Ok(())
    }

    /// Shuts it down in good order and waits until its power is off.
    pub fn shut_down(&mut self, limit: Duration) -> Result<()> {
        self.wait_for_shell(limit)?;
        // The answer may be lost with the machine; its end is what counts.
        let _ = self.agent.run("systemctl poweroff", Duration::from_secs(10));
        self.agent.disconnect();
        wait_for("the machine to power off", limit, || Ok(self.qemu.has_ended()?.then_some(())))
    }

    /// Boots a copy of this machine's disk as another machine; this one must be off.
    pub fn boot_copy(&self, options: MachineOptions) -> Result<Self> {
        let folder = temporary()?;
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).arg(self.directory.join("disk.qcow2")).arg(folder.path());
        run(&mut copy, Duration::from_secs(120))?;
        let mut machine = Self::start_in(self.hardware.accelerator, &self.hardware.kernel, options, folder.path())?;
        machine._folder = Some(folder);
        Ok(machine)
    }

    /// A power cut: off at once, on again, and waits until it answers.
    pub fn power_cut(&mut self, limit: Duration) -> Result<()> {
        self.power_off_hard()?;
        self.power_on()?;
        self.wait_for_shell(limit)
    }

    /// Waits for a line of the console that contains `text`, from the first line on.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<Line> {
        self.wait_for_line_after(0, text, limit)
    }

    /// Waits for a line of the console that contains `text`, ignoring the first `skip` lines.
    pub fn wait_for_line_after(&mut self, skip: usize, text: &str, limit: Duration) -> Result<Line> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = self.serial.find(skip, text, Duration::from_millis(200)) {
                return Ok(line);
            }
            self.qemu.expect_running()?;
            if Instant::now() >= deadline {
                bail!("no line with {text:?} on the console within {}; it ends with\n{}", seconds(limit), self.serial_tail(15));
            }
        }
    }

    /// How many lines the console has shown.
    pub fn lines(&self) -> usize {
        self.serial.count()
    }

    /// The last lines of the console, with their times.
    pub fn serial_tail(&self, lines: usize) -> String {
        self.serial.tail(lines)
    }
}

fn temporary() -> Result<tempfile::TempDir> {
    let keep = std::env::var_os("GPUK_VM_KEEP").is_some();
    Ok(tempfile::Builder::new().prefix("gpuk-machine-").disable_cleanup(keep).tempdir()?)
}
