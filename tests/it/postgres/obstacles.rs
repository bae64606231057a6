//! What keeps a migrated database from working, and what the check reports.

use mika::storage::{CreditRules, StorageError};

use super::{Fixture, open};
use crate::harness::postgres::Postgres;
use crate::mysql::batch;
use crate::mysql::setups::{notes, problem, problems};

#[tokio::test]
async fn a_read_only_server_is_reported() {
    let it = Fixture::new().await;
    let standby = it.server.standby();
    let storage = open(&standby.url("mika"));
    let rules = CreditRules::default();
    for error in [
        storage.apply(&[batch(1, 0..1)], &rules).await.unwrap_err(),
        storage.check().await.unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::Away(_)), "{error:?}");
        let error = error.to_string();
        assert!(
            error.contains("it is a standby: name the primary server in storage.url"),
            "{error}"
        );
    }
    // What a site sets for its own transactions does not matter.
    it.sql("ALTER DATABASE mika SET default_transaction_read_only = on");
    let storage = open(&it.server.url("mika"));
    assert_eq!(problems(&*storage).await, [""; 0]);
    storage.apply(&[batch(1, 0..1)], &rules).await.unwrap();
}

#[tokio::test]
async fn columns_without_a_default_are_noted() {
    let it = Fixture::empty(&[]).await;
    it.sql(
        "ALTER TABLE users ADD email text NOT NULL, ADD karma int NOT NULL DEFAULT 0, ADD joined date NOT NULL,
             ADD number bigint GENERATED ALWAYS AS IDENTITY;
         ALTER TABLE torrents ADD category int NOT NULL",
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
    let server = Postgres::start();
    let url = server.database("mika");
    server.sql(
        "mika",
        "CREATE TABLE users (id int PRIMARY KEY, login text)",
    );
    let storage = open(&url);
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
    it.sql("ALTER TABLE users RENAME TO users_old");
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
    it.sql("ALTER TABLE users_old RENAME TO users");
    it.storage.migrate().await.unwrap();
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}
