//! The identity of a database, however it is reached and whatever happened to it.

use super::{Fixture, open};
use crate::harness::postgres::Postgres;
use crate::mysql::identity::{lose_the_identity, renew_that_of_a_copy};

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
    renew_that_of_a_copy(&*it.storage, &*open(&url)).await;
}

#[tokio::test]
async fn a_missing_identity_is_reported_and_created() {
    let it = Fixture::new().await;
    lose_the_identity(&*it.storage, |sql| it.sql(sql)).await;
}
