//! Requests of the Python client of the first Mika, and the status codes and fields that it relies on.

use std::time::Duration;

use serde_json::{Value, json};

use super::{HASH, announce, failure, private};
use crate::harness::api::{Answer, Api};
use crate::harness::{Mika, poll};

const PASSKEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

const PATIENCE: Duration = Duration::from_secs(20);

fn message(answer: &Answer) -> Value {
    answer.json()["message"].clone()
}

fn fields(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

/// A torrent, and a user who downloads it.
fn busy() -> (Mika, Api) {
    let (mika, api) = private();
    // It knew no user before a restart, and no torrent that was not in the database.
    let torrent = json!({ "torrent_id": 5, "info_hash": HASH, "name": "five" });
    let answer = api.post("/api/torrent", &torrent);
    assert_eq!((answer.status, message(&answer)), (201, json!("ok")));
    let user = json!({ "user_id": 7, "passkey": PASSKEY, "can_leech": true, "name": "seven" });
    let answer = api.post("/api/user", &user);
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    assert!(api.post("/api/user", &user).is_error(409));
    let started = announce(
        &mika,
        PASSKEY,
        "uploaded=0&downloaded=0&left=1000&event=started",
    );
    assert_eq!(failure(&started), "");
    (mika, api)
}

#[test]
fn version_and_uptime_are_reported() {
    let (_mika, api) = private();
    let version = api.json("/api/version");
    assert_eq!(version["name"], "mika");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let uptime = api.json("/api/uptime");
    assert!(uptime["process"].is_u64() && uptime["system"].as_u64() > Some(0));
}

#[test]
fn a_torrent_has_the_fields_that_it_had() {
    let (_mika, api) = busy();
    let found = api.json(&format!("/api/torrent/{HASH}"));
    let expected = [
        "announces",
        "downloaded",
        "enabled",
        "info_hash",
        "leechers",
        "multi_dn",
        "multi_up",
        "name",
        "peers",
        "reason",
        "seeders",
        "snatches",
        "torrent_id",
        "uploaded",
    ];
    assert_eq!(fields(&found), expected);
    assert_eq!(
        (&found["torrent_id"], &found["name"]),
        (&json!(5), &json!("five"))
    );
    assert_eq!(
        (&found["leechers"], &found["multi_up"]),
        (&json!(1), &json!(1.0))
    );
    let peers = api.json(&format!("/api/torrent/{HASH}/peers"));
    assert_eq!(peers, found["peers"]);
    let [peer] = &peers.as_array().expect("a list")[..] else {
        panic!("one peer: {peers}");
    };
    for field in [
        "speed_up",
        "speed_dn",
        "speed_up_max",
        "speed_dn_max",
        "uploaded",
        "downloaded",
        "ip",
        "port",
        "left",
        "announces",
        "total_time",
        "last_announce",
        "first_announce",
        "peer_id",
    ] {
        assert!(!peer[field].is_null(), "{field}: {peer}");
    }
    assert_eq!(
        (&peer["ip"], &peer["port"]),
        (&json!("127.0.0.1"), &json!(6881))
    );
    assert_eq!(
        (&peer["left"], &peer["peer_id"]),
        (&json!(1000), &json!("-TR3000-abcdefghijkl"))
    );
}

#[test]
fn a_user_has_the_fields_that_it_had() {
    let (_mika, api) = busy();
    let found = api.json("/api/user/7");
    assert_eq!(found["username"], "seven");
    assert_eq!(
        (&found["passkey"], &found["key"]),
        (&json!(PASSKEY), &json!("t:u:7"))
    );
    for field in [
        "enabled",
        "uploaded",
        "downloaded",
        "snatches",
        "can_leech",
        "announces",
    ] {
        assert!(!found[field].is_null(), "{field}: {found}");
    }
    let torrents = api.json("/api/user/7/torrents");
    let expected = json!({ "active": ["5"], "hnr": [], "complete": [], "incomplete": ["5"] });
    assert_eq!(torrents, expected);
}

#[test]
fn unknown_resources_are_404() {
    let (_mika, api) = private();
    for target in [
        &format!("/api/torrent/{HASH}"),
        &format!("/api/torrent/{HASH}/peers"),
        "/api/torrent/nonsense",
        "/api/user/7",
        "/api/user/seven",
        "/api/user/7/torrents",
    ] {
        assert!(api.get(target).is_error(404), "{target}");
    }
    assert!(api.delete(&format!("/api/torrent/{HASH}")).is_error(404));
    assert!(api.delete("/api/whitelist/-TR").is_error(404));
    assert!(
        api.post("/api/user/7", &json!({ "enabled": true }))
            .is_error(404)
    );
}

#[test]
fn adding_a_known_prefix_is_answered_ok() {
    let (_mika, api) = private();
    let client = json!({ "prefix": "-TR", "client": "Transmission" });
    let answer = api.post("/api/whitelist", &client);
    assert_eq!((answer.status, message(&answer)), (201, json!("ok")));
    let answer = api.post("/api/whitelist", &client);
    assert_eq!((answer.status, message(&answer)), (409, json!("ok")));
    assert_eq!(api.json("/api/whitelist"), json!([client]));
    let answer = api.delete("/api/whitelist/-TR");
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    assert!(api.delete("/api/whitelist/-TR").is_error(404));
}

#[test]
fn a_deleted_torrent_gives_its_reason_and_comes_back_under_another_name() {
    let (mika, api) = private();
    api.post(
        "/api/torrent",
        &json!({ "torrent_id": 5, "info_hash": HASH, "name": "five" }),
    );
    let user = json!({ "user_id": 7, "passkey": PASSKEY, "name": "seven" });
    assert_eq!(api.post("/api/user", &user).status, 200);
    let target = format!("/api/torrent/{HASH}");
    let reason = json!({ "reason": "trumped" }).to_string();
    let json = ["Content-Type: application/json"];
    let answer = api.send("DELETE", &target, &json, reason.as_bytes());
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    let refused = announce(&mika, PASSKEY, "uploaded=0&downloaded=0&left=0");
    assert_eq!(failure(&refused), "trumped");
    let found = api.json(&target);
    assert_eq!(
        (&found["enabled"], &found["reason"]),
        (&json!(false), &json!("trumped"))
    );
    // Without a body, as the first client does.
    assert_eq!(api.delete(&target).status, 200);
    assert_eq!(
        failure(&announce(&mika, PASSKEY, "left=0")),
        "torrent disabled"
    );
    let again = json!({ "torrent_id": 5, "info_hash": HASH, "name": "six" });
    assert_eq!(api.post("/api/torrent", &again).status, 201);
    assert_eq!(failure(&announce(&mika, PASSKEY, "left=0")), "");
    assert_eq!(api.json(&target)["name"], "six");
    // One id can't have two hashes.
    let other = json!({ "torrent_id": 5, "info_hash": "f".repeat(40), "name": "six" });
    assert!(api.post("/api/torrent", &other).is_error(409));
}

#[test]
fn a_known_torrent_can_be_registered_under_a_new_id() {
    let (mika, api) = busy();
    let report = "uploaded=700&downloaded=100&left=900";
    assert_eq!(failure(&announce(&mika, PASSKEY, report)), "");
    let target = format!("/api/torrent/{HASH}");
    assert_eq!(api.delete(&target).status, 200);
    // As after it was deleted and uploaded again.
    let again = json!({ "torrent_id": 6, "info_hash": HASH, "name": "six" });
    let answer = api.post("/api/torrent", &again);
    assert_eq!((answer.status, message(&answer)), (201, json!("ok")));
    let found = api.json(&target);
    assert_eq!(
        (&found["torrent_id"], &found["name"], &found["enabled"]),
        (&json!(6), &json!("six"), &json!(true))
    );
    assert_eq!(found["peers"].as_array().map(Vec::len), Some(1));

    // The client goes on: it is credited from where it was, and its history goes on, too.
    let report = "uploaded=1000&downloaded=150&left=850";
    assert_eq!(failure(&announce(&mika, PASSKEY, report)), "");
    poll(PATIENCE, "the credit is in the database", || {
        let user = api.json("/api/user/7");
        (&user["uploaded"], &user["downloaded"]) == (&json!(1000), &json!(150))
    });
    let torrents = json!({ "active": ["6"], "hnr": [], "complete": [], "incomplete": ["6"] });
    assert_eq!(api.json("/api/user/7/torrents"), torrents);
    let [histories, uploaded, of_old] = mika
        .row("SELECT COUNT(*), SUM(uploaded), SUM(torrent_id = 5) FROM history WHERE user_id = 7");
    assert_eq!((histories, uploaded, of_old), (1, 1000, 0));

    // Another torrent may have the id that is free now.
    let other = json!({ "torrent_id": 5, "info_hash": "f".repeat(40), "name": "other" });
    assert_eq!(api.post("/api/torrent", &other).status, 201);
    let taken = json!({ "torrent_id": 5, "info_hash": HASH, "name": "six" });
    assert!(api.post("/api/torrent", &taken).is_error(409));
    assert_eq!(api.json(&target)["torrent_id"], 6);
}

#[test]
fn a_torrent_with_another_id_is_the_same_after_a_restart() {
    let (mut mika, api) = busy();
    let again = json!({ "torrent_id": 6, "info_hash": HASH, "name": "six" });
    let report = "uploaded=700&downloaded=0&left=900";
    assert_eq!(failure(&announce(&mika, PASSKEY, report)), "");
    assert_eq!(api.post("/api/torrent", &again).status, 201);
    assert_eq!(mika.stop(), 0);
    mika.run();
    let report = "uploaded=800&downloaded=0&left=900";
    assert_eq!(failure(&announce(&mika, PASSKEY, report)), "");
    poll(PATIENCE, "the credit is in the database", || {
        api.json("/api/user/7")["uploaded"] == 800
    });
    assert_eq!(
        mika.row("SELECT COUNT(*), MAX(torrent_id) FROM peers"),
        [1, 6]
    );
}

/// `user_add(user_id, passkey)` of its client.
#[test]
fn a_user_without_a_name_gets_one_from_the_id() {
    let (mika, api) = private();
    let user = json!({ "user_id": 7, "passkey": PASSKEY });
    let answer = api.post("/api/user", &user);
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    let found = api.json("/api/user/7");
    assert_eq!(
        (&found["username"], &found["can_leech"]),
        (&json!("user 7"), &json!(true))
    );
    let user = json!({ "user_id": 8, "passkey": "passkey-eight", "name": "" });
    assert_eq!(api.post("/api/user", &user).status, 200);
    assert_eq!(api.json("/api/user/8")["username"], "user 8");
    assert_eq!(
        failure(&announce(&mika, PASSKEY, "left=0")),
        "unregistered torrent"
    );
}

/// `user_update` of its client reads the user, and sends back all that it has.
#[test]
fn an_update_may_repeat_the_user_id_of_the_path() {
    let (_mika, api) = busy();
    let update = json!({
        "user_id": 7, "name": "seven", "passkey": PASSKEY, "can_leech": false,
        "uploaded": 10, "downloaded": 20, "enabled": true,
    });
    let answer = api.post("/api/user/7", &update);
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    let found = api.json("/api/user/7");
    assert_eq!(
        (&found["username"], &found["can_leech"], &found["uploaded"]),
        (&json!("seven"), &json!(false), &json!(10))
    );
    assert_eq!(
        api.post("/api/user/7", &json!({ "name": "other" })).status,
        200
    );
    assert_eq!(api.json("/api/user/7")["username"], "other");
    assert_eq!(api.post("/api/user/7", &json!({ "name": "" })).status, 200);
    assert_eq!(api.json("/api/user/7")["username"], "other");
    assert!(
        api.post("/api/user/7", &json!({ "user_id": 8 }))
            .is_error(409)
    );
    let both = json!({ "name": "one", "username": "two" });
    assert!(api.post("/api/user/7", &both).is_error(409));
}

#[test]
fn a_deleted_user_is_disabled_and_keeps_the_totals() {
    let (mika, api) = busy();
    assert_eq!(
        api.post("/api/user/7", &json!({ "uploaded": 10 })).status,
        200
    );
    let answer = api.delete("/api/user/7");
    assert_eq!((answer.status, message(&answer)), (200, json!("ok")));
    assert_eq!(
        failure(&announce(&mika, PASSKEY, "left=0")),
        "account disabled"
    );
    let found = api.json("/api/user/7");
    assert_eq!(
        (&found["enabled"], &found["uploaded"]),
        (&json!(false), &json!(10))
    );
    assert_eq!(api.delete("/api/user/7").status, 200);
    assert!(api.delete("/api/user/8").is_error(404));
    assert!(api.delete("/api/user/seven").is_error(404));
    assert_eq!(
        api.post("/api/user/7", &json!({ "enabled": true })).status,
        200
    );
    assert_eq!(failure(&announce(&mika, PASSKEY, "left=0")), "");
}

/// It sent the form-encoded default of its library, or nothing at all, as the type of its JSON.
#[test]
fn a_body_without_a_type_is_json() {
    let (_mika, api) = private();
    let body = json!({ "prefix": "-TR", "client": "Transmission" }).to_string();
    let answer = api.send("POST", "/api/whitelist", &[], body.as_bytes());
    assert_eq!(answer.status, 201);
}

/// A web application writes its row first, and then calls the API.
#[test]
fn a_row_that_the_tracker_does_not_know_yet_is_not_a_conflict() {
    let (mika, api) = private();
    api.json("/api/version"); // it answers once the tables are there
    let row = "INSERT INTO users (id, passkey, username) VALUES (9, 'passkey-nine', 'nine')";
    mika.storage().execute(row, []).expect("a row");
    let user = json!({ "user_id": 9, "passkey": "passkey-nine", "name": "nine" });
    let answer = api.post("/api/user", &user);
    // Unless the tracker has followed the row meanwhile, which it does twice a second.
    assert!(
        answer.status == 200 || answer.is_error(409),
        "{}",
        answer.text()
    );
    assert_eq!(
        failure(&announce(&mika, "passkey-nine", "left=0")),
        "unregistered torrent"
    );
    let other = json!({ "user_id": 9, "passkey": "passkey-ten", "name": "nine" });
    assert!(api.post("/api/user", &other).is_error(409));
}
