//! Seed time of a user with several clients at once: a second counts once (C14).

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::{now, poll};

/// How long they seed.
const SECONDS: u64 = 8;

const CREDITED: Duration = Duration::from_secs(20);

/// Five clients of the first user seed a torrent, each at the nodes that it is given in turn.
fn seed(nodes: impl Fn(usize) -> Vec<SocketAddr>) {
    let clients: Vec<Client> = (0..5).map(|_| Client::new(0, 1)).collect();
    let start = now();
    thread::scope(|scope| {
        for (number, client) in clients.iter().enumerate() {
            let nodes = nodes(number);
            scope.spawn(move || {
                client.accepted(nodes[0], "started");
                for second in 1..SECONDS {
                    poll(CREDITED, "another second", || {
                        start.elapsed() > Duration::from_secs(second)
                    });
                    client.accepted(nodes[second as usize % nodes.len()], "");
                }
                poll(CREDITED, "the last second", || {
                    start.elapsed() > Duration::from_secs(SECONDS)
                });
                client.accepted(nodes[0], "stopped");
            });
        }
    });
}

/// Announces and seconds of seed time of the first user, in all and of the torrent.
fn counted(pair: &Pair) -> [i64; 3] {
    pair.site.database.row(&format!(
        "SELECT SUM(u.announces), SUM(u.seed_time), SUM(h.seed_time) FROM users u
         JOIN history h ON h.user_id = u.id WHERE u.passkey = '{}'",
        passkey(0)
    ))
}

fn counts_once(database: Database, nodes: impl Fn(usize, [SocketAddr; 2]) -> Vec<SocketAddr>) {
    let pair = Pair::start_on(database, 1);
    seed(|number| nodes(number, pair.nodes()));
    poll(CREDITED, "storage has all announces", || {
        let has_history = "SELECT COUNT(*) FROM history";
        pair.site.database.row(has_history) == [1] && counted(&pair)[0] == 5 * (SECONDS as i64 + 1)
    });
    let [_, of_user, of_torrent] = counted(&pair);
    assert_eq!(of_user, of_torrent);
    // A second more or less, because each node counts whole ones.
    let right = SECONDS as i64 - 1..=SECONDS as i64 + 1;
    assert!(right.contains(&of_user), "{of_user} s");
}

crate::on_each_database![
    a_second_in_which_five_clients_seed_counts_once,
    a_second_in_which_clients_seed_at_two_nodes_counts_once,
    a_second_in_which_clients_move_between_nodes_counts_once,
];

fn a_second_in_which_five_clients_seed_counts_once(database: Database) {
    counts_once(database, |_, [a, _]| vec![a]);
}

fn a_second_in_which_clients_seed_at_two_nodes_counts_once(database: Database) {
    counts_once(database, |number, nodes| vec![nodes[number % 2]]);
}

fn a_second_in_which_clients_move_between_nodes_counts_once(database: Database) {
    counts_once(database, |_, [a, b]| vec![a, b]);
}
