//! Torrents that get another info hash, swap hashes, or are deleted and uploaded again, while
//! clients announce: records stay with the torrent, peers with the hash.

use std::time::Duration;

use crate::harness::api::{Api, with_api};
use crate::harness::http::{Reply, escape, get};
use crate::harness::{Mika, poll};
use mika::wire::bencode::Node;
use serde_json::json;

/// How long the daemon may take to follow an edit.
const FOLLOWS: Duration = Duration::from_secs(5);

const PASSKEYS: [&str; 2] = ["Passkey-of-the-first-user", "Passkey-of-the-second-user"];

/// A private tracker with two users, and torrents 1 and 2 of hashes `a…` and `b…`.
fn start() -> Mika {
    let mut mika = with_api(&json!({ "mode": "private", "tracker": { "whitelist": false } }));
    for (name, passkey) in ["first", "second"].iter().zip(PASSKEYS) {
        mika.managed(&["users", "add", name, "--passkey", passkey]);
    }
    for hash in [b'a', b'b'] {
        let hash = format!("{hash:02x}").repeat(20);
        mika.managed(&["torrents", "add", &hash, "--name", "A torrent"]);
    }
    mika.run();
    mika
}

/// A client of user `user` at a port of its own.
struct Client(usize);

impl Client {
    fn announce(&self, mika: &Mika, hash: u8, rest: &str) -> Reply {
        let Self(user) = self;
        let (passkey, hash) = (PASSKEYS[*user], escape(&[hash; 20]));
        let port = 7000 + user;
        get(
            mika.http(),
            &format!(
                "/{passkey}/announce?info_hash={hash}&peer_id=-MK0001-00000000000{user}&port={port}&compact=1&downloaded=0&{rest}"
            ),
        )
    }

    fn accepted(&self, mika: &Mika, hash: u8, rest: &str) -> Seen {
        let reply = self.announce(mika, hash, rest);
        assert_eq!(reply.failure(), None, "{rest}");
        Seen {
            complete: reply.int("complete").unwrap(),
            incomplete: reply.int("incomplete").unwrap(),
            downloaded: reply.int("downloaded").unwrap(),
            peers: reply.bytes("peers").unwrap().len() / 6,
        }
    }
}

/// What a client reads in a reply.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    complete: i64,
    incomplete: i64,
    downloaded: i64,
    peers: usize,
}

/// Alone in a swarm, as a leecher.
const ALONE: Seen = Seen {
    complete: 0,
    incomplete: 1,
    downloaded: 0,
    peers: 0,
};

/// A scrape's numbers of that torrent; none if it is not registered.
fn scrape(mika: &Mika, hash: u8) -> Option<[i64; 3]> {
    let hash = [hash; 20];
    let reply = get(
        mika.http(),
        &format!("/{}/scrape?info_hash={}", PASSKEYS[0], escape(&hash)),
    );
    let files = reply.bencode();
    let entry = files.get(b"files")?.get(&hash)?;
    let number = |key: &[u8]| entry.get(key).and_then(Node::as_int).unwrap();
    Some([
        number(b"complete"),
        number(b"incomplete"),
        number(b"downloaded"),
    ])
}

fn sql(mika: &Mika, sql: &str) {
    mika.storage().execute_batch(sql).expect("an edit");
}

/// The hash of 20 times that letter, as SQL writes it.
fn blob(letter: u8) -> String {
    format!("X'{}'", format!("{letter:02x}").repeat(20))
}

fn follows(what: &str, condition: impl FnMut() -> bool) {
    poll(FOLLOWS, what, condition);
}

#[test]
fn the_first_client_of_a_new_hash_gets_no_peers_of_the_old_one() {
    let mika = start();
    let (seeder, leecher) = (Client(0), Client(1));
    seeder.accepted(&mika, b'a', "left=5&uploaded=100&event=started");
    seeder.accepted(&mika, b'a', "left=0&uploaded=110&event=completed");
    sql(
        &mika,
        &format!(
            "UPDATE torrents SET info_hash = {} WHERE id = 1",
            blob(b'c')
        ),
    );
    follows("the new hash", || scrape(&mika, b'c').is_some());
    assert_eq!(scrape(&mika, b'c'), Some([0, 0, 1]), "the snatch alone");
    let seen = leecher.accepted(&mika, b'c', "left=5&uploaded=0&event=started");
    let downloaded = 1;
    assert_eq!(
        seen,
        Seen {
            downloaded,
            ..ALONE
        }
    );
    follows("storage says so", || {
        mika.row("SELECT active, uploaded FROM peers WHERE user_id = 1") == [0, 10]
    });
    // Accounts and what users did go with the torrent.
    let seen = seeder.accepted(&mika, b'c', "left=0&uploaded=130&event=completed");
    assert_eq!((seen.complete, seen.incomplete, seen.downloaded), (1, 1, 1));
    follows("the credit", || {
        mika.row("SELECT uploaded, snatches FROM users WHERE id = 1") == [30, 1]
    });
    assert_eq!(
        seeder
            .announce(&mika, b'a', "left=0&uploaded=130")
            .failure()
            .as_deref(),
        Some("unregistered torrent")
    );
}

#[test]
fn torrents_that_swap_hashes_keep_their_records_and_get_no_peers_of_each_other() {
    let mika = start();
    let clients = [Client(0), Client(1)];
    for (client, hash) in clients.iter().zip([b'a', b'b']) {
        client.accepted(&mika, hash, "left=9&uploaded=0&event=started");
        client.accepted(&mika, hash, "left=9&uploaded=100");
    }
    sql(
        &mika,
        &format!(
            "BEGIN;
             UPDATE torrents SET info_hash = {} WHERE id = 1;
             UPDATE torrents SET info_hash = {} WHERE id = 2;
             UPDATE torrents SET info_hash = {} WHERE id = 1;
             UPDATE torrents SET multi_up = 3 WHERE id = 2;
             COMMIT",
            blob(b'x'),
            blob(b'a'),
            blob(b'b')
        ),
    );
    // Torrent 2 has the hash a… now, which torrent 1 had.
    follows("the swap", || scrape(&mika, b'a') == Some([0, 0, 0]));
    follows("the swap", || scrape(&mika, b'b') == Some([0, 0, 0]));
    assert_eq!(
        clients[0].accepted(&mika, b'b', "left=9&uploaded=110"),
        ALONE
    );
    assert_eq!(
        clients[1].accepted(&mika, b'a', "left=9&uploaded=110"),
        ALONE
    );
    follows("the credit", || {
        mika.row("SELECT SUM(uploaded * (id = 1)), SUM(uploaded * (id = 2)) FROM users")
            == [110, 130]
    });
    assert_eq!(mika.row("SELECT COUNT(*), SUM(active) FROM peers"), [2, 2]);
}

#[test]
fn a_hash_that_moves_to_another_torrent_keeps_no_peers_and_no_snatches() {
    let mika = start();
    let (seeder, leecher) = (Client(0), Client(1));
    seeder.accepted(&mika, b'a', "left=5&uploaded=0&event=started");
    let seen = seeder.accepted(&mika, b'a', "left=0&uploaded=0&event=completed");
    assert_eq!(seen.downloaded, 1);
    sql(
        &mika,
        &format!(
            "BEGIN;
             UPDATE torrents SET info_hash = {} WHERE id = 1;
             UPDATE torrents SET info_hash = {} WHERE id = 2;
             COMMIT",
            blob(b'c'),
            blob(b'a')
        ),
    );
    follows("torrent 1", || scrape(&mika, b'c') == Some([0, 0, 1]));
    follows("torrent 2", || scrape(&mika, b'a') == Some([0, 0, 0]));
    assert_eq!(leecher.accepted(&mika, b'a', "left=5&uploaded=0"), ALONE);
    // The user did not complete this one yet.
    let seen = seeder.accepted(&mika, b'a', "left=0&uploaded=0&event=completed");
    assert_eq!((seen.complete, seen.downloaded), (1, 1));
}

#[test]
fn a_torrent_that_is_uploaded_again_begins_with_storages_snatches() {
    let mika = start();
    let api = Api::of(&mika);
    let count = || api.json("/api/stats")["registry"]["torrents"].clone();
    let (seeder, leecher) = (Client(0), Client(1));
    for round in 0..3 {
        seeder.accepted(&mika, b'a', "left=5&uploaded=0&event=started");
        let seen = seeder.accepted(&mika, b'a', "left=0&uploaded=0&event=completed");
        assert_eq!(seen.downloaded, 1, "round {round}");
        follows("storage has it", || {
            mika.row(&format!(
                "SELECT MAX(snatches) FROM torrents WHERE info_hash = {}",
                blob(b'a')
            )) == [1]
        });
        // In one go, and with a moment between.
        let (delete, insert) = (
            format!("DELETE FROM torrents WHERE info_hash = {}", blob(b'a')),
            format!("INSERT INTO torrents (info_hash) VALUES ({})", blob(b'a')),
        );
        if round == 0 {
            sql(&mika, &format!("BEGIN; {delete}; {insert}; COMMIT"));
        } else {
            sql(&mika, &delete);
            follows("the deletion", || scrape(&mika, b'a').is_none());
            assert_eq!(count(), 1);
            sql(&mika, &insert);
        }
        follows("the upload", || scrape(&mika, b'a') == Some([0, 0, 0]));
        assert_eq!(count(), 2);
        assert_eq!(leecher.accepted(&mika, b'a', "left=5&uploaded=0"), ALONE);
        leecher.accepted(&mika, b'a', "left=5&uploaded=0&event=stopped");
    }
}

#[test]
fn a_hybrid_keeps_its_peers_when_it_gets_a_second_hash_and_not_when_it_loses_one() {
    let mika = start();
    let (seeder, leecher) = (Client(0), Client(1));
    let set = |value: &str| {
        sql(
            &mika,
            &format!("UPDATE torrents SET info_hash_v2 = {value} WHERE id = 1"),
        );
    };
    let join = |hash| {
        seeder.accepted(&mika, hash, "left=0&uploaded=0&event=started");
    };
    let seen = |hash| {
        let seen = leecher.accepted(&mika, hash, "left=5&uploaded=0");
        leecher.accepted(&mika, hash, "left=5&uploaded=0&event=stopped");
        (seen.complete, seen.peers)
    };
    join(b'a');
    set(&blob(b'v'));
    follows("a second hash", || scrape(&mika, b'v').is_some());
    assert_eq!(seen(b'v'), (1, 1), "both name one swarm");
    set(&blob(b'w'));
    follows("another second hash", || {
        scrape(&mika, b'w') == Some([0, 0, 0])
    });
    assert_eq!((seen(b'w'), seen(b'a')), ((0, 0), (0, 0)));
    assert_eq!(scrape(&mika, b'v'), None);
    join(b'w');
    set("NULL");
    follows("no second hash", || scrape(&mika, b'a') == Some([0, 0, 0]));
    assert_eq!(seen(b'a'), (0, 0));
    assert_eq!(scrape(&mika, b'w'), None);
}

#[test]
fn a_repaired_row_restores_its_peers_unless_its_hash_changed() {
    let mika = start();
    let (seeder, leecher) = (Client(0), Client(1));
    seeder.accepted(&mika, b'a', "left=0&uploaded=0&event=started");
    let seen = || {
        let seen = leecher.accepted(&mika, b'a', "left=5&uploaded=0");
        leecher.accepted(&mika, b'a', "left=5&uploaded=0&event=stopped");
        (seen.complete, seen.peers)
    };
    assert_eq!(seen(), (1, 1));
    let break_it = || {
        sql(&mika, "UPDATE torrents SET multi_up = 'oops' WHERE id = 1");
        follows("the broken row", || scrape(&mika, b'a').is_none());
    };
    break_it();
    sql(&mika, "UPDATE torrents SET multi_up = 1 WHERE id = 1");
    follows("the row", || scrape(&mika, b'a').is_some());
    assert_eq!(seen(), (1, 1));
    break_it();
    sql(
        &mika,
        &format!(
            "UPDATE torrents SET multi_up = 1, info_hash = {} WHERE id = 1",
            blob(b'c')
        ),
    );
    follows("the row", || scrape(&mika, b'c').is_some());
    assert_eq!(scrape(&mika, b'c'), Some([0, 0, 0]));
    let seen = leecher.accepted(&mika, b'c', "left=5&uploaded=0");
    assert_eq!((seen.complete, seen.peers), (0, 0));
}

#[test]
fn the_count_of_users_follows_every_change() {
    let mika = start();
    let api = Api::of(&mika);
    let registry = |key: &str| api.json("/api/stats")["registry"][key].clone();
    let counts = |what: &str, users: u64| {
        follows(what, || registry("users") == users);
    };
    let is_known = |passkey: &str| {
        let target = format!("/{passkey}/scrape?info_hash={}", escape(&[b'a'; 20]));
        get(mika.http(), &target).failure().is_none()
    };
    // Deleted and added again with the same passkey, at once and one after the other.
    let (delete, insert) = (
        "DELETE FROM users WHERE username = 'second'",
        format!(
            "INSERT INTO users (username, passkey) VALUES ('second', '{}')",
            PASSKEYS[1]
        ),
    );
    sql(&mika, &format!("BEGIN; {delete}; {insert}; COMMIT"));
    counts("one user replaced", 2);
    follows("the passkey", || is_known(PASSKEYS[1]));
    sql(&mika, delete);
    counts("one user gone", 1);
    follows("the passkey is gone", || !is_known(PASSKEYS[1]));
    sql(&mika, &insert);
    counts("one user added", 2);
    // Two users swap passkeys.
    sql(
        &mika,
        &format!(
            "BEGIN;
             UPDATE users SET passkey = 'Passkey-in-between' WHERE username = 'first';
             UPDATE users SET passkey = '{}' WHERE username = 'second';
             UPDATE users SET passkey = '{}' WHERE username = 'first';
             COMMIT",
            PASSKEYS[0], PASSKEYS[1]
        ),
    );
    follows("the swap", || {
        let [first] = mika.row("SELECT id FROM users WHERE username = 'first'");
        Client(1).accepted(&mika, b'a', "left=5&uploaded=0");
        mika.row(&format!(
            "SELECT COUNT(*) FROM peers WHERE user_id = {first}"
        )) == [1]
    });
    assert!(is_known(PASSKEYS[0]));
    counts("both", 2);
    sql(&mika, "UPDATE users SET enabled = 0");
    follows("no client may", || {
        !is_known(PASSKEYS[0]) && !is_known(PASSKEYS[1])
    });
    sql(&mika, "UPDATE users SET enabled = 1");
    follows("all may", || is_known(PASSKEYS[0]) && is_known(PASSKEYS[1]));
    counts("the same", 2);
}
