//! Torrents by their info hashes, current and former.
//!
//! Swarms are kept by info hash. When a torrent is gone, or has another hash, its old swarm may
//! still be there, so its owner is remembered: no other torrent gets its peers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, TorrentId};
use crate::registry::{Torrent, TorrentEntry};

/// The most characters of a reason that clients get.
const REASON_MAX: usize = 200;

/// How many former owners are remembered. At that number all are forgotten; a torrent that comes back
/// later begins with an empty swarm.
const FORMER_MAX: usize = 100_000;

/// The info hashes of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// The one that the swarm is kept under.
    pub first: InfoHash,
    /// The second one of a hybrid.
    pub second: Option<InfoHash>,
}

#[derive(Default)]
pub(super) struct TorrentIndex {
    pub by_hash: HashMap<InfoHash, TorrentEntry, RandomState>,
    pub hashes: HashMap<TorrentId, Hashes, RandomState>,
    pub disabled: HashSet<TorrentId, RandomState>,
    /// The hashes of removed torrents, and the last owners of hashes that are free now.
    former: HashMap<TorrentId, Hashes, RandomState>,
    former_owners: HashMap<InfoHash, TorrentId, RandomState>,
    /// The ids of torrents that had others.
    renumbered: HashMap<TorrentId, TorrentId, RandomState>,
}

// === impl Hashes ===

impl Hashes {
    pub fn of(torrent: &Torrent) -> Self {
        Self {
            first: torrent.info_hash,
            second: torrent.info_hash_v2,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = InfoHash> {
        [Some(self.first), self.second].into_iter().flatten()
    }

    pub fn contains(&self, info_hash: &InfoHash) -> bool {
        self.iter().any(|own| own == *info_hash)
    }
}

// === impl TorrentIndex ===

impl TorrentIndex {
    pub fn set(&mut self, torrent: Torrent) {
        self.remove(torrent.id);
        self.former.remove(&torrent.id);
        self.renumbered.remove(&torrent.id);
        let hashes = Hashes::of(&torrent);
        let entry = TorrentEntry {
            id: torrent.id,
            canonical: torrent.info_hash,
            multi_up: torrent.multi_up,
            multi_down: torrent.multi_down,
            disabled: (!torrent.enabled).then(|| readable(&torrent.reason.unwrap_or_default())),
        };
        for hash in hashes.iter() {
            self.take_away(&hash);
            self.by_hash.insert(hash, entry.clone());
        }
        if entry.disabled.is_some() {
            self.disabled.insert(entry.id);
        }
        self.hashes.insert(torrent.id, hashes);
    }

    /// The owner of its first hash gets another id. Former ids are remembered as long as former owners.
    pub fn renumber(&mut self, torrent: Torrent) {
        let (owner, id) = (self.swarm_owner(&torrent.info_hash), torrent.id);
        self.set(torrent);
        if let Some(owner) = owner.filter(|owner| *owner != id) {
            if self.renumbered.len() >= FORMER_MAX {
                self.renumbered.clear();
            }
            self.renumbered.insert(owner, id);
        }
    }

    pub fn present_id(&self, id: TorrentId) -> TorrentId {
        self.renumbered.get(&id).copied().unwrap_or(id)
    }

    /// Takes a hash from another torrent, which is gone, or about to get another hash.
    fn take_away(&mut self, hash: &InfoHash) {
        if let Some(TorrentEntry { id, canonical, .. }) = self.by_hash.get(hash) {
            let id = *id;
            if canonical == hash {
                self.remove(id);
            } else if let Some(hashes) = self.hashes.get_mut(&id) {
                hashes.second = None;
            }
        }
        self.former_owners.remove(hash);
    }

    pub fn remove(&mut self, id: TorrentId) {
        let Some(hashes) = self.hashes.remove(&id) else {
            return;
        };
        self.disabled.remove(&id);
        for hash in hashes.iter() {
            self.by_hash.remove(&hash);
        }
        if self.former.len() >= FORMER_MAX || self.former_owners.len() >= FORMER_MAX {
            self.former.clear();
            self.former_owners.clear();
        }
        self.former.insert(id, hashes);
        self.former_owners.insert(hashes.first, id);
    }

    pub fn former_hashes(&self, id: TorrentId) -> Option<Hashes> {
        let hashes = self.former.get(&id)?;
        let owner = self.former_owners.get(&hashes.first);
        (owner == Some(&id)).then_some(*hashes)
    }

    pub fn swarm_owner(&self, info_hash: &InfoHash) -> Option<TorrentId> {
        match self.by_hash.get(info_hash) {
            Some(entry) if entry.canonical == *info_hash => Some(entry.id),
            _ => self.former_owners.get(info_hash).copied(),
        }
    }

    pub fn forget_former(&mut self, info_hash: &InfoHash) {
        if let Some(id) = self.former_owners.remove(info_hash) {
            self.former.remove(&id);
        }
    }
}

/// A reason that clients can show: short, printable ASCII (rule R6).
fn readable(reason: &str) -> Arc<str> {
    let plain = |char: char| {
        if (' '..='~').contains(&char) {
            char
        } else {
            '?'
        }
    };
    let text: String = reason.chars().take(REASON_MAX).map(plain).collect();
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::torrent;

    const ONE: InfoHash = InfoHash([1; 20]);
    const TWO: InfoHash = InfoHash([2; 20]);

    #[test]
    fn it_is_known_whose_swarm_is_or_was_under_a_hash() {
        let mut all = TorrentIndex::default();
        let only = |first| Hashes {
            first,
            second: None,
        };
        all.set(torrent(1, 1, None));
        assert_eq!(all.swarm_owner(&ONE), Some(TorrentId(1)));
        all.set(torrent(1, 2, None));
        assert_eq!(all.swarm_owner(&ONE), Some(TorrentId(1)), "it was");
        assert_eq!(all.former_hashes(TorrentId(1)), None, "it is registered");
        all.remove(TorrentId(1));
        assert_eq!(all.former_hashes(TorrentId(1)), Some(only(TWO)));
        all.set(torrent(2, 2, None));
        assert_eq!(all.swarm_owner(&TWO), Some(TorrentId(2)));
        assert_eq!(all.former_hashes(TorrentId(1)), None, "another one has it");
        all.remove(TorrentId(2));
        all.forget_former(&TWO);
        assert_eq!(all.swarm_owner(&TWO), None);
        assert_eq!(all.former_hashes(TorrentId(2)), None);
    }

    #[test]
    fn a_torrent_is_known_by_the_id_that_it_had() {
        let mut all = TorrentIndex::default();
        all.set(torrent(1, 1, None));
        all.renumber(torrent(2, 1, None));
        assert_eq!(all.present_id(TorrentId(1)), TorrentId(2));
        assert_eq!(all.present_id(TorrentId(3)), TorrentId(3));
        all.set(torrent(1, 2, None));
        assert_eq!(all.present_id(TorrentId(1)), TorrentId(1), "a new one");
    }
}
