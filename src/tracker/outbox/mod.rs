//! The outbox: changes on their way from announces to the journal, bounded and in order.
//!
//! Changes of one torrent go through one lane, so they keep their order; lanes keep
//! workers from waiting for each other. Snatches of a public torrent are added up in its lane: one drain takes
//! them as one change, however many there are. The journal *drains* the outbox: it takes all that
//! is queued, under the next number. A [`Ticket`] holds the number of the drain that takes a change: its
//! reply waits until everything of that drain is durable.

mod room;

use std::collections::HashMap;

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::base::hash::RandomState;
use crate::base::ids::InfoHash;
use crate::base::lock::LockWaits;
use crate::change::Change;

use self::room::Room;

/// Lanes: several for each core of most machines, so that two workers seldom want the same one.
const LANES: usize = if cfg!(fuzzing) { 4 } else { 64 };

/// Changes that a lane always has room for.
const LANE_MIN: usize = 16;

/// What a reply waits for: the number of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// All changes of one drain, in order for each torrent.
#[derive(Debug)]
pub struct Drained {
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
    lanes: Box<[CachePadded<Mutex<Lane>>]>,
    waits: LockWaits,
    /// For changes that are not durable yet.
    room: Room,
    durable_up_to: watch::Sender<u64>,
    urgent: Notify,
}

struct Lane {
    changes: Vec<Change>,
    /// Snatches of public torrents; each torrent has taken room for one change.
    snatches: HashMap<InfoHash, u32, RandomState>,
    /// The number of the next drain of this lane.
    next_drain: u64,
}

// === impl Ticket ===

impl Ticket {
    /// For a change that found no room: no drain has this number, so its reply goes out after the
    /// timeout.
    pub const NEVER: Self = Self(u64::MAX);
}

// === impl Reservation ===

impl Reservation<'_> {
    /// Queues the change. All changes of one torrent must come under the same `lane`.
    pub fn push(mut self, lane: usize, change: Change) -> Ticket {
        self.used = true;
        let mut lane = self.outbox.lane(lane);
        lane.changes.push(change);
        Ticket(lane.next_drain)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.outbox.room.give_back();
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Changes that a drain takes.
    fn len(&self) -> usize {
        self.changes.len() + self.snatches.len()
    }

    /// Moves all to `drained`, and returns the number of the drain. Snatches go first: a crash between two batches may
    /// leave a snatch without its peer, but no peer that is marked as counted without its snatch.
    fn drain_into(&mut self, drained: &mut Vec<Change>) -> u64 {
        let (changes, snatches) = (self.changes.len(), self.snatches.len());
        let counted = self.snatches.drain();
        drained.extend(counted.map(|(info_hash, count)| Change::Snatches { info_hash, count }));
        drained.append(&mut self.changes);
        // Keep room for as much again; give back what a rush needed.
        if self.changes.capacity() > 4 * changes + LANE_MIN {
            self.changes.shrink_to(2 * changes + LANE_MIN);
        }
        if self.snatches.capacity() > 4 * snatches + LANE_MIN {
            self.snatches.shrink_to(2 * snatches + LANE_MIN);
        }
        let number = self.next_drain;
        self.next_drain += 1;
        number
    }
}

// === impl Outbox ===

impl Outbox {
    pub fn new(capacity: usize) -> Self {
        let lane = |_| {
            CachePadded::new(Mutex::new(Lane {
                changes: Vec::new(),
                snatches: HashMap::default(),
                next_drain: 1,
            }))
        };
        Self {
            lanes: (0..LANES).map(lane).collect(),
            waits: LockWaits::default(),
            room: Room::new(capacity),
            durable_up_to: watch::Sender::new(0),
            urgent: Notify::new(),
        }
    }

    /// Reserves room for one change; none if the outbox is full.
    pub fn reserve(&self) -> Option<Reservation<'_>> {
        // Not `then_some`: a reservation that is dropped gives its room back.
        self.room.take().then(|| Reservation {
            outbox: self,
            used: false,
        })
    }

    /// Counts a snatch of a public torrent; all changes of one torrent must come under the same `lane`. False if it
    /// is the torrent's first since the last drain, and the outbox is full: then it is not counted.
    pub fn add_snatch(&self, lane: usize, info_hash: InfoHash) -> bool {
        let mut lane = self.lane(lane);
        if let Some(count) = lane.snatches.get_mut(&info_hash) {
            *count = count.saturating_add(1);
            return true;
        }
        let Some(mut room) = self.reserve() else {
            return false;
        };
        room.used = true;
        lane.snatches.insert(info_hash, 1);
        true
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, Lane> {
        self.waits.lock(&self.lanes[lane % LANES])
    }

    /// Waits of announces for lanes.
    pub fn waits(&self) -> &LockWaits {
        &self.waits
    }

    /// Changes that are not durable yet.
    pub fn pending(&self) -> usize {
        self.room.used()
    }

    /// Changes that it has room for.
    pub fn capacity(&self) -> usize {
        self.room.capacity()
    }

    /// Takes everything, under the next number. Only the journal drains.
    pub fn drain(&self) -> Drained {
        // Allocated at once, so that a large number of changes is not copied again and again.
        let waiting: usize = self.lanes.iter().map(|lane| lane.lock().len()).sum();
        let mut drained = Drained {
            number: 0,
            changes: Vec::with_capacity(waiting),
        };
        for lane in &*self.lanes {
            drained.number = lane.lock().drain_into(&mut drained.changes);
        }
        drained
    }

    /// Records that everything of that drain, `changes` of them, is durable.
    pub fn mark_durable(&self, drain: u64, changes: usize) {
        self.room.release(changes);
        self.durable_up_to.send_replace(drain);
    }

    /// Waits until the ticket's drain is durable, and asks the journal to drain without delay.
    pub async fn durable(&self, ticket: Ticket) {
        if *self.durable_up_to.borrow() >= ticket.0 {
            return;
        }
        self.hurry();
        let mut durable_up_to = self.durable_up_to.subscribe();
        // Fails only if the sender is gone, and that is part of `self`.
        let _ = durable_up_to.wait_for(|&drain| drain >= ticket.0).await;
    }

    /// Waits until everything queued so far is durable.
    pub async fn flushed(&self) {
        let last = self
            .lanes
            .iter()
            .map(|lane| lane.lock().next_drain)
            .max()
            .unwrap_or(0);
        self.durable(Ticket(last)).await;
    }

    /// Asks the journal to drain without delay: a reply waits, or other nodes lack a newcomer.
    pub fn hurry(&self) {
        self.urgent.notify_one();
    }

    /// Waits until a drain without delay is asked for.
    pub async fn wanted(&self) {
        self.urgent.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;

    fn change(byte: u8) -> Change {
        snatches(byte, 1)
    }

    fn snatches(byte: u8, count: u32) -> Change {
        Change::Snatches {
            info_hash: InfoHash([byte; 20]),
            count,
        }
    }

    #[test]
    fn snatches_of_a_torrent_are_one_change_of_a_drain() {
        let outbox = Outbox::new(2);
        let add = |byte: u8| outbox.add_snatch(0, InfoHash([byte; 20]));
        assert!((0..5).all(|_| add(1)));
        assert!(add(2) && !add(3), "room for two torrents");
        assert!(add(1), "it has its room already");
        let drained = outbox.drain();
        assert_eq!(drained.changes.len(), 2);
        assert!(drained.changes.contains(&snatches(1, 6)));
        assert!(drained.changes.contains(&snatches(2, 1)));
        assert!(!add(1), "what is not durable still counts");
        outbox.mark_durable(drained.number, drained.changes.len());
        assert!(add(1));
        assert_eq!(outbox.drain().changes, [snatches(1, 1)]);
    }

    #[test]
    fn snatches_are_drained_before_the_peers_that_they_mark() {
        let outbox = Outbox::new(10);
        outbox.reserve().unwrap().push(0, change(1));
        assert!(outbox.add_snatch(0, InfoHash([2; 20])));
        assert_eq!(outbox.drain().changes, [snatches(2, 1), change(1)]);
    }

    #[test]
    fn a_full_outbox_has_no_room_until_a_drain_is_durable() {
        let outbox = Outbox::new(2);
        outbox.reserve().unwrap().push(0, change(1));
        drop(outbox.reserve().unwrap());
        outbox.reserve().unwrap().push(1, change(2));
        assert!(outbox.reserve().is_none());
        let drained = outbox.drain();
        assert_eq!(drained.changes.len(), 2);
        assert!(
            outbox.reserve().is_none(),
            "what is not durable still counts"
        );
        outbox.mark_durable(drained.number, drained.changes.len());
        assert_eq!(outbox.pending(), 0);
        assert!(outbox.reserve().is_some());
    }

    #[tokio::test]
    async fn a_ticket_is_durable_with_its_drain_and_not_before() {
        let outbox = Outbox::new(10);
        let first = outbox.reserve().unwrap().push(3, change(1));
        let drained = outbox.drain();
        let second = outbox.reserve().unwrap().push(3, change(2));
        assert!(second > first);
        outbox.mark_durable(drained.number, 1);
        outbox.durable(first).await;
        let wait = std::time::Duration::from_millis(20);
        assert!(
            tokio::time::timeout(wait, outbox.durable(second))
                .await
                .is_err()
        );
        outbox.wanted().await;
        let drained = outbox.drain();
        outbox.mark_durable(drained.number, 1);
        outbox.durable(second).await;
        // Nothing is left, but only the next drain proves it.
        let proof = async {
            outbox.wanted().await;
            let drained = outbox.drain();
            outbox.mark_durable(drained.number, drained.changes.len());
        };
        tokio::join!(outbox.flushed(), proof);
    }
}
