//! A database that was restored from a backup, and `mika-manage restored` (C11).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::pair::{Client, knows_user};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::{Site, settles};

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(20);

const MB: u64 = 1_000_000;

/// A client that goes on after the restore, and one that leaves before it. The database has the start of
/// both in its backup, and the rest since.
struct Trial {
    site: Site,
    stays: Client,
    leaves: Client,
    backup: Vec<u8>,
}

// === impl Trial ===

impl Trial {
    fn begin(database: Database) -> Self {
        let mut site = Site::prepare_on(database, 2, &AOF, &json!({ "node": "a" }));
        site.mika.run();
        let (stays, leaves) = (Client::new(0, 1), Client::new(1, 1));
        for client in [&stays, &leaves] {
            client.accepted(site.mika.http(), "started");
        }
        poll(CREDITED, "storage has the start", || {
            site.database.row::<1>("SELECT COUNT(*) FROM peers") == [2]
        });
        let backup = site.database.dump();
        Self {
            site,
            stays,
            leaves,
            backup,
        }
    }

    /// A restored database, and reports that only the spill file has.
    fn begin_spilled(database: Database) -> Self {
        let mut trial = Self::begin(database);
        trial.site.database.pause();
        trial.report();
        assert_eq!(trial.site.mika.stop(), 0);
        trial.site.database.resume();
        trial.site.redis.cli(&["FLUSHALL"]);
        trial.restore();
        trial
    }

    /// 800 MB each.
    fn report(&mut self) {
        let node = self.site.mika.http();
        (self.stays.uploaded, self.leaves.uploaded) = (800 * MB, 800 * MB);
        self.stays.accepted(node, "");
        self.leaves.accepted(node, "stopped");
    }

    /// The same, which storage has before the node stops.
    fn report_and_stop(&mut self) {
        self.report();
        poll(CREDITED, "all is credited", || {
            self.uploaded() == [800 * MB, 800 * MB]
        });
        assert_eq!(self.site.mika.stop(), 0);
    }

    fn restore(&self) {
        self.site.database.restore(&self.backup);
        assert_eq!(self.uploaded(), [0, 0]);
    }

    fn uploaded(&self) -> [u64; 2] {
        let of = |user| {
            let passkey = passkey(user);
            let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
            self.site.database.row::<1>(&sql)[0].cast_unsigned()
        };
        [of(0), of(1)]
    }

    /// What the command shows, which changes nothing.
    fn shown(&self) -> Vec<Value> {
        let before = self.site.redis.cli(&["KEYS", "*"]);
        let rows = self.site.mika.managed(&["--json", "restored"]);
        assert_eq!(self.site.redis.cli(&["KEYS", "*"]), before);
        assert_eq!(self.uploaded(), [0, 0]);
        serde_json::from_str(&rows).expect("JSON")
    }

    /// Runs the command, and the node after it: 900 MB are credited to the client that stays.
    fn goes_on(mut self, arguments: &[&str], left: u64) {
        self.site.mika.managed(arguments);
        assert_eq!(self.uploaded()[1], left);
        // Again, as after an interruption.
        self.site.mika.managed(arguments);
        self.site.mika.run();
        assert!(knows_user(self.site.mika.http(), &passkey(0)));
        self.stays.uploaded = 900 * MB;
        self.stays.accepted(self.site.mika.http(), "");
        self.stays.accepted(self.site.mika.http(), "stopped");
        poll(CREDITED, "the rest is credited", || {
            self.uploaded()[0] >= 900 * MB
        });
        assert_eq!(self.uploaded(), [900 * MB, left]);
        self.site.is_reconciled();
        let total = |user: u32| {
            let key = format!("t:u:{user}");
            let total = self.site.redis.cli(&["HGET", &key, "uploaded"]);
            // One that is missing is 0.
            total.parse().unwrap_or(0)
        };
        let mut shown = [0; 2];
        let is_same = settles(CREDITED, || {
            shown = [total(1), total(2)];
            shown == [900 * MB, left]
        });
        assert!(is_same, "the cache shows {shown:?}");
    }
}

crate::on_each_database![
    what_the_cache_has_beyond_a_restored_database_is_applied,
    what_the_cache_has_beyond_a_restored_database_is_dropped,
    a_restored_database_works_with_a_cache_that_has_nothing_beyond_it,
    what_the_spill_file_has_beyond_a_restored_database_is_applied,
    a_restore_waits_until_all_nodes_have_stopped,
    the_spill_file_of_another_database_is_not_touched,
];

fn what_the_cache_has_beyond_a_restored_database_is_applied(database: Database) {
    let mut trial = Trial::begin(database);
    trial.report_and_stop();
    trial.restore();
    let rows = trial.shown();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["place"], "cache");
    assert_eq!(row["users"], 2);
    assert_eq!(row["uploaded"], 1600 * MB);
    assert!(row["oldest"].as_i64().expect("a time") > 1_700_000_000);
    let table = trial.site.mika.managed(&["restored"]);
    assert!(
        table.starts_with("JOURNAL") && table.contains("1.49 GiB"),
        "{table}"
    );
    trial.goes_on(&["restored", "--apply"], 800 * MB);
}

fn what_the_cache_has_beyond_a_restored_database_is_dropped(database: Database) {
    let mut trial = Trial::begin(database);
    trial.report_and_stop();
    trial.restore();
    trial.goes_on(&["restored", "--drop"], 0);
}

fn a_restored_database_works_with_a_cache_that_has_nothing_beyond_it(database: Database) {
    let mut trial = Trial::begin(database);
    trial.report_and_stop();
    trial.restore();
    // As a minute after its last batch.
    for journal in trial.site.redis.cli(&["KEYS", "t:journal:*"]).lines() {
        trial.site.redis.cli(&["XTRIM", journal, "MAXLEN", "0"]);
    }
    assert_eq!(trial.shown(), [Value::Null; 0]);
    trial.goes_on(&["restored", "--apply"], 0);
}

fn what_the_spill_file_has_beyond_a_restored_database_is_applied(database: Database) {
    let trial = Trial::begin_spilled(database);
    let rows = trial.shown();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let place = rows[0]["place"].as_str().expect("a file");
    assert!(Path::new(place).ends_with("mika.spill"), "{place}");
    assert_eq!(rows[0]["uploaded"], 1600 * MB);
    trial.goes_on(&["restored", "--apply"], 800 * MB);
}

fn a_restore_waits_until_all_nodes_have_stopped(database: Database) {
    let mut trial = Trial::begin(database);
    trial.report();
    for arguments in [
        &["restored"][..],
        &["restored", "--apply"],
        &["restored", "--drop"],
        &["restored", "--new-identity"],
    ] {
        let output = trial.site.mika.manage(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("node a runs on"), "{said}");
    }
    poll(CREDITED, "nothing was lost", || {
        trial.uploaded() == [800 * MB, 800 * MB]
    });
}

fn the_spill_file_of_another_database_is_not_touched(database: Database) {
    let trial = Trial::begin_spilled(database);
    trial
        .site
        .database
        .sql("UPDATE mika_identity SET id = 'theother'");
    let rows = trial.shown();
    assert_eq!(
        rows[0]["foreign"].as_str().map(str::len),
        Some(32),
        "{rows:?}"
    );
    for action in ["--apply", "--drop"] {
        trial.site.mika.managed(&["restored", action]);
        assert_eq!(trial.uploaded(), [0, 0]);
        assert!(trial.site.spilled() > 0);
    }
}
