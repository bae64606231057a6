//! How many records each user has over all torrents, and how fast they begin new ones (rule A6).
//!
//! Only an announce that begins a record and a sweep that forgets one look here. It takes about 20
//! bytes for each user who has records.

use std::collections::HashMap;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::base::clock::Seconds;
use crate::base::hash::RandomState;
use crate::base::ids::UserId;
use crate::tracker::Refusal;

/// Parts of the map, with a lock each.
const SHARES: usize = if cfg!(fuzzing) { 1 } else { 64 };

/// How many records one user may have, and how fast they may begin new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Records over all torrents, tombstones included.
    pub max: u32,
    /// New records at once.
    pub burst: u32,
    /// New records a second, once the burst is used up.
    pub rate: u32,
}

/// The records of all users.
pub(super) struct UserRecords {
    shares: Box<[CachePadded<Share>]>,
}

type Share = Mutex<HashMap<UserId, Load, RandomState>>;

/// What one user has.
#[derive(Clone, Copy, Default)]
struct Load {
    records: u32,
    /// How much of the burst was used up at the moment `at`.
    used: u32,
    at: Seconds,
}

impl Default for UserRecords {
    fn default() -> Self {
        Self {
            shares: (0..SHARES).map(|_| CachePadded::default()).collect(),
        }
    }
}

impl UserRecords {
    /// Records of that user, tombstones included.
    pub fn count(&self, user: UserId) -> u32 {
        self.share(user)
            .lock()
            .get(&user)
            .map_or(0, |load| load.records)
    }

    /// Uses up one new record of the user's burst. The caller adds the record once it exists.
    ///
    /// # Errors
    /// The user began too many recently; nothing was changed.
    pub fn take(&self, user: UserId, limits: RecordLimits, now: Seconds) -> Result<(), Refusal> {
        let mut share = self.share(user).lock();
        let load = share.entry(user).or_default();
        let back = now.since(load.at).saturating_mul(limits.rate);
        let used = load.used.saturating_sub(back);
        if used >= limits.burst {
            return Err(Refusal::TooManyNewRecords);
        }
        (load.used, load.at) = (used + 1, now);
        Ok(())
    }

    pub fn add(&self, user: UserId) {
        let mut share = self.share(user).lock();
        let load = share.entry(user).or_default();
        load.records = load.records.saturating_add(1);
    }

    /// Removes a record that is gone.
    pub fn remove(&self, user: UserId) {
        let mut share = self.share(user).lock();
        if let Some(load) = share.get_mut(&user) {
            load.records = load.records.saturating_sub(1);
            // `used` goes, too: records live for longer than a burst takes to come back.
            if load.records == 0 {
                share.remove(&user);
            }
        }
    }

    fn share(&self, user: UserId) -> &Share {
        &self.shares[user.0 as usize % SHARES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RecordLimits = RecordLimits {
        max: 10,
        burst: 3,
        rate: 2,
    };

    #[test]
    fn a_burst_is_used_up_and_comes_back_at_its_rate() {
        let records = UserRecords::default();
        let user = UserId(7);
        let took = |now: u32| {
            let now = Seconds::START.plus(now);
            (0..10)
                .filter(|_| records.take(user, LIMITS, now).is_ok())
                .count()
        };
        assert_eq!(
            (took(0), took(0), took(1), took(2), took(100)),
            (3, 0, 2, 2, 3)
        );
        assert!(
            records
                .take(UserId(8), LIMITS, Seconds::START.plus(100))
                .is_ok(),
            "others have theirs"
        );
    }

    #[test]
    fn records_are_counted_and_users_without_any_take_no_memory() {
        let records = UserRecords::default();
        let user = UserId(7);
        (0..3).for_each(|_| records.add(user));
        records.remove(user);
        assert_eq!((records.count(user), records.count(UserId(71))), (2, 0));
        (0..2).for_each(|_| records.remove(user));
        assert_eq!(records.count(user), 0);
        assert!(records.shares.iter().all(|share| share.lock().is_empty()));
    }
}
