//! The outbox: changes on their way from announces to the journal, bounded and in order.
//!
//! Changes of one torrent go through one lane, so they keep their order; lanes keep
//! workers from waiting for each other. The journal *cuts* the outbox: it takes all that
//! is there under the next cut number. A [`Ticket`] names the cut that a change fell into
//! and is settled when everything of that cut is durable.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::change::Change;

const LANES: usize = 16;

/// Changes that a lane always has room for.
const LANE_MIN: usize = 16;

/// What a reply waits for: the number of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// All changes of one cut, in order for each torrent.
#[derive(Debug)]
pub struct Cut {
    pub number: u64,
    pub changes: Vec<Change>,
}

/// Room for one change. Unless used, it is given back when dropped.
pub struct Reservation<'a> {
    outbox: &'a Outbox,
    used: bool,
}

/// The queue between the tracker and the journal.
pub struct Outbox {
    lanes: [Mutex<Lane>; LANES],
    /// Changes that are not settled yet, and the most there may be.
    pending: AtomicUsize,
    capacity: usize,
    settled: watch::Sender<u64>,
    urgent: Notify,
}

struct Lane {
    changes: Vec<Change>,
    /// The number of the next cut of this lane.
    cut: u64,
}

// === impl Ticket ===

impl Ticket {
    /// For a change that found no room: nothing settles it, its reply goes when the wait is over.
    pub const NEVER: Self = Self(u64::MAX);
}

// === impl Reservation ===

impl Reservation<'_> {
    /// Queues the change. All changes of one torrent must come under the same `lane`.
    pub fn push(mut self, lane: usize, change: Change) -> Ticket {
        self.used = true;
        let mut lane = self.outbox.lanes[lane % LANES].lock();
        lane.changes.push(change);
        Ticket(lane.cut)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.outbox.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

// === impl Outbox ===

impl Outbox {
    pub fn new(capacity: usize) -> Self {
        let lane = || {
            Mutex::new(Lane {
                changes: Vec::new(),
                cut: 1,
            })
        };
        Self {
            lanes: std::array::from_fn(|_| lane()),
            pending: AtomicUsize::new(0),
            capacity,
            settled: watch::Sender::new(0),
            urgent: Notify::new(),
        }
    }

    /// Room for one change; none if the outbox is full.
    pub fn reserve(&self) -> Option<Reservation<'_>> {
        if self.pending.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Reservation {
            outbox: self,
            used: false,
        })
    }

    /// Changes that are not durable yet.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Changes that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes everything, under the next number. Only the journal cuts.
    pub fn cut(&self) -> Cut {
        // As much memory as it takes, so that a large cut is not copied again and again.
        let waiting: usize = self.lanes.iter().map(|it| it.lock().changes.len()).sum();
        let mut cut = Cut {
            number: 0,
            changes: Vec::with_capacity(waiting),
        };
        for lane in &self.lanes {
            let mut lane = lane.lock();
            let taken = lane.changes.len();
            cut.number = lane.cut;
            cut.changes.append(&mut lane.changes);
            lane.cut += 1;
            // Room for as much again; what a rush needed goes back after it.
            if lane.changes.capacity() > 4 * taken + LANE_MIN {
                lane.changes.shrink_to(2 * taken + LANE_MIN);
            }
        }
        cut
    }

    /// Everything of that cut, `changes` of them, is durable.
    pub fn settle(&self, cut: u64, changes: usize) {
        self.pending.fetch_sub(changes, Ordering::Relaxed);
        self.settled.send_replace(cut);
    }

    /// Waits until the ticket's cut is durable, and brings the next cut forward meanwhile.
    pub async fn settled(&self, ticket: Ticket) {
        if *self.settled.borrow() >= ticket.0 {
            return;
        }
        self.urgent.notify_one();
        let mut settled = self.settled.subscribe();
        // Fails only if the sender is gone, and that is part of `self`.
        let _ = settled.wait_for(|&cut| cut >= ticket.0).await;
    }

    /// Waits until all that is queued by now is durable.
    pub async fn drained(&self) {
        let cuts = self.lanes.iter().map(|lane| lane.lock().cut);
        let last = cuts.max().unwrap_or(0);
        self.settled(Ticket(last)).await;
    }

    /// Waits until a reply waits for a cut.
    pub async fn wanted(&self) {
        self.urgent.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;

    fn change(byte: u8) -> Change {
        Change::Snatch {
            info_hash: InfoHash([byte; 20]),
        }
    }

    #[test]
    fn a_full_outbox_has_no_room_until_a_cut_is_settled() {
        let outbox = Outbox::new(2);
        outbox.reserve().unwrap().push(0, change(1));
        drop(outbox.reserve().unwrap());
        outbox.reserve().unwrap().push(1, change(2));
        assert!(outbox.reserve().is_none());
        let cut = outbox.cut();
        assert_eq!(cut.changes.len(), 2);
        assert!(
            outbox.reserve().is_none(),
            "what is not durable still counts"
        );
        outbox.settle(cut.number, cut.changes.len());
        assert_eq!(outbox.pending(), 0);
        assert!(outbox.reserve().is_some());
    }

    #[tokio::test]
    async fn a_ticket_is_settled_with_its_cut_and_not_before() {
        let outbox = Outbox::new(10);
        let first = outbox.reserve().unwrap().push(3, change(1));
        let cut = outbox.cut();
        let second = outbox.reserve().unwrap().push(3, change(2));
        assert!(second > first);
        outbox.settle(cut.number, 1);
        outbox.settled(first).await;
        let wait = std::time::Duration::from_millis(20);
        assert!(
            tokio::time::timeout(wait, outbox.settled(second))
                .await
                .is_err()
        );
        outbox.wanted().await;
        let cut = outbox.cut();
        outbox.settle(cut.number, 1);
        outbox.settled(second).await;
        // Nothing is left, but only the next cut proves it.
        let proof = async {
            outbox.wanted().await;
            let cut = outbox.cut();
            outbox.settle(cut.number, cut.changes.len());
        };
        tokio::join!(outbox.drained(), proof);
    }
}
