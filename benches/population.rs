//! A private tracker and its clients, for what is measured without a network: everything goes through
//! `Tracker::announce`, and the outbox is handed to the program that measures.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mika::base::addr::PublicAddresses;
use mika::base::clock::{Now, Seconds};
use mika::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::change::Change;
use mika::registry::{Permille, Registry, RegistryChange, Torrent, User};
use mika::telemetry::metrics::{Metrics, Protocol};
use mika::tracker::{AnnounceRequest, Mode, Rules, Tracker, Workspace};
use mika::wire::{Announce, Event};

/// Announces between two cuts of the outbox.
const CUT_EVERY: usize = 2000;

/// Seconds between two announces of a peer.
const INTERVAL: u32 = 1800;

/// One peer in this many announces in both families.
const DUAL_STACK: u64 = 10;

/// The sizes of a load.
#[derive(Clone, Copy)]
pub struct Load {
    pub peers: u64,
    pub torrents: u64,
    pub users: u64,
}

/// The tracker, and the clock by which its clients announce.
pub struct Population {
    load: Load,
    registry: Arc<Registry>,
    pub tracker: Tracker,
    work: Workspace,
    now: Now,
    uncut: usize,
}

/// What never changes of one peer.
pub struct Client {
    passkey: String,
    info_hash: InfoHash,
    peer_id: PeerId,
    source: IpAddr,
    /// The address of its other family.
    other_source: Option<IpAddr>,
    seeds: bool,
    /// Totals when its session began, in bytes, and bytes that it transfers in a round.
    first_total: u64,
    rate: u64,
}

/// A number that looks random, always the same for the same arguments.
fn scrambled(number: u64, purpose: u64) -> u64 {
    let mut it = number
        .wrapping_add(purpose << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}

/// The info hash of a torrent by its number.
pub fn info_hash(torrent: u64) -> InfoHash {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&scrambled(torrent, 1).to_le_bytes());
    hash[8..16].copy_from_slice(&scrambled(torrent, 2).to_le_bytes());
    InfoHash(hash)
}

/// The passkey of a user by its number.
pub fn passkey(user: u64) -> String {
    format!("{:032x}", scrambled(user, 3))
}

// === impl Client ===

impl Client {
    pub fn new(peer: u64, load: &Load) -> Self {
        // An eighth of the torrents has half of the peers.
        let (first, torrents) = if peer.is_multiple_of(2) {
            (0, load.torrents / 8)
        } else {
            (load.torrents / 8, load.torrents - load.torrents / 8)
        };
        let chance = scrambled(peer, 4);
        let mut peer_id = *b"-qB4650-............";
        peer_id[8..16].copy_from_slice(&scrambled(peer, 5).to_le_bytes());
        peer_id[16..].copy_from_slice(&(peer as u32).to_le_bytes());
        let v4 = Ipv4Addr::from(0x0b00_0000 + peer as u32);
        let v6 = Ipv6Addr::from((0x2a00_u128 << 112) + u128::from(chance));
        Self {
            passkey: passkey(scrambled(peer, 6) % load.users),
            info_hash: info_hash(first + scrambled(peer, 7) % torrents),
            peer_id: PeerId(peer_id),
            source: v4.into(),
            other_source: peer.is_multiple_of(DUAL_STACK).then_some(v6.into()),
            seeds: chance % 10 < 7,
            // Some resume a session that the tracker did not see.
            first_total: if chance.is_multiple_of(4) {
                chance >> 26
            } else {
                0
            },
            // Half of them find no peer to transfer anything to.
            rate: if chance & 64 == 0 { chance >> 32 } else { 0 },
        }
    }

    /// What it announces in a round.
    pub fn announce(&self, round: u32) -> Announce {
        let total = self.first_total + self.rate * u64::from(round);
        let left = (1 << 40_u64) - self.rate * u64::from(round);
        Announce {
            info_hash: self.info_hash,
            info_hash_as_form: None,
            peer_id: self.peer_id,
            port: 6881,
            uploaded: Some(total),
            downloaded: Some(if self.seeds { 0 } else { total }),
            left: Some(if self.seeds { 0 } else { left }),
            event: match (round, self.seeds) {
                (0, _) => Event::Started,
                (1, true) => Event::Completed,
                _ => Event::None,
            },
            numwant: None,
            key: None,
            claimed_v4: None,
            claimed_v6: None,
            list_form: false,
            no_peer_id: false,
        }
    }
}

// === impl Population ===

impl Population {
    /// All users and torrents registered; no peer has announced yet. Ids count from 1.
    pub fn new(load: Load) -> Self {
        let rules = Rules {
            announce_interval: INTERVAL,
            min_announce_interval: 900,
            peer_ttl: 3900,
            tombstone_ttl: 86_400,
            numwant: 50,
            max_numwant: 200,
            auto_register: false,
            max_torrents: 0,
            forget_torrents_after: 0,
            public_addresses: PublicAddresses::default(),
            blocked_ports: Vec::new(),
            blocked_networks: Vec::new(),
            whitelist: false,
            trust_client_ip: false,
            max_peers_per_ip: 0,
            max_peers_per_user: 100,
            hide_own_peers: false,
            max_rate: 2_500_000_000,
            hnr_threshold: 1_209_600,
            hnr_min_bytes: 52_428_800,
            // A user of many peers is none that is to be refused here.
            max_records_per_user: u32::MAX,
            new_records_burst: u32::MAX,
            new_records_rate: 1,
        };
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(Metrics::default());
        let known = Arc::clone(&registry);
        let population = Self {
            load,
            registry,
            tracker: Tracker::new(Mode::Private, rules, known, 2 * CUT_EVERY, metrics),
            work: Workspace::new(Protocol::Http, fastrand::Rng::with_seed(1)),
            now: Now {
                mono: Seconds::START,
                unix: 1_800_000_000,
            },
            uncut: 0,
        };
        population.register();
        population
    }

    fn register(&self) {
        for torrent in 0..self.load.torrents {
            self.registry.apply(RegistryChange::Torrent(Torrent {
                id: TorrentId(torrent as u32 + 1),
                info_hash: info_hash(torrent),
                info_hash_v2: None,
                enabled: true,
                reason: None,
                multi_up: Permille::ONE,
                multi_down: Permille::ONE,
                snatches: 0,
            }));
        }
        for user in 0..self.load.users {
            let passkey = passkey(user);
            self.registry.apply(RegistryChange::User(User {
                id: UserId(user as u32 + 1),
                passkey: passkey.parse().expect("32 digits"),
                username: String::new(),
                enabled: true,
                can_leech: true,
            }));
        }
    }

    /// All peers announce once, spread over an interval; returns the number of announces. What they changed is
    /// given away in portions.
    pub fn announce_all(
        &mut self,
        round: u32,
        mut take: impl FnMut(Vec<Change>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut announces = 0;
        let begun = self.now;
        for peer in 0..self.load.peers {
            let passed = u64::from(INTERVAL) * peer / self.load.peers;
            self.now.mono = begun.mono.plus(passed as u32);
            self.now.unix = begun.unix + passed as i64;
            let client = Client::new(peer, &self.load);
            let params = client.announce(round);
            for source in std::iter::once(client.source).chain(client.other_source) {
                let request = AnnounceRequest {
                    passkey: Some(&client.passkey),
                    params: Ok(params.clone()),
                    source,
                };
                let answer = self.tracker.announce(&request, self.now, &mut self.work);
                let answer = answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
                black_box(answer);
                announces += 1;
                self.uncut += 1;
                if self.uncut >= CUT_EVERY {
                    self.cut(&mut take)?;
                }
            }
        }
        self.cut(&mut take)?;
        self.now.mono = begun.mono.plus(INTERVAL);
        self.now.unix = begun.unix + i64::from(INTERVAL);
        Ok(announces)
    }

    /// Empties the outbox, as the journal does.
    fn cut(
        &mut self,
        take: &mut impl FnMut(Vec<Change>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let cut = self.tracker.outbox().drain();
        let (number, count) = (cut.number, cut.changes.len());
        take(cut.changes)?;
        self.tracker.outbox().mark_durable(number, count);
        self.uncut = 0;
        Ok(())
    }
}
