//! What a tracker takes up again at its start: snatches, histories, and peers with their accounts.

use std::sync::atomic::Ordering;

use crate::addr::Endpoint;
use crate::change::{PeerKey, PeerRecord};
use crate::clock::Now;
use crate::ids::{InfoHash, TorrentId, UserId};
use crate::swarm::{Account, Role};
use crate::tracker::{Mode, Tracker};

/// What one user did with one torrent before this start.
#[derive(Clone, Copy, Debug)]
pub struct KnownHistory {
    pub user: UserId,
    pub torrent: TorrentId,
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
                let mut swarms = self.public.lock(self.public.shard_of(&info_hash));
                let before = swarms.len();
                swarms.entry(info_hash).or_default().downloaded = snatches;
                let added = swarms.len() - before;
                self.public_torrents.fetch_add(added, Ordering::Relaxed);
            }
            Mode::Private => {
                let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
                swarms.entry(info_hash).or_default().downloaded = snatches;
            }
        }
    }

    /// Takes up what a user did with a torrent. False if the torrent is not registered.
    pub fn restore_history(&self, known: &KnownHistory) -> bool {
        let Some(info_hash) = self.registry.canonical(known.torrent) else {
            return false;
        };
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let history = swarms.entry(info_hash).or_default().history_mut(known.user);
        history.downloaded = known.downloaded;
        history.seed_time = known.seed_time;
        history.completed_at = known.completed_at;
        history.hnr = known.hnr;
        true
    }

    /// Takes up a peer: its account, and its place in the swarm if it was there. One that has
    /// expired meanwhile leaves at the next sweep. False if the torrent is not registered.
    pub fn restore_peer(&self, key: &PeerKey, record: &PeerRecord, now: Now) -> bool {
        let Some(info_hash) = self.registry.canonical(key.torrent) else {
            return false;
        };
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let swarm = swarms.entry(info_hash).or_default();
        if swarm.find(key.user, &key.peer_id).is_some() {
            return true;
        }
        let place = swarm.add(key.user, key.peer_id, account_of(record, now));
        let role = match record.left {
            Some(0) => Role::Seeder,
            _ if record.paused => Role::Paused,
            _ => Role::Leecher,
        };
        let v4 = record
            .v4
            .map(|addr| Endpoint::new((*addr.ip()).into(), addr.port()));
        let v6 = record
            .v6
            .map(|addr| Endpoint::new((*addr.ip()).into(), addr.port()));
        if record.active {
            let seen = now.to_mono(record.last_announce);
            for endpoint in [v4, v6].into_iter().flatten() {
                swarm.enter(place, endpoint, role, seen);
            }
        }
        true
    }
}

fn account_of(record: &PeerRecord, now: Now) -> Account {
    Account {
        base_up: record.base_up,
        base_down: record.base_down,
        base_at: now.to_mono(record.base_at),
        dip_up: record.dip_up.map(|unix| now.to_mono(unix)),
        dip_down: record.dip_down.map(|unix| now.to_mono(unix)),
        uploaded: record.uploaded,
        downloaded: record.downloaded,
        left: record.left,
        speed_up: record.speed_up,
        speed_down: record.speed_down,
        seed_time: record.seed_time,
        announces: record.announces,
        first_announce: now.to_mono(record.first_announce),
        last_announce: now.to_mono(record.last_announce),
    }
}
