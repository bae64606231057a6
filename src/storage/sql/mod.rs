//! The SQL engine: everything that Mika does with a web application's database, above a small driver.
//!
//! What a query means is in the files of `schemas/`, by name; what Mika does with the rows is in this folder,
//! once for all databases. A driver ([`SqlDatabase`]) has connections, runs statements, explains errors, and answers
//! what a database can't be asked in SQL (`catalogue`).

mod apply;
pub mod calls;
pub mod catalogue;
pub mod cells;
pub mod check;
pub mod database;
mod decode;
mod edit;
mod feed;
mod find;
mod followed;
mod hashes;
pub mod header;
mod invalid_totals;
mod job;
pub(super) mod keeper;
mod keywords;
mod migrations;
mod misfit;
pub mod place;
mod read;
mod rebuilt;
pub(super) mod site_schema;
pub mod statements;
mod trial;
pub mod triggers;
mod uses;

use std::sync::Arc;

use async_trait::async_trait;

use self::database::{SqlDatabase, Use};
use self::feed::RELOAD;
use self::job::{Repeat, Tries};
use self::statements::{Schema, Statements};
use super::{
    Added, BadRow, Claim, CreditRules, Feed, FeedPosition, Find, Finding, Found, InvalidTotals,
    MigrationStatus, NewTorrent, NewUser, Page, Severity, Storage, StorageConfig, StorageResult,
    StoredHistory, StoredPeer, StoredTorrent, StoredUser, TorrentKey, TorrentPatch, TorrentRemoval,
    UserKey, UserPatch, UserTorrents, Wipe, migrate,
};
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::registry::ClientPrefix;

/// A web application's database.
pub struct SqlStorage<D> {
    database: D,
    statements: Arc<Statements>,
    reloads: feed::Reloads,
}

impl<D: SqlDatabase> SqlStorage<D> {
    /// Storage in `database`, whose driver may use the same statements.
    pub fn new(database: D, statements: Arc<Statements>) -> Self {
        Self {
            database,
            statements,
            reloads: feed::Reloads::default(),
        }
    }
}

/// The statements of a schema with the replacements of the config.
pub fn statements(schema: &Schema, config: &StorageConfig) -> StorageResult<Arc<Statements>> {
    Ok(Arc::new(Statements::new(schema, &config.statements)?))
}

/// Runs a job on a connection, and retries it where that may help. (A macro, because the compiler can't
/// prove yet that the future of an async closure is `Send`.)
macro_rules! job {
    ($storage:expr, $use:expr, $repeat:expr, |$job:ident| $work:expr) => {{
        let mut tries = Tries::new(&$storage.database, &$storage.statements, $use, $repeat);
        loop {
            let mut opened = tries.open().await?;
            let $job = &mut opened;
            let result = $work.await;
            if let Some(result) = tries.end(opened, result).await {
                return result;
            }
        }
    }};
}

/// A job that reads: it is retried if its connection is lost.
macro_rules! reading {
    ($storage:expr, |$job:ident| $work:expr) => {
        job!($storage, Use::Read, Repeat::Harmless, |$job| $work)
    };
}

/// A job that writes, and is idempotent: it is retried if its connection is lost.
macro_rules! retrying {
    ($storage:expr, |$job:ident| $work:expr) => {
        job!($storage, Use::Write, Repeat::Harmless, |$job| $work)
    };
}

/// A job that must not be repeated if its outcome is unknown.
macro_rules! once {
    ($storage:expr, |$job:ident| $work:expr) => {
        job!($storage, Use::Write, Repeat::Never, |$job| $work)
    };
}

#[async_trait]
impl<D: SqlDatabase> Storage for SqlStorage<D> {
    fn is_embedded(&self) -> bool {
        self.database.is_embedded()
    }

    fn reader(&self) -> Option<Arc<dyn Storage>> {
        let database = self.database.reader()?;
        Some(Arc::new(Self::new(database, Arc::clone(&self.statements))))
    }

    async fn claim(&self) -> StorageResult<Claim> {
        if self.is_embedded() {
            // Nobody else may touch the tables meanwhile, so they are made after the claim.
            return self.database.claim("").await;
        }
        // The claim needs the identity, which comes with the tables.
        migrate::prepare(self).await?;
        let identity = self.identity().await?;
        self.database.claim(&identity).await
    }

    async fn migrate(&self) -> StorageResult<Vec<String>> {
        let schema = self.database.schema();
        job!(self, Use::Migrate, Repeat::Harmless, |job| {
            migrations::migrate(job, schema)
        })
    }

    async fn migrations(&self) -> StorageResult<Vec<MigrationStatus>> {
        let schema = self.database.schema();
        reading!(self, |job| migrations::migrations(job, schema))
    }

    fn migration_texts(&self) -> Vec<(&'static str, &'static str)> {
        let migrations = self.database.schema().migrations.iter();
        migrations
            .map(|migration| (migration.name, migration.sql))
            .collect()
    }

    async fn check(&self) -> StorageResult<Vec<Finding>> {
        let (mut findings, is_complete) = self.check_database().await?;
        if is_complete {
            findings.extend(self.tried(&findings).await);
            let is_right = findings.iter().all(|it| it.severity == Severity::Note);
            match self.unusable_rows().await {
                Ok(unusable) => findings.extend(unusable),
                Err(error) if is_right => return Err(error),
                // It is reported already why rows can't be read.
                Err(_) => {}
            }
        }
        findings.extend(self.database.check_servers().await);
        Ok(findings)
    }

    async fn check_schema(&self) -> StorageResult<Vec<Finding>> {
        let mut findings = self.prepare_schema().await?;
        if findings.iter().all(|it| it.severity == Severity::Note) {
            findings.extend(self.tried(&findings).await);
        }
        Ok(findings)
    }

    async fn inspect(&self) -> StorageResult<Vec<Finding>> {
        let schema = self.database.schema();
        reading!(self, |job| check::inspect::inspect(job, schema))
    }

    async fn durability(&self) -> StorageResult<Vec<Finding>> {
        reading!(self, |job| job.session().look_at_durability())
    }

    async fn identity(&self) -> StorageResult<String> {
        reading!(self, |job| read::identity(job))
    }

    async fn renew_identity(&self) -> StorageResult<String> {
        retrying!(self, |job| edit::renew_identity(job))
    }

    fn has_feed(&self) -> bool {
        !self.statements.of(&calls::FEED).is_empty()
    }

    async fn time(&self) -> StorageResult<Option<i64>> {
        reading!(self, |job| read::time(job))
    }

    async fn newest_announce(&self) -> StorageResult<Option<i64>> {
        reading!(self, |job| read::newest_announce(job))
    }

    async fn last_gone(&self, before: i64) -> StorageResult<Option<i64>> {
        reading!(self, |job| read::last_gone(job, before))
    }

    async fn users(&self, after: Option<UserId>, limit: u32) -> StorageResult<Page<StoredUser>> {
        reading!(self, |job| read::users(job, after, limit))
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> StorageResult<Page<StoredTorrent>> {
        reading!(self, |job| read::torrents(job, after, limit))
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> StorageResult<Page<StoredPeer>> {
        reading!(self, |job| read::peers(job, since, after, limit))
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> StorageResult<Page<StoredHistory>> {
        reading!(self, |job| read::histories(job, after, limit))
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> StorageResult<(Vec<StoredHistory>, Vec<StoredPeer>)> {
        reading!(self, |job| read::records_of(job, torrent))
    }

    async fn with_records(&self, torrents: &[TorrentId]) -> StorageResult<Vec<TorrentId>> {
        reading!(self, |job| read::with_records(job, torrents))
    }

    async fn whitelist(&self) -> StorageResult<Vec<ClientPrefix>> {
        reading!(self, |job| read::whitelist(job))
    }

    async fn bad_clients(&self) -> StorageResult<Vec<BadRow>> {
        reading!(self, |job| read::bad_clients(job))
    }

    async fn user(&self, id: UserId) -> StorageResult<Option<StoredUser>> {
        reading!(self, |job| read::user_by_id(job, id))
    }

    async fn is_unfinished(&self, id: UserId) -> StorageResult<bool> {
        reading!(self, |job| read::is_unfinished(job, id))
    }

    async fn users_named(&self, name: &str) -> StorageResult<Vec<StoredUser>> {
        reading!(self, |job| read::users_named(job, name))
    }

    async fn torrent(&self, info_hash: InfoHash) -> StorageResult<Option<StoredTorrent>> {
        reading!(self, |job| read::torrent_by_hash(job, info_hash))
    }

    async fn find_users(&self, find: &Find<UserKey>) -> StorageResult<Found<StoredUser>> {
        reading!(self, |job| find::users(job, find))
    }

    async fn find_torrents(&self, find: &Find<TorrentKey>) -> StorageResult<Found<StoredTorrent>> {
        reading!(self, |job| find::torrents(job, find))
    }

    async fn torrents_of(&self, user: UserId) -> StorageResult<UserTorrents> {
        reading!(self, |job| find::torrents_of(job, user))
    }

    async fn feed_position(&self) -> StorageResult<FeedPosition> {
        reading!(self, |job| feed::position(job, &self.reloads))
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> StorageResult<Feed> {
        reading!(self, |job| feed::changes(
            job,
            &self.reloads,
            position,
            limit
        ))
    }

    async fn feed_changed(&self) {
        if self.has_feed() {
            self.database.feed_changed().await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    async fn add_users(&self, users: &[NewUser]) -> StorageResult<Vec<Added<UserId>>> {
        once!(self, |job| edit::add_users(job, users))
    }

    async fn update_user(&self, id: UserId, patch: &UserPatch) -> StorageResult<()> {
        once!(self, |job| edit::update_user(job, id, patch))
    }

    async fn add_torrents(&self, torrents: &[NewTorrent]) -> StorageResult<Vec<Added<TorrentId>>> {
        once!(self, |job| edit::add_torrents(job, torrents))
    }

    async fn update_torrent(&self, id: TorrentId, patch: &TorrentPatch) -> StorageResult<()> {
        once!(self, |job| edit::update_torrent(job, id, patch))
    }

    async fn set_info_hash(
        &self,
        id: TorrentId,
        hashes: Option<(InfoHash, Option<InfoHash>)>,
    ) -> StorageResult<StoredTorrent> {
        retrying!(self, |job| rebuilt::set(job, id, hashes))
    }

    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> StorageResult<u64> {
        retrying!(self, |job| edit::remove_torrents(job, torrents))
    }

    async fn add_clients(&self, clients: &[ClientPrefix]) -> StorageResult<()> {
        once!(self, |job| edit::add_clients(job, clients))
    }

    async fn remove_client(&self, prefix: &str) -> StorageResult<()> {
        once!(self, |job| edit::remove_client(job, prefix))
    }

    async fn last_applied(&self, journal: &str) -> StorageResult<u64> {
        retrying!(self, |job| apply::last_applied(job, journal))
    }

    async fn journals(&self) -> StorageResult<Vec<(String, u64)>> {
        reading!(self, |job| apply::journals(job))
    }

    async fn forget_journal(&self, journal: &str, applied: u64) -> StorageResult<bool> {
        once!(self, |job| apply::forget(job, journal, applied))
    }

    async fn begin_at(&self, journal: &str, number: u64) -> StorageResult<()> {
        retrying!(self, |job| apply::begin_at(job, journal, number))
    }

    /// The recorded batch number makes it idempotent, even after a COMMIT without an answer.
    async fn apply(&self, batches: &[Arc<Batch>], rules: &CreditRules) -> StorageResult<Credited> {
        retrying!(self, |job| apply::apply(job, batches, rules))
    }

    async fn prune(&self, before: i64, limit: u32) -> StorageResult<u64> {
        once!(self, |job| feed::prune(job, before, limit))
    }

    async fn wipe(&self, what: Wipe, after: Option<u32>, limit: u32) -> StorageResult<Option<u32>> {
        retrying!(self, |job| edit::wipe(job, what, after, limit))
    }

    async fn invalid_totals(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> StorageResult<(Vec<InvalidTotals>, Option<u32>)> {
        reading!(self, |job| invalid_totals::find(job, what, after, limit))
    }

    async fn fix_totals(&self, what: Wipe, ids: &[u32]) -> StorageResult<()> {
        retrying!(self, |job| invalid_totals::fix(job, what, ids))
    }
}

impl<D: SqlDatabase> SqlStorage<D> {
    async fn check_database(&self) -> StorageResult<(Vec<Finding>, bool)> {
        let schema = self.database.schema();
        job!(self, Use::WholeTables, Repeat::Harmless, |job| {
            check::check(job, schema)
        })
    }

    async fn prepare_schema(&self) -> StorageResult<Vec<Finding>> {
        let schema = self.database.schema();
        reading!(self, |job| check::schema(job, schema))
    }

    /// What shows when the statements of the operator's own are run.
    async fn tried(&self, known: &[Finding]) -> Vec<Finding> {
        if !trial::is_wanted(&self.statements, known) {
            return Vec::new();
        }
        let tried: StorageResult<_> = async { retrying!(self, |job| trial::run(job, known)) }.await;
        tried.unwrap_or_else(|error| {
            let problem = format!("the statements were prepared and not run: {error}");
            vec![Finding::note(problem, "run this again when that is over")]
        })
    }

    /// The rows of the site that can't be used, as findings.
    async fn unusable_rows(&self) -> StorageResult<Vec<Finding>> {
        job!(self, Use::WholeTables, Repeat::Harmless, |job| {
            read::unusable_rows(job)
        })
    }
}
