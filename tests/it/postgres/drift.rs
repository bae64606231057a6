//! Changes to a database after its migration, by tools and administrators: triggers, views, unlogged tables.

use mika::storage::{CreditRules, Severity};

use super::{Fixture, open, try_open};
use crate::harness::postgres::Postgres;
use crate::mysql::batch;
use crate::mysql::drift::follow_again_after_a_migration;
use crate::mysql::setups::{problem, problems, those};

#[tokio::test]
async fn triggers_moved_with_a_renamed_table_are_restored() {
    let it = Fixture::new().await;
    it.sql(
        "CREATE TABLE audit (id bigserial PRIMARY KEY);
         CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN INSERT INTO audit DEFAULT VALUES; RETURN NULL; END';
         CREATE TABLE users_new (LIKE users INCLUDING ALL); INSERT INTO users_new SELECT * FROM users;
         ALTER TABLE users RENAME TO users_old; ALTER TABLE users_new RENAME TO users;
         CREATE TRIGGER site_users_update AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION audited()",
    );
    let found = problem(&*it.storage).await;
    assert!(
        found.contains(
            "mika_users_insert, mika_users_update, mika_users_delete: on the table users_old and not on users"
        ) && found.contains("run mika-manage migrate"),
        "{found}"
    );
    let inspected = it.storage.inspect().await.unwrap();
    assert_eq!(those(&inspected, Severity::Problem).len(), 1);
    follow_again_after_a_migration(&*it.storage, |sql| it.sql(sql)).await;
    let of_others = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'users_old'::regclass AND tgname LIKE 'mika%'";
    assert_eq!(it.sql(of_others), "0");
    let of_the_site = "SELECT count(*) FROM pg_trigger
        WHERE tgrelid = 'users'::regclass AND tgname = 'site_users_update'";
    assert_eq!(it.sql(of_the_site), "1");
}

#[tokio::test]
async fn missing_and_changed_triggers_are_restored() {
    let it = Fixture::new().await;
    it.sql(
        "DROP TRIGGER mika_torrents_delete ON torrents; DROP TRIGGER mika_users_insert ON users;
         CREATE TRIGGER mika_users_insert BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION mika_users_insert();
         CREATE OR REPLACE FUNCTION mika_whitelist_insert() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RETURN NULL; END';
         ALTER TABLE whitelist DISABLE TRIGGER mika_whitelist_update",
    );
    let found = problem(&*it.storage).await;
    for expected in [
        "mika_torrents_delete: missing from the table torrents",
        "mika_users_insert: BEFORE INSERT and not AFTER INSERT",
        "mika_whitelist_insert: with another body",
        "mika_whitelist_update: disabled",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert_eq!(it.storage.migrate().await.unwrap().len(), 4);
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}

/// A table of users with another name, which a view shows under the expected one.
const MEMBERS: &str =
    "ALTER TABLE users RENAME TO members; CREATE VIEW users AS SELECT * FROM members";

#[tokio::test]
async fn a_view_is_reported_and_works_without_a_feed() {
    let it = Fixture::new().await;
    it.sql(MEMBERS);
    let found = problems(&*it.storage).await.join("\n");
    assert!(
        found.contains("users is a view, which can't have triggers")
            && found.contains("storage.statements.feed to \"\""),
        "{found}"
    );
    let storage = try_open(&it.server.url("mika"), &[("feed", "")]).unwrap();
    assert_eq!(storage.migrate().await.unwrap(), [""; 0]);
    assert_eq!(problems(&*storage).await, [""; 0]);
    let rules = CreditRules::default();
    storage.apply(&[batch(1, 0..10)], &rules).await.unwrap();
    assert_eq!(it.sql("SELECT uploaded FROM members WHERE id = 7"), "5");
}

#[tokio::test]
async fn a_view_is_reported_before_anything_is_made() {
    let server = Postgres::start();
    let url = server.database("site");
    server.sql(
        "site",
        "CREATE TABLE members (id bigint PRIMARY KEY); CREATE VIEW users AS SELECT * FROM members",
    );
    let error = open(&url).migrate().await.unwrap_err().to_string();
    assert!(
        error.contains("users is a view, which can't have triggers")
            && error.contains("storage.statements.feed to \"\""),
        "{error}"
    );
    let made = "SELECT count(*) FROM pg_class WHERE relname LIKE 'mika%'";
    assert_eq!(server.sql("site", made), "0");
}

#[tokio::test]
async fn unlogged_tables_are_reported() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE users SET UNLOGGED; ALTER TABLE mika_journal SET UNLOGGED");
    let findings = it.storage.inspect().await.unwrap();
    let fatal = those(&findings, Severity::Fatal).join("\n");
    for expected in [
        "the table users is unlogged, so that a crash empties it: credit could count twice \
         → ALTER TABLE users SET LOGGED",
        "ALTER TABLE mika_journal SET LOGGED",
    ] {
        assert!(fatal.contains(expected), "{expected}: {fatal}");
    }
    it.sql("ALTER TABLE users SET LOGGED; ALTER TABLE mika_journal SET LOGGED");
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}
