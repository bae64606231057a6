//! A database that comes back older than it was, as after a failover to a replica, or of a server that
//! lost its last second (C3): what it lacks is applied again, while the node runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::pair::Client;
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::Site;

const MB: u64 = 1_000_000;

/// How long credit may take to storage, also while it comes back.
const CREDITED: Duration = Duration::from_secs(40);

crate::on_each_database![
    a_database_that_went_back_gets_what_it_lost,
    a_database_that_went_back_gets_what_it_lost_from_memory,
    a_database_that_lost_its_last_second_gets_it_again,
    a_database_that_lost_more_than_is_kept_can_be_continued,
    a_database_that_lost_more_than_memory_keeps_can_be_continued,
];

fn memory() -> Value {
    json!({ "cache": { "driver": "memory", "url": "" } })
}

fn prepare(database: Database, config: &Value, keep: &str) -> Site {
    let journal = json!({ "node": "a", "journal": { "keep": keep } });
    let mut site = Site::prepare_on(database, 3, &AOF, &journal);
    site.mika.reconfigure(config);
    site.mika.run();
    site
}

/// Bytes and snatches of a user in storage.
fn credited(site: &Site, user: usize) -> (u64, u64) {
    let passkey = passkey(user);
    let sql = format!("SELECT uploaded, snatches FROM users WHERE passkey = '{passkey}'");
    let [uploaded, snatches] = site.database.row(&sql);
    (uploaded.cast_unsigned(), snatches.cast_unsigned())
}

fn is_credited(site: &Site, what: &str, expected: [(u64, u64); 3]) {
    let mut found = Vec::new();
    let is_right = crate::harness::site::settles(CREDITED, || {
        found = (0..3).map(|user| credited(site, user)).collect();
        found == expected
    });
    assert!(is_right, "{what}: {found:?} and not {expected:?}");
}

/// Announces what the copy has, and then what it lacks.
fn announce(site: &mut Site) -> (tempfile::TempDir, [Client; 3]) {
    let node = site.mika.http();
    let mut goes_on = Client::new(0, 1);
    goes_on.accepted(node, "started");
    goes_on.uploaded = 100 * MB;
    goes_on.accepted(node, "");
    let mut completes = Client {
        left: 10,
        ..Client::new(1, 2)
    };
    completes.accepted(node, "started");
    is_credited(site, "at first", [(100 * MB, 0), (0, 0), (0, 0)]);
    let backup = site.database.back_up();

    // Batch by batch.
    for uploaded in [200, 300, 400] {
        goes_on.uploaded = uploaded * MB;
        goes_on.accepted(node, "");
        let all = [(goes_on.uploaded, 0), (0, 0), (0, 0)];
        is_credited(site, "batch by batch", all);
    }
    completes.left = 0;
    completes.accepted(node, "completed");
    let mut comes = Client::new(2, 1);
    comes.accepted(node, "started");
    comes.uploaded = 209 * MB;
    comes.accepted(node, "stopped");
    let all = [(400 * MB, 0), (0, 1), (209 * MB, 0)];
    is_credited(site, "before it goes back", all);
    (backup, [goes_on, completes, comes])
}

fn takes_what_it_lost(database: Database, config: &Value) {
    let mut site = prepare(database, config, "120s");
    let (backup, [mut goes_on, ..]) = announce(&mut site);
    site.database.go_back_to(&backup);
    let all = [(400 * MB, 0), (0, 1), (209 * MB, 0)];
    is_credited(&site, "without another announce", all);
    goes_on.uploaded = 419 * MB;
    goes_on.accepted(site.mika.http(), "stopped");
    let all = [(419 * MB, 0), (0, 1), (209 * MB, 0)];
    is_credited(&site, "after another announce", all);
    let log = site.mika.log();
    assert_eq!(log.matches("storage went back").count(), 1, "{log}");
    assert_eq!(site.mika.stop(), 0);
    site.mika.run();
    Client::new(0, 3).accepted(site.mika.http(), "started");
    is_credited(&site, "after a restart", all);
}

fn a_database_that_went_back_gets_what_it_lost(database: Database) {
    takes_what_it_lost(database, &json!({}));
}

fn a_database_that_went_back_gets_what_it_lost_from_memory(database: Database) {
    takes_what_it_lost(database, &memory());
}

fn a_database_that_lost_its_last_second_gets_it_again(database: Database) {
    let mut site = prepare(database, &json!({}), "60s");
    site.database
        .confirms_too_early()
        .expect("the server answers");
    let node = site.mika.http();
    let mut client = Client::new(0, 1);
    client.accepted(node, "started");
    for round in 1..=3 {
        client.uploaded += 100 * MB;
        client.accepted(node, "");
        is_credited(&site, "before", [(client.uploaded, 0), (0, 0), (0, 0)]);
        // What was committed within the last second is in the memory of the server alone.
        site.database.kill9();
        site.database.restart();
        poll(CREDITED, "the server answers", || {
            site.database.confirms_too_early().is_ok()
        });
        client.uploaded += MB;
        client.accepted(node, "");
        let all = [(round * 101 * MB, 0), (0, 0), (0, 0)];
        is_credited(&site, "after a crash", all);
    }
    let lost = site.mika.log().matches("storage went back").count();
    eprintln!("{lost} of 3 crashes lost something");
}

fn goes_on_without_what_was_not_kept(database: Database, config: &Value) {
    let mut site = prepare(database, config, "10s");
    let (backup, [mut goes_on, ..]) = announce(&mut site);
    let node = site.mika.http();
    let is_forgotten = "no batch is kept any more";
    // It is let go ten seconds after storage has it, and looked at every second.
    let start = crate::harness::now();
    poll(CREDITED, is_forgotten, || {
        start.elapsed() > Duration::from_secs(13)
    });
    site.database.go_back_to(&backup);
    goes_on.uploaded = 419 * MB;
    goes_on.accepted(node, "");
    // Of a client that it has a row of, with its next report; of others from now on.
    let uploaded = || credited(&site, 0).0;
    poll(CREDITED, "the next report is credited", || {
        uploaded() == 419 * MB
    });
    let mut comes = Client::new(2, 3);
    comes.accepted(node, "started");
    comes.uploaded = 7 * MB;
    comes.accepted(node, "stopped");
    is_credited(
        &site,
        "the node goes on",
        [(419 * MB, 0), (0, 0), (7 * MB, 0)],
    );
    let log = site.mika.log();
    let says = "batches that are not kept any more (journal.keep)";
    assert_eq!(log.matches(says).count(), 1, "{log}");
    assert_eq!(site.mika.stop(), 0);
}

fn a_database_that_lost_more_than_is_kept_can_be_continued(database: Database) {
    goes_on_without_what_was_not_kept(database, &json!({}));
}

fn a_database_that_lost_more_than_memory_keeps_can_be_continued(database: Database) {
    goes_on_without_what_was_not_kept(database, &memory());
}
