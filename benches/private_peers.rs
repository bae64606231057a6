//! What a private peer costs: bytes of resident memory, all in, and nanoseconds of an announce.
//! Everything goes through `Tracker::announce`, with a loop in place of the journal that
//! empties the outbox. `docs/bench.md` explains the figures.
//!
//! ```text
//! cargo run --release --example private_peers -- [PEERS [TORRENTS [USERS]]]
//! ```

#![allow(clippy::print_stdout)] // a program's `main` speaks to its caller

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

use crate::population::{Client, Load, Population};

mod population;

/// The one that Mika uses: how it rounds sizes is part of what a peer costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let load = load()?;
    let mut population = Population::new(load);
    let before = resident()?;
    for round in 0..4 {
        let nanoseconds = round_of(&mut population, load, round)?;
        let bytes = resident()?.saturating_sub(before) as f64;
        println!(
            "round {round}: {nanoseconds:.0} ns an announce, {:.1} MiB, {:.1} bytes a peer",
            bytes / 1_048_576.0,
            bytes / load.peers as f64
        );
    }
    let (swarms, seeders, leechers) = population.tracker.totals();
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

/// All peers announce once, spread over an interval. Returns nanoseconds of processor time an
/// announce.
fn round_of(population: &mut Population, load: Load, round: u32) -> anyhow::Result<f64> {
    let begun = processor_time();
    for peer in 0..load.peers {
        black_box(Client::new(peer, &load).announce(round));
    }
    let made = processor_time().saturating_sub(begun);
    let begun = processor_time();
    let announces = population.announce_all(round, |_| Ok(()))?;
    let spent = processor_time().saturating_sub(begun + made);
    Ok(spent.as_nanos() as f64 / announces as f64)
}
