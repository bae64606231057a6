//! The traits that a cache driver implements.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    CacheError, CacheFinding, CacheKey, CacheLeftover, ControlPosition, Generation, KeySet, Mark,
    Membership, NodeStats, Notice, RegistryCursor, RegistryScan, Replayed, Rows, Scan, SharedPeer,
    Wiped, Write, last_changes, members_of, memberships_of,
};
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, SwarmCounts};
use crate::registry::{ClientPrefix, StoredTorrent, StoredUser, Wipe};

/// What nodes share.
///
/// Every method may be called from any thread and concurrently; none may block the thread that polls
/// it. Every wait is bounded by a timeout, which returns [`CacheError::Away`]. A broken connection is
/// replaced by the next call, limited by a backoff; until then, calls fail at once. A call that is dropped may have
/// had its effect, or a part of it; callers repeat it.
#[async_trait]
pub trait Cache: CacheUpkeep {
    /// Connects if necessary, and checks that the server takes commands.
    async fn ping(&self) -> Result<Generation, CacheError>;

    /// Makes sure that emptying the server from now on begins another generation; returns the current
    /// one. By default, a generation ends so anyway.
    async fn begin_epoch(&self) -> Result<Generation, CacheError> {
        self.ping().await
    }

    // --- journals ---

    /// Keeps consecutive batches of one journal until [`Cache::trim_journal`] drops them, and updates
    /// swarms, their counters and users' sets. Batches that were kept before are not kept twice.
    /// [`CacheError::Restarted`], without any effect, if the server is not of `generation`.
    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError>;

    /// Adds what storage credited to the totals of users and torrents whose rows are here.
    /// [`CacheError::Restarted`], without any effect, if the server is not of `generation`: its rows
    /// are loaded again with the totals of storage.
    async fn add_totals(
        &self,
        generation: Generation,
        credited: &Credited,
    ) -> Result<(), CacheError>;

    /// Drops the batches of a journal up to this number: storage has applied them, and other nodes have
    /// had time to read them. Without a number, drops all of them and the number of the last.
    async fn trim_journal(&self, journal: &str, number: Option<u64>) -> Result<(), CacheError>;

    /// The number of the last batch of a journal that was ever kept here; 0 if none was.
    async fn last_kept(&self, journal: &str) -> Result<u64, CacheError>;

    /// The batches of a journal after `after` that are still kept, oldest first. If there are none, waits up to `wait`
    /// for the next.
    async fn kept(
        &self,
        journal: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError>;

    // --- peers ---

    /// The peers of these torrents; those without any may be left out.
    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError>;

    /// Writes peers, except members whose record here is newer ([`replaces`](crate::change::RecordAge::replaces)).
    /// Returns the members that were written.
    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>, CacheError>;

    // --- the registry ---

    /// Writes users or torrents, whose existing counters are left unchanged; or replaces the whitelist, in which a client
    /// that stays is missing at no moment.
    async fn put(&self, rows: Rows<'_>, write: Write) -> Result<(), CacheError>;

    async fn users(&self, cursor: u64) -> Result<Scan<StoredUser>, CacheError>;

    async fn torrents(&self, cursor: u64) -> Result<Scan<StoredTorrent>, CacheError>;

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, CacheError>;

    /// Users and torrents, for a node that loads all of them; names and totals may be missing. By default, this scans the
    /// users and then the torrents.
    async fn registry(&self, cursor: RegistryCursor) -> Result<RegistryScan, CacheError> {
        Ok(match cursor {
            RegistryCursor::Users(at) => {
                let scan = self.users(at).await?;
                let next = scan.next.map(RegistryCursor::Users);
                RegistryScan {
                    users: scan.rows.into_iter().map(|row| row.user).collect(),
                    torrents: Vec::new(),
                    bad: scan.bad,
                    next: next.or(Some(RegistryCursor::Torrents(0))),
                }
            }
            RegistryCursor::Torrents(at) => {
                let scan = self.torrents(at).await?;
                RegistryScan {
                    users: Vec::new(),
                    torrents: scan.rows.into_iter().map(|row| row.torrent).collect(),
                    bad: scan.bad,
                    next: scan.next.map(RegistryCursor::Torrents),
                }
            }
        })
    }

    /// By default, this scans all users.
    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.users(at).await?;
            let mut rows = scan.rows.into_iter();
            if let Some(row) = rows.find(|row| row.user.id == id) {
                return Ok(Some(row));
            }
            cursor = scan.next;
        }
        Ok(None)
    }

    /// By its first info hash. By default, this scans all torrents.
    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.torrents(at).await?;
            let mut rows = scan.rows.into_iter();
            if let Some(row) = rows.find(|row| row.torrent.info_hash == info_hash) {
                return Ok(Some(row));
            }
            cursor = scan.next;
        }
        Ok(None)
    }

    async fn keys(&self, which: KeySet, cursor: u64) -> Result<Scan<CacheKey>, CacheError>;

    /// Removes what is there of these.
    async fn remove(&self, keys: &[CacheKey]) -> Result<(), CacheError>;

    /// The text of a mark; none if it is not set, or if the server was restarted since.
    async fn mark(&self, mark: Mark) -> Result<Option<String>, CacheError>;

    /// Sets the text of a mark, or removes the mark. [`CacheError::Restarted`], without any effect, if the server is not
    /// of the generation: what was written to an earlier one may be lost.
    async fn set_mark(
        &self,
        mark: Mark,
        text: Option<(Generation, &str)>,
    ) -> Result<(), CacheError>;

    // --- between nodes ---

    /// Publishes notices to all nodes.
    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError>;

    /// Notices after `after`, and the position after them; waits up to `wait` if there are none. If some may be lost,
    /// returns [`Notice::Registry`] and [`Notice::Peers`] in their place. Without `after`, returns the end of the feed
    /// and no notices.
    async fn control(
        &self,
        after: Option<&ControlPosition>,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError>;

    /// Records the heartbeat of a node: `sign` differs at each call. Begins an epoch, too
    /// ([`Cache::begin_epoch`]).
    async fn beat(&self, journal: &str, sign: &str) -> Result<(), CacheError>;

    /// All journals with a heartbeat that were not removed by [`Cache::leave`], and their last `sign`.
    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError>;

    /// Removes a node from the list, and what [`CacheUpkeep::set_replayed`] noted: it has stopped, and nothing
    /// of its journal is left.
    async fn leave(&self, journal: &str) -> Result<(), CacheError>;

    /// Acquires or renews a lease for `time`; false if another holder has it.
    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError>;
}

/// What the upkeep of a cache needs, and what others than nodes read in it. Most of it has a default.
#[async_trait]
pub trait CacheUpkeep: Send + Sync + 'static {
    // --- the server ---

    /// The same servers by connections of its own: for a thread whose runtime ends when it has read its part. A start
    /// reads several parts at the same time if there are such readers; by default there are none, and it reads one part
    /// after the other.
    fn reader(&self) -> Option<Arc<dyn Cache>> {
        None
    }

    /// The identity of the database that this cache belongs to; none if it was not set. The default
    /// does not record it.
    async fn database(&self) -> Result<Option<String>, CacheError> {
        Ok(None)
    }

    /// Assigns the cache to a database, if it belongs to none yet or to `former`; returns which one it
    /// belongs to now. The default does not record it. See [`owner::take`](super::owner::take).
    async fn set_database(
        &self,
        database: &str,
        _former: Option<&str>,
    ) -> Result<String, CacheError> {
        Ok(database.to_owned())
    }

    /// The server's clock (Unix time); none if it uses this host's.
    async fn time(&self) -> Result<Option<i64>, CacheError> {
        Ok(None)
    }

    /// Whether acknowledged data survives a crash of the server, because it logs to its disk. False also if
    /// Mika's user may not ask.
    async fn is_persistent(&self) -> Result<bool, CacheError> {
        Ok(false)
    }

    /// How many keys the server has evicted since its start. By default, it evicts none.
    async fn evicted(&self) -> Result<u64, CacheError> {
        Ok(0)
    }

    /// Looks for settings and permissions that prevent Mika from working, or from working safely.
    /// Empty if all is well.
    async fn check(&self) -> Result<Vec<CacheFinding>, CacheError> {
        Ok(Vec::new())
    }

    /// The part of [`CacheUpkeep::check`] that is cheap enough for every few minutes: whether the server
    /// evicts keys, or loses data in a crash. The default checks nothing.
    async fn inspect(&self) -> Result<Vec<CacheFinding>, CacheError> {
        Ok(Vec::new())
    }

    /// Which part of the servers does not answer, while others do; none by default. What was learnt with the last call
    /// is enough.
    fn away_part(&self) -> Option<String> {
        None
    }

    /// Whether all running nodes read public peers in a packed form ([`packed`](crate::change::packed)): if so, batches
    /// may be kept in it. The default keeps to one form.
    fn pack_guests(&self, _is_read_by_all: bool) {}

    // --- what is kept too long, or is wrong ---

    /// Scans some swarms from `cursor` on, and removes peers whose last announce is before these times
    /// (Unix time). Returns the next cursor; none at the end.
    async fn prune(
        &self,
        cursor: u64,
        members_before: i64,
        guests_before: i64,
    ) -> Result<Option<u64>, CacheError>;

    /// Sets totals of a user in bytes, if the user is here; none leaves one unchanged.
    async fn set_totals(
        &self,
        user: UserId,
        uploaded: Option<u64>,
        downloaded: Option<u64>,
    ) -> Result<(), CacheError>;

    /// Sets the totals of some users or torrents to 0; begins at cursor 0, as a scan does.
    async fn wipe(&self, what: Wipe, cursor: u64) -> Result<Wiped, CacheError>;

    /// Entries that nothing uses, judged by their form alone, and peers that were last seen before
    /// `since` (Unix time). By default, there are none.
    async fn leftovers(
        &self,
        _since: i64,
        _cursor: u64,
    ) -> Result<Scan<CacheLeftover>, CacheError> {
        Ok(Scan::whole(Vec::new()))
    }

    /// Removes leftovers; a counter is set to 0. A [`CacheLeftover::Row`] is removed with all its fields.
    async fn clean(&self, _leftovers: &[CacheLeftover]) -> Result<(), CacheError> {
        Ok(())
    }

    // --- ended journals; by default, each start reads again all that is kept of them ---

    /// How far the leftovers of ended journals were replayed.
    async fn replayed(&self) -> Result<Vec<(String, Replayed)>, CacheError> {
        Ok(Vec::new())
    }

    /// Notes how far the leftover of a journal was replayed, in place of an earlier note.
    async fn set_replayed(&self, _journal: &str, _replayed: Replayed) -> Result<(), CacheError> {
        Ok(())
    }

    // --- what only web applications read; left out by default ---

    /// Adds torrents to users' sets, and removes them.
    async fn put_memberships(&self, _memberships: &[Membership]) -> Result<(), CacheError> {
        Ok(())
    }

    /// Sets the counters of registered torrents to the present size of their swarms.
    async fn put_counts(&self, _counts: &[(InfoHash, SwarmCounts)]) -> Result<(), CacheError> {
        Ok(())
    }

    /// Adds to the counters of all nodes.
    async fn add_stats(&self, _stats: NodeStats) -> Result<(), CacheError> {
        Ok(())
    }
}

impl dyn Cache + '_ {
    /// Removes a node from the list for good, and deletes its journal. The caller has checked that the
    /// journal is empty.
    pub async fn forget_journal(&self, journal: &str) -> Result<(), CacheError> {
        self.leave(journal).await?;
        self.trim_journal(journal, None).await
    }

    /// Writes the private peers of consecutive batches of one journal, and the sets of their users: the process
    /// that kept these batches may have died before it did.
    pub async fn put_peers_of(&self, batches: &[Batch]) -> Result<(), CacheError> {
        let Some(changes) = last_changes(batches) else {
            return Ok(());
        };
        let written = self.put_peers(&members_of(&changes)).await?;
        self.put_memberships(&memberships_of(&changes, &written))
            .await
    }

    /// The torrents that have peers here.
    pub async fn swarms(&self, cursor: u64) -> Result<Scan<InfoHash>, CacheError> {
        let Scan { rows, bad, next } = self.keys(KeySet::Swarms, cursor).await?;
        let swarm = |key| match key {
            CacheKey::Swarm(info_hash) => Some(info_hash),
            _ => None,
        };
        let rows = rows.into_iter().filter_map(swarm).collect();
        Ok(Scan { rows, bad, next })
    }

    /// The end of the feed of notices. To be read before loading, so that no notice is missed.
    pub async fn control_position(&self) -> Result<ControlPosition, CacheError> {
        let (_, end) = self.control(None, Duration::ZERO).await?;
        Ok(end)
    }
}
