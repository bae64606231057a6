//! The MySQL and MariaDB driver: a web application's own database on its own server.
//!
//! The tables that a site owns are reached by the named statements of a schema (`schemas/`), which
//! the config can replace one by one; Mika's own tables by the SQL of this folder. A call takes a
//! connection from a small pool (`link`), every wait has a timeout, and a call whose connection is lost
//! is retried on a new one if it is idempotent.

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
mod invalid_totals;
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
use self::fault::MysqlFault;
use self::link::{ANSWER_TIMEOUT, MysqlLink, MysqlSession, WHOLE_TABLE_TIMEOUT};
use self::tables::Own;
use super::schema::{self, Schema, Statements};
use super::{
    Added, BadRow, Claim, CreditRules, Feed, FeedPosition, Find, Finding, Found, InvalidTotals,
    MigrationStatus, NewTorrent, NewUser, Page, Storage, StorageConfig, StorageError,
    StoredHistory, StoredPeer, StoredTorrent, StoredUser, TorrentKey, TorrentPatch, TorrentRemoval,
    UserKey, UserPatch, UserTorrents, Wipe, migrate,
};
use crate::base::backoff::Backoff;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::base::secret::Secret;
use crate::base::url;
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

/// How often a transaction is retried after a lock conflict, and the delays before.
const COLLISIONS_MAX: usize = 3;
const COLLISION_FIRST: Duration = Duration::from_millis(20);
const COLLISION_MAX: Duration = Duration::from_millis(500);

/// A database on a server.
struct Mysql {
    link: MysqlLink,
    schema: &'static Schema,
    statements: Statements,
    own: Own,
    reloads: feed::Reloads,
}

/// Whether a job may be repeated when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

pub(super) fn check_url(url: &Secret) -> Result<(), String> {
    let form = "mysql://USER:PASSWORD@HOST:PORT/DATABASE";
    url::check_scheme(url, "mysql", &["mysql", "mariadb"], form)?;
    url::check_login(url, true)
}

/// Opens the database of a URL; the first call connects.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    let schema = schema::chosen(&SCHEMAS, config)?;
    Ok(Arc::new(Mysql {
        link: MysqlLink::new(&config.url)?,
        statements: Statements::new(schema, &config.statements)?,
        own: Own::of(schema),
        reloads: feed::Reloads::default(),
        schema,
    }))
}

/// Runs a job on a connection, and retries it where that may help. (A macro, because the compiler can't
/// prove yet that the future of an async closure is `Send`.)
macro_rules! job {
    ($storage:expr, $time_limit:expr, $repeat:expr, |$session:ident| $work:expr) => {{
        let mut tries = Tries::new($storage, $time_limit, $repeat);
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

/// An idempotent job: it is retried if its connection is lost. It may write.
macro_rules! retrying {
    ($storage:expr, |$session:ident| $work:expr) => {
        job!($storage, ANSWER_TIMEOUT, Repeat::Harmless, |$session| $work)
    };
}

/// A job that must not be repeated if its outcome is unknown.
macro_rules! once {
    ($storage:expr, |$session:ident| $work:expr) => {
        job!($storage, ANSWER_TIMEOUT, Repeat::Never, |$session| $work)
    };
}

#[async_trait]
impl Storage for Mysql {
    async fn claim(&self) -> Result<Claim, StorageError> {
        // The claim needs the identity, which comes with the tables.
        migrate::prepare(self).await?;
        let identity = self.identity().await?;
        claim::claim(self.link.dial.clone(), &identity).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        job!(self, WHOLE_TABLE_TIMEOUT, Repeat::Harmless, |session| {
            tables::migrate(session, &self.link, self.schema)
        })
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        retrying!(self, |session| tables::migrations(session, self.schema))
    }

    async fn check(&self) -> Result<Vec<Finding>, StorageError> {
        job!(self, WHOLE_TABLE_TIMEOUT, Repeat::Harmless, |session| {
            check::check(session, self.schema, &self.statements)
        })
    }

    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        retrying!(self, |session| inspect::inspect(
            session,
            self.schema,
            Trial::Credit
        ))
    }

    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        retrying!(self, |session| durability::inspect(session))
    }

    async fn identity(&self) -> Result<String, StorageError> {
        retrying!(self, |session| identity::identity(session))
    }

    async fn renew_identity(&self) -> Result<String, StorageError> {
        retrying!(self, |session| identity::renew(session))
    }

    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        retrying!(self, |session| read::newest_announce(session, &self.own))
    }

    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        retrying!(self, |session| read::last_gone(session, &self.own, before))
    }

    fn has_feed(&self) -> bool {
        !self.statements.of(&schema::FEED).is_empty()
    }

    async fn time(&self) -> Result<Option<i64>, StorageError> {
        retrying!(self, |session| identity::time(session))
    }

    async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Page<StoredUser>, StorageError> {
        retrying!(self, |session| read::users(session, after, limit))
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError> {
        retrying!(self, |session| read::torrents(session, after, limit))
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError> {
        retrying!(self, |session| read::peers(
            session, &self.own, since, after, limit
        ))
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>, StorageError> {
        retrying!(self, |session| read::histories(
            session, &self.own, after, limit
        ))
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), StorageError> {
        retrying!(self, |session| read::records_of(
            session, &self.own, torrent
        ))
    }

    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError> {
        retrying!(self, |session| read::with_records(
            session, &self.own, torrents
        ))
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError> {
        retrying!(self, |session| read::whitelist(session))
    }

    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError> {
        retrying!(self, |session| read::bad_clients(session))
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError> {
        retrying!(self, |session| read::user_by_id(session, id))
    }

    async fn is_unfinished(&self, id: UserId) -> Result<bool, StorageError> {
        retrying!(self, |session| read::is_unfinished(session, id))
    }

    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError> {
        retrying!(self, |session| read::users_named(session, name))
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError> {
        retrying!(self, |session| read::torrent_by_hash(session, info_hash))
    }

    async fn find_users(&self, find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError> {
        retrying!(self, |session| find::users(session, find))
    }

    async fn find_torrents(
        &self,
        find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError> {
        retrying!(self, |session| find::torrents(session, find))
    }

    async fn torrents_of(&self, user: UserId) -> Result<UserTorrents, StorageError> {
        retrying!(self, |session| find::torrents_of(session, &self.own, user))
    }

    async fn feed_position(&self) -> Result<FeedPosition, StorageError> {
        retrying!(self, |session| feed::position(session, &self.reloads))
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed, StorageError> {
        retrying!(self, |session| feed::changes(
            session,
            &self.reloads,
            position,
            limit
        ))
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError> {
        once!(self, |session| edit::add_users(session, users))
    }

    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError> {
        once!(self, |session| edit::update_user(session, id, patch))
    }

    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError> {
        once!(self, |session| edit::add_torrents(session, torrents))
    }

    async fn update_torrent(
        &self,
        id: TorrentId,
        patch: &TorrentPatch,
    ) -> Result<(), StorageError> {
        once!(self, |session| edit::update_torrent(
            session, &self.own, id, patch
        ))
    }

    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError> {
        retrying!(self, |session| edit::remove_torrents(session, torrents))
    }

    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError> {
        once!(self, |session| edit::add_clients(session, clients))
    }

    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError> {
        once!(self, |session| edit::remove_client(session, prefix))
    }

    async fn last_applied(&self, journal: &str) -> Result<u64, StorageError> {
        retrying!(self, |session| apply::last_applied(session, journal))
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError> {
        retrying!(self, |session| apply::journals(session))
    }

    async fn forget_journal(&self, node: &str, number: u64) -> Result<bool, StorageError> {
        once!(self, |session| apply::forget(session, node, number))
    }

    async fn begin_at(&self, node: &str, number: u64) -> Result<(), StorageError> {
        retrying!(self, |session| apply::begin_at(session, node, number))
    }

    /// The recorded batch number makes it idempotent, even after a COMMIT without an answer.
    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError> {
        retrying!(self, |session| apply::apply(
            session, &self.own, batches, rules
        ))
    }

    async fn prune(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        once!(self, |session| feed::prune(
            session, &self.own, before, limit
        ))
    }

    async fn wipe(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Option<u32>, StorageError> {
        retrying!(self, |session| edit::wipe(session, what, after, limit))
    }

    async fn invalid_totals(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<(Vec<InvalidTotals>, Option<u32>), StorageError> {
        retrying!(self, |session| invalid_totals::find(
            session, what, after, limit
        ))
    }

    async fn fix_totals(&self, what: Wipe, ids: &[u32]) -> Result<(), StorageError> {
        retrying!(self, |session| invalid_totals::fix(session, what, ids))
    }
}

/// The attempts of one job.
struct Tries<'a> {
    storage: &'a Mysql,
    time_limit: Duration,
    /// The delays before retries after lock conflicts.
    collisions: Take<Backoff>,
    /// How many more connections may be lost.
    losses: u32,
}

impl<'a> Tries<'a> {
    fn new(storage: &'a Mysql, time_limit: Duration, repeat: Repeat) -> Self {
        Self {
            storage,
            time_limit,
            collisions: Backoff::new(COLLISION_FIRST, COLLISION_MAX).take(COLLISIONS_MAX),
            losses: u32::from(repeat == Repeat::Harmless),
        }
    }

    async fn session(&self) -> Result<MysqlSession<'a>, StorageError> {
        let Mysql {
            link, statements, ..
        } = self.storage;
        let session = link.session(statements, self.time_limit).await;
        session.map_err(|fault| fault.explain(link.place(), ANSWER_TIMEOUT))
    }

    /// Ends an attempt: returns the result of the job, or none if it is to be retried.
    async fn end<T>(
        &mut self,
        mut session: MysqlSession<'a>,
        result: Result<T, MysqlFault>,
    ) -> Option<Result<T, StorageError>> {
        let link = &self.storage.link;
        let result = match result {
            Err(fault) if fault.is_by_account() => {
                // A GRANT takes effect for later connections only.
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
        Some(Err(fault.explain(link.place(), self.time_limit)))
    }
}
