//! The MySQL and MariaDB driver: a web application's own database on its own server.
//!
//! The tables that a site owns are reached by the named statements of a schema (`schemas/`), which
//! the config can replace one by one; Mika's own tables by the SQL of this folder. A call takes a
//! connection from a few that are kept (`link`), every wait is bounded, and one that fails
//! by its connection is tried again on a new one where repeating it is harmless.

mod absurd;
mod apply;
mod cells;
mod check;
mod claim;
mod columns;
mod credit;
mod definers;
mod durability;
mod edit;
mod fault;
mod feed;
mod find;
mod hashes;
mod identity;
mod inspect;
mod link;
mod misfit;
mod read;
mod refused;
mod rights;
mod rows;
mod settings;
mod tables;

use std::iter::Take;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::definers::Trial;
use self::fault::Fault;
use self::link::{Link, PATIENCE, PATIENCE_WHOLE, Session};
use self::tables::Own;
use super::schema::{self, Schema, Statements};
use super::{
    Absurd, Added, BadRow, Claim, CreditRules, Feed, FeedPosition, Find, Finding, Found, History,
    MigrationStatus, NewTorrent, NewUser, Page, Place, Storage, StorageError, StoredPeer,
    StoredTorrent, StoredUser, TorrentKey, TorrentPatch, TorrentRemoval, UserKey, UserPatch,
    UserTorrents, Wipe, migrate,
};
use crate::base::backoff::Backoff;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::registry::ClientPrefix;

/// The schemas of this crate.
static SCHEMAS: [Schema; 2] = [
    Schema {
        name: "mika",
        statements: include_str!("../schemas/mika.mysql.sql"),
        prefix: "",
        migrations: migrate::MYSQL,
    },
    Schema {
        name: "mika-2015",
        statements: include_str!("../schemas/mika-2015.mysql.sql"),
        prefix: "mika_",
        migrations: migrate::MYSQL_2015,
    },
];

/// How often a transaction is tried again that others were in the way of, and how long it waits before.
const COLLISIONS_MAX: usize = 3;
const COLLISION_FIRST: Duration = Duration::from_millis(20);
const COLLISION_MAX: Duration = Duration::from_millis(500);

/// A database on a server.
struct Mysql {
    link: Link,
    schema: &'static Schema,
    statements: Statements,
    own: Own,
    reloads: feed::Reloads,
}

/// Whether a job may be done again when nobody knows whether it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

/// Prepares for the database of a URL; it is not connected to before the first call.
pub fn open(place: &Place) -> Result<Arc<dyn Storage>, StorageError> {
    let schema = schema::chosen(&SCHEMAS, place)?;
    Ok(Arc::new(Mysql {
        link: Link::new(&place.url)?,
        statements: Statements::new(schema, &place.statements)?,
        own: Own::of(schema),
        reloads: feed::Reloads::default(),
        schema,
    }))
}

/// Does a job on a connection, again where that is promising. (A macro, for the compiler can't
/// yet tell that the future of an async closure may be sent to another thread.)
macro_rules! job {
    ($storage:expr, $patience:expr, $repeat:expr, |$session:ident| $work:expr) => {{
        let mut tries = Tries::new($storage, $patience, $repeat);
        loop {
            let mut opened = tries.session().await?;
            let $session = &mut opened;
            let result = $work.await;
            if let Some(result) = tries.end(opened, result).await {
                return result;
            }
        }
    }};
}

/// A job that only reads, or can be repeated.
macro_rules! read {
    ($storage:expr, |$session:ident| $work:expr) => {
        job!($storage, PATIENCE, Repeat::Harmless, |$session| $work)
    };
}

/// A job that must not be done twice.
macro_rules! edit {
    ($storage:expr, |$session:ident| $work:expr) => {
        job!($storage, PATIENCE, Repeat::Never, |$session| $work)
    };
}

#[async_trait]
impl Storage for Mysql {
    async fn claim(&self) -> Result<Claim, StorageError> {
        // It goes by the identity, which comes with the tables.
        migrate::prepare(self).await?;
        let identity = self.identity().await?;
        claim::claim(self.link.dial.clone(), &identity).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        job!(self, PATIENCE_WHOLE, Repeat::Harmless, |session| {
            tables::migrate(session, &self.link, self.schema)
        })
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        read!(self, |session| tables::migrations(session, self.schema))
    }

    async fn check(&self) -> Result<Vec<Finding>, StorageError> {
        job!(self, PATIENCE_WHOLE, Repeat::Harmless, |session| {
            check::check(session, self.schema, &self.statements)
        })
    }

    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        read!(self, |session| inspect::inspect(
            session,
            self.schema,
            Trial::Credit
        ))
    }

    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        read!(self, |session| durability::inspect(session))
    }

    async fn identity(&self) -> Result<String, StorageError> {
        read!(self, |session| identity::identity(session))
    }

    async fn renew_identity(&self) -> Result<String, StorageError> {
        read!(self, |session| identity::renew(session))
    }

    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        read!(self, |session| read::newest_announce(session, &self.own))
    }

    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        read!(self, |session| read::last_gone(session, &self.own, before))
    }

    fn has_feed(&self) -> bool {
        !self.statements.of(&schema::FEED).is_empty()
    }

    async fn time(&self) -> Result<Option<i64>, StorageError> {
        read!(self, |session| identity::time(session))
    }

    async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Page<StoredUser>, StorageError> {
        read!(self, |session| read::users(session, after, limit))
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError> {
        read!(self, |session| read::torrents(session, after, limit))
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError> {
        read!(self, |session| read::peers(
            session, &self.own, since, after, limit
        ))
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<History>, StorageError> {
        read!(self, |session| read::histories(
            session, &self.own, after, limit
        ))
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<History>, Vec<StoredPeer>), StorageError> {
        read!(self, |session| read::records_of(
            session, &self.own, torrent
        ))
    }

    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError> {
        read!(self, |session| read::with_records(
            session, &self.own, torrents
        ))
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError> {
        read!(self, |session| read::whitelist(session))
    }

    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError> {
        read!(self, |session| read::bad_clients(session))
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError> {
        read!(self, |session| read::user_by_id(session, id))
    }

    async fn is_unfinished(&self, id: UserId) -> Result<bool, StorageError> {
        read!(self, |session| read::is_unfinished(session, id))
    }

    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError> {
        read!(self, |session| read::users_named(session, name))
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError> {
        read!(self, |session| read::torrent_by_hash(session, info_hash))
    }

    async fn find_users(&self, find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError> {
        read!(self, |session| find::users(session, find))
    }

    async fn find_torrents(
        &self,
        find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError> {
        read!(self, |session| find::torrents(session, find))
    }

    async fn torrents_of(&self, user: UserId) -> Result<UserTorrents, StorageError> {
        read!(self, |session| find::torrents_of(session, &self.own, user))
    }

    async fn feed_position(&self) -> Result<FeedPosition, StorageError> {
        read!(self, |session| feed::position(session, &self.reloads))
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed, StorageError> {
        read!(self, |session| feed::changes(
            session,
            &self.reloads,
            position,
            limit
        ))
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError> {
        edit!(self, |session| edit::add_users(session, users))
    }

    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError> {
        edit!(self, |session| edit::update_user(session, id, patch))
    }

    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError> {
        edit!(self, |session| edit::add_torrents(session, torrents))
    }

    async fn update_torrent(
        &self,
        id: TorrentId,
        patch: &TorrentPatch,
    ) -> Result<(), StorageError> {
        edit!(self, |session| edit::update_torrent(
            session, &self.own, id, patch
        ))
    }

    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError> {
        read!(self, |session| edit::remove_torrents(session, torrents))
    }

    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError> {
        edit!(self, |session| edit::add_clients(session, clients))
    }

    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError> {
        edit!(self, |session| edit::remove_client(session, prefix))
    }

    async fn applied(&self, node: &str) -> Result<u64, StorageError> {
        read!(self, |session| apply::applied(session, node))
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError> {
        read!(self, |session| apply::journals(session))
    }

    async fn forget_journal(&self, node: &str, number: u64) -> Result<bool, StorageError> {
        edit!(self, |session| apply::forget(session, node, number))
    }

    async fn begin_at(&self, node: &str, number: u64) -> Result<(), StorageError> {
        read!(self, |session| apply::begin_at(session, node, number))
    }

    /// The number in the journal makes repeating harmless, also after a COMMIT without an answer.
    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError> {
        read!(self, |session| apply::apply(
            session, &self.own, batches, rules
        ))
    }

    async fn prune(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        edit!(self, |session| feed::prune(
            session, &self.own, before, limit
        ))
    }

    async fn wipe(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Option<u32>, StorageError> {
        read!(self, |session| edit::wipe(session, what, after, limit))
    }

    async fn absurd(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<(Vec<Absurd>, Option<u32>), StorageError> {
        read!(self, |session| absurd::find(session, what, after, limit))
    }

    async fn mend(&self, what: Wipe, ids: &[u32]) -> Result<(), StorageError> {
        read!(self, |session| absurd::mend(session, what, ids))
    }
}

/// The tries of one job.
struct Tries<'a> {
    storage: &'a Mysql,
    patience: Duration,
    /// How long to wait before each try that others' locks make necessary.
    collisions: Take<Backoff>,
    /// How many connections may be lost on the way.
    losses: u32,
}

// === impl Tries ===

impl<'a> Tries<'a> {
    fn new(storage: &'a Mysql, patience: Duration, repeat: Repeat) -> Self {
        Self {
            storage,
            patience,
            collisions: Backoff::new(COLLISION_FIRST, COLLISION_MAX).take(COLLISIONS_MAX),
            losses: u32::from(repeat == Repeat::Harmless),
        }
    }

    async fn session(&self) -> Result<Session<'a>, StorageError> {
        let Mysql {
            link, statements, ..
        } = self.storage;
        let session = link.session(statements, self.patience).await;
        session.map_err(|fault| fault.explain(link.place(), PATIENCE))
    }

    /// Ends a try: with what the job has come to, or none if it is to be tried again.
    async fn end<T>(
        &mut self,
        mut session: Session<'a>,
        result: Result<T, Fault>,
    ) -> Option<Result<T, StorageError>> {
        let link = &self.storage.link;
        let result = match result {
            Err(fault) if fault.is_by_account() => {
                // A GRANT is of use to later connections only.
                session.is_last |= fault.is_denied();
                Err(definers::named(&mut session, fault, link.place()).await)
            }
            other => other,
        };
        link.end(session, &result).await;
        let fault = match result {
            Ok(done) => return Some(Ok(done)),
            Err(fault) => fault,
        };
        if fault.is_collision()
            && let Some(wait) = self.collisions.next()
        {
            tokio::time::sleep(wait).await;
            return None;
        }
        if fault.is_lost() && self.losses > 0 {
            self.losses -= 1;
            return None;
        }
        Some(Err(fault.explain(link.place(), self.patience)))
    }
}
