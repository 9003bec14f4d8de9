//! A service answers each connection in a thread of its own, so that one slow client never holds up another.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cloud::Cloud;
use crate::fault::{Fault, HUGE};
use crate::http::{Answer, Request};
use crate::machine::Machine;
use crate::token::Ledger;

/// A client that says nothing for this long is left alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service; it ends when dropped.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    cloud: Cloud,
    fault: Fault,
    machine: Mutex<Machine>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    requests: Vec<Request>,
    /// Connections, and requests, to which the fault was done.
    faulted: u32,
    /// Connections that are never answered.
    held: Vec<TcpStream>,
}

impl Service {
    /// Listens at an address, e.g. `127.0.0.1:0` or `169.254.169.254:80`.
    pub fn start(cloud: Cloud, machine: Machine, fault: Fault, address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::on(TcpListener::bind(address)?, cloud, machine, fault)
    }

    /// Answers on a socket that listens already, perhaps in another network namespace.
    pub fn on(listener: TcpListener, cloud: Cloud, mut machine: Machine, fault: Fault) -> io::Result<Self> {
        if fault == Fault::NoTags {
            machine.tags.clear();
        }
        let mut state = State::default();
        state.ledger.refuse_first = fault == Fault::StaleToken;
        let shared = Arc::new(Shared { cloud, fault, machine: Mutex::new(machine), state: Mutex::new(state) });
        let (accepting, its_shared) = (listener.try_clone()?, Arc::clone(&shared));
        let accepting = std::thread::spawn(move || accept(&accepting, &its_shared));
        Ok(Self { address: listener.local_addr()?, listener, shared, accepting: Some(accepting) })
    }

    /// Its address as a URL without a path, e.g. `http://127.0.0.1:34567`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Changes what is said of the machine from now on.
    pub fn change(&self, change: impl FnOnce(&mut Machine)) {
        change(&mut lock(&self.shared.machine));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Shutting a listening socket down wakes the thread that accepts. A failure leaves that thread to end with the program.
        let woken = self.listener.try_clone().map(|listener| TcpStream::from(OwnedFd::from(listener)));
        let woken = woken.and_then(|listener| listener.shutdown(std::net::Shutdown::Both));
        if let (Ok(()), Some(thread)) = (woken, self.accepting.take()) {
            let _ = thread.join();
        }
        self.shared.state().held.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        let shared = Arc::clone(shared);
        // A client that leaves early is its own business.
        std::thread::spawn(move || serve(stream, &shared).ok());
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    if let Fault::Late { refuse } = shared.fault {
        let refused = &mut shared.state().faulted;
        if *refused < refuse {
            *refused += 1;
            // Closing a socket with unread bytes resets the connection.
            return stream.peek(&mut [0]).map(drop);
        }
    }
    let Some(request) = Request::read(BufReader::new(&stream))? else { return Ok(()) };
    shared.state().requests.push(request.clone());
    let pause = if let Fault::SlowBytes { pause } = shared.fault { Some(pause) } else { None };
    let answer = match shared.fault {
        Fault::Blackhole => {
            shared.state().held.push(stream);
            return Ok(());
        }
        Fault::TooManyRequests { times } if shared.once_more(times) => Answer::error(429),
        Fault::ServerError { status, times } if shared.once_more(times) => Answer::error(status),
        Fault::CaptivePortal => Answer::of(200, "text/html", "<!doctype html><html><body><h1>Please log in</h1></body></html>\n"),
        Fault::Huge => Answer::text(vec![b'x'; HUGE]),
        _ => shared.cloud.answer(&lock(&shared.machine), &request, &mut shared.state().ledger),
    };
    let limit = if shared.fault == Fault::Cut { answer.body.len() / 2 } else { usize::MAX };
    answer.write(&stream, limit, pause)
}

impl Shared {
    /// Whether the fault is to be done to this request too.
    fn once_more(&self, times: u32) -> bool {
        let done = &mut self.state().faulted;
        *done += 1;
        *done <= times
    }
}
