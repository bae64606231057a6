//! What arrives late: batches of a slow node, and what a paused node missed.

use std::time::Duration;

use mika::base::ids::InfoHash;
use rustix::process::Signal;
use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{now, poll};

const MB: u64 = 1_000_000;

/// How long a change may take to the other node, the cache and storage.
const SHARED: Duration = Duration::from_secs(15);

/// How long until the cache lets go what storage has: ten seconds, looked at every second.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// For so long, replies to a new record wait for the journal.
const YOUNG: Duration = Duration::from_secs(6);

/// More than a second, by which the clocks of two nodes may differ, and one more.
const SECOND: Duration = Duration::from_millis(2200);

impl Pair {
    /// Upload that the cache has as the base of a client of the first user.
    fn base_in_cache(&self, client: &Client) -> u64 {
        let hash = InfoHash(client.info_hash);
        let peer_id: String = client
            .peer_id
            .iter()
            .fold(String::new(), |text, it| text + &format!("{it:02x}"));
        let key = format!("t:p:{hash}");
        let record = self
            .site
            .redis
            .cli(&["HGET", &key, &format!("1:{peer_id}")]);
        // The `started` with which its count began follows.
        let base = record.split([' ', '^']).nth(1);
        base.and_then(|base| base.parse().ok()).unwrap_or_default()
    }

    /// Batches that the cache ever had of a node.
    fn batches_of(&self, node: &str) -> u64 {
        let info = self
            .site
            .redis
            .cli(&["XINFO", "STREAM", &self.journal_of(node)]);
        let mut lines = info.lines().skip_while(|line| *line != "last-generated-id");
        let id = lines.nth(1).and_then(|id| id.split('-').next());
        id.and_then(|number| number.parse().ok())
            .unwrap_or_default()
    }

    fn journal_of(&self, node: &str) -> String {
        let keys = self
            .site
            .redis
            .cli(&["KEYS", &format!("t:journal:{node}*")]);
        keys.lines().next_back().unwrap_or_default().to_owned()
    }

    fn stored_upload(&self) -> u64 {
        let sql = format!(
            "SELECT uploaded FROM users WHERE passkey = '{}'",
            passkey(0)
        );
        let [uploaded] = self.site.database.row(&sql);
        uploaded.cast_unsigned()
    }
}

fn wait(time: Duration) {
    let start = now();
    poll(time * 3, "time passes", || start.elapsed() > time);
}

crate::on_each_database![
    a_late_batch_leaves_newer_records_in_the_cache,
    a_paused_node_gets_what_it_missed,
    a_paused_node_gets_what_it_missed_before_the_next_batch,
];

fn a_late_batch_leaves_newer_records_in_the_cache(database: Database) {
    let config = json!({ "node": "a", "journal": { "flush_interval": "9s" } });
    let mut site = Site::prepare_on(database, 1, &AOF, &config);
    let mut b = site.another(&json!({ "node": "b" }));
    site.mika.run();
    b.run();
    let pair = Pair { site, b };
    let [a, b] = pair.nodes();
    let mut client = Client::new(0, 1);
    client.accepted(a, "started");
    wait(YOUNG);
    let before = pair.batches_of("a");
    client.uploaded = 300 * MB;
    client.accepted(a, "");
    // Within one second, the newer record is unknown.
    wait(SECOND);
    client.uploaded = 600 * MB;
    client.accepted(b, "");
    poll(
        SHARED,
        "the cache has the changes of the other node",
        || pair.base_in_cache(&client) == 600 * MB,
    );
    assert_eq!(pair.batches_of("a"), before, "the first node is too fast");
    poll(SHARED, "the first node sends its batch", || {
        pair.batches_of("a") > before
    });
    poll(SHARED, "storage has both", || {
        pair.stored_upload() == 600 * MB
    });
    assert_eq!(pair.base_in_cache(&client), 600 * MB);
}

/// A paused node misses changes of the other one, which are trimmed after ten seconds.
fn misses(database: Database, last_words: bool) {
    let pair = Pair::start_on(database, 3);
    let [a, b] = pair.nodes();
    let mut client = Client::new(0, 1);
    let mut goes = Client::new(1, 1);
    let watcher = Client {
        left: 1,
        ..Client::new(2, 1)
    };
    for it in [&client, &goes] {
        it.accepted(a, "started");
    }
    poll(SHARED, "the other node has both", || {
        let reply = watcher.accepted(b, "");
        client.is_in(&reply) && goes.is_in(&reply)
    });
    // Else that would bring it what it missed.
    poll(SHARED, "the other node has finished its start", || {
        let log = pair.b.log();
        log.contains("from the cache swarms=") || log.contains("the cache has the peers that")
    });
    pair.b.signal(Signal::STOP);
    client.uploaded = 400 * MB;
    client.accepted(a, "");
    goes.uploaded = MB;
    goes.accepted(a, "stopped");
    let comes = Client::new(1, 1);
    comes.accepted(a, "started");
    let journal = pair.journal_of("a");
    poll(FORGOTTEN, "the cache has let the batches go", || {
        pair.site.redis.cli(&["XLEN", &journal]) == "0" && pair.batches_of("a") > 1
    });
    if last_words {
        Client::new(0, 2).accepted(a, "started");
    }
    pair.b.signal(Signal::CONT);
    // Nothing more comes from the first node, by which the other would notice.
    poll(SHARED, "the paused node has the peers of the first", || {
        let reply = watcher.accepted(b, "");
        let see = |it: &Client| it.is_in(&reply);
        see(&client) && !see(&goes) && see(&comes)
    });
    let counts = [a, b].map(|node| {
        let reply = watcher.accepted(node, "");
        (reply.int("complete"), reply.int("incomplete"))
    });
    assert_eq!(counts[0], counts[1]);
    client.uploaded = 500 * MB;
    client.accepted(b, "stopped");
    poll(SHARED, "storage has the changes of both", || {
        pair.stored_upload() >= 500 * MB
    });
    assert_eq!(pair.stored_upload(), 500 * MB);
    let log = pair.b.log();
    assert!(log.contains("missed changes of another node"), "{log}");
}

fn a_paused_node_gets_what_it_missed(database: Database) {
    misses(database, false);
}

fn a_paused_node_gets_what_it_missed_before_the_next_batch(database: Database) {
    misses(database, true);
}
