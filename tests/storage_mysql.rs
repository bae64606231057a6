//! MySQL and MariaDB as storage: the contract, and what only a server can do to it.

mod harness;

use std::cell::Cell;
use std::sync::Arc;

use harness::mariadb::MariaDb;
use mika::secret::Secret;
use mika::storage::{Drivers, Place, Storage, StorageError, contract};

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

/// What a web application of 2015 has, and nothing else.
const SITE_2015: &str = "
    CREATE TABLE users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, passkey VARCHAR(255) NOT NULL,
        username VARCHAR(255) NOT NULL) DEFAULT CHARACTER SET latin1;
    CREATE TABLE torrents (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, info_hash BINARY(20) NOT NULL,
        release_name VARCHAR(255) NOT NULL) DEFAULT CHARACTER SET latin1;
    CREATE TABLE xbt_client_whitelist (peer_id VARCHAR(20) NOT NULL, vstring VARCHAR(200) NOT NULL)
        DEFAULT CHARACTER SET latin1;";

fn try_open(url: &str, schema: &str) -> Result<Arc<dyn Storage>, StorageError> {
    let open = Drivers::built_in().get("mysql").unwrap();
    open(&Place {
        url: Secret::new(url),
        schema: schema.into(),
        ..Place::default()
    })
}

fn open(url: &str, schema: &str) -> Arc<dyn Storage> {
    try_open(url, schema).unwrap()
}
