//! Notifications for the service manager (sd_notify(3)): readiness, status and watchdog. Without
//! `NOTIFY_SOCKET`, as in a shell or under supervisord, nothing is sent.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// How often a waiting manager is asked to extend its timeout, and by how much.
const EXTEND_PERIOD: Duration = Duration::from_secs(5);
const EXTENSION: u32 = 20_000_000; // microseconds

/// A longer status is cut off: it is one line on a terminal.
const STATUS_MAX: usize = 200;

/// The tracker serves, after a start or a reload.
pub fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// What the tracker is doing now, for people.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&line(text))]);
}

/// Config and registry are read again; [`ready`] ends it.
pub fn reloading(text: &str) {
    // `Type=notify-reload` requires the time of the start.
    match NotifyState::monotonic_usec_now() {
        Ok(since) => send(&[
            NotifyState::Reloading,
            since,
            NotifyState::Status(&line(text)),
        ]),
        Err(error) => failed(&error),
    }
}

/// The tracker is shutting down.
pub fn stopping(text: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&line(text))]);
}

/// The watchdog's heartbeat, see [`alive_period`].
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often to send [`alive`]: half the watchdog's timeout; none without a watchdog.
pub fn alive_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

/// Awaits work that may take long, and extends the manager's timeout while this thread makes progress. It
/// also keeps the watchdog quiet, which goes on during a restart in place.
pub async fn extending_timeout<F: Future>(work: F) -> F::Output {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(EXTEND_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset(); // short work needs no extension
    loop {
        tokio::select! {
            output = &mut work => return output,
            _ = ticks.tick() => {
                send(&[NotifyState::ExtendTimeoutUsec(EXTENSION)]);
                if alive_period().is_some() {
                    alive();
                }
            }
        }
    }
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        failed(&error);
    }
}

/// A lost notification affects only what the manager shows or does by itself.
fn failed(error: &std::io::Error) {
    tracing::debug!(%error, "can't notify the service manager");
}

/// The text as one line: after a line break the manager would read another message, and the text
/// may come from a server.
fn line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(STATUS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_of_limited_length() {
        assert_eq!(line("a\nMAINPID=1\r\0"), "a MAINPID=1  ");
        assert_eq!(line(&"é".repeat(900)).chars().count(), STATUS_MAX);
    }

    #[tokio::test]
    async fn work_is_done_without_a_manager() {
        assert_eq!(extending_timeout(async { 5 }).await, 5);
    }
}
