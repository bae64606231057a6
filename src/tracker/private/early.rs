//! Changes of other nodes that arrive before the edit of their torrent.
//!
//! A torrent that gets another id, or the info hash of another torrent, is known to each node by a notice, and peers
//! by journals: either may be first. What is early is kept until the edit is known.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::base::clock::{Now, Seconds};
use crate::change::PeerChange;

/// The most changes that are kept; after that, the oldest is dropped. Its peer is known again by its next announce.
const EARLY_MAX: usize = 10_000;

/// Seconds after which a torrent is not expected any more.
const EXPECTED: u32 = 60;

/// In the order of their arrival.
#[derive(Default)]
pub(super) struct EarlyChanges(Mutex<VecDeque<EarlyChange>>);

pub(super) struct EarlyChange {
    pub change: PeerChange,
    /// As for [`crate::tracker::Tracker::follow_peer`].
    pub is_counted: bool,
    since: Seconds,
}

impl EarlyChanges {
    pub fn add(&self, change: &PeerChange, is_counted: bool, now: Now) {
        let mut all = self.0.lock();
        drop_old(&mut all, now);
        if all.len() >= EARLY_MAX {
            all.pop_front();
        }
        all.push_back(EarlyChange {
            change: change.clone(),
            is_counted,
            since: now.mono,
        });
    }

    /// Removes those whose torrent `is_known`.
    pub fn take(&self, now: Now, is_known: impl Fn(&PeerChange) -> bool) -> Vec<EarlyChange> {
        let mut all = self.0.lock();
        drop_old(&mut all, now);
        let (known, early) = std::mem::take(&mut *all)
            .into_iter()
            .partition(|early| is_known(&early.change));
        *all = early;
        Vec::from(known)
    }
}

fn drop_old(all: &mut VecDeque<EarlyChange>, now: Now) {
    let is_old = |early: &EarlyChange| now.mono.since(early.since) > EXPECTED;
    while all.front().is_some_and(is_old) {
        all.pop_front();
    }
}
