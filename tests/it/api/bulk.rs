//! Many rows at once.

use serde_json::{Value, json};

use super::{announce, failure, private};

#[test]
fn each_row_succeeds_or_fails_by_itself() {
    let (mika, api) = private();
    let hash = |number: u32| format!("{number:040x}");
    let rows = json!([
        { "torrent_id": 1, "info_hash": hash(1), "name": "one" },
        { "info_hash": hash(2), "info_hash_v2": hash(20), "name": "two" },
        { "torrent_id": 1, "info_hash": hash(3), "name": "the id is taken" },
        { "info_hash": hash(20), "name": "the hash is taken" },
        { "info_hash": "nonsense", "name": "no hash" },
        { "torrent_id": 6, "info_hash": hash(6), "name": "" },
    ]);
    let answer = api.post("/api/torrents", &rows);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let result = answer.json();
    let states: Vec<&Value> = statuses(&result);
    assert_eq!(
        states,
        ["added", "added", "known", "known", "invalid", "invalid"]
    );
    assert_eq!(
        (&result["added"], &result["known"], &result["invalid"]),
        (&json!(2), &json!(2), &json!(2))
    );
    assert_eq!(result["results"][0]["id"], 1);
    let message = result["results"][4]["message"].as_str().expect("a message");
    assert!(message.contains("40 hexadecimal digits"), "{message}");
    assert_eq!(api.json("/api/torrents")["total"], 2);

    let rows = json!([
        { "user_id": 1, "passkey": "passkey-one", "name": "one" },
        { "name": "two", "can_leech": false },
        { "user_id": 3, "passkey": "passkey-one", "name": "the passkey is taken" },
        { "user_id": 1, "name": "the id is taken" },
        { "user_id": 0, "name": "no id" },
        { "passkey": "no", "name": "no passkey" },
    ]);
    let result = api.post("/api/users", &rows).json();
    assert_eq!(
        statuses(&result),
        ["added", "added", "known", "known", "invalid", "invalid"]
    );
    let passkey = result["results"][1]["passkey"].as_str().expect("a passkey");
    assert_eq!(passkey.len(), 32);
    assert!(
        result["results"][0]["passkey"].is_null(),
        "who sent one has it"
    );
    assert_eq!(
        failure(&announce(&mika, passkey, "left=0")),
        "unregistered torrent"
    );
}

#[test]
fn ten_thousand_rows_are_accepted_and_no_more() {
    let (mika, api) = private();
    let torrents = |count: u32| {
        let row = |number: u32| json!({ "info_hash": format!("{number:040x}"), "name": "x" });
        Value::from((0..count).map(row).collect::<Vec<_>>())
    };
    assert!(api.post("/api/torrents", &torrents(10_001)).is_error(400));
    assert_eq!(api.json("/api/torrents")["total"], 0);
    assert_eq!(
        api.post("/api/torrents", &torrents(10_000)).json()["added"],
        10_000
    );
    let users: Vec<Value> = (1..=10_000)
        .map(|id| json!({ "user_id": id, "passkey": format!("passkey-{id}"), "name": "x" }))
        .collect();
    assert_eq!(
        api.post("/api/users", &Value::from(users)).json()["added"],
        10_000
    );
    // All of them work once the answer is there.
    assert_eq!(
        failure(&announce(&mika, "passkey-10000", "left=0")),
        "unregistered torrent"
    );
    let sizes = api.json("/api/stats")["registry"].clone();
    assert_eq!(
        sizes,
        json!({ "users": 10_000, "torrents": 10_000, "clients": 0 })
    );
    assert_eq!(api.post("/api/users", &json!([])).json()["added"], 0);
}

fn statuses(result: &Value) -> Vec<&Value> {
    let results = result["results"].as_array().expect("results");
    results.iter().map(|row| &row["status"]).collect()
}
