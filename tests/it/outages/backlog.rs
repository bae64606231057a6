//! More changes than memory may hold.

use serde_json::json;

use super::trial::Trial;
use crate::harness::database::Database;
use crate::harness::redis::AOF;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// The smallest that the config allows.
const PENDING_MAX: u32 = 1000;

crate::on_each_database![batches_beyond_memory_wait_in_the_spill_file];

fn batches_beyond_memory_wait_in_the_spill_file(database: Database) {
    let config = json!({ "journal": { "max_pending": PENDING_MAX, "flush_interval": "10ms" } });
    Trial::run_hard(database, &AOF, &config, |trial| {
        trial.drains = true;
        let mut spilled = 0;
        trial.outage(
            "database gone",
            |it| it.database.kill9(),
            |it| {
                // The cache has them as well, so they are there for want of memory alone.
                poll(PROGRAM_DEADLINE, "batches are spilled", || {
                    spilled = it.spilled();
                    spilled > 0
                });
                it.database.restart();
            },
        );
        eprintln!("{spilled} batches in the spill file");
    });
}
