//! What a private peer costs: bytes of resident memory, all in, and nanoseconds of an announce.
//! Everything goes through `Tracker::announce`, with the journal's place taken by a loop that
//! empties the outbox. `docs/bench.md` says what the figures are for.
//!
//! ```text
//! cargo run --release --example private_peers -- [PEERS [TORRENTS [USERS]]]
//! ```

#![allow(clippy::print_stdout)] // a program's `main` speaks to its caller

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mika::addr::PublicAddresses;
use mika::clock::{Now, Seconds};
use mika::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::metrics::{Metrics, Protocol};
use mika::registry::{Permille, Registry, RegistryChange, Torrent, User};
use mika::tracker::{AnnounceRequest, HnrRules, Mode, RecordLimits, Rules, Tracker, Workspace};
use mika::wire::{Announce, Event};
use rustix::time::{ClockId, clock_gettime};

/// The one that Mika uses: how it rounds sizes is part of what a peer costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Announces between two cuts of the outbox.
const CUT_EVERY: usize = 2000;

/// Seconds between two announces of a peer.
const INTERVAL: u32 = 1800;

/// One peer in so many announces in both families.
const DUAL_STACK: u64 = 10;

/// The sizes of a load.
struct Load {
    peers: u64,
    torrents: u64,
    users: u64,
}

struct Bench {
    load: Load,
    registry: Arc<Registry>,
    tracker: Tracker,
    work: Workspace,
    now: Now,
    unsettled: usize,
}

/// What never changes of one peer.
struct Client {
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

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::new(load()?);
    bench.register();
    let before = resident()?;
    for round in 0..4 {
        let nanoseconds = bench.round(round)?;
        let bytes = resident()?.saturating_sub(before) as f64;
        println!(
            "round {round}: {nanoseconds:.0} ns an announce, {:.1} MiB, {:.1} bytes a peer",
            bytes / 1_048_576.0,
            bytes / bench.load.peers as f64
        );
    }
    let (swarms, seeders, leechers) = bench.tracker.totals();
    println!("{swarms} swarms, {seeders} seeders, {leechers} leechers");
    Ok(())
}

fn load() -> anyhow::Result<Load> {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse::<u64>());
    let mut size = |default| sizes.next().unwrap_or(Ok(default));
    let usage = "usage: private_peers [PEERS [TORRENTS [USERS]]]";
    Ok(Load {
        peers: size(1_000_000).context(usage)?.max(1),
        torrents: size(200_000).context(usage)?.max(8),
        users: size(50_000).context(usage)?.max(1),
    })
}

/// Bytes of this process that are in memory.
fn resident() -> anyhow::Result<u64> {
    // The allocator gives pages back a second after they were freed, when it is asked for others.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        drop(black_box(vec![1_u8; 1 << 20]));
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.context("VmRSS")?.parse::<u64>()? * 1024)
}

/// What this thread has used; other work on the machine does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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

fn info_hash(torrent: u64) -> InfoHash {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&scrambled(torrent, 1).to_le_bytes());
    hash[8..16].copy_from_slice(&scrambled(torrent, 2).to_le_bytes());
    InfoHash(hash)
}

fn passkey(user: u64) -> String {
    format!("{:032x}", scrambled(user, 3))
}

// === impl Client ===

impl Client {
    fn new(peer: u64, load: &Load) -> Self {
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
            // Half of them find nobody to transfer anything to.
            rate: if chance & 64 == 0 { chance >> 32 } else { 0 },
        }
    }

    fn announce(&self, round: u32) -> Announce {
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

// === impl Bench ===

impl Bench {
    fn new(load: Load) -> Self {
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
            hnr: HnrRules {
                threshold: 1_209_600,
                min_bytes: 52_428_800,
            },
            // A user of many peers is none that is to be refused here.
            user_records: RecordLimits {
                max: u32::MAX,
                burst: u32::MAX,
                rate: 1,
            },
        };
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(Metrics::default());
        let known = Arc::clone(&registry);
        Self {
            load,
            registry,
            tracker: Tracker::new(Mode::Private, rules, known, 2 * CUT_EVERY, metrics),
            work: Workspace::new(Protocol::Http, fastrand::Rng::with_seed(1)),
            now: Now {
                mono: Seconds::START,
                unix: 1_800_000_000,
            },
            unsettled: 0,
        }
    }

    fn register(&self) {
        for torrent in 0..self.load.torrents {
            self.registry.apply(RegistryChange::Torrent(Torrent {
                id: TorrentId(torrent as u32),
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
                id: UserId(user as u32),
                passkey: passkey.parse().expect("32 digits"),
                username: String::new(),
                enabled: true,
                can_leech: true,
            }));
        }
    }

    /// All peers announce once, spread over an interval. Returns nanoseconds of processor time an
    /// announce.
    fn round(&mut self, round: u32) -> anyhow::Result<f64> {
        let begun = processor_time();
        for peer in 0..self.load.peers {
            let client = Client::new(peer, &self.load);
            black_box(client.announce(round));
        }
        let made = processor_time().saturating_sub(begun);
        let begun = processor_time();
        let announces = self.announce_all(round)?;
        let spent = processor_time().saturating_sub(begun + made);
        Ok(spent.as_nanos() as f64 / announces as f64)
    }

    /// Returns the number of announces.
    fn announce_all(&mut self, round: u32) -> anyhow::Result<u64> {
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
                self.settle();
            }
        }
        self.now.mono = begun.mono.plus(INTERVAL);
        self.now.unix = begun.unix + i64::from(INTERVAL);
        Ok(announces)
    }

    /// Empties the outbox now and then, as the journal does.
    fn settle(&mut self) {
        self.unsettled += 1;
        if self.unsettled >= CUT_EVERY {
            let cut = self.tracker.outbox().cut();
            self.tracker.outbox().settle(cut.number, cut.changes.len());
            self.unsettled = 0;
        }
    }
}
