//! The schemas of docs/schemas.md, with the tables that they are for.

use std::fs;

use serde_json::json;

use super::{Server, announce, example};
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

/// A site with these tables, a user and a torrent, and a tracker that is configured for it.
fn site(schema: &str) -> (Postgres, Mika) {
    let (tables, _) = example("An example: a Django site");
    let server = Postgres::start();
    let url = server.database("site");
    server.sql(
        "site",
        &format!(
            "{tables}
             INSERT INTO accounts_user (username, password, is_active, announce_key, uploaded, downloaded)
                 VALUES ('alice', '', true, 'key-of-alice', 5, 7), ('bob', '', true, NULL, 0, 0);
             INSERT INTO library_release (title, infohash, is_freeleech, seeders, leechers, times_completed)
                 VALUES ('one', repeat('ab', 20), true, 0, 0, 0);
             INSERT INTO library_client (prefix, label) VALUES ('-MK', 'Mika''s own')"
        ),
    );
    let mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "postgres", "url": url, "schema": "./my-site.sql" },
        "tracker": { "whitelist": true },
        "journal": { "flush_interval": "200ms" },
    }));
    fs::write(mika.path("my-site.sql"), schema).unwrap();
    (server, mika)
}

#[test]
fn the_example_of_the_page_works() {
    let (server, mut mika) = site(&example("An example: a Django site").1);
    assert!(
        mika.managed(&["schema", "test", "my-site.sql"])
            .contains("ok")
    );
    mika.managed(&["migrate"]);
    let check = mika.manage(&["check"]);
    let printed = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{printed}");
    mika.run();
    let start = announce(
        &mika,
        "key-of-alice",
        "&uploaded=0&downloaded=0&left=9&event=started",
    );
    assert!(start.contains("8:complete"), "{start}");
    announce(
        &mika,
        "key-of-alice",
        "&uploaded=1000&downloaded=9&left=0&event=completed",
    );
    let row = |columns: &str, table: &str| {
        server.sql(
            "site",
            &format!("SELECT {columns} FROM {table} WHERE id = 1"),
        )
    };
    // Freeleech: what is downloaded does not count.
    poll(PROGRAM_DEADLINE, "the credit is there", || {
        row("uploaded, downloaded", "accounts_user") == "1005\t7"
    });
    poll(PROGRAM_DEADLINE, "the counters are there", || {
        row("seeders, times_completed", "library_release") == "1\t1"
    });
    server.sql(
        "site",
        "UPDATE accounts_user SET announce_key = 'key-of-bob' WHERE username = 'bob'",
    );
    poll(PROGRAM_DEADLINE, "a new key works", || {
        announce(&mika, "key-of-bob", "&uploaded=0&downloaded=0&left=9").contains("8:complete")
    });
    server.sql(
        "site",
        "UPDATE accounts_user SET is_active = false WHERE username = 'alice'",
    );
    poll(PROGRAM_DEADLINE, "a ban takes effect", || {
        announce(&mika, "key-of-alice", "&uploaded=1000&downloaded=9&left=0").contains("failure")
    });
    // What the file has no statement for is said.
    let output = mika.manage(&["users", "add", "carol"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = "does not support adding users: ./my-site.sql has no statement add_user";
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_wrong_file_is_explained() {
    let schema = example("An example: a Django site").1;
    let wrong = [
        (schema.replace("title, true", "titel, true"), "titel"),
        (
            schema.replace("-- name: whitelist", "-- name: whitelst"),
            "did you mean \"whitelist\"?",
        ),
        (
            schema.replace("as user by id", "as users"),
            "follow accounts_user as users",
        ),
        (
            schema.replace("-- name: user_of_passkey", "--"),
            "it lacks the statements user_of_passkey",
        ),
        (
            schema.replace(":after", ":behind"),
            "there is no parameter :behind",
        ),
    ];
    let (_server, mika) = site(&schema);
    for (text, problem) in wrong {
        fs::write(mika.path("wrong.sql"), text).unwrap();
        let output = mika.manage(&["schema", "test", "wrong.sql"]);
        assert_eq!(output.status.code(), Some(1));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(problem), "{problem}: {said}");
    }
}

#[test]
fn the_example_for_mariadb_works() {
    let (tables, schema) = example("An example: a Laravel site");
    let server = Server::Mariadb(MariaDb::start());
    let mut site = server.site("site", &tables, &schema);
    site.sql(
        "INSERT INTO users (id, name, email, password, passkey) VALUES
             (1, 'alice', 'a', '', 'key-of-alice'), (2, 'bob', 'b', '', NULL), (3, 'eve', 'c', '', 'key-of-eve');
         INSERT INTO torrents (name, info_hash, free) VALUES ('one', UNHEX(REPEAT('ab', 20)), 1);
         INSERT INTO allowed_agents (prefix, name) VALUES ('-MK', 'Mika')",
    );
    assert!(
        site.mika
            .managed(&["schema", "test", "site.sql"])
            .contains("ok")
    );
    site.goes_live();
    let mika = &site.mika;
    announce(
        mika,
        "key-of-alice",
        "&uploaded=0&downloaded=0&left=9&event=started",
    );
    announce(
        mika,
        "key-of-alice",
        "&uploaded=1000&downloaded=9&left=0&event=completed",
    );
    // Freeleech: what is downloaded does not count.
    poll(PROGRAM_DEADLINE, "the credit is there", || {
        site.sql("SELECT uploaded, downloaded FROM users WHERE id = 1") == "1000\t0"
    });
    poll(PROGRAM_DEADLINE, "the counters are there", || {
        site.sql("SELECT seeders, times_completed FROM torrents") == "1\t1"
    });
    site.sql("UPDATE users SET passkey = 'key-of-bob' WHERE id = 2; UPDATE users SET deleted_at = NOW() WHERE id = 3");
    poll(PROGRAM_DEADLINE, "a new key works", || {
        announce(mika, "key-of-bob", "&uploaded=0&downloaded=0&left=9").contains("8:complete")
    });
    poll(PROGRAM_DEADLINE, "a deleted user is refused", || {
        announce(mika, "key-of-eve", "&uploaded=0&downloaded=0&left=9").contains("failure")
    });
    // By the optional statements.
    assert!(mika.managed(&["users", "list"]).contains("alice"));
    mika.managed(&["users", "disable", "alice"]);
    assert_eq!(
        site.sql("SELECT disabled_at IS NULL FROM users ORDER BY id LIMIT 1"),
        "0"
    );
    poll(PROGRAM_DEADLINE, "a ban takes effect", || {
        announce(mika, "key-of-alice", "&uploaded=1000&downloaded=9&left=0").contains("failure")
    });
}
