//! The programs with PostgreSQL: a first tracker, edits by plain SQL, and databases that are set up wrongly.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::api::{Api, with_api};
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

/// How long the daemon may take to look at the database again.
const LOOKS: Duration = Duration::from_secs(60);

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

/// A server with a migrated database `site`, whose encoding may be another, and a config that names it.
fn site(encoding: &str) -> (Postgres, Value) {
    let server = Postgres::start();
    let create = format!("CREATE DATABASE site ENCODING '{encoding}' TEMPLATE template0");
    server.sql("postgres", &create);
    let config = json!({
        "mode": "private",
        "storage": { "driver": "postgres", "url": server.url("site") },
        "tracker": { "whitelist": false },
    });
    Mika::prepare(&config).managed(&["migrate"]);
    (server, config)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_passkey_that_does_not_fit_is_not_shown_as_saved() {
    let (server, config) = site("UTF8");
    server.sql(
        "site",
        "ALTER TABLE users ALTER passkey TYPE varchar(20);
         INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')",
    );
    let mika = Mika::prepare(&config);
    let output = mika.manage(&["users", "passkey", "seven"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let printed = stderr(&output);
    assert!(
        printed.contains("the column `passkey` of `users` holds 20 characters, this has 32"),
        "{printed}"
    );
    let passkey = server.sql("site", "SELECT passkey FROM users");
    assert_eq!(passkey, "passkey-7");
    let check = mika.manage(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    let printed = stdout(&check);
    assert!(
        printed.contains("`passkey` of `users` holds 20 characters")
            && printed.contains("ALTER TABLE"),
        "{printed}"
    );
}

#[test]
fn triggers_lost_while_the_daemon_runs_are_reported_and_restored() {
    let (server, config) = site("UTF8");
    server.sql(
        "site",
        "INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')",
    );
    let mut mika = Mika::prepare(&config);
    let status = mika.managed(&["migrate", "--status"]);
    assert!(!status.contains("no"), "{status}");
    mika.run();
    server.sql(
        "site",
        "BEGIN; CREATE TABLE users_new (LIKE users INCLUDING ALL); INSERT INTO users_new SELECT * FROM users;
         DROP TABLE users; ALTER TABLE users_new RENAME TO users; COMMIT",
    );
    poll(LOOKS, "the log reports the triggers", || {
        mika.log().contains("missing from the table users")
    });
    let output = mika.manage(&["migrate", "--status"]);
    let row = stdout(&output);
    let row = row.lines().find(|line| line.contains("triggers")).unwrap();
    assert!(row.ends_with("no"), "{row}");
    assert!(stderr(&output).contains("mika_users_update"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(mika.manage(&["check"]).status.code(), Some(1));
    // Edits made meanwhile take effect as well, without a restart.
    server.sql(
        "site",
        "INSERT INTO users (id, passkey, username) VALUES (8, 'passkey-8', 'eight')",
    );
    let made = mika.managed(&["migrate"]);
    assert!(made.contains("trigger mika_users_update"), "{made}");
    poll(LOOKS, "the registry is loaded again", || {
        let log = mika.log();
        let mut loads = log.lines().filter(|line| line.contains("registry loaded"));
        loads.clone().count() > 1
            && loads
                .next_back()
                .is_some_and(|line| line.contains("users=2"))
    });
    assert_eq!(mika.managed(&["migrate"]).trim(), "up to date");
    poll(LOOKS, "the log says that it is over", || {
        mika.log().contains("the database is as it should be again")
    });
    assert_eq!(mika.stop(), 0);
}

#[test]
fn unfinished_rows_do_not_fail_a_warmup() {
    let (server, mut config) = site("UTF8");
    let redis = Redis::start();
    config["cache"] = json!({ "driver": "redis", "url": redis.url() });
    server.sql(
        "site",
        "ALTER TABLE users ALTER passkey DROP NOT NULL;
         INSERT INTO users (username) SELECT 'user-' || number FROM generate_series(1, 3500) AS number;
         INSERT INTO users (passkey, username) VALUES ('passkey-1', 'one');
         INSERT INTO torrents (info_hash, release_name) VALUES ('', 'a draft')",
    );
    let mut mika = Mika::prepare(&config);
    let output = mika.manage(&["warmup"]);
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(
        printed.contains("3500 users without a passkey, 1 torrents without an info hash"),
        "{printed}"
    );
    let check = mika.managed(&["check"]);
    assert!(
        check.contains("note     tables: 3500 users have no passkey yet"),
        "{check}"
    );
    mika.run();
    let log = mika.log();
    assert!(!log.contains("passed over"), "{log}");
    let printed = stderr(&mika.manage(&["users", "show", "17"]));
    assert!(
        printed.contains("the user 17 has no passkey yet"),
        "{printed}"
    );
    mika.managed(&["users", "passkey", "17"]);
    let given = "SELECT COUNT(*) FROM users WHERE LENGTH(passkey) = 32 AND id = 17";
    assert_eq!(server.sql("site", given), "1");
    server.sql(
        "site",
        "INSERT INTO users (passkey, username) VALUES ('bad!', 'bad')",
    );
    let output = mika.manage(&["warmup"]);
    let code = output.status.code();
    assert_eq!(code, Some(1), "a malformed one is a problem");
}

#[test]
fn the_api_answers_for_values_and_never_with_500() {
    let (server, config) = site("LATIN1");
    server.sql(
        "site",
        "ALTER TABLE users ALTER username TYPE varchar(20);
         CREATE UNIQUE INDEX one_case ON whitelist (lower(peer_id))",
    );
    let mut mika = with_api(&config);
    mika.run();
    let api = Api::of(&mika);
    let user = |id: u32, name: &str| json!({ "user_id": id, "passkey": format!("passkey-{id}"), "name": name });
    let other = "%E7%94%A8%E6%88%B7";
    assert_eq!(api.get(&format!("/api/users?q={other}")).status, 200);
    assert_eq!(api.get("/api/users?q=a%00b").status, 200);
    for name in ["用户", "a\u{0}b"] {
        let refused = api.post("/api/user", &user(1, name));
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    let name = |id| match id {
        300 => "用户",
        700 => "a name of more than twenty characters",
        _ => "ok",
    };
    let rows: Vec<Value> = (1..=1000).map(|id| user(id, name(id))).collect();
    let answer = api.post("/api/users", &json!(rows));
    let result = answer.json();
    assert_eq!(
        (&result["added"], &result["invalid"]),
        (&json!(998), &json!(2)),
        "{}",
        answer.text()
    );
    for row in [299, 699] {
        assert_eq!(result["results"][row]["status"], "invalid");
    }
    let refused = api.post("/api/user/1", &json!({ "name": name(700) }));
    assert_eq!(refused.status, 400, "{}", refused.text());
    let client = |prefix: &str| json!({ "prefix": prefix, "client": "" });
    assert_eq!(api.post("/api/whitelist", &client("-lt0D60-")).status, 201);
    let refused = api.post("/api/whitelist", &client("-LT0D60-"));
    assert_eq!(refused.status, 409, "{}", refused.text());
    let clients = server.sql("site", "SELECT peer_id FROM whitelist");
    assert_eq!(clients, "-lt0D60-");
}
