//! systemd is told how a service is doing through a socket (sd_notify(3)); without one, nobody is told.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::OFlag;

use sd_notify::NotifyState;

/// The service is up: units ordered after it may start.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The service comes up later: systemd waits for it so much longer, where it would have given up before (`TimeoutStartSec`), and
/// with what is ordered after it.
pub fn not_ready_yet(time: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
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

/// Whether systemd started this program with its output in the journal (systemd.exec(5), `$JOURNAL_STREAM`).
pub fn is_unit() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// Writes a line on the machine's console, when it has a usable one; never waits for it.
pub fn console(text: &str) {
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let console = OpenOptions::new().write(true).custom_flags(flags.bits()).open("/dev/console");
    // Many machines have none, and nobody reads most of the others.
    let _ = console.and_then(|mut console| console.write_all(text.replace('\n', "\r\n").as_bytes()));
}

fn tell(state: &[NotifyState<'_>]) {
    // No socket, or systemd is gone: the work goes on either way.
    let _ = sd_notify::notify(state);
}
