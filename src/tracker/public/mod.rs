//! Public torrents: anybody may announce, and there are no accounts.

mod carry;
mod completions;
mod follow;
mod idle;
mod registration;
mod upkeep;

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::base::addr::Endpoint;
use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::change::{Change, GuestChange, GuestRecord};
use crate::swarm::{
    ClientTag, Family, Key, Presence, PublicShard, PublicSwarm, Role, Swarms, TooManyPeers,
};
use crate::tracker::context::AnnounceContext;
use crate::tracker::{AnnounceRequest, Answer, Common, Refusal, Rules, Workspace, scrape_entry};
use crate::wire::{AnnounceReply, Event, ScrapeEntry};

use self::completions::Completions;
use self::registration::{NetworkShares, Registrations, Unregistered};

pub use self::carry::MalformedSwarms;
pub use self::idle::{IdleTorrent, IdleTorrents};

/// A tracker in public mode.
pub(super) struct PublicTracker {
    pub common: Common,
    pub swarms: Swarms<PublicShard>,
    /// Swarms held now. On a cache line of its own, as each new swarm changes it, and all announces read the others.
    swarm_count: CachePadded<AtomicUsize>,
    /// Swarms that networks began while there was little room.
    begun: NetworkShares,
    registrations: Registrations,
    /// Recently completed downloads.
    completions: Completions,
}

impl PublicTracker {
    pub fn new(common: Common) -> Self {
        Self {
            common,
            swarms: Swarms::default(),
            swarm_count: CachePadded::default(),
            begun: NetworkShares::default(),
            registrations: Registrations::default(),
            completions: Completions::default(),
        }
    }

    pub fn announce(
        &self,
        request: &AnnounceRequest,
        now: Now,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let rules = self.common.rules.load();
        let (info_hash, params) = self.admit(request, &rules)?;
        let context = AnnounceContext::new(params, request.source, &rules, now);
        self.decide(info_hash, &context, &rules, work)
    }

    pub fn scrape(&self, info_hash: &InfoHash) -> ScrapeEntry {
        let is_disabled = self.common.registry.disabled(info_hash).is_some();
        let key = Key::from(info_hash);
        let swarms = self.swarms.lock(key.shard());
        match swarms.get(key) {
            Some((counts, snatches)) if !is_disabled => scrape_entry(counts, snatches),
            _ => ScrapeEntry::default(),
        }
    }

    pub fn prefetch(&self, announces: &[(InfoHash, Endpoint)]) {
        self.swarms.prefetch(announces);
    }

    /// Decides an announce that was admitted: the peer enters, stays or leaves, a snatch may count (rule W5), and
    /// peers are handed out.
    fn decide(
        &self,
        info_hash: InfoHash,
        context: &AnnounceContext,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let key = Key::from(&info_hash);
        let shard = key.shard();
        let mut swarms = self.swarms.lock(shard);
        let client = ClientTag::new(&context.params.peer_id, context.params.key.map(|key| key.0));
        if context.params.event == Event::Stopped {
            // A `stopped` for an unknown peer has no effect here.
            let known = swarms.get_mut(key).map(|mut swarm| {
                swarm.remove(context.endpoint, client);
                (swarm.counts(), swarm.snatches())
            });
            let (counts, snatches) = known.unwrap_or_default();
            self.share_guest(shard, info_hash, context, false);
            return Ok(answer(context.reply(counts, snatches, rules, work)));
        }
        let swarm = self.swarm_to_announce(&mut swarms, key, context, rules);
        let mut swarm = swarm.ok_or(Refusal::Unavailable)?;
        let eligibility = context.eligibility(rules);
        let peer = Presence {
            endpoint: context.endpoint,
            client,
            role: context.role,
            seen: context.now.mono,
        };
        let before = swarm
            .upsert(&peer, eligibility.alive_since, rules.max_peers_per_ip)
            .map_err(|TooManyPeers| {
                self.common.metrics.peers_per_ip.increment();
                Refusal::TooManyPeers
            })?;
        let mut is_counted =
            before.is_some_and(|before| before.counted || before.role == Role::Seeder);
        if context.completes() && !is_counted {
            if self.is_counted_by_other_family(info_hash, context) {
                swarm.set_counted(context.endpoint, client);
                is_counted = true;
            } else if (swarm.snatches() > 0 || self.take_registration(info_hash, context, rules))
                && self.journal_snatch(shard, info_hash, context.now.mono)
            {
                swarm.set_counted(context.endpoint, client);
                swarm.add_snatches(1);
                is_counted = true;
                let family = Family::of(context.endpoint);
                let peer_id = &context.params.peer_id;
                self.completions
                    .remember(&info_hash, peer_id, family, context.now.mono);
            }
        }
        self.share_guest(shard, info_hash, context, is_counted);
        if before.is_none() && self.common.is_shared {
            self.common.outbox.hurry();
        }
        let want = context.want(rules, work);
        swarm.select(
            context.endpoint,
            context.role,
            want,
            eligibility,
            &mut work.selector,
            &mut work.peers.endpoints,
        );
        let (counts, snatches) = (swarm.counts(), swarm.snatches());
        Ok(answer(context.reply(counts, snatches, rules, work)))
    }

    /// The swarm of a torrent that is announced. A new one is refused if the maximum is reached, or
    /// if the same network began too many (rule W12).
    fn swarm_to_announce<'a>(
        &self,
        swarms: &'a mut PublicShard,
        key: Key,
        context: &AnnounceContext,
        rules: &Rules,
    ) -> Option<PublicSwarm<'a>> {
        swarms.get_or_create(key, || {
            // While half of the room is free, no network needs a limit: empty swarms are removed.
            let free = self.free_room(rules);
            let life = rules.life(context.now.mono);
            if free <= rules.max_torrents.div_ceil(2)
                && !self.begun.take(context.source, free, life)
            {
                self.common.metrics.torrents_full.increment();
                return false;
            }
            self.take_room(rules)
        })
    }

    /// The swarm of that torrent; a new one unless the maximum is reached.
    fn swarm<'a>(
        &self,
        swarms: &'a mut PublicShard,
        key: Key,
        rules: &Rules,
    ) -> Option<PublicSwarm<'a>> {
        swarms.get_or_create(key, || self.take_room(rules))
    }

    /// Counts one more swarm, if there is room for it.
    fn take_room(&self, rules: &Rules) -> bool {
        if self.free_room(rules) == 0 {
            self.common.metrics.torrents_full.increment();
            return false;
        }
        self.swarm_count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// How many more swarms there is room for. Those of registered torrents don't count: rows are
    /// bounded by themselves, and their snatches are kept while the swarm is empty.
    fn free_room(&self, rules: &Rules) -> usize {
        let registered = self.common.registry.torrent_count().min(rules.max_torrents);
        let held = self.swarm_count.load(Ordering::Relaxed);
        rules.max_torrents - held.saturating_sub(registered).min(rules.max_torrents)
    }

    /// Whether a snatch may count: the torrent is registered, or may be (rule W5). Counts a new registration.
    fn take_registration(
        &self,
        info_hash: InfoHash,
        context: &AnnounceContext,
        rules: &Rules,
    ) -> bool {
        if self.common.registry.torrent(&info_hash).is_some() {
            return true;
        }
        let (source, now) = (context.source, context.now.mono);
        let registered = self.common.registry.torrent_count();
        let Err(reason) = self.registrations.take(source, registered, rules, now) else {
            return true;
        };
        match reason {
            Unregistered::Full => self.common.metrics.registrations_full.increment(),
            Unregistered::Share => self.common.metrics.registrations_share.increment(),
            Unregistered::Rate => self.common.metrics.registrations_rate.increment(),
        }
        if self.registrations.take_warning(now) {
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

    /// Journals the peer for other nodes, if there are any. Without room they get it at its next announce.
    fn share_guest(
        &self,
        shard: usize,
        info_hash: InfoHash,
        context: &AnnounceContext,
        is_counted: bool,
    ) {
        if !self.common.is_shared {
            return;
        }
        let Some(room) = self.common.outbox.reserve() else {
            self.common.metrics.outbox_full.increment();
            return;
        };
        let record = GuestRecord {
            peer_id: context.params.peer_id,
            key: context.params.key.map(|key| key.0),
            seeder: context.role == Role::Seeder,
            paused: context.role == Role::Paused,
            counted: is_counted,
            last_announce: context.now.unix,
            active: context.params.event != Event::Stopped,
        };
        let address = context.endpoint.address();
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
    fn is_counted_by_other_family(&self, info_hash: InfoHash, context: &AnnounceContext) -> bool {
        let peer_id = &context.params.peer_id;
        let family = Family::of(context.endpoint);
        let now = context.now.mono;
        self.completions
            .is_known_by_other_family(&info_hash, peer_id, family, now)
    }

    /// Adds a snatch to those of the next flush; false if there is no room, and then it is not counted.
    fn journal_snatch(&self, shard: usize, info_hash: InfoHash, now: Seconds) -> bool {
        if !self.common.outbox.add_snatch(shard, info_hash) {
            self.common.metrics.outbox_full.increment();
            return false;
        }
        self.common.metrics.snatches.increment();
        self.common.publish_snatch(info_hash, None, now);
        true
    }

    /// Peers of a swarm, expired ones that are not swept yet included.
    pub(in crate::tracker) fn peers_in(&self, info_hash: &InfoHash) -> u32 {
        let key = Key::from(info_hash);
        let swarms = self.swarms.lock(key.shard());
        let known = swarms.get(key);
        known.map_or(0, |(counts, _)| counts.seeders + counts.leechers)
    }
}

/// Nothing of a public announce has to be durable before it is answered.
fn answer(reply: AnnounceReply) -> Answer {
    Answer {
        reply,
        ticket: None,
    }
}
