//! The programs with PostgreSQL: a first tracker, and edits by plain SQL.

use serde_json::json;

use crate::harness::postgres::Postgres;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

const INFO_HASH: &str = "%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01";

fn announce(mika: &Mika, passkey: &str, event: &str, uploaded: u64) -> String {
    let reply = mika.fetch(&format!(
        "/{passkey}/announce?info_hash={INFO_HASH}&peer_id=-MK0001-abcdefghijkl&port=6881\
         &uploaded={uploaded}&downloaded=0&left=0{event}"
    ));
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn a_tracker_credits_and_follows_a_site_on_postgresql() {
    let mut server = Postgres::start();
    let url = server.database("site");
    let mut mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "postgres", "url": url },
        "tracker": { "whitelist": false },
        "journal": { "flush_interval": "200ms" },
    }));
    let done = mika.managed(&["migrate"]);
    assert!(done.contains("0001_init"), "{done}");
    assert!(mika.managed(&["check"]).contains("ok"));
    mika.managed(&["users", "add", "alice"]);
    let key = server.sql("site", "SELECT passkey FROM users WHERE username = 'alice'");
    server.sql(
        "site",
        "INSERT INTO torrents (info_hash, release_name) VALUES (decode(repeat('01', 20), 'hex'), 'one')",
    );
    mika.run();
    assert!(announce(&mika, &key, "&event=started", 0).contains("8:complete"));
    assert!(announce(&mika, &key, "", 1000).contains("8:complete"));
    assert!(announce(&mika, &key, "&event=stopped", 1500).contains("8:complete"));
    let uploaded = || {
        server.sql(
            "site",
            "SELECT uploaded FROM users WHERE username = 'alice'",
        )
    };
    poll(PROGRAM_DEADLINE, "the credit is there", || {
        uploaded() == "1500"
    });

    server.sql(
        "site",
        "UPDATE users SET passkey = 'another-passkey' WHERE username = 'alice'",
    );
    poll(PROGRAM_DEADLINE, "the site's edit is followed", || {
        announce(&mika, "another-passkey", "&event=started", 1500).contains("8:complete")
    });
    assert!(announce(&mika, &key, "", 1500).contains("failure"));

    // What is acknowledged while the server is away is credited after it is back.
    server.kill9();
    assert!(announce(&mika, "another-passkey", "", 2500).contains("8:complete"));
    server.restart();
    let uploaded = || {
        server.sql(
            "site",
            "SELECT uploaded FROM users WHERE username = 'alice'",
        )
    };
    poll(PROGRAM_DEADLINE, "the credit is there", || {
        uploaded() == "2500"
    });
    assert_eq!(mika.stop(), 0);
}
