//! What a tracker takes up again at its start: snatches, histories, and peers with their accounts.

use std::sync::atomic::Ordering;

use crate::base::clock::Now;
use crate::base::ids::{InfoHash, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::swarm::{Account, Family, History, Key, Owed, Role};
use crate::tracker::record::{machines_of, whereabouts_of};
use crate::tracker::takeover::{Displaced, put_apart};
use crate::tracker::{Mode, Tracker};

/// What one user did with one torrent before this start.
#[derive(Clone, Copy, Debug)]
pub struct KnownHistory {
    pub user: UserId,
    /// Bytes before multipliers.
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u32,
    /// Unix time of the snatch.
    pub completed_at: Option<i64>,
    pub hnr: bool,
}

// === impl Tracker ===

impl Tracker {
    /// Takes up the snatches of a torrent, as counted so far.
    pub fn restore_snatches(&self, info_hash: InfoHash, snatches: u32) {
        if snatches == 0 {
            return;
        }
        match self.mode {
            Mode::Public => {
                let key = Key::from(&info_hash);
                let mut swarms = self.public.lock(key.shard());
                let before = swarms.len();
                let mut swarm = swarms.get_or_default(key);
                swarm.set_downloaded(swarm.downloaded().max(snatches));
                let added = swarms.len() - before;
                self.public_torrents.fetch_add(added, Ordering::Relaxed);
            }
            Mode::Private => {
                let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
                let swarm = swarms.get_or_default(info_hash);
                swarm.set_snatches(swarm.snatches().max(snatches));
            }
        }
    }

    /// Drops what a public tracker counted of a torrent that is no longer registered.
    pub fn forget_snatches(&self, info_hash: &InfoHash) {
        let key = Key::from(info_hash);
        if let Some(mut swarm) = self.public.lock(key.shard()).get_mut(key) {
            swarm.set_downloaded(0);
        }
    }

    /// Drops the private swarm of an info hash that its torrent no longer has.
    pub fn forget(&self, info_hash: &InfoHash) {
        let shard = self.private.shard_of(info_hash);
        if let Some(swarm) = self.private.lock(shard).remove(info_hash) {
            self.drop_records(&swarm);
        }
    }

    /// Takes up what a user did with the torrent of that (first) info hash, unless it is known.
    pub fn restore_history(&self, info_hash: InfoHash, known: &KnownHistory) {
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        if swarm.history(known.user).is_some() {
            return;
        }
        swarm.set_history(&History {
            user: known.user,
            hnr: known.hnr,
            owes_snatch: false,
            seed_time: known.seed_time,
            downloaded: known.downloaded,
            completed_at: known.completed_at,
        });
    }

    /// Takes up a peer: its account, and its place in the swarm if it was there. One that has
    /// expired meanwhile leaves at the next sweep. A record that is known stays as it is.
    pub fn restore_peer(&self, info_hash: InfoHash, key: &PeerKey, record: &PeerRecord, now: Now) {
        self.restore(info_hash, key, record, true, now);
    }

    /// Takes up the account of a peer that was in the swarm of another info hash: a tombstone. The
    /// next sweep journals that it has left.
    pub fn restore_account(
        &self,
        info_hash: InfoHash,
        key: &PeerKey,
        record: &PeerRecord,
        now: Now,
    ) {
        self.restore(info_hash, key, record, false, now);
    }

    fn restore(
        &self,
        info_hash: InfoHash,
        key: &PeerKey,
        record: &PeerRecord,
        is_present: bool,
        now: Now,
    ) {
        self.leaps.latest(now);
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        if swarm.find(key.user, &key.peer_id).is_some() || !self.has_room(key.user, record) {
            return;
        }
        self.records.add(key.user);
        let mut client = swarm.newcomer(key.user, key.peer_id, account_of(record, now));
        if record.active && !is_present {
            client.peer.owed = Some(Owed::default());
        } else {
            for family in Family::BOTH {
                if let Some(known) = whereabouts_of(record, family, now) {
                    client.peer.follow(family, known, role_of(record));
                }
            }
        }
        put_apart(swarm, client, Displaced::OwesJournal);
    }

    /// Whether the record of an unknown peer is taken up: of a user who has as many as one may
    /// have, only those of peers that are in the swarm.
    pub(super) fn has_room(&self, user: UserId, record: &PeerRecord) -> bool {
        record.active || self.records.count(user) < self.rules.load().user_records().max
    }
}

pub(super) fn role_of(record: &PeerRecord) -> Role {
    match record.left {
        Some(0) => Role::Seeder,
        _ if record.paused => Role::Paused,
        _ => Role::Leecher,
    }
}

pub(super) fn account_of(record: &PeerRecord, now: Now) -> Account {
    let machines = machines_of(record);
    let dip = |unix: Option<i64>| {
        let is_dip = machines.is_none();
        unix.filter(|_| is_dip).map(|unix| now.to_mono(unix))
    };
    Account {
        base_up: record.base_up,
        base_down: record.base_down,
        base_at: now.to_moment(record.base_at),
        start_up: record.start_up,
        start_down: record.start_down,
        dip_up: dip(record.dip_up),
        dip_down: dip(record.dip_down),
        uploaded: record.uploaded,
        downloaded: record.downloaded,
        left: record.left,
        speed_up: record.speed_up,
        speed_down: record.speed_down,
        seed_time: record.seed_time,
        announces: record.announces,
        first_announce: now.to_moment(record.first_announce),
        last_announce: now.to_mono(record.last_announce),
        machines,
    }
}
