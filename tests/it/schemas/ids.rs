//! What is said of ids that Mika can't use, or that the database gave twice.

use serde_json::json;

use super::{Server, example};
use crate::harness::Mika;
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;

/// Triggers with such a key would refuse the site's own edits.
#[test]
fn a_uuid_as_id_is_refused_before_triggers_are_made() {
    let (django, postgres_schema) = example("An example: a Django site");
    let (laravel, mysql_schema) = example("An example: a Laravel site");
    let postgres = (
        Server::Postgres(Postgres::start()),
        django.replacen("bigserial", "uuid", 1),
        postgres_schema,
        "./site.sql:2: \"follow accounts_user\" does not fit the database: its KEY id is uuid",
    );
    let mariadb = (
        Server::Mariadb(MariaDb::start()),
        laravel.replacen("BIGINT UNSIGNED AUTO_INCREMENT", "CHAR(36)", 1),
        mysql_schema,
        "./site.sql:2: \"follow users\" does not fit the database: its KEY id is char(36)",
    );
    for (server, tables, schema, wanted) in [postgres, mariadb] {
        let mut site = server.site("site", &tables, &schema);
        let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
        assert!(!is_right && said.contains(wanted), "{said}");
        assert!(said.contains("see UUID in docs/schemas.md"), "{said}");
        assert!(
            !said.contains("does not work"),
            "one cause is named once: {said}"
        );
        site.use_file();
        let (is_migrated, said) = site.says(&["migrate"]);
        assert!(!is_migrated && said.contains(wanted), "{said}");
    }
}

/// A site without `follow` lines: the rows say it.
#[test]
fn a_row_with_a_uuid_says_what_is_wanted() {
    let (laravel, schema) = example("An example: a Laravel site");
    let server = Server::Mariadb(MariaDb::start());
    let tables = laravel.replacen("BIGINT UNSIGNED AUTO_INCREMENT", "CHAR(36)", 1);
    let schema = schema.replace("-- follow users", "-- users");
    let site = server.site("site", &tables, &schema);
    site.sql("INSERT INTO users (id, name, email, password, passkey) VALUES (UUID(), 'a', 'a', '', 'key-of-alice')");
    let (is_right, said) = site.says(&["schema", "test", "site.sql"]);
    let wanted = "its id is no integer up to 4294967295: see UUID in docs/schemas.md";
    assert!(!is_right && said.contains(wanted), "{said}");
}

#[test]
fn a_sequence_behind_inserted_ids_is_named_with_its_remedy() {
    let server = Postgres::start();
    let url = server.database("site");
    let mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "postgres", "url": url },
    }));
    mika.managed(&["migrate"]);
    server.sql(
        "site",
        "INSERT INTO users (id, passkey, username) SELECT id, 'key-of-' || id, 'u' FROM generate_series(1, 3) AS id",
    );
    let add = || {
        let output = mika.manage(&["users", "add", "dave"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let (is_added, said) = add();
    let remedy = "SELECT setval('public.users_id_seq', (SELECT max(id) FROM users))";
    assert!(
        !is_added && said.contains(&format!("run {remedy}")),
        "{said}"
    );
    server.sql("site", remedy);
    let (is_added, said) = add();
    assert!(is_added, "{said}");
    assert_eq!(server.sql("site", "SELECT max(id) FROM users"), "4");
}

#[test]
fn a_file_is_not_shown_but_tried() {
    let mika = Mika::prepare(&json!({}));
    let output = mika.manage(&["schema", "show", "./site.sql"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("./site.sql is a file")
            && said.contains("mika-manage schema test ./site.sql"),
        "{said}"
    );
}
