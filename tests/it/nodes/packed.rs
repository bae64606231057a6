//! Public peers go from node to node in packed form, and as lines while a node of an earlier version runs.

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::poll;

/// How long nodes may take to notice another one, and to hand out its peers, on a machine that is busy.
const NOTICED: Duration = Duration::from_secs(20);

/// What a node of the version before this one says of itself.
const EARLIER: &str = "host boot pid:[1] 4711 12 1800000000 version=0.1.0 up=1 last=0 sent=0";

#[test]
fn public_peers_are_packed_unless_a_node_of_an_earlier_version_runs() {
    let config = json!({ "mode": "public" });
    let pair = Pair::start_with(Database::MariaDb, 2, &config);
    let [a, b] = pair.nodes();
    let redis = &pair.site.redis;
    let leecher = Client {
        left: 1,
        ..Client::new(0, 1)
    };
    // The one that comes is handed out by the other node, whatever the form.
    let comes_packed = || {
        let seeder = Client::new(1, 1);
        seeder.accepted(a, "started");
        poll(NOTICED, "the other node hands it out", || {
            seeder.is_in(&leecher.accepted(b, ""))
        });
        seeder.accepted(a, "stopped");
        let key = redis.cli(&["KEYS", "t:journal:a#*"]);
        let entries = redis.cli(&["XREVRANGE", key.trim(), "+", "-", "COUNT", "1"]);
        let (packed, line) = (entries.contains("guests"), entries.contains("guest1 "));
        assert_ne!(packed, line, "{entries}");
        packed
    };
    poll(NOTICED, "peers are packed", comes_packed);
    redis.cli(&["HSET", "t:nodes", "c#1.0a", EARLIER]);
    poll(NOTICED, "peers are lines", || !comes_packed());
    redis.cli(&["HDEL", "t:nodes", "c#1.0a"]);
    poll(NOTICED, "peers are packed again", comes_packed);
}
