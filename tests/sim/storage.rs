//! The database: maps in memory, in which reports are settled by the code that all drivers use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use async_trait::async_trait;
use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::change::sums::Credited;
use mika::change::{Batch, Change, PeerKey};
use mika::registry::{
    ClientPrefix, Permille, RowChange, StoredTorrent, StoredUser, Torrent, User, UserTotals, Wipe,
};
use mika::storage::memory::MemoryRows;
use mika::storage::settle::HeldPeer;
use mika::storage::{
    Added, BadRow, CreditRules, Feed, FeedPosition, Find, Found, InvalidTotals, NewTorrent,
    NewUser, Page, Storage, StorageError, StoredHistory, StoredPeer, TorrentKey, TorrentPatch,
    TorrentRemoval, UserKey, UserPatch, UserTorrents,
};
use parking_lot::Mutex;

use super::network::{Host, Network, Place};
use super::story::{About, Story};

/// Transactions that the database can go back by.
const HISTORY: usize = 400;

/// The tables.
#[derive(Clone, Default)]
pub struct Tables {
    pub rows: MemoryRows,
    /// The largest id that a torrent had.
    pub last_torrent: u32,
    pub whitelist: Vec<ClientPrefix>,
    pub feed: Vec<RowChange>,
    pub late: LateReports,
}

/// What reached the database after a later report of the same client.
#[derive(Clone, Default)]
pub struct LateReports {
    /// Unix times of the newest report of each peer.
    newest: BTreeMap<PeerKey, i64>,
    up: LateTotals,
    down: LateTotals,
}

/// Late reports of one total.
#[derive(Clone, Default)]
struct LateTotals {
    starts: BTreeSet<(PeerKey, u64)>,
    /// From which total to which a late change went.
    ranges: BTreeSet<(PeerKey, u64, u64)>,
}

/// A database server.
pub struct Database {
    /// It has a clock of its own, as a server has.
    has_clock: bool,
    state: Mutex<State>,
}

struct State {
    tables: Arc<Tables>,
    /// Before each of the latest transactions, with the second in which it was committed.
    before: VecDeque<(i64, Arc<Tables>)>,
}

/// The driver in one process.
pub struct Link {
    pub database: Arc<Database>,
    pub network: Arc<Network>,
    pub host: &'static Host,
    pub story: Story,
}

// === impl Database ===

impl Database {
    pub fn new(users: u32, torrents: u32, has_clock: bool) -> Self {
        let mut tables = Tables::default();
        for id in 1..=users {
            let user = user(id);
            tables.users.insert(UserId(id), user);
        }
        for id in 1..=torrents {
            let torrent = torrent(id);
            tables.torrents.insert(TorrentId(id), torrent);
        }
        Self {
            has_clock,
            state: Mutex::new(State {
                tables: Arc::new(tables),
                before: VecDeque::new(),
            }),
        }
    }

    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.state.lock().tables)
    }

    fn commit(&self, tables: Tables) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.tables, Arc::new(tables));
        state.before.push_back((super::network::now(), before));
        if state.before.len() > HISTORY {
            state.before.pop_front();
        }
    }

    /// The last transactions are gone, up to `most` of them and those of the last `seconds`; returns how many.
    pub fn go_back(&self, most: usize, seconds: i64) -> usize {
        let since = super::network::now() - seconds;
        let mut state = self.state.lock();
        let mut gone = 0;
        while gone < most
            && let Some((at, tables)) = state.before.pop_back()
        {
            // Edits are not lost: their author would have to repeat them.
            if at < since || tables.feed.len() < state.tables.feed.len() {
                state.before.push_back((at, tables));
                break;
            }
            state.tables = tables;
            gone += 1;
        }
        gone
    }
}

/// User `id`, as the run begins.
pub fn user(id: u32) -> StoredUser {
    StoredUser {
        user: User {
            id: UserId(id),
            passkey: passkey(id).parse().unwrap(),
            username: format!("user-{id}"),
            enabled: true,
            can_leech: true,
        },
        totals: UserTotals::default(),
    }
}

pub fn passkey(user: u32) -> String {
    format!("passkey-{user:04}")
}

pub fn info_hash(torrent: u32) -> InfoHash {
    let mut hash = [7; 20];
    hash[..4].copy_from_slice(&torrent.wrapping_mul(0x9e37_79b9).to_be_bytes());
    InfoHash(hash)
}

pub fn torrent(id: u32) -> StoredTorrent {
    StoredTorrent {
        torrent: Torrent {
            id: TorrentId(id),
            info_hash: info_hash(id),
            info_hash_v2: None,
            enabled: true,
            reason: None,
            multi_up: Permille::ONE,
            multi_down: Permille::ONE,
            snatches: 0,
        },
        name: format!("torrent-{id}"),
        seeders: 0,
        leechers: 0,
        announces: 0,
        uploaded: 0,
        downloaded: 0,
    }
}

// === impl Tables ===

impl Tables {
    fn apply(
        &mut self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError> {
        let new = self.rows.not_applied(batches)?;
        let credited = self.rows.apply(new, rules)?;
        for change in new.iter().flat_map(|batch| &batch.changes) {
            self.late.see(change);
            if let Change::Peer(change) = change {
                self.pack(change.key);
            }
        }
        Ok(credited)
    }

    /// Keeps the account of a peer as drivers do: packed into bytes.
    fn pack(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let mut packed = Vec::new();
        peer.held.pack(&mut packed);
        let account = HeldPeer::account_of(&packed);
        peer.held.account = account.unwrap_or_else(|| peer.held.base().account());
    }
}

impl Deref for Tables {
    type Target = MemoryRows;

    fn deref(&self) -> &MemoryRows {
        &self.rows
    }
}

impl DerefMut for Tables {
    fn deref_mut(&mut self) -> &mut MemoryRows {
        &mut self.rows
    }
}

// === impl LateReports ===

impl LateReports {
    fn see(&mut self, change: &Change) {
        let Change::Peer(change) = change else { return };
        let Some(report) = &change.report else { return };
        let newest = self.newest.entry(change.key).or_insert(report.at);
        for (stretch, late) in [(report.up, &mut self.up), (report.down, &mut self.down)] {
            let Some(stretch) = stretch else { continue };
            let (from, to) = (stretch.from.total, stretch.to.total);
            if stretch.started && stretch.from.at < *newest {
                late.starts.insert((change.key, from));
            }
            if report.at < *newest {
                late.ranges.insert((change.key, from.min(to), from.max(to)));
            }
        }
        *newest = report.at.max(*newest);
    }

    /// Whether a `started` with so much uploaded, or downloaded, came late: with both, in that order.
    pub fn has_start(&self, key: PeerKey, up: u64, down: u64) -> (bool, bool) {
        let has = |late: &LateTotals, total| late.starts.contains(&(key, total));
        (has(&self.up, up), has(&self.down, down))
    }

    /// Whether a report of that total uploaded came late.
    pub fn has_up(&self, key: PeerKey, total: u64) -> bool {
        self.up.has(key, total)
    }

    /// Whether a report of that total downloaded came late.
    pub fn has_down(&self, key: PeerKey, total: u64) -> bool {
        self.down.has(key, total)
    }
}

// === impl LateTotals ===

impl LateTotals {
    fn has(&self, key: PeerKey, total: u64) -> bool {
        let mut of_key = self.ranges.range((key, 0, 0)..=(key, total, u64::MAX));
        of_key.any(|&(_, _, to)| total <= to)
    }
}

// === impl Link ===

impl Link {
    async fn call<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&Database) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let database = Arc::clone(&self.database);
        let called = self
            .network
            .call(self.host, Place::Storage, move || effect(&database))
            .await;
        called.unwrap_or_else(|_| Err(StorageError::Away("the database does not answer".into())))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        self.call(|database| Ok(read(&database.tables()))).await
    }

    /// Does `write` in a transaction.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Tables) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.call(|database| {
            let mut tables = Tables::clone(&database.tables());
            let result = write(&mut tables)?;
            database.commit(tables);
            Ok(result)
        })
        .await
    }
}

fn not_simulated<T>() -> Result<T, StorageError> {
    Err(StorageError::Broken("not simulated".into()))
}

#[async_trait]
impl Storage for Link {
    async fn identity(&self) -> Result<String, StorageError> {
        self.read(|_| "simulated".to_owned()).await
    }

    async fn time(&self) -> Result<Option<i64>, StorageError> {
        let network = Arc::clone(&self.network);
        self.call(move |database| Ok(database.has_clock.then(|| network.time(Place::Storage))))
            .await
    }

    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        self.read(|it| {
            let times = it.peers.values().map(|peer| peer.record.last_announce);
            times.max()
        })
        .await
    }

    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        self.read(move |it| {
            let gone = it.peers.values().filter(|peer| !peer.record.active);
            let times = gone.map(|peer| peer.record.last_announce);
            times.filter(|at| *at < before).max()
        })
        .await
    }

    async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Page<StoredUser>, StorageError> {
        self.read(move |it| it.rows.users(after, limit)).await
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError> {
        self.read(move |it| it.rows.torrents(after, limit)).await
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError> {
        self.read(move |it| it.rows.peers(since, after, limit))
            .await
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>, StorageError> {
        self.read(move |it| it.rows.histories(after, limit)).await
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), StorageError> {
        self.read(move |it| {
            let mut histories = it.rows.histories(None, u32::MAX).rows;
            histories.retain(|row| row.torrent == torrent);
            let mut peers = it.rows.peers(i64::MIN, None, u32::MAX).rows;
            peers.retain(|row| row.key.torrent == torrent);
            (histories, peers)
        })
        .await
    }

    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError> {
        let torrents = torrents.to_vec();
        self.read(move |it| {
            let has = |torrent: &TorrentId| it.histories.keys().any(|key| key.0 == *torrent);
            torrents.into_iter().filter(has).collect()
        })
        .await
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError> {
        self.read(|it| it.whitelist.clone()).await
    }

    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError> {
        self.read(|_| Vec::new()).await
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError> {
        self.read(move |it| it.users.get(&id).cloned()).await
    }

    async fn is_unfinished(&self, _id: UserId) -> Result<bool, StorageError> {
        Ok(false)
    }

    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError> {
        let name = name.to_owned();
        self.read(move |it| {
            let users = it.users.values();
            users
                .filter(|row| row.user.username == name)
                .cloned()
                .collect()
        })
        .await
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError> {
        self.read(move |it| {
            let mut torrents = it.torrents.values();
            torrents
                .find(|row| row.torrent.info_hash == info_hash)
                .cloned()
        })
        .await
    }

    async fn find_users(&self, _find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError> {
        not_simulated()
    }

    async fn find_torrents(
        &self,
        _find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError> {
        not_simulated()
    }

    async fn torrents_of(&self, _user: UserId) -> Result<UserTorrents, StorageError> {
        not_simulated()
    }

    async fn feed_position(&self) -> Result<FeedPosition, StorageError> {
        self.read(|it| FeedPosition(it.feed.len() as u64)).await
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed, StorageError> {
        self.read(move |it| {
            let (from, end) = (position.0 as usize, it.feed.len());
            if from > end {
                return Feed::Lost;
            }
            let to = end.min(from + limit as usize);
            let changes = it.latest(&it.feed[from..to]);
            Feed::Changes(changes, FeedPosition(to as u64))
        })
        .await
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError> {
        let users = users.to_vec();
        self.write(move |it| Ok(it.add_users(users))).await
    }

    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError> {
        let patch = patch.clone();
        self.write(move |it| it.update_user(id, patch)).await
    }

    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError> {
        let torrents = torrents.to_vec();
        self.write(move |it| Ok(it.add_torrents(torrents))).await
    }

    async fn update_torrent(
        &self,
        id: TorrentId,
        patch: &TorrentPatch,
    ) -> Result<(), StorageError> {
        let patch = patch.clone();
        self.write(move |it| it.update_torrent(id, patch)).await
    }

    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError> {
        let torrents = torrents.to_vec();
        self.write(move |it| Ok(it.remove_torrents(&torrents)))
            .await
    }

    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError> {
        let clients = clients.to_vec();
        self.write(move |it| {
            it.add_clients(&clients);
            Ok(())
        })
        .await
    }

    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError> {
        let prefix = prefix.to_owned();
        self.write(move |it| it.remove_client(&prefix)).await
    }

    async fn last_applied(&self, journal: &str) -> Result<u64, StorageError> {
        let journal = journal.to_owned();
        self.read(move |it| it.journals.get(&journal).copied().unwrap_or(0))
            .await
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError> {
        self.read(|it| {
            it.journals
                .iter()
                .map(|(name, number)| (name.clone(), *number))
                .collect()
        })
        .await
    }

    async fn forget_journal(&self, node: &str, applied: u64) -> Result<bool, StorageError> {
        let node = node.to_owned();
        self.write(move |it| {
            let is_known = it.journals.get(&node) == Some(&applied);
            if is_known {
                it.journals.remove(&node);
            }
            Ok(is_known)
        })
        .await
    }

    async fn begin_at(&self, journal: &str, number: u64) -> Result<(), StorageError> {
        let journal = journal.to_owned();
        let story = self.story.clone();
        self.write(move |it| {
            let applied = it.journals.get(&journal).copied().unwrap_or(0);
            if applied < number {
                story.record(
                    About::All,
                    format!(
                        "batches of {journal} up to {number} are given up: storage has {applied}"
                    ),
                );
            }
            it.begin_at(&journal, number);
            Ok(())
        })
        .await
    }

    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError> {
        let (batches, rules, story) = (batches.to_vec(), *rules, self.story.clone());
        let host = self.host.id;
        self.write(move |it| {
            let numbers = batches.first().map(|first| first.number);
            let node = batches.last().map(|last| last.journal.clone()).unwrap_or_default();
            let to = batches.last().map_or(0, |last| last.number);
            let applied = it.apply(&batches, &rules);
            let what = match &applied {
                Ok(credited) => {
                    for (user, sum) in &credited.users {
                        story.record(
                            About::User(user.0),
                            format!(
                                "  storage settles {node} {}..{to}: user {} +{} up, +{} down, +{} s, +{} snatches",
                                numbers.unwrap_or(0), user.0, sum.up, sum.down, sum.seed_time, sum.snatches
                            ),
                        );
                    }
                    "applied".to_owned()
                }
                Err(error) => format!("refused: {error}"),
            };
            story.record(About::Traffic, format!("p{host} apply {node} {numbers:?}..{to} {what}"));
            applied
        })
        .await
    }

    async fn prune(&self, before: i64, _limit: u32) -> Result<u64, StorageError> {
        self.write(move |it| {
            let count = it.peers.len();
            it.peers
                .retain(|_, peer| peer.record.active || peer.record.last_announce >= before);
            Ok((count - it.peers.len()) as u64)
        })
        .await
    }

    async fn wipe(
        &self,
        _what: Wipe,
        _after: Option<u32>,
        _limit: u32,
    ) -> Result<Option<u32>, StorageError> {
        not_simulated()
    }

    async fn invalid_totals(
        &self,
        _what: Wipe,
        _after: Option<u32>,
        _limit: u32,
    ) -> Result<(Vec<InvalidTotals>, Option<u32>), StorageError> {
        not_simulated()
    }

    async fn fix_totals(&self, _what: Wipe, _ids: &[u32]) -> Result<(), StorageError> {
        not_simulated()
    }
}
