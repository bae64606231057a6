//! The main use case: users, torrents and clients that a web application has in MariaDB or PostgreSQL,
//! `mika-manage migrate`, `warmup` and `genkey`, and then real clients whose credit arrives there.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ALL_KINDS, Client, PAYLOAD_LEN, Setting, Stage, Totals, Transport, passkey};
use crate::harness::batter;
use crate::harness::database::{Database, SiteDatabase};
use crate::harness::net::Family;
use crate::harness::poll;
use crate::harness::redis::Redis;

/// How long the last batch may be on its way to the database.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);

/// A web application's database, and the Redis beside it. Both are reached by their sockets,
/// which every network namespace sees.
pub struct Site {
    database: SiteDatabase,
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

#[test]
fn credit_arrives_beside_the_tables_of_a_batter_site() {
    exchange("batter");
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
    poll(APPLY_DEADLINE, "the database has the last batch", || {
        let sql = "SELECT count(*) FROM peers WHERE inactive_since IS NULL";
        site.number(sql) == 0
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
        let database = SiteDatabase::start(match schema {
            "batter" => Database::Postgres,
            _ => Database::MariaDb,
        });
        match schema {
            "batter" => {
                database.sql(batter::TABLES);
                database.sql(batter::LARGE_TORRENTS);
            }
            // With exactly these columns, as that site has them.
            "mika-2015" => {
                for table in [
                    "users (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                         passkey CHAR(32) NOT NULL, username VARCHAR(64) NOT NULL)",
                    "torrents (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                         info_hash BINARY(20) NOT NULL, release_name VARCHAR(255) NOT NULL)",
                    "xbt_client_whitelist (peer_id VARCHAR(20) NOT NULL, vstring VARCHAR(200) NOT NULL)",
                ] {
                    database.sql(&format!("CREATE TABLE {table} ENGINE = InnoDB"));
                }
            }
            _ => {}
        }
        Self {
            database,
            redis: Redis::start(),
            schema,
        }
    }

    pub fn cache(&self) -> Value {
        json!({ "driver": "redis", "url": self.redis.socket_url() })
    }

    pub fn storage(&self) -> Value {
        let (driver, url) = match &self.database {
            SiteDatabase::Postgres(server) => ("postgres", server.url_by_socket("site")),
            database => {
                let socket = database.mariadb().socket();
                let url = format!("mysql://root@localhost/site?socket={}", socket.display());
                ("mysql", url)
            }
        };
        json!({ "driver": driver, "url": url, "schema": self.schema })
    }

    /// Rows by plain SQL, as the web application writes them, and what ops do before the start.
    pub fn register(&self, stage: &Stage, users: usize) {
        let migrated = stage.tracker.managed(&["migrate"]);
        assert!(migrated.contains("0001_init"), "{migrated}");
        for user in 0..users {
            let (name, passkey) = (format!("user-{user}"), passkey(user));
            self.database.sql(&match self.schema {
                "batter" => batter::sign_up(&name, &passkey),
                _ => {
                    format!("INSERT INTO users (passkey, username) VALUES ('{passkey}', '{name}')")
                }
            });
        }
        let hash = stage.hashes["v1"].as_str().expect("a v1 hash");
        let file = fs::read(stage.torrent(0)).expect("a .torrent file");
        self.database.sql(&match self.schema {
            // It does not get the hash.
            "batter" => batter::upload(&file),
            _ => format!(
                "INSERT INTO torrents (info_hash, release_name) VALUES (X'{hash}', 'payload')"
            ),
        });
        let whitelist = match self.schema {
            "batter" => "mika_whitelist",
            "mika-2015" => "xbt_client_whitelist",
            _ => "whitelist",
        };
        self.database.sql(&format!(
            "INSERT INTO {whitelist} (peer_id, vstring)
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
            "mika" => sql.replace("torrent_totals", "torrents"),
            _ => sql
                .replace(" peers", " mika_peers")
                .replace("torrent_totals", "mika_torrents"),
        };
        let [number] = self.database.row(&sql);
        number
    }

    /// What the database holds for the user.
    fn credit(&self, user: usize) -> Totals {
        let totals = match self.schema {
            "batter" => "mika_users AS totals JOIN auth_user USING (id)",
            "mika-2015" => "mika_users AS totals JOIN users USING (id)",
            _ => "users AS totals",
        };
        let [uploaded, downloaded] = self.database.row(&format!(
            "SELECT totals.uploaded, totals.downloaded FROM {totals} WHERE username = 'user-{user}'"
        ));
        Totals {
            uploaded,
            downloaded,
        }
    }
}
