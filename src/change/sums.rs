//! Sums of what storage credited.

use std::collections::BTreeMap;

use crate::base::ids::{InfoHash, UserId};

/// A sum of credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes for the user's totals, multipliers applied (rule A8).
    pub up: u64,
    pub down: u64,
    /// Before multipliers, for the torrent's totals and the history.
    pub raw_up: u64,
    pub raw_down: u64,
    /// Seconds.
    pub seed_time: u64,
    pub announces: u64,
    pub snatches: u64,
}

/// What storage credited in one transaction, or in several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credited {
    pub users: BTreeMap<UserId, Sum>,
    /// By (first) info hash; public torrents, too.
    pub torrents: BTreeMap<InfoHash, Sum>,
    /// Reports in which a total grew faster than any line: not credited (rule A7).
    pub implausible: u64,
}

// === impl Sum ===

impl Sum {
    /// Adds another sum, saturating.
    pub fn add(&mut self, other: &Self) {
        let fields = [
            (&mut self.up, other.up),
            (&mut self.down, other.down),
            (&mut self.raw_up, other.raw_up),
            (&mut self.raw_down, other.raw_down),
            (&mut self.seed_time, other.seed_time),
            (&mut self.announces, other.announces),
            (&mut self.snatches, other.snatches),
        ];
        for (sum, number) in fields {
            *sum = sum.saturating_add(number);
        }
    }
}

// === impl Credited ===

impl Credited {
    /// Adds the credit of another call.
    pub fn add(&mut self, later: &Self) {
        for (user, sum) in &later.users {
            self.users.entry(*user).or_default().add(sum);
        }
        for (info_hash, sum) in &later.torrents {
            self.torrents.entry(*info_hash).or_default().add(sum);
        }
        self.implausible = self.implausible.saturating_add(later.implausible);
    }

    /// Whether no total changes.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.torrents.is_empty()
    }
}
