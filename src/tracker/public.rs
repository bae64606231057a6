//! Announces and scrapes of public torrents: anybody, and no account.

use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use crate::change::Change;
use crate::ids::InfoHash;
use crate::swarm::{ClientTag, PublicSwarm, Role};
use crate::tracker::{Answer, Arrival, Refusal, Rules, Tracker, Workspace, scraped};
use crate::wire::{Event, ScrapeEntry};

// === impl Tracker ===

impl Tracker {
    pub(super) fn announce_public(
        &self,
        arrival: &Arrival,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let info_hash = arrival.params.info_hash;
        let shard = self.public.shard_of(&info_hash);
        let mut swarms = self.public.lock(shard);
        let stops = arrival.params.event == Event::Stopped;
        let swarm = match swarms.entry(info_hash) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Who stops what nobody knows changes nothing.
            Entry::Vacant(_) if stops => &mut PublicSwarm::default(),
            Entry::Vacant(entry) => {
                if self.public_torrents.load(Ordering::Relaxed) >= rules.max_torrents {
                    return Err(Refusal::Unavailable);
                }
                self.public_torrents.fetch_add(1, Ordering::Relaxed);
                entry.insert(PublicSwarm::default())
            }
        };
        let client = ClientTag::new(&arrival.params.peer_id, arrival.params.key.map(|key| key.0));
        if stops {
            swarm.remove(arrival.endpoint, client);
        } else {
            self.join_public(swarm, shard, arrival, client);
            let want = arrival.want(rules);
            let eligibility = arrival.eligibility(rules);
            let out = &mut work.peers.endpoints;
            swarm.select(
                arrival.endpoint,
                arrival.role,
                want,
                eligibility,
                &mut work.selector,
                out,
            );
        }
        let reply = arrival.reply(swarm.counts(), swarm.downloaded, rules, work);
        Ok(Answer {
            reply,
            ticket: None,
        })
    }

    /// Enters or updates the peer, and counts a snatch: once for an identity while it stays,
    /// and not for one that was a seeder before (rule W5).
    fn join_public(
        &self,
        swarm: &mut PublicSwarm,
        shard: usize,
        arrival: &Arrival,
        client: ClientTag,
    ) {
        let before = swarm.upsert(arrival.endpoint, client, arrival.role, arrival.now.mono);
        let completes = arrival.params.event == Event::Completed && arrival.role == Role::Seeder;
        if !completes || before.is_some_and(|it| it.role == Role::Seeder || it.counted) {
            return;
        }
        swarm.set_counted(arrival.endpoint, client);
        swarm.downloaded = swarm.downloaded.saturating_add(1);
        self.metrics.snatches.one();
        let info_hash = arrival.params.info_hash;
        match self.outbox.reserve() {
            Some(room) => {
                room.push(shard, Change::Snatch { info_hash });
            }
            None => self.metrics.outbox_full.one(),
        }
    }

    pub(super) fn scrape_public(&self, info_hash: &InfoHash) -> ScrapeEntry {
        let is_disabled = self
            .registry
            .torrent(info_hash)
            .is_some_and(|torrent| torrent.disabled.is_some());
        let swarms = self.public.lock(self.public.shard_of(info_hash));
        match swarms.get(info_hash) {
            Some(swarm) if !is_disabled => scraped(swarm.counts(), swarm.downloaded),
            _ => ScrapeEntry::default(),
        }
    }
}
