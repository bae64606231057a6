//! What storage has, in a few bytes per row: enough to find duplicates, and orphans of the cache.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash};

use crate::base::hash::QualityRandomState;
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{BadRow, StoredTorrent, StoredUser};

/// 128 bits in place of a value. Half a million of them collide once in 10^27 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u32; 4]);

/// Makes [`Digest`]s, which compare with those of the same digester only.
#[derive(Default)]
pub(super) struct Digester {
    high: QualityRandomState,
    low: QualityRandomState,
}

/// Rows of storage by their identity. Rows come in order of id, so of duplicates the one with the lowest
/// id is first.
#[derive(Default)]
pub(super) struct StoredIndex {
    digester: Digester,
    users: HashMap<UserId, Digest, QualityRandomState>,
    passkeys: HashMap<Digest, UserId, QualityRandomState>,
    /// By first info hash.
    torrents: HashMap<InfoHash, TorrentId, QualityRandomState>,
    /// Hybrid torrents by their second one.
    seconds: HashMap<InfoHash, TorrentId, QualityRandomState>,
    /// Torrents that changed since they were read: their info hash may be another one now.
    doubtful: HashSet<TorrentId, QualityRandomState>,
}

// === impl Digester ===

impl Digester {
    pub fn digest(&self, value: impl Hash) -> Digest {
        let (high, low) = (self.high.hash_one(&value), self.low.hash_one(&value));
        Digest([
            (high >> 32) as u32,
            high as u32,
            (low >> 32) as u32,
            low as u32,
        ])
    }
}

// === impl StoredIndex ===

impl StoredIndex {
    /// Notes a user. The row can't be used if its passkey is another user's.
    pub fn add_user(&mut self, row: &StoredUser) -> Result<(), BadRow> {
        let id = row.user.id;
        let digest = self.digester.digest(row.user.passkey.expose());
        if let Some(&other) = self.passkeys.get(&digest)
            && other != id
        {
            self.remove_user(id);
            return Err(BadRow {
                table: "users",
                id: id.0.to_string(),
                problem: format!("its passkey is that of user {} too", other.0),
            });
        }
        self.remove_user(id);
        self.users.insert(id, digest);
        self.passkeys.insert(digest, id);
        Ok(())
    }

    pub fn remove_user(&mut self, id: UserId) {
        if let Some(digest) = self.users.remove(&id) {
            self.passkeys.remove(&digest);
        }
    }

    pub fn has_user(&self, id: UserId) -> bool {
        self.users.contains_key(&id)
    }

    /// Whether that is a user's passkey.
    pub fn knows_passkey(&self, passkey: &Passkey) -> bool {
        let digest = self.digester.digest(passkey.expose());
        self.passkeys.contains_key(&digest)
    }

    /// Notes a torrent. The row can't be used if one of its info hashes is another torrent's.
    pub fn add_torrent(&mut self, row: &StoredTorrent) -> Result<(), BadRow> {
        let torrent = &row.torrent;
        let (first, second) = (torrent.info_hash, torrent.info_hash_v2);
        let owner = self
            .other_owner(&first, torrent.id)
            .or_else(|| self.other_owner(&second?, torrent.id));
        if let Some(owner) = owner {
            return Err(BadRow {
                table: "torrents",
                id: torrent.id.0.to_string(),
                problem: format!("its info hash is that of torrent {} too", owner.0),
            });
        }
        self.torrents.insert(first, torrent.id);
        if let Some(second) = second {
            self.seconds.insert(second, torrent.id);
        }
        Ok(())
    }

    /// Notes that a torrent was changed or deleted; the cache may still have it under its former info
    /// hash.
    pub fn doubt(&mut self, id: TorrentId) {
        self.doubtful.insert(id);
    }

    /// Whether storage has the torrent under that info hash; none if storage has to be asked, because the
    /// torrent changed.
    pub fn has_torrent(&self, info_hash: &InfoHash) -> Option<bool> {
        match self.torrents.get(info_hash) {
            Some(id) if self.is_doubtful(*id) => None,
            found => Some(found.is_some()),
        }
    }

    /// The ids of all torrents. One that was deleted meanwhile may be among them.
    pub fn torrent_ids(&self) -> impl Iterator<Item = TorrentId> {
        self.torrents.values().copied()
    }

    fn is_doubtful(&self, id: TorrentId) -> bool {
        self.doubtful.contains(&id)
    }

    /// Another torrent with that info hash. What a doubtful torrent had may be free by now.
    fn other_owner(&self, info_hash: &InfoHash, id: TorrentId) -> Option<TorrentId> {
        let owners = [&self.torrents, &self.seconds];
        let mut owners = owners.iter().filter_map(|map| map.get(info_hash).copied());
        owners.find(|owner| *owner != id && !self.is_doubtful(*owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Permille, Torrent, User, UserTotals};

    fn user(id: u32, passkey: &str) -> StoredUser {
        StoredUser {
            user: User {
                id: UserId(id),
                passkey: passkey.parse().unwrap(),
                username: String::new(),
                enabled: true,
                can_leech: true,
            },
            totals: UserTotals::default(),
        }
    }

    fn torrent(id: u32, first: u8, second: Option<u8>) -> StoredTorrent {
        StoredTorrent {
            torrent: Torrent {
                id: TorrentId(id),
                info_hash: InfoHash([first; 20]),
                info_hash_v2: second.map(|byte| InfoHash([byte; 20])),
                enabled: true,
                reason: None,
                multi_up: Permille::ONE,
                multi_down: Permille::ONE,
                snatches: 0,
            },
            name: String::new(),
            seeders: 0,
            leechers: 0,
            announces: 0,
            uploaded: 0,
            downloaded: 0,
        }
    }

    #[test]
    fn of_doubled_passkeys_the_lowest_id_stays() {
        let mut index = StoredIndex::default();
        index.add_user(&user(1, "passkey-1")).unwrap();
        let bad = index.add_user(&user(2, "passkey-1")).unwrap_err();
        assert_eq!((bad.table, bad.id.as_str()), ("users", "2"));
        assert!(bad.problem.contains("user 1") && !bad.problem.contains("passkey-1"));
        assert!(index.has_user(UserId(1)) && !index.has_user(UserId(2)));
    }

    #[test]
    fn a_user_has_one_passkey_at_a_time() {
        let mut index = StoredIndex::default();
        index.add_user(&user(1, "passkey-1")).unwrap();
        index.add_user(&user(1, "passkey-1")).unwrap();
        index.add_user(&user(1, "passkey-2")).unwrap();
        let has =
            |index: &StoredIndex, passkey: &str| index.knows_passkey(&passkey.parse().unwrap());
        assert!(has(&index, "passkey-2") && !has(&index, "passkey-1"));
        index.add_user(&user(2, "passkey-1")).unwrap();
        index.remove_user(UserId(1));
        assert!(!index.has_user(UserId(1)) && !has(&index, "passkey-2"));
    }

    #[test]
    fn of_doubled_info_hashes_the_lowest_id_stays_be_they_first_or_second() {
        let mut index = StoredIndex::default();
        index.add_torrent(&torrent(1, 1, Some(2))).unwrap();
        for doubled in [
            torrent(2, 1, None),
            torrent(3, 2, None),
            torrent(4, 3, Some(2)),
        ] {
            assert!(
                index
                    .add_torrent(&doubled)
                    .unwrap_err()
                    .problem
                    .contains("torrent 1")
            );
        }
        assert_eq!(index.has_torrent(&InfoHash([1; 20])), Some(true));
        assert_eq!(index.has_torrent(&InfoHash([2; 20])), Some(false));
        assert_eq!(index.has_torrent(&InfoHash([3; 20])), Some(false));
        index.add_torrent(&torrent(1, 1, Some(2))).unwrap();
    }

    #[test]
    fn what_a_deleted_torrent_had_is_free() {
        let mut index = StoredIndex::default();
        index.add_torrent(&torrent(1, 1, None)).unwrap();
        index.doubt(TorrentId(1));
        assert_eq!(index.has_torrent(&InfoHash([1; 20])), None);
        index.add_torrent(&torrent(2, 1, None)).unwrap();
        assert_eq!(index.has_torrent(&InfoHash([1; 20])), Some(true));
    }
}
