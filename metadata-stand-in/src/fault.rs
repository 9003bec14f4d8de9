//! Metadata services fail in few ways, and those few are met in every big cluster.

use std::time::Duration;

/// What is wrong with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The first connections are reset. (For a port that is still closed, start the service later.)
    Late {
        /// How many.
        refuse: u32,
    },
    /// Each byte of an answer is followed by a pause.
    SlowBytes {
        /// How long.
        pause: Duration,
    },
    /// The first token that was given is refused with 401 the first time it is used.
    StaleToken,
    /// The machine's tags are not told, as if its owner had not allowed it.
    NoTags,
    /// The first requests are answered 429.
    TooManyRequests {
        /// How many.
        times: u32,
    },
    /// The first requests are answered with an error of the server.
    ServerError {
        /// E.g. 500 or 503; Azure also says 410 while it is being updated.
        status: u16,
        /// How many.
        times: u32,
    },
    /// Everything is answered with a page in HTML and status 200.
    CaptivePortal,
    /// Every answer is [`HUGE`] bytes long.
    Huge,
    /// The connection is closed in the middle of each answer's body.
    Cut,
    /// Connections are accepted and nothing is ever answered.
    Blackhole,
}

/// The length of an answer with [`Fault::Huge`], in bytes.
pub(crate) const HUGE: usize = 20_000_000;
