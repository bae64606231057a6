//! What just happened, for those who watch: registry changes, snatches, refusals.
//!
//! Nobody has to watch, and whoever watches too slowly loses events and is told how many: nothing
//! waits for a watcher. Without one an event costs a look at a counter.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::base::clock::Seconds;
use crate::base::ids::{InfoHash, TorrentId, UserId};

/// Events that a watcher may lag behind.
const HELD: usize = 1024;

/// Refusals told in one second, and snatches; a flood of them is told of by the counters, and must
/// not push out what else happened.
const TOLD_A_SECOND: u32 = 100;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user was added or changed, or is gone.
    User(UserId),
    /// A torrent was added or changed, or is gone: its id or its info hash, or both.
    Torrent(Option<TorrentId>, Option<InfoHash>),
    /// The whitelist changed.
    Whitelist,
    /// The whole registry was loaded again.
    Registry,
    /// A torrent was completed; by whom, where users are known.
    Snatch(InfoHash, Option<UserId>),
    /// An announce or scrape was refused.
    Refusal {
        /// The kind of refusal, one of a few.
        reason: &'static str,
        protocol: &'static str,
        address: Option<IpAddr>,
    },
}

/// Where events are told and heard.
pub struct Events {
    told: broadcast::Sender<Event>,
    /// How many watch. The channel knows it too, but behind a lock that all workers would take.
    watchers: Arc<AtomicUsize>,
    refusals: Limit,
    snatches: Limit,
}

/// Somebody who watches, until it is dropped.
pub struct Watch {
    heard: broadcast::Receiver<Event>,
    watchers: Arc<AtomicUsize>,
}

/// The second in the upper half, what was told in it in the lower.
#[derive(Default)]
struct Limit(AtomicU64);

// === impl Events ===

impl Default for Events {
    fn default() -> Self {
        Self {
            told: broadcast::Sender::new(HELD),
            watchers: Arc::default(),
            refusals: Limit::default(),
            snatches: Limit::default(),
        }
    }
}

impl Events {
    /// Hears all events from now on.
    pub fn watch(&self) -> Watch {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watch {
            heard: self.told.subscribe(),
            watchers: Arc::clone(&self.watchers),
        }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    pub fn tell(&self, event: Event) {
        if self.is_watched() {
            // It fails when the last watcher has gone meanwhile.
            let _ = self.told.send(event);
        }
    }

    /// Tells of a snatch, unless there were many in this second.
    pub fn tell_snatch(&self, info_hash: InfoHash, user: Option<UserId>, now: Seconds) {
        if self.is_watched() && self.snatches.allows(now) {
            self.tell(Event::Snatch(info_hash, user));
        }
    }

    /// Tells of a refusal, unless there were many in this second.
    pub fn tell_refusal(
        &self,
        reason: &'static str,
        protocol: &'static str,
        address: Option<IpAddr>,
        now: Seconds,
    ) {
        if self.is_watched() && self.refusals.allows(now) {
            self.tell(Event::Refusal {
                reason,
                protocol,
                address,
            });
        }
    }
}

// === impl Watch ===

impl Watch {
    /// The next event.
    ///
    /// # Errors
    /// How many were lost, because they were not taken in time.
    pub async fn next(&mut self) -> Result<Event, RecvError> {
        self.heard.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Limit ===

impl Limit {
    /// Whether one more may be told in this second. Two threads at once may count one too few.
    fn allows(&self, now: Seconds) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        let second = u64::from(now.0);
        let told = if before >> 32 == second {
            before as u32
        } else {
            0
        };
        if told < TOLD_A_SECOND {
            self.0
                .store(second << 32 | u64::from(told + 1), Ordering::Relaxed);
        }
        told < TOLD_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_so_often_a_second() {
        let events = Events::default();
        events.tell_refusal("no one hears", "udp", None, Seconds(1));
        let mut heard = events.watch();
        for second in [1, 2] {
            for _ in 0..2 * TOLD_A_SECOND {
                events.tell_refusal("x", "udp", None, Seconds(second));
            }
        }
        let mut count = 0;
        while heard.heard.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 2 * TOLD_A_SECOND);
    }

    #[test]
    fn a_slow_watcher_is_told_what_it_lost() {
        let events = Events::default();
        let mut heard = events.watch();
        for id in 0..HELD as u32 + 10 {
            events.tell(Event::User(UserId(id)));
        }
        let lost = heard.heard.try_recv();
        assert_eq!(lost, Err(broadcast::error::TryRecvError::Lagged(10)));
        assert_eq!(heard.heard.try_recv(), Ok(Event::User(UserId(10))));
        assert!(events.is_watched());
        drop(heard);
        assert!(!events.is_watched());
    }
}
