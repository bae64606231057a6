//! The fuzz targets without a fuzzer: each one on its seeds, and on random changes of them.
//!
//! This is the short run that every change has to pass; `scripts/fuzz` runs the same targets under
//! libFuzzer, for as long as one likes. `MIKA_FUZZ_RUNS` is the number of runs of each target (a
//! tenth of it for sequences of announces, which take longer), `MIKA_SEED` repeats a failure.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Bytes of an input at most.
const INPUT_MAX: usize = 4096;

/// Changes to a seed at most.
const CHANGES_MAX: usize = 8;

/// Runs of each target.
const RUNS: u64 = 5000;

/// Bytes at which readers change their minds.
const ODD_BYTES: &[u8] = b"\x00\x01\x02\x7f\x80\xff%&+=?/:;0123456789abcdefiedl-\n";

#[test]
fn bencode() {
    run("bencode");
}

#[test]
fn failures() {
    run("failures");
}

#[test]
fn http_head() {
    run("http_head");
}

#[test]
fn http_path() {
    run("http_path");
}

#[test]
fn http_query() {
    run("http_query");
}

#[test]
fn packed_guests() {
    run("packed_guests");
}

#[test]
fn private_announces() {
    run("private_announces");
}

#[test]
fn proxy_header() {
    run("proxy_header");
}

#[test]
fn public_announces() {
    run("public_announces");
}

#[test]
fn replies() {
    run("replies");
}

#[test]
fn udp_packet() {
    run("udp_packet");
}

/// A target that is only half set up would not be run by libFuzzer, or would begin with nothing.
#[test]
fn each_target_has_its_program_and_seeds() {
    let names: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("the manifest");
    for name in &names {
        let program = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&program), "{name} is not in Cargo.toml");
        assert!(!seeds(name).is_empty(), "{name} has no seeds");
    }
    for folder in ["fuzz_targets", "seeds"] {
        let entries = fs::read_dir(fuzz(folder)).expect("a folder");
        let stems = entries.map(|entry| {
            let path = entry.expect("an entry").path();
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        });
        assert_eq!(stems.collect::<BTreeSet<_>>(), names, "{folder}");
    }
}

fn run(name: &str) {
    let (_, check) = targets::TARGETS
        .iter()
        .find(|(target, _)| *target == name)
        .expect("a target");
    let seeds = seeds(name);
    for seed in &seeds {
        try_one(*check, seed, "a seed");
    }
    let seed = number("MIKA_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let runs = number("MIKA_FUZZ_RUNS").unwrap_or(RUNS);
    let runs = if name.ends_with("announces") {
        runs / 10
    } else {
        runs
    };
    for _ in 0..runs {
        let input = mutated(&mut rng, &seeds);
        try_one(*check, &input, &format!("MIKA_SEED={seed}"));
    }
}

fn try_one(check: fn(&[u8]), input: &[u8], origin: &str) {
    let result = catch_unwind(|| check(input));
    assert!(result.is_ok(), "{origin}: b\"{}\"", input.escape_ascii());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// The inputs to begin with, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(fuzz("seeds").join(target)).expect("a folder of seeds");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path| fs::read(path).expect("a seed");
    paths.into_iter().map(read).collect()
}

fn fuzz(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// A seed after a few changes.
fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(seeds).cloned().unwrap_or_default();
    for _ in 0..rng.usize(1..=CHANGES_MAX) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len());
        match rng.u8(..7) {
            0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            1 if at < input.len() => input[at] = rng.choice(ODD_BYTES).copied().unwrap_or(0),
            2 => input.insert(at, rng.u8(..)),
            3 => drop(input.drain(at..end.min(at + 8))),
            4 => {
                let again: Vec<u8> = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let other = rng.choice(seeds).cloned().unwrap_or_default();
                let from = rng.usize(..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
            _ => {
                let more = rng.usize(..32);
                let random = std::iter::repeat_with(|| rng.u8(..)).take(more);
                let random: Vec<u8> = random.collect();
                input.splice(at..at, random);
            }
        }
        input.truncate(INPUT_MAX);
    }
    input
}
