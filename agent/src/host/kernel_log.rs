//! The kernel keeps its log in a ring that forgets, and hands out one record at each read of `/dev/kmsg`.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek, read};
use tokio::net::unix::pipe::Receiver;

const DEVICE: &str = "/dev/kmsg";

/// More than the longest record with everything escaped (`PRINTK_MESSAGE_MAX` of Linux 6.6 is 2048 bytes, four for each).
const LONGEST: usize = 16 * 1024;

/// More records than a ring of the largest size holds; a kernel that writes as fast as we read must not keep us.
const MOST: usize = 1_000_000;

/// One record ("/dev/kmsg", Documentation/ABI/testing/dev-kmsg of Linux).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The syslog priority and, times eight, the facility.
    pub priority: u32,
    /// Its number in this boot. A gap means that records were lost.
    pub sequence: u64,
    /// When it was written, after the kernel started.
    pub since_boot: Duration,
    /// The text, with the line ends inside it.
    pub text: String,
}

impl Record {
    /// Whether the kernel itself wrote it; programs may write here, too, and get a facility other than 0.
    pub fn is_from_kernel(&self) -> bool {
        self.priority < 8
    }

    /// From the bytes of one read; `None` for what is no record.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, rest) = text.split_once(';')?;
        let mut fields = head.split(',');
        let (priority, sequence, micros) = (fields.next()?, fields.next()?, fields.next()?);
        // The lines that follow begin with a blank and name the device: nothing that the text does not say.
        let line = rest.split('\n').next().unwrap_or_default();
        Some(Self {
            priority: priority.parse().ok()?,
            sequence: sequence.parse().ok()?,
            since_boot: Duration::from_micros(micros.parse().ok()?),
            text: unescape(line),
        })
    }
}

/// As dmesg(1) writes it, on one line.
impl std::fmt::Display for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text.trim_end().replace('\n', " ");
        write!(formatter, "[{:5}.{:06}] {text}", self.since_boot.as_secs(), self.since_boot.subsec_micros())
    }
}

/// `\x0a` is how a byte is written that cannot be printed.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, part.get(2..)) {
            (Some(byte), Some(rest)) => {
                bytes.push(byte);
                bytes.extend_from_slice(rest.as_bytes());
            }
            _ => {
                bytes.extend_from_slice(b"\\x");
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reading the kernel's log.
pub trait KernelLog {
    /// Everything that the kernel still has of this boot, oldest first. Never waits.
    fn records(&self) -> Result<Vec<Record>>;
}

/// The running kernel's log, for root and whoever has `CAP_SYSLOG`.
pub struct Kmsg;

impl KernelLog for Kmsg {
    fn records(&self) -> Result<Vec<Record>> {
        let device = open_device()?;
        all_of(|buffer| read(&device, buffer))
    }
}

fn open_device() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(DEVICE, flags, Mode::empty()).with_context(|| format!("opening the kernel's log {DEVICE} (root or CAP_SYSLOG only)"))
}

/// What one read came to.
enum Step {
    Record(Record),
    /// No record, but there may be one behind it.
    Again,
    /// There is none yet.
    End,
}

fn one_of(bytes: &[u8], read: Result<usize, Errno>) -> Result<Step> {
    match read {
        Ok(0) | Err(Errno::EAGAIN) => Ok(Step::End),
        Ok(length) => Ok(Record::parse(bytes.get(..length).unwrap_or_default()).map_or(Step::Again, Step::Record)),
        // What came next was overwritten meanwhile; the next read has the oldest that is left.
        Err(Errno::EPIPE | Errno::EINTR) => Ok(Step::Again),
        Err(error) => Err(error).with_context(|| format!("reading the kernel's log {DEVICE}")),
    }
}

fn all_of(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<Record>> {
    let mut buffer = vec![0; LONGEST];
    let mut records = Vec::new();
    for _ in 0..MOST {
        let length = read(&mut buffer);
        match one_of(&buffer, length)? {
            Step::Record(record) => records.push(record),
            Step::Again => {}
            Step::End => return Ok(records),
        }
    }
    bail!("reading the kernel's log {DEVICE}: it is written faster than it can be read");
}

/// The records that are yet to come. Waiting for one costs nothing.
pub struct Follower(
    /// Not a pipe; tokio has no other safe way to wait for a descriptor, and all it does with this one is epoll(7) and read(2).
    Receiver,
);

impl Follower {
    /// Follows the running kernel's log from here on. Needs a tokio runtime.
    pub fn from_now() -> Result<Self> {
        let device = open_device()?;
        lseek(&device, 0, Whence::SeekEnd).with_context(|| format!("going to the end of {DEVICE}"))?;
        Self::over(device)
    }

    /// Follows a descriptor that does not block and gives one record at each read, as the kernel's device does.
    pub fn over(device: OwnedFd) -> Result<Self> {
        Receiver::from_file_unchecked(device.into()).map(Self).with_context(|| format!("waiting for {DEVICE}"))
    }

    /// The next record, once there is one. An error means that no other will come.
    pub async fn next(&mut self) -> Result<Record> {
        let mut buffer = vec![0; LONGEST];
        loop {
            self.0.readable().await.with_context(|| format!("waiting for {DEVICE}"))?;
            let length = match self.0.try_read(&mut buffer) {
                Ok(0) => bail!("reading the kernel's log {DEVICE}: it ended"),
                Ok(length) => Ok(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
            };
            if let Step::Record(record) = one_of(&buffer, length)? {
                return Ok(record);
            }
        }
    }
}

/// A fake: a log of these records, or one that may not be read. It cannot show a ring that forgets.
#[derive(Default)]
pub struct ScriptedKernelLog(pub Option<Vec<Record>>);

impl ScriptedKernelLog {
    /// A log of these texts of the kernel, a second apart.
    pub fn of(texts: &[&str]) -> Self {
        let record = |(number, text): (u64, &&str)| Record {
            priority: 4,
            sequence: number,
            since_boot: Duration::from_secs(number),
            text: (*text).to_owned(),
        };
        Self(Some((0..).zip(texts).map(record).collect()))
    }
}

impl KernelLog for ScriptedKernelLog {
    fn records(&self) -> Result<Vec<Record>> {
        self.0.clone().with_context(|| format!("opening the kernel's log {DEVICE} (root or CAP_SYSLOG only): EPERM"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const RECORD: &str = "4,339,5140900,-,caller=T7;NVRM: GPU 0000:02:00.0\\x0aNVRM: lost \\xc3\\xa9 \\x5c\n SUBSYSTEM=pci\n DEVICE=+pci:0000:02:00.0\n";

    #[test]
    fn a_record_is_read_as_the_kernel_documents_it() {
        let record = Record::parse(RECORD.as_bytes()).unwrap();
        assert_eq!((record.priority, record.sequence, record.since_boot), (4, 339, Duration::from_micros(5_140_900)));
        assert_eq!(record.text, "NVRM: GPU 0000:02:00.0\nNVRM: lost é \\");
        assert_eq!(record.to_string(), "[    5.140900] NVRM: GPU 0000:02:00.0 NVRM: lost é \\");
        assert!(record.is_from_kernel() && !Record::parse(b"12,1,2,-;from a program").unwrap().is_from_kernel());
        for broken in ["", ";", "4;x", "4,5;x", "a,b,c,-;x", "4,5,6,-", "\u{fffd}", "4,5,99999999999999999999,-;x"] {
            assert_eq!(Record::parse(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(unescape("\\x"), "\\x");
        assert_eq!(
            (unescape("\\xé"), unescape("\\x4"), unescape("a\\x41b")),
            ("\\xé".to_owned(), "\\x4".to_owned(), "aAb".to_owned())
        );
    }

    #[test]
    fn the_ring_may_forget_while_it_is_read() {
        let mut reads = vec![
            Err(Errno::EPIPE),
            Ok(&b"6,7,100,-;one"[..]),
            Err(Errno::EINTR),
            Ok(&b"no record"[..]),
            Err(Errno::EPIPE),
            Ok(&b"6,90,200,-;two"[..]),
            Err(Errno::EAGAIN),
        ]
        .into_iter();
        let answer = |buffer: &mut [u8]| {
            let bytes: &[u8] = reads.next().unwrap()?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        };
        let sequences: Vec<u64> = all_of(answer).unwrap().iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, [7, 90]);
        let denied = all_of(|_| Err(Errno::EPERM)).unwrap_err();
        assert_eq!(format!("{denied:#}"), "reading the kernel's log /dev/kmsg: EPERM: Operation not permitted");
        assert!(all_of(|_| Err(Errno::EPIPE)).is_err(), "never without end");
    }

    /// The socket stands for `/dev/kmsg`: one record a read, none yet is EAGAIN. It cannot show records that are overwritten.
    #[tokio::test]
    async fn the_next_record_is_waited_for() {
        let (kernel, reader) = UnixDatagram::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let write = |bytes: &[u8]| assert_eq!(kernel.send(bytes).unwrap(), bytes.len());
        let mut follower = Follower::over(reader.into()).unwrap();
        write(b"6,1,100,-;first");
        write(b" continued");
        write(b"6,2,200,-;second");
        assert_eq!(follower.next().await.unwrap().text, "first");
        assert_eq!(follower.next().await.unwrap().text, "second");
        let (third, ()) = tokio::join!(follower.next(), async {
            tokio::task::yield_now().await;
            write(b"6,3,300,-;third");
        });
        assert_eq!(third.unwrap().text, "third");
        write(b"");
        assert!(follower.next().await.is_err(), "the end is no record, and no reason to spin");
    }
}
