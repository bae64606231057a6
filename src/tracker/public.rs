//! Announces and scrapes of public torrents: anybody, and no account.

use std::sync::atomic::Ordering;

use crate::base::addr::Endpoint;
use crate::base::clock::Seconds;
use crate::base::ids::InfoHash;
use crate::change::{Change, GuestChange, GuestRecord};
use crate::swarm::{
    ClientTag, Family, Key, Presence, PublicShard, PublicSwarm, Role, TooManyPeers,
};
use crate::tracker::registration::Unregistered;
use crate::tracker::{Answer, Arrival, Mode, Refusal, Rules, Tracker, Workspace, scraped};
use crate::wire::{AnnounceReply, Event, ScrapeEntry};

// === impl Tracker ===

impl Tracker {
    pub(super) fn announce_public(
        &self,
        info_hash: InfoHash,
        arrival: &Arrival,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let key = Key::from(&info_hash);
        let shard = key.shard();
        let mut swarms = self.public.lock(shard);
        let client = ClientTag::new(&arrival.params.peer_id, arrival.params.key.map(|key| key.0));
        if arrival.params.event == Event::Stopped {
            // Who stops what nobody knows changes nothing.
            let (counts, downloaded) =
                swarms.get_mut(key).map_or_else(Default::default, |mut it| {
                    it.remove(arrival.endpoint, client);
                    (it.counts(), it.downloaded())
                });
            self.share_guest(shard, info_hash, arrival, false);
            return Ok(answer(arrival.reply(counts, downloaded, rules, work)));
        }
        let swarm = self.begun_swarm(&mut swarms, key, arrival, rules);
        let mut swarm = swarm.ok_or(Refusal::Unavailable)?;
        let eligibility = arrival.eligibility(rules);
        let peer = Presence {
            endpoint: arrival.endpoint,
            client,
            role: arrival.role,
            seen: arrival.now.mono,
        };
        let before = swarm
            .upsert(&peer, eligibility.alive_since, rules.max_peers_per_ip)
            .map_err(|TooManyPeers| {
                self.metrics.peers_per_ip.one();
                Refusal::TooManyPeers
            })?;
        let mut is_counted = before.is_some_and(|it| it.counted || it.role == Role::Seeder);
        if arrival.completes() && !is_counted {
            if self.is_counted_by_other_family(info_hash, arrival) {
                swarm.set_counted(arrival.endpoint, client);
                is_counted = true;
            } else if (swarm.downloaded() > 0 || self.may_register(info_hash, arrival, rules))
                && self.journal_snatch(shard, info_hash, arrival.now.mono)
            {
                swarm.set_counted(arrival.endpoint, client);
                swarm.add_snatch();
                is_counted = true;
                let family = Family::of(arrival.endpoint);
                let peer_id = &arrival.params.peer_id;
                self.completions
                    .remember(&info_hash, peer_id, family, arrival.now.mono);
            }
        }
        self.share_guest(shard, info_hash, arrival, is_counted);
        let want = arrival.want(rules, work);
        swarm.select(
            arrival.endpoint,
            arrival.role,
            want,
            eligibility,
            &mut work.selector,
            &mut work.peers.endpoints,
        );
        let (counts, downloaded) = (swarm.counts(), swarm.downloaded());
        Ok(answer(arrival.reply(counts, downloaded, rules, work)))
    }

    /// Reads ahead some of the memory that these peers' announces will need. For a transport
    /// that has received several of them at once: their reads overlap then. Any number will do.
    pub fn prepare(&self, announces: &[(InfoHash, Endpoint)]) {
        if self.mode == Mode::Public {
            self.public.touch(announces);
        }
    }

    /// The swarm of that torrent, for a stranger who announces it: a new one unless there are as
    /// many as there may be, or too many that the same network began.
    fn begun_swarm<'a>(
        &self,
        swarms: &'a mut PublicShard,
        key: Key,
        arrival: &Arrival,
        rules: &Rules,
    ) -> Option<PublicSwarm<'a>> {
        swarms.get_or_create(key, || {
            // While half of the room is free, whoever takes part of it harms nobody: swarms go when
            // nobody is in them.
            let free = self.free_room(rules);
            let life = rules.life(arrival.now.mono);
            if free <= rules.max_torrents.div_ceil(2)
                && !self.begun.take(arrival.source, free, life)
            {
                self.metrics.torrents_full.one();
                return false;
            }
            self.may_begin(rules)
        })
    }

    /// The swarm of that torrent; a new one unless there are as many as there may be.
    pub(super) fn public_swarm<'a>(
        &self,
        swarms: &'a mut PublicShard,
        key: Key,
        rules: &Rules,
    ) -> Option<PublicSwarm<'a>> {
        swarms.get_or_create(key, || self.may_begin(rules))
    }

    /// Whether there is room for one more swarm, which is counted then.
    fn may_begin(&self, rules: &Rules) -> bool {
        if self.free_room(rules) == 0 {
            self.metrics.torrents_full.one();
            return false;
        }
        self.public_torrents.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Swarms that there is room for. Those of registered torrents don't count: there are only so
    /// many rows, and the numbers of their snatches are kept while nobody is there.
    pub(super) fn free_room(&self, rules: &Rules) -> usize {
        let registered = self.registry.torrent_count().min(rules.max_torrents);
        let held = self.public_torrents.load(Ordering::Relaxed);
        rules.max_torrents - held.saturating_sub(registered).min(rules.max_torrents)
    }

    /// Whether the first snatch of a torrent may register it, if it is not registered; counts it.
    fn may_register(&self, info_hash: InfoHash, arrival: &Arrival, rules: &Rules) -> bool {
        if self.registry.torrent(&info_hash).is_some() {
            return true;
        }
        let (source, now) = (arrival.source, arrival.now.mono);
        let registered = self.registry.torrent_count();
        let Err(reason) = self.registrations.take(source, registered, rules, now) else {
            return true;
        };
        match reason {
            Unregistered::Full => self.metrics.registrations_full.one(),
            Unregistered::Share => self.metrics.registrations_share.one(),
            Unregistered::Rate => self.metrics.registrations_rate.one(),
        }
        if self.registrations.may_warn(now) {
            tracing::warn!(
                %source,
                registered,
                max_torrents = rules.max_torrents,
                "a torrent that a client completed is not registered, and its snatch not counted: {}",
                reason.reason()
            );
        }
        false
    }

    /// Tells other nodes, if there are any. Without room they hear of the peer at its next announce.
    fn share_guest(&self, shard: usize, info_hash: InfoHash, arrival: &Arrival, is_counted: bool) {
        if !self.is_shared {
            return;
        }
        let Some(room) = self.outbox.reserve() else {
            self.metrics.outbox_full.one();
            return;
        };
        let record = GuestRecord {
            peer_id: arrival.params.peer_id,
            key: arrival.params.key.map(|key| key.0),
            seeder: arrival.role == Role::Seeder,
            paused: arrival.role == Role::Paused,
            counted: is_counted,
            last_announce: arrival.now.unix,
            active: arrival.params.event != Event::Stopped,
        };
        let address = arrival.endpoint.address();
        room.push(
            shard,
            Change::from(GuestChange {
                info_hash,
                address,
                record,
            }),
        );
    }

    /// Whether the same completion of this client was counted by its other address family.
    fn is_counted_by_other_family(&self, info_hash: InfoHash, arrival: &Arrival) -> bool {
        let peer_id = &arrival.params.peer_id;
        let family = Family::of(arrival.endpoint);
        let now = arrival.now.mono;
        self.completions
            .is_known_by_other_family(&info_hash, peer_id, family, now)
    }

    /// Queues a snatch; false if it can't be kept, and then it is not counted either.
    fn journal_snatch(&self, shard: usize, info_hash: InfoHash, now: Seconds) -> bool {
        let Some(room) = self.outbox.reserve() else {
            self.metrics.outbox_full.one();
            return false;
        };
        room.push(shard, Change::Snatch { info_hash });
        self.metrics.snatches.one();
        self.tell_snatch(info_hash, None, now);
        true
    }

    /// Peers that are in a public swarm, expired ones that no sweep came to included.
    pub(super) fn peers_in(&self, info_hash: &InfoHash) -> u32 {
        let key = Key::from(info_hash);
        let swarms = self.public.lock(key.shard());
        let known = swarms.get(key);
        known.map_or(0, |(counts, _)| counts.seeders + counts.leechers)
    }

    pub(super) fn scrape_public(&self, info_hash: &InfoHash) -> ScrapeEntry {
        let is_disabled = self.registry.disabled(info_hash).is_some();
        let key = Key::from(info_hash);
        let swarms = self.public.lock(key.shard());
        match swarms.get(key) {
            Some((counts, downloaded)) if !is_disabled => scraped(counts, downloaded),
            _ => ScrapeEntry::default(),
        }
    }
}

/// Nothing of a public announce has to be durable before its answer goes.
fn answer(reply: AnnounceReply) -> Answer {
    Answer {
        reply,
        ticket: None,
    }
}
