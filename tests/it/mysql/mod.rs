//! MySQL and MariaDB as storage: the contract, and what only a real server can do to it.
//! This file holds what these tests share.

pub mod columns;
mod contract;
pub mod drift;
mod durability;
mod faults;
mod feed;
mod galera;
mod hosts;
pub mod identity;
mod obstacles;
mod programs;
mod schemas;
pub mod setups;
pub mod sites;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mika::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::base::secret::Secret;
use mika::change::{Batch, Change, Credit, PeerChange, PeerKey, PeerRecord, Standing, SwarmCounts};
use mika::storage::{Storage, StorageConfig, StorageDrivers, StorageError};

use crate::harness::mariadb::MariaDb;
use crate::harness::now;

/// What a web application of 2015 has, and nothing else.
pub const SITE_2015: &str = "
    CREATE TABLE users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, passkey VARCHAR(255) NOT NULL,
        username VARCHAR(255) NOT NULL) DEFAULT CHARACTER SET latin1;
    CREATE TABLE torrents (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, info_hash BINARY(20) NOT NULL,
        release_name VARCHAR(255) NOT NULL) DEFAULT CHARACTER SET latin1;
    CREATE TABLE xbt_client_whitelist (peer_id VARCHAR(20) NOT NULL, vstring VARCHAR(200) NOT NULL)
        DEFAULT CHARACTER SET latin1;";

/// What a site writes at least: the users 7 and 8, the torrents 3 and 4.
const SITE: &str = "
    INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven'), (8, 'passkey-8', 'eight');
    INSERT INTO torrents (id, info_hash, release_name)
        VALUES (3, UNHEX(REPEAT('01', 20)), 'three'), (4, UNHEX(REPEAT('02', 20)), 'four');";

/// A server with the migrated database `mika`, and a site's rows in it.
pub struct Fixture {
    pub server: MariaDb,
    pub storage: Arc<dyn Storage>,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(options: &[&str]) -> Self {
        let server = MariaDb::start_with(options);
        let storage = open(&server.database("mika"), "mika");
        storage.migrate().await.unwrap();
        server.sql(&format!("USE mika; {SITE}"));
        Self { server, storage }
    }

    /// Runs SQL in the database, as the site does.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&format!("USE mika; {sql}"))
    }

    pub async fn uploaded(&self, user: u32) -> u64 {
        let user = self.storage.user(UserId(user)).await.unwrap().unwrap();
        user.totals.uploaded
    }
}

/// How long an attempt may fail.
const SUCCEEDED: Duration = Duration::from_secs(20);

/// The result of the first attempt that succeeds.
pub async fn eventually<T, E: Debug>(attempt: impl AsyncFn() -> Result<T, E>) -> T {
    let start = now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(start.elapsed() < SUCCEEDED, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn try_open(
    url: &str,
    schema: &str,
    statements: &[(&str, &str)],
) -> Result<Arc<dyn Storage>, StorageError> {
    let open = StorageDrivers::built_in().get("mysql").unwrap();
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let statements: BTreeMap<String, String> = statements.iter().map(owned).collect();
    open(&StorageConfig {
        url: Secret::new(url),
        schema: schema.into(),
        statements,
    })
}

pub fn open(url: &str, schema: &str) -> Arc<dyn Storage> {
    try_open(url, schema, &[]).unwrap()
}

/// The problems that the check finds, in one text.
pub async fn problems(storage: &dyn Storage) -> String {
    let findings = storage.check().await.unwrap();
    let problems: Vec<String> = findings.into_iter().map(|it| it.problem).collect();
    problems.join("\n")
}

/// One announce of each of these peers, by turns of user 7 on torrent 3 and of user 8 on torrent 4;
/// each adds a byte to its user.
pub fn batch(number: u64, peers: Range<u32>) -> Arc<Batch> {
    let change = |peer: u32| {
        let mut peer_id = [0; 20];
        peer_id[..4].copy_from_slice(&peer.to_be_bytes());
        Change::from(PeerChange {
            key: PeerKey {
                user: UserId(7 + peer % 2),
                torrent: TorrentId(3 + peer % 2),
                peer_id: PeerId(peer_id),
            },
            info_hash: InfoHash([1; 20]),
            record: record(),
            credit: Credit {
                up: 1,
                announces: 1,
                ..Credit::default()
            },
            standing: Standing::default(),
            counts: SwarmCounts::default(),
            report: None,
        })
    };
    Arc::new(Batch::new("a".into(), number, peers.map(change).collect()))
}

pub fn record() -> PeerRecord {
    PeerRecord {
        base_up: 1 << 40,
        base_down: 1 << 40,
        start_up: None,
        start_down: None,
        dip_up: None,
        dip_down: None,
        base_at: 1_800_000_000,
        uploaded: 1 << 40,
        downloaded: 1 << 40,
        left: Some(0),
        v4: Some("192.0.2.1:6881".parse().unwrap()),
        v6: None,
        v4_at: None,
        v6_at: None,
        speed_up: 1 << 20,
        speed_down: 0,
        seed_time: 1000,
        announces: 10,
        first_announce: 1_800_000_000,
        last_announce: 1_800_000_000,
        active: true,
        paused: false,
    }
}
