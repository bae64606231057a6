//! The simulator: real nodes over a simulated cache and database, on a clock of its own, with faults drawn from a
//! seed. What users are credited is compared with what their clients did (see `model`).
//!
//! `scripts/sim --seeds N [--seed S]` runs it for longer, or one seed again. Each seed has a process of its own:
//! tokio counts the runtimes of a process, and what it draws depends on the count.

#![allow(clippy::print_stdout)] // the story of a seed is what its process prints

mod breakages;
mod clients;
mod clocks;
mod edits;
mod entropy;
mod faults;
mod hnr;
mod model;
mod network;
mod process;
mod redis;
mod rows;
mod seedtime;
mod storage;
mod story;
mod sums;
mod world;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 300;

/// Failing seeds whose story is printed in full.
const PAGES: usize = 3;

/// Names the seed to a process that is to run it.
const SEED: &str = "MIKA_SIM_RUN";

/// Begins the line with the hash of a story.
const HASH: &str = "story ";

/// What came of a seed.
struct Outcome {
    hash: String,
    /// What its process printed.
    page: String,
    is_good: bool,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, and not {text:?}")))
}

/// Runs a seed in a process of its own.
fn run(seed: u64) -> Outcome {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_seed_of_this_process", "--nocapture"])
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hash = text.lines().find_map(|line| line.strip_prefix(HASH));
    let hash = hash.unwrap_or_default().to_owned();
    let is_good = output.status.success() && !hash.is_empty();
    text += &String::from_utf8_lossy(&output.stderr);
    Outcome {
        hash,
        page: text,
        is_good,
    }
}

/// Not a test of its own: what [`run`] calls.
#[test]
fn the_seed_of_this_process() {
    let Some(seed) = number(SEED) else { return };
    // On a thread that has drawn no randomness yet.
    let outcome = thread::spawn(move || world::run(seed)).join().unwrap();
    println!("\n{HASH}{:016x}", outcome.hash);
    if outcome.wrong.is_empty() && std::env::var_os("MIKA_SIM_TELL").is_none() {
        return;
    }
    println!("seed {seed}: {:?}\n{}", outcome.plan, outcome.page);
    for wrong in &outcome.wrong {
        println!("  {}", wrong.what);
    }
    println!("again: scripts/sim --seed {seed}");
    if !outcome.wrong.is_empty() {
        std::process::exit(1);
    }
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
    let is_first_enough = std::env::var_os("MIKA_SIM_FIRST").is_some();
    let is_printed = std::env::var_os("MIKA_SIM_TELL").is_some();
    let next = AtomicU64::new(from);
    let is_over = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let outcome = run(seed);
                    if !outcome.is_good {
                        failed.lock().push((seed, outcome.page));
                        is_over.store(is_first_enough, Ordering::Relaxed);
                    } else if is_printed {
                        println!("{}", outcome.page);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort_unstable();
    let pages = failed.iter().take(PAGES).map(|(_, page)| page.as_str());
    let pages: Vec<&str> = pages.collect();
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(
        failed.is_empty(),
        "{}\n{} of {count} seeds failed: {seeds:?}",
        pages.join("\n"),
        failed.len()
    );
}

#[test]
fn a_seed_runs_the_same_each_time() {
    // Every fifth one has a cluster.
    for seed in [1, 2, 3, 5, 10, 15] {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.hash, other.hash, "seed {seed}");
    }
}
