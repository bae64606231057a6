//! A schema of a site's own, in a file: what is wrong in it is said before anything runs.

use std::fs;

use serde_json::json;

use crate::harness::Mika;
use crate::harness::mariadb::MariaDb;

const TABLES: &str = "
    CREATE TABLE members (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, nick VARCHAR(60) NOT NULL,
        rsskey CHAR(32), status ENUM('active', 'banned') NOT NULL DEFAULT 'active');
    CREATE TABLE stats (member_id BIGINT UNSIGNED PRIMARY KEY, up BIGINT UNSIGNED NOT NULL, down BIGINT UNSIGNED NOT NULL);
    CREATE TABLE uploads (id INT AUTO_INCREMENT PRIMARY KEY, hash BINARY(20), name VARCHAR(255), deleted_at DATETIME);
    CREATE TABLE clients (prefix VARCHAR(20), title VARCHAR(80));";

const SCHEMA: &str = "\
-- A site with a table of totals, and rows that are marked as deleted.
-- follow members as user by id: rsskey, nick, status
-- follow uploads as torrent by id: hash, name, deleted_at
-- follow clients as whitelist
-- name: users
SELECT m.id, m.rsskey, m.nick, m.status = 'active', 1, s.up, s.down, 0, 0, 0
FROM members m LEFT JOIN stats s ON s.member_id = m.id WHERE m.id > :after ORDER BY m.id LIMIT :limit
-- name: user
SELECT m.id, m.rsskey, m.nick, m.status = 'active', 1, s.up, s.down, 0, 0, 0
FROM members m LEFT JOIN stats s ON s.member_id = m.id WHERE m.id = :id
-- name: users_named
SELECT m.id, m.rsskey, m.nick, m.status = 'active', 1, s.up, s.down, 0, 0, 0
FROM members m LEFT JOIN stats s ON s.member_id = m.id WHERE m.nick = :username
-- name: user_of_passkey
SELECT id FROM members WHERE rsskey = :passkey
-- name: users_known
SELECT members.id FROM {rows} AS wanted STRAIGHT_JOIN members ON members.id = wanted.id
-- name: torrents
SELECT id, hash, NULL, name, 1, NULL, 1, 1, 0, 0, 0, 0, 0, 0
FROM uploads WHERE deleted_at IS NULL AND id > :after ORDER BY id LIMIT :limit
-- name: torrent
SELECT id, hash, NULL, name, 1, NULL, 1, 1, 0, 0, 0, 0, 0, 0 FROM uploads WHERE deleted_at IS NULL AND id = :id
-- name: torrents_of_hashes
SELECT u.id, u.hash, NULL FROM {rows} AS wanted STRAIGHT_JOIN uploads u ON u.hash = wanted.info_hash
WHERE u.deleted_at IS NULL
-- name: torrents_known
SELECT u.id FROM {rows} AS wanted STRAIGHT_JOIN uploads u ON u.id = wanted.id WHERE u.deleted_at IS NULL
-- name: whitelist
SELECT prefix, title FROM clients ORDER BY prefix
-- name: credit_users
INSERT INTO stats (member_id, up, down) SELECT credit.id, credit.uploaded, credit.downloaded FROM {rows} AS credit
ON DUPLICATE KEY UPDATE stats.up = stats.up + credit.uploaded, stats.down = stats.down + credit.downloaded
-- name: credit_torrents
UPDATE {rows} AS credit STRAIGHT_JOIN uploads u ON u.id = credit.id SET u.name = u.name
";

#[test]
fn a_wrong_line_or_statement_is_said_before_anything_runs() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!("USE site; {TABLES}"));
    let mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "mysql", "url": url },
        "tracker": { "whitelist": true },
    }));
    let test = |text: &str| {
        fs::write(mika.path("site.sql"), text).unwrap();
        let output = mika.manage(&["schema", "test", "site.sql"]);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (is_right, said) = test(SCHEMA);
    assert!(is_right, "{said}");
    assert!(
        said.contains(
            "changes of stats, which the statement users (./site.sql:5) reads, are not followed"
        ),
        "{said}"
    );
    for (from, to, problem) in [
        (
            "SELECT credit.id, credit.uploaded",
            "SELECT credit.id, credit.up",
            "credit.up",
        ),
        ("stats.up + credit", "stats.ups + credit", "stats.ups"),
        ("SET u.name = u.name", "SET u.name = u.title", "u.title"),
        ("follow members", "follow member", "follow member"),
        ("nick, status", "nick, state", "state"),
        ("name: user\n", "name: users\n", "\"users\" is there twice"),
    ] {
        let (is_right, said) = test(&SCHEMA.replace(from, to));
        assert!(!is_right && said.contains(problem), "{problem}: {said}");
    }
    let (_, said) = test(&SCHEMA.replace("-- follow uploads", "-- folow uploads"));
    assert!(
        said.contains("site.sql:3") && said.contains("did you mean \"-- follow uploads"),
        "{said}"
    );
    let (_, said) = test(&SCHEMA.replace("-- follow uploads", "-- uploads"));
    assert!(
        said.contains("changes of torrents are not followed"),
        "{said}"
    );
}

#[test]
fn a_schema_that_is_shown_can_be_tested() {
    let server = MariaDb::start();
    let url = server.database("site");
    let mika = Mika::prepare(&json!({ "storage": { "driver": "mysql", "url": url } }));
    mika.managed(&["migrate"]);
    let shown = mika.managed(&["schema", "show", "mika"]);
    fs::write(mika.path("copy.sql"), shown).unwrap();
    assert!(mika.managed(&["schema", "test", "copy.sql"]).contains("ok"));
    assert!(mika.managed(&["schema", "list"]).contains("mika-2015"));
    assert!(
        mika.managed(&["migrate", "--print"])
            .contains("CREATE TABLE IF NOT EXISTS mika_journal")
    );
}
