//! The storage contract on a real server, with both schemas.

use std::cell::Cell;

use mika::storage::contract;

use super::{SITE_2015, open};
use crate::harness::mariadb::MariaDb;

#[tokio::test]
async fn keeps_the_contract_with_its_own_schema() {
    let server = MariaDb::start();
    let count = Cell::new(0);
    contract::run(|| {
        count.set(count.get() + 1);
        let url = server.database(&format!("own{}", count.get()));
        async move { open(&url, "mika") }
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_beside_the_tables_of_2015() {
    let server = MariaDb::start();
    let count = Cell::new(0);
    contract::run_private(|| {
        count.set(count.get() + 1);
        let name = format!("site{}", count.get());
        let url = server.database(&name);
        server.sql(&format!("USE {name}; {SITE_2015}"));
        async move { open(&url, "mika-2015") }
    })
    .await;
}
