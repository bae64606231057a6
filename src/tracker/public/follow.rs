//! Public peers and snatches of other nodes.

use std::net::SocketAddr;

use crate::base::addr::Endpoint;
use crate::base::clock::Now;
use crate::base::ids::InfoHash;
use crate::change::GuestRecord;
use crate::swarm::{ClientTag, Family, Key, Presence, Role};
use crate::tracker::public::PublicTracker;

impl PublicTracker {
    pub fn follow_guest(
        &self,
        info_hash: InfoHash,
        address: SocketAddr,
        record: &GuestRecord,
        now: Now,
    ) {
        let endpoint = Endpoint::new(address.ip(), address.port());
        let client = ClientTag::new(&record.peer_id, record.key);
        let rules = self.common.rules.load();
        let seen = now.to_mono(record.last_announce);
        let alive_since = rules.alive_since(now.mono);
        let key = Key::from(&info_hash);
        let mut swarms = self.swarms.lock(key.shard());
        if !record.active || seen < alive_since {
            if let Some(mut swarm) = swarms.get_mut(key) {
                swarm.remove(endpoint, client);
            }
            return;
        }
        let Some(mut swarm) = self.swarm(&mut swarms, key, &rules) else {
            return;
        };
        let role = match (record.seeder, record.paused) {
            (true, _) => Role::Seeder,
            (_, true) => Role::Paused,
            _ => Role::Leecher,
        };
        let peer = Presence {
            endpoint,
            client,
            role,
            seen,
        };
        // The other node has admitted it, so there is no limit per host.
        if swarm.upsert(&peer, alive_since, 0).is_err() {
            return;
        }
        if record.counted {
            swarm.set_counted(endpoint, client);
            // It may report the same completion to this node by its other address family.
            self.completions
                .remember(&info_hash, &record.peer_id, Family::of(endpoint), seen);
        }
    }

    pub fn follow_snatches(&self, info_hash: InfoHash, count: u32) {
        let rules = self.common.rules.load();
        let key = Key::from(&info_hash);
        let mut swarms = self.swarms.lock(key.shard());
        if let Some(mut swarm) = self.swarm(&mut swarms, key, &rules) {
            swarm.add_snatches(count);
        }
    }
}
