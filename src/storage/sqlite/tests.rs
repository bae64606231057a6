//! What is particular to SQLite; the rest is in the contract.

use std::time::Duration;

use tempfile::TempDir;

use super::*;

const SHORT: Duration = Duration::from_millis(50);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn keeps_the_contract() {
    let folder = folder();
    let count = std::cell::Cell::new(0);
    crate::storage::contract::run(|| {
        count.set(count.get() + 1);
        let path = folder.path().join(format!("{}.db", count.get()));
        async move { open(&Secret::new(format!("sqlite://{}", path.display()))).unwrap() }
    })
    .await;
}
