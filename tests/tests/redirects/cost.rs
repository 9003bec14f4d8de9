//! A rewrite of each packet costs something; it shows only beside the same connection without one.
//!
//! Both sides of a connection are threads of this process, and the kernel carries a packet from one network namespace to the next on the
//! time of whoever sends it: the process's processor time holds the whole way, whatever else the machine does meanwhile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use vm_tests::network::{Protocol, Wired};
use vm_tests::progress::say;

use crate::agent::{Agent, INGRESS, NOTHING};
use crate::parts::{Node, TARGETS};

/// Measured in turns, so that whatever else the machine does falls on both; the quickest turn of each was disturbed least.
const TURNS: usize = 40;

/// Says how long the step takes to make its table, and to look.
pub fn of_the_step(agent: &Agent<'_>) -> Result<()> {
    let (mut made, mut looked) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        agent.ready(NOTHING)?;
        let missing = agent.look(INGRESS)?.1;
        let record = agent.ready(INGRESS)?;
        let look = agent.look(INGRESS)?.1;
        // The round looked twice: before and behind.
        made.push(Duration::from_millis(record.took).saturating_sub(missing + look));
        looked.push(look);
    }
    say(format_args!("making the table: {:?}; a look, with a connection to each port: {:?}", quickest(&made), quickest(&looked)));
    Ok(())
}

/// Says what each kind of work takes directly and redirected, and how much more that is.
pub fn of_connections(node: &Node) -> Result<()> {
    let compare = |what: &str, work: &dyn Fn(u16) -> Result<Duration>| -> Result<()> {
        let (mut direct, mut redirected) = (Turns::default(), Turns::default());
        for _ in 0..TURNS {
            direct.take(|| work(TARGETS[0]))?;
            redirected.take(|| work(80))?;
        }
        let more = |of: fn(&mut Turns) -> Duration| {
            let (direct, redirected) = (of(&mut direct.clone()), of(&mut redirected.clone()));
            format!("{direct:?} and {redirected:?}: {:+.1} %", (redirected.as_secs_f64() / direct.as_secs_f64() - 1.0) * 100.0)
        };
        let (time, processor) = (more(|turns| median(&mut turns.time)), more(|turns| median(&mut turns.processor)));
        say(format_args!("{what}: time {time}, processor time {processor} (medians)"));
        Ok(())
    };
    for address in Wired::NODE {
        compare(&format!("100 connections to {address}"), &|port| {
            let began = Instant::now();
            let answers = node.ask(Protocol::Tcp, address, port, 100)?;
            ensure!(answers.all(), "{answers}");
            Ok(began.elapsed())
        })?;
        compare(&format!("1,000 questions to {address} on one connection"), &|port| talk(node, address, port))?;
        compare(&format!("16 MiB to {address} and back"), &|port| send(node, address, port))?;
    }
    Ok(())
}

/// What each turn took.
#[derive(Clone, Default)]
struct Turns {
    time: Vec<Duration>,
    processor: Vec<Duration>,
}

impl Turns {
    fn take(&mut self, work: impl FnOnce() -> Result<Duration>) -> Result<()> {
        let before = processor_time()?;
        self.time.push(work()?);
        self.processor.push(processor_time()?.saturating_sub(before));
        Ok(())
    }
}

/// Of all threads of this process, in the kernel and outside.
fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("asking for the processor time")?;
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn quickest(all: &[Duration]) -> Duration {
    all.iter().min().copied().unwrap_or_default()
}

fn connect(node: &Node, address: IpAddr, port: u16) -> Result<TcpStream> {
    node.wired.client.inside(|| {
        let stream = TcpStream::connect(SocketAddr::new(address, port)).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // Whom it sees is said first.
        BufReader::with_capacity(1, &stream).read_line(&mut String::new())?;
        Ok(stream)
    })
}

fn talk(node: &Node, address: IpAddr, port: u16) -> Result<Duration> {
    let mut stream = connect(node, address, port)?;
    let began = Instant::now();
    let mut byte = [0];
    for _ in 0..1000 {
        stream.write_all(b"?")?;
        stream.read_exact(&mut byte)?;
    }
    Ok(began.elapsed())
}

fn send(node: &Node, address: IpAddr, port: u16) -> Result<Duration> {
    const SIZE: usize = 16 << 20;
    let stream = connect(node, address, port)?;
    let mut writing = stream.try_clone()?;
    let began = Instant::now();
    let writer = thread::spawn(move || {
        let piece = vec![7; 256 << 10];
        (0..SIZE / piece.len()).try_for_each(|_| writing.write_all(&piece))
    });
    let mut buffer = vec![0; 256 << 10];
    let mut left = SIZE;
    while left > 0 {
        match (&stream).read(&mut buffer)? {
            0 => return Err(anyhow!("the other side hung up {left} bytes early")),
            count => left -= count.min(left),
        }
    }
    let took = began.elapsed();
    writer.join().map_err(|_| anyhow!("the writing thread panicked"))??;
    Ok(took)
}
