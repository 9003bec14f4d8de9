//! Whether an address survived its way is known at its end: every connection and datagram is answered with the address it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::AddAssign;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Network;

/// Longer than the kernel's first pauses before it sends a lost packet again (1 s, then 2 s).
const LIMIT: Duration = Duration::from_secs(4);

/// After so many failures nothing new is learnt.
const ENOUGH_FAILURES: usize = 20;

/// What carries a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A connection for each question.
    Tcp,
    /// A socket for each question.
    Udp,
}

/// Answers on a port of these addresses of a network until the program ends. Over TCP, whatever follows is echoed.
///
/// Each address has a socket of its own: from one for all, datagrams would come back from whichever address is nearest.
pub fn answer(network: &Network, addresses: &[IpAddr], port: u16) -> Result<()> {
    for address in addresses.iter().map(|address| SocketAddr::new(*address, port)) {
        let what = || format!("listening on {address} in a network namespace");
        let bind = || Ok((TcpListener::bind(address).with_context(what)?, UdpSocket::bind(address).with_context(what)?));
        let (tcp, udp) = network.inside(bind)?;
        thread::spawn(move || {
            while let Ok((stream, from)) = tcp.accept() {
                thread::spawn(move || echo(stream, from));
            }
        });
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut datagram) {
                // Whoever asked counts what does not come back.
                let _ = udp.send_to(from.to_string().as_bytes(), from);
            }
        });
    }
    Ok(())
}

fn echo(mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{from}\n").as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// What became of many questions.
#[derive(Debug, Default)]
pub struct Answers {
    /// How many were to be asked; fewer were when almost all failed.
    pub wanted: usize,
    /// How many were answered.
    pub answered: usize,
    /// How many of these the other side saw coming from the asking socket's own address and port.
    pub with_own_address: usize,
    /// The longest that an answered one took.
    pub slowest: Duration,
    /// Why the others were not.
    pub failures: BTreeMap<String, usize>,
}

impl Answers {
    /// Whether every question was answered.
    pub fn all(&self) -> bool {
        self.answered == self.wanted
    }

    /// Whether every question was answered, and the other side saw who asked.
    pub fn all_with_own_address(&self) -> bool {
        self.all() && self.with_own_address == self.wanted
    }
}

impl AddAssign for Answers {
    fn add_assign(&mut self, other: Self) {
        self.wanted += other.wanted;
        self.answered += other.answered;
        self.with_own_address += other.with_own_address;
        self.slowest = self.slowest.max(other.slowest);
        for (why, count) in other.failures {
            *self.failures.entry(why).or_default() += count;
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.answered, self.wanted)?;
        if self.answered > 0 {
            write!(formatter, ", {} with their own address, slowest {} µs", self.with_own_address, self.slowest.as_micros())?;
        }
        self.failures.iter().try_for_each(|(why, count)| write!(formatter, "; {count}: {why}"))
    }
}

/// Asks `count` times from a network, one after the other.
pub fn ask(network: &Network, protocol: Protocol, to: SocketAddr, count: usize) -> Result<Answers> {
    network.inside(|| {
        let mut answers = Answers { wanted: count, ..Answers::default() };
        for _ in 0..count {
            let began = Instant::now();
            let asked = match protocol {
                Protocol::Tcp => over_tcp(to),
                Protocol::Udp => over_udp(to),
            };
            match asked {
                Ok((own, seen)) => {
                    answers.answered += 1;
                    answers.with_own_address += usize::from(seen == own.to_string());
                    answers.slowest = answers.slowest.max(began.elapsed());
                }
                Err(why) => *answers.failures.entry(why.to_string()).or_default() += 1,
            }
            if answers.failures.values().sum::<usize>() >= if answers.answered == 0 { 3 } else { ENOUGH_FAILURES } {
                break;
            }
        }
        Ok(answers)
    })
}

fn over_tcp(to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    let stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok((stream.local_addr()?, line.trim_end().to_owned()))
}

fn over_udp(to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(LIMIT))?;
    // Only what comes back from there counts.
    socket.connect(to)?;
    socket.send(b"who am I?")?;
    let mut datagram = [0; 64];
    let count = socket.recv(&mut datagram)?;
    Ok((socket.local_addr()?, String::from_utf8_lossy(&datagram[..count]).into_owned()))
}
