//! A tracker without sockets: announces as query strings, time moved by hand, and a plain
//! storage that takes what the journal would.

#![allow(dead_code)] // each test file uses its part of it

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mika::base::clock::{Now, Seconds};
use mika::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::change::{Change, PeerChange, PeerKey, PeerRecord, Standing, SwarmCounts};
use mika::registry::{ClientPrefix, Permille, Registry, RegistryChange, Torrent, User, Whitelist};
use mika::telemetry::metrics::{Metrics, Protocol};
use mika::tracker::{
    AnnounceRequest, Answer, KnownHistory, Mode, Refusal, Rules, Ticket, Tracker, Workspace,
};
use mika::wire::{Announce, ParseError, ScrapeEntry, http, query};

pub const TTL: u32 = 3900;
pub const TOMBSTONE: u32 = 86_400;
pub const MAX_RATE: u64 = 2_500_000_000;

/// A tracker, its surroundings, and the time.
pub struct World {
    pub tracker: Tracker,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub rules: Rules,
    pub now: Now,
    pub work: Workspace,
    pub storage: Storage,
    capacity: usize,
}

/// What storage would hold after it applied the journal.
#[derive(Clone, Default)]
pub struct Storage {
    pub peers: HashMap<PeerKey, PeerRecord>,
    pub users: HashMap<UserId, Totals>,
    pub histories: HashMap<(UserId, TorrentId), (Totals, Standing)>,
    pub counts: HashMap<TorrentId, SwarmCounts>,
    /// Snatches of private torrents, and of public ones by hash.
    pub snatches: HashMap<TorrentId, u32>,
    pub public_snatches: HashMap<InfoHash, u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub up: u64,
    pub down: u64,
    pub raw_up: u64,
    pub raw_down: u64,
    pub seed_time: u64,
    pub announces: u64,
    pub snatches: u64,
}

/// A successful announce as a client understands it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub complete: u32,
    pub incomplete: u32,
    pub downloaded: u32,
    pub interval: u32,
    pub peers: Vec<SocketAddr>,
    pub ticket: Option<Ticket>,
    pub body: Vec<u8>,
}

/// An announce to be made: of peer `n`, at its own address, with 16384 bytes left.
#[derive(Clone, Debug)]
pub struct Ask {
    passkey: Option<String>,
    hash: String,
    peer_id: String,
    ip: String,
    query: String,
}

// === impl Ask ===

/// The hash of test torrent `n`, escaped.
pub fn hash(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

pub fn escaped(hash: &InfoHash) -> String {
    hash.to_string()
        .as_bytes()
        .chunks(2)
        .flat_map(|pair| ['%', pair[0].into(), pair[1].into()])
        .collect()
}

pub fn passkey(user: u32) -> String {
    format!("passkey-{user:04}")
}

/// Peer `n` of torrent 1: at 9.9.9.n:6881, a leecher that has transferred nothing.
pub fn peer(n: u8) -> Ask {
    Ask {
        passkey: None,
        hash: escaped(&hash(1)),
        peer_id: format!("-MK0001-{n:012}"),
        ip: format!("9.9.9.{n}"),
        query: "port=6881&uploaded=0&downloaded=0&left=16384&compact=1".into(),
    }
}

impl Ask {
    pub fn of(mut self, user: u32) -> Self {
        self.passkey = Some(passkey(user));
        self
    }

    /// The query string.
    pub fn query(&self) -> String {
        let Self {
            hash,
            peer_id,
            query,
            ..
        } = self;
        format!("info_hash={hash}&peer_id={peer_id}&{query}")
    }

    pub fn passkey(mut self, passkey: &str) -> Self {
        self.passkey = Some(passkey.into());
        self
    }

    pub fn torrent(mut self, n: u8) -> Self {
        self.hash = escaped(&hash(n));
        self
    }

    pub fn raw_hash(mut self, raw: &str) -> Self {
        self.hash = raw.into();
        self
    }

    pub fn from(mut self, ip: &str) -> Self {
        self.ip = ip.into();
        self
    }

    /// More parameters; of a repeated one the last wins.
    pub fn with(mut self, more: &str) -> Self {
        self.query = format!("{}&{more}", self.query);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        let name = format!("{name}=");
        let kept: Vec<&str> = self
            .query
            .split('&')
            .filter(|pair| !pair.starts_with(&name))
            .collect();
        self.query = kept.join("&");
        self
    }

    pub fn event(self, event: &str) -> Self {
        self.with(&format!("event={event}"))
    }

    pub fn left(self, left: u64) -> Self {
        self.with(&format!("left={left}"))
    }

    pub fn totals(self, up: u64, down: u64) -> Self {
        self.with(&format!("uploaded={up}&downloaded={down}"))
    }
}

// === impl World ===

pub fn rules() -> Rules {
    Rules {
        peer_ttl: TTL,
        tombstone_ttl: TOMBSTONE,
        max_torrents: 100,
        max_rate: MAX_RATE,
        hnr_threshold: 10_000,
        hnr_min_bytes: 1000,
        ..Rules::default()
    }
}

pub fn torrent(n: u8) -> Torrent {
    Torrent {
        id: TorrentId(n.into()),
        info_hash: hash(n),
        info_hash_v2: None,
        enabled: true,
        reason: None,
        multi_up: Permille::ONE,
        multi_down: Permille::ONE,
        snatches: 0,
    }
}

pub fn user(id: u32) -> User {
    User {
        id: UserId(id),
        passkey: passkey(id).parse().unwrap(),
        username: format!("user {id}"),
        enabled: true,
        can_leech: true,
    }
}

impl World {
    pub fn public() -> Self {
        Self::new(Mode::Public, rules(), 10_000)
    }

    /// Torrents 1 to 3 and users 1 to 9.
    pub fn private() -> Self {
        Self::private_by(rules(), 10_000)
    }

    pub fn private_by(rules: Rules, capacity: usize) -> Self {
        let world = Self::new(Mode::Private, rules, capacity);
        for n in 1..=3 {
            world.apply(RegistryChange::Torrent(torrent(n)));
        }
        for id in 1..=9 {
            world.apply(RegistryChange::User(user(id)));
        }
        world
    }

    pub fn new(mode: Mode, rules: Rules, capacity: usize) -> Self {
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(Metrics::default());
        Self {
            tracker: Tracker::new(
                mode,
                rules.clone(),
                Arc::clone(&registry),
                capacity,
                Arc::clone(&metrics),
            ),
            registry,
            metrics,
            rules,
            now: Now {
                mono: Seconds::START,
                unix: 1_800_000_000,
            },
            work: Workspace::new(Protocol::Http, fastrand::Rng::with_seed(1)),
            storage: Storage::default(),
            capacity,
        }
    }

    pub fn apply(&self, change: RegistryChange) {
        self.registry.apply(change);
    }

    pub fn allow(&self, prefix: &str) {
        let client = ClientPrefix {
            prefix: prefix.into(),
            name: "test".into(),
        };
        self.apply(RegistryChange::Whitelist(Whitelist::new(&[client])));
    }

    pub fn wait(&mut self, seconds: u32) {
        self.now.mono = self.now.mono.plus(seconds);
        self.now.unix += i64::from(seconds);
    }

    pub fn sweep(&self) {
        (0..Tracker::SHARDS).for_each(|shard| self.tracker.sweep(shard, self.now));
    }

    /// Announces, and returns what a client would read: the reply, or the failure's reason.
    pub fn announce(&mut self, ask: Ask) -> Result<Reply, String> {
        let query = ask.query();
        let params = query::parse_announce(query.as_bytes());
        let ip = ask.ip.parse().unwrap();
        self.announce_parsed(ask.passkey.as_deref(), params, ip)
            .map_err(|refusal| refusal.failure(1800, 900).reason.to_owned())
    }

    pub fn announce_parsed(
        &mut self,
        passkey: Option<&str>,
        params: Result<Announce, ParseError>,
        source: IpAddr,
    ) -> Result<Reply, Refusal> {
        let list_form = params.as_ref().is_ok_and(|params| params.list_form);
        let request = AnnounceRequest {
            passkey,
            params,
            source,
        };
        let Answer { reply, ticket } = self.tracker.announce(&request, self.now, &mut self.work)?;
        let peers = &self.work.peers;
        let mut body = Vec::new();
        http::write_announce(&mut body, &reply, peers, list_form);
        Ok(Reply {
            complete: reply.complete,
            incomplete: reply.incomplete,
            downloaded: reply.downloaded,
            interval: reply.interval,
            peers: decode(&peers.endpoints, reply.external_ip),
            ticket,
            body,
        })
    }

    /// The reply to an announce that is answered.
    pub fn ok(&mut self, ask: Ask) -> Reply {
        self.announce(ask).unwrap()
    }

    /// Seeders, leechers and snatches, as in the reply to an announce.
    pub fn counts(&mut self, ask: Ask) -> (u32, u32, u32) {
        let reply = self.ok(ask);
        (reply.complete, reply.incomplete, reply.downloaded)
    }

    /// The failure's reason to an announce that is refused.
    pub fn refused(&mut self, ask: Ask) -> String {
        self.announce(ask).unwrap_err()
    }

    pub fn scrape(&self, hash: InfoHash) -> Option<ScrapeEntry> {
        let passkey = passkey(1);
        let entries = self
            .tracker
            .scrape(Some(&passkey), Ok(vec![hash]), Protocol::Http)
            .unwrap();
        entries.first().map(|(_, entry)| *entry)
    }

    /// Takes what the outbox holds into storage; returns it.
    pub fn drain(&mut self) -> Vec<Change> {
        let cut = self.tracker.outbox().drain();
        self.tracker
            .outbox()
            .mark_durable(cut.number, cut.changes.len());
        for change in &cut.changes {
            self.storage.apply(change);
        }
        cut.changes
    }

    /// What the outbox holds of peers.
    pub fn drain_peers(&mut self) -> Vec<PeerChange> {
        let only_peers = |change| match change {
            Change::Peer(change) => Some(*change),
            _ => None,
        };
        self.drain().into_iter().filter_map(only_peers).collect()
    }

    /// Drains and sweeps until no peer has anything owed.
    pub fn flush(&mut self) {
        loop {
            self.drain();
            self.sweep();
            if self.tracker.outbox().pending() == 0 {
                return;
            }
        }
    }

    /// What a user was credited with since the last call, multipliers applied.
    pub fn credited(&mut self, id: u32) -> (u64, u64) {
        let before = self.totals(id);
        self.drain();
        let after = self.totals(id);
        (after.up - before.up, after.down - before.down)
    }

    pub fn totals(&self, id: u32) -> Totals {
        self.storage
            .users
            .get(&UserId(id))
            .copied()
            .unwrap_or_default()
    }

    pub fn standing(&self, id: u32) -> Standing {
        self.storage.histories[&(UserId(id), TorrentId(1))].1
    }

    /// The record of a user's peer `n` of torrent 1, as storage has it.
    pub fn record(&self, id: u32, n: u8) -> &PeerRecord {
        let peer_id = PeerId(format!("-MK0001-{n:012}").into_bytes().try_into().unwrap());
        let (user, torrent) = (UserId(id), TorrentId(1));
        &self.storage.peers[&PeerKey {
            user,
            torrent,
            peer_id,
        }]
    }

    /// A new tracker restores what storage has; what only the old one knew is gone.
    pub fn restart(&mut self) {
        self.tracker = Tracker::new(
            self.tracker.mode(),
            self.rules.clone(),
            Arc::clone(&self.registry),
            self.capacity,
            Arc::clone(&self.metrics),
        );
        // The monotonic clock starts again.
        self.now.mono = Seconds::START;
        for (&torrent, &snatches) in &self.storage.snatches {
            let hash = self.registry.canonical(torrent).unwrap();
            self.tracker.restore_snatches(hash, snatches);
        }
        for (&hash, &snatches) in &self.storage.public_snatches {
            self.tracker.restore_snatches(hash, snatches);
        }
        for (&(user, torrent), (totals, standing)) in &self.storage.histories {
            let hash = self.registry.canonical(torrent).unwrap();
            self.tracker.restore_history(
                hash,
                &KnownHistory {
                    user,
                    downloaded: totals.raw_down,
                    seed_time: u32::try_from(totals.seed_time).unwrap(),
                    completed_at: standing.completed_at,
                    hnr: standing.hnr,
                },
            );
        }
        for (key, record) in &self.storage.peers {
            let hash = self.registry.canonical(key.torrent).unwrap();
            self.tracker.restore_peer(hash, key, record, true, self.now);
        }
    }
}

/// Compact endpoints of one family.
fn decode(endpoints: &[u8], family: IpAddr) -> Vec<SocketAddr> {
    let port = |bytes: &[u8]| u16::from_be_bytes(bytes.try_into().unwrap());
    match family {
        IpAddr::V4(_) => endpoints
            .chunks(6)
            .map(|it| {
                let ip: [u8; 4] = it[..4].try_into().unwrap();
                (ip, port(&it[4..])).into()
            })
            .collect(),
        IpAddr::V6(_) => endpoints
            .chunks(18)
            .map(|it| {
                let ip: [u8; 16] = it[..16].try_into().unwrap();
                (ip, port(&it[16..])).into()
            })
            .collect(),
    }
}

// === impl Storage ===

impl Storage {
    fn apply(&mut self, change: &Change) {
        let change = match change {
            Change::Peer(change) => change,
            Change::Snatches { info_hash, count } => {
                *self.public_snatches.entry(*info_hash).or_default() += count;
                return;
            }
            Change::Guest(_) => return,
        };
        let PeerKey { user, torrent, .. } = change.key;
        self.peers.insert(change.key, change.record.clone());
        self.counts.insert(torrent, change.counts);
        self.users.entry(user).or_default().add(change);
        let (totals, standing) = self.histories.entry((user, torrent)).or_default();
        totals.add(change);
        *standing = change.standing;
        *self.snatches.entry(torrent).or_default() += u32::from(change.credit.snatched);
    }
}

// === impl Totals ===

impl Totals {
    fn add(&mut self, change: &PeerChange) {
        let credit = &change.credit;
        self.up += credit.up;
        self.down += credit.down;
        self.raw_up += credit.raw_up;
        self.raw_down += credit.raw_down;
        self.seed_time += u64::from(credit.seed_time);
        self.announces += u64::from(credit.announces);
        self.snatches += u64::from(credit.snatched);
    }
}
