//! The rows that batches touch, resolved once: each change has the indices of its rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::{Change, PeerChange, PeerKey};

/// Users and torrents that some changes name, each once and in the order of their ids.
#[derive(Debug)]
pub struct Named {
    pub users: Vec<u32>,
    /// With the info hashes by which changes name them: mostly one.
    pub torrents: Vec<(u32, InfoHash)>,
}

/// The users and torrents named by some batches that exist.
#[derive(Debug, Default)]
pub struct KnownIds {
    pub users: HashSet<u32, RandomState>,
    pub torrents: HashSet<u32, RandomState>,
    /// Torrents that do not exist under the id of a change, and may have got another one meanwhile.
    pub moved: HashMap<InfoHash, TorrentId>,
}

/// The rows that changes touch, deduplicated and in the order of their tables.
#[derive(Debug, Default)]
pub struct Touched<'a> {
    pub peers: Vec<TouchedPeer>,
    pub histories: Vec<TouchedHistory>,
    /// Changes of peers in order, each with the index of its peer in `peers`.
    pub changes: Vec<(&'a PeerChange, usize)>,
    /// Peers whose user or torrent was deleted.
    pub gone: Vec<PeerKey>,
    /// Snatches of public torrents.
    pub snatches: BTreeMap<InfoHash, u64>,
}

/// A row of a peer.
#[derive(Debug)]
pub struct TouchedPeer {
    pub key: PeerKey,
    /// Index of the first change that touches it in [`Touched::changes`].
    pub first: usize,
    /// Index of its history in [`Touched::histories`].
    pub history: usize,
}

/// A row of a history.
#[derive(Debug)]
pub struct TouchedHistory {
    pub torrent: TorrentId,
    pub user: UserId,
    /// Index of the first change that touches it in [`Touched::changes`].
    pub first: usize,
}

// === impl Named ===

impl Named {
    pub fn by<'a>(changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut users = HashSet::<u32, RandomState>::default();
        let mut torrents = HashSet::<(u32, InfoHash), RandomState>::default();
        for change in changes {
            if let Change::Peer(change) = change {
                users.insert(change.key.user.0);
                torrents.insert((change.key.torrent.0, change.info_hash));
            }
        }
        let mut users: Vec<u32> = users.into_iter().collect();
        users.sort_unstable();
        let mut torrents: Vec<(u32, InfoHash)> = torrents.into_iter().collect();
        torrents.sort_unstable();
        Self { users, torrents }
    }
}

// === impl KnownIds ===

impl KnownIds {
    /// The key under which the peer of a change is stored; none if its user or torrent is deleted.
    fn key_of(&self, change: &PeerChange) -> Option<PeerKey> {
        let key = change.key;
        if !self.users.contains(&key.user.0) {
            return None;
        }
        if self.torrents.contains(&key.torrent.0) {
            return Some(key);
        }
        let torrent = *self.moved.get(&change.info_hash)?;
        Some(PeerKey { torrent, ..key })
    }
}

// === impl Touched ===

impl<'a> Touched<'a> {
    pub fn by(changes: impl Iterator<Item = &'a Change>, known: &KnownIds) -> Self {
        let mut touched = Self::default();
        let mut keys = Vec::new();
        for change in changes {
            match change {
                Change::Snatches { info_hash, count } => {
                    *touched.snatches.entry(*info_hash).or_default() += u64::from(*count);
                }
                Change::Guest(_) => {}
                Change::Peer(change) => match known.key_of(change) {
                    Some(key) => {
                        keys.push((key, touched.changes.len()));
                        touched.changes.push((&**change, usize::MAX));
                    }
                    None => touched.gone.push(change.key),
                },
            }
        }
        touched.gone.sort_unstable();
        touched.gone.dedup();
        touched.place_peers(keys);
        touched.place_histories();
        touched
    }

    /// From the keys of peers with the indices of their changes.
    fn place_peers(&mut self, mut keys: Vec<(PeerKey, usize)>) {
        keys.sort_unstable();
        for (key, change) in keys {
            if self.peers.last().is_none_or(|last| last.key != key) {
                self.peers.push(TouchedPeer {
                    key,
                    first: change,
                    history: usize::MAX,
                });
            }
            self.changes[change].1 = self.peers.len() - 1;
        }
    }

    fn place_histories(&mut self) {
        let mut keys: Vec<_> = self
            .peers
            .iter()
            .map(|peer| (peer.key.torrent, peer.key.user))
            .zip(0..)
            .collect();
        keys.sort_unstable();
        for ((torrent, user), peer) in keys {
            let peer: &mut TouchedPeer = &mut self.peers[peer];
            match self.histories.last_mut() {
                Some(last) if (last.torrent, last.user) == (torrent, user) => {
                    last.first = last.first.min(peer.first);
                }
                _ => self.histories.push(TouchedHistory {
                    torrent,
                    user,
                    first: peer.first,
                }),
            }
            peer.history = self.histories.len() - 1;
        }
    }
}
