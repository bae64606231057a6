//! Private mode over UDP: the passkey in the URL data (rule U6), and credit that is the same as over HTTP.

use mika::base::ids::InfoHash;
use serde_json::{Value, json};

use super::{COMPLETED, IH, STARTED, STOPPED, V4, V6, client, stored};
use crate::harness::http::{escape, get};
use crate::harness::udp::{Announce, Client, Reply, connect, header, url_data};
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

const PASSKEY: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "Passkey_of-the-second-user";
const DISABLED: [u8; 20] = [0xdd; 20];

/// A private tracker with two users, a torrent, and a disabled one; running.
fn private(config: &Value) -> Mika {
    let mut whole = json!({ "mode": "private", "tracker": { "whitelist": false } });
    for (key, value) in config.as_object().expect("a config") {
        whole[key] = value.clone();
    }
    let mut mika = Mika::prepare_udp(&[V4, V6], &whole);
    mika.managed(&["users", "add", "first", "--passkey", PASSKEY]);
    mika.managed(&["users", "add", "second", "--passkey", SECOND]);
    for hash in [IH, DISABLED] {
        let hash = InfoHash(hash).to_string();
        mika.managed(&["torrents", "add", &hash, "--name", "A torrent"]);
    }
    let disabled = InfoHash(DISABLED).to_string();
    mika.managed(&["torrents", "disable", &disabled, "taken down"]);
    mika.run();
    mika
}

/// An announce of the first user.
fn announce(id: u64) -> Announce {
    let path = format!("/{PASSKEY}/announce");
    Announce {
        options: url_data(&path),
        ..Announce::new(id, IH)
    }
}

fn by(options: Vec<u8>, it: &Announce) -> Announce {
    Announce {
        options,
        ..it.clone()
    }
}

/// The user's upload and download as storage has it, once the journal is there.
fn credit(mika: &Mika, user: &str) -> [i64; 2] {
    mika.row(&format!(
        "SELECT uploaded, downloaded FROM users WHERE username = '{user}'"
    ))
}

#[test]
fn the_passkey_is_found_in_the_url_data() {
    let mika = private(&json!({}));
    let (client, id) = client(&mika, V4);
    let it = announce(id);
    let (head, tail) = PASSKEY.split_at(16);
    let split = [
        url_data(&format!("/{head}")),
        url_data(&format!("{tail}/announce")),
    ];
    let escaped = format!("/%30{}/%61nnounce", &PASSKEY[1..]);
    let bytewise: Vec<u8> = format!("/{PASSKEY}/announce")
        .bytes()
        .flat_map(|byte| [2, 1, byte])
        .collect();
    for options in [
        it.options.clone(),
        split.concat(),
        [
            &split[0][..],
            b"\x01\x01\x63\x03abc\x02\x00",
            &split[1],
            b"\x00\xff",
        ]
        .concat(),
        bytewise,
        url_data(&escaped),
        url_data(&format!("//{PASSKEY}/announce/")),
        url_data(&format!("/{PASSKEY}/announce?a=b&c=d")),
        // What follows can't be read; what was read stands.
        [&it.options[..], b"\x02\xff/x"].concat(),
    ] {
        let text = options.escape_ascii().to_string();
        assert_eq!(client.announce(&by(options, &it)).leechers, 1, "{text}");
    }
    assert_eq!(stored(&mika, "SELECT count(*) FROM peers"), 1, "one client");
}

#[test]
fn private_announces_need_a_passkey() {
    let mika = private(&json!({}));
    let (client, id) = client(&mika, V4);
    let it = announce(id);
    let url = |path: &str| url_data(path);
    for options in [
        Vec::new(),
        b"\x00".to_vec(),
        [b"\x00", &it.options[..]].concat(),
        b"\x02\xff/0123456789abcdef0123456789abcdef/announce".to_vec(),
        url(""),
        url("/announce"),
        url("/short/announce"),
        url(&format!("/{PASSKEY}/scrape")),
        url(&format!("/{PASSKEY}")),
        url(&format!("{PASSKEY}/announce")),
        url(&format!("/{PASSKEY}/announce.php")),
        url(&format!("/{PASSKEY}%00/announce")),
        url(&format!("/{}/announce", "x".repeat(65))),
        url(&format!("/{}{PASSKEY}/announce", "x".repeat(600))),
        [&[2, 9][..], b"/\xff\xfe/announ"].concat(),
    ] {
        let text = options.escape_ascii().to_string();
        assert_eq!(
            client.refused(&by(options, &it)),
            "passkey required",
            "{text}"
        );
    }
    for wrong in ["ffffffffffffffff", "0123456789ABCDEF0123456789ABCDEF"] {
        let options = url(&format!("/{wrong}/announce"));
        assert_eq!(client.refused(&by(options, &it)), "invalid passkey");
    }
    // Nothing was stored, and outsiders learn nothing.
    let reply = client.announce(&it);
    assert_eq!((reply.leechers, reply.seeders), (1, 0));
    assert_eq!(stored(&mika, "SELECT count(*) FROM peers"), 1);
    let hashes = [&header(id, 2, 7)[..], &IH].concat();
    assert_eq!(client.error(&hashes), "scrape not available");
    let log = mika.log();
    for passkey in [PASSKEY, "ffffffffffffffff"] {
        assert!(!log.contains(passkey), "a passkey is in the log");
    }
}

#[test]
fn accounts_and_torrents_are_checked_as_over_http() {
    let mika = private(&json!({ "tracker": { "whitelist": true } }));
    mika.managed(&["whitelist", "add", "-MK", "Mika's tests"]);
    let (client, id) = client(&mika, V4);
    let it = announce(id);
    poll(PROGRAM_DEADLINE, "the whitelist is known", || {
        matches!(client.ask(&it.packet()), Reply::Announced(_))
    });
    let unknown = Announce {
        info_hash: [9; 20],
        ..it.clone()
    };
    assert_eq!(client.refused(&unknown), "unregistered torrent");
    let disabled = Announce {
        info_hash: DISABLED,
        ..it.clone()
    };
    assert_eq!(client.refused(&disabled), "taken down");
    let stranger = Announce {
        peer_id: *b"-XX0001-abcdefghijkl",
        ..it.clone()
    };
    assert_eq!(client.refused(&stranger), "client not allowed");
    mika.managed(&["users", "disable", "first"]);
    poll(PROGRAM_DEADLINE, "the account is closed", || {
        client.ask(&it.packet()) == Reply::Failed("account disabled".into())
    });
}

/// One record whatever the transport and the family: the same totals are credited once (rules A2, A4).
#[test]
fn credit_is_counted_once_over_all_transports() {
    let mut mika = private(&json!({}));
    let (four, id4) = client(&mika, V4);
    let (six, id6) = client(&mika, V6);
    let over_http = |up: u64, down: u64, event: &str| {
        let target = format!(
            "/{PASSKEY}/announce?info_hash={}&peer_id=-MK0001-abcdefghijkl&port=6881&uploaded={up}&downloaded={down}&left=5&event={event}",
            escape(&IH)
        );
        let reply = get(mika.http(), &target);
        assert_eq!((reply.status, reply.failure()), (200, None));
        assert_eq!(reply.int("incomplete"), Some(1));
    };
    let over_udp = |client: &Client, id: u64, uploaded: u64, downloaded: u64, event: u32| {
        let it = Announce {
            uploaded,
            downloaded,
            left: 5,
            event,
            ..announce(id)
        };
        client.announce(&it)
    };
    over_udp(&four, id4, 500, 50, STARTED); // where it begins: no credit
    over_http(500, 50, "started");
    over_http(600, 70, "");
    assert_eq!(over_udp(&four, id4, 600, 70, 0).leechers, 1);
    over_udp(&six, id6, 600, 70, 0);
    over_udp(&six, id6, 1600, 70, 0);
    over_udp(&four, id4, 1600, 1070, 0);
    over_http(1600, 1070, "");
    // Of a packet that comes twice nothing is counted again.
    over_udp(&four, id4, 2600, 2070, 0);
    over_udp(&four, id4, 2600, 2070, 0);
    // A total above the maximum counts as not reported.
    over_udp(&four, id4, u64::MAX, 1 << 63, 0);
    over_udp(&six, id6, 2600, 2070, STOPPED);
    let last = over_udp(&four, id4, 2700, 2070, STOPPED);
    assert_eq!((last.leechers, last.seeders), (0, 0));
    assert_eq!(credit(&mika, "first"), [2200, 2020]);
    assert_eq!(credit(&mika, "second"), [0, 0]);
    assert_eq!(stored(&mika, "SELECT count(*) FROM peers"), 1);
    assert_eq!(mika.stop(), 0);
    assert_eq!(credit(&mika, "first"), [2200, 2020]);
}

/// The beginning, the end and a snatch are acknowledged only once they are in storage; others are
/// answered meanwhile.
#[test]
fn acknowledging_replies_wait_until_durable() {
    let mika = private(&json!({ "journal": { "ack_timeout": "60s" } }));
    let (client, id) = client(&mika, V4);
    let it = announce(id);
    let snatch = Announce {
        event: COMPLETED,
        left: 0,
        uploaded: 10,
        ..it.clone()
    };
    let stop = Announce {
        event: STOPPED,
        left: 0,
        uploaded: 30,
        ..it.clone()
    };
    for (number, waits) in [it, snatch, stop].into_iter().enumerate() {
        let waits = Announce {
            transaction: 100 + number as u32,
            ..waits
        };
        let storage = mika.storage();
        storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        client.send(&waits.packet());
        // The connect behind it is answered before it.
        let first = client.exchange(&connect(7));
        assert_eq!(first[4..8], 7_u32.to_be_bytes());
        storage
            .execute_batch("COMMIT")
            .expect("the end of the lock");
        let reply = client.receive().expect("the reply that waited");
        assert_eq!(reply[4..8], waits.transaction.to_be_bytes());
        let row = ["first_announced", "completed_at IS NOT NULL", "NOT active"][number];
        let row = if number == 0 { "1" } else { row };
        assert_eq!(stored(&mika, &format!("SELECT {row} FROM peers")), 1);
    }
    assert_eq!(credit(&mika, "first"), [30, 0]);
}

/// The reply comes all the same, after `ack_timeout`, and what it acknowledges is kept in memory.
#[test]
fn a_reply_waits_no_longer_than_the_timeout() {
    let mut mika = private(&json!({ "journal": { "ack_timeout": "300ms" } }));
    let (client, id) = client(&mika, V4);
    let storage = mika.storage();
    storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    assert_eq!(client.announce(&announce(id)).leechers, 1);
    let more = Announce {
        uploaded: 1000,
        event: 0,
        ..announce(id)
    };
    assert_eq!(client.announce(&more).leechers, 1);
    storage
        .execute_batch("COMMIT")
        .expect("the end of the lock");
    assert_eq!(mika.stop(), 0);
    assert_eq!(credit(&mika, "first"), [1000, 0]);
}

/// Waiting replies are sent before the daemon stops.
#[test]
fn a_stop_sends_waiting_replies() {
    let mut mika = private(&json!({ "journal": { "ack_timeout": "20s" } }));
    let (client, id) = client(&mika, V4);
    let storage = mika.storage();
    storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    client.send(&announce(id).packet());
    client.exchange(&connect(7));
    mika.signal(rustix::process::Signal::TERM);
    poll(PROGRAM_DEADLINE, "no more connections", || !mika.accepts());
    storage
        .execute_batch("COMMIT")
        .expect("the end of the lock");
    let reply = client.receive().expect("the reply that waited");
    assert!(matches!(
        Reply::read(&reply, client.tracker),
        Reply::Announced(_)
    ));
    assert_eq!(mika.wait(PROGRAM_DEADLINE), 0);
    assert_eq!(mika.row("SELECT count(*), sum(active) FROM peers"), [1, 1]);
}
