//! A folder whose config names servers that processes share.

use mika::base::ids::InfoHash;
use serde_json::json;

use super::Folder;
use crate::harness::mariadb::MariaDb;
use crate::harness::redis::Redis;

/// A private tracker with a Redis of its own.
pub struct Shared {
    pub folder: Folder,
    pub redis: Redis,
    /// None with an embedded database.
    pub mariadb: Option<MariaDb>,
}

const DATABASE: &str = "site";

// === impl Shared ===

impl Shared {
    /// With an embedded database, whose tables are there.
    pub fn new() -> Self {
        Self::prepare(None)
    }

    /// With a MariaDB of its own, whose tables are there.
    pub fn on_mariadb() -> Self {
        let mariadb = MariaDb::start();
        mariadb.database(DATABASE);
        Self::prepare(Some(mariadb))
    }

    fn prepare(mariadb: Option<MariaDb>) -> Self {
        let redis = Redis::start();
        let mut config = json!({
            "mode": "private",
            "cache": {"driver": "redis", "url": redis.url()},
        });
        if let Some(mariadb) = &mariadb {
            config["storage"] = json!({"driver": "mysql", "url": mariadb.url(DATABASE)});
        }
        let folder = Folder::with_config(&config);
        folder.ok(&["migrate"]);
        Self {
            folder,
            redis,
            mariadb,
        }
    }

    /// Statements of the web application.
    pub fn sql(&self, statements: &str) {
        match &self.mariadb {
            Some(mariadb) => drop(mariadb.sql(&format!("USE {DATABASE}; {statements}"))),
            None => self.folder.sql(statements),
        }
    }

    /// Users, torrents and clients, as a web application adds them.
    pub fn fill(&self, users: u32, torrents: u32, clients: u32) {
        if self.mariadb.is_some() {
            self.sql(&format!(
                "INSERT INTO users(id, passkey, username)
                 SELECT seq, CONCAT('passkey-', seq), CONCAT('user ', seq) FROM seq_1_to_{users};
                 INSERT INTO torrents(id, info_hash, release_name)
                 SELECT seq, LPAD(seq, 20, '0'), CONCAT('torrent ', seq) FROM seq_1_to_{torrents};
                 INSERT INTO whitelist(peer_id, vstring)
                 SELECT CONCAT('-C', seq, '-'), CONCAT('client ', seq) FROM seq_1_to_{clients};"
            ));
            return;
        }
        self.folder.sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users})
             INSERT INTO users(id, passkey, username)
             SELECT i, printf('passkey-%d', i), 'user ' || i FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {torrents})
             INSERT INTO torrents(id, info_hash, release_name)
             SELECT i, CAST(printf('%020d', i) AS BLOB), 'torrent ' || i FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {clients})
             INSERT INTO whitelist(peer_id, vstring)
             SELECT printf('-C%d-', i), 'client ' || i FROM n;"
        ));
    }

    /// What is in Redis, in a form that can be compared.
    pub fn snapshot(&self) -> String {
        let script = "local keys = redis.call('KEYS', '*') table.sort(keys) local all = {} \
            for _, key in ipairs(keys) do local value \
                if redis.call('TYPE', key).ok == 'hash' then value = redis.call('HGETALL', key) \
                    local pairs = {} \
                    for i = 1, #value, 2 do pairs[#pairs + 1] = value[i] .. '=' .. value[i + 1] end \
                    table.sort(pairs) value = table.concat(pairs, ' ') \
                else value = redis.sha1hex(redis.call('DUMP', key)) end \
                all[#all + 1] = key .. ': ' .. value end return all";
        self.redis.cli(&["EVAL", script, "0"])
    }

    /// One field of a hash.
    pub fn field(&self, key: &str, name: &str) -> String {
        self.redis.cli(&["HGET", key, name])
    }
}

/// The key of the torrent with that id, as [`Shared::fill`] makes it.
pub fn torrent_key(id: u32) -> String {
    let digits = format!("{id:020}");
    let hash = InfoHash::from_slice(digits.as_bytes()).unwrap();
    format!("t:t:{hash}")
}
