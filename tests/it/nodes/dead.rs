//! Journals of dead nodes, some of which can't be applied: they block neither the others
//! (C10) nor a start, and gaps in them cost no time and no memory (C15).

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, now, poll};

const MB: u64 = 1_000_000;

/// After fifteen seconds a silent node counts as dead, looked at every five.
const REPLAYED: Duration = Duration::from_secs(40);

/// How often those that can't be applied are tried meanwhile, at least.
const TRIED_AGAIN: Duration = Duration::from_secs(12);

/// How long a start may take, with whatever gap.
const STARTED: Duration = Duration::from_secs(8);

/// Memory that a start may take, in KiB.
const MEMORY_MAX: u64 = 200 << 10;

/// A gap of that many numbers.
const GAP: u64 = 10_000_000;

/// An unreadable entry, one of a later version, and an empty one after a gap.
const FORGED: [(&str, u64, &str); 3] = [
    ("damaged#1.00000001", 1, "peer2 1 1 what"),
    ("newer#1.00000001", 1, "peer99 1 2 3"),
    ("gap#1.00000001", GAP, ""),
];

/// Leaves a journal in the cache, as if its node had died.
fn forge(site: &Site, journal: &str, number: u64, changes: &str) {
    site.redis
        .cli(&["HSET", "t:nodes", journal, "elsewhere x x 1 1"]);
    let key = format!("t:journal:{journal}");
    let id = format!("{number}-0");
    let added = site
        .redis
        .cli(&["XADD", &key, &id, "count", "1", "changes", changes]);
    assert_eq!(added, id);
}

fn uploaded(site: &Site) -> u64 {
    let passkey = passkey(0);
    let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
    let [uploaded] = site.database.row(&sql);
    uploaded.cast_unsigned()
}

/// The most memory that a process took, in KiB.
fn peak(mika: &Mika) -> u64 {
    let path = format!("/proc/{}/status", mika.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|it| it.parse().ok()).expect("a number")
}

crate::on_each_database![
    a_journal_that_cannot_be_applied_does_not_block_others,
    a_gap_in_the_cache_is_skipped_at_once,
    a_gap_in_the_spill_file_is_skipped_at_once,
];

/// Two versions side by side: the operator learns of it without debug lines, and not every second.
#[test]
fn a_journal_that_cannot_be_followed_is_named_once_a_minute() {
    let mut site = Site::prepare_on(Database::MariaDb, 1, &AOF, &json!({ "node": "z" }));
    site.mika.run();
    for (journal, number, changes) in &FORGED[..2] {
        forge(&site, journal, *number, changes);
    }
    let warnings = || {
        let log = site.mika.log();
        let lines = log.lines().filter(|line| line.contains("WARN"));
        lines
            .filter(|line| line.contains("the journal of another node can't be followed"))
            .count()
    };
    poll(TRIED_AGAIN, "one is named", || warnings() > 0);
    poll(REPLAYED, "both count as dead", || {
        let dead = "the leftover of a node that is gone can't be applied";
        site.mika.log().matches(dead).count() == 2
    });
    // They were tried every second meanwhile.
    assert_eq!(warnings(), 1, "{}", site.mika.log());
}

fn a_journal_that_cannot_be_applied_does_not_block_others(database: Database) {
    let mut site = Site::prepare_on(database, 2, &AOF, &json!({ "node": "z" }));
    let mut looks = site.another(&json!({ "node": "looks" }));
    site.mika.run();
    let node = site.mika.http();
    let mut client = Client::new(0, 1);
    client.accepted(node, "started");
    poll(REPLAYED, "storage has the start", || {
        site.database.row::<1>("SELECT COUNT(*) FROM peers") == [1]
    });
    site.database.pause();
    client.uploaded = 600 * MB;
    client.accepted(node, "completed");
    site.mika.kill9();
    site.database.resume();
    for (journal, number, changes) in FORGED {
        forge(&site, journal, number, changes);
    }
    looks.run();
    assert!(knows_user(looks.http(), &passkey(0)), "it starts");
    poll(REPLAYED, "the rest of the dead node is credited", || {
        uploaded(&site) == 600 * MB
    });
    let start = now();
    poll(REPLAYED, "they are tried again", || {
        start.elapsed() > TRIED_AGAIN
    });
    let log = looks.log();
    for journal in ["damaged#1.00000001", "newer#1.00000001"] {
        let is_named = |line: &&str| line.contains(" ERROR ") && line.contains(journal);
        assert_eq!(log.lines().filter(is_named).count(), 1, "{journal}: {log}");
        let key = format!("t:journal:{journal}");
        assert_eq!(site.redis.cli(&["XLEN", &key]), "1", "it is kept");
    }
    assert_eq!(looks.stop(), 0);
}

/// Starts the daemon, and holds it to time and memory.
fn starts_at_once(mika: &mut Mika) {
    let start = now();
    mika.run();
    assert!(knows_user(mika.http(), &passkey(0)));
    let (took, peak) = (start.elapsed(), peak(mika));
    eprintln!("started within {took:?}, with {peak} KiB at most");
    assert!(took < STARTED, "{took:?}");
    assert!(peak < MEMORY_MAX, "{peak} KiB");
}

fn a_gap_in_the_cache_is_skipped_at_once(database: Database) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "gap" }));
    // Of an earlier start of this node, and of another one.
    forge(&site, "gap#1.00000001", GAP, "");
    forge(&site, "other#1.00000001", GAP, "");
    starts_at_once(&mut site.mika);
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    client.uploaded = 7 * MB;
    client.accepted(site.mika.http(), "stopped");
    poll(REPLAYED, "it is credited", || uploaded(&site) == 7 * MB);
    let applied =
        "SELECT COUNT(*) FROM mika_journal WHERE node LIKE '%#1.00000001' AND applied = 10000000";
    poll(REPLAYED, "both are applied", || {
        site.database.row::<1>(applied) == [2]
    });
    assert!(peak(&site.mika) < MEMORY_MAX);
}

fn a_gap_in_the_spill_file_is_skipped_at_once(database: Database) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "gap" }));
    site.mika.run();
    Client::new(0, 1).accepted(site.mika.http(), "started");
    assert_eq!(site.mika.stop(), 0);
    let file = Connection::open(site.mika.path("mika.spill")).unwrap();
    let batch = "INSERT INTO batches (number, changes, text) VALUES (?1, 0, '')";
    file.execute(batch, [GAP as i64]).unwrap();
    drop(file);
    starts_at_once(&mut site.mika);
    assert_eq!(site.spilled(), 0);
}
