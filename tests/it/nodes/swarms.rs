//! Swarms and credit that nodes share; and dead nodes.

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::{now, poll};

/// How long a peer may take to the other node. It takes some milliseconds.
const SEEN: Duration = Duration::from_secs(2);

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(30);

/// How long until another node takes a dead one's rest: 15 seconds without a sign, and a look every five.
const TAKEN_OVER: Duration = Duration::from_secs(40);

/// How long a node may take to refuse its start.
const REFUSED: Duration = Duration::from_secs(30);

impl Pair {
    fn uploaded(&self, user: usize) -> i64 {
        let passkey = passkey(user);
        let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
        let [uploaded] = self.site.database.row(&sql);
        uploaded
    }
}

crate::on_each_database![
    a_client_that_moves_between_nodes_is_credited_exactly,
    leftovers_of_a_dead_node_are_applied_by_the_other,
];

fn a_client_that_moves_between_nodes_is_credited_exactly(database: Database) {
    let pair = Pair::start_on(database, 2);
    let [a, b] = pair.nodes();
    let mut client = Client::new(0, 1);
    client.accepted(a, "started");
    for round in 1..=20 {
        let (here, there) = if round % 2 == 0 { (b, a) } else { (a, b) };
        client.uploaded += 1000 + round;
        client.accepted(here, if round % 5 == 0 { "stopped" } else { "" });
        // The peer handed out there came after it: the journal is in order.
        let mark = Client::new(1, 2);
        mark.accepted(here, "started");
        let reader = Client {
            left: 1,
            ..Client::new(0, 2)
        };
        poll(SEEN, "the other node has read it", || {
            mark.is_in(&reader.accepted(there, ""))
        });
        mark.accepted(here, "stopped");
        reader.accepted(there, "stopped");
    }
    let expected = i64::try_from(client.uploaded).expect("a small number");
    poll(CREDITED, "the credit is there", || {
        pair.uploaded(0) >= expected
    });
    assert_eq!(pair.uploaded(0), expected);
}

fn leftovers_of_a_dead_node_are_applied_by_the_other(database: Database) {
    let mut pair = Pair::start_on(database, 1);
    let [a, _] = pair.nodes();
    let mut client = Client::new(0, 1);
    client.accepted(a, "started");
    pair.site.database.pause();
    client.uploaded = 123_456;
    client.accepted(a, "stopped");
    pair.site.mika.kill9();
    pair.site.database.resume();
    let start = now();
    poll(TAKEN_OVER, "the other node applies it", || {
        pair.uploaded(0) > 0
    });
    eprintln!("applied by the other node after {:?}", start.elapsed());
    assert_eq!(pair.uploaded(0), 123_456);
    // It comes back, and does not do it again.
    pair.site.mika.run();
    let [a, _] = pair.nodes();
    client.uploaded += 4;
    client.accepted(a, "started");
    client.uploaded += 4;
    client.accepted(a, "stopped");
    poll(CREDITED, "the credit is there", || {
        pair.uploaded(0) >= 123_460
    });
    assert_eq!(pair.site.mika.stop(), 0);
    assert!([123_460, 123_464].contains(&pair.uploaded(0)));
}

#[test]
fn a_second_node_of_one_name_is_refused() {
    let pair = Pair::start(1);
    // It accepts connections at once, and answers when it has shown that it runs.
    Client::new(0, 1).accepted(pair.nodes()[0], "started");
    let mut namesake = pair.site.another(&json!({ "node": "a" }));
    namesake.launch();
    assert_eq!(namesake.wait(REFUSED), 1);
    let log = namesake.log();
    assert!(log.contains("another mika runs as node \"a\""), "{log}");
    assert!(log.contains("give each a name of its own"), "{log}");
}
