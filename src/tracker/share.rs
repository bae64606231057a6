//! What nodes tell each other: changes that another node decided, taken over as they are.

use std::net::SocketAddr;

use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::Now;
use crate::base::ids::InfoHash;
use crate::change::{GuestRecord, Member, PeerChange, PeerRecord, SwarmCounts};
use crate::swarm::{
    Client, ClientTag, Counts, Cursor, Family, History, Key, Peer, Presence, PrivateSwarm, Role,
    Visit,
};
use crate::tracker::private::Ledger;
use crate::tracker::record::{record_of, standing_of, swarm_counts, whereabouts_of};
use crate::tracker::restore::{account_of, role_of};
use crate::tracker::takeover::{Displaced, put_apart};
use crate::tracker::{Mode, Tracker};

// === impl Tracker ===

impl Tracker {
    /// Takes over what another node decided about a private peer. `is_counted` says that the
    /// user's history is known to have what it adds; of the peer, the newer record stands.
    pub fn follow_peer(&self, change: &PeerChange, is_counted: bool, now: Now) {
        if self.mode == Mode::Public {
            return;
        }
        let Some((info_hash, is_present)) = self.swarm_of(change) else {
            return;
        };
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        if !is_counted {
            let credit = &change.credit;
            let user = change.key.user;
            let mut history = swarm.history(user).unwrap_or_else(|| History::new(user));
            history.downloaded = history.downloaded.saturating_add(credit.raw_down);
            history.seed_time = history.seed_time.saturating_add(credit.seed_time);
            swarm.set_history(&history);
            if credit.snatched {
                swarm.set_snatches(swarm.snatches().saturating_add(1));
            }
        }
        let mut member = Member {
            user: change.key.user,
            peer_id: change.key.peer_id,
            record: change.record.clone(),
            standing: change.standing,
        };
        member.record.active &= is_present;
        self.follow_record(info_hash, swarm, &member, Displaced::IsJournaled, now);
    }

    /// The info hash whose swarm a change is for, and whether its peer is there: not if its torrent
    /// has another hash by now. None if the hash belongs to another torrent. One that this node
    /// does not know yet may be on its way.
    fn swarm_of(&self, change: &PeerChange) -> Option<(InfoHash, bool)> {
        let torrent = change.key.torrent;
        let owner = self.registry.swarm_owner(&change.info_hash);
        if owner.is_none_or(|owner| owner == torrent) {
            let canonical = self.registry.canonical(torrent);
            let is_former =
                |canonical: &InfoHash| owner.is_some() && *canonical != change.info_hash;
            return Some(match canonical.filter(is_former) {
                Some(canonical) => (canonical, false),
                None => (change.info_hash, true),
            });
        }
        let canonical = self.registry.canonical(torrent)?;
        Some((canonical, canonical == change.info_hash))
    }

    /// Takes over a private peer as another node keeps it, if its record is newer.
    pub fn follow_member(&self, info_hash: InfoHash, member: &Member, now: Now) {
        if self.mode == Mode::Public {
            return;
        }
        let mut swarms = self.private.lock(self.private.shard_of(&info_hash));
        let swarm = swarms.get_or_default(info_hash);
        self.follow_record(info_hash, swarm, member, Displaced::OwesJournal, now);
    }

    /// Takes over a public peer.
    pub fn follow_guest(
        &self,
        info_hash: InfoHash,
        address: SocketAddr,
        record: &GuestRecord,
        now: Now,
    ) {
        if self.mode == Mode::Private {
            return;
        }
        let endpoint = Endpoint::new(address.ip(), address.port());
        let client = ClientTag::new(&record.peer_id, record.key);
        let rules = self.rules.load();
        let seen = now.to_mono(record.last_announce);
        let alive_since = rules.alive_since(now.mono);
        let key = Key::from(&info_hash);
        let mut swarms = self.public.lock(key.shard());
        if !record.active || seen < alive_since {
            if let Some(mut swarm) = swarms.get_mut(key) {
                swarm.remove(endpoint, client);
            }
            return;
        }
        let Some(mut swarm) = self.public_swarm(&mut swarms, key, &rules) else {
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
        // The other node has admitted it.
        if swarm.upsert(&peer, alive_since, 0).is_err() {
            return;
        }
        if record.counted {
            swarm.set_counted(endpoint, client);
            // It may tell this node of the same completion by its other address family.
            self.completions
                .remember(&info_hash, &record.peer_id, Family::of(endpoint), seen);
        }
    }

    /// Counts a snatch that another node counted.
    pub fn follow_snatch(&self, info_hash: InfoHash) {
        if self.mode == Mode::Private {
            return;
        }
        let rules = self.rules.load();
        let key = Key::from(&info_hash);
        let mut swarms = self.public.lock(key.shard());
        if let Some(mut swarm) = self.public_swarm(&mut swarms, key, &rules) {
            swarm.add_snatch();
        }
    }

    /// All private peers of one shard, tombstones too: what a cache that forgot is given again.
    /// Those that owe the journal are left out, for their bases are ahead of what it has.
    pub fn members(&self, shard: usize, now: Now) -> Vec<(InfoHash, Vec<Member>)> {
        self.members_if(shard, now, |client| client.peer.owed.is_none())
    }

    /// All private peers of one shard, tombstones and those that owe the journal too.
    #[cfg(feature = "contract")]
    pub fn all_members(&self, shard: usize, now: Now) -> Vec<(InfoHash, Vec<Member>)> {
        self.members_if(shard, now, |_| true)
    }

    fn members_if(
        &self,
        shard: usize,
        now: Now,
        is_wanted: impl Fn(&Client) -> bool,
    ) -> Vec<(InfoHash, Vec<Member>)> {
        let swarms = self.private.lock(shard);
        let members = |swarm: &PrivateSwarm| {
            let member = |client: Client| Member {
                user: client.peer.user,
                peer_id: client.peer.peer_id,
                record: record_of(&client.peer, now),
                standing: standing_of(&client.history),
            };
            let clients = (0..swarm.len()).filter_map(|place| swarm.client(place));
            clients.filter(&is_wanted).map(member).collect::<Vec<_>>()
        };
        let swarms = swarms.iter();
        swarms
            .map(|(info_hash, swarm)| (*info_hash, members(swarm)))
            .filter(|(_, members)| !members.is_empty())
            .collect()
    }

    /// The counters of all swarms of one shard.
    pub fn swarm_counts(&self, shard: usize) -> Vec<(InfoHash, SwarmCounts)> {
        let of = |info_hash: &InfoHash, counts: Counts| (*info_hash, swarm_counts(counts));
        match self.mode {
            Mode::Public => {
                let swarms = self.public.lock(shard);
                swarms.counts().map(|(hash, it)| of(hash, it)).collect()
            }
            Mode::Private => {
                let swarms = self.private.lock(shard);
                swarms
                    .iter()
                    .map(|(hash, it)| of(hash, it.counts()))
                    .collect()
            }
        }
    }

    /// Sets the snatches of all torrents to 0, as far as they are only counted.
    pub fn wipe_snatches(&self) {
        for shard in 0..Self::SHARDS {
            match self.mode {
                Mode::Public => {
                    let mut swarms = self.public.lock(shard);
                    swarms.walk(Cursor::default(), |_, swarm| {
                        swarm.set_downloaded(0);
                        Visit::Keep
                    });
                }
                Mode::Private => {
                    let mut swarms = self.private.lock(shard);
                    swarms.values_mut().for_each(|swarm| swarm.set_snatches(0));
                }
            }
        }
    }
}

impl Tracker {
    /// Takes over an account if its record is newer, and where the client is in each family by what is known
    /// of that: a client of two families may be at two nodes at a time.
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
        let known = found.and_then(|place| swarm.client(place));
        let (mut client, is_newer) = match known {
            Some(client) => {
                let ours = record_of(&client.peer, now);
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
        let before = client.peer.clone();
        if is_newer {
            let Client { peer, history, .. } = &mut client;
            history.completed_at = history.completed_at.or(standing.completed_at);
            history.hnr = standing.hnr;
            peer.account = account_of(record, now);
            if let Some(owed) = &mut peer.owed {
                // They were not journaled, and the other node's record already includes them.
                (owed.uploaded, owed.downloaded, owed.seed_time) = (0, 0, 0);
            }
        }
        follow_places(&mut client.peer, &before, record, is_newer, now);
        let place = client.peer.endpoints();
        let is_theirs = is_newer && places_of(record) == place;
        if !is_newer && place == before.endpoints() && client.peer == before {
            return;
        }
        // What follows from both is in no journal yet.
        if !is_theirs && (is_newer || place != before.endpoints()) {
            client.peer.owed.get_or_insert_default();
            self.leave_unheard(info_hash, swarm, &mut client, &before, now);
        }
        put_apart(swarm, client, displaced);
    }

    /// A client that left by each family at another node has left; only here, both are known.
    fn leave_unheard(
        &self,
        info_hash: InfoHash,
        swarm: &mut PrivateSwarm,
        client: &mut Client,
        before: &Peer,
        now: Now,
    ) {
        let has_left = before.role().is_some() && client.peer.role().is_none();
        let torrent = self.registry.torrent(&info_hash).filter(|_| has_left);
        let Some(torrent) = torrent else { return };
        let ledger = Ledger {
            tracker: self,
            rules: &self.rules.load(),
            swarm,
            torrent: &torrent,
            shard: self.private.shard_of(&info_hash),
            now,
        };
        let is_last = ledger.left(client);
        if let Some(owed) = &mut client.peer.owed {
            owed.left |= is_last;
        }
    }
}

/// Brings the endpoints of a peer together with those of a record; `before` is the peer as it was.
fn follow_places(peer: &mut Peer, before: &Peer, record: &PeerRecord, is_newer: bool, now: Now) {
    let own_role = before.role().filter(|_| !is_newer || !record.active);
    let role = own_role.unwrap_or(role_of(record));
    peer.set_role(role);
    for family in Family::BOTH {
        let Some(theirs) = whereabouts_of(record, family, now) else {
            continue;
        };
        let ours = before.whereabouts(family);
        if ours.is_none_or(|ours| theirs.replaces(ours, is_newer)) {
            peer.follow(family, theirs, role);
        }
    }
}

/// Where a record says that its client is.
fn places_of(record: &PeerRecord) -> (Option<Compact4>, Option<Compact6>) {
    let is_there = record.active;
    let v4 = record.v4.filter(|_| is_there);
    let v6 = record.v6.filter(|_| is_there);
    (
        v4.map(|it| Compact4::new(*it.ip(), it.port())),
        v6.map(|it| Compact6::new(*it.ip(), it.port())),
    )
}
