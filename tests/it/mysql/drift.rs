//! Changes to a database after its migration, by tools and administrators: triggers, accounts, engines.

use mika::storage::{CreditRules, Feed, Severity, Storage};

use super::setups::{PRIVILEGES, notes, problem, problems, server_with, those};
use super::{Fixture, SITE_2015, batch, open, try_open};
use crate::harness::mariadb::MariaDb;

#[tokio::test]
async fn triggers_moved_with_a_renamed_table_are_restored() {
    let it = Fixture::new().await;
    it.sql(
        "CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB;
         CREATE TABLE _users_gho LIKE users; INSERT INTO _users_gho SELECT * FROM users;
         RENAME TABLE users TO _users_del, _users_gho TO users;
         CREATE TRIGGER site_users_update AFTER UPDATE ON users FOR EACH ROW INSERT INTO audit () VALUES ()",
    );
    let found = problem(&*it.storage).await;
    assert!(
        found.contains(
            "mika_users_update, mika_users_delete: on the table _users_del and not on users"
        ) && found.contains("run mika-manage migrate"),
        "{found}"
    );
    assert_eq!(
        those(&it.storage.inspect().await.unwrap(), Severity::Problem).len(),
        1
    );
    follow_again_after_a_migration(&*it.storage, |sql| it.sql(sql)).await;
    let of_the_site =
        "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name = 'site_users_update'";
    assert_eq!(it.sql(of_the_site), "1");
}

/// Three triggers are not where they should be: the migration makes them, and followers load everything once.
pub async fn follow_again_after_a_migration(storage: &dyn Storage, run: impl Fn(&str) -> String) {
    let position = storage.feed_position().await.unwrap();
    run("UPDATE users SET enabled = false WHERE id = 7");
    let made = storage.migrate().await.unwrap();
    let is_made = |it: &&String| it.starts_with("trigger ");
    assert_eq!(made.iter().filter(is_made).count(), 3, "{made:?}");
    assert_eq!(problems(storage).await, [""; 0]);
    assert_eq!(storage.migrate().await.unwrap(), [""; 0]);
    // What was not recorded is loaded again, once.
    let feed = storage.feed(position, 10).await.unwrap();
    assert!(matches!(feed, Feed::Lost), "{feed:?}");
    let position = storage.feed_position().await.unwrap();
    run("UPDATE users SET enabled = false WHERE id = 8");
    let Feed::Changes(changes, _) = storage.feed(position, 10).await.unwrap() else {
        panic!("lost again");
    };
    assert_eq!(changes.len(), 1);
}

#[tokio::test]
async fn missing_and_changed_triggers_are_restored() {
    let it = Fixture::new().await;
    it.sql(
        "DROP TRIGGER mika_torrents_delete; DROP TRIGGER mika_users_insert;
         CREATE TRIGGER mika_users_insert BEFORE INSERT ON users FOR EACH ROW SET NEW.enabled = 1;
         DROP TRIGGER mika_whitelist_insert;
         CREATE TRIGGER mika_whitelist_insert AFTER INSERT ON whitelist FOR EACH ROW SET @x = 1",
    );
    let found = problem(&*it.storage).await;
    for expected in [
        "mika_torrents_delete: missing from the table torrents",
        "mika_users_insert: BEFORE INSERT and not AFTER INSERT",
        "mika_whitelist_insert: with another body",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert_eq!(it.storage.migrate().await.unwrap().len(), 3);
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}

#[tokio::test]
async fn triggers_of_a_deleted_account_are_restored() {
    let (server, url) = server_with(&[]);
    server.sql("CREATE USER old IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO old");
    let old = open(&url.replace("mika:p", "old:p"), "mika");
    old.migrate().await.unwrap();
    server.sql("INSERT INTO mika.users (id, passkey, username) VALUES (7, 'passkey-7', 'x'), (8, 'passkey-8', 'y');
        INSERT INTO mika.torrents (id, info_hash) VALUES (3, REPEAT('a', 20)), (4, REPEAT('b', 20))");
    let storage = open(&url, "mika");
    // As long as the account is there, all is well.
    assert_eq!(problems(&*storage).await, [""; 0]);
    server.sql("REVOKE ALL ON mika.* FROM old; FLUSH PRIVILEGES");
    let found = problem(&*storage).await;
    assert!(found.contains("as old@%, which can't do it"), "{found}");
    server.sql("DROP USER old");
    let found = problem(&*storage).await;
    assert!(
        found.contains("as old@%, an account that is gone"),
        "{found}"
    );
    let error = storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "Mika's triggers run as old@%, an account that is gone: run mika-manage migrate"
        ),
        "{error}"
    );
    // For triggers that credit does not run, the existence of their account can't be seen.
    server.sql("CREATE USER old IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO old");
    let old = open(&url.replace("mika:p", "old:p"), "mika");
    assert_eq!(storage.migrate().await.unwrap().len(), 0);
    assert_eq!(problems(&*old).await, [""; 0]);
    server.sql("DROP USER old");
    assert_eq!(storage.migrate().await.unwrap().len(), 9);
    server.sql("DROP TRIGGER mika.mika_whitelist_insert; CREATE DEFINER = nobody TRIGGER mika.mika_whitelist_insert
        AFTER INSERT ON mika.whitelist FOR EACH ROW INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0)");
    let found = problem(&*storage).await;
    assert!(
        found.contains("mika_whitelist_insert: as nobody@%, and not as Mika's account"),
        "{found}"
    );
    // The right to make tables is not needed for it.
    server.sql("REVOKE CREATE, ALTER, INDEX, DROP ON mika.* FROM mika");
    let storage = open(&url, "mika");
    assert_eq!(
        storage.migrate().await.unwrap(),
        ["trigger mika_whitelist_insert"]
    );
    assert_eq!(problems(&*storage).await, [""; 0]);
    storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(
        server.sql("SELECT uploaded FROM mika.users WHERE id = 7"),
        "5"
    );
}

#[tokio::test]
async fn missing_privileges_are_named() {
    let (server, url) = server_with(&[]);
    open(&url, "mika").migrate().await.unwrap();
    server.sql("REVOKE TRIGGER ON mika.* FROM mika");
    let found = problem(&*open(&url, "mika")).await;
    assert!(
        found.contains("lacks the privilege TRIGGER: Mika's triggers can't be seen →")
            && found.contains("GRANT TRIGGER ON `mika`.* TO 'mika'@'%'"),
        "{found}"
    );
    server.sql("GRANT TRIGGER ON mika.* TO mika; REVOKE DELETE, UPDATE ON mika.* FROM mika");
    let found = problem(&*open(&url, "mika")).await;
    for expected in [
        "lacks the privileges DELETE on history, mika_feed, mika_journal, peers, torrents",
        "; UPDATE on history, mika_feed, mika_identity, mika_journal, peers, torrents, users",
        "GRANT DELETE, UPDATE ON `mika`.* TO 'mika'@'%' (see Rights in docs/sql.md)",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // By a role, and by a name with a wildcard, is as good.
    server.sql(&format!(
        "REVOKE ALL ON mika.* FROM mika; CREATE ROLE tracker; GRANT {PRIVILEGES} ON `mik_`.* TO tracker;
         GRANT tracker TO mika; SET DEFAULT ROLE tracker FOR mika"
    ));
    assert_eq!(problems(&*open(&url, "mika")).await, [""; 0]);
}

#[tokio::test]
async fn a_view_is_reported_and_works_without_a_feed() {
    let (server, url) = server_with(&[]);
    server.sql(&format!("GRANT CREATE VIEW ON mika.* TO mika; USE mika; {SITE_2015}
        INSERT INTO users VALUES (7, 'passkey-7', 'seven');
        RENAME TABLE users TO members; CREATE VIEW users AS SELECT id, passkey, username FROM members"));
    let error = open(&url, "mika-2015")
        .migrate()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("users is a view, which can't have triggers")
            && error.contains("storage.statements.feed to \"\""),
        "{error}"
    );
    assert_eq!(
        server.sql("SHOW TABLES FROM mika LIKE 'mika%'"),
        "",
        "nothing was made"
    );
    let storage = try_open(&url, "mika-2015", &[("feed", "")]).unwrap();
    storage.migrate().await.unwrap();
    assert_eq!(problems(&*storage).await, [""; 0]);
    assert_eq!(storage.users(None, 10).await.unwrap().rows.len(), 1);
    // A table that became a view later.
    let it = Fixture::new().await;
    it.sql("RENAME TABLE users TO members; CREATE VIEW users AS SELECT * FROM members");
    let found = problems(&*it.storage).await.join("\n");
    assert!(
        found.contains("users is a view") && found.contains("storage.statements.feed"),
        "{found}"
    );
}

#[tokio::test]
async fn tables_without_transactions_are_reported() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE users ENGINE = MyISAM; ALTER TABLE mika_journal ENGINE = Aria");
    let findings = it.storage.inspect().await.unwrap();
    let fatal = those(&findings, Severity::Fatal).join("\n");
    for expected in [
        "the table users has the engine MyISAM, which has no transactions: credit could count twice \
         → ALTER TABLE `users` ENGINE = InnoDB",
        "ALTER TABLE `mika_journal` ENGINE = InnoDB",
    ] {
        assert!(fatal.contains(expected), "{expected}: {fatal}");
    }
    // Where Mika only edits, it is worth a note.
    it.sql(
        "ALTER TABLE users ENGINE = InnoDB; ALTER TABLE mika_journal ENGINE = InnoDB;
        ALTER TABLE mika_feed ENGINE = MyISAM",
    );
    let feed = notes(&*it.storage).await.join("\n");
    assert!(feed.contains("mika_feed has the engine MyISAM"), "{feed}");
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE users ENGINE = MyISAM"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    let notes = notes(&*storage).await.join("\n");
    assert!(notes.contains("users has the engine MyISAM"), "{notes}");
}
