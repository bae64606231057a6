//! What keeps a migrated database from working, and what the check reports.

use super::setups::{notes, problem, problems, server_with};
use super::{Fixture, SITE_2015, batch, open};
use crate::harness::mariadb::MariaDb;

#[tokio::test]
async fn a_site_trigger_of_a_deleted_account_is_named() {
    let (server, url) = server_with(&[]);
    server.sql("CREATE USER admin IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO admin");
    let admin = open(&url.replace("mika:p", "admin:p"), "mika");
    admin.migrate().await.unwrap();
    server.sql(
        "USE mika; INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'x'), (8, 'passkey-8', 'y');
         INSERT INTO torrents (id, info_hash) VALUES (3, REPEAT('a', 20)), (4, REPEAT('b', 20));
         CREATE USER olddev; GRANT ALL ON mika.* TO olddev; CREATE TABLE audit (id INT) ENGINE = InnoDB;
         CREATE DEFINER = olddev TRIGGER site_audit AFTER UPDATE ON torrents FOR EACH ROW
             INSERT INTO audit VALUES (NEW.id)",
    );
    let storage = open(&url, "mika");
    assert_eq!(problems(&*storage).await, [""; 0]);
    server.sql("REVOKE ALL ON mika.* FROM olddev; FLUSH PRIVILEGES");
    let found = problem(&*storage).await;
    assert!(
        found.contains("site_audit on torrents runs as olddev@%, an account that may not")
            && found.contains("grant 'olddev'@'%' what it lacks"),
        "{found}"
    );
    server.sql("DROP USER olddev");
    // The accounts of Mika's own triggers are there, and are not blamed.
    let found = problem(&*storage).await;
    for expected in [
        "site_audit on torrents runs as olddev@%, an account that is gone",
        "SHOW CREATE TRIGGER `site_audit`",
        "CREATE USER 'olddev'@'%'",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert!(!found.contains("admin"), "{found}");
    assert_eq!(storage.inspect().await.unwrap().len(), 1);
    let error = storage
        .apply(&[batch(1, 0..2)], &mika::storage::CreditRules::default())
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("site_audit on torrents runs as olddev@%")
            && error.contains("touches Mika's own triggers only"),
        "{error}"
    );
    assert_eq!(storage.migrate().await.unwrap(), [""; 0]);
    server.sql("CREATE USER olddev; GRANT ALL ON mika.* TO olddev");
    storage
        .apply(&[batch(1, 0..2)], &mika::storage::CreditRules::default())
        .await
        .unwrap();
    assert_eq!(problems(&*storage).await, [""; 0]);
}

#[tokio::test]
async fn a_site_trigger_that_only_edits_run_is_named() {
    let (server, url) = server_with(&[]);
    server.sql(&format!(
        "USE mika; {SITE_2015} INSERT INTO users VALUES (7, 'passkey-7', 'seven');
         CREATE USER olddev; CREATE DEFINER = olddev TRIGGER site_users BEFORE UPDATE ON users
             FOR EACH ROW SET NEW.username = TRIM(NEW.username); DROP USER olddev"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    let found = problem(&*storage).await;
    assert!(
        found.contains("site_users on users runs as olddev@%"),
        "{found}"
    );
}

#[tokio::test]
async fn the_hint_to_convert_hashes_needs_valid_hashes() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE torrents MODIFY info_hash VARCHAR(20) CHARACTER SET latin1 NOT NULL;
         INSERT INTO torrents VALUES (1, '', 'x'), (2, '', 'y'), (3, REPEAT('a', 20), 'z'), (4, 'short', 's')"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    let note = async || {
        let findings = storage.check().await.unwrap();
        let mut all = findings.into_iter();
        all.find(|it| it.problem.contains("bytes are safer"))
            .unwrap()
            .hint
    };
    let said = note().await;
    assert!(
        said.contains("correct the rows named below first (1 of") && !said.contains("MODIFY"),
        "{said}"
    );
    server.sql("DELETE FROM site.torrents WHERE id = 4");
    let said = note().await;
    assert!(
        said.contains("is empty (2)") && !said.contains("MODIFY"),
        "{said}"
    );
    server.sql("ALTER TABLE site.torrents MODIFY info_hash VARCHAR(20) CHARACTER SET latin1 NULL");
    let update = "UPDATE `torrents` SET `info_hash` = NULL WHERE LENGTH(`info_hash`) = 0";
    let said = note().await;
    assert!(
        said.starts_with(update) && !said.contains("MODIFY"),
        "{said}"
    );
    server.sql(&format!("USE site; {update}"));
    let alter = note().await;
    assert!(
        alter.starts_with("ALTER TABLE `torrents` MODIFY `info_hash` BINARY(20) NULL"),
        "{alter}"
    );
    server.sql(&format!("USE site; {alter}"));
    assert_eq!(storage.torrents(None, 10).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_read_only_server_is_reported() {
    let (server, url) = server_with(&[]);
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    server.sql("SET GLOBAL read_only = 1");
    let found = problem(&*storage).await;
    assert!(
        found.contains("the server is read-only") && found.contains("SET GLOBAL read_only = 0"),
        "{found}"
    );
    let error = storage
        .apply(&[batch(1, 0..1)], &mika::storage::CreditRules::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("SET GLOBAL read_only = 0"),
        "{error}"
    );
    // An account that may write all the same has no problem.
    assert_eq!(problems(&*open(&server.url("mika"), "mika")).await, [""; 0]);
    server.sql("SET GLOBAL read_only = 0; SET GLOBAL max_allowed_packet = 65536");
    let found = problem(&*storage).await;
    assert!(
        found.contains("max_allowed_packet is 65536 bytes"),
        "{found}"
    );
}

#[tokio::test]
async fn columns_without_a_default_are_noted() {
    let it = Fixture::new().await;
    it.sql(
        "ALTER TABLE users ADD email VARCHAR(80) NOT NULL, ADD karma INT NOT NULL DEFAULT 0, ADD joined DATE NOT NULL;
         ALTER TABLE torrents ADD category INT NOT NULL",
    );
    let notes = notes(&*it.storage).await.join("\n");
    for expected in [
        "adding users by mika-manage or the API will fail: the columns `email`, `joined` of `users` have no default",
        "the column `category` of `torrents` has no default",
        "storage.statements.add_torrent",
    ] {
        assert!(notes.contains(expected), "{expected}: {notes}");
    }
    assert!(!notes.contains("karma"), "{notes}");
}

#[tokio::test]
async fn a_table_of_another_program_is_reported_in_one_line() {
    let server = MariaDb::start();
    let url = server.database("mika");
    server.sql("CREATE TABLE mika.users (id INT PRIMARY KEY, login VARCHAR(20)) ENGINE = InnoDB");
    let storage = open(&url, "mika");
    let error = storage.migrate().await.unwrap_err().to_string();
    assert!(
        error.contains("the table `users` is there and has other columns than Mika's")
            && error.contains("storage.schema")
            && !error.contains("mika-manage migrate"),
        "{error}"
    );
    let found = problems(&*storage).await;
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found[3].contains("the table `users` lacks the columns passkey, username"),
        "{found:#?}"
    );
}

#[tokio::test]
async fn a_missing_table_is_reported_in_one_line() {
    let it = Fixture::new().await;
    it.sql("RENAME TABLE users TO users_old");
    let found = problem(&*it.storage).await;
    assert!(
        found.contains("the table `users` is missing") && found.contains("rename it back"),
        "{found}"
    );
    let error = it.storage.migrate().await.unwrap_err().to_string();
    assert!(
        error.contains("the table `users` is missing") && error.contains("rename it back"),
        "{error}"
    );
    it.sql("RENAME TABLE users_old TO users");
    it.storage.migrate().await.unwrap();
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}
