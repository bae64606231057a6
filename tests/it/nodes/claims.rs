//! Two daemons without a cache on one database: the second one refuses (C2).

use std::time::Duration;

use serde_json::{Value, json};

use super::pair::{Client, knows_user};
use crate::harness::database::{ACCOUNT, Database, SiteDatabase};
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, poll};

/// How long a daemon may take to refuse its start.
const REFUSED: Duration = Duration::from_secs(20);

/// How long a daemon may take to notice that its claim was lost, and to take it again.
const NOTICED: Duration = Duration::from_secs(30);

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(20);

fn alone() -> Value {
    json!({ "node": "a", "cache": { "driver": "memory", "url": "" } })
}

/// A site whose daemon shares nothing.
fn prepare(database: Database) -> Site {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({}));
    site.mika.reconfigure(&alone());
    site
}

/// The name of the lock that claims the database, as SQL.
fn lock(database: &SiteDatabase) -> String {
    let id = database.sql("SELECT id FROM mika_identity");
    if database.is_mariadb() {
        return format!("'mika.{id}'");
    }
    let half = |from| {
        format!("('x' || substr(encode(sha256('mika.{id}'), 'hex'), {from}, 8))::bit(32)::int")
    };
    format!("{}, {}", half(1), half(9))
}

/// The connection that claims the database; none if there is none.
fn claimed_by(database: &SiteDatabase) -> Option<u32> {
    let lock = lock(database);
    let sql = if database.is_mariadb() {
        format!("SELECT IS_USED_LOCK({lock})")
    } else {
        format!(
            "SELECT pid FROM pg_locks WHERE (classid::bigint::bit(32)::int, objid::bigint::bit(32)::int) = ({lock}) AND granted"
        )
    };
    database.sql(&sql).parse().ok()
}

fn uploaded(site: &Site) -> i64 {
    site.database.row::<1>("SELECT SUM(uploaded) FROM users")[0]
}

/// Starts a daemon, and waits until it serves.
fn run(mika: &mut Mika) {
    mika.run();
    assert!(knows_user(mika.http(), &passkey(0)));
}

/// The second daemon names the connection of the first.
fn is_refused(second: &mut Mika, holder: u32) {
    second.launch();
    assert_eq!(second.wait(REFUSED), 1);
    let log = second.log();
    let line = log
        .lines()
        .find(|line| line.contains("in use by another mika ("));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [format!(" {holder}"), format!(", {ACCOUNT} from 127.0.0.1")] {
        assert!(line.contains(&part), "{part}: {line}");
    }
}

crate::on_each_database![
    a_second_daemon_without_a_cache_is_refused,
    the_claim_is_taken_again_after_the_server_was_restarted,
    a_daemon_that_lost_its_claim_saves_and_stops,
];

fn a_second_daemon_without_a_cache_is_refused(database: Database) {
    let mut site = prepare(database);
    let mut second = site.another(&alone());
    run(&mut site.mika);
    let holder = claimed_by(&site.database).expect("the first one claims it");
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    is_refused(&mut second, holder);
    client.uploaded = 200 << 20;
    client.accepted(site.mika.http(), "");
    client.accepted(site.mika.http(), "stopped");
    poll(CREDITED, "all is credited", || uploaded(&site) >= 200 << 20);

    // It is freed by whatever end.
    site.mika.kill9();
    run(&mut second);
    // Within the same second, the order would be unknown.
    poll(CREDITED, "a second is over", || {
        let time = site.database.unix_time();
        let is_over = format!("SELECT COUNT(*) FROM peers WHERE last_announce >= {time}");
        site.database.row::<1>(&is_over) == [0]
    });
    client.uploaded = 0;
    client.accepted(second.http(), "started");
    client.uploaded = 100 << 20;
    client.accepted(second.http(), "stopped");
    assert_eq!(second.stop(), 0);
    run(&mut site.mika);
    assert_eq!(uploaded(&site), 300 << 20);
}

fn the_claim_is_taken_again_after_the_server_was_restarted(database: Database) {
    let mut site = prepare(database);
    let mut second = site.another(&alone());
    run(&mut site.mika);
    site.database.kill9();
    site.database.restart();
    poll(NOTICED, "it is claimed again", || {
        claimed_by(&site.database).is_some()
    });
    let holder = claimed_by(&site.database).expect("it stays claimed");
    is_refused(&mut second, holder);
    assert!(site.mika.log().contains("the database is claimed again"));
    assert!(knows_user(site.mika.http(), &passkey(0)));
}

fn a_daemon_that_lost_its_claim_saves_and_stops(database: Database) {
    let mut site = prepare(database);
    run(&mut site.mika);
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    client.uploaded = 7 << 20;
    client.accepted(site.mika.http(), "");
    let holder = claimed_by(&site.database).expect("it claims it");
    // Another waits for it, and has it when the connection ends.
    let lock = lock(&site.database);
    let (wait, waiting, end) = if site.database.is_mariadb() {
        (
            format!("SELECT GET_LOCK({lock}, 60);"),
            "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'",
            format!("KILL {holder}"),
        )
    } else {
        (
            format!("SELECT pg_advisory_lock({lock});"),
            "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
            format!("SELECT pg_terminate_backend({holder})"),
        )
    };
    let mut other = site.database.session();
    other.begin(&wait);
    poll(NOTICED, "another waits", || {
        site.database.row::<1>(waiting) == [1]
    });
    site.database.sql(&end);
    let code = site.mika.wait(NOTICED);
    assert_eq!(code, 1);
    let log = site.mika.log();
    assert!(log.contains("in use by another mika ("), "{log}");
    assert!(log.contains("stopped, storage has everything"), "{log}");
    assert_eq!(uploaded(&site), 7 << 20);
}
