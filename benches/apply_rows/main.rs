//! How many rows storage applies a second: the changes that clients of a private tracker make, in the
//! batches of a journal, given to the driver one transaction after the other. With `--floor` the same rows by
//! the database's own bulk way. `docs/bench.md` explains the figures.
//!
//! It creates the tables if need be; they must have no users and torrents:
//!
//! ```text
//! cargo run --release --example apply_rows -- [--floor] DRIVER URL [PEERS [TORRENTS [USERS]]]
//! ```

#![allow(clippy::print_stdout)] // a program's `main` speaks to its caller

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mika::base::clock::Stopwatch;
use mika::base::ids::{TorrentId, UserId};
use mika::base::secret::Secret;
use mika::change::{Batch, Change};
use mika::storage::{CreditRules, NewTorrent, NewUser, Storage, StorageConfig, StorageDrivers};

use rustix::time::{ClockId, clock_gettime};

use crate::floor::Floor;
use crate::population::{Load, Population, info_hash, passkey};

mod floor;
#[path = "../population.rs"]
mod population;

const USAGE: &str = "usage: apply_rows [--floor] DRIVER URL [PEERS [TORRENTS [USERS]]]";

/// What the journal applies in one transaction at most, in changes.
const APPLY_MAX: usize = 10_000;

/// Users and torrents that are added at once.
const ADDED_AT_ONCE: u64 = 1000;

/// The first round joins, those that follow update.
const ROUNDS: u32 = 4;

/// What applies the journal.
enum Target {
    Storage(Arc<dyn Storage>),
    Floor(Floor),
}

/// A target, and the journal that is applied to it.
struct Applier {
    target: Target,
    number: u64,
    waiting: Vec<Arc<Batch>>,
    changes: usize,
    /// Rows that were applied, and what it took.
    rows: usize,
    spent: Spent,
}

/// Time that passed, and that this process' threads used.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    processor: Duration,
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    let is_floor = words.next_if_eq("--floor").is_some();
    let (Some(driver), Some(url)) = (words.next(), words.next()) else {
        bail!(USAGE);
    };
    let mut sizes = words.map(|size| size.parse::<u64>());
    let mut size = |default| sizes.next().unwrap_or(Ok(default)).context(USAGE);
    let load = Load {
        peers: size(100_000)?.max(1),
        torrents: size(20_000)?.max(8),
        users: size(5_000)?.max(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let drivers = StorageDrivers::built_in();
    let open = drivers.get(&driver).context("no such driver")?;
    let storage = {
        let _runtime = runtime.enter();
        open(&StorageConfig::of(
            &Secret::new(url.clone()),
            "mika",
            &BTreeMap::new(),
        ))?
    };
    runtime.block_on(register(&*storage, load))?;
    println!("{{\"registered\": {}}}", load.users + load.torrents);
    let mut population = Population::new(load);
    let mut applier = Applier::new(if is_floor {
        Target::Floor(runtime.block_on(Floor::open(&driver, &url))?)
    } else {
        Target::Storage(storage)
    });
    for round in 0..ROUNDS {
        population.announce_all(round, |changes| runtime.block_on(applier.take(changes)))?;
        runtime.block_on(applier.apply())?;
        let rows = std::mem::take(&mut applier.rows);
        let Spent { wall, processor } = std::mem::take(&mut applier.spent);
        let (seconds, cpu) = (wall.as_secs_f64(), processor.as_secs_f64());
        println!(
            "{{\"round\": {round}, \"rows\": {rows}, \"seconds\": {seconds}, \"cpu_seconds\": {cpu}}}"
        );
    }
    Ok(())
}

/// Makes the tables, with the users and torrents of the load.
async fn register(storage: &dyn Storage, load: Load) -> anyhow::Result<()> {
    storage.migrate().await?;
    for first in (0..load.users).step_by(ADDED_AT_ONCE as usize) {
        let numbers = first..load.users.min(first + ADDED_AT_ONCE);
        let user = |number: u64| NewUser {
            id: Some(UserId(number as u32 + 1)),
            username: format!("user{number}"),
            passkey: passkey(number).parse().expect("32 digits"),
            can_leech: true,
        };
        let users: Vec<_> = numbers.map(user).collect();
        let added = storage.add_users(&users).await?;
        let is_added = |it: &_| matches!(it, Ok(Some(_)));
        ensure!(added.iter().all(is_added), "the database is not empty");
    }
    for first in (0..load.torrents).step_by(ADDED_AT_ONCE as usize) {
        let numbers = first..load.torrents.min(first + ADDED_AT_ONCE);
        let torrent = |number: u64| NewTorrent {
            id: Some(TorrentId(number as u32 + 1)),
            info_hash: info_hash(number),
            info_hash_v2: None,
            name: format!("release.{number}"),
        };
        let torrents: Vec<_> = numbers.map(torrent).collect();
        let added = storage.add_torrents(&torrents).await?;
        let is_added = |it: &_| matches!(it, Ok(Some(_)));
        ensure!(added.iter().all(is_added), "the database is not empty");
    }
    Ok(())
}

/// What all threads of this process have used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

// === impl Applier ===

impl Applier {
    fn new(target: Target) -> Self {
        Self {
            target,
            number: 0,
            waiting: Vec::new(),
            changes: 0,
            rows: 0,
            spent: Spent::default(),
        }
    }

    /// The next batch; applied as soon as a transaction is full.
    async fn take(&mut self, changes: Vec<Change>) -> anyhow::Result<()> {
        self.number += 1;
        self.changes += changes.len();
        self.waiting
            .push(Arc::new(Batch::new("bench".into(), self.number, changes)));
        if self.changes >= APPLY_MAX {
            self.apply().await?;
        }
        Ok(())
    }

    async fn apply(&mut self) -> anyhow::Result<()> {
        let batches = std::mem::take(&mut self.waiting);
        let tables = match &mut self.target {
            Target::Storage(_) => Vec::new(),
            Target::Floor(floor) => floor.prepare(&batches),
        };
        let (begun, used) = (Stopwatch::start(), processor_time());
        match &mut self.target {
            Target::Storage(storage) => {
                storage.apply(&batches, &CreditRules::default()).await?;
            }
            Target::Floor(floor) => floor.write(tables).await?,
        }
        self.spent.wall += Duration::from_nanos(begun.elapsed());
        self.spent.processor += processor_time().saturating_sub(used);
        self.rows += std::mem::take(&mut self.changes);
        Ok(())
    }
}
