//! Two nodes on a Redis Cluster, of which a master is lost together with its last writes.

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::cluster::Cluster;
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::has_no_difference;

const MB: u64 = 1_000_000;

/// How long a peer may take to the other node.
const SEEN: Duration = Duration::from_secs(5);

/// How long until nodes have found the new master, and written again what it lacks.
const RESTORED: Duration = Duration::from_secs(30);

/// How long until another node takes a dead one's rest: 15 seconds without a sign, and a look every five.
const TAKEN_OVER: Duration = Duration::from_secs(60);

fn hands_out(pair: &Pair, seeder: &Client, limit: Duration) {
    let leecher = Client {
        left: 1,
        ..Client::new(0, 1)
    };
    let [_, b] = pair.nodes();
    poll(limit, "the other node hands it out", || {
        seeder.is_in(&leecher.accepted(b, ""))
    });
}

#[test]
fn what_a_promoted_replica_lacks_is_written_again() {
    let mut cluster = Cluster::start_with(&AOF);
    let config = json!({ "cache": { "url": cluster.url() } });
    let mut pair = Pair::start_with(Database::MariaDb, 3, &config);
    let [a, _] = pair.nodes();
    let first = Client::new(1, 1);
    first.accepted(a, "started");
    hands_out(&pair, &first, SEEN);
    let mut client = Client::new(2, 1);
    client.accepted(a, "started");
    poll(RESTORED, "storage has all of it", || {
        pair.site
            .database
            .row::<1>("SELECT COUNT(*) FROM peers WHERE left_bytes = 0")
            == [2]
    });

    let journals = cluster.keys("t:journal:a#*");
    let [journal] = &journals[..] else {
        panic!("node a has one journal: {journals:?}");
    };
    let last = |cluster: &Cluster| {
        let entry = cluster.cli(journal, &["XREVRANGE", journal, "+", "-", "COUNT", "1"]);
        entry.lines().next().unwrap_or_default().to_owned()
    };
    let master = cluster.master_of(journal);
    cluster.cut_replica(master);
    // From here on, the journal is all there is of it outside the node.
    pair.site.database.pause();
    let before = last(&cluster);
    client.uploaded = 600 * MB;
    client.accepted(a, "completed");
    poll(SEEN, "the master has the batch", || {
        last(&cluster) != before
    });
    let kept = last(&cluster);

    cluster.fail_over(master);
    poll(RESTORED, "the batch is written again", || {
        last(&cluster) == kept
    });
    let late = Client::new(1, 1);
    late.accepted(a, "started");
    hands_out(&pair, &late, RESTORED);

    pair.site.mika.kill9();
    pair.site.database.resume();
    let sql = format!(
        "SELECT uploaded FROM users WHERE passkey = '{}'",
        passkey(2)
    );
    poll(
        TAKEN_OVER,
        "the other node has it credited from the cluster",
        || pair.site.database.row(&sql) == [(600 * MB).cast_signed()],
    );
    poll(RESTORED, "the cluster has all rows", || {
        cluster.cli("t:registry", &["HEXISTS", "t:registry", "position"]) == "1"
            && has_no_difference(&pair.b.managed(&["warmup", "--dry-run"]))
    });
    assert_eq!(pair.b.stop(), 0);
}
