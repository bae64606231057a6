//! What a private tracker restores at its start: snatches, histories, and peers with their accounts.

use crate::base::clock::Now;
use crate::base::ids::{InfoHash, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::swarm::{Account, Family, Owed, Role, UserHistory};
use crate::tracker::private::PrivateTracker;
use crate::tracker::private::displaced::{Displaced, put_apart};
use crate::tracker::private::record::{location_of, machines_of};

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

impl PrivateTracker {
    pub fn restore_snatches(&self, info_hash: InfoHash, snatches: u32) {
        let mut swarms = self.swarms.lock(self.swarms.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        swarm.set_snatches(swarm.snatches().max(snatches));
    }

    pub fn forget(&self, info_hash: &InfoHash) {
        let shard = self.swarms.shard_of(info_hash);
        if let Some(swarm) = self.swarms.lock(shard).remove(info_hash) {
            self.drop_records(&swarm);
        }
    }

    pub fn restore_history(&self, info_hash: InfoHash, known: &KnownHistory) {
        let mut swarms = self.swarms.lock(self.swarms.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        if swarm.history(known.user).is_some() {
            return;
        }
        swarm.set_history(&UserHistory {
            user: known.user,
            hnr: known.hnr,
            owes_snatch: false,
            seed_time: known.seed_time,
            downloaded: known.downloaded,
            completed_at: known.completed_at,
        });
    }

    /// Restores the record of a peer. An active one becomes a tombstone that owes the journal, unless
    /// `is_present`.
    pub fn restore(
        &self,
        info_hash: InfoHash,
        key: &PeerKey,
        record: &PeerRecord,
        is_present: bool,
        now: Now,
    ) {
        self.leaps.latest(now);
        let mut swarms = self.swarms.lock(self.swarms.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        if swarm.find(key.user, &key.peer_id).is_some() || !self.has_room(key.user, record) {
            return;
        }
        self.records.add(key.user);
        let mut client = swarm.newcomer(key.user, key.peer_id, account_of(record, now));
        if record.active && !is_present {
            client.state.owed = Some(Owed::default());
        } else {
            for family in Family::BOTH {
                if let Some(known) = location_of(record, family, now) {
                    client.state.follow(family, known, role_of(record));
                }
            }
        }
        put_apart(swarm, client, Displaced::OwesJournal);
    }

    /// Whether the record of an unknown peer is accepted: for a user with the maximum of records
    /// only if the peer is in the swarm.
    pub(super) fn has_room(&self, user: UserId, record: &PeerRecord) -> bool {
        record.active || self.records.count(user) < self.common.rules.load().user_records().max
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
