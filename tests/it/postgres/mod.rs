//! PostgreSQL as storage: the contract, and what only a real server can do to it.
//! This file holds what these tests share.

mod batter;
mod columns;
mod contract;
mod drift;
mod durability;
mod faults;
mod feed;
mod identity;
mod listen;
mod obstacles;
mod programs;
mod rights;
mod setups;
mod sites;
mod standby;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use mika::base::ids::UserId;
use mika::base::secret::Secret;
use mika::storage::{Storage, StorageConfig, StorageDrivers, StorageError};

use crate::harness::postgres::Postgres;

/// What a site writes at least: the users 7 and 8, the torrents 3 and 4.
const SITE: &str = "
    INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven'), (8, 'passkey-8', 'eight');
    INSERT INTO torrents (id, info_hash, release_name)
        VALUES (3, decode(repeat('01', 20), 'hex'), 'three'), (4, decode(repeat('02', 20), 'hex'), 'four');";

/// A server with the migrated database `mika`, and a site's rows in it.
pub struct Fixture {
    pub server: Postgres,
    pub storage: Arc<dyn Storage>,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(options: &[&str]) -> Self {
        let it = Self::empty(options).await;
        it.sql(SITE);
        it
    }

    /// The same without the site's rows.
    pub async fn empty(options: &[&str]) -> Self {
        let server = Postgres::start_with(options);
        let storage = open(&server.database("mika"));
        storage.migrate().await.unwrap();
        Self { server, storage }
    }

    /// Runs SQL in the database, as the site does.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql("mika", sql)
    }

    pub async fn uploaded(&self, user: u32) -> u64 {
        let user = self.storage.user(UserId(user)).await.unwrap().unwrap();
        user.totals.uploaded
    }
}

pub fn try_open(url: &str, statements: &[(&str, &str)]) -> Result<Arc<dyn Storage>, StorageError> {
    let open = StorageDrivers::built_in().get("postgres").unwrap();
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let statements: BTreeMap<String, String> = statements.iter().map(owned).collect();
    open(&StorageConfig {
        url: Secret::new(url),
        schema: "mika".into(),
        statements,
    })
}

pub fn open(url: &str) -> Arc<dyn Storage> {
    try_open(url, &[]).unwrap()
}

/// The problems that the check finds, in one text.
pub async fn problems(storage: &dyn Storage) -> String {
    let findings = storage.check().await.unwrap();
    let problems: Vec<String> = findings.into_iter().map(|it| it.problem).collect();
    problems.join("\n")
}
