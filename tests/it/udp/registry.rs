//! What clients leave in the registry of a public tracker (rules W5 and W12).

use std::net::IpAddr;
use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::json;

use super::{COMPLETED, STOPPED, V4, new_torrent, stored};
use crate::harness::site::settles;
use crate::harness::udp::{Announce, Client};
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

/// `tracker.peer_ttl` where it matters.
const PEER_TTL: Duration = Duration::from_secs(3);

const ROWS: &str = "SELECT COUNT(*) FROM torrents";

fn client_at(mika: &Mika, own: &str) -> (Client, u64) {
    let own: IpAddr = own.parse().expect("an address");
    let client = Client::at(own, mika.udp(V4));
    let id = client.connect();
    (client, id)
}

/// Completes a torrent and leaves; whether that was counted. It may be refused as well.
fn completes(client: &Client, id: u64, info_hash: [u8; 20]) -> bool {
    let done = Announce {
        event: COMPLETED,
        left: 0,
        ..Announce::new(id, info_hash)
    };
    client.exchange(&done.packet());
    let leaves = Announce {
        event: STOPPED,
        ..done
    };
    client.exchange(&leaves.packet());
    client.scrape(id, &[info_hash]) == [[0, 1, 0]]
}

fn snatches_of(mika: &Mika, info_hash: &[u8; 20]) -> i64 {
    let hex = InfoHash(*info_hash).to_string();
    stored(
        mika,
        &format!(
            "SELECT COALESCE(SUM(snatches), 0) FROM torrents WHERE hex(info_hash) = upper('{hex}')"
        ),
    )
}

#[test]
fn one_network_cannot_fill_the_room_for_torrents() {
    let config = json!({
        "mode": "public",
        "tracker": { "max_torrents": 200 },
        "journal": { "flush_interval": "20ms" },
    });
    let mut mika = Mika::prepare_udp(&[V4], &config);
    mika.run();
    let (stranger, id) = client_at(&mika, "127.1.1.1");
    let counted = (0..600).filter(|_| completes(&stranger, id, new_torrent()));
    let counted = counted.count();
    assert!((1..=200 / 16).contains(&counted), "{counted}");
    let lines = mika.log().matches(" is not registered").count();
    assert!((1..=2).contains(&lines), "{lines} lines of the log");

    let (honest, id) = client_at(&mika, "127.1.2.1");
    let torrent = new_torrent();
    assert!(completes(&honest, id, torrent));
    poll(PROGRAM_DEADLINE, "it is in storage", || {
        snatches_of(&mika, &torrent) == 1
    });
    assert_eq!(stored(&mika, ROWS), counted as i64 + 1);
    assert_eq!(mika.stop(), 0);
    mika.run();
    let (honest, id) = client_at(&mika, "127.1.3.1");
    assert_eq!(honest.scrape(id, &[torrent]), [[0, 1, 0]]);
    assert!(
        completes(&honest, id, new_torrent()),
        "also after a restart"
    );
    assert_eq!(mika.stop(), 0);
}

/// A registry that was filled before, by whomever, makes room again.
#[test]
fn unused_torrents_are_removed_when_the_registry_is_full() {
    let config = json!({
        "mode": "public",
        "tracker": {
            "max_torrents": 100,
            "announce_interval": "2s",
            "min_announce_interval": "1s",
            "peer_ttl": format!("{}s", PEER_TTL.as_secs()),
        },
        "journal": { "flush_interval": "20ms" },
    });
    let mut mika = Mika::prepare_udp(&[V4], &config);
    mika.run();
    let known = new_torrent();
    let known_hex = InfoHash(known).to_string();
    mika.managed(&["torrents", "add", &known_hex, "--name", "known"]);
    let popular = new_torrent();
    let storage = mika.storage();
    let insert = |hash: &[u8], snatches: i64| {
        let sql = "INSERT INTO torrents (info_hash, snatches) VALUES (?1, ?2)";
        storage.execute(sql, (hash, snatches)).expect("a row");
    };
    (0..84).for_each(|_| insert(&new_torrent(), 1));
    insert(&popular, 50);
    let (honest, id) = client_at(&mika, "127.1.2.1");
    poll(PROGRAM_DEADLINE, "the tracker knows them", || {
        honest.scrape(id, &[popular]) == [[0, 50, 0]]
    });
    // For so long that the tracker knows of all of these that they are unused, and which are the least popular.
    let is_any_gone = settles(2 * PEER_TTL, || stored(&mika, ROWS) < 86);
    assert!(!is_any_gone, "there is room");
    (0..13).for_each(|_| insert(&new_torrent(), 1));
    let newest = new_torrent();
    insert(&newest, 1);
    drop(storage);
    poll(PROGRAM_DEADLINE, "the registry is full", || {
        honest.scrape(id, &[newest]) == [[0, 1, 0]]
    });
    let mut torrent = new_torrent();
    poll(PROGRAM_DEADLINE, "there is room again", || {
        torrent = new_torrent();
        completes(&honest, id, torrent)
    });
    poll(PROGRAM_DEADLINE, "it is in storage", || {
        snatches_of(&mika, &torrent) == 1
    });
    assert!(stored(&mika, ROWS) < 100);
    assert_eq!(snatches_of(&mika, &popular), 50);
    assert_eq!(
        stored(
            &mika,
            "SELECT COUNT(*) FROM torrents WHERE release_name = 'known'"
        ),
        1
    );
    assert!(
        mika.log()
            .contains("torrents that nobody uses have been removed")
    );
    assert_eq!(honest.scrape(id, &[popular]), [[0, 50, 0]]);
    // They were removed from storage, so they don't come back.
    assert_eq!(mika.stop(), 0);
    mika.run();
    assert!(stored(&mika, ROWS) < 100);
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_removed_torrent_begins_again() {
    let mut mika = Mika::prepare_udp(
        &[V4],
        &json!({ "mode": "public", "journal": { "flush_interval": "20ms" } }),
    );
    mika.run();
    let (client, id) = client_at(&mika, "127.1.1.1");
    let torrent = new_torrent();
    assert!(completes(&client, id, torrent));
    poll(PROGRAM_DEADLINE, "it is in storage", || {
        snatches_of(&mika, &torrent) == 1
    });
    // The tracker knows for certain of rows that were there at its start.
    assert_eq!(mika.stop(), 0);
    mika.run();
    let (client, id) = client_at(&mika, "127.1.1.1");
    assert_eq!(client.scrape(id, &[torrent]), [[0, 1, 0]]);
    let hex = InfoHash(torrent).to_string();
    assert_eq!(
        mika.managed(&["torrents", "remove", &hex]),
        format!("removed {hex}\n")
    );
    assert!(
        !mika.manage(&["torrents", "remove", &hex]).status.success(),
        "it is gone"
    );
    poll(PROGRAM_DEADLINE, "the tracker knows of it", || {
        client.scrape(id, &[torrent]) == [[0, 0, 0]]
    });
    assert!(completes(&client, id, torrent));
    poll(PROGRAM_DEADLINE, "it is registered again", || {
        snatches_of(&mika, &torrent) == 1
    });
    assert_eq!(mika.stop(), 0);
}
