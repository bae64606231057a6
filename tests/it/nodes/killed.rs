//! A node that is killed again and again: no process lives long enough to see that the journals of earlier
//! starts are not needed any more. Each start learns that from notes in Redis, so what it reads, and what Redis keeps, does
//! not grow with the number of starts.

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::Site;

const MB: u64 = 1_000_000;

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(30);

/// Starts, and announces in the life of each.
const STARTS: usize = 16;
const ANNOUNCES: usize = 6;

/// Seconds; `journal.keep` by default.
const KEEP: i64 = 60;

/// Seconds after which a start forgets a journal of an earlier one.
const FORGOTTEN_AFTER: i64 = 600;

/// The most scripts that a start may call: one for the last number of each journal, and two for each batch of the last
/// one, if these are in the spill file, too. To replay all journals again would take two more for each of them.
const SCRIPTS_MAX: u64 = STARTS as u64 + 2 * ANNOUNCES as u64 + 2;

/// The most commands that a start may take for each journal of an earlier start.
const COMMANDS_MAX: u64 = 8;

/// A node that is killed, and the clients that announce to it.
struct Killed {
    site: Site,
    clients: Vec<Client>,
}

// === impl Killed ===

impl Killed {
    fn new() -> Self {
        Self {
            site: Site::prepare(ANNOUNCES, &AOF, &json!({ "node": "killed" })),
            clients: (0..ANNOUNCES).map(|user| Client::new(user, 1)).collect(),
        }
    }

    /// A whole life of the node: returns how many commands Redis got until it served, and ends when storage
    /// has what clients announced.
    fn lives(&mut self) -> Commands {
        self.site.redis.cli(&["CONFIG", "RESETSTAT"]);
        self.site.mika.run();
        assert!(knows_user(self.site.mika.http(), &passkey(0)));
        let commands = Commands::of(&self.site);
        for client in &mut self.clients {
            if client.uploaded == 0 {
                client.accepted(self.site.mika.http(), "started");
            }
            client.uploaded += MB;
            // The reply waits until it is durable, so each of these has a batch of its own.
            client.accepted(self.site.mika.http(), "completed");
        }
        self.is_credited();
        self.site.mika.kill9();
        commands
    }

    fn is_credited(&self) {
        let expected: u64 = self.clients.iter().map(|client| client.uploaded).sum();
        poll(CREDITED, "storage has all credit", || {
            self.uploaded() >= expected
        });
        assert_eq!(self.uploaded(), expected);
    }

    fn uploaded(&self) -> u64 {
        let sql = "SELECT CAST(SUM(uploaded) AS SIGNED) FROM users";
        let [uploaded] = self.site.database.row(sql);
        uploaded.cast_unsigned()
    }

    /// The journals on the list, those with a stream, and those that storage knows.
    fn journals(&self) -> [usize; 3] {
        let listed = self.site.redis.cli(&["HLEN", "t:nodes"]);
        let streams = self.site.redis.cli(&["KEYS", "t:journal:*"]);
        let [stored] = self.site.database.row("SELECT COUNT(*) FROM mika_journal");
        let stored = usize::try_from(stored).expect("a count");
        [
            listed.parse().expect("a count"),
            streams.lines().count(),
            stored,
        ]
    }

    /// Batches in all streams.
    fn batches(&self) -> u64 {
        let streams = self.site.redis.cli(&["KEYS", "t:journal:*"]);
        let len = |stream| self.site.redis.cli(&["XLEN", stream]);
        let lens = streams.lines().map(len);
        lens.map(|len| len.parse::<u64>().expect("a number")).sum()
    }

    /// Lets what was noted be so many seconds older.
    fn age_notes(&self, seconds: i64) {
        let notes = self.site.redis.cli(&["HGETALL", "t:replayed"]);
        let notes: Vec<&str> = notes.lines().collect();
        for note in notes.chunks(2) {
            let (number, at) = note[1].split_once(' ').expect("a number and a time");
            let at: i64 = at.parse().expect("a time");
            let aged = format!("{number} {}", at - seconds);
            self.site.redis.cli(&["HSET", "t:replayed", note[0], &aged]);
        }
    }
}

/// What Redis was asked for.
#[derive(Clone, Copy, Debug)]
struct Commands {
    /// Scripts, which write peers or find the last number of a journal.
    scripts: u64,
    all: u64,
}

// === impl Commands ===

impl Commands {
    fn of(site: &Site) -> Self {
        let stats = site.redis.cli(&["INFO", "commandstats"]);
        let calls = |line: &str| -> Option<(String, u64)> {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        let calls: Vec<(String, u64)> = stats.lines().filter_map(calls).collect();
        let sum = |is_meant: &dyn Fn(&str) -> bool| {
            let meant = calls.iter().filter(|(name, _)| is_meant(name));
            meant.map(|(_, calls)| calls).sum()
        };
        Self {
            scripts: sum(&|name| name == "evalsha"),
            all: sum(&|_| true),
        }
    }
}

#[test]
fn a_start_reads_only_what_the_last_one_left() {
    let mut killed = Killed::new();
    let starts: Vec<Commands> = (0..STARTS).map(|_| killed.lives()).collect();
    eprintln!("{starts:?}");
    // The second start is the first with a journal to replay.
    let (second, last) = (starts[1], starts[STARTS - 1]);
    assert!(
        second.scripts > starts[0].scripts + 1,
        "it writes the peers of the first one's batches"
    );
    assert!(last.scripts <= SCRIPTS_MAX, "{last:?}");
    let more = (STARTS - 2) as u64 * COMMANDS_MAX;
    assert!(last.all <= second.all * 2 + more, "{last:?}");
}

#[test]
fn a_start_forgets_the_journals_that_nothing_needs_any_more() {
    let mut killed = Killed::new();
    for _ in 0..4 {
        killed.lives();
    }
    assert_eq!(killed.journals(), [4; 3]);
    let kept = killed.batches();
    assert!(
        kept >= 4 * ANNOUNCES as u64,
        "{kept}: all are kept for a while"
    );
    // Three journals are noted; the fourth start's is not, because no start has replayed it yet.
    killed.age_notes(KEEP);
    killed.lives();
    assert_eq!(killed.journals(), [5; 3]);
    let kept = killed.batches();
    assert!(
        kept < 4 * ANNOUNCES as u64,
        "{kept}: those of three starts are dropped"
    );
    killed.age_notes(FORGOTTEN_AFTER);
    killed.lives();
    assert_eq!(
        killed.journals(),
        [2; 3],
        "those of the last start and of the one before it"
    );
    let notes = killed.site.redis.cli(&["HLEN", "t:replayed"]);
    assert_eq!(notes, "1", "that of the one before it");
}

/// A start that ended before anybody announced leaves nothing that the next one needs.
#[test]
fn starts_without_an_announce_leave_nothing() {
    let mut killed = Killed::new();
    for _ in 0..4 {
        killed.site.mika.run();
        assert!(knows_user(killed.site.mika.http(), &passkey(0)));
        killed.site.mika.kill9();
    }
    let [listed, streams, stored] = killed.journals();
    assert_eq!(
        (listed, streams, stored),
        (1, 0, 1),
        "that of the last start"
    );
}

/// What a database lost that came back older is applied again, also of starts that were replayed before.
#[test]
fn a_start_applies_again_what_storage_lost() {
    let mut killed = Killed::new();
    for _ in 0..3 {
        killed.lives();
    }
    // Two journals are noted, for so long that they would be dropped.
    killed.age_notes(KEEP);
    for statement in [
        "DELETE FROM mika_journal",
        "DELETE FROM peers",
        "DELETE FROM history",
        "UPDATE users SET uploaded = 0",
    ] {
        killed.site.database.sql(statement);
    }
    killed.lives();
    let log = killed.site.mika.log();
    // The last one's batches may be in the spill file, too, from which they are applied first.
    for applied in [
        "applied what an earlier start left in the cache journal=\"killed#1.",
        "applied what an earlier start left in the cache journal=\"killed#2.",
    ] {
        assert!(log.contains(applied), "{log}");
    }
    let kept = killed.batches();
    assert!(
        kept >= 3 * ANNOUNCES as u64,
        "{kept}: they are kept for as long again"
    );
}

/// Storage keeps the numbers of journals that an emptied Redis has forgotten; they must not make it seem to be
/// behind storage for the starts to come.
#[test]
fn only_the_first_start_after_redis_was_emptied_loads_from_storage() {
    let mut killed = Killed::new();
    killed.lives();
    killed.lives();
    killed.site.redis.cli(&["FLUSHALL"]);
    for source in ["storage", "the cache", "the cache"] {
        let before = killed.site.mika.log().len();
        killed.site.mika.run();
        assert!(knows_user(killed.site.mika.http(), &passkey(0)));
        poll(CREDITED, "Redis is complete", || {
            let marks = killed.site.redis.cli(&["HKEYS", "t:registry"]);
            marks.contains("position") && marks.contains("peers")
        });
        let log = killed.site.mika.log();
        let is_from_cache = log[before..].contains("swarms loaded from the cache");
        assert_eq!(is_from_cache, source == "the cache", "{log}");
        killed.site.mika.kill9();
    }
}
