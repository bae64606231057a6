//! The registry: users by passkey, torrents by info hash, and the whitelist of clients.
//!
//! It is loaded from cache or storage at start and then kept current by
//! [`RegistryChange`]s. Readers are the announces; each takes a read lock for one
//! look-up, and a change holds the write lock for one entry only. The locks are sharded by thread: a reader writes to
//! one of several cache lines, where a plain lock has one, for which all cores would wait.

mod hashes;
mod rows;
mod torrents;
mod whitelist;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use self::hashes::TorrentIndex;
use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};

pub use hashes::Hashes;
pub use rows::{
    BadRow, PLAUSIBLE_MAX, RowChange, StoredTorrent, StoredUser, User, UserTotals, Wipe,
};
pub use torrents::{Permille, Torrent};
pub use whitelist::{ClientPrefix, Whitelist};

/// One change of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChange {
    /// A user was added or changed.
    User(User),
    UserGone(UserId),
    /// A torrent was added or changed.
    Torrent(Torrent),
    TorrentGone(TorrentId),
    /// The whole whitelist as it is now.
    Whitelist(Whitelist),
}

/// What an announce needs to know of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAccess {
    pub user: UserId,
    pub enabled: bool,
    pub can_leech: bool,
}

/// What an announce needs to know of its torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorrentEntry {
    pub id: TorrentId,
    /// The info hash that the swarm is kept under: the first of a hybrid's two.
    pub canonical: InfoHash,
    pub multi_up: Permille,
    pub multi_down: Permille,
    /// None while enabled; else the reason to give, which may be empty.
    pub disabled: Option<Arc<str>>,
}

/// Users, torrents and whitelist in memory.
#[derive(Default)]
pub struct Registry {
    users: Table<Users>,
    torrents: Table<TorrentIndex>,
    torrent_count: AtomicUsize,
    disabled_count: AtomicUsize,
    whitelist: ArcSwap<Whitelist>,
}

/// What announces look up and changes write.
#[derive(Default)]
struct Table<T>(ShardedLock<T>);

#[derive(Default)]
struct Users {
    by_passkey: HashMap<Passkey, UserAccess, RandomState>,
    passkeys: HashMap<UserId, Passkey, RandomState>,
}

// === impl Registry ===

impl Registry {
    pub fn access(&self, passkey: &str) -> Option<UserAccess> {
        self.users.read().by_passkey.get(passkey).copied()
    }

    pub fn torrent(&self, info_hash: &InfoHash) -> Option<TorrentEntry> {
        self.torrents.read().by_hash.get(info_hash).cloned()
    }

    /// Why that torrent is disabled; none if it is enabled or unknown. Almost free while
    /// no torrent is disabled, because on an open tracker every announce calls it.
    pub fn disabled(&self, info_hash: &InfoHash) -> Option<Arc<str>> {
        if self.disabled_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.torrent(info_hash)?.disabled
    }

    /// The info hash under which the swarm of that torrent is kept.
    pub fn canonical(&self, torrent: TorrentId) -> Option<InfoHash> {
        self.hashes(torrent).map(|hashes| hashes.first)
    }

    /// The info hashes of a registered torrent.
    pub fn hashes(&self, torrent: TorrentId) -> Option<Hashes> {
        self.torrents.read().hashes.get(&torrent).copied()
    }

    /// The info hashes of a torrent that is no longer registered, unless another torrent
    /// has them now.
    pub fn former_hashes(&self, torrent: TorrentId) -> Option<Hashes> {
        self.torrents.read().former_hashes(torrent)
    }

    /// The torrent whose swarm is, or was last, kept under that info hash.
    pub fn swarm_owner(&self, info_hash: &InfoHash) -> Option<TorrentId> {
        self.torrents.read().swarm_owner(info_hash)
    }

    /// The id of a torrent that had this one; the same if it has no other.
    pub fn present_id(&self, torrent: TorrentId) -> TorrentId {
        self.torrents.read().present_id(torrent)
    }

    /// Forgets the former owner of an info hash, after its swarm was removed.
    pub fn forget_former(&self, info_hash: &InfoHash) {
        self.torrents.write().forget_former(info_hash);
    }

    pub fn whitelist(&self) -> arc_swap::Guard<Arc<Whitelist>> {
        self.whitelist.load()
    }

    /// Registered torrents.
    pub fn torrent_count(&self) -> usize {
        self.torrent_count.load(Ordering::Relaxed)
    }

    /// Registered torrents that are disabled.
    pub fn disabled_torrents(&self) -> usize {
        self.disabled_count.load(Ordering::Relaxed)
    }

    /// Numbers of users, torrents and clients.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (
            self.users.read().passkeys.len(),
            self.torrents.read().hashes.len(),
            self.whitelist.load().len(),
        )
    }

    /// The ids of all users and torrents: what a reload compares with storage.
    pub fn ids(&self) -> (Vec<UserId>, Vec<TorrentId>) {
        (
            self.users.read().passkeys.keys().copied().collect(),
            self.torrents.read().hashes.keys().copied().collect(),
        )
    }

    /// The info hashes under which swarms are kept.
    pub fn info_hashes(&self) -> Vec<InfoHash> {
        self.torrents
            .read()
            .hashes
            .values()
            .map(|hashes| hashes.first)
            .collect()
    }

    pub fn apply(&self, change: RegistryChange) {
        match change {
            RegistryChange::User(user) => self.users.write().set(user),
            RegistryChange::UserGone(id) => self.users.write().remove(id),
            RegistryChange::Torrent(torrent) => self.change_torrents(|all| all.set(torrent)),
            RegistryChange::TorrentGone(id) => self.change_torrents(|all| all.remove(id)),
            RegistryChange::Whitelist(list) => self.whitelist.store(Arc::new(list)),
        }
    }

    /// A torrent that is known by another id gets this one.
    pub fn renumber(&self, torrent: Torrent) {
        self.change_torrents(|all| all.renumber(torrent));
    }

    fn change_torrents(&self, change: impl FnOnce(&mut TorrentIndex)) {
        let mut torrents = self.torrents.write();
        change(&mut torrents);
        self.torrent_count
            .store(torrents.hashes.len(), Ordering::Relaxed);
        self.disabled_count
            .store(torrents.disabled.len(), Ordering::Relaxed);
    }
}

// === impl Table ===

/// As with the other locks of this crate, a panic of who had it closes it to nobody.
impl<T> Table<T> {
    fn read(&self) -> ShardedLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Users ===

impl Users {
    /// A new passkey leads to the same user, and so to the same records (rule A11).
    fn set(&mut self, user: User) {
        if let Some(old) = self.passkeys.insert(user.id, user.passkey.clone())
            && old != user.passkey
        {
            self.forget(&old, user.id);
        }
        let access = UserAccess {
            user: user.id,
            enabled: user.enabled,
            can_leech: user.can_leech,
        };
        self.by_passkey.insert(user.passkey, access);
    }

    fn remove(&mut self, id: UserId) {
        if let Some(passkey) = self.passkeys.remove(&id) {
            self.forget(&passkey, id);
        }
    }

    /// Removes the entry of a passkey, if it is still the owner's: two users may have swapped passkeys.
    fn forget(&mut self, passkey: &Passkey, owner: UserId) {
        if self
            .by_passkey
            .get(passkey)
            .is_some_and(|access| access.user == owner)
        {
            self.by_passkey.remove(passkey);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u32, passkey: &str) -> User {
        User {
            id: UserId(id),
            passkey: passkey.parse().unwrap(),
            username: "u".into(),
            enabled: true,
            can_leech: true,
        }
    }

    pub(super) fn torrent(id: u32, first: u8, second: Option<u8>) -> Torrent {
        Torrent {
            id: TorrentId(id),
            info_hash: InfoHash([first; 20]),
            info_hash_v2: second.map(|byte| InfoHash([byte; 20])),
            enabled: true,
            reason: None,
            multi_up: Permille::ONE,
            multi_down: Permille::ONE,
            snatches: 0,
        }
    }

    #[test]
    fn a_torrent_that_takes_anothers_hash_is_counted_once() {
        let registry = Registry::default();
        let disabled = Torrent {
            enabled: false,
            ..torrent(1, 1, None)
        };
        registry.apply(RegistryChange::Torrent(disabled));
        registry.apply(RegistryChange::Torrent(torrent(2, 1, None)));
        registry.apply(RegistryChange::Torrent(torrent(3, 3, Some(1))));
        assert_eq!((registry.torrent_count(), registry.sizes().1), (1, 1));
        assert_eq!(registry.disabled_torrents(), 0);
        let owner = |hash| registry.torrent(&InfoHash([hash; 20])).map(|it| it.id);
        assert_eq!(
            (owner(1), owner(3)),
            (Some(TorrentId(3)), Some(TorrentId(3)))
        );
        // A hybrid whose second hash another torrent takes keeps its first.
        registry.apply(RegistryChange::Torrent(torrent(2, 1, None)));
        assert_eq!(
            (owner(1), owner(3)),
            (Some(TorrentId(2)), Some(TorrentId(3)))
        );
        registry.apply(RegistryChange::TorrentGone(TorrentId(3)));
        assert_eq!((owner(1), owner(3)), (Some(TorrentId(2)), None));
    }

    #[test]
    fn torrents_that_swap_hashes_both_stay_known() {
        let registry = Registry::default();
        for (id, hash) in [(1, 1), (2, 2), (1, 2), (2, 1)] {
            registry.apply(RegistryChange::Torrent(torrent(id, hash, None)));
        }
        for (id, hash) in [(1, 2), (2, 1)] {
            let entry = registry.torrent(&InfoHash([hash; 20])).unwrap();
            assert_eq!(entry.id, TorrentId(id));
        }
        assert_eq!(registry.torrent_count(), 2);
    }

    #[test]
    fn users_who_are_replaced_are_counted_once() {
        let registry = Registry::default();
        registry.apply(RegistryChange::User(user(1, "passkey-a")));
        registry.apply(RegistryChange::User(user(2, "passkey-a")));
        registry.apply(RegistryChange::UserGone(UserId(1)));
        assert_eq!(registry.sizes().0, 1);
        assert_eq!(registry.access("passkey-a").unwrap().user, UserId(2));
        registry.apply(RegistryChange::UserGone(UserId(2)));
        registry.apply(RegistryChange::UserGone(UserId(2)));
        registry.apply(RegistryChange::User(user(1, "passkey-a")));
        assert_eq!(registry.sizes().0, 1);
        assert_eq!(registry.access("passkey-a").unwrap().user, UserId(1));
    }

    #[test]
    fn a_changed_passkey_replaces_the_old_one() {
        let registry = Registry::default();
        registry.apply(RegistryChange::User(user(1, "passkey-a")));
        registry.apply(RegistryChange::User(user(1, "passkey-b")));
        assert_eq!(registry.access("passkey-a"), None);
        assert_eq!(registry.access("passkey-b").unwrap().user, UserId(1));
    }

    #[test]
    fn users_that_swap_passkeys_both_stay_known() {
        let registry = Registry::default();
        registry.apply(RegistryChange::User(user(1, "passkey-a")));
        registry.apply(RegistryChange::User(user(2, "passkey-b")));
        registry.apply(RegistryChange::User(user(1, "passkey-b")));
        registry.apply(RegistryChange::User(user(2, "passkey-a")));
        assert_eq!(registry.access("passkey-a").unwrap().user, UserId(2));
        assert_eq!(registry.access("passkey-b").unwrap().user, UserId(1));
    }

    #[test]
    fn disabled_torrents_are_known_by_either_hash_until_they_are_enabled() {
        let registry = Registry::default();
        let change = |enabled| {
            let torrent = Torrent {
                enabled,
                reason: Some("spam".into()),
                ..torrent(7, 1, Some(2))
            };
            registry.apply(RegistryChange::Torrent(torrent));
        };
        let of = |byte| registry.disabled(&InfoHash([byte; 20]));
        change(false);
        registry.apply(RegistryChange::Torrent(torrent(8, 3, None)));
        assert_eq!(
            (of(1).as_deref(), of(2).as_deref()),
            (Some("spam"), Some("spam"))
        );
        assert_eq!((of(3), of(4)), (None, None));
        change(true);
        assert_eq!((of(1), of(2)), (None, None));
        change(false);
        registry.apply(RegistryChange::TorrentGone(TorrentId(7)));
        assert_eq!(of(1), None);
    }

    #[test]
    fn a_torrent_that_gets_another_id_is_there_once() {
        let registry = Registry::default();
        registry.apply(RegistryChange::Torrent(torrent(7, 1, Some(2))));
        registry.apply(RegistryChange::Torrent(torrent(9, 1, Some(2))));
        let entry = registry.torrent(&InfoHash([2; 20])).unwrap();
        assert_eq!((entry.id, registry.torrent_count()), (TorrentId(9), 1));
        assert_eq!(registry.canonical(TorrentId(7)), None);
        registry.apply(RegistryChange::TorrentGone(TorrentId(7)));
        assert!(registry.torrent(&InfoHash([1; 20])).is_some());
    }

    #[test]
    fn a_hybrid_is_found_under_both_hashes_and_goes_with_both() {
        let registry = Registry::default();
        registry.apply(RegistryChange::Torrent(torrent(7, 1, Some(2))));
        let second = registry.torrent(&InfoHash([2; 20])).unwrap();
        assert_eq!(second.canonical, InfoHash([1; 20]));
        registry.apply(RegistryChange::Torrent(torrent(7, 1, None)));
        assert_eq!(registry.torrent(&InfoHash([2; 20])), None);
        registry.apply(RegistryChange::TorrentGone(TorrentId(7)));
        assert_eq!(registry.torrent(&InfoHash([1; 20])), None);
    }
}
