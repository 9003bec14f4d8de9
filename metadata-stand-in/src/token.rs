//! A session token is asked for with its lifetime, and each later request must carry it.

use std::time::{Duration, Instant};

/// The tokens that were given.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    given: Vec<(String, Instant)>,
    /// The first token is to be refused once.
    pub(crate) refuse_first: bool,
}

impl Ledger {
    /// A new token, if the lifetime is a number from 1 to `longest` seconds.
    pub(crate) fn give(&mut self, lifetime: Option<&str>, longest: u64) -> Option<(String, u64)> {
        let seconds: u64 = lifetime?.parse().ok().filter(|seconds| (1..=longest).contains(seconds))?;
        let token = format!("AQAEAStandIn{:06}-token==", self.given.len() + 1);
        self.given.push((token.clone(), Instant::now() + Duration::from_secs(seconds)));
        Some((token, seconds))
    }

    /// Whether this token was given and is still good.
    pub(crate) fn knows(&mut self, token: &str) -> bool {
        let Some(position) = self.given.iter().position(|(known, until)| known == token && *until > Instant::now()) else {
            return false;
        };
        if position == 0 && self.refuse_first {
            self.refuse_first = false;
            return false;
        }
        true
    }
}
