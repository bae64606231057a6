//! The storage contract on a real server.

use std::cell::Cell;

use mika::storage::contract;

use super::open;
use crate::harness::postgres::Postgres;

#[tokio::test]
async fn keeps_the_contract() {
    let server = Postgres::start();
    let count = Cell::new(0);
    contract::run(|| {
        count.set(count.get() + 1);
        let url = server.database(&format!("own{}", count.get()));
        async move { open(&url) }
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_by_the_unix_socket() {
    let server = Postgres::start();
    let count = Cell::new(0);
    contract::run_private(|| {
        count.set(count.get() + 1);
        let name = format!("own{}", count.get());
        server.database(&name);
        let url = server.url_by_socket(&name);
        async move { open(&url) }
    })
    .await;
}
