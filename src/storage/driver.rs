//! The trait that a storage driver implements.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Added, BadRow, Claim, CreditRules, Feed, FeedPosition, Find, Finding, Found, InvalidTotals,
    MigrationStatus, NewTorrent, NewUser, Page, StorageError, StorageResult, StoredHistory,
    StoredPeer, StoredTorrent, StoredUser, TorrentKey, TorrentPatch, TorrentRemoval, UserKey,
    UserPatch, UserTorrents, Wipe,
};
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::registry::ClientPrefix;

/// Rows that defaults of this trait read at once.
const PAGE: u32 = 1000;

/// A web application's database, as the tracker uses it.
///
/// The first dozen methods are all that a tracker needs. The others have a default, which is slower, does nothing, or
/// answers [`StorageError::Unsupported`]; callers tell that to people, and nothing else fails.
///
/// Every method may be called from any thread and concurrently. None may block the thread that polls it:
/// a blocking client runs on its own threads. Every wait is bounded by a timeout, which returns
/// [`StorageError::Away`].
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    // --- what a tracker can't do without; pages are in the order of the key: `after` is the last key of the previous page ---

    /// The identity of the database: a random text of 1 to 64 letters and digits that [`Storage::migrate`]
    /// makes once and stores in it. It does not depend on host name or replica, and is kept by a move or a
    /// dump, so a copy has it, too. [`StorageError::Broken`] before the first migration.
    async fn identity(&self) -> StorageResult<String>;

    async fn users(&self, after: Option<UserId>, limit: u32) -> StorageResult<Page<StoredUser>>;

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> StorageResult<Page<StoredTorrent>>;

    async fn whitelist(&self) -> StorageResult<Vec<ClientPrefix>>;

    /// Peer records that are active, however old, or whose last announce is not before `since`
    /// (Unix time). Old active ones were not restored by any node, and are still to be expired.
    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> StorageResult<Page<StoredPeer>>;

    /// What users did with torrents, ordered by torrent and user.
    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> StorageResult<Page<StoredHistory>>;

    /// The newest position of the feed. To be read before loading, so that no change is missed.
    async fn feed_position(&self) -> StorageResult<FeedPosition>;

    /// Registry changes after `position`, whether made by `mika-manage` or plain SQL. At most `limit` at a
    /// time; empty if nothing changed.
    async fn feed(&self, position: FeedPosition, limit: u32) -> StorageResult<Feed>;

    /// Resolves when the feed may have more than when it resolved last, so that it is read at once; for one waiter.
    /// Only a hint: the feed is read from time to time in any case. By default it never resolves.
    async fn feed_changed(&self) {
        std::future::pending::<()>().await;
    }

    /// The number of the last applied batch of a journal; 0 if none was.
    async fn last_applied(&self, journal: &str) -> StorageResult<u64>;

    /// The number of the last applied batch of every known journal; 0 for one without.
    async fn journals(&self) -> StorageResult<Vec<(String, u64)>>;

    /// Gives up the batches of a journal up to `number` that storage lacks: the next one to apply is
    /// `number + 1`. No effect if storage has them.
    async fn begin_at(&self, journal: &str, number: u64) -> StorageResult<()>;

    /// Applies consecutive batches of one journal and records the number of the last, in one
    /// transaction. Idempotent: batches up to the recorded number are skipped (rule A9). Deleted users and
    /// torrents are skipped. Reports are settled against the existing rows in that transaction: each counts
    /// once, whichever node received it and in whatever order (rule A8b). A record does not replace a newer
    /// one ([`replaces`](crate::change::RecordAge::replaces)). If a batch before them is missing, fails with
    /// [`StorageError::Behind`]. Returns what was credited, which is nothing for skipped batches.
    async fn apply(&self, batches: &[Arc<Batch>], rules: &CreditRules) -> StorageResult<Credited>;

    // --- the database ---

    /// The same database by connections of its own: for a thread whose runtime ends when it has read its part. A start
    /// reads several parts at the same time if there are such readers; by default there are none, and it reads one part
    /// after the other.
    fn reader(&self) -> Option<Arc<dyn Storage>> {
        None
    }

    /// Whether the database is Mika's own file, where a start creates the tables. On a server, which others
    /// use too, an administrator does.
    fn is_embedded(&self) -> bool {
        false
    }

    /// Reserves the storage for this process; [`StorageError::Broken`] if another has it.
    /// A daemon with the memory cache claims its storage, because two of them would not know each other's
    /// peers and credit; `mika-manage` does not. The claim ends with the process, however that ends. By
    /// default there is nothing to claim.
    async fn claim(&self) -> StorageResult<Claim> {
        Ok(Claim::default())
    }

    /// Creates or updates Mika's own tables; returns the names of the migrations that it applied.
    async fn migrate(&self) -> StorageResult<Vec<String>> {
        Ok(Vec::new())
    }

    /// Every migration that this version knows, and whether the database has it.
    async fn migrations(&self) -> StorageResult<Vec<MigrationStatus>> {
        Ok(Vec::new())
    }

    /// The SQL of every migration, with its name; none if it is not SQL.
    fn migration_texts(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Looks for tables, columns and rows that the tracker can't work with. Empty if all is well.
    async fn check(&self) -> StorageResult<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Has the database prepare the statements of the schema, and returns what they lack. Mika's own tables need not be
    /// there yet.
    async fn check_schema(&self) -> StorageResult<Vec<Finding>> {
        Err(StorageError::Unsupported("schemas".into()))
    }

    /// The part of [`Storage::check`] that is cheap enough for every few minutes: whether triggers,
    /// tables and the session are still as Mika needs them. The default checks nothing.
    async fn inspect(&self) -> StorageResult<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Checks the settings that decide whether committed data survives a crash or a fail-over: part of
    /// [`Storage::check`], and checked once by each daemon. The default checks nothing.
    async fn durability(&self) -> StorageResult<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Replaces the identity of the database, and returns the new one: a copy that is used beside its
    /// original needs one. No daemon may run on it. Unsupported by default.
    async fn renew_identity(&self) -> StorageResult<String> {
        Err(StorageError::Unsupported("another identity".into()))
    }

    /// Whether changes of the registry can be followed by [`Storage::feed`]. If not, the feed is always
    /// empty, and nodes read the whole registry at each start and reload.
    fn has_feed(&self) -> bool {
        true
    }

    /// The database's own clock (Unix time); none if it uses this host's.
    async fn time(&self) -> StorageResult<Option<i64>> {
        Ok(None)
    }

    /// The newest announce in any peer record (Unix time); none without records. A start without a cache
    /// does not set its clock before it.
    async fn newest_announce(&self) -> StorageResult<Option<i64>> {
        Ok(None)
    }

    /// The newest last announce before `before` in the record of an inactive peer (Unix time); none if there
    /// is none. A start without a cache detects from it that its clock leapt.
    async fn last_gone(&self, before: i64) -> StorageResult<Option<i64>> {
        let _ = before;
        Ok(None)
    }

    // --- single rows ---

    async fn user(&self, id: UserId) -> StorageResult<Option<StoredUser>> {
        // The page after the id before this one.
        let before = id.0.checked_sub(1).map(UserId);
        let page = self.users(before, 1).await?;
        Ok(page.rows.into_iter().find(|stored| stored.user.id == id))
    }

    /// Whether the user exists but has no passkey yet: [`Storage::user`] returns none for it.
    async fn is_unfinished(&self, id: UserId) -> StorageResult<bool> {
        let _ = id;
        Ok(false)
    }

    /// All users of that name; names are not unique in every web application.
    /// By default, this reads all pages.
    async fn users_named(&self, name: &str) -> StorageResult<Vec<StoredUser>> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.users(after, PAGE).await?;
            after = page.rows.last().map(|stored| stored.user.id);
            let is_last = page.last || after.is_none();
            found.extend(page.rows.into_iter().filter(|it| it.user.username == name));
            if is_last {
                return Ok(found);
            }
        }
    }

    /// The torrent with that first or second info hash.
    /// By default, this reads pages until it finds it.
    async fn torrent(&self, info_hash: InfoHash) -> StorageResult<Option<StoredTorrent>> {
        let mut after = None;
        loop {
            let page = self.torrents(after, PAGE).await?;
            after = page.rows.last().map(|stored| stored.torrent.id);
            let is_last = page.last || after.is_none();
            let has = |stored: &StoredTorrent| {
                let torrent = &stored.torrent;
                torrent.info_hash == info_hash || torrent.info_hash_v2 == Some(info_hash)
            };
            let found = page.rows.into_iter().find(has);
            if found.is_some() || is_last {
                return Ok(found);
            }
        }
    }

    /// The rows of the whitelist that can't be used.
    async fn bad_clients(&self) -> StorageResult<Vec<BadRow>> {
        Ok(Vec::new())
    }

    /// All histories and peer records of one torrent, for a torrent that is registered again.
    /// By default, this reads all pages.
    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> StorageResult<(Vec<StoredHistory>, Vec<StoredPeer>)> {
        let (mut histories, mut peers) = (Vec::new(), Vec::new());
        let mut after = torrent
            .0
            .checked_sub(1)
            .map(|id| (TorrentId(id), UserId(u32::MAX)));
        loop {
            let page = self.histories(after, PAGE).await?;
            after = page.rows.last().map(|row| (row.torrent, row.user));
            let is_last = page.last || after.is_none_or(|(last, _)| last > torrent);
            histories.extend(page.rows.into_iter().filter(|row| row.torrent == torrent));
            if is_last {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = self.peers(i64::MIN, after, PAGE).await?;
            after = page.rows.last().map(|row| row.key);
            let is_last = page.last || after.is_none();
            peers.extend(
                page.rows
                    .into_iter()
                    .filter(|row| row.key.torrent == torrent),
            );
            if is_last {
                return Ok((histories, peers));
            }
        }
    }

    /// The torrents of these that have any history or peer record. By default all: a superset costs time only.
    async fn with_records(&self, torrents: &[TorrentId]) -> StorageResult<Vec<TorrentId>> {
        Ok(torrents.to_vec())
    }

    // --- searching; announces do not wait for any of these ---

    /// Rows that can't be used are left out, but count in the total.
    async fn find_users(&self, find: &Find<UserKey>) -> StorageResult<Found<StoredUser>> {
        let _ = find;
        Err(StorageError::Unsupported("lists of users".into()))
    }

    /// Rows that can't be used are left out, but count in the total.
    async fn find_torrents(&self, find: &Find<TorrentKey>) -> StorageResult<Found<StoredTorrent>> {
        let _ = find;
        Err(StorageError::Unsupported("lists of torrents".into()))
    }

    /// The torrents of a user, by what batches have recorded.
    async fn torrents_of(&self, user: UserId) -> StorageResult<UserTorrents> {
        let _ = user;
        Err(StorageError::Unsupported(
            "lists of a user's torrents".into(),
        ))
    }

    // --- editing the registry ---

    /// Adds a user; [`StorageError::Duplicate`] if the passkey or the id is taken.
    async fn add_user(&self, user: &NewUser) -> StorageResult<UserId> {
        let mut added = self.add_users(std::slice::from_ref(user)).await?;
        match added.pop() {
            Some(Ok(Some(id))) => Ok(id),
            Some(Err(problem)) => Err(StorageError::Invalid(problem)),
            Some(Ok(None)) | None => {
                let taken = "a user with that id or passkey";
                Err(StorageError::Duplicate(taken.into()))
            }
        }
    }

    /// Adds users in one transaction. Returns for each the id, none if id or passkey is taken, or why the
    /// database refuses the row.
    async fn add_users(&self, users: &[NewUser]) -> StorageResult<Vec<Added<UserId>>> {
        let _ = users;
        Err(StorageError::Unsupported("adding users".into()))
    }

    /// Changes the given fields; [`StorageError::NotFound`] without such a user.
    async fn update_user(&self, id: UserId, patch: &UserPatch) -> StorageResult<()> {
        let _ = (id, patch);
        Err(StorageError::Unsupported("changing users".into()))
    }

    /// Adds torrents in one transaction. Returns for each the id, none if it or an info hash is taken, or
    /// why the database refuses the row.
    async fn add_torrents(&self, torrents: &[NewTorrent]) -> StorageResult<Vec<Added<TorrentId>>> {
        let _ = torrents;
        Err(StorageError::Unsupported("adding torrents".into()))
    }

    /// Changes the given fields; [`StorageError::NotFound`] without such a torrent.
    async fn update_torrent(&self, id: TorrentId, patch: &TorrentPatch) -> StorageResult<()> {
        let _ = (id, patch);
        Err(StorageError::Unsupported("changing torrents".into()))
    }

    /// Sets the first and the second info hash of a torrent of a site that stores none; without any, they are rebuilt
    /// from the site's row. Returns the torrent as it is then.
    async fn set_info_hash(
        &self,
        id: TorrentId,
        hashes: Option<(InfoHash, Option<InfoHash>)>,
    ) -> StorageResult<StoredTorrent> {
        let _ = (id, hashes);
        Err(StorageError::Unsupported("setting info hashes".into()))
    }

    /// Removes torrents with their peer records in one transaction; returns how many. Those that do not
    /// exist, or do not meet their [`TorrentRemoval`], are skipped. A schema that does not support it removes
    /// none.
    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> StorageResult<u64> {
        let _ = torrents;
        Err(StorageError::Unsupported("removing torrents".into()))
    }

    /// Adds clients or renames them, in one transaction.
    async fn add_clients(&self, clients: &[ClientPrefix]) -> StorageResult<()> {
        let _ = clients;
        Err(StorageError::Unsupported("changing the whitelist".into()))
    }

    /// [`StorageError::NotFound`] without such a prefix.
    async fn remove_client(&self, prefix: &str) -> StorageResult<()> {
        let _ = prefix;
        Err(StorageError::Unsupported("changing the whitelist".into()))
    }

    // --- upkeep ---

    /// Forgets the number of an ended journal if it is still `applied`; returns whether it was. From then on,
    /// its batches count from 1 again.
    async fn forget_journal(&self, journal: &str, applied: u64) -> StorageResult<bool> {
        let _ = (journal, applied);
        Ok(false)
    }

    /// Deletes inactive peer records whose last announce is before `before` (Unix time),
    /// at most `limit` of them; returns how many.
    async fn prune(&self, before: i64, limit: u32) -> StorageResult<u64> {
        let _ = (before, limit);
        Ok(0)
    }

    /// Sets the totals of users or torrents to 0, at most `limit` rows after `after` in the order
    /// of their id; returns the last id, or none when there are no more. Histories and the counters of
    /// present peers do not change.
    async fn wipe(&self, what: Wipe, after: Option<u32>, limit: u32) -> StorageResult<Option<u32>> {
        let _ = (what, after, limit);
        Err(StorageError::Unsupported("wiping totals".into()))
    }

    /// Checks `limit` rows after `after`, in the order of their id, for totals below 0 or above
    /// [`PLAUSIBLE_MAX`]. Returns them and the last id checked; none when there are no more.
    async fn invalid_totals(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> StorageResult<(Vec<InvalidTotals>, Option<u32>)> {
        let _ = (what, after, limit);
        Ok((Vec::new(), None))
    }

    /// Sets the invalid totals of these rows to 0; the others stay.
    async fn fix_totals(&self, what: Wipe, ids: &[u32]) -> StorageResult<()> {
        let _ = (what, ids);
        Err(StorageError::Unsupported("setting totals".into()))
    }
}
