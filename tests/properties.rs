//! Random sequences of announces, sweeps, full outboxes and restarts, against a plain model of
//! the rules. After every step the tracker has to agree with the model.
//!
//! `MIKA_SEED` repeats a failure, `MIKA_CASES` is the number of sequences.

#[path = "properties/model.rs"]
mod model;
#[path = "properties/run.rs"]
mod run;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use run::{Choices, Run};

const STEPS: u32 = 250;

#[test]
fn private_sequences_follow_the_rules() {
    go(true);
}

#[test]
fn public_sequences_follow_the_rules() {
    go(false);
}

#[allow(clippy::print_stderr)] // how to repeat a failure
fn go(private: bool) {
    for seed in seeds() {
        let rng = fastrand::Rng::with_seed(seed);
        let choices = Choices::Random { rng, steps: STEPS };
        let run = AssertUnwindSafe(|| Run::new(choices, private).go());
        if let Err(panic) = catch_unwind(run) {
            eprintln!("repeat with MIKA_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse().unwrap());
    let seed: Option<u64> = number("MIKA_SEED");
    let cases = number("MIKA_CASES").unwrap_or(if seed.is_some() { 1 } else { 100 });
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    (0..cases).map(move |case| first + case)
}
