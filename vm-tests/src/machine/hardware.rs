//! QEMU's command line is the machine: what is not on it is not there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::accelerator::Accelerator;
use super::gpu::Player;
use super::{Disc, MachineOptions};
use crate::packages::find;
use crate::parts::{Parts, Qemu};
use crate::process::{Life, Process};

/// Debian's cloud kernel has NVMe and ext4 built in. The rest saves time: what
/// is switched off protects a kernel from its users, and this one has none.
const KERNEL_LINE: &str = "console=ttyS0 rw root=/dev/nvme0n1 rootfstype=ext4 panic=5 net.ifnames=0 \
    mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests lsm=capability audit=0";

/// Whatever of a machine is there while its power is off.
#[derive(Debug)]
pub struct Hardware {
    /// How its processors are made.
    pub accelerator: Accelerator,
    /// The kernel that it boots.
    pub kernel: PathBuf,
    program: Qemu,
    /// The players of its GPUs, which end when nobody asks them any more.
    _players: Vec<Player>,
}

impl Hardware {
    /// Puts a machine together whose files are in `directory`.
    pub fn new(accelerator: Accelerator, kernel: &Path, options: &MachineOptions, directory: &Path) -> Result<Self> {
        if options.life == Life::Detached && !options.gpus.is_empty() {
            bail!("a machine that outlives this program cannot have GPUs: this program plays them");
        }
        let program = match options.gpus.as_slice() {
            [] => Qemu::installed(find("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?),
            _ => Parts::open()?.qemu_for_played_devices()?,
        };
        let numbered = options.gpus.iter().enumerate();
        let players = numbered.map(|(number, gpu)| Player::start(*gpu, &directory.join(gpu_socket(number))));
        Ok(Self { accelerator, kernel: kernel.to_owned(), program, _players: players.collect::<Result<_>>()? })
    }

    /// Switches it on.
    pub fn power_on(&self, options: &MachineOptions, directory: &Path) -> Result<Process> {
        let socket = directory.join("agent.socket");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let words = self.words(options);
        let log = directory.join("qemu.log");
        let program = &self.program.program;
        let Some(network) = &options.network else {
            return Process::start("qemu", program, &words, directory, &log, options.life);
        };
        let [enter, namespace] = network.prefix();
        let words: Vec<String> = [namespace, program.display().to_string()].into_iter().chain(words).collect();
        Process::start("qemu", Path::new(&enter), &words, directory, &log, options.life)
    }

    fn words(&self, options: &MachineOptions) -> Vec<String> {
        let mut words = self.program.words.clone();
        let mut add = |line: &str| words.extend(line.split_whitespace().map(str::to_owned));
        add("-M q35,sata=off,smbus=off -nodefaults -no-user-config -display none");
        add(self.accelerator.arguments());
        add(&format!("-smp {} -m {}", options.processors, options.memory));
        // Paths are relative to the machine's folder, where QEMU runs.
        add("-chardev file,id=serial,path=serial.raw,append=on -device isa-serial,chardev=serial");
        add("-device virtio-serial-pci -chardev socket,id=agent,path=agent.socket,server=on,wait=off");
        add("-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 -device virtio-rng-pci");
        // The host's page cache outlives QEMU: a power cut loses what the guest had not written, and no more.
        add("-drive file=disk.qcow2,format=qcow2,if=none,id=root,cache=unsafe -device nvme,drive=root,serial=root");
        if options.disc != Disc::None {
            add("-drive file=seed.iso,format=raw,if=none,id=seed,readonly=on -device virtio-blk-pci,drive=seed");
        }
        let forwards = options.forwards.iter().map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}"));
        let own = options.own_ports.iter().map(|port| format!(",hostfwd=tcp:{}:{port}-:{port}", super::OWN));
        let forwards: String = forwards.chain(own).collect();
        add(&format!("-netdev user,id=network{forwards} -device virtio-net-pci,netdev=network,romfile="));
        for number in 0..options.gpus.len() {
            // Only the JSON form can say where a socket is.
            let socket = json!({ "type": "unix", "path": gpu_socket(number) });
            let device = json!({ "driver": "vfio-user-pci", "id": format!("gpu{number}"), "socket": socket });
            words.extend(["-device".to_owned(), device.to_string()]);
        }
        let source = if options.disc == Disc::NoCloud { "ds=nocloud" } else { "" };
        let line = format!("{KERNEL_LINE} {} {source} {}", self.accelerator.kernel_line(), options.kernel_line);
        words.extend(["-kernel".to_owned(), self.kernel.display().to_string(), "-append".to_owned(), line]);
        words.extend(options.firmware.iter().flat_map(|table| ["-smbios".to_owned(), table.clone()]));
        words
    }
}

fn gpu_socket(number: usize) -> String {
    format!("gpu{number}.socket")
}
