//! Sequences of announces, scrapes, sweeps, full outboxes and restarts, against the model of the
//! property tests: counters equal a recount; no peer is handed out that has left, expired, can't be
//! connected to or is the requester; and credit is what was reported, no byte more (rules W1 to W13,
//! A1 to A11).

#[path = "../../tests/properties/model.rs"]
mod model;
#[path = "../../tests/properties/run.rs"]
mod run;
#[path = "../../tests/world/mod.rs"]
mod world;

use run::{Choices, Run};

pub fn public_announces(bytes: &[u8]) {
    Run::new(Choices::Bytes(bytes), false).go();
}

pub fn private_announces(bytes: &[u8]) {
    Run::new(Choices::Bytes(bytes), true).go();
}
