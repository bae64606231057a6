//! What the cache keeps, and what calls do to it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use mika::base::ids::{InfoHash, Passkey, PeerId, UserId};
use mika::cache::{
    CacheError, CacheKey, ControlPosition, Generation, KeySet, Mark, Notice, SharedPeer, members_of,
};
use mika::change::{Batch, Change, GuestRecord, Member};
use mika::registry::{ClientPrefix, StoredTorrent, StoredUser};
use tokio::time::Instant;

/// Notices that are kept: a reader that is further behind loads everything again.
const NOTICES: usize = 10_000;

/// The memory is never lost while the process runs, so there is one generation.
pub const ONLY: Generation = Generation(1);

#[derive(Default)]
pub struct Data {
    pub journals: HashMap<String, Journal>,
    pub swarms: BTreeMap<InfoHash, Swarm>,
    pub users: BTreeMap<UserId, StoredUser>,
    pub torrents: BTreeMap<InfoHash, StoredTorrent>,
    pub passkeys: HashMap<Passkey, UserId>,
    pub whitelist: Vec<ClientPrefix>,
    pub marks: BTreeMap<Mark, String>,
    pub nodes: BTreeMap<String, String>,
    /// The holder of each lease, and until when.
    pub leases: HashMap<String, (String, Instant)>,
    notices: Vec<Notice>,
    /// The number of notices before them.
    dropped: u64,
}

#[derive(Default)]
pub struct Journal {
    pub batches: BTreeMap<u64, Arc<Batch>>,
    pub last: u64,
}

#[derive(Default)]
pub struct Swarm {
    pub members: BTreeMap<(UserId, PeerId), Member>,
    pub guests: BTreeMap<SocketAddr, GuestRecord>,
}

/// Refuses a call that was meant for a server that has lost data since.
pub fn expect(generation: Generation) -> Result<(), CacheError> {
    if generation == ONLY {
        return Ok(());
    }
    Err(CacheError::Restarted(ONLY))
}

// === impl Data ===

impl Data {
    pub fn keep(&mut self, batch: &Arc<Batch>) {
        let journal = self.journals.entry(batch.journal.clone()).or_default();
        if batch.number > journal.last {
            journal.last = batch.number;
            journal.batches.insert(batch.number, Arc::clone(batch));
        }
        // Also those of a batch that is known: a call may have been cut off before it wrote them.
        for (info_hash, peers) in members_of(batch) {
            self.put_peers(info_hash, &peers);
        }
        for change in &batch.changes {
            match change {
                Change::Peer(change) => {
                    if let Some(row) = self.torrents.get_mut(&change.info_hash) {
                        let counts = change.counts;
                        (row.seeders, row.leechers) = (counts.seeders, counts.leechers);
                    }
                }
                Change::Guest(guest) => {
                    let swarm = self.swarms.entry(guest.info_hash).or_default();
                    if guest.record.active {
                        swarm.guests.insert(guest.address, guest.record);
                    } else {
                        swarm.guests.remove(&guest.address);
                    }
                }
                Change::Snatches { .. } => {}
            }
        }
        self.swarms.retain(|_, swarm| !swarm.is_empty());
    }

    /// Returns the members that were written.
    pub fn put_peers(
        &mut self,
        info_hash: InfoHash,
        peers: &[SharedPeer],
    ) -> Vec<(InfoHash, UserId, PeerId)> {
        let swarm = self.swarms.entry(info_hash).or_default();
        let mut written = Vec::new();
        for peer in peers {
            match peer {
                SharedPeer::Member(member) => {
                    let key = (member.user, member.peer_id);
                    let age = member.record.age();
                    let known = swarm.members.get(&key);
                    if known.is_none_or(|known| age.replaces(known.record.age())) {
                        swarm.members.insert(key, member.clone());
                        written.push((info_hash, key.0, key.1));
                    }
                }
                SharedPeer::Guest { address, record } => {
                    swarm.guests.insert(*address, *record);
                }
            }
        }
        written
    }

    pub fn put_user(&mut self, mut row: StoredUser) {
        let id = row.user.id;
        if let Some(known) = self.users.get(&id) {
            row.totals = known.totals;
            self.forget_passkey(&known.user.passkey.clone(), Some(id));
        }
        self.passkeys.insert(row.user.passkey.clone(), id);
        self.users.insert(id, row);
    }

    pub fn put_torrent(&mut self, mut row: StoredTorrent) {
        if let Some(known) = self.torrents.get(&row.torrent.info_hash) {
            row.torrent.snatches = known.torrent.snatches;
            (row.seeders, row.leechers) = (known.seeders, known.leechers);
            (row.uploaded, row.downloaded) = (known.uploaded, known.downloaded);
            row.announces = known.announces;
        }
        self.torrents.insert(row.torrent.info_hash, row);
    }

    fn forget_passkey(&mut self, passkey: &Passkey, of: Option<UserId>) {
        let owner = self.passkeys.get(passkey);
        if of.is_none() || owner == of.as_ref() {
            self.passkeys.remove(passkey);
        }
    }

    pub fn remove(&mut self, key: &CacheKey) {
        match key {
            CacheKey::User(id) => {
                if let Some(row) = self.users.remove(id) {
                    self.forget_passkey(&row.user.passkey, Some(*id));
                }
            }
            CacheKey::Torrent(info_hash) => {
                self.torrents.remove(info_hash);
                self.swarms.remove(info_hash);
            }
            CacheKey::Swarm(info_hash) => drop(self.swarms.remove(info_hash)),
            CacheKey::Passkey(passkey, of) => self.forget_passkey(passkey, *of),
        }
    }

    pub fn keys(&self, which: KeySet) -> Vec<CacheKey> {
        let with_user = which == KeySet::Passkeys;
        let passkeys = self.passkeys.iter();
        let passkeys = passkeys
            .map(|(passkey, user)| CacheKey::Passkey(passkey.clone(), with_user.then_some(*user)));
        let users = self.users.keys().copied().map(CacheKey::User);
        let torrents = self.torrents.keys().copied().map(CacheKey::Torrent);
        match which {
            KeySet::Registry => users.chain(torrents).chain(passkeys).collect(),
            KeySet::Passkeys => passkeys.collect(),
            KeySet::Swarms => self.swarms.keys().copied().map(CacheKey::Swarm).collect(),
        }
    }

    pub fn publish(&mut self, notices: &[Notice]) {
        self.notices.extend_from_slice(notices);
        let excess = self.notices.len().saturating_sub(NOTICES);
        self.notices.drain(..excess);
        self.dropped += excess as u64;
    }

    /// The notices after a position, and the position after them.
    pub fn notices(&self, after: Option<&ControlPosition>) -> (Vec<Notice>, ControlPosition) {
        let end = ControlPosition {
            run: String::new(),
            entry: (0, self.dropped + self.notices.len() as u64),
        };
        let Some(after) = after else {
            return (Vec::new(), end);
        };
        let read = after.entry.1.checked_sub(self.dropped);
        let later = read.and_then(|read| self.notices.get(usize::try_from(read).ok()?..));
        let notices = later.map_or_else(|| vec![Notice::Registry, Notice::Peers], <[_]>::to_vec);
        (notices, end)
    }
}

// === impl Swarm ===

impl Swarm {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.guests.is_empty()
    }

    pub fn peers(&self) -> Vec<SharedPeer> {
        let members = self.members.values().cloned().map(SharedPeer::Member);
        let guests = self.guests.iter();
        let guests = guests.map(|(&address, &record)| SharedPeer::Guest { address, record });
        members.chain(guests).collect()
    }
}
