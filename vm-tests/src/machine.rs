//! A virtual machine boots its kernel directly, finds its disk on NVMe and its
//! identity on a seed disc, and is spoken to through QEMU's guest agent: no
//! network, no boot loader and no initrd stand between a test and its node.

mod accelerator;
mod gpu;
mod guest_agent;
mod seed;
mod serial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::command::{run, tail};
use crate::image::Image;
use crate::packages::find;
use crate::parts::{Parts, Qemu};
use crate::process::{Life, Process};
use crate::progress::seconds;
pub use accelerator::Accelerator;
pub use gpu::Gpu;
use guest_agent::GuestAgent;
pub use guest_agent::Output;
use serial::Serial;
pub use serial::{Line, Listener};

/// The address of the host in QEMU's user-mode network.
pub const HOST: &str = "10.0.2.2";

/// Debian's cloud kernel has NVMe and ext4 built in. The rest saves time: what
/// is switched off protects a kernel from its users, and this one has none.
const KERNEL_LINE: &str = "console=ttyS0 rw root=/dev/nvme0n1 rootfstype=ext4 ds=nocloud panic=5 net.ifnames=0 \
    mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests lsm=capability audit=0";

/// What a machine is given.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Its instance id, which is also the name of its folder.
    pub instance_id: String,
    /// Its user-data.
    pub user_data: String,
    /// More lines of its meta-data, for example `local-hostname: web`.
    pub meta_data: String,
    /// In MiB; 1.5 GiB are enough for a worker.
    pub memory: u32,
    /// Virtual processors.
    pub processors: u32,
    /// Cards on its PCI bus, in the order of their addresses; they are played by this program.
    pub gpus: Vec<Gpu>,
    /// How long it lives.
    pub life: Life,
    /// Sees each line of the serial console as it comes.
    pub listener: Listener,
}

impl MachineOptions {
    /// A worker with this instance id and user-data.
    pub fn new(instance_id: &str, user_data: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            user_data: user_data.to_owned(),
            meta_data: String::new(),
            memory: 1536,
            processors: 2,
            gpus: Vec::new(),
            life: Life::default(),
            listener: Listener::default(),
        }
    }
}

/// A virtual machine with a disk of its own.
#[derive(Debug)]
pub struct Machine {
    options: MachineOptions,
    directory: PathBuf,
    kernel: PathBuf,
    accelerator: Accelerator,
    started: Instant,
    serial: Serial,
    agent: GuestAgent,
    program: Qemu,
    qemu: Process,
    /// After the process: a player ends when nobody asks it any more.
    _players: Vec<gpu::Player>,
    /// Removes the folder at last.
    _folder: Option<tempfile::TempDir>,
}

impl Machine {
    /// Boots a machine that keeps its files in a temporary folder.
    pub fn boot(image: &Image, options: MachineOptions) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gpuk-machine-")
            .disable_cleanup(std::env::var_os("GPUK_VM_KEEP").is_some())
            .tempdir()?;
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
        seed::write(&options, directory)?;
        if options.life == Life::Detached && !options.gpus.is_empty() {
            bail!("a machine that outlives this program cannot have GPUs: this program plays them");
        }
        let program = match options.gpus.as_slice() {
            [] => Qemu::installed(find("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?),
            _ => Parts::open()?.qemu_for_played_devices()?,
        };
        let numbered = options.gpus.iter().enumerate();
        let players = numbered.map(|(number, gpu)| gpu::Player::start(*gpu, &directory.join(gpu_socket(number))));
        let players = players.collect::<Result<_>>()?;
        let qemu = start(&program, accelerator, image.kernel(), &options, directory)?;
        Ok(Self {
            serial: Serial::follow(directory, options.listener.clone())?,
            agent: GuestAgent::at(directory.join("agent.socket")),
            started: Instant::now(),
            kernel: image.kernel().to_owned(),
            directory: directory.to_owned(),
            options,
            accelerator,
            program,
            qemu,
            _players: players,
            _folder: None,
        })
    }

    /// The folder with its disk, sockets and `serial.log`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How its processors are made.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
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
        self.qemu = start(&self.program, self.accelerator, &self.kernel, &self.options, &self.directory)?;
        Ok(())
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

fn gpu_socket(number: usize) -> String {
    format!("gpu{number}.socket")
}

fn start(qemu: &Qemu, accelerator: Accelerator, kernel: &Path, options: &MachineOptions, directory: &Path) -> Result<Process> {
    let socket = directory.join("agent.socket");
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    let mut words = qemu.words.clone();
    let mut add = |line: &str| words.extend(line.split_whitespace().map(str::to_owned));
    add("-M q35,sata=off,smbus=off -nodefaults -no-user-config -display none");
    add(accelerator.arguments());
    add(&format!("-smp {} -m {}", options.processors, options.memory));
    // Paths are relative to the machine's folder, where QEMU runs.
    add("-chardev file,id=serial,path=serial.raw,append=on -device isa-serial,chardev=serial");
    add("-device virtio-serial-pci -chardev socket,id=agent,path=agent.socket,server=on,wait=off");
    add("-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 -device virtio-rng-pci");
    // The host's page cache outlives QEMU: a power cut loses what the guest had not written, and no more.
    add("-drive file=disk.qcow2,format=qcow2,if=none,id=root,cache=unsafe -device nvme,drive=root,serial=root");
    add("-drive file=seed.iso,format=raw,if=none,id=seed,readonly=on -device virtio-blk-pci,drive=seed");
    add("-netdev user,id=network -device virtio-net-pci,netdev=network,romfile=");
    for number in 0..options.gpus.len() {
        // Only the JSON form can say where a socket is.
        let socket = json!({ "type": "unix", "path": gpu_socket(number) });
        let device = json!({ "driver": "vfio-user-pci", "id": format!("gpu{number}"), "socket": socket });
        words.extend(["-device".to_owned(), device.to_string()]);
    }
    words.extend(["-kernel".to_owned(), kernel.display().to_string(), "-append".to_owned(), KERNEL_LINE.to_owned()]);
    Process::start("qemu", &qemu.program, &words, directory, &directory.join("qemu.log"), options.life)
}
