//! What the service manager is told: that the tracker serves, what it is doing, and that it still
//! works (sd_notify(3)). Where `NOTIFY_SOCKET` is not set, as in a shell or under supervisord,
//! nothing happens.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// How often a manager that waits is asked for more time, and how much.
const EXTEND_PERIOD: Duration = Duration::from_secs(5);
const EXTENSION: u32 = 20_000_000; // microseconds

/// A longer status is cut off: it is one line on somebody's terminal.
const STATUS_MAX: usize = 200;

/// The tracker serves, after a start or a reload.
pub fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// What it is doing now, in words for a person.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&line(text))]);
}

/// Config and registry are read again; [`ready`] ends it.
pub fn reloading(text: &str) {
    // Managers of `Type=notify-reload` want to know since when.
    match NotifyState::monotonic_usec_now() {
        Ok(since) => send(&[
            NotifyState::Reloading,
            since,
            NotifyState::Status(&line(text)),
        ]),
        Err(error) => failed(&error),
    }
}

/// It is about to end.
pub fn stopping(text: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&line(text))]);
}

/// It still works, see [`alive_period`].
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often the manager wants to hear [`alive`], half of its patience; none if it does not.
pub fn alive_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// Does work that may take long, and has the manager wait for it as long as this thread turns.
pub async fn unhurried<F: Future>(work: F) -> F::Output {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(EXTEND_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset(); // what is done soon needs no more time
    loop {
        tokio::select! {
            output = &mut work => return output,
            _ = ticks.tick() => send(&[NotifyState::ExtendTimeoutUsec(EXTENSION)]),
        }
    }
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        failed(&error);
    }
}

/// Nothing depends on it but what the manager shows, or does by itself.
fn failed(error: &std::io::Error) {
    tracing::debug!(%error, "the service manager was not told");
}

/// The text as one line: what follows a line break would be another message to the manager, and
/// texts of servers are in it.
fn line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(STATUS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_that_ends() {
        assert_eq!(line("a\nMAINPID=1\r\0"), "a MAINPID=1  ");
        assert_eq!(line(&"é".repeat(900)).chars().count(), STATUS_MAX);
    }

    #[tokio::test]
    async fn work_is_done_though_nobody_waits_for_it() {
        assert_eq!(unhurried(async { 5 }).await, 5);
    }
}
