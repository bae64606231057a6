//! Torrents whose hashes move, and clients that restart, while two nodes share them.

use std::time::Duration;

use mika::base::ids::InfoHash;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::info_hash;
use crate::harness::poll;

/// How long what one knows may take to the other, and to storage.
const PATIENCE: Duration = Duration::from_secs(30);

crate::on_each_database![
    neither_node_hands_out_peers_of_the_hash_that_a_torrent_had,
    a_client_restarted_at_the_other_node_is_one_peer_at_both,
];

fn neither_node_hands_out_peers_of_the_hash_that_a_torrent_had(database: Database) {
    let pair = Pair::start_on(database, 2);
    let (old, new) = (InfoHash(info_hash(1)), InfoHash([0x79; 20]));
    let [a, b] = pair.nodes();
    let seeder = Client::new(0, 1);
    seeder.accepted(a, "started");
    let template = Client::new(1, 1);
    let leecher = |info_hash: InfoHash| Client {
        passkey: template.passkey.clone(),
        info_hash: info_hash.0,
        left: 1,
        ..template
    };
    poll(PATIENCE, "both nodes know the seeder", || {
        let replies = pair.nodes().map(|node| leecher(old).accepted(node, ""));
        replies.iter().all(|reply| seeder.is_in(reply))
    });
    let [was, is] = [old, new].map(|hash| pair.bytes(hash));
    pair.sql(&format!(
        "UPDATE torrents SET info_hash = {is} WHERE info_hash = {was}"
    ));
    for node in [a, b] {
        let mut first = None;
        poll(PATIENCE, "the node follows", || {
            let reply = leecher(new).announce(node, "");
            let is_known = reply.failure().is_none();
            first = Some(reply);
            is_known
        });
        let first = first.expect("a reply");
        assert!(
            !seeder.is_in(&first),
            "the first client is handed the old one's"
        );
        assert_eq!(first.int("complete"), Some(0));
    }
    poll(PATIENCE, "storage says who is there", || {
        let [there] = pair
            .site
            .database
            .row("SELECT COUNT(*) FROM peers WHERE active AND left_bytes = 0");
        there == 0
    });
    // Another torrent may get the lost hash: it gets none of its peers, and no snatches.
    pair.sql(&format!("INSERT INTO torrents (info_hash) VALUES ({was})"));
    for node in [a, b] {
        poll(PATIENCE, "the node follows", || {
            leecher(old).announce(node, "").failure().is_none()
        });
        let reply = leecher(old).accepted(node, "");
        assert!(!seeder.is_in(&reply));
        assert_eq!(
            (reply.int("complete"), reply.int("downloaded")),
            (Some(0), Some(0))
        );
    }
}

fn a_client_restarted_at_the_other_node_is_one_peer_at_both(database: Database) {
    let pair = Pair::start_on(database, 2);
    let first = Client::new(0, 1);
    let watcher = Client {
        left: 1,
        ..Client::new(1, 1)
    };
    for number in 0..8 {
        let client = Client {
            port: first.port,
            ..Client::new(0, 1)
        };
        let node = pair.nodes()[number % 2];
        client.accepted(node, "started");
        poll(PATIENCE, "both nodes know this one alone", || {
            pair.nodes().into_iter().all(|node| {
                let reply = watcher.listed(node);
                let list = reply.body.windows(20);
                let is_there = list.clone().any(|it| it == client.peer_id);
                is_there && reply.int("complete") == Some(1)
            })
        });
    }
    let sql = "SELECT COUNT(CASE WHEN active THEN 1 END), COUNT(*) FROM peers WHERE left_bytes = 0";
    poll(PATIENCE, "storage says so", || {
        pair.site.database.row(sql) == [1, 8]
    });
}
