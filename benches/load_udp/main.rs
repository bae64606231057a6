//! A load for UDP trackers on this host: one thread, many addresses, a population that follows
//! from a seed. Every reply is checked. The result is one line of JSON.
//! `scripts/bench` starts it; `docs/bench.md` explains it.

// The rule that time is an argument is for the tracker; a load reads the clock itself.
#![allow(clippy::disallowed_methods)]

mod closed;
mod garbage;
mod hashes;
mod histogram;
mod paced;
mod population;
mod source;
mod train;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use closed::{Closed, Tally};
use garbage::Garbage;
use hashes::AquaticHashes;
use histogram::Histogram;
use population::{EVENT_COMPLETED, EVENT_NONE, EVENT_STARTED, PORTS, Population};
use source::{Source, open};

/// Torrents whose numbers of peers are compared after all peers have joined; a request for more
/// is longer than the 512 bytes that some trackers read.
const COMPARED: u64 = 20;

/// How long nodes may take to learn of each other's peers, and how often that is looked at.
const SHARE_MAX: Duration = Duration::from_secs(20);
const SHARE_LOOK: Duration = Duration::from_millis(100);

/// Packets of garbage that each source sends between two looks at its replies.
const FLOOD_BATCH: usize = 48;

#[derive(Parser)]
#[command(about = "A load for UDP trackers on this host")]
struct Options {
    #[command(flatten)]
    who: Who,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Args)]
struct Who {
    /// The tracker; IPv4 only. Several, separated by commas, are nodes that share their peers: each has the peers of
    /// as many sources.
    #[arg(
        long = "server",
        default_value = "127.0.0.1:6969",
        value_delimiter = ','
    )]
    servers: Vec<SocketAddr>,
    #[arg(long, default_value_t = 200_000)]
    peers: u64,
    #[arg(long, default_value_t = 100_000)]
    torrents: u64,
    /// The first address that peers come from; the others follow it.
    #[arg(long, default_value = "127.1.0.1")]
    from: Ipv4Addr,
    /// Addresses that peers come from; as many as it takes, at least 4, if none is said.
    #[arg(long)]
    sources: Option<u64>,
    #[arg(long, default_value_t = 50)]
    numwant: i32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Private trackers: a file with a passkey a line, one for each user.
    #[arg(long)]
    passkeys: Option<PathBuf>,
}

#[derive(Args)]
struct Pace {
    /// How often each peer announced before: totals go on from there.
    #[arg(long, default_value_t = 1)]
    lap: u64,
    /// Only the peers of the first so many servers announce.
    #[arg(long)]
    only: Option<u64>,
    /// Microseconds of rest between two looks at the sockets, for a load that shares its core; delays are longer by
    /// that.
    #[arg(long, default_value_t = 0)]
    rest_us: u64,
}

#[derive(Subcommand)]
enum Mode {
    /// Lets every peer join once; then torrents have to have the peers that they should have.
    Fill {
        /// Announces on their way at once.
        #[arg(long, default_value_t = 1024)]
        window: usize,
        /// Seeders report that they have just completed their download.
        #[arg(long)]
        completed: bool,
    },
    /// Announces as fast as the tracker answers.
    Full {
        #[arg(long, default_value_t = 1024)]
        window: usize,
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Announces at a fixed pace.
    Rate {
        /// Announces a second.
        #[arg(long)]
        rate: u32,
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        #[command(flatten)]
        pace: Pace,
    },
    /// Garbage as fast as it goes, and honest announces between.
    Flood {
        /// Honest announces on their way at once.
        #[arg(long, default_value_t = 64)]
        window: usize,
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Prints the info hashes of all torrents, for a tracker that serves only a given list.
    Hashes {
        /// Those of `aquatic_udp_load_test`.
        #[arg(long)]
        aquatic: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let Options { who, mode } = Options::parse();
    ensure!(who.peers > 0 && who.torrents > 0, "nobody to announce");
    let needed = who.peers.div_ceil(PORTS).max(4);
    let servers = who.servers.len() as u64;
    let sources = who.sources.unwrap_or(needed).clamp(1, 60_000);
    let sources = sources.next_multiple_of(servers);
    let mut population = Population::new(who.peers, who.torrents, sources, who.numwant, who.seed);
    if let Some(passkeys) = &who.passkeys {
        population = population.of_users(passkeys)?;
    }
    let open = || open(&who.servers, who.from, &population);
    let open_fast = || {
        let mut sources = open()?;
        if let Some(length) = population.announce_len() {
            for source in &mut sources {
                source.use_trains(length)?;
            }
        }
        anyhow::Ok(sources)
    };
    let result = match mode {
        Mode::Hashes { aquatic } => return print_hashes(&population, aquatic),
        Mode::Fill { window, completed } => {
            let event = if completed {
                EVENT_COMPLETED
            } else {
                EVENT_STARTED
            };
            fill(&population, open_fast()?, who.servers.len(), window, event)?
        }
        Mode::Full { window, seconds } => full(&population, open_fast()?, window, seconds)?,
        Mode::Rate {
            rate,
            seconds,
            pace,
        } => {
            let length = Duration::from_secs(seconds);
            let only = pace.only.unwrap_or(servers).clamp(1, servers);
            let pace = paced::Paced {
                rate,
                length,
                lap: pace.lap,
                rest: Duration::from_micros(pace.rest_us),
            };
            let population = &population;
            let tally = paced::run(population, open()?, servers, only, &pace)?;
            let counts = json!({
                "sent": tally.sent,
                "replies": tally.replies,
                "lost": tally.sent - tally.replies,
                "late_max_ms": tally.late_max.as_secs_f64() * 1e3,
                "seconds": seconds,
            });
            with_delays(counts, &tally.delays)
        }
        Mode::Flood { window, seconds } => flood(&population, open()?, window, seconds)?,
    };
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

fn fill(
    population: &Population,
    sources: Vec<Source>,
    servers: usize,
    window: usize,
    event: u32,
) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut load = Closed::new(population, sources, window, event)?;
    while load.visit(1, |_| ())? {}
    let seconds = start.elapsed();
    let result = counts(&load.tally, seconds);
    if population.is_public() {
        for source in &mut load.into_sources()[..servers] {
            compare(population, source, servers > 1)?;
        }
    }
    Ok(result)
}

/// Holds a tracker's counts of some torrents, busy ones and quiet ones, against the truth. One of several may learn
/// of the others' peers a bit later.
fn compare(population: &Population, source: &mut Source, is_shared: bool) -> anyhow::Result<()> {
    let part = |number: u64| (number as f64 / COMPARED as f64).powi(3);
    let mut torrents: Vec<u64> = (0..COMPARED)
        .map(|number| (population.torrents as f64 * part(number)) as u64)
        .collect();
    torrents.dedup();
    let mut expected = vec![(0, 0); torrents.len()];
    for peer in (0..population.peers).map(|number| population.peer(number)) {
        if let Ok(at) = torrents.binary_search(&peer.torrent) {
            let (seeders, leechers) = &mut expected[at];
            *(if peer.is_seeder { seeders } else { leechers }) += 1;
        }
    }
    let hashes: Vec<_> = torrents
        .iter()
        .map(|it| population.info_hash(*it))
        .collect();
    // Clients of one address are distinguished by 29 bits. Of the 65,000 that each has where a million
    // share a swarm, four are taken for one that moved to another port.
    let near = |found: u32, expected: u32| (expected - expected / 5000..=expected).contains(&found);
    let deadline = Instant::now() + SHARE_MAX;
    loop {
        let found = source.scrape(&hashes)?;
        let all_near = found.len() == expected.len()
            && found
                .iter()
                .zip(&expected)
                .all(|(found, expected)| near(found.0, expected.0) && near(found.1, expected.1));
        if all_near {
            return Ok(());
        }
        ensure!(
            is_shared && Instant::now() < deadline,
            "the tracker does not have the peers that joined: seeders and leechers of torrents \
             {torrents:?} are {found:?} and should be {expected:?}"
        );
        std::thread::sleep(SHARE_LOOK);
    }
}

fn full(
    population: &Population,
    sources: Vec<Source>,
    window: usize,
    seconds: u64,
) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut load = Closed::new(population, sources, window, EVENT_NONE)?;
    while start.elapsed() < Duration::from_secs(seconds) {
        load.visit(u64::MAX, |_| ())?;
    }
    Ok(counts(&load.tally, start.elapsed()))
}

fn flood(
    population: &Population,
    sources: Vec<Source>,
    window: usize,
    seconds: u64,
) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut garbage = Garbage::new(population.seed);
    // Its own garbage may have used up what a network may have.
    let load = Closed::new(population, sources, window, EVENT_NONE)?;
    let mut load = load.bearing_refusals();
    while start.elapsed() < Duration::from_secs(seconds) {
        load.visit(u64::MAX, |source| {
            for _ in 0..FLOOD_BATCH {
                garbage.add(population, source);
            }
        })?;
    }
    let mut result = counts(&load.tally, start.elapsed());
    result["garbage"] = garbage.sent.into();
    Ok(result)
}

fn counts(tally: &Tally, length: Duration) -> Value {
    let each = |sum: u64| sum as f64 / tally.replies.max(1) as f64;
    let counts = json!({
        "replies": tally.replies,
        "seconds": length.as_secs_f64(),
        "mean_bytes": each(tally.bytes),
        "mean_peers": each(tally.peers),
        "repeated": tally.repeated,
        "refused": tally.refused,
        "strays": tally.strays,
    });
    with_delays(counts, &tally.delays)
}

fn with_delays(mut result: Value, delays: &Histogram) -> Value {
    for (key, part) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)] {
        result[key] = delays.within_ms(part).into();
    }
    result["max_ms"] = delays.max_ms().into();
    result
}

fn print_hashes(population: &Population, aquatic: bool) -> anyhow::Result<()> {
    let own = (0..population.torrents).map(|torrent| population.info_hash(torrent));
    let theirs = AquaticHashes::default().take(population.torrents as usize);
    let hashes: Box<dyn Iterator<Item = [u8; 20]>> = if aquatic {
        Box::new(theirs)
    } else {
        Box::new(own)
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for hash in hashes {
        let hash = hash.map(|byte| format!("{byte:02x}")).concat();
        writeln!(out, "{hash}")?;
    }
    out.flush()?;
    Ok(())
}
