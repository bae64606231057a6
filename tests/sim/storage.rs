//! The database: maps in memory, in which reports are settled by the code that all drivers use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::change::sums::{Credited, Sum};
use mika::change::{Batch, Change, PeerKey, PeerRecord};
use mika::registry::{
    ClientPrefix, Permille, RowChange, StoredTorrent, StoredUser, Torrent, User, UserTotals, Wipe,
};
use mika::storage::settle::{HeldHistory, HeldPeer, HeldRows, Settlement, TorrentSum};
use mika::storage::touched::{KnownIds, Touched};
use mika::storage::{
    Added, BadRow, CreditRules, Feed, FeedPosition, Find, Finding, Found, InvalidTotals,
    MigrationStatus, NewTorrent, NewUser, Page, Storage, StorageError, StoredHistory, StoredPeer,
    TorrentKey, TorrentPatch, TorrentRemoval, UserKey, UserPatch, UserTorrents, batches,
};
use parking_lot::Mutex;

use super::network::{Host, Network, Place};
use super::story::{About, Story};

/// Transactions that the database can go back by.
const HISTORY: usize = 400;

/// The tables.
#[derive(Clone, Default)]
pub struct Tables {
    pub users: BTreeMap<UserId, StoredUser>,
    pub torrents: BTreeMap<TorrentId, StoredTorrent>,
    pub peers: BTreeMap<PeerKey, Peer>,
    pub histories: BTreeMap<(TorrentId, UserId), Done>,
    pub journals: BTreeMap<String, u64>,
    /// The largest id that a torrent had.
    pub last_torrent: u32,
    pub whitelist: Vec<ClientPrefix>,
    pub feed: Vec<RowChange>,
    pub late: LateStarts,
}

/// Which `started` reached the database after a later report of the same client.
#[derive(Clone, Default)]
pub struct LateStarts {
    /// Unix times of the newest report of each peer.
    newest: BTreeMap<PeerKey, i64>,
    up: BTreeSet<(PeerKey, u64)>,
    down: BTreeSet<(PeerKey, u64)>,
}

/// A row of peers.
#[derive(Clone)]
pub struct Peer {
    pub record: PeerRecord,
    pub held: HeldPeer,
}

/// A row of histories.
#[derive(Clone, Default)]
pub struct Done {
    pub held: HeldHistory,
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
        let Some(last) = batches.last() else {
            return Ok(Credited::default());
        };
        let applied = self.journals.get(&last.journal).copied().unwrap_or(0);
        let new = batches::not_applied(batches, applied)?;
        if new.is_empty() {
            return Ok(Credited::default());
        }
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let known = KnownIds {
            users: self.users.keys().map(|id| id.0).collect(),
            torrents: self.torrents.keys().map(|id| id.0).collect(),
            ..KnownIds::default()
        };
        let touched = Touched::by(changes(), &known);
        let held = self.held(&touched);
        changes().for_each(|change| self.late.see(change));
        let settled = Settlement::of(touched, held, &last.journal, rules);
        self.write(&settled);
        self.journals.insert(last.journal.clone(), last.number);
        Ok(settled.into_credited())
    }

    fn held(&self, touched: &Touched<'_>) -> HeldRows {
        let peers = touched.peers.iter();
        let peers = peers.map(|row| Some(self.peers.get(&row.key)?.held.clone()));
        let histories = touched.histories.iter();
        let histories =
            histories.map(|row| Some(self.histories.get(&(row.torrent, row.user))?.held.clone()));
        HeldRows {
            peers: peers.collect(),
            histories: histories.collect(),
        }
    }

    fn write(&mut self, settled: &Settlement<'_>) {
        let mut packed = Vec::new();
        for row in &settled.peers {
            let known = self.peers.get(&row.key).map(|peer| &peer.record);
            let Some(mut record) = row.record.or(known).cloned() else {
                continue;
            };
            let base = row.held.base();
            (record.base_up, record.base_down, record.base_at) = (base.up, base.down, base.at);
            (record.dip_up, record.dip_down) = (base.dip_up, base.dip_down);
            (record.uploaded, record.downloaded) = (row.held.uploaded, row.held.downloaded);
            // As drivers keep it: packed into bytes.
            let mut held = row.held.clone();
            row.held.pack(&mut packed);
            held.account = HeldPeer::account_of(&packed).unwrap_or_else(|| base.account());
            self.peers.insert(row.key, Peer { record, held });
        }
        for key in &settled.gone {
            self.peers.remove(key);
        }
        for row in &settled.histories {
            let done = self.histories.entry((row.torrent, row.user)).or_default();
            done.held = row.now.clone();
        }
        for (id, sum) in &settled.users {
            if let Some(user) = self.users.get_mut(id) {
                add(&mut user.totals, sum);
            }
        }
        for (id, TorrentSum { sum, counts, .. }) in &settled.torrents {
            if let Some(row) = self.torrents.get_mut(id) {
                row.uploaded += sum.raw_up;
                row.downloaded += sum.raw_down;
                row.announces += sum.announces;
                row.torrent.snatches += u32::try_from(sum.snatches).unwrap_or(u32::MAX);
                (row.seeders, row.leechers) = (counts.seeders, counts.leechers);
            }
        }
    }
}

fn add(totals: &mut UserTotals, sum: &Sum) {
    totals.uploaded += sum.up;
    totals.downloaded += sum.down;
    totals.snatches += sum.snatches;
    totals.announces += sum.announces;
    totals.seed_time += sum.seed_time;
}

// === impl LateStarts ===

impl LateStarts {
    fn see(&mut self, change: &Change) {
        let Change::Peer(change) = change else { return };
        let Some(report) = &change.report else { return };
        let newest = self.newest.entry(change.key).or_insert(report.at);
        for (stretch, late) in [(report.up, &mut self.up), (report.down, &mut self.down)] {
            let started = stretch.filter(|it| it.started && it.from.at < *newest);
            late.extend(started.map(|it| (change.key, it.from.total)));
        }
        *newest = report.at.max(*newest);
    }

    /// Whether one that began with so much uploaded, or downloaded, came late: with both, in that order.
    pub fn has(&self, key: PeerKey, up: u64, down: u64) -> (bool, bool) {
        let (up, down) = ((key, up), (key, down));
        (self.up.contains(&up), self.down.contains(&down))
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

fn page<K: Ord + Copy, V, T>(
    rows: &BTreeMap<K, V>,
    after: Option<K>,
    limit: u32,
    row: impl Fn(&K, &V) -> Option<T>,
) -> Page<T> {
    let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let all = rows.range((from, std::ops::Bound::Unbounded));
    let mut rows: Vec<T> = all.filter_map(|(key, value)| row(key, value)).collect();
    let last = rows.len() <= limit as usize;
    rows.truncate(limit as usize);
    Page {
        rows,
        bad: Vec::new(),
        unfinished: 0,
        last,
    }
}

fn history(key: (TorrentId, UserId), done: &Done) -> StoredHistory {
    StoredHistory {
        user: key.1,
        torrent: key.0,
        uploaded: done.held.uploaded,
        downloaded: done.held.downloaded,
        seed_time: done.held.seed_time,
        completed_at: done.held.completed_at,
        hnr: done.held.hnr,
    }
}

fn not_simulated<T>() -> Result<T, StorageError> {
    Err(StorageError::Broken("not simulated".into()))
}

#[async_trait]
impl Storage for Link {
    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        self.read(|_| Vec::new()).await
    }

    async fn check(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }

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
        self.read(move |it| page(&it.users, after, limit, |_, row| Some(row.clone())))
            .await
    }

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError> {
        self.read(move |it| page(&it.torrents, after, limit, |_, row| Some(row.clone())))
            .await
    }

    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError> {
        let row = move |key: &PeerKey, peer: &Peer| {
            let record = &peer.record;
            (record.active || record.last_announce >= since).then(|| StoredPeer {
                key: *key,
                record: record.clone(),
            })
        };
        self.read(move |it| page(&it.peers, after, limit, row))
            .await
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>, StorageError> {
        let row = |key: &(TorrentId, UserId), done: &Done| Some(history(*key, done));
        self.read(move |it| page(&it.histories, after, limit, row))
            .await
    }

    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), StorageError> {
        self.read(move |it| {
            let histories = it.histories.iter().filter(|(key, _)| key.0 == torrent);
            let histories = histories.map(|(key, done)| history(*key, done)).collect();
            let peers = it.peers.iter().filter(|(key, _)| key.torrent == torrent);
            let peers = peers.map(|(key, peer)| StoredPeer {
                key: *key,
                record: peer.record.clone(),
            });
            (histories, peers.collect())
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
            let applied = it.journals.entry(journal.clone()).or_default();
            if *applied < number {
                story.record(
                    About::All,
                    format!(
                        "batches of {journal} up to {number} are given up: storage has {applied}"
                    ),
                );
                *applied = number;
            }
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
