//! The main use case: users, torrents and clients that a web application has in MariaDB,
//! `mika-manage migrate`, `warmup` and `genkey`, and then real clients whose credit arrives there.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ALL_KINDS, Client, PAYLOAD_LEN, Setting, Stage, Totals, Transport, passkey};
use crate::harness::mariadb::MariaDb;
use crate::harness::net::Family;
use crate::harness::poll;
use crate::harness::redis::Redis;

/// How long the last batch may be on its way to MariaDB.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);

/// A web application's database, and the Redis beside it. Both are reached by their sockets,
/// which every network namespace sees.
pub struct Site {
    mariadb: MariaDb,
    redis: Redis,
    schema: &'static str,
}

#[test]
fn credit_arrives_in_mariadb_through_redis() {
    exchange("mika");
}

#[test]
fn credit_arrives_in_the_schema_of_an_existing_site() {
    exchange("mika-2015");
}

fn exchange(schema: &'static str) {
    let site = Site::start(schema);
    let families = [Family::V4];
    let mut stage = Stage::new(&Setting {
        private: true,
        hybrid: false,
        families: &families,
        transport: Transport::Http,
        users: ALL_KINDS.len(),
        site: Some(&site),
    });
    let mut clients = stage.exchange(&ALL_KINDS, &families);
    // Leechers first, so that the seeder's last announce reports all that it gave.
    clients.rotate_left(1);
    let mut totals: Vec<Totals> = clients.into_iter().map(Client::stop).collect();
    totals.rotate_right(1);
    poll(APPLY_DEADLINE, "MariaDB has the last batch", || {
        site.number("SELECT count(*) FROM peers WHERE active = 1") == 0
    });
    let credited: Vec<Totals> = (0..ALL_KINDS.len()).map(|user| site.credit(user)).collect();
    assert_eq!(
        credited, totals,
        "credit (left) of {ALL_KINDS:?} and what they report"
    );
    let leechers = ALL_KINDS.len() as i64 - 1;
    let downloaded: i64 = totals.iter().map(|totals| totals.downloaded).sum();
    assert!(downloaded >= leechers * PAYLOAD_LEN as i64);
    assert_eq!(site.number("SELECT snatches FROM torrent_totals"), leechers);
    assert_eq!(site.number("SELECT count(*) FROM peers"), leechers + 1);
    assert_eq!(stage.tracker.stop(), 0);
    let after: Vec<Totals> = (0..ALL_KINDS.len()).map(|user| site.credit(user)).collect();
    assert_eq!(after, totals, "after the tracker's stop");
}

// === impl Site ===

impl Site {
    fn start(schema: &'static str) -> Self {
        let mariadb = MariaDb::start();
        mariadb.database("site");
        if schema == "mika-2015" {
            // With exactly these columns, as that site has them.
            for table in [
                "users (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                     passkey CHAR(32) NOT NULL, username VARCHAR(64) NOT NULL)",
                "torrents (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                     info_hash BINARY(20) NOT NULL, release_name VARCHAR(255) NOT NULL)",
                "xbt_client_whitelist (peer_id VARCHAR(20) NOT NULL, vstring VARCHAR(200) NOT NULL)",
            ] {
                mariadb.sql(&format!("CREATE TABLE site.{table} ENGINE = InnoDB"));
            }
        }
        Self {
            mariadb,
            redis: Redis::start(),
            schema,
        }
    }

    pub fn cache(&self) -> Value {
        json!({ "driver": "redis", "url": self.redis.socket_url() })
    }

    pub fn storage(&self) -> Value {
        let socket = self.mariadb.socket();
        let url = format!("mysql://root@localhost/site?socket={}", socket.display());
        json!({ "driver": "mysql", "url": url, "schema": self.schema })
    }

    /// Rows by plain SQL, as the web application writes them, and what ops do before the start.
    pub fn register(&self, stage: &Stage, users: usize) {
        let migrated = stage.tracker.managed(&["migrate"]);
        assert!(migrated.contains("0001_init"), "{migrated}");
        for user in 0..users {
            let passkey = passkey(user);
            self.mariadb.sql(&format!(
                "INSERT INTO site.users (passkey, username) VALUES ('{passkey}', 'user-{user}')"
            ));
        }
        let hash = stage.hashes["v1"].as_str().expect("a v1 hash");
        self.mariadb.sql(&format!(
            "INSERT INTO site.torrents (info_hash, release_name) VALUES (X'{hash}', 'payload')"
        ));
        let whitelist = match self.schema {
            "mika-2015" => "xbt_client_whitelist",
            _ => "whitelist",
        };
        self.mariadb.sql(&format!(
            "INSERT INTO site.{whitelist} (peer_id, vstring)
             VALUES ('-LT20', 'libtorrent'), ('A2-', 'aria2'), ('-TR', 'Transmission')"
        ));
        assert_eq!(
            stage.tracker.managed(&["warmup"]),
            format!(
                "> Warming up redis data...\n\
                 > Loading whitelist...   3\n\
                 > Loading passkeys...    {users}\n\
                 > Loading torrents...    1\n"
            )
        );
        let keys = stage.tracker.managed(&["genkey"]);
        assert!(keys.starts_with("> Generating new keys..."), "{keys}");
    }

    /// One number of the tables that `sql` names as the schema `mika` does.
    fn number(&self, sql: &str) -> i64 {
        let sql = match self.schema {
            "mika-2015" => sql
                .replace(" peers", " site.mika_peers")
                .replace("torrent_totals", "site.mika_torrents"),
            _ => sql
                .replace(" peers", " site.peers")
                .replace("torrent_totals", "site.torrents"),
        };
        let [number] = self.mariadb.row(&sql);
        number
    }

    /// What the database holds for the user.
    fn credit(&self, user: usize) -> Totals {
        let totals = match self.schema {
            "mika-2015" => "site.mika_users AS totals JOIN site.users USING (id)",
            _ => "site.users AS totals",
        };
        let [uploaded, downloaded] = self.mariadb.row(&format!(
            "SELECT totals.uploaded, totals.downloaded FROM {totals} WHERE username = 'user-{user}'"
        ));
        Totals {
            uploaded,
            downloaded,
        }
    }
}
