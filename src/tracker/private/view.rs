//! Views of private swarms, and their snatches.

use std::collections::{HashMap, HashSet};

use crate::base::addr::Endpoint;
use crate::base::clock::Now;
use crate::base::ids::InfoHash;
use crate::change::{Member, PeerChange, SwarmCounts};
use crate::swarm::{PeerCounts, PrivatePeer, PrivateShard, PrivateSwarm, Role};
use crate::tracker::private::PrivateTracker;
use crate::tracker::private::record::{record_of, standing_of};
use crate::tracker::view::{Visitor, walk_all};
use crate::tracker::{LivePeer, swarm_counts};

impl PrivateTracker {
    pub fn counts(&self, info_hash: &InfoHash) -> Option<PeerCounts> {
        let swarms = self.swarms.lock(self.swarms.shard_of(info_hash));
        swarms.get(info_hash).map(PrivateSwarm::counts)
    }

    pub fn peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        let swarms = self.swarms.lock(self.swarms.shard_of(info_hash));
        let Some(swarm) = swarms.get(info_hash) else {
            return Vec::new();
        };
        let live = |client: PrivatePeer| {
            let peer = &client.state;
            let (v4, v6) = peer.endpoints();
            let endpoint = v4.map(Endpoint::V4).or(v6.map(Endpoint::V6))?;
            let record = record_of(peer, now);
            Some(LivePeer {
                address: endpoint.address(),
                is_seeder: peer.role()? == Role::Seeder,
                last_announce: record.last_announce,
                account: Some((peer.user, peer.peer_id, record)),
            })
        };
        swarm.peers().filter_map(live).take(max).collect()
    }

    /// The peers of one shard that `is_wanted` holds for.
    pub fn members_if(
        &self,
        shard: usize,
        now: Now,
        is_wanted: impl Fn(&PrivatePeer) -> bool,
    ) -> Vec<(InfoHash, Vec<Member>)> {
        let swarms = self.swarms.lock(shard);
        let member = |client: PrivatePeer| Member {
            user: client.state.user,
            peer_id: client.state.peer_id,
            record: record_of(&client.state, now),
            standing: standing_of(&client.history),
        };
        let members = |swarm: &PrivateSwarm| -> Vec<_> {
            swarm.peers().filter(&is_wanted).map(member).collect()
        };
        swarms
            .iter()
            .map(|(info_hash, swarm)| (*info_hash, members(swarm)))
            .filter(|(_, members)| !members.is_empty())
            .collect()
    }

    pub fn swarm_counts(&self, shard: usize) -> Vec<(InfoHash, SwarmCounts)> {
        let swarms = self.swarms.lock(shard);
        swarms
            .iter()
            .map(|(info_hash, swarm)| (*info_hash, swarm_counts(swarm.counts())))
            .collect()
    }

    /// [`Self::swarm_counts`], which are about to be written: what is followed from now on may make them wrong.
    pub fn counts_to_write(&self, shard: usize, now: Now) -> Vec<(InfoHash, SwarmCounts)> {
        let swarms = self.swarms.lock(shard);
        let noted = |(info_hash, swarm): (&InfoHash, &PrivateSwarm)| {
            self.recounts.note_written(shard, *info_hash, now);
            (*info_hash, swarm_counts(swarm.counts()))
        };
        swarms.iter().map(noted).collect()
    }

    /// The counters that came with these changes of this node are written now. If that is late, others may have
    /// been written since.
    pub fn on_counts_written<'a>(&self, changes: impl Iterator<Item = &'a PeerChange>, now: Now) {
        let mut late = HashMap::new();
        for change in changes {
            let shard = self.swarms.shard_of(&change.info_hash);
            if !self.recounts.is_written(shard, &change.info_hash, now) {
                late.insert(change.info_hash, change.counts);
            }
        }
        for (info_hash, counts) in late {
            let shard = self.swarms.shard_of(&info_hash);
            self.recounts.note_written(shard, info_hash, now);
            let present = self.counts(&info_hash).map(swarm_counts);
            if present.unwrap_or_default() != counts {
                self.recounts.add(shard, info_hash);
            }
        }
    }

    /// Others wrote counters of these swarms that may be wrong.
    pub fn recount_later(&self, swarms: &HashSet<InfoHash>) {
        for info_hash in swarms {
            self.recounts
                .add(self.swarms.shard_of(info_hash), *info_hash);
        }
    }

    /// Passes what `read` takes of each swarm to `see`.
    pub fn for_each_swarm<T>(&self, read: impl Fn(&PrivateSwarm) -> T, see: impl FnMut(T)) {
        let walk = |shard: &mut PrivateShard, from, visit: Visitor<T>| {
            shard.walk(from, |_, swarm| visit(read(swarm)))
        };
        walk_all(&self.swarms, walk, see);
    }

    pub fn wipe_snatches(&self, shard: usize) {
        let mut swarms = self.swarms.lock(shard);
        swarms.values_mut().for_each(|swarm| swarm.set_snatches(0));
    }
}
