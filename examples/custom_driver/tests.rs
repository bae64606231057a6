//! The driver passes the contract, and reads again what it wrote.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use mika::base::secret::Secret;
use mika::storage::contract::{self, Optional};
use mika::storage::{NewUser, Storage, StorageConfig};
use parking_lot::Mutex;

use super::driver::open;
use super::file::Result;

/// What the driver leaves out.
const MISSING: [Optional; 10] = [
    Optional::Migrations,
    Optional::Edits,
    Optional::Whitelist,
    Optional::Lists,
    Optional::WithRecords,
    Optional::Upkeep,
    Optional::Totals,
    Optional::Snatches,
    Optional::NewIds,
    Optional::Removal,
];

fn open_in(folder: &Path) -> Result<Arc<dyn Storage>> {
    let file = folder.join("mika.log").display().to_string();
    open(&StorageConfig {
        url: Secret::new(file),
        ..StorageConfig::default()
    })
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn user(number: u32) -> NewUser {
    NewUser {
        id: None,
        username: format!("user {number}"),
        passkey: format!("passkey-{number}").parse().unwrap(),
        can_leech: true,
    }
}

#[tokio::test]
async fn it_fulfils_the_contract() {
    let folders = Mutex::new(Vec::new());
    let open_new = async || {
        let folder = folder();
        let storage = open_in(folder.path()).unwrap();
        folders.lock().push(folder);
        storage
    };
    contract::run_without(&MISSING, open_new).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_half_a_line_is_not() {
    let folder = folder();
    let storage = open_in(folder.path()).unwrap();
    let identity = storage.identity().await.unwrap();
    storage.add_user(&user(1)).await.unwrap();
    assert!(open_in(folder.path()).is_err(), "it is locked");
    drop(storage);
    let mut options = OpenOptions::new();
    let mut file = options.append(true).open(folder.path().join("mika.log"));
    let file = file.as_mut().unwrap();
    file.write_all(br#"{"User":[2,"half"#).unwrap();
    for number in 2..4 {
        let storage = open_in(folder.path()).unwrap();
        assert_eq!(storage.identity().await.unwrap(), identity);
        let rows = storage.users(None, 10).await.unwrap().rows;
        assert_eq!(rows.len(), number as usize - 1);
        storage.add_user(&user(number)).await.unwrap();
    }
}
