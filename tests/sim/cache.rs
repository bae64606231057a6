//! The cache that nodes share: maps in memory, which the server may forget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mika::base::ids::{InfoHash, PeerId, UserId};
use mika::cache::{
    Cache, CacheError, CacheKey, CacheUpkeep, ControlPosition, Generation, KeySet, Mark,
    Membership, NodeStats, Notice, Replayed, Rows, Scan, SharedPeer, Wiped, Write, members_of,
};
use mika::change::sums::Credited;
use mika::change::{Batch, Member, SwarmCounts, codec};
use mika::registry::{ClientPrefix, StoredTorrent, StoredUser, Wipe};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::network::{Host, Network, Place};
use super::story::{About, Story};

/// Snapshots that are kept, and how far apart they are.
const SNAPSHOTS: usize = 40;
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(100);

/// Seconds by which clocks of nodes may differ, as the real driver's script has it.
const CLOCK_SKEW: i64 = 5;

/// What the server holds.
#[derive(Clone, Default)]
pub struct Data {
    pub streams: BTreeMap<String, Stream>,
    pub peers: BTreeMap<InfoHash, BTreeMap<(UserId, PeerId), Member>>,
    users: BTreeMap<UserId, StoredUser>,
    torrents: BTreeMap<InfoHash, StoredTorrent>,
    whitelist: Vec<ClientPrefix>,
    /// The marks are good for the run of the server in which they were made.
    marks: BTreeMap<Mark, (String, u64)>,
    epoch: Option<u64>,
    /// Notices, and the number of the first that is kept.
    control: Vec<Notice>,
    nodes: BTreeMap<String, String>,
    replayed: BTreeMap<String, Replayed>,
    leases: BTreeMap<String, (String, Instant)>,
}

/// The journal of a node.
#[derive(Clone, Default)]
pub struct Stream {
    pub batches: BTreeMap<u64, Arc<Batch>>,
    last: u64,
}

/// How the server comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    Nothing,
    /// What it was given within this time.
    Latest(Duration),
    Everything,
}

/// A server.
pub struct Server {
    /// It writes a log to its disk.
    pub is_persistent: bool,
    state: Mutex<State>,
    /// Counts events that may wake waiting calls.
    news: watch::Sender<u64>,
}

struct State {
    data: Data,
    run: u64,
    epochs: u64,
    snapshots: VecDeque<(Instant, Data)>,
}

/// What one process knows of the server.
#[derive(Default)]
struct Seen {
    run: Option<u64>,
    epoch: Option<u64>,
    generation: u64,
}

/// The driver in one process.
pub struct Link {
    pub server: Arc<Server>,
    pub network: Arc<Network>,
    pub host: &'static Host,
    pub story: Story,
    seen: Arc<Mutex<Seen>>,
}

/// One call at the server.
struct Session<'a> {
    data: &'a mut Data,
    run: u64,
    epochs: &'a mut u64,
    seen: &'a mut Seen,
}

// === impl Server ===

impl Server {
    pub fn new(is_persistent: bool) -> Self {
        Self {
            is_persistent,
            state: Mutex::new(State {
                data: Data::default(),
                run: 1,
                epochs: 0,
                snapshots: VecDeque::new(),
            }),
            news: watch::Sender::new(0),
        }
    }

    pub fn data(&self) -> Data {
        self.state.lock().data.clone()
    }

    /// It was restarted, or another server has taken its place.
    pub fn restart(&self, forgets: Forgets) {
        let mut state = self.state.lock();
        state.run += 1;
        match forgets {
            Forgets::Nothing => {}
            Forgets::Latest(time) => {
                let since = Instant::now().checked_sub(time);
                let is_old = |(at, _): &&(Instant, Data)| since.is_some_and(|since| *at <= since);
                let found = state.snapshots.iter().rev().find(is_old).cloned();
                state.data = found.map(|(_, data)| data).unwrap_or_default();
            }
            Forgets::Everything => state.data = Data::default(),
        }
        state.snapshots.clear();
        self.news.send_modify(|news| *news += 1);
    }

    /// All keys are deleted, while it runs.
    pub fn flush(&self) {
        let mut state = self.state.lock();
        state.data = Data::default();
        self.news.send_modify(|news| *news += 1);
    }

    fn run<T>(
        &self,
        seen: &Mutex<Seen>,
        effect: impl FnOnce(&mut Session<'_>) -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let latest = state.snapshots.back().map(|(at, _)| *at);
        if latest.is_none_or(|at| now - at >= SNAPSHOT_PERIOD) {
            let data = state.data.clone();
            state.snapshots.push_back((now, data));
            if state.snapshots.len() > SNAPSHOTS {
                state.snapshots.pop_front();
            }
        }
        let mut seen = seen.lock();
        let State {
            data, run, epochs, ..
        } = &mut *state;
        let mut session = Session {
            data,
            run: *run,
            epochs,
            seen: &mut seen,
        };
        session.connect();
        effect(&mut session)
    }
}

// === impl Session ===

impl Session<'_> {
    /// Notices another run of the server.
    fn connect(&mut self) {
        if self.seen.run != Some(self.run) {
            self.seen.run = Some(self.run);
            self.seen.epoch = None;
            self.seen.generation += 1;
        }
    }

    fn generation(&self) -> Generation {
        Generation(self.seen.generation)
    }

    /// Compares the epoch with the one before.
    fn compare(&mut self) -> Generation {
        if self.seen.epoch.is_some() && self.seen.epoch != self.data.epoch {
            self.seen.generation += 1;
        }
        self.seen.epoch = self.data.epoch;
        self.generation()
    }

    fn begin_epoch(&mut self) -> Generation {
        if self.data.epoch.is_none() {
            *self.epochs += 1;
            self.data.epoch = Some(*self.epochs);
        }
        self.compare()
    }

    fn expect(&mut self, generation: Generation) -> Result<(), CacheError> {
        let now = self.generation();
        if now == generation {
            return Ok(());
        }
        Err(CacheError::Restarted(now))
    }

    fn keep(&mut self, batches: &[Arc<Batch>]) -> Result<(), CacheError> {
        for batch in batches {
            if !self.data.streams.contains_key(&batch.journal) {
                let before = self.generation();
                let now = self.compare();
                if now != before {
                    return Err(CacheError::Restarted(now));
                }
            }
            let stream = self.data.streams.entry(batch.journal.clone()).or_default();
            if batch.number > stream.last {
                stream.last = batch.number;
                // As the driver does: by way of text.
                let changes = codec::decode(&codec::encode(&batch.changes))
                    .map_err(|error| CacheError::Broken(format!("{error}")))?;
                let (journal, number) = (batch.journal.clone(), batch.number);
                let batch = Batch {
                    journal,
                    number,
                    changes,
                };
                stream.batches.insert(number, Arc::new(batch));
            }
            // Also of one that was known: its node may have been cut off before it wrote them.
            for (info_hash, peers) in members_of(batch) {
                self.put_peers(&[(info_hash, peers)]);
            }
        }
        Ok(())
    }

    /// The notices after a position, and the one after them.
    fn notices(&self, after: Option<&ControlPosition>) -> (Vec<Notice>, ControlPosition) {
        let control = &self.data.control;
        let end = ControlPosition {
            run: self.run.to_string(),
            entry: (0, control.len() as u64),
        };
        let notices = match after {
            None => Vec::new(),
            Some(after) if end.has_reached(after) => control[after.entry.1 as usize..].to_vec(),
            // Notices may be gone, so everything may have changed.
            Some(_) => vec![Notice::Registry, Notice::Peers],
        };
        (notices, end)
    }

    fn put_peers(
        &mut self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Vec<(InfoHash, UserId, PeerId)> {
        let mut written = Vec::new();
        for (info_hash, peers) in swarms {
            let swarm = self.data.peers.entry(*info_hash).or_default();
            for peer in peers {
                let SharedPeer::Member(member) = peer else {
                    continue;
                };
                let key = (member.user, member.peer_id);
                let is_newer = swarm.get(&key).is_none_or(|known| {
                    let (new, old) = (&member.record, &known.record);
                    let later = new.last_announce - old.last_announce;
                    new.announces > old.announces
                        || later > CLOCK_SKEW
                        || (new.announces == old.announces && later >= 0)
                });
                if is_newer {
                    swarm.insert(key, member.clone());
                    written.push((*info_hash, key.0, key.1));
                }
            }
        }
        written
    }
}

// === impl Link ===

impl Link {
    pub fn new(
        server: Arc<Server>,
        network: Arc<Network>,
        host: &'static Host,
        story: Story,
    ) -> Self {
        Self {
            server,
            network,
            host,
            story,
            seen: Arc::default(),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut Session<'_>) -> Result<T, CacheError> + Send + 'static,
    ) -> Result<T, CacheError> {
        let (server, seen) = (Arc::clone(&self.server), Arc::clone(&self.seen));
        let called = self
            .network
            .call(self.host, Place::Cache, move || server.run(&seen, effect))
            .await;
        called.unwrap_or_else(|_| Err(CacheError::Away("the cache does not answer".into())))
    }

    async fn data<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut Data) -> T + Send + 'static,
    ) -> Result<T, CacheError> {
        self.call(|session| Ok(effect(session.data))).await
    }

    fn tell_all(&self) {
        self.server.news.send_modify(|news| *news += 1);
    }
}

fn not_simulated<T>() -> Result<T, CacheError> {
    Err(CacheError::Broken("not simulated".into()))
}

#[async_trait]
impl Cache for Link {
    async fn ping(&self) -> Result<Generation, CacheError> {
        self.call(|session| Ok(session.compare())).await
    }

    async fn begin_epoch(&self) -> Result<Generation, CacheError> {
        self.call(|session| Ok(session.begin_epoch())).await
    }

    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError> {
        let batches = batches.to_vec();
        let (story, host) = (self.story.clone(), self.host.id);
        let kept = self.call(move |session| {
            session.expect(generation)?;
            let kept = session.keep(&batches);
            for batch in &batches {
                let text = format!("p{host} keep {} {}", batch.journal, batch.number);
                story.record(About::Traffic, text);
            }
            kept
        });
        let kept = kept.await;
        self.tell_all();
        kept
    }

    async fn add_totals(
        &self,
        generation: Generation,
        credited: &Credited,
    ) -> Result<(), CacheError> {
        let credited = credited.clone();
        self.call(move |session| {
            session.expect(generation)?;
            for (id, sum) in &credited.users {
                if let Some(row) = session.data.users.get_mut(id) {
                    row.totals.uploaded += sum.up;
                    row.totals.downloaded += sum.down;
                }
            }
            Ok(())
        })
        .await
    }

    async fn trim_journal(&self, journal: &str, number: Option<u64>) -> Result<(), CacheError> {
        let journal = journal.to_owned();
        self.data(move |data| match number {
            Some(number) => {
                if let Some(stream) = data.streams.get_mut(&journal) {
                    stream.batches.retain(|kept, _| *kept > number);
                }
            }
            None => drop(data.streams.remove(&journal)),
        })
        .await
    }

    async fn last_kept(&self, node: &str) -> Result<u64, CacheError> {
        let node = node.to_owned();
        self.data(move |data| data.streams.get(&node).map_or(0, |stream| stream.last))
            .await
    }

    async fn kept(
        &self,
        node: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError> {
        let until = Instant::now() + wait;
        loop {
            let mut news = self.server.news.subscribe();
            let node = node.to_owned();
            let read = self.data(move |data| {
                let Some(stream) = data.streams.get(&node) else {
                    return Vec::new();
                };
                let batches = stream.batches.range(after.saturating_add(1)..);
                let batches = batches.take(limit as usize);
                batches.map(|(_, batch)| Batch::clone(batch)).collect()
            });
            let batches = read.await?;
            if !batches.is_empty() || Instant::now() >= until {
                return Ok(batches);
            }
            let _ = timeout_at(until, news.changed()).await;
        }
    }

    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError> {
        let torrents = torrents.to_vec();
        self.data(move |data| {
            let swarm = |info_hash: InfoHash| {
                let members = data.peers.get(&info_hash)?.values();
                let members = members.cloned().map(SharedPeer::Member).collect();
                Some((info_hash, members))
            };
            torrents.into_iter().filter_map(swarm).collect()
        })
        .await
    }

    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>, CacheError> {
        let swarms = swarms.to_vec();
        self.call(move |session| Ok(session.put_peers(&swarms)))
            .await
    }

    async fn mark(&self, mark: Mark) -> Result<Option<String>, CacheError> {
        self.call(move |session| {
            let set = session.data.marks.get(&mark);
            let of_this_run = set.filter(|(_, run)| *run == session.run);
            Ok(of_this_run.map(|(text, _)| text.clone()))
        })
        .await
    }

    async fn set_mark(
        &self,
        mark: Mark,
        text: Option<(Generation, &str)>,
    ) -> Result<(), CacheError> {
        let text = text.map(|(generation, text)| (generation, text.to_owned()));
        self.call(move |session| {
            let Some((generation, text)) = text else {
                session.data.marks.remove(&mark);
                return Ok(());
            };
            session.compare();
            session.expect(generation)?;
            session.data.marks.insert(mark, (text, session.run));
            Ok(())
        })
        .await
    }

    async fn put(&self, rows: Rows<'_>, _write: Write) -> Result<(), CacheError> {
        match rows {
            Rows::Users(users) => {
                let users = users.to_vec();
                self.data(move |data| {
                    for mut row in users {
                        if let Some(known) = data.users.get(&row.user.id) {
                            row.totals = known.totals;
                        }
                        data.users.insert(row.user.id, row);
                    }
                })
                .await
            }
            Rows::Torrents(torrents) => {
                let rows = torrents
                    .iter()
                    .map(|row| (row.torrent.info_hash, row.clone()));
                let rows: Vec<_> = rows.collect();
                self.data(move |data| data.torrents.extend(rows)).await
            }
            Rows::Whitelist(clients) => {
                let clients = clients.to_vec();
                self.data(move |data| data.whitelist = clients).await
            }
        }
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<(), CacheError> {
        let keys = keys.to_vec();
        self.data(move |data| {
            for key in keys {
                match key {
                    CacheKey::User(id) => drop(data.users.remove(&id)),
                    CacheKey::Torrent(info_hash) => {
                        data.torrents.remove(&info_hash);
                        data.peers.remove(&info_hash);
                    }
                    CacheKey::Swarm(info_hash) => drop(data.peers.remove(&info_hash)),
                    // They are those of the users.
                    CacheKey::Passkey(..) => {}
                }
            }
        })
        .await
    }

    async fn users(&self, _cursor: u64) -> Result<Scan<StoredUser>, CacheError> {
        self.data(|data| Scan::whole(data.users.values().cloned().collect()))
            .await
    }

    async fn torrents(&self, _cursor: u64) -> Result<Scan<StoredTorrent>, CacheError> {
        self.data(|data| Scan::whole(data.torrents.values().cloned().collect()))
            .await
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, CacheError> {
        self.data(|data| data.whitelist.clone()).await
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError> {
        self.data(move |data| data.users.get(&id).cloned()).await
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError> {
        self.data(move |data| data.torrents.get(&info_hash).cloned())
            .await
    }

    async fn keys(&self, which: KeySet, _cursor: u64) -> Result<Scan<CacheKey>, CacheError> {
        self.data(move |data| {
            let users = data.users.keys().copied().map(CacheKey::User);
            let torrents = data.torrents.keys().copied().map(CacheKey::Torrent);
            let swarms = data.peers.keys().copied().map(CacheKey::Swarm);
            Scan::whole(match which {
                KeySet::Registry => users.chain(torrents).collect(),
                KeySet::Passkeys => Vec::new(),
                KeySet::Swarms => swarms.collect(),
            })
        })
        .await
    }

    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError> {
        let notices = notices.to_vec();
        let published = self.data(move |data| data.control.extend(notices)).await;
        self.tell_all();
        published
    }

    async fn control(
        &self,
        after: Option<&ControlPosition>,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError> {
        let until = Instant::now() + wait;
        loop {
            let mut news = self.server.news.subscribe();
            let after = after.cloned();
            let read = self.call(move |session| Ok(session.notices(after.as_ref())));
            let (notices, position) = read.await?;
            if !notices.is_empty() || Instant::now() >= until {
                return Ok((notices, position));
            }
            let _ = timeout_at(until, news.changed()).await;
        }
    }

    async fn beat(&self, node: &str, sign: &str) -> Result<(), CacheError> {
        let (node, sign) = (node.to_owned(), sign.to_owned());
        self.call(move |session| {
            session.data.nodes.insert(node, sign);
            session.begin_epoch();
            Ok(())
        })
        .await
    }

    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError> {
        self.data(|data| data.nodes.clone().into_iter().collect())
            .await
    }

    async fn leave(&self, node: &str) -> Result<(), CacheError> {
        let node = node.to_owned();
        self.data(move |data| {
            data.replayed.remove(&node);
            data.nodes.remove(&node);
        })
        .await
    }

    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.data(move |data| {
            let now = Instant::now();
            let is_free = data
                .leases
                .get(&name)
                .is_none_or(|(owner, until)| *owner == holder || *until <= now);
            if is_free {
                data.leases.insert(name, (holder, now + time));
            }
            is_free
        })
        .await
    }
}

#[async_trait]
impl CacheUpkeep for Link {
    async fn is_persistent(&self) -> Result<bool, CacheError> {
        let server = Arc::clone(&self.server);
        self.data(move |_| server.is_persistent).await
    }

    async fn put_memberships(&self, _memberships: &[Membership]) -> Result<(), CacheError> {
        self.data(|_| ()).await
    }

    async fn put_counts(&self, _counts: &[(InfoHash, SwarmCounts)]) -> Result<(), CacheError> {
        self.data(|_| ()).await
    }

    async fn prune(
        &self,
        _cursor: u64,
        members_before: i64,
        _guests_before: i64,
    ) -> Result<Option<u64>, CacheError> {
        self.data(move |data| {
            for swarm in data.peers.values_mut() {
                swarm.retain(|_, member| member.record.last_announce >= members_before);
            }
            None
        })
        .await
    }

    async fn evicted(&self) -> Result<u64, CacheError> {
        self.data(|_| 0).await
    }

    async fn time(&self) -> Result<Option<i64>, CacheError> {
        let network = Arc::clone(&self.network);
        self.data(move |_| Some(network.time(Place::Cache))).await
    }

    async fn replayed(&self) -> Result<Vec<(String, Replayed)>, CacheError> {
        self.data(|data| data.replayed.clone().into_iter().collect())
            .await
    }

    async fn set_replayed(&self, journal: &str, replayed: Replayed) -> Result<(), CacheError> {
        let journal = journal.to_owned();
        self.data(move |data| {
            data.replayed.insert(journal, replayed);
        })
        .await
    }

    async fn add_stats(&self, _stats: NodeStats) -> Result<(), CacheError> {
        self.data(|_| ()).await
    }

    async fn set_totals(
        &self,
        _user: UserId,
        _uploaded: Option<u64>,
        _downloaded: Option<u64>,
    ) -> Result<(), CacheError> {
        not_simulated()
    }

    async fn wipe(&self, _what: Wipe, _cursor: u64) -> Result<Wiped, CacheError> {
        not_simulated()
    }
}
