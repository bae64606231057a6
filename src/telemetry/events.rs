//! Live events for subscribers: registry changes, snatches, refusals.
//!
//! A subscriber that reads too slowly loses events and receives their number: nothing waits for it.
//! Without subscribers, an event costs one atomic load.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smart_default::SmartDefault;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::base::clock::Seconds;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::base::limit::PeriodLimit;

/// How many events a subscriber may lag behind.
const CAPACITY: usize = 1024;

/// The most refusals, and the most snatches, published in one second: a flood of them is visible in the
/// counters, and must not push out other events.
const RATE_MAX: u32 = 100;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveEvent {
    /// A user was added or changed, or is gone.
    User(UserId),
    /// A torrent was added or changed, or is gone: its id or its info hash, or both.
    Torrent(Option<TorrentId>, Option<InfoHash>),
    /// The whitelist changed.
    Whitelist,
    /// The whole registry was loaded again.
    Registry,
    /// A torrent was completed; by which user, on a private tracker.
    Snatch(InfoHash, Option<UserId>),
    /// An announce or scrape was refused.
    Refusal {
        /// The kind of refusal, one of a few.
        reason: &'static str,
        protocol: &'static str,
        address: Option<IpAddr>,
    },
}

/// Publishes events.
#[derive(SmartDefault)]
pub struct Events {
    #[default(broadcast::Sender::new(CAPACITY))]
    sender: broadcast::Sender<LiveEvent>,
    /// The number of subscriptions. The channel has it too, but behind a lock that all workers would
    /// take.
    subscriptions: Arc<AtomicUsize>,
    refusals: PeriodLimit,
    snatches: PeriodLimit,
}

/// A subscription, until it is dropped.
pub struct Watch {
    receiver: broadcast::Receiver<LiveEvent>,
    subscriptions: Arc<AtomicUsize>,
}

// === impl Events ===

impl Events {
    /// Subscribes to all events from now on.
    pub fn watch(&self) -> Watch {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        Watch {
            receiver: self.sender.subscribe(),
            subscriptions: Arc::clone(&self.subscriptions),
        }
    }

    pub fn is_watched(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0
    }

    pub fn publish(&self, event: LiveEvent) {
        if self.is_watched() {
            // Fails if the last subscriber has gone meanwhile.
            let _ = self.sender.send(event);
        }
    }

    /// Publishes a snatch, within the rate limit.
    pub fn publish_snatch(&self, info_hash: InfoHash, user: Option<UserId>, now: Seconds) {
        if self.is_watched() && self.snatches.allows(RATE_MAX, now.0) {
            self.publish(LiveEvent::Snatch(info_hash, user));
        }
    }

    /// Publishes a refusal, within the rate limit.
    pub fn publish_refusal(
        &self,
        reason: &'static str,
        protocol: &'static str,
        address: Option<IpAddr>,
        now: Seconds,
    ) {
        if self.is_watched() && self.refusals.allows(RATE_MAX, now.0) {
            self.publish(LiveEvent::Refusal {
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
    /// The number of events that were lost because they were not read in time.
    pub async fn next(&mut self) -> Result<LiveEvent, RecvError> {
        self.receiver.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_published_up_to_a_rate() {
        let events = Events::default();
        events.publish_refusal("without a subscriber", "udp", None, Seconds(1));
        let mut watch = events.watch();
        for second in [1, 2] {
            for _ in 0..2 * RATE_MAX {
                events.publish_refusal("x", "udp", None, Seconds(second));
            }
        }
        let mut count = 0;
        while watch.receiver.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 2 * RATE_MAX);
    }

    #[test]
    fn a_slow_subscriber_receives_the_number_of_lost_events() {
        let events = Events::default();
        let mut watch = events.watch();
        for id in 0..CAPACITY as u32 + 10 {
            events.publish(LiveEvent::User(UserId(id)));
        }
        let lost = watch.receiver.try_recv();
        assert_eq!(lost, Err(broadcast::error::TryRecvError::Lagged(10)));
        assert_eq!(watch.receiver.try_recv(), Ok(LiveEvent::User(UserId(10))));
        assert!(events.is_watched());
        drop(watch);
        assert!(!events.is_watched());
    }
}
