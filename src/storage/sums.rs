//! What batches do to each row, so that a row is written once, in the order of its table.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::{Change, Credit, PeerChange, PeerKey, Standing, SwarmCounts};
use crate::ids::{InfoHash, TorrentId, UserId};

/// The sums of some changes.
#[derive(Default)]
pub(super) struct Sums<'a> {
    /// The latest record of each peer.
    pub(super) peers: BTreeMap<PeerKey, &'a PeerChange>,
    /// What was added, and the latest change.
    pub(super) histories: BTreeMap<(TorrentId, UserId), (Sum, &'a PeerChange)>,
    pub(super) users: BTreeMap<UserId, Sum>,
    pub(super) torrents: BTreeMap<TorrentId, (Sum, SwarmCounts)>,
    /// Snatches of public torrents.
    pub(super) snatches: BTreeMap<InfoHash, u64>,
    /// Peers whose user or torrent was deleted.
    pub(super) gone: BTreeSet<PeerKey>,
}

/// A sum of credits. Seconds and counts are wider than in one [`Credit`].
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) raw_up: u64,
    pub(super) raw_down: u64,
    pub(super) seed_time: u64,
    pub(super) announces: u64,
    pub(super) snatches: u64,
}

/// Seconds by which the clocks of two nodes may differ. Of two records of a peer, the one with more
/// announces is the later one, or that whose last announce is later by more than this.
pub(super) const CLOCK_SKEW: i64 = 5;

/// The largest number that SQL knows is 2^63−1 (rule A8).
pub(super) fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// === impl Sums ===

impl<'a> Sums<'a> {
    /// Sums up `changes`. `torrent_of` tells under which id the torrent of a change is stored; none if
    /// the torrent or the user is not.
    pub(super) fn of<E>(
        changes: impl Iterator<Item = &'a Change>,
        mut torrent_of: impl FnMut(&PeerChange) -> Result<Option<TorrentId>, E>,
    ) -> Result<Self, E> {
        let mut sums = Self::default();
        for change in changes {
            match change {
                Change::Snatch { info_hash } => *sums.snatches.entry(*info_hash).or_default() += 1,
                Change::Guest(_) => {}
                Change::Peer(change) => match torrent_of(change)? {
                    Some(torrent) => sums.add(torrent, change),
                    None => drop(sums.gone.insert(change.key)),
                },
            }
        }
        Ok(sums)
    }

    fn add(&mut self, torrent: TorrentId, change: &'a PeerChange) {
        let key = PeerKey {
            torrent,
            ..change.key
        };
        let user = key.user;
        self.peers.insert(key, change);
        let (history, latest) = self
            .histories
            .entry((torrent, user))
            .or_insert((Sum::default(), change));
        history.add(&change.credit);
        *latest = change;
        self.users.entry(user).or_default().add(&change.credit);
        let (sum, counts) = self.torrents.entry(torrent).or_default();
        sum.add(&change.credit);
        *counts = change.counts;
    }

    /// The standing of a peer's user: another peer of the user may have changed it later.
    pub(super) fn standing(&self, key: &PeerKey, change: &'a PeerChange) -> &'a Standing {
        let history = self.histories.get(&(key.torrent, key.user));
        let latest = history.map_or(change, |history| history.1);
        &latest.standing
    }
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, credit: &Credit) {
        self.up = self.up.saturating_add(credit.up);
        self.down = self.down.saturating_add(credit.down);
        self.raw_up = self.raw_up.saturating_add(credit.raw_up);
        self.raw_down = self.raw_down.saturating_add(credit.raw_down);
        self.seed_time += u64::from(credit.seed_time);
        self.announces += u64::from(credit.announces);
        self.snatches += u64::from(credit.snatched);
    }
}
