//! Partial updates, lists, numbers, and what is wrong with a request.

use std::time::Duration;

use serde_json::{Value, json};

use super::{HASH, announce, failure, private};
use crate::harness::api::Api;
use crate::harness::poll;

const PASSKEY: &str = "passkey-seven";

fn fill(api: &Api) {
    let torrent = json!({ "torrent_id": 5, "info_hash": HASH, "name": "five" });
    assert_eq!(api.post("/api/torrent", &torrent).status, 201);
    let user = json!({ "user_id": 7, "passkey": PASSKEY, "name": "seven" });
    assert_eq!(api.post("/api/user", &user).status, 200);
}

#[test]
fn an_update_changes_what_it_names_and_takes_effect_at_once() {
    let (mika, api) = private();
    fill(&api);
    let change = |body: Value| {
        let answer = api.post("/api/user/7", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    change(json!({ "can_leech": false }));
    let leech = || failure(&announce(&mika, PASSKEY, "left=1"));
    assert_eq!(leech(), "download not allowed");
    change(json!({ "enabled": false }));
    assert_eq!(leech(), "account disabled");
    change(json!({ "enabled": true, "can_leech": true, "passkey": "passkey-eight" }));
    assert_eq!(leech(), "invalid passkey");
    assert_eq!(failure(&announce(&mika, "passkey-eight", "left=1")), "");
    change(json!({ "uploaded": 1000 }));
    change(json!({ "username": "eight" }));
    let user = api.json("/api/user/7");
    assert_eq!(
        (&user["uploaded"], &user["downloaded"]),
        (&json!(1000), &json!(0))
    );
    assert_eq!(
        (&user["username"], &user["enabled"]),
        (&json!("eight"), &json!(true))
    );

    let target = format!("/api/torrent/{HASH}");
    let answer = api.post(&target, &json!({ "multi_up": 2.0, "multi_dn": 0.0 }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    announce(
        &mika,
        "passkey-eight",
        "uploaded=0&downloaded=0&left=1&event=started",
    );
    announce(&mika, "passkey-eight", "uploaded=500&downloaded=500&left=1");
    poll(
        Duration::from_secs(20),
        "the credit is in the database",
        || {
            let user = api.json("/api/user/7");
            user["uploaded"] == 2000 && user["downloaded"] == 0
        },
    );
    let torrent = api.json(&target);
    assert_eq!(
        (&torrent["name"], &torrent["multi_up"]),
        (&json!("five"), &json!(2.0))
    );
}

#[test]
fn lists_have_pages_an_order_and_filters() {
    let (_mika, api) = private();
    for (id, uploaded) in [(1, 30), (2, 10), (3, 20)] {
        let user = json!({ "user_id": id, "passkey": format!("passkey-{id}"), "name": format!("user {id}") });
        assert_eq!(api.post("/api/user", &user).status, 200);
        let totals = json!({ "uploaded": uploaded, "enabled": id != 3 });
        assert_eq!(api.post(&format!("/api/user/{id}"), &totals).status, 200);
    }
    let ids = |query: &str| {
        let list = api.json(&format!("/api/users?{query}"));
        let rows = list["rows"].as_array().expect("rows");
        let ids: Vec<_> = rows.iter().map(|row| row["user_id"].as_u64()).collect();
        assert!(
            rows.iter().all(|row| row["passkey"].is_null()),
            "no passkeys"
        );
        let ids: Vec<u64> = ids.into_iter().flatten().collect();
        (ids, list["total"].as_u64().expect("a total"))
    };
    assert_eq!(ids(""), (vec![1, 2, 3], 3));
    assert_eq!(ids("sort=uploaded&order=desc"), (vec![1, 3, 2], 3));
    assert_eq!(ids("sort=uploaded&limit=1&page=2"), (vec![3], 3));
    assert_eq!(ids("enabled=false"), (vec![3], 1));
    assert_eq!(ids("q=user%202"), (vec![2], 1));
    assert_eq!(ids("q=3&page=9"), (vec![], 1));
    for wrong in [
        "limit=0",
        "limit=1001",
        "page=0",
        "sort=shoe_size",
        "order=up",
        "enabled=2",
        "limit=x",
    ] {
        assert!(
            api.get(&format!("/api/users?{wrong}")).is_error(400),
            "{wrong}"
        );
        assert!(
            api.get(&format!("/api/torrents?{wrong}")).is_error(400),
            "{wrong}"
        );
    }
    fill(&api);
    for found in [
        "",
        "q=FIVE",
        "q=5",
        &format!("q={HASH}"),
        "sort=seeders&order=desc",
    ] {
        let list = api.json(&format!("/api/torrents?{found}"));
        assert_eq!(list["rows"][0]["info_hash"], HASH, "{found}");
        assert_eq!(list["total"], 1);
    }
    assert_eq!(api.json("/api/torrents?q=six")["total"], 0);
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn wrong_requests_are_told_what_is_expected_and_change_nothing() {
    let (_mika, api) = private();
    let wrong = |target: &str, body: Value, says: &str| {
        let answer = api.post(target, &body);
        assert!(answer.is_error(400), "{target} {body}: {}", answer.text());
        let message = answer.json()["message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(message.contains(says), "{body}: {message}");
    };
    let hash = HASH;
    wrong("/api/torrent", json!({}), "missing field `torrent_id`");
    wrong(
        "/api/torrent",
        json!({ "torrent_id": 0, "info_hash": hash, "name": "x" }),
        "torrent_id: expected 1",
    );
    wrong(
        "/api/torrent",
        json!({ "torrent_id": 1, "info_hash": "12", "name": "x" }),
        "40 hexadecimal digits",
    );
    wrong(
        "/api/torrent",
        json!({ "torrent_id": 1, "info_hash": hash, "name": "" }),
        "1 to 255 characters",
    );
    wrong(
        "/api/torrent",
        json!({ "torrent_id": "1", "info_hash": hash, "name": "x" }),
        "torrent_id: expected a whole number",
    );
    wrong("/api/torrent", json!([1]), "expected");
    wrong(
        "/api/user",
        json!({ "user_id": 1, "passkey": "short", "name": "x" }),
        "8 to 64",
    );
    wrong(
        "/api/user",
        json!({ "user_id": 1, "passkey": PASSKEY, "name": "x", "admin": true }),
        "unknown field `admin`",
    );
    wrong(
        "/api/whitelist",
        json!({ "prefix": "", "client": "x" }),
        "1 to 20",
    );
    fill(&api);
    wrong(
        "/api/user/7",
        json!({ "uploaded": -1 }),
        "uploaded: expected a whole number",
    );
    wrong(
        "/api/user/7",
        json!({ "uploaded": 5_000_000_000_000_000_000_u64 }),
        "at most",
    );
    wrong(
        &format!("/api/torrent/{HASH}"),
        json!({ "multi_up": -1 }),
        "multi_up: expected 0 to 1000",
    );
    assert_eq!(api.json("/api/whitelist"), json!([]));
    assert_eq!(api.json("/api/users")["total"], 1);
}

#[test]
fn invalid_bodies_and_methods_are_refused() {
    let (_mika, api) = private();
    let send = |headers: &[&str], body: &[u8]| api.send("POST", "/api/whitelist", headers, body);
    assert!(send(&[], b"{").is_error(400));
    assert!(send(&[], b"").is_error(400));
    assert!(send(&[], b"\xff\xfe").is_error(400));
    assert!(send(&["Content-Type: text/plain"], b"{}").is_error(415));
    let large = vec![b' '; (8 << 20) + 1];
    assert!(send(&[], &large).is_error(413));
    assert!(api.get("/api/nothing").is_error(404));
    let answer = api.send("PUT", "/api/user/7", &[], b"{}");
    assert!(answer.is_error(405));
    let allowed = answer.header("allow").expect("Allow");
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
}

#[test]
fn the_log_has_request_ids_and_no_secrets() {
    let (mika, api) = private();
    let mine = api.send("POST", "/api/user", &["X-Request-Id: ticket-42"], b"{}");
    assert_eq!(mine.header("x-request-id"), Some("ticket-42"));
    let forged = api.send("GET", "/api/version", &["X-Request-Id: a b"], b"");
    assert_ne!(forged.header("x-request-id"), Some("a b"));
    fill(&api);
    assert_eq!(
        api.post("/api/user/7", &json!({ "passkey": "passkey-hidden" }))
            .status,
        200
    );
    let log = mika.log();
    assert!(log.contains("request=ticket-42"), "{log}");
    assert!(log.contains(r#"path="/api/user/7""#), "{log}");
    for secret in [PASSKEY, "passkey-hidden", "hunter2", "writer-token"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}

#[test]
fn statistics_follow_the_tracker() {
    let (mika, api) = private();
    fill(&api);
    announce(
        &mika,
        PASSKEY,
        "uploaded=0&downloaded=0&left=5&event=started",
    );
    announce(&mika, "nobody-knows-it", "left=5");
    let stats = api.json("/api/stats");
    assert_eq!(
        (&stats["mode"], &stats["announces"]["http"]),
        (&json!("private"), &json!(1))
    );
    assert_eq!(stats["refusals"], json!({ "invalid_passkey": 1 }));
    assert_eq!(
        stats["peers"]["ipv4"],
        json!({ "seeders": 0, "leechers": 1, "paused": 0 })
    );
    assert_eq!(
        stats["registry"],
        json!({ "users": 1, "torrents": 1, "clients": 0 })
    );
    assert_eq!(
        (&stats["storage"]["up"], &stats["cache"]),
        (&json!(true), &Value::Null)
    );
    let busiest = json!([{ "info_hash": HASH, "name": "five", "seeders": 0, "leechers": 1 }]);
    poll(
        Duration::from_secs(20),
        "the busiest are counted again",
        || api.json("/api/stats")["busiest"] == busiest,
    );
    assert_eq!(stats["clients"][0]["client"], "Transmission");
    let metrics = api.get("/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let line = r#"mika_refusals_total{reason="invalid_passkey"} 1"#;
    assert!(metrics.text().contains(line), "{}", metrics.text());
    assert_eq!(api.get("/healthz").text(), "ok\n");
    assert_eq!(api.json("/readyz")["ready"], true);
}
