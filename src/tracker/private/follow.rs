//! Private peers of other nodes: changes that another node decided, applied as they are.

use crate::base::addr::{Compact4, Compact6};
use crate::base::clock::Now;
use crate::base::ids::InfoHash;
use crate::change::{Member, PeerChange, PeerRecord};
use crate::swarm::{Family, PeerState, PrivatePeer, PrivateSwarm, UserHistory};
use crate::tracker::private::PrivateTracker;
use crate::tracker::private::announce::PrivateAnnounce;
use crate::tracker::private::displaced::{Displaced, put_apart};
use crate::tracker::private::record::{location_of, record_of};
use crate::tracker::private::restore::{account_of, role_of};

impl PrivateTracker {
    pub fn follow_peer(&self, change: &PeerChange, is_counted: bool, now: Now) {
        let Some((info_hash, is_present)) = self.swarm_of(change) else {
            return self.early.add(change, is_counted, now);
        };
        let shard = self.swarms.shard_of(&info_hash);
        let mut swarms = self.swarms.lock(shard);
        let swarm = swarms.get_or_default(info_hash);
        let counts = swarm.counts();
        if !is_counted {
            let credit = &change.credit;
            let user = change.key.user;
            let mut history = swarm
                .history(user)
                .unwrap_or_else(|| UserHistory::new(user));
            history.downloaded = history.downloaded.saturating_add(credit.raw_down);
            history.seed_time = history.seed_time.saturating_add(credit.seed_time);
            swarm.set_history(&history);
            if credit.snatched {
                swarm.set_snatches(swarm.snatches().saturating_add(1));
            }
        }
        let mut member = change.member();
        member.record.active &= is_present;
        self.follow_record(info_hash, swarm, &member, Displaced::IsJournaled, now);
        if swarm.counts() != counts {
            self.recounts.on_followed(shard, info_hash, change, now);
        }
    }

    /// Applies changes that arrived before the edits of their torrents were known.
    pub fn follow_early(&self, now: Now) {
        let is_known = |change: &PeerChange| self.swarm_of(change).is_some();
        for early in self.early.take(now, is_known) {
            self.follow_peer(&early.change, early.is_counted, now);
        }
    }

    /// The info hash of the swarm that a change is for, and whether the peer is in it: not if the torrent
    /// has another hash by now. None if the hash belongs to another torrent and this one is unknown.
    /// Without another owner, an unknown torrent may be on its way.
    fn swarm_of(&self, change: &PeerChange) -> Option<(InfoHash, bool)> {
        let registry = &self.common.registry;
        let owner = registry.swarm_owner(&change.info_hash);
        let mut torrent = change.key.torrent;
        if owner.is_some_and(|owner| owner != torrent) {
            torrent = registry.present_id(torrent);
        }
        if owner.is_none_or(|owner| owner == torrent) {
            let canonical = registry.canonical(torrent);
            let is_former =
                |canonical: &InfoHash| owner.is_some() && *canonical != change.info_hash;
            return Some(match canonical.filter(is_former) {
                Some(canonical) => (canonical, false),
                None => (change.info_hash, true),
            });
        }
        let canonical = registry.canonical(torrent)?;
        Some((canonical, canonical == change.info_hash))
    }

    pub fn follow_member(&self, info_hash: InfoHash, member: &Member, now: Now) {
        let mut swarms = self.swarms.lock(self.swarms.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        self.follow_record(info_hash, swarm, member, Displaced::OwesJournal, now);
    }

    /// Adopts the account if its record is newer, and in each family the later location: a client of two
    /// families may announce to two nodes at a time.
    fn follow_record(
        &self,
        info_hash: InfoHash,
        swarm: &mut PrivateSwarm,
        member: &Member,
        displaced: Displaced,
        now: Now,
    ) {
        let Member {
            user,
            peer_id,
            record,
            standing,
        } = member;
        let found = swarm.find(*user, peer_id);
        let known = found.and_then(|place| swarm.peer(place));
        let (mut client, is_newer) = match known {
            Some(client) => {
                let ours = record_of(&client.state, now);
                let is_newer = record.age().is_newer_than(ours.age());
                (client, is_newer)
            }
            None if !self.has_room(*user, record) => return,
            None => {
                self.records.add(*user);
                let client = swarm.newcomer(*user, *peer_id, account_of(record, now));
                (client, true)
            }
        };
        let before = client.state.clone();
        if is_newer {
            let (peer, history) = (&mut client.state, &mut client.history);
            history.completed_at = history.completed_at.or(standing.completed_at);
            history.hnr = standing.hnr;
            peer.account = account_of(record, now);
            if let Some(owed) = &mut peer.owed {
                // What this node owes was not journaled, so the other node's record already includes it.
                (owed.uploaded, owed.downloaded, owed.seed_time) = (0, 0, 0);
            }
        }
        follow_locations(&mut client.state, &before, record, is_newer, now);
        let place = client.state.endpoints();
        let is_theirs = is_newer && endpoints_of(record) == place;
        if !is_newer && place == before.endpoints() && client.state == before {
            return;
        }
        // The combination of both is in no journal yet.
        if !is_theirs && (is_newer || place != before.endpoints()) {
            client.state.owed.get_or_insert_default();
            self.on_left_by_both(info_hash, swarm, &mut client, &before, now);
        }
        put_apart(swarm, client, displaced);
    }

    /// A client that left by one family here and by the other at another node has left; only this node knows both.
    fn on_left_by_both(
        &self,
        info_hash: InfoHash,
        swarm: &mut PrivateSwarm,
        client: &mut PrivatePeer,
        before: &PeerState,
        now: Now,
    ) {
        let has_left = before.role().is_some() && client.state.role().is_none();
        let torrent = self
            .common
            .registry
            .torrent(&info_hash)
            .filter(|_| has_left);
        let Some(torrent) = torrent else { return };
        let announce = PrivateAnnounce {
            tracker: self,
            rules: &self.common.rules.load(),
            swarm,
            torrent: &torrent,
            shard: self.swarms.shard_of(&info_hash),
            now,
        };
        let is_last = announce.on_left_swarm(client);
        if let Some(owed) = &mut client.state.owed {
            owed.left |= is_last;
        }
    }
}

/// Merges the endpoints of a record into those of a peer; `before` is the peer as it was.
fn follow_locations(
    peer: &mut PeerState,
    before: &PeerState,
    record: &PeerRecord,
    is_newer: bool,
    now: Now,
) {
    let own_role = before.role().filter(|_| !is_newer || !record.active);
    let role = own_role.unwrap_or(role_of(record));
    peer.set_role(role);
    for family in Family::BOTH {
        let Some(theirs) = location_of(record, family, now) else {
            continue;
        };
        let ours = before.location(family);
        if ours.is_none_or(|ours| theirs.replaces(ours, is_newer)) {
            peer.follow(family, theirs, role);
        }
    }
}

/// The endpoints that a record says its client has.
fn endpoints_of(record: &PeerRecord) -> (Option<Compact4>, Option<Compact6>) {
    let is_there = record.active;
    let v4 = record.v4.filter(|_| is_there);
    let v6 = record.v6.filter(|_| is_there);
    (
        v4.map(|v4| Compact4::new(*v4.ip(), v4.port())),
        v6.map(|v6| Compact6::new(*v6.ip(), v6.port())),
    )
}
