//! The API of a node that shares Redis and MariaDB with another.

use std::time::Duration;

use serde_json::json;

use super::{HASH, announce, failure};
use crate::harness::Mika;
use crate::harness::api::{Api, with_api};
use crate::harness::mariadb::MariaDb;
use crate::harness::poll;
use crate::harness::redis::Redis;

const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes, and their servers.
struct Nodes {
    a: Mika,
    b: Mika,
    redis: Redis,
    mariadb: MariaDb,
}

impl Nodes {
    fn start() -> Self {
        let (redis, mariadb) = (Redis::start(), MariaDb::start());
        mariadb.database("site");
        let config = |node: &str| {
            json!({
                "mode": "private",
                "node": node,
                "cache": { "driver": "redis", "url": redis.url() },
                "storage": { "driver": "mysql", "url": mariadb.url("site") },
            })
        };
        let (mut a, mut b) = (with_api(&config("a")), with_api(&config("b")));
        a.managed(&["migrate"]);
        a.run();
        b.run();
        Self {
            a,
            b,
            redis,
            mariadb,
        }
    }
}

fn fill(api: &Api) {
    let torrent = json!({ "torrent_id": 5, "info_hash": HASH, "name": "five" });
    assert_eq!(api.post("/api/torrent", &torrent).status, 201);
    let client = json!({ "prefix": "-TR", "client": "Transmission" });
    assert_eq!(api.post("/api/whitelist", &client).status, 201);
    let user = json!({ "user_id": 7, "passkey": "passkey-seven", "name": "seven" });
    let answer = api.post("/api/user", &user);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "message": "ok" }))
    );
}

#[test]
fn an_edit_at_one_node_works_at_once_there_and_soon_at_the_other() {
    let Nodes { a, b, redis, .. } = &Nodes::start();
    let api = Api::of(a);
    assert_eq!(api.json("/readyz")["cache"]["driver"], "redis");
    fill(&api);
    let leech = "uploaded=0&downloaded=0&left=5&event=started";
    assert_eq!(failure(&announce(a, "passkey-seven", leech)), "");
    poll(
        Duration::from_secs(5),
        "the other node knows the user",
        || failure(&announce(b, "passkey-seven", leech)).is_empty(),
    );

    let totals = json!({ "uploaded": 4096, "downloaded": 0, "can_leech": false });
    assert_eq!(api.post("/api/user/7", &totals).status, 200);
    assert_eq!(
        failure(&announce(a, "passkey-seven", "left=5")),
        "download not allowed"
    );
    assert_eq!(redis.cli(&["HGET", "t:u:7", "uploaded"]).trim(), "4096");
    assert_eq!(Api::of(b).json("/api/user/7")["uploaded"], 4096);
    poll(
        Duration::from_secs(10),
        "the peer is known to storage",
        || api.json("/api/user/7/torrents")["active"] == json!(["5"]),
    );

    // Many at once, which nodes follow too.
    let users: Vec<_> = (100..1100)
        .map(|id| json!({ "user_id": id, "passkey": format!("passkey-{id}"), "name": "x" }))
        .collect();
    assert_eq!(api.post("/api/users", &json!(users)).json()["added"], 1000);
    assert_eq!(failure(&announce(a, "passkey-1099", "left=0")), "");
}

#[test]
fn without_storage_edits_fail_and_announces_are_answered() {
    let mut nodes = Nodes::start();
    let Nodes { a, mariadb, .. } = &mut nodes;
    let api = Api::of(a);
    fill(&api);
    let leech = "uploaded=0&downloaded=0&left=5&event=started";
    assert_eq!(failure(&announce(a, "passkey-seven", leech)), "");
    // Without storage nothing can be edited, and clients are answered.
    mariadb.pause();
    let answer = api.post("/api/user/7", &json!({ "can_leech": true }));
    assert!(answer.is_error(503), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(failure(&announce(a, "passkey-seven", "left=5")), "");
    poll(
        Duration::from_secs(20),
        "the node says that it is not ready",
        || api.get("/readyz").status == 503,
    );
    mariadb.resume();
    poll(Duration::from_secs(30), "edits are taken again", || {
        api.post("/api/user/7", &json!({ "can_leech": true }))
            .status
            == 200
    });
    // Connections that the API made are still used when the rest is saved.
    announce(
        a,
        "passkey-seven",
        "uploaded=0&downloaded=0&left=5&event=stopped",
    );
    assert_eq!(a.stop(), 0);
    let active = "SELECT COUNT(*) FROM site.peers WHERE active = 1 AND user_id = 7";
    assert_eq!(mariadb.row::<1>(active), [0]);
}

#[test]
fn a_changed_torrent_id_reaches_every_node() {
    let nodes = Nodes::start();
    let (a, b) = (Api::of(&nodes.a), Api::of(&nodes.b));
    fill(&a);
    let report = |mika: &Mika, rest: &str| {
        let reply = announce(mika, "passkey-seven", rest);
        assert_eq!(failure(&reply), "", "{rest}");
    };
    poll(PATIENCE, "the other node knows all of it", || {
        failure(&announce(&nodes.b, "passkey-seven", "left=9")).is_empty()
    });
    let target = format!("/api/torrent/{HASH}");
    // Of what a client reports to two nodes within a second, their records have the last one.
    poll(PATIENCE, "the first node knows the client", || {
        a.json(&target)["peers"][0]["user_id"] == 7
    });
    report(&nodes.a, "uploaded=0&downloaded=0&left=9&event=started");
    report(&nodes.a, "uploaded=100&downloaded=0&left=9");
    let again = json!({ "torrent_id": 6, "info_hash": HASH, "name": "six" });
    assert_eq!(a.post("/api/torrent", &again).status, 201);
    report(&nodes.a, "uploaded=300&downloaded=0&left=9");
    poll(PATIENCE, "the other node goes by the new id", || {
        let found = b.json(&target);
        (&found["torrent_id"], &found["peers"][0]["uploaded"]) == (&json!(6), &json!(300))
    });
    report(&nodes.b, "uploaded=700&downloaded=0&left=9");
    poll(PATIENCE, "the credit is in the database", || {
        a.json("/api/user/7")["uploaded"] == 700
    });
    let key = format!("t:t:{HASH}");
    assert_eq!(nodes.redis.cli(&["HGET", &key, "torrent_id"]), "6");
    poll(PATIENCE, "all of it is under the new id", || {
        let sql = "SELECT GROUP_CONCAT(DISTINCT torrent_id), SUM(uploaded) FROM site.history";
        nodes.mariadb.sql(sql).split_whitespace().eq(["6", "700"])
    });
}
