//! Trackers with drivers of their own: the examples, as programs.

use serde_json::{Value, json};

use crate::harness::http::{escape, get};
use crate::harness::{Mika, example};

const PASSKEY: &str = "Passkey-of-the-first-user";
const HASH: [u8; 20] = [b'a'; 20];

/// Announces that so many bytes were uploaded; the number of seeders in the reply.
fn announce(mika: &Mika, passkey: &str, event: &str, uploaded: u64) -> i64 {
    let hash = escape(&HASH);
    let rest = "peer_id=-MK0001-000000000001&port=7000&downloaded=0&left=0";
    let reply = get(
        mika.http(),
        &format!("{passkey}/announce?info_hash={hash}&{rest}&uploaded={uploaded}&event={event}"),
    );
    assert_eq!(reply.failure(), None);
    reply.int("complete").unwrap()
}

#[test]
fn a_storage_of_its_own_keeps_credit_over_a_kill() {
    let mut mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "append", "url": "storage.log" },
        "tracker": { "whitelist": false },
    }));
    mika.use_program(example("custom_driver"));
    mika.managed(&["users", "add", "first", "--passkey", PASSKEY]);
    mika.managed(&["torrents", "add", &"61".repeat(20), "--name", "A torrent"]);
    mika.run();
    let passkey = format!("/{PASSKEY}");
    announce(&mika, &passkey, "started", 0);
    announce(&mika, &passkey, "", 1000);
    mika.kill9();
    mika.run();
    announce(&mika, &passkey, "stopped", 3000);
    assert_eq!(mika.stop(), 0);
    let shown = mika.managed(&["--json", "users", "show", "first"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["uploaded"], 3000, "{shown}");
    let refused = mika.manage(&["users", "disable", "first"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("does not support changing users"), "{said}");
}

#[test]
fn a_cache_of_its_own_takes_the_journal() {
    let mut mika = Mika::prepare(&json!({ "cache": { "driver": "process" } }));
    mika.use_program(example("custom_cache"));
    mika.run();
    assert_eq!(announce(&mika, "", "started", 0), 1);
    assert_eq!(mika.stop(), 0);
    assert!(!mika.log().contains("WARN"), "{}", mika.log());
}
