//! Nodes whose hosts have wrong clocks.

use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::{Value, json};

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, now, poll};

const GB: u64 = 1_000_000_000;
const HOUR: i64 = 3600;
const TWO_DAYS: i64 = 2 * 24 * HOUR;

/// How long a change may take to the other node, the cache and storage.
const SHARED: Duration = Duration::from_secs(20);

/// Clocks are compared every five seconds, and the cache is looked through for old peers every two.
const SWEPT: Duration = Duration::from_secs(12);

impl Site {
    fn peers_in_cache(&self, client: &Client) -> String {
        let key = format!("t:p:{}", InfoHash(client.info_hash));
        self.redis.cli(&["HLEN", &key])
    }

    fn active_in_storage(&self) -> i64 {
        let [active] = self.database.row("SELECT COUNT(*) FROM peers WHERE active");
        active
    }

    fn is_credited(&self, bytes: u64) {
        let sql = format!(
            "SELECT uploaded FROM users WHERE passkey = '{}'",
            passkey(0)
        );
        let mut found = 0;
        let credited = crate::harness::site::settles(SHARED, || {
            [found] = self.database.row(&sql);
            found.cast_unsigned() == bytes
        });
        assert!(credited, "credited {found} of {bytes}");
    }
}

/// Lets time pass, in which `condition` must hold.
fn holds(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    poll(time * 2, what, || {
        assert!(
            condition(),
            "after {:?}: not so any more: {what}",
            start.elapsed()
        );
        start.elapsed() > time
    });
}

/// The nodes `a`, whose clock is right, and `b`, whose is that far ahead; with a client at `a`.
fn pair(database: Database, ahead: i64) -> (Pair, Client) {
    let tracker =
        json!({ "announce_interval": "1m", "min_announce_interval": "30s", "peer_ttl": "2m" });
    let config = |node: &str| json!({ "node": node, "tracker": tracker });
    let mut site = Site::prepare_on(database, 2, &AOF, &config("a"));
    let mut b = site.another(&config("b"));
    b.shift_clock(ahead);
    site.mika.run();
    let client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    poll(SHARED, "storage has the client", || {
        site.active_in_storage() == 1
    });
    b.run();
    (Pair { site, b }, client)
}

/// The client continues at `a`, which is restarted.
fn goes_on(pair: &mut Pair, mut client: Client, ahead: i64) {
    assert_eq!(pair.b.stop(), 0);
    pair.b.shift_clock(ahead);
    pair.b.run();
    let site = &pair.site;
    holds(Duration::from_secs(3), "the client is there", || {
        site.peers_in_cache(&client) == "1" && site.active_in_storage() == 1
    });
    assert_eq!(pair.site.mika.stop(), 0);
    pair.site.mika.run();
    client.uploaded = 2 * GB;
    client.accepted(pair.site.mika.http(), "");
    // Both nodes hand it out.
    for node in pair.nodes() {
        let leecher = Client {
            left: 1,
            ..Client::new(1, 1)
        };
        poll(SHARED, "it is handed out", || {
            client.is_in(&leecher.accepted(node, "started"))
        });
    }
    pair.site.is_credited(2 * GB);
}

crate::on_each_database![
    a_node_ahead_by_two_days_removes_no_records,
    a_leaping_clock_removes_no_records,
    a_clock_set_back_before_a_start_loses_nothing,
    a_clock_set_back_loses_nothing_without_a_cache,
];

fn a_node_ahead_by_two_days_removes_no_records(database: Database) {
    let (mut pair, client) = pair(database, TWO_DAYS);
    let site = &pair.site;
    holds(SWEPT, "the client is there", || {
        site.peers_in_cache(&client) == "1" && site.active_in_storage() == 1
    });
    goes_on(&mut pair, client, TWO_DAYS);
    let log = pair.b.log();
    assert!(log.contains("the clock of this host is 172"), "{log}");
    let log = pair.site.mika.log();
    assert!(log.contains("the clock of node b is 172"), "{log}");
    let check = pair.b.manage(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        check.contains("ahead of this host's") || check.contains("behind this host's"),
        "{check}"
    );
    assert!(check.contains("node a"), "{check}");
}

fn a_leaping_clock_removes_no_records(database: Database) {
    let (mut pair, client) = pair(database, 0);
    let mark = Client::new(1, 2);
    mark.accepted(pair.b.http(), "started");
    poll(SHARED, "storage has it", || {
        pair.site.active_in_storage() == 2
    });
    pair.b.shift_clock(TWO_DAYS);
    let site = &pair.site;
    holds(SWEPT, "the client is there", || {
        site.peers_in_cache(&client) == "1" && site.active_in_storage() == 2
    });
    mark.accepted(pair.b.http(), "stopped");
    poll(SHARED, "storage has its end", || {
        site.active_in_storage() == 1
    });
    let time = site.database.unix_time();
    let sql = format!("SELECT MAX(last_announce) - {time} FROM peers");
    let [ahead] = site.database.row(&sql);
    assert!(ahead.abs() < 60, "{ahead} seconds ahead");
    let log = pair.b.log();
    assert!(log.contains("the clock of this host is 172"), "{log}");
    pair.b.shift_clock(0);
    poll(SHARED, "the clock is right again", || {
        pair.b.log().contains("all clocks agree again")
    });
    goes_on(&mut pair, client, -TWO_DAYS);
}

fn a_clock_set_back_before_a_start_loses_nothing(database: Database) {
    set_back(database, &json!({}));
}

/// With only the database's clock, the newest record decides which of the two is right.
fn a_clock_set_back_loses_nothing_without_a_cache(database: Database) {
    set_back(
        database,
        &json!({ "cache": { "driver": "memory", "url": "" } }),
    );
}

fn set_back(database: Database, config: &Value) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "a" }));
    site.mika.reconfigure(config);
    site.mika.shift_clock(0);
    site.mika.run();
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    client.uploaded = 10;
    client.accepted(site.mika.http(), "");
    // It has begun again: there is an earlier session that reports could seem to be of.
    client.uploaded = 0;
    client.accepted(site.mika.http(), "started");
    client.uploaded = 100;
    client.accepted(site.mika.http(), "");
    assert_eq!(site.mika.stop(), 0);
    site.mika.shift_clock(-HOUR);
    site.mika.run();
    // As much as a line carries since.
    let start = now();
    poll(SHARED, "some seconds pass", || {
        start.elapsed() > Duration::from_secs(9)
    });
    client.uploaded = 20 * GB;
    client.accepted(site.mika.http(), "");
    client.uploaded += 1;
    client.accepted(site.mika.http(), "stopped");
    site.is_credited(10 + 20 * GB + 1);
    let log = site.mika.log();
    assert!(log.contains("seconds behind most others"), "{log}");
    assert_eq!(site.mika.stop(), 0);
}

/// Without another clock, a node continues from its newest record.
#[test]
fn a_lone_node_with_a_clock_set_back_credits_everything() {
    let mut mika = Mika::prepare(&json!({ "mode": "private", "tracker": { "whitelist": false } }));
    let mut client = Client::new(0, 1);
    let hash = InfoHash(client.info_hash).to_string();
    mika.managed(&["users", "add", "alice", "--passkey", &client.passkey]);
    mika.managed(&["torrents", "add", &hash, "--name", "film"]);
    mika.shift_clock(0);
    mika.run();
    client.accepted(mika.http(), "started");
    assert_eq!(mika.stop(), 0);
    mika.shift_clock(-HOUR);
    mika.run();
    // How long that took is unknown.
    client.uploaded = 20 * GB;
    client.accepted(mika.http(), "");
    let total = "SELECT uploaded FROM users";
    let has = |mika: &Mika, bytes: u64| {
        poll(SHARED, "the credit is there", || {
            mika.row::<1>(total) == [bytes.cast_signed()]
        });
    };
    has(&mika, 20 * GB);
    // It begins again, and from then on a line has its limit.
    client.uploaded = 0;
    client.accepted(mika.http(), "started");
    client.uploaded = GB;
    client.accepted(mika.http(), "");
    has(&mika, 21 * GB);
    client.uploaded += 500 * GB;
    client.accepted(mika.http(), "stopped");
    let implausible =
        "SELECT announces = 5 AND NOT EXISTS (SELECT 1 FROM peers WHERE active) FROM users";
    poll(SHARED, "storage has the last one", || {
        mika.row::<1>(implausible) == [1]
    });
    assert_eq!(mika.row::<1>(total), [(21 * GB).cast_signed()]);
    let log = mika.log();
    assert!(
        log.contains("behind the newest record: going on from that"),
        "{log}"
    );
    // Records of the day before last stay, and so do those of a clock that leaps ahead.
    assert_eq!(mika.stop(), 0);
    mika.shift_clock(TWO_DAYS);
    mika.run();
    holds(Duration::from_secs(3), "its record is there", || {
        mika.row::<1>("SELECT COUNT(*) FROM peers") == [1]
    });
}
