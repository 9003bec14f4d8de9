//! systemd is told how a service is doing through a socket (sd_notify(3)); without one, nobody is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service is up: units ordered after it may start.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The service is on its way down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Alive.
pub fn pet_watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be petted: half of `WatchdogSec`.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    // No socket, or systemd is gone: the work goes on either way.
    let _ = sd_notify::notify(state);
}
