//! A node's clock is often wrong at boot, so whoever judges a date asks here and tests can choose the time.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// The wall clock.
pub trait Clock {
    /// Now, in UTC.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A fake: a clock that a test sets.
pub struct FixedClock(Mutex<SystemTime>);

impl FixedClock {
    /// A clock that stands at `seconds` after 1970.
    pub fn at(seconds: u64) -> Self {
        Self(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        self.0.lock().map_or(SystemTime::UNIX_EPOCH, |time| *time)
    }
}
