//! What `mika-manage check` says of tables and statements that do not fit each other.

use super::{Server, Site};
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;

const TABLES: &str = "
    CREATE TABLE members (id INTEGER PRIMARY KEY, nick VARCHAR(60) NOT NULL, rsskey VARCHAR(64), active SMALLINT NOT NULL,
        up BIGINT NOT NULL, down BIGINT);
    CREATE TABLE uploads (id INTEGER PRIMARY KEY, hash VARCHAR(40) NOT NULL, name VARCHAR(255) NOT NULL, snatches INTEGER);
    CREATE TABLE clients (prefix VARCHAR(20) NOT NULL, title VARCHAR(80));
    INSERT INTO members VALUES (1, 'alice', 'key-of-alice', 1, 5, 7), (2, 'bob', 'key-of-bob', 1, 0, 0);
    INSERT INTO uploads VALUES (1, 'abababababababababababababababababababab', 'one', 0);
    INSERT INTO clients VALUES ('-MK', 'Mika');";

/// Line 5 has the first name.
const SCHEMA: &str = "\
-- A site for tests.
-- follow members as user by id: rsskey, nick, active
-- follow uploads as torrent by id: hash, name
-- follow clients as whitelist
-- name: users
SELECT id, rsskey, nick, active, 1, up, down, 0, 0, 0 FROM members WHERE id > :after ORDER BY id LIMIT :limit
-- name: user
SELECT id, rsskey, nick, active, 1, up, down, 0, 0, 0 FROM members WHERE id = :id
-- name: users_named
SELECT id, rsskey, nick, active, 1, up, down, 0, 0, 0 FROM members WHERE nick = :username
-- name: user_of_passkey
SELECT id FROM members WHERE rsskey = :passkey
-- name: users_known
SELECT site.id FROM {rows} AS wanted JOIN members AS site ON site.id = wanted.id
-- name: torrents
SELECT id, HASH, NULL, name, 1, NULL, 1, 1, 0, 0, snatches, 0, 0, 0 FROM uploads
WHERE id > :after ORDER BY id LIMIT :limit
-- name: torrent
SELECT id, HASH, NULL, name, 1, NULL, 1, 1, 0, 0, snatches, 0, 0, 0 FROM uploads WHERE id = :id
-- name: torrents_of_hashes
SELECT site.id, HASH, NULL FROM {rows} AS wanted JOIN uploads AS site ON site.hash = WANTED
-- name: torrents_known
SELECT site.id FROM {rows} AS wanted JOIN uploads AS site ON site.id = wanted.id
-- name: whitelist
SELECT prefix, title FROM clients ORDER BY prefix
-- name: count_users
SELECT count(*) FROM members
-- name: find_users
SELECT id, rsskey AS passkey, nick AS username, active AS enabled, 1 AS can_leech, up AS uploaded, down AS downloaded,
    0 AS snatches, 0 AS announces, 0 AS seed_time FROM members
-- name: add_user
INSERT INTO members (id, nick, rsskey, active, up, down) VALUES (COALESCE(:id, 99), :username, :passkey, 1, 0, 0)
";

const CREDIT_MARIADB: &str = "\
-- name: credit_users
UPDATE {rows} AS credit STRAIGHT_JOIN members AS site ON site.id = credit.id
SET site.up = site.up + credit.uploaded, site.down = site.down + credit.downloaded
-- name: credit_torrents
UPDATE {rows} AS credit STRAIGHT_JOIN uploads AS site ON site.id = credit.id
SET site.snatches = COALESCE(site.snatches, 0) + credit.snatches
";

const CREDIT_POSTGRES: &str = "\
-- name: credit_users
UPDATE members AS site SET up = site.up + credit.uploaded, down = site.down + credit.downloaded
FROM {rows} AS credit WHERE site.id = credit.id
-- name: credit_torrents
UPDATE uploads AS site SET snatches = COALESCE(site.snatches, 0) + credit.snatches
FROM {rows} AS credit WHERE site.id = credit.id
";

const CREDIT_SQLITE: &str = "\
-- name: credit_users
UPDATE members SET up = up + :uploaded, down = down + :downloaded WHERE id = :id
-- name: credit_torrents
UPDATE uploads SET snatches = COALESCE(snatches, 0) + :snatches WHERE id = :id
";

impl Server {
    fn schema(&self) -> String {
        let (credit, hash, wanted) = match self {
            Self::Mariadb(_) => (CREDIT_MARIADB, "hash", "wanted.info_hash"),
            Self::Postgres(_) => (CREDIT_POSTGRES, "hash", "wanted.info_hash"),
            Self::Sqlite => (CREDIT_SQLITE, "unhex(hash)", "lower(hex(wanted.info_hash))"),
        };
        let schema = SCHEMA.replace("HASH", hash).replace("WANTED", wanted);
        schema + credit
    }

    /// What the check of a database says whose tables or statements differ in one place.
    fn check(&self, number: usize, (from, to): (&str, &str)) -> (bool, String) {
        let schema = self.schema();
        assert!(TABLES.contains(from) || schema.contains(from), "{from}");
        let name = format!("site_{number}");
        let mut site = self.site(&name, &TABLES.replace(from, to), &schema.replace(from, to));
        let before = rows(&site);
        site.use_file();
        let (is_migrated, said) = site.says(&["migrate"]);
        assert!(is_migrated, "{said}");
        let result = site.says(&["check"]);
        assert_eq!(rows(&site), before, "a check changes nothing");
        result
    }
}

fn rows(site: &Site<'_>) -> [String; 2] {
    let users = site
        .sql("SELECT count(*), sum(id), max(up), max(down), min(nick), max(rsskey) FROM members");
    [
        users,
        site.sql("SELECT count(*), sum(snatches), min(name) FROM uploads"),
    ]
}

/// Each with what differs, and what is said of it; the first has nothing.
type Cases<'c> = [((&'c str, &'c str), &'c [&'c str])];

fn are_found(server: &Server, cases: &Cases<'_>) {
    let (is_right, said) = server.check(0, ("", ""));
    assert!(
        is_right && said.contains("everything that Mika needs works"),
        "{said}"
    );
    for (number, (change, wanted)) in ANYWHERE.iter().chain(cases).enumerate() {
        let (_, said) = server.check(number + 1, *change);
        for wanted in *wanted {
            assert!(
                said.contains(wanted),
                "{change:?}: no {wanted:?} in:\n{said}"
            );
        }
    }
}

/// What is the same everywhere.
const ANYWHERE: &Cases<'_> = &[
    (
        ("0 AS announces", "0"),
        &[
            "the statement find_users (./site.sql:28) can't be sorted by announces: its columns need the names id, passkey",
        ],
    ),
    (
        (
            "SELECT id, rsskey, nick, active, 1, up, down, 0, 0, 0 FROM members WHERE nick",
            "SELECT id, rsskey, nick, active, 1, up, down, 0, 0, 0, 0 FROM members WHERE nick",
        ),
        &[
            "the statement users_named (./site.sql:9) gives 11 columns, and only the first 10 are read: id, passkey",
        ],
    ),
    (
        (
            "WHERE id > :after ORDER BY id LIMIT :limit\n-- name: user\n",
            "WHERE id > :after ORDER BY id DESC LIMIT :limit\n-- name: user\n",
        ),
        &["the statement users (./site.sql:5) must give each id once, and in ascending order"],
    ),
    (
        (
            "WHERE id > :after ORDER BY id LIMIT :limit\n-- name: torrent\n",
            "ORDER BY id\n-- name: torrent\n",
        ),
        &[
            "the statement torrents (./site.sql:15) must give the ids above :after, and at most :limit rows",
        ],
    ),
    (
        ("WHERE rsskey = :passkey", "WHERE nick = :passkey"),
        &[
            "the statement user_of_passkey (./site.sql:11) does not find the user 1, which users (./site.sql:5) gives",
        ],
    ),
    (
        (
            "= wanted.id\n-- name: torrents\n",
            "= wanted.id + 1\n-- name: torrents\n",
        ),
        &["the statement users_known (./site.sql:13) does not find the user 1"],
    ),
    (
        ("1, 5, 7)", "1, 5, NULL)"),
        &["leaves downloaded of the user 1 NULL: write COALESCE(downloaded, 0)"],
    ),
    (
        (
            "rsskey VARCHAR(64)",
            "rsskey VARCHAR(64) CHECK (length(rsskey) < 20)",
        ),
        &[
            "what the statement add_user (./site.sql:31) writes would be refused: ",
            "has a constraint or a trigger",
        ],
    ),
    (
        (
            "up BIGINT NOT NULL",
            "up BIGINT NOT NULL CHECK (up < 4294967296)",
        ),
        &[
            "credit_users (./site.sql:33) does not work: ",
            "has a constraint or a trigger that forbids",
        ],
    ),
];

#[test]
fn what_does_not_fit_is_found_on_mariadb() {
    let server = Server::Mariadb(MariaDb::start());
    are_found(
        &server,
        &[
            (
                ("up BIGINT NOT NULL", "up VARCHAR(20) NOT NULL"),
                &["the column `up` of `members` is varchar(20)", "ALTER TABLE"],
            ),
            (
                ("up BIGINT NOT NULL", "up INTEGER NOT NULL"),
                &["the column `up` of `members` is int(11)"],
            ),
            (
                ("up BIGINT NOT NULL", "up DOUBLE NOT NULL"),
                &[
                    "credit_users (./site.sql:33) adds 576460752303423489 to uploaded, and 576460752303423",
                ],
            ),
            (
                ("rsskey VARCHAR(64)", "rsskey CHAR(20)"),
                &["the column `rsskey` of `members` holds 20 characters"],
            ),
            (
                (
                    "site.up + credit.uploaded, site.down = site.down + credit.downloaded",
                    "site.up + credit.downloaded, site.down = site.down + credit.uploaded",
                ),
                &[
                    "the statement credit_users (./site.sql:33) adds what was uploaded to what users gives as downloaded",
                ],
            ),
            (
                (
                    "STRAIGHT_JOIN members AS site ON site.id = credit.id",
                    "STRAIGHT_JOIN members AS site",
                ),
                &["credit_users (./site.sql:33) credits other users than those of {rows}, too"],
            ),
            (
                (
                    "ON site.id = credit.id\nSET site.up",
                    "ON site.id = credit.id AND site.up > 0\nSET site.up",
                ),
                &[
                    "credit_users (./site.sql:33) changes no row for the user 2, who has no totals yet",
                ],
            ),
        ],
    );
}

#[test]
fn what_does_not_fit_is_found_on_postgresql() {
    let server = Server::Postgres(Postgres::start());
    are_found(
        &server,
        &[
            (
                ("up BIGINT NOT NULL", "up VARCHAR(20) NOT NULL"),
                &[
                    "the statement credit_users (./site.sql:33) does not work: operator does not exist: character varying + bigint",
                ],
            ),
            (
                ("up BIGINT NOT NULL", "up INTEGER NOT NULL"),
                &["the column `up` of `members` is integer"],
            ),
            (
                ("hash VARCHAR(40)", "hash VARCHAR(50)"),
                &["everything that Mika needs works"],
            ),
            (
                ("site.up + credit.uploaded", "site.up + credit.uploaded * 2"),
                &[
                    "the statement credit_users (./site.sql:33) adds 576460752303423489 to uploaded, and users gives 1152921504606846978 more",
                ],
            ),
            (
                (
                    "credit WHERE site.id = credit.id\n-- name: credit_torrents",
                    "credit\n-- name: credit_torrents",
                ),
                &["credit_users (./site.sql:33) credits other users than those of {rows}, too"],
            ),
            (
                ("up = site.up + credit.uploaded", "up = credit.uploaded"),
                &[
                    "credit_users (./site.sql:33) sets uploaded to what is credited: it has to add that",
                ],
            ),
            (
                (
                    "credit WHERE site.id = credit.id\n-- name: credit_torrents",
                    "credit WHERE site.id = credit.id AND site.up > 0\n-- name: credit_torrents",
                ),
                &[
                    "credit_users (./site.sql:33) changes no row for the user 2, who has no totals yet",
                ],
            ),
        ],
    );
}

#[test]
fn what_does_not_fit_is_found_in_sqlite() {
    are_found(
        &Server::Sqlite,
        &[
            (
                ("'key-of-alice', 1, 5", "'key-of-alice', 1, 'five'"),
                &[
                    "the statement users (./site.sql:5) gives no number as its column 6, uploaded: it would be read as 0",
                ],
            ),
            (
                ("unhex(hash)", "hash"),
                &[
                    "info_hash is text: let the statements give unhex(",
                    "docs/schemas.md",
                ],
            ),
            (
                ("lower(hex(wanted.info_hash))", "hex(wanted.info_hash)"),
                &[
                    "torrents_of_hashes (./site.sql:20) does not find the torrent 1, which torrents (./site.sql:15) gives",
                ],
            ),
            (
                (
                    "WHERE id = :id\n-- name: credit_torrents",
                    "WHERE id = :id + 9\n-- name: credit_torrents",
                ),
                &["the statement credit_users (./site.sql:33) changes no row for the user 1"],
            ),
            (
                (
                    "WHERE id = :id\n-- name: credit_torrents",
                    "WHERE id = :id AND up > 0\n-- name: credit_torrents",
                ),
                &[
                    "credit_users (./site.sql:33) changes no row for the user 2, who has no totals yet",
                ],
            ),
        ],
    );
}

#[test]
fn nothing_is_run_on_tables_without_transactions() {
    let server = Server::Mariadb(MariaDb::start());
    let credited = ("down BIGINT);", "members");
    let counted = ("snatches INTEGER);", "uploads");
    let listed = ("title VARCHAR(80));", "clients");
    for (number, (end, table)) in [credited, counted, listed].into_iter().enumerate() {
        for engine in ["MyISAM", "Aria"] {
            let with_engine = end.replace(';', &format!(" ENGINE = {engine};"));
            let tables = TABLES.replace(end, &with_engine);
            let site = server.site(&format!("{engine}_{number}"), &tables, &server.schema());
            let before = rows(&site);
            let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
            let wanted =
                format!("the table {table} has the engine {engine}, which has no transactions");
            assert!(!is_right && said.contains(&wanted), "{said}");
            assert_eq!(rows(&site), before);
        }
    }
    let log = "CREATE TABLE log (member INTEGER) ENGINE = MyISAM;
        CREATE TRIGGER members_log AFTER UPDATE ON members FOR EACH ROW INSERT INTO log VALUES (NEW.id);";
    let site = server.site("logged", &format!("{TABLES} {log}"), &server.schema());
    let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
    assert!(
        !is_right
            && said.contains("the table log has the engine MyISAM, which has no transactions"),
        "{said}"
    );
    assert_eq!(site.sql("SELECT count(*) FROM log"), "0");
}

/// As docs/schemas.md says.
#[test]
fn a_site_without_clients_and_counters_has_statements_that_do_nothing() {
    let none = [
        (Server::Mariadb(MariaDb::start()), " FROM DUAL"),
        (Server::Postgres(Postgres::start()), ""),
        (Server::Sqlite, ""),
    ];
    for (server, from) in none {
        let schema = server.schema();
        let (rest, _) = schema.split_once("-- name: credit_torrents").unwrap();
        let counters = match server {
            Server::Sqlite => "SELECT :id WHERE false",
            _ => "SELECT credit.id FROM {rows} AS credit WHERE false",
        };
        let schema = rest.replace(
            "SELECT prefix, title FROM clients ORDER BY prefix",
            &format!("SELECT '', ''{from} WHERE false"),
        );
        let schema = format!("{schema}-- name: credit_torrents\n{counters}\n");
        let site = server.site("nothing", TABLES, &schema);
        let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
        assert!(
            is_right && !said.contains("whitelist (") && !said.contains("credit_torrents ("),
            "{said}"
        );
    }
}

/// Each with what differs in the tables, and what is said of it.
const LACKING: &Cases<'_> = &[
    (
        (
            "CREATE TABLE clients (prefix",
            "CREATE TABLE clientes (prefix",
        ),
        &[
            "./site.sql:4: \"follow clients\" does not fit the database: ",
            "the statement whitelist (./site.sql:24) does not work: ",
        ],
    ),
    (
        ("nick VARCHAR", "name VARCHAR"),
        &[
            "./site.sql:2: \"follow members\" does not fit the database: ",
            "users (./site.sql:5), user (./site.sql:7), users_named (./site.sql:9)",
            "nick",
        ],
    ),
];

#[test]
fn missing_tables_and_columns_are_named_with_their_lines() {
    let mariadb = Server::Mariadb(MariaDb::start());
    let postgres = Server::Postgres(Postgres::start());
    for server in [mariadb, postgres, Server::Sqlite] {
        for (number, ((from, to), wanted)) in LACKING.iter().enumerate() {
            let tables = TABLES
                .replace(from, to)
                .replace("INSERT INTO clients", "-- ");
            let mut site = server.site(&format!("site_{number}"), &tables, &server.schema());
            let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
            assert!(!is_right);
            for wanted in *wanted {
                assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
            }
            // Triggers that can't work would refuse the site's own edits.
            site.use_file();
            let (is_migrated, said) = site.says(&["migrate"]);
            assert!(!is_migrated && said.contains(wanted[0]), "{said}");
        }
    }
}

#[test]
fn what_is_lost_after_the_migration_is_named_too() {
    let server = Server::Sqlite;
    let mut site = server.site("site", TABLES, &server.schema());
    site.use_file();
    site.mika.managed(&["migrate"]);
    site.sql("ALTER TABLE clients RENAME TO customers");
    let (is_right, said) = site.says(&["check"]);
    assert!(
        !is_right && said.contains("./site.sql:4: \"follow clients\" does not fit"),
        "{said}"
    );
}

#[test]
fn triggers_of_a_table_that_is_followed_no_more_are_dropped() {
    let mariadb = Server::Mariadb(MariaDb::start());
    let postgres = Server::Postgres(Postgres::start());
    for server in [mariadb, postgres, Server::Sqlite] {
        let mut site = server.site("site", TABLES, &server.schema());
        site.use_file();
        site.mika.managed(&["migrate"]);
        assert!(site.says(&["check"]).0);
        site.write(
            &server
                .schema()
                .replace("-- follow clients as whitelist\n", ""),
        );
        let (is_right, said) = site.says(&["check"]);
        let left = "mika_clients_insert, mika_clients_update, mika_clients_delete: left on the table clients";
        let names: Vec<&str> = left.split(": ").next().unwrap().split(", ").collect();
        assert!(
            !is_right && said.contains("left on the table clients"),
            "{said}"
        );
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
        let made = site.mika.managed(&["migrate"]);
        assert!(
            names
                .iter()
                .all(|name| made.contains(&format!("removal of the trigger {name}"))),
            "{made}"
        );
        let (is_right, said) = site.says(&["check"]);
        assert!(is_right, "{said}");
        site.sql("DELETE FROM clients");
        assert_eq!(
            site.sql("SELECT count(*) FROM mika_feed WHERE kind = 'whitelist'"),
            "0"
        );
        site.write(&server.schema());
        assert!(
            site.mika
                .managed(&["migrate"])
                .contains("trigger mika_clients_insert")
        );
    }
}

#[test]
fn missing_rights_are_named_with_their_grant() {
    let server = Server::Mariadb(MariaDb::start());
    let mut site = server.site("site", TABLES, &server.schema());
    site.use_file();
    site.mika.managed(&["migrate"]);
    let Server::Mariadb(mariadb) = &server else {
        unreachable!("it is MariaDB");
    };
    site.sql(
        "CREATE USER mika IDENTIFIED BY 'secret'; GRANT SELECT, INSERT, TRIGGER ON site.* TO mika; \
         GRANT UPDATE, DELETE ON site.mika_peers TO mika",
    );
    let url = format!("mysql://mika:secret@{}/site", mariadb.address());
    site.mika
        .reconfigure(&serde_json::json!({ "storage": { "url": url } }));
    let (is_right, said) = site.says(&["check"]);
    let grant = "as an administrator: GRANT UPDATE ON `site`.`members` TO 'mika'@'%'; ";
    assert!(!is_right && said.contains(grant), "{said}");
    assert!(
        said.contains("GRANT DELETE, UPDATE ON `site`.`mika_feed` TO 'mika'@'%'"),
        "{said}"
    );
    assert!(
        !said.contains("`site`.*"),
        "no more than is missing: {said}"
    );
}
