//! Stands for the functions of NVIDIA cards on the PCI bus: their identity, class and memory ranges. It cannot show a card
//! that works: but for the few registers by which a driver recognises a chip, memory reads as zero, and nothing interrupts. NVIDIA's
//! driver binds to a card whose registers are known here, and cannot initialise it.
//!
//! QEMU asks a server for whatever the guest asks of the device ("vfio-user Protocol Specification", QEMU's documentation;
//! regions and flags are those of Linux's `vfio.h`). File descriptors that come with a message are not taken and so closed.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

const NVIDIA: u16 = 0x10de;

/// One function of a card, as the PCI bus shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The device id (pci.ids).
    pub device: u16,
    /// Base class, subclass and programming interface, one byte each (PCI Code and ID Assignment Specification).
    pub class: u32,
    /// Registers in the first memory range by which a driver recognises the chip: offset and value, four bytes each.
    pub registers: &'static [(usize, u32)],
}

/// `PMC_BOOT_0` and `PMC_BOOT_42` of a TU104, as NVIDIA's driver 550.163.01 accepts them.
const TU104: &[(usize, u32)] = &[(0x0, 0x1640_00a1), (0xa00, 0x164a_1000)];

impl Gpu {
    /// A Tesla T4: a 3D controller.
    pub const TESLA_T4: Self = Self { device: 0x1eb8, class: 0x03_02_00, registers: TU104 };
    /// An L4: a 3D controller.
    pub const L4: Self = Self { device: 0x27b8, class: 0x03_02_00, registers: &[] };
    /// The audio function of a TU104 card, which is no GPU.
    pub const AUDIO: Self = Self { device: 0x10f8, class: 0x04_03_00, registers: &[] };
    /// An NVSwitch of the Hopper generation, which is a bridge and no GPU.
    pub const NVSWITCH: Self = Self { device: 0x22a3, class: 0x06_80_00, registers: &[] };

    /// One byte of the first memory range.
    fn register_byte(self, at: usize) -> u8 {
        let register = self.registers.iter().find(|(offset, _)| *offset == at & !3);
        register.map_or(0, |(_, value)| value.to_le_bytes()[at & 3])
    }

    /// The 256 bytes of configuration space, with a type 0 header.
    fn configuration(self) -> [u8; 256] {
        let mut bytes = [0; 256];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &NVIDIA.to_le_bytes());
        put(0x02, &self.device.to_le_bytes());
        put(0x08, &((self.class << 8) | 0xa1).to_le_bytes());
        for (range, _, flags) in RANGES {
            put(0x10 + 4 * range as usize, &[flags]);
        }
        put(0x2c, &NVIDIA.to_le_bytes());
        // The interrupt pin A, and a list of capabilities, without which no driver takes a card.
        put(0x3d, &[1]);
        put(0x06, &[0x10]);
        put(0x34, &[0x60]);
        for (at, capability) in CAPABILITIES {
            put(at, capability);
        }
        bytes
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self::TESLA_T4
    }
}

/// Memory ranges (BARs) of a Tesla T4: index, bytes, and the low bits that say 64-bit and prefetchable.
const RANGES: [(u32, u64, u8); 3] = [(0, 16 << 20, 0), (1, 256 << 20, 0xc), (3, 32 << 20, 0xc)];

/// Capabilities and where they are, each with the place of the next: power management, message-signalled interrupts with 64-bit
/// addresses, PCI Express (PCI Local Bus Specification 3.0, appendix H; PCI Express Base Specification, "PCI Express Capability Structure").
const CAPABILITIES: [(usize, &[u8]); 3] = [
    (0x60, &[0x01, 0x68, 0x03, 0x00, 0x08, 0x00]),
    (0x68, &[0x05, 0x78, 0x80, 0x00]),
    (
        0x78,
        &[0x10, 0x00, 0x12, 0x00, 0xe1, 0x8d, 0x2c, 0x01, 0x30, 0x29, 0x00, 0x00, 0x03, 0x61, 0x45, 0x00, 0x00, 0x00, 0x01, 0x11],
    ),
];

/// Kinds of interrupts (`VFIO_PCI_INTX_IRQ_INDEX`, `VFIO_PCI_MSI_IRQ_INDEX`): index, and flags that say how they are masked. One of each.
const INTERRUPTS: [(u32, u32); 2] = [(0, 0b111), (1, 0b001)];

/// The region of configuration space (`VFIO_PCI_CONFIG_REGION_INDEX`).
const CONFIGURATION: u32 = 7;

/// The part of configuration space that the guest may change here: the command register.
const COMMAND: std::ops::Range<usize> = 4..6;

/// Commands of the protocol that a QEMU sends.
const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;

/// Flags of a message.
const REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a reply carries for a command that is not known here (`EOPNOTSUPP`).
const NOT_SUPPORTED: u32 = 95;

/// Bytes of the largest message, headers included; QEMU moves at most 1 MiB at once.
const LARGEST: usize = (1 << 20) + 64;

/// A server that plays one function until it is dropped, for one QEMU after the other.
#[derive(Debug)]
pub(super) struct Player {
    socket: PathBuf,
    over: Arc<AtomicBool>,
}

impl Player {
    /// Listens at `socket`.
    pub fn start(gpu: Gpu, socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(io::Result::ok) {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                // It ends when QEMU does, or when QEMU says what nobody understands: its own log tells more then.
                let _ = play(gpu, connection);
            }
        });
        Ok(Self { socket: socket.to_owned(), over })
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the server; when that fails, it is gone already.
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

/// Answers one QEMU until it hangs up. Each powered-on machine finds a card that was just powered on.
fn play(gpu: Gpu, mut connection: UnixStream) -> io::Result<()> {
    let mut configuration = gpu.configuration();
    loop {
        let mut header = [0; 16];
        connection.read_exact(&mut header)?;
        let (flags, size) = (word(&header, 8)?, word(&header, 4)? as usize);
        if !(header.len()..=LARGEST).contains(&size) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; size - header.len()];
        connection.read_exact(&mut request)?;
        let answer = answer(gpu, &mut configuration, u16::from_le_bytes([header[2], header[3]]), request)?;
        if flags & NO_REPLY != 0 {
            continue;
        }
        let (flags, error) = if answer.is_some() { (REPLY, 0) } else { (REPLY | ERROR, NOT_SUPPORTED) };
        let answer = answer.unwrap_or_default();
        let mut reply = header[..4].to_vec();
        for value in [u32::try_from(16 + answer.len()).unwrap_or(u32::MAX), flags, error] {
            reply.extend(value.to_le_bytes());
        }
        reply.extend(answer);
        connection.write_all(&reply)?;
    }
}

/// The payload of the reply, or nothing for a command that is not known here.
fn answer(gpu: Gpu, configuration: &mut [u8; 256], command: u16, mut request: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    Ok(Some(match command {
        VERSION => {
            request.truncate(4);
            request.extend(b"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0");
            request
        }
        DMA_MAP | SET_IRQS | RESET => Vec::new(),
        DMA_UNMAP => {
            request.truncate(24);
            request
        }
        // A PCI device that can be reset, with the nine regions and five kinds of interrupts of every PCI device.
        GET_INFO => words(&[16, 0b11, 9, 5]),
        GET_REGION_INFO => {
            let region = word(&request, 8)?;
            let range = RANGES.iter().find(|(index, ..)| *index == region).map_or(0, |(_, bytes, _)| *bytes);
            let bytes = if region == CONFIGURATION { configuration.len() as u64 } else { range };
            let mut info = words(&[32, if bytes > 0 { 0b11 } else { 0 }, region, 0]);
            info.extend([bytes, u64::from(region) << 40].into_iter().flat_map(u64::to_le_bytes));
            info
        }
        GET_IRQ_INFO => {
            let index = word(&request, 8)?;
            let flags = INTERRUPTS.iter().find(|(known, _)| *known == index).map(|(_, flags)| *flags);
            words(&[16, flags.unwrap_or(0), index, u32::from(flags.is_some())])
        }
        REGION_READ | REGION_WRITE => {
            let (offset, region, count) = (word(&request, 0)? as usize, word(&request, 8)?, word(&request, 12)? as usize);
            let data = request.split_off(16);
            if command == REGION_READ {
                let byte = |at| match region {
                    CONFIGURATION => configuration.get(at).copied().unwrap_or(0),
                    0 => gpu.register_byte(at),
                    _ => 0,
                };
                request.extend((offset..offset.saturating_add(count.min(LARGEST))).map(byte));
            } else if region == CONFIGURATION {
                for (at, byte) in (offset..).zip(data).filter(|(at, _)| COMMAND.contains(at)) {
                    configuration[at] = byte;
                }
            }
            request
        }
        _ => return Ok(None),
    }))
}

/// Four bytes of a message, in the order of the machine's own processor (little-endian here).
fn word(message: &[u8], at: usize) -> io::Result<u32> {
    let bytes = message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(connection: &mut UnixStream, command: u16, payload: &[u8]) -> (u32, Vec<u8>) {
        let size = u32::try_from(16 + payload.len()).unwrap();
        let mut message = [7, 0, u8::try_from(command).unwrap(), 0].to_vec();
        message.extend([size, 0, 0].into_iter().flat_map(u32::to_le_bytes));
        message.extend(payload);
        connection.write_all(&message).unwrap();
        let mut header = [0; 16];
        connection.read_exact(&mut header).unwrap();
        assert_eq!(header[..4], message[..4]);
        let mut answer = vec![0; word(&header, 4).unwrap() as usize - 16];
        connection.read_exact(&mut answer).unwrap();
        (word(&header, 12).unwrap(), answer)
    }

    #[test]
    fn a_function_says_who_it_is_and_keeps_only_its_command_register() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gpu");
        let player = Player::start(Gpu::TESLA_T4, &socket).unwrap();
        let access = |offset: u32, count: u32| [offset, 0, CONFIGURATION, count].map(u32::to_le_bytes).concat();
        for _ in 0..2 {
            let mut connection = UnixStream::connect(&socket).unwrap();
            let mut read = |offset, count| ask(&mut connection, REGION_READ, &access(offset, count)).1.split_off(16);
            assert_eq!(read(0, 4), [0xde, 0x10, 0xb8, 0x1e]);
            assert_eq!(read(8, 4), [0xa1, 0x00, 0x02, 0x03]);
            assert_eq!(read(4, 2), [0, 0]);
            ask(&mut connection, REGION_WRITE, &[access(0, 6), vec![0xff; 6]].concat());
            let mut read = |offset, count| ask(&mut connection, REGION_READ, &access(offset, count)).1.split_off(16);
            assert_eq!(read(0, 6), [0xde, 0x10, 0xb8, 0x1e, 0xff, 0xff]);
            let register = [0xa00_u32, 0, 0, 4].map(u32::to_le_bytes).concat();
            assert_eq!(ask(&mut connection, REGION_READ, &register).1.split_off(16), 0x164a_1000_u32.to_le_bytes());
            assert_eq!(ask(&mut connection, 6, &[]).0, NOT_SUPPORTED);
        }
        drop(player);
        assert!(UnixStream::connect(&socket).is_err());
    }
}
