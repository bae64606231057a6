//! The simulator: real nodes over a simulated cache and database, on a clock of its own, with faults drawn from a
//! seed. What users are credited is compared with what their clients did (see `model`).
//!
//! `scripts/sim --seeds N [--seed S]` runs it for longer, or one seed again.

mod cache;
mod clients;
mod entropy;
mod faults;
mod model;
mod network;
mod process;
mod storage;
mod story;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use self::world::Outcome;

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 300;

/// Failing seeds that are told in full.
const PAGES: usize = 3;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {text:?}")))
}

/// Runs a seed on a thread of its own, which has drawn no randomness yet.
fn run(seed: u64) -> Outcome {
    let run = thread::Builder::new().name(format!("seed-{seed}"));
    let run = run.spawn(move || world::run(seed)).unwrap();
    run.join().unwrap_or_else(|_| panic!("seed {seed}: the simulation panicked"))
}

fn page(seed: u64, outcome: &Outcome) -> String {
    let mut page = format!("seed {seed}: {:?}\n{}", outcome.plan, outcome.page);
    for wrong in &outcome.wrong {
        page += &format!("  {}\n", wrong.what);
    }
    page + &format!("again: scripts/sim --seed {seed}\n")
}

#[test]
fn every_acknowledged_byte_is_credited_once() {
    let (from, count) = match number("MIKA_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("MIKA_SIM_FROM").unwrap_or(1),
            number("MIKA_SIM_SEEDS").unwrap_or(SEEDS),
        ),
    };
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let outcome = run(seed);
                    if !outcome.wrong.is_empty() {
                        failed.lock().push((seed, page(seed, &outcome)));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort_unstable();
    let pages: Vec<&str> = failed.iter().take(PAGES).map(|(_, page)| page.as_str()).collect();
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(
        failed.is_empty(),
        "{}\n{} of {count} seeds failed in {:?}: {seeds:?}",
        pages.join("\n"),
        failed.len(),
        began.elapsed()
    );
}

#[test]
fn a_seed_runs_the_same_each_time() {
    for seed in 1..=4 {
        assert_eq!(run(seed).hash, run(seed).hash, "seed {seed}");
    }
}
