//! What must hold in a run, and at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mika::base::ids::{InfoHash, PeerId, UserId};
use mika::cache::{CacheError, SharedPeer};
use mika::change::{CLOCK_SKEW, RecordAge};
use mika::journal;
use mika::tracker::Tracker;
use tokio::time::sleep;

use super::{Key, TTL, TTL_SLACK, World};
use crate::model::Wrong;
use crate::network::{self, elapsed};
use crate::process::Running;
use crate::redis::EntryId;
use crate::storage::info_hash;
use crate::{edits, faults, hnr};

/// Seconds after which the cache has what a node decided, if everything is well: the longest flush interval, and tries
/// that failed before.
const REACHES_CACHE: i64 = 15;

/// The same of cache and storage.
const REACHES_STORES: i64 = REACHES_CACHE;

impl World {
    pub(super) fn check_credit(&self) {
        let (model, tables) = (self.model.lock(), self.database.tables());
        let mut wrong = model.check(&tables);
        let alone_at = (self.sites.len() == 1).then(|| self.time());
        let unearned = hnr::check_unearned(&model, &tables, &self.plan.hnr, alone_at);
        drop(model);
        wrong.extend(unearned);
        self.report(wrong);
    }

    /// When all peers are gone, every user who should be marked is.
    pub(super) fn check_hnr(&self) {
        let running: Vec<_> = self.sites.iter().filter_map(|it| it.running()).collect();
        let ids: BTreeSet<u32> = running.iter().map(|it| it.host.id).collect();
        let since = running.iter().map(|it| it.since).max().unwrap_or_default();
        let (model, tables) = (self.model.lock(), self.database.tables());
        let missing = hnr::check_missing(&model, &tables, &self.plan.hnr, &ids, since);
        drop(model);
        self.report(missing);
    }

    /// All nodes know the users, torrents and clients of storage.
    pub(super) fn check_registry(&self) {
        let tables = self.database.tables();
        for running in self.sites.iter().filter_map(|site| site.running()) {
            let differences = edits::differences(&running.registry, &tables);
            if !differences.is_empty() {
                let (name, what) = (&running.name, differences.join(", "));
                self.fault(
                    Vec::new(),
                    format!("{name} has otherwise than storage: {what}"),
                );
            }
        }
    }

    fn report(&self, wrong: Vec<Wrong>) {
        for Wrong { users, what } in wrong {
            self.fault(users, what);
        }
    }

    /// All nodes know the peers whose last announce was `before`: they did not need the next one to
    /// learn it.
    pub fn check_presence(&self, before: Duration) {
        let limits = [elapsed(), self.time()]
            .map(|now| now.saturating_sub(Duration::from_secs(TTL - TTL_SLACK)));
        let expected = self.model.lock().presence(limits, before);
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            let here = self.swarms_of(&running);
            for (key, is_there) in &expected {
                if here.contains(key) != *is_there {
                    let is = if *is_there { "is not" } else { "is still" };
                    let what = format!("{}: {key:?} {is} there for it", running.name);
                    self.fault(vec![key.0], what);
                }
            }
        }
    }

    /// If the cache says that it has all peers, a node may start from them: they are as new as those that nodes
    /// have known for some time. At the end it has to say so.
    pub async fn check_cache(&self, is_end: bool) {
        // What a clock or an edit removes is not compared.
        if self.plan.edits || self.plan.faults.contains(&faults::Kind::ClockJump) {
            return;
        }
        let known = self.records_known();
        let torrents: Vec<InfoHash> = known.keys().map(|(info_hash, ..)| *info_hash).collect();
        let Some(cache) = self.cache_of(self.new_host(0)) else {
            return;
        };
        let looked = async {
            let has_all = cache.has_all_peers().await?;
            let swarms = cache.peers(&torrents).await?;
            Ok::<_, CacheError>((has_all && cache.has_all_peers().await?, swarms))
        };
        let swarms = match looked.await {
            Ok((true, swarms)) => swarms,
            looked if is_end => {
                let what = looked.map(|_| "it does not have all peers".to_owned());
                let what = what.unwrap_or_else(|error| error.to_string());
                return self.fault(
                    Vec::new(),
                    format!("the cache is not complete again: {what}"),
                );
            }
            _ => return,
        };
        let mut cached = BTreeMap::new();
        for (info_hash, peers) in swarms {
            for peer in peers {
                if let SharedPeer::Member(member) = peer {
                    let key = (info_hash, member.user, member.peer_id);
                    cached.insert(key, member.record.age());
                }
            }
        }
        for (key, (name, age)) in known {
            let theirs = cached.get(&key);
            if theirs.is_none_or(|theirs| is_behind(*theirs, age)) {
                let (_, user, peer_id) = key;
                let what = format!(
                    "the cache says that it has all peers, but of {peer_id:?} it has {theirs:?}, and {name} {age:?}"
                );
                self.fault(vec![user.0], what);
            }
        }
    }

    /// The newest record of each peer that was there some time ago, and which node has it.
    fn records_known(&self) -> BTreeMap<(InfoHash, UserId, PeerId), (String, RecordAge)> {
        let before = network::now() - REACHES_CACHE;
        let mut known: BTreeMap<_, (String, RecordAge)> = BTreeMap::new();
        for running in self.sites.iter().filter_map(|site| site.running()) {
            let now = running.clock.now();
            let shards = (0..Tracker::SHARDS).map(|shard| running.tracker.members(shard, now));
            for (info_hash, members) in shards.flatten() {
                for member in members {
                    let age = member.record.age();
                    let key = (info_hash, member.user, member.peer_id);
                    let is_newest = known
                        .get(&key)
                        .is_none_or(|(_, other)| age.is_newer_than(*other));
                    if age.last_announce < before && is_newest {
                        known.insert(key, (running.name.clone(), age));
                    }
                }
            }
        }
        known
    }

    /// All nodes know the same peers, and all present ones.
    pub(super) fn check_swarms(&self) {
        let copied = self.copied.lock().clone();
        let mut ends = self.ends.lock().clone();
        let limit = elapsed().saturating_sub(Duration::from_secs(TTL - TTL_SLACK));
        // Whether a client with two machines is present depends on the node. The others may have waited for the last
        // client for so long that they expired.
        ends.retain(|key, (is_there, at)| !copied.contains(&key.2) && (!*is_there || *at > limit));
        let mut known: Option<(String, BTreeSet<Key>)> = None;
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            // Of others it is open when their time is over.
            let mut here = self.swarms_of(&running);
            here.retain(|key| ends.contains_key(key));
            if let Some((name, other)) = &known
                && *other != here
            {
                let differ: Vec<&Key> = other.symmetric_difference(&here).collect();
                let users = differ.iter().map(|key| key.0).collect();
                self.fault(
                    users,
                    format!(
                        "{name} and {} differ in who is there: {differ:?}",
                        running.name
                    ),
                );
            }
            known.get_or_insert((running.name.clone(), here));
        }
        let Some((name, here)) = known else { return };
        for (key, (is_there, _)) in &ends {
            if here.contains(key) != *is_there {
                self.fault(
                    vec![key.0],
                    format!("{name}: whether {key:?} is there is not {is_there}"),
                );
            }
        }
    }

    /// The counters of swarms, where all nodes have the same.
    pub(super) fn counts_known(&self) -> BTreeMap<InfoHash, (u32, u32)> {
        let running: Vec<_> = self.sites.iter().filter_map(|it| it.running()).collect();
        let known = |hash: InfoHash| {
            let counts = running.iter().map(|it| it.tracker.counts(&hash));
            let all: BTreeSet<_> = counts.map(|it| (it.seeders, it.leechers)).collect();
            let counts = all.first().filter(|_| all.len() == 1);
            Some((hash, *counts?))
        };
        (1..=self.plan.torrents)
            .map(info_hash)
            .filter_map(known)
            .collect()
    }

    /// Those that do not change for [`REACHES_STORES`].
    pub(super) async fn steady_counts(&self) -> BTreeMap<InfoHash, (u32, u32)> {
        let mut steady = self.counts_known();
        for _ in 0..REACHES_STORES {
            sleep(Duration::from_secs(1)).await;
            let known = self.counts_known();
            steady.retain(|hash, counts| known.get(hash) == Some(counts));
        }
        steady
    }

    /// Cache and storage have the counters that all nodes have, and had for [`REACHES_STORES`].
    pub(super) async fn check_counts(&self, steady: &BTreeMap<InfoHash, (u32, u32)>) {
        if self.plan.edits || self.plan.faults.contains(&faults::Kind::ClockJump) {
            return;
        }
        let mut known = self.counts_known();
        known.retain(|hash, counts| steady.get(hash) == Some(counts));
        let cache = self.cache_of(self.new_host(0));
        for (hash, ours) in known {
            let mut all = Vec::new();
            let tables = self.database.tables();
            let stored = tables.torrents.values();
            let stored = stored.filter(|row| row.torrent.info_hash == hash);
            all.extend(stored.map(|row| ("storage", (row.seeders, row.leechers))));
            drop(tables);
            if let Some(cache) = &cache {
                match cache.torrent(hash).await {
                    Ok(row) => {
                        all.extend(row.map(|row| ("the cache", (row.seeders, row.leechers))));
                    }
                    Err(error) => self.fault(Vec::new(), format!("the cache is not read: {error}")),
                }
            }
            for (place, theirs) in all.into_iter().filter(|(_, theirs)| *theirs != ours) {
                let what = format!("{place} has {theirs:?} peers of {hash}, and nodes {ours:?}");
                self.fault(Vec::new(), what);
            }
        }
    }

    fn swarms_of(&self, running: &Running) -> BTreeSet<Key> {
        let torrents: BTreeMap<_, u32> = (1..=self.plan.torrents)
            .map(|torrent| (info_hash(torrent), torrent))
            .collect();
        let mut here = BTreeSet::new();
        for shard in 0..Tracker::SHARDS {
            for (hash, members) in running.tracker.all_members(shard, running.clock.now()) {
                let active = members.into_iter().filter(|member| member.record.active);
                let torrent = torrents.get(&hash).copied().unwrap_or(0);
                here.extend(active.map(|member| (member.user.0, torrent, member.peer_id)));
            }
        }
        here
    }

    /// No node keeps what is settled. Where a deletion failed or was forgotten, it is done again with the next
    /// batch only, which may be long after.
    pub(super) async fn check_rest(&self) {
        let may = |kinds: &[faults::Kind]| self.plan.faults.iter().any(|it| kinds.contains(it));
        let may_spill = may(&[faults::Kind::DiskFull]);
        let may_keep = may(faults::FORGETTING);
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            let name = &running.name;
            let waiting = running.tracker.outbox().pending();
            if waiting > 0 {
                self.fault(
                    Vec::new(),
                    format!("{name}: {waiting} changes are still in the outbox"),
                );
            }
            if let Some(journal) = running.journal()
                && journal.backlog() > 0
            {
                let backlog = journal.backlog();
                self.fault(
                    Vec::new(),
                    format!("{name}: storage lacks {backlog} changes"),
                );
            }
            let spilled = journal::spill_owner(site.spill().clone()).await;
            if !may_spill && !matches!(spilled, Ok(None)) {
                self.fault(
                    Vec::new(),
                    format!("{name}: the spill file has batches: {spilled:?}"),
                );
            }
        }
        let tables = self.database.tables();
        if let Some(redis) = &self.redis {
            for (name, stream) in redis.journals() {
                let applied = tables.journals.get(&name).copied().unwrap_or(0);
                let is_left = |(number, _): &&EntryId| !may_keep || *number > applied;
                let left = stream.entries.keys().filter(is_left).count();
                if left > 0 {
                    self.fault(
                        Vec::new(),
                        format!("the stream of {name} keeps {left} batches"),
                    );
                }
            }
        }
    }

    /// No peer is handed out that is not in that swarm, or was silent for too long.
    pub fn check_peers(
        &self,
        running: &Running,
        user: u32,
        torrent: u32,
        family: usize,
        peers: &[u8],
    ) {
        let oldest = self
            .time()
            .saturating_sub(Duration::from_secs(TTL + TTL_SLACK));
        for endpoint in endpoints(family, peers) {
            let present = self.present.lock();
            let announced = present
                .get(&endpoint)
                .and_then(|it| it.get(&torrent))
                .copied();
            drop(present);
            let what = match announced {
                Some(at) if at >= oldest => continue,
                Some(at) => format!(
                    "was last seen {} s ago",
                    self.time().saturating_sub(at).as_secs()
                ),
                None => "never was there".to_owned(),
            };
            self.fault(
                vec![user],
                format!(
                    "{} hands out {endpoint} of torrent {torrent}, who {what}",
                    running.name
                ),
            );
        }
    }
}

/// Whether a record lacks an announce that another one has. Where nodes counted apart, each of two records replaces the
/// other one. A peer that expired announced nothing: it expires after a start from the older record, too. Of its last
/// announce, two nodes may have noted different seconds.
fn is_behind(old: RecordAge, new: RecordAge) -> bool {
    let has_expired = old.active && !new.active;
    let skew = if has_expired { CLOCK_SKEW } else { 0 };
    let later = (new.last_announce - old.last_announce).abs();
    let is_same_announce = old.announces == new.announces && later <= skew;
    !is_same_announce && new.is_newer_than(old) && !old.is_newer_than(new)
}

/// Compact peers of one family.
fn endpoints(family: usize, peers: &[u8]) -> Vec<SocketAddr> {
    let size = [6, 18][family];
    let endpoint = |bytes: &[u8]| {
        let (ip, port) = bytes.split_at(size - 2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        let ip: IpAddr = match <[u8; 4]>::try_from(ip) {
            Ok(v4) => Ipv4Addr::from(v4).into(),
            Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap_or_default()).into(),
        };
        SocketAddr::new(ip, port)
    };
    peers.chunks_exact(size).map(endpoint).collect()
}
