//! Announces and scrapes of public torrents: anybody, and no account.

use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use crate::change::Change;
use crate::clock::Seconds;
use crate::ids::InfoHash;
use crate::swarm::{ClientTag, PublicSwarm, Role};
use crate::tracker::{Answer, Arrival, Refusal, Rules, Tracker, Workspace, scraped};
use crate::wire::{Event, ScrapeEntry};

// === impl Tracker ===

impl Tracker {
    pub(super) fn announce_public(
        &self,
        info_hash: InfoHash,
        arrival: &Arrival,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
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
            let eligibility = arrival.eligibility(rules);
            let completes = self.join_public(swarm, arrival, client, eligibility.alive_since);
            if completes {
                self.journal_snatch(shard, info_hash);
            }
            let want = arrival.want(rules);
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
    /// and not for one that was a seeder before (rule W5). Returns whether it did.
    fn join_public(
        &self,
        swarm: &mut PublicSwarm,
        arrival: &Arrival,
        client: ClientTag,
        alive_since: Seconds,
    ) -> bool {
        let now = arrival.now.mono;
        let before = swarm.upsert(arrival.endpoint, client, arrival.role, now, alive_since);
        let completes = arrival.params.event == Event::Completed && arrival.role == Role::Seeder;
        if !completes || before.is_some_and(|it| it.role == Role::Seeder || it.counted) {
            return false;
        }
        swarm.set_counted(arrival.endpoint, client);
        swarm.downloaded = swarm.downloaded.saturating_add(1);
        self.metrics.snatches.one();
        true
    }

    fn journal_snatch(&self, shard: usize, info_hash: InfoHash) {
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
