//! Two daemons without a cache on one MariaDB: the second one refuses (C2).

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::pair::{Client, knows_user};
use crate::harness::database::ACCOUNT;
use crate::harness::load::passkey;
use crate::harness::mariadb::MariaDb;
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
fn prepare() -> Site {
    let mut site = Site::prepare(1, &AOF, &json!({}));
    site.mika.reconfigure(&alone());
    site
}

/// The connection that claims the database; none if there is none.
fn claimed_by(mariadb: &MariaDb) -> Option<u32> {
    let id = mariadb.sql("SELECT id FROM site.mika_identity");
    let holder = mariadb.sql(&format!("SELECT IS_USED_LOCK('mika.{id}')"));
    holder.parse().ok()
}

fn uploaded(site: &Site) -> i64 {
    site.database.row::<1>("SELECT SUM(uploaded) FROM users")[0]
}

/// Starts a daemon, and waits until it serves.
fn run(mika: &mut Mika) {
    mika.run();
    assert!(knows_user(mika.http(), &passkey(0)));
}

fn is_refused(second: &mut Mika, holder: u32) {
    second.launch();
    assert_eq!(second.wait(REFUSED), 1);
    let log = second.log();
    let said = format!("in use by another mika (connection {holder}, {ACCOUNT} from 127.0.0.1:");
    assert!(log.contains(&said), "{said}: {log}");
}

#[test]
fn a_second_daemon_without_a_cache_is_refused() {
    let mut site = prepare();
    let mut second = site.another(&alone());
    run(&mut site.mika);
    let holder = claimed_by(site.mariadb()).expect("the first one claims it");
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
        let is_over = "SELECT UNIX_TIMESTAMP() > MAX(last_announce) FROM peers";
        site.database.row::<1>(is_over) == [1]
    });
    client.uploaded = 0;
    client.accepted(second.http(), "started");
    client.uploaded = 100 << 20;
    client.accepted(second.http(), "stopped");
    assert_eq!(second.stop(), 0);
    run(&mut site.mika);
    assert_eq!(uploaded(&site), 300 << 20);
}

#[test]
fn the_claim_is_taken_again_after_the_server_was_restarted() {
    let mut site = prepare();
    let mut second = site.another(&alone());
    run(&mut site.mika);
    site.database.kill9();
    site.database.restart();
    poll(NOTICED, "it is claimed again", || {
        claimed_by(site.mariadb()).is_some()
    });
    let holder = claimed_by(site.mariadb()).expect("it stays claimed");
    is_refused(&mut second, holder);
    assert!(site.mika.log().contains("the database is claimed again"));
    assert!(knows_user(site.mika.http(), &passkey(0)));
}

#[test]
fn a_daemon_that_lost_its_claim_saves_and_stops() {
    let mut site = prepare();
    run(&mut site.mika);
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    client.uploaded = 7 << 20;
    client.accepted(site.mika.http(), "");
    let holder = claimed_by(site.mariadb()).expect("it claims it");
    // Another waits for it, and has it when the connection ends.
    let id = site.database.sql("SELECT id FROM mika_identity");
    let mut other = site.mariadb().client();
    let wait = format!("SELECT GET_LOCK('mika.{id}', 60), SLEEP(600)");
    other.args(["--execute", &wait]).stdout(Stdio::null());
    let mut other = other.spawn().expect("mariadb starts");
    poll(NOTICED, "another waits", || {
        let waiting =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        site.database.row::<1>(waiting) == [1]
    });
    site.database.sql(&format!("KILL {holder}"));
    let code = site.mika.wait(NOTICED);
    other.kill().expect("a child can be killed");
    other.wait().expect("a child can be waited for");
    assert_eq!(code, 1);
    let log = site.mika.log();
    assert!(log.contains("in use by another mika (connection"), "{log}");
    assert!(log.contains("stopped, storage has everything"), "{log}");
    assert_eq!(uploaded(&site), 7 << 20);
}
