//! A folder whose config names servers that processes share.

use serde_json::json;

use super::Folder;
use super::harness::redis::Redis;

/// A private tracker with a Redis of its own.
pub struct Shared {
    pub folder: Folder,
    pub redis: Redis,
}

// === impl Shared ===

impl Shared {
    /// With an embedded database, whose tables are there.
    pub fn new() -> Self {
        let redis = Redis::start();
        let folder = Folder::with_config(&json!({
            "mode": "private",
            "cache": {"driver": "redis", "url": redis.url()},
        }));
        folder.ok(&["migrate"]);
        Self { folder, redis }
    }

    /// Users, torrents and clients, as a web application adds them.
    pub fn fill(&self, users: u32, torrents: u32, clients: u32) {
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
    let hash: String = format!("{id:020}")
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t:t:{hash}")
}
