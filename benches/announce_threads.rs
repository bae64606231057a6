//! What threads cost each other: several decide announces at once, in memory and without sockets, as the workers of a
//! tracker do. The result is one line of JSON: CPU time, waits for locks and context switches. `scripts/bench cores`
//! starts it; `docs/bench.md` explains it.

// The rule that time is an argument is for the tracker; a load reads the clock itself.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use mika::base::addr::Endpoint;
use mika::base::clock::{Now, Seconds};
use mika::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::registry::{Permille, Registry, RegistryChange, Torrent, User};
use mika::telemetry::metrics::{Metrics, Protocol};
use mika::tracker::{AnnounceRequest, Mode, Rules, Tracker, Workspace};
use mika::wire::{Announce, Event};

/// The one that Mika uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Announces that a UDP worker takes at once.
const BATCH: usize = 64;

/// The exponent of popularity, as in the other loads: an eighth of the torrents has half of the peers.
const SKEW: i32 = 3;

/// Changes that the outbox has room for, and how often it is emptied.
const OUTBOX: usize = 1 << 18;
const DRAIN_EVERY: Duration = Duration::from_millis(5);

/// How much faster time passes than the clock: a lap of all peers is some minutes long.
const HASTE: u128 = 500;

/// What each client uploads between two announces, in bytes.
const STEP: u64 = 1 << 20;

#[derive(Parser)]
#[command(about = "Threads that decide announces at once, in memory")]
struct Options {
    #[arg(value_enum)]
    mode: Kind,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 200_000)]
    peers: u64,
    #[arg(long, default_value_t = 100_000)]
    torrents: u64,
    /// Of a private tracker.
    #[arg(long, default_value_t = 10_000)]
    users: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Public,
    Private,
}

/// A peer, and what it announces next.
struct Peer {
    passkey: Option<String>,
    source: Ipv4Addr,
    params: Announce,
}

/// What a thread has done while all were at work.
struct Done {
    announces: u64,
    cpu: Duration,
    switches: [u64; 2],
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let tracker = tracker(&options);
    let mut crowds = crowds(&options);
    let draining = AtomicBool::new(true);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| drain(&tracker, &draining));
        let result = measure(&tracker, &mut crowds, options.seconds);
        draining.store(false, Ordering::Relaxed);
        result
    });
    writeln!(std::io::stdout(), "{}", result?)?;
    Ok(())
}

/// Lets everybody join, and then announce for so long.
fn measure(tracker: &Tracker, crowds: &mut [Vec<Peer>], seconds: f64) -> anyhow::Result<Value> {
    let begun = Instant::now();
    at_once(crowds, |crowd| run(tracker, crowd, begun, 1, || false))?;
    let waits = waits(tracker);
    let start = Instant::now();
    let length = Duration::from_secs_f64(seconds);
    let is_over = || start.elapsed() >= length;
    let done = at_once(crowds, |crowd| {
        run(tracker, crowd, begun, u64::MAX, is_over)
    })?;
    Ok(report(&done, start.elapsed(), tracker, &waits))
}

/// A thread for each crowd.
fn at_once(
    crowds: &mut [Vec<Peer>],
    work: impl Fn(&mut Vec<Peer>) -> anyhow::Result<Done> + Sync,
) -> anyhow::Result<Vec<Done>> {
    let work = &work;
    std::thread::scope(|scope| {
        let start = |crowd| scope.spawn(move || work(crowd));
        let workers: Vec<_> = crowds.iter_mut().map(start).collect();
        let ends = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        ends.map(|end| end.expect("a worker's end")).collect()
    })
}

fn tracker(options: &Options) -> Tracker {
    let registry = Arc::new(Registry::default());
    let mode = match options.mode {
        Kind::Public => Mode::Public,
        Kind::Private => Mode::Private,
    };
    if mode == Mode::Private {
        register(&registry, options);
    }
    let rules = Rules {
        auto_register: mode == Mode::Public,
        max_records_per_user: u32::MAX,
        new_records_burst: u32::MAX,
        ..Rules::default()
    };
    Tracker::new(mode, rules, registry, OUTBOX, Arc::new(Metrics::default()))
}

fn register(registry: &Registry, options: &Options) {
    for torrent in 0..options.torrents {
        registry.apply(RegistryChange::Torrent(Torrent {
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
    for user in 0..options.users {
        registry.apply(RegistryChange::User(User {
            id: UserId(user as u32 + 1),
            passkey: passkey(user).parse().expect("32 digits"),
            username: String::new(),
            enabled: true,
            can_leech: true,
        }));
    }
}

/// The peers of each thread; those of one torrent are spread over all of them.
fn crowds(options: &Options) -> Vec<Vec<Peer>> {
    let threads = options.threads as u64;
    let of_thread = |thread| (thread..options.peers).step_by(threads as usize);
    (0..threads)
        .map(|thread| {
            of_thread(thread)
                .map(|number| Peer::new(number, options))
                .collect()
        })
        .collect()
}

/// The peers of a crowd announce in their order, for so many laps, or until it is over.
fn run(
    tracker: &Tracker,
    crowd: &mut [Peer],
    begun: Instant,
    laps: u64,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<Done> {
    let mut work = Workspace::new(Protocol::Udp, fastrand::Rng::new());
    let mut announced = Vec::with_capacity(BATCH);
    let (cpu, switched) = (processor_time(), switches()?);
    let mut announces = 0;
    let batches = crowd.len().div_ceil(BATCH) as u64;
    for number in 0..batches.saturating_mul(laps) {
        if is_over() {
            break;
        }
        let first = (number % batches) as usize * BATCH;
        let batch = &mut crowd[first..];
        let batch_len = batch.len().min(BATCH);
        let batch = &mut batch[..batch_len];
        let seconds = (begun.elapsed().as_millis() * HASTE / 1000) as u32;
        let now = Now {
            mono: Seconds::START.plus(seconds),
            unix: 1_800_000_000 + i64::from(seconds),
        };
        announced.clear();
        announced.extend(batch.iter().map(Peer::place));
        tracker.prefetch(&announced);
        for peer in batch {
            peer.announce(tracker, now, &mut work)?;
            announces += 1;
        }
    }
    let cpu = processor_time().saturating_sub(cpu);
    let after = switches()?;
    Ok(Done {
        announces,
        cpu,
        switches: std::array::from_fn(|at| after[at] - switched[at]),
    })
}

/// Empties the outbox, in place of the journal.
fn drain(tracker: &Tracker, draining: &AtomicBool) {
    while draining.load(Ordering::Relaxed) {
        let drained = tracker.outbox().drain();
        let number = drained.changes.len();
        drop(drained.changes);
        tracker.outbox().mark_durable(drained.number, number);
        std::thread::sleep(DRAIN_EVERY);
    }
}

/// How often, and for how many nanoseconds, threads waited, by what the locks protect.
fn waits(tracker: &Tracker) -> Vec<(&'static str, u64, u64)> {
    let waits = tracker.lock_waits().into_iter();
    waits
        .map(|(name, waits)| (name, waits.count(), waits.nanoseconds()))
        .collect()
}

fn report(
    done: &[Done],
    length: Duration,
    tracker: &Tracker,
    before: &[(&str, u64, u64)],
) -> Value {
    let announces: u64 = done.iter().map(|done| done.announces).sum();
    let cpu: Duration = done.iter().map(|done| done.cpu).sum();
    let waits = waits(tracker).into_iter().zip(before);
    let waits: serde_json::Map<_, _> = waits
        .map(
            |((name, count, nanoseconds), (_, before, nanoseconds_before))| {
                let counts = json!({
                    "count": count - before,
                    "nanoseconds": nanoseconds - nanoseconds_before,
                });
                (name.to_owned(), counts)
            },
        )
        .collect();
    json!({
        "announces": announces,
        "seconds": length.as_secs_f64(),
        "cpu_seconds": cpu.as_secs_f64(),
        "voluntary": done.iter().map(|done| done.switches[0]).sum::<u64>(),
        "involuntary": done.iter().map(|done| done.switches[1]).sum::<u64>(),
        "waits": waits,
    })
}

/// What this thread has used; other work on the machine does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Context switches of this thread, voluntary and not.
fn switches() -> anyhow::Result<[u64; 2]> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.context("context switches")?
            .trim()
            .parse()
            .context("a number")
    };
    Ok([
        number("voluntary_ctxt_switches:")?,
        number("nonvoluntary_ctxt_switches:")?,
    ])
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

// === impl Peer ===

impl Peer {
    fn new(number: u64, options: &Options) -> Self {
        let chance = scrambled(number, 4);
        let uniform = (chance >> 11) as f64 / (1_u64 << 53) as f64;
        let torrent = (options.torrents as f64 * uniform.powi(SKEW)) as u64;
        let mut peer_id = *b"-qB4650-............";
        peer_id[8..16].copy_from_slice(&scrambled(number, 5).to_le_bytes());
        peer_id[16..].copy_from_slice(&(number as u32).to_le_bytes());
        let is_seeder = chance & 1 == 0;
        let is_private = options.mode == Kind::Private;
        Self {
            passkey: is_private.then(|| passkey(scrambled(number, 6) % options.users)),
            source: Ipv4Addr::from(0x0b00_0000 + number as u32),
            params: Announce {
                info_hash: info_hash(torrent),
                info_hash_as_form: None,
                peer_id: PeerId(peer_id),
                port: 6881,
                uploaded: Some(0),
                downloaded: Some(0),
                left: Some(if is_seeder { 0 } else { 1 << 40 }),
                event: Event::Started,
                numwant: Some(50),
                key: None,
                claimed_v4: None,
                claimed_v6: None,
                list_form: false,
                no_peer_id: false,
            },
        }
    }

    fn place(&self) -> (InfoHash, Endpoint) {
        let endpoint = Endpoint::new(self.source.into(), self.params.port);
        (self.params.info_hash, endpoint)
    }

    fn announce(
        &mut self,
        tracker: &Tracker,
        now: Now,
        work: &mut Workspace,
    ) -> anyhow::Result<()> {
        let request = AnnounceRequest {
            passkey: self.passkey.as_deref(),
            params: Ok(self.params.clone()),
            source: self.source.into(),
        };
        let answer = tracker.announce(&request, now, work);
        black_box(answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?);
        self.params.event = Event::None;
        self.params.uploaded = self.params.uploaded.map(|total| total + STEP);
        Ok(())
    }
}
