//! Credit that reaches no row is in the log: once, by id.

use serde_json::json;

use super::{Server, announce};
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;
use crate::harness::{PROGRAM_DEADLINE, poll};

const ROWS: &str = "
    INSERT INTO users (id, name, email, password, passkey) VALUES (1, 'alice', 'a', '', 'key-of-alice');
    INSERT INTO torrents (id, name, info_hash) VALUES (1, 'one', UNHEX(REPEAT('ab', 20)));
    INSERT INTO allowed_agents (prefix, name) VALUES ('-MK', 'Mika');";

#[test]
fn a_statement_of_credit_that_changes_no_row_is_in_the_log() {
    let (tables, schema) = super::example("An example: a Laravel site");
    let server = Server::Mariadb(MariaDb::start());
    let wrong = schema.replace("users.id = credit.id\n", "users.id = credit.id + 1\n");
    assert_ne!(wrong, schema);
    let mut site = server.site("site", &format!("{tables}{ROWS}"), &wrong);
    site.use_file();
    site.mika.managed(&["migrate"]);
    site.mika.run();
    let lines = || {
        let log = site.mika.log();
        let lost = log
            .lines()
            .filter(|line| line.contains("credit lost: the statement credit_users (./site.sql:"));
        lost.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    announce(
        &site.mika,
        "key-of-alice",
        "&uploaded=0&downloaded=0&left=9&event=started",
    );
    poll(PROGRAM_DEADLINE, "the log names it", || !lines().is_empty());
    announce(
        &site.mika,
        "key-of-alice",
        "&uploaded=1000&downloaded=9&left=0&event=completed",
    );
    let snatched = "SELECT times_completed FROM torrents";
    poll(PROGRAM_DEADLINE, "the rest is applied", || {
        site.sql(snatched) == "1"
    });
    let lines = lines();
    assert_eq!(lines.len(), 1, "once for a user: {lines:?}");
    assert!(
        lines[0].contains("id=1") && lines[0].contains("table=\"users\""),
        "{lines:?}"
    );
    assert!(!site.mika.log().contains("key-of-alice"), "no secrets");
}

/// A user that the site deletes while a report is on its way.
#[test]
fn reports_of_rows_that_are_gone_are_in_the_log() {
    let (tables, schema) = super::example("An example: a Django site");
    let server = Server::Postgres(Postgres::start());
    // Nothing tells the node that the user is gone.
    let schema = schema.replace("-- follow accounts_user", "-- accounts_user");
    let mut site = server.site("site", &tables, &schema);
    site.sql(
        "INSERT INTO accounts_user (username, password, is_active, announce_key, uploaded, downloaded)
             VALUES ('alice', '', true, 'key-of-alice', 0, 0);
         INSERT INTO library_release (title, infohash, is_freeleech, seeders, leechers, times_completed)
             VALUES ('one', repeat('ab', 20), false, 0, 0, 0);
         INSERT INTO library_client (prefix, label) VALUES ('-MK', 'Mika')",
    );
    site.use_file();
    site.mika
        .reconfigure(&json!({ "log": { "level": "info" } }));
    site.mika.managed(&["migrate"]);
    site.mika.run();
    announce(
        &site.mika,
        "key-of-alice",
        "&uploaded=0&downloaded=0&left=9&event=started",
    );
    poll(PROGRAM_DEADLINE, "the peer is there", || {
        site.sql("SELECT count(*) FROM mika_peers") == "1"
    });
    site.sql("DELETE FROM accounts_user");
    announce(
        &site.mika,
        "key-of-alice",
        "&uploaded=1000&downloaded=9&left=0&event=completed",
    );
    let said = "reports dropped: storage does not have it any more";
    poll(PROGRAM_DEADLINE, "the log names it", || {
        site.mika
            .log()
            .lines()
            .any(|line| line.contains(said) && line.contains("id=1"))
    });
}
