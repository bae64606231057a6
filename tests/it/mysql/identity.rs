//! The identity of a database, however it is reached and whatever happened to it.

use mika::storage::{Severity, Storage, StorageError};

use super::{Fixture, SITE_2015, open};
use crate::harness::mariadb::MariaDb;

#[tokio::test]
async fn each_database_has_its_own_identity() {
    let it = Fixture::new().await;
    let id = it.storage.identity().await.unwrap();
    assert!(id.len() == 32, "{id}");
    let by_name = it.server.url("mika").replace("127.0.0.1", "localhost");
    assert_eq!(open(&by_name, "mika").identity().await.unwrap(), id);

    let url = it.server.database("site");
    it.server.sql(&format!("USE site; {SITE_2015}"));
    let neighbour = open(&url, "mika-2015");
    neighbour.migrate().await.unwrap();
    assert_ne!(neighbour.identity().await.unwrap(), id);

    let elsewhere = MariaDb::start();
    let url = elsewhere.database("copy");
    elsewhere.restore("copy", &it.server.dump("mika"));
    renew_that_of_a_copy(&*it.storage, &*open(&url, "mika")).await;
}

/// A copy has the identity of its original until it gets another one.
pub async fn renew_that_of_a_copy(storage: &dyn Storage, copy: &dyn Storage) {
    let id = storage.identity().await.unwrap();
    assert_eq!(copy.identity().await.unwrap(), id);
    assert_eq!(copy.migrate().await.unwrap(), [""; 0]);
    assert_eq!(copy.identity().await.unwrap(), id, "a migration leaves it");
    let new = copy.renew_identity().await.unwrap();
    assert!(new.len() == 32 && new != id, "{new}");
    assert_eq!(copy.identity().await.unwrap(), new);
    assert_eq!(storage.identity().await.unwrap(), id);
}

#[tokio::test]
async fn a_missing_identity_is_reported_and_created() {
    let it = Fixture::new().await;
    lose_the_identity(&*it.storage, |sql| it.sql(sql)).await;
}

/// Loses the identity of a database in every way.
pub async fn lose_the_identity(storage: &dyn Storage, run: impl Fn(&str) -> String) {
    let id = storage.identity().await.unwrap();
    for (sql, hint) in [
        ("UPDATE mika_identity SET id = 'a/b'", "delete that row"),
        ("DELETE FROM mika_identity", "run mika-manage migrate"),
        ("DROP TABLE mika_identity", "run mika-manage migrate"),
    ] {
        run(sql);
        let error = storage.identity().await.unwrap_err();
        assert!(matches!(error, StorageError::Broken(_)), "{error:?}");
        assert!(error.to_string().contains(hint), "{sql}: {error}");
        let findings = storage.check().await.unwrap();
        let said = findings
            .iter()
            .any(|it| it.severity == Severity::Problem && it.problem.contains("mika_identity"));
        assert!(said, "{sql}: {findings:?}");
    }
    assert_eq!(storage.migrate().await.unwrap(), ["identity"]);
    assert_ne!(storage.identity().await.unwrap(), id);
    // The one from before.
    run("DROP TABLE mika_identity; DELETE FROM mika_migrations WHERE name = '0003_identity'");
    let error = storage.identity().await.unwrap_err().to_string();
    assert!(error.contains("run mika-manage migrate"), "{error}");
    assert_eq!(storage.migrate().await.unwrap(), ["0003_identity"]);
    assert_eq!(storage.identity().await.unwrap().len(), 32);
}
