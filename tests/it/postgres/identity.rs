//! The identity of a database, however it is reached and whatever happened to it.

use super::{Fixture, open};
use crate::harness::postgres::Postgres;
use crate::mysql::identity::lose_the_identity;

#[tokio::test]
async fn each_database_has_its_own_identity() {
    let it = Fixture::new().await;
    let id = it.storage.identity().await.unwrap();
    assert!(id.len() == 32, "{id}");
    let by_name = it.server.url("mika").replace("127.0.0.1", "localhost");
    assert_eq!(open(&by_name).identity().await.unwrap(), id);

    let neighbour = open(&it.server.database("site"));
    neighbour.migrate().await.unwrap();
    assert_ne!(neighbour.identity().await.unwrap(), id);

    let elsewhere = Postgres::start();
    let url = elsewhere.database("copy");
    elsewhere.restore("copy", &it.server.dump("mika"));
    let copy = open(&url);
    assert_eq!(copy.identity().await.unwrap(), id);
    assert_eq!(copy.migrate().await.unwrap(), [""; 0]);
    assert_eq!(copy.identity().await.unwrap(), id, "a migration leaves it");
    let new = copy.renew_identity().await.unwrap();
    assert!(new.len() == 32 && new != id, "{new}");
    assert_eq!(copy.identity().await.unwrap(), new);
    assert_eq!(it.storage.identity().await.unwrap(), id);
}

#[tokio::test]
async fn a_missing_identity_is_reported_and_created() {
    let it = Fixture::new().await;
    lose_the_identity(&*it.storage, |sql| it.sql(sql)).await;
}
