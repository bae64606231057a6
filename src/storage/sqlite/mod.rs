//! The SQLite driver: one file, one writer thread, one reader thread.
//!
//! SQLite blocks while it works, so the connections live on threads of their own
//! (`worker`) and callers wait for a message. In WAL mode readers and the writer don't block each other, and
//! a web application may use the file at the same time.

mod apply;
mod cells;
mod edit;
mod fault;
mod feed;
mod invalid_totals;
mod open;
mod read;
#[cfg(test)]
mod site_tests;
mod tables;
#[cfg(test)]
mod tests;
mod triggers;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use self::fault::SqliteFault;
use self::worker::Worker;
use super::{
    Added, Claim, CreditRules, Feed, FeedPosition, Find, Finding, Found, InvalidTotals,
    MigrationStatus, NewTorrent, NewUser, Page, Storage, StorageConfig, StorageError,
    StoredHistory, StoredPeer, StoredTorrent, StoredUser, TorrentKey, TorrentPatch, TorrentRemoval,
    UserKey, UserPatch, UserTorrents, Wipe,
};
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::base::secret::Secret;
use crate::base::url;
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::registry::{BadRow, ClientPrefix};

/// How long a connection waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for its result.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for jobs that read or write the whole file.
const WHOLE_TABLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A database file.
struct Sqlite {
    path: PathBuf,
    writer: Worker,
    reader: Worker,
}

/// Opens the database `sqlite://PATH`, and creates the file if its folder is there.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    let path = open::path_of(&config.url)?;
    Ok(Arc::new(Sqlite::open(&path, BUSY_TIMEOUT)?))
}

pub(super) fn check_url(url: &Secret) -> Result<(), String> {
    url::check_scheme(url, "sqlite", &["sqlite"], "sqlite://PATH")
}

/// The file is Mika's own, so there is one schema.
pub(super) fn check_schema(schema: &str) -> Result<(), String> {
    if schema == "mika" {
        return Ok(());
    }
    Err(format!(
        r#"expected "mika", the one schema of the driver "sqlite", found {schema:?}"#
    ))
}

/// Statements are replaced to fit the tables of a web application; the file has only Mika's own.
pub(super) fn check_statements(statements: &BTreeMap<String, String>) -> Result<(), String> {
    if statements.is_empty() {
        return Ok(());
    }
    Err(r#"expected {}, because the driver "sqlite" takes no statements of others"#.into())
}

/// The file that a URL names.
pub fn file_of(url: &Secret) -> Option<PathBuf> {
    open::path_of(url).ok()
}

impl Sqlite {
    fn open(path: &Path, busy_timeout: Duration) -> Result<Self, StorageError> {
        let shown: Arc<str> = path.display().to_string().into();
        let writer = open::writer(path, busy_timeout)?;
        let reader = open::reader(path, busy_timeout)?;
        Ok(Self {
            path: path.to_path_buf(),
            writer: Worker::start("sqlite-writer", Arc::clone(&shown), writer)?,
            reader: Worker::start("sqlite-reader", shown, reader)?,
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.writer.run(ANSWER_TIMEOUT, job).await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.reader.run(ANSWER_TIMEOUT, job).await
    }
}

#[async_trait]
impl Storage for Sqlite {
    fn is_embedded(&self) -> bool {
        true
    }

    async fn claim(&self) -> Result<Claim, StorageError> {
        let path = self.path.clone();
        self.write(move |_| Ok(open::claim(&path)?)).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        self.writer.run(WHOLE_TABLE_TIMEOUT, tables::migrate).await
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        self.read(|connection| tables::migrations(connection)).await
    }

    async fn check(&self) -> Result<Vec<Finding>, StorageError> {
        self.reader.run(WHOLE_TABLE_TIMEOUT, tables::check).await
    }

    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        self.read(|connection| Ok(triggers::inspect(connection)?.into_iter().collect()))
            .await
    }

    async fn identity(&self) -> Result<String, StorageError> {
        self.read(|connection| tables::identity(connection)).await
    }

    async fn renew_identity(&self) -> Result<String, StorageError> {
        self.write(|connection| tables::renew_identity(connection))
            .await
    }

    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        self.read(|connection| read::newest_announce(connection))
            .await
    }

    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        self.read(move |connection| read::last_gone(connection, before))
            .await
    }

    async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Page<StoredUser>, StorageError> {
        self.read(move |connection| read::users(connection, after, limit))
            .await
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError> {
        self.read(move |connection| read::torrents(connection, after, limit))
            .await
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError> {
        self.read(move |connection| read::peers(connection, since, after, limit))
            .await
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>, StorageError> {
        self.read(move |connection| read::histories(connection, after, limit))
            .await
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), StorageError> {
        self.read(move |connection| read::records_of(connection, torrent))
            .await
    }

    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError> {
        let torrents = torrents.to_vec();
        self.read(move |connection| read::with_records(connection, &torrents))
            .await
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError> {
        self.read(|connection| read::whitelist(connection)).await
    }

    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError> {
        self.read(|connection| Ok(read::clients(connection)?.bad))
            .await
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError> {
        self.read(move |connection| read::user_by_id(connection, id))
            .await
    }

    async fn is_unfinished(&self, id: UserId) -> Result<bool, StorageError> {
        self.read(move |connection| read::is_unfinished(connection, id))
            .await
    }

    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError> {
        let name = name.to_owned();
        self.read(move |connection| read::users_named(connection, &name))
            .await
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError> {
        self.read(move |connection| read::torrent_by_hash(connection, info_hash))
            .await
    }

    async fn find_users(&self, find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError> {
        let find = find.clone();
        self.read(move |connection| read::find_users(connection, &find))
            .await
    }

    async fn find_torrents(
        &self,
        find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError> {
        let find = find.clone();
        self.read(move |connection| read::find_torrents(connection, &find))
            .await
    }

    async fn torrents_of(&self, user: UserId) -> Result<UserTorrents, StorageError> {
        self.read(move |connection| read::torrents_of(connection, user))
            .await
    }

    async fn feed_position(&self) -> Result<FeedPosition, StorageError> {
        self.read(|connection| feed::position(connection)).await
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed, StorageError> {
        self.read(move |connection| feed::changes(connection, position, limit))
            .await
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError> {
        let users = users.to_vec();
        self.write(move |connection| edit::add_users(connection, &users))
            .await
    }

    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError> {
        let patch = patch.clone();
        self.write(move |connection| edit::update_user(connection, id, &patch))
            .await
    }

    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError> {
        let torrents = torrents.to_vec();
        self.write(move |connection| edit::add_torrents(connection, &torrents))
            .await
    }

    async fn update_torrent(
        &self,
        id: TorrentId,
        patch: &TorrentPatch,
    ) -> Result<(), StorageError> {
        let patch = patch.clone();
        self.write(move |connection| edit::update_torrent(connection, id, &patch))
            .await
    }

    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError> {
        let torrents = torrents.to_vec();
        self.write(move |connection| edit::remove_torrents(connection, &torrents))
            .await
    }

    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError> {
        let clients = clients.to_vec();
        self.write(move |connection| edit::add_clients(connection, &clients))
            .await
    }

    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError> {
        let prefix = prefix.to_owned();
        self.write(move |connection| edit::remove_client(connection, &prefix))
            .await
    }

    async fn last_applied(&self, journal: &str) -> Result<u64, StorageError> {
        let journal = journal.to_owned();
        self.write(move |connection| apply::last_applied(connection, &journal))
            .await
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError> {
        self.read(|connection| apply::journals(connection)).await
    }

    async fn forget_journal(&self, node: &str, number: u64) -> Result<bool, StorageError> {
        let node = node.to_owned();
        self.write(move |connection| apply::forget(connection, &node, number))
            .await
    }

    async fn begin_at(&self, node: &str, number: u64) -> Result<(), StorageError> {
        let node = node.to_owned();
        self.write(move |connection| apply::begin_at(connection, &node, number))
            .await
    }

    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError> {
        let (batches, rules) = (batches.to_vec(), *rules);
        self.write(move |connection| apply::apply(connection, &batches, &rules))
            .await
    }

    async fn prune(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        self.write(move |connection| feed::prune(connection, before, limit))
            .await
    }

    async fn wipe(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Option<u32>, StorageError> {
        self.write(move |connection| edit::wipe(connection, what, after, limit))
            .await
    }

    async fn invalid_totals(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<(Vec<InvalidTotals>, Option<u32>), StorageError> {
        self.read(move |connection| invalid_totals::find(connection, what, after, limit))
            .await
    }

    async fn fix_totals(&self, what: Wipe, ids: &[u32]) -> Result<(), StorageError> {
        let ids = ids.to_vec();
        self.write(move |connection| invalid_totals::fix(connection, what, &ids))
            .await
    }
}
