//! The servers that the URL names, as one thing to send commands to: which they are, connections to them, and noticing
//! that they may have lost data.
//!
//! There is one server, a master that sentinels name, or the masters of a cluster. The clients of the redis crate for
//! the latter two are not used: they hide which run of which server answered, so that lost data would go unnoticed, and a
//! pipeline must keep to one slot there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, RunKind, moment};
use super::fault::RedisFault;
use super::place::{Address, FORMS, Place};
use super::session::RedisSession;
use super::troubles::Troubles;
use super::view::View;
use super::wire::RedisDial;
use super::{cluster, sentinel};
use crate::base::backoff::Backoff;
use crate::base::secret::Secret;
use crate::cache::{CacheError, Generation};
use crate::registry::BadRow;

/// How long to wait for a new connection, its first reply included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long finding the servers may take, and connecting to them.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(4);

/// Backoff between attempts to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Idle connections kept for blocking reads.
const IDLE_MAX: usize = 64;

/// The most connections for blocking reads that are made at once.
const OPENING_MAX: usize = 4;

/// The connections to the servers, shared by all tasks.
pub(super) struct RedisLink {
    pub(super) place: Place,
    pub(super) dial: Arc<dyn RedisDial>,
    /// The URL without secrets.
    pub(super) server: Arc<str>,
    /// Held while the servers are looked for.
    connecting: tokio::sync::Mutex<()>,
    opening: Semaphore,
    pub(super) troubles: Troubles,
    state: Mutex<State>,
    /// For the task that restores connections.
    me: Weak<Self>,
}

struct State {
    /// None while no server is connected.
    view: Option<Arc<View>>,
    /// The view before, for what is known of masters that are away.
    last_view: Option<Arc<View>>,
    idle: Vec<Connection>,
    backoff: Backoff,
    /// No attempt to connect before then.
    closed_until: Option<Instant>,
    /// The last epochs seen, by key: emptying a server removes its own.
    epochs: BTreeMap<String, String>,
    generation: Generation,
    /// A part of the cluster was away and missed writes.
    has_missed: bool,
    /// The mark of the peers could not be removed then, and is not valid any more because of another epoch.
    has_replaced_epoch: bool,
    is_restoring: bool,
}

/// Says that the task which restores connections has ended, if its runtime ends it.
struct Restoring(Weak<RedisLink>);

// === impl RedisLink ===

impl RedisLink {
    /// Parses the URL; does not connect yet.
    pub(super) fn new(url: &Secret, dial: Arc<dyn RedisDial>) -> Result<Arc<Self>, CacheError> {
        let wrong = |text| CacheError::Broken(format!("cache.url {url}: {text}; {FORMS}"));
        let place = Place::of(url).map_err(wrong)?;
        Ok(Self::of(place, dial, format!("Redis at {url}").into()))
    }

    /// Connections of its own to the same servers.
    pub(super) fn another(&self) -> Arc<Self> {
        Self::of(
            self.place.clone(),
            Arc::clone(&self.dial),
            Arc::clone(&self.server),
        )
    }

    fn of(place: Place, dial: Arc<dyn RedisDial>, server: Arc<str>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            place,
            dial,
            server,
            connecting: tokio::sync::Mutex::new(()),
            opening: Semaphore::new(OPENING_MAX),
            troubles: Troubles::default(),
            state: Mutex::new(State {
                view: None,
                last_view: None,
                idle: Vec::new(),
                backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
                closed_until: None,
                epochs: BTreeMap::new(),
                generation: Generation(0),
                has_missed: false,
                has_replaced_epoch: false,
                is_restoring: false,
            }),
            me: me.clone(),
        })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// The servers, as far as they are connected; connects if none is, and if the backoff allows it.
    pub(super) async fn session(&self) -> Result<RedisSession<'_>, CacheError> {
        if let Some(view) = self.view() {
            return Ok(RedisSession::new(self, view));
        }
        let _turn = self.connecting.lock().await;
        // Another task may have connected meanwhile.
        if let Some(view) = self.view() {
            return Ok(RedisSession::new(self, view));
        }
        let closed_until = self.state.lock().closed_until;
        if closed_until.is_some_and(|until| until.elapsed().is_zero()) {
            return Err(CacheError::Away(format!(
                "{}: no connection; the next attempt follows soon",
                self.server
            )));
        }
        Ok(RedisSession::new(self, self.discover().await?))
    }

    /// The servers as they are known now.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.state.lock().view.clone()
    }

    /// Looks for the servers again, unless that was done since `seen`.
    pub(super) async fn refresh(&self, seen: &Arc<View>) -> Result<Arc<View>, CacheError> {
        let _turn = self.connecting.lock().await;
        if let Some(view) = self.view().filter(|view| !Arc::ptr_eq(view, seen)) {
            return Ok(view);
        }
        self.discover().await
    }

    /// Finds the servers and connects to those that are not connected.
    async fn discover(&self) -> Result<Arc<View>, CacheError> {
        let known = {
            let state = self.state.lock();
            state.view.clone().or_else(|| state.last_view.clone())
        };
        let search = async {
            match &self.place {
                Place::One(info) => {
                    let (info, server) = ((**info).clone(), Arc::clone(&self.server));
                    let made = self.connect(info, server, None, RunKind::Process).await;
                    made.map(View::of_one)
                }
                Place::Sentinel(place) => sentinel::find(self, place).await.map(View::of_one),
                Place::Cluster(hosts) => cluster::find(self, hosts, known.as_deref()).await,
            }
        };
        let found = match timeout(DISCOVERY_TIMEOUT, search).await {
            Ok(found) => found,
            Err(_) => Err(RedisFault::lost(&self.server, "it does not answer")),
        };
        match found {
            Ok(view) => Ok(self.install(view)),
            Err(fault) => {
                let mut state = self.state.lock();
                if state.view.is_none() {
                    state.close();
                    drop(state);
                    self.troubles.unreachable(&self.server, &fault.error);
                }
                Err(fault.error)
            }
        }
    }

    /// Connects to one server within [`CONNECT_TIMEOUT`].
    pub(super) async fn connect(
        &self,
        info: redis::ConnectionInfo,
        server: Arc<str>,
        address: Option<Address>,
        kind: RunKind,
    ) -> Result<Connection, RedisFault> {
        let opened = Connection::open(&*self.dial, info, Arc::clone(&server), address, kind);
        match timeout(CONNECT_TIMEOUT, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(RedisFault::lost(&server, "it does not answer")),
        }
    }

    /// Takes what was found as the servers from now on. Data may be lost if they are not all the same runs as before.
    fn install(&self, mut view: View) -> Arc<View> {
        let mut state = self.state.lock();
        let before = state.view.take().or_else(|| state.last_view.take());
        if before.as_ref().is_none_or(|before| before.run != view.run) {
            state.generation.0 += 1;
            state.epochs.clear();
        }
        view.generation = state.generation;
        view.version = before.map_or(0, |before| before.version_after(&view));
        let view = Arc::new(view);
        state.view = Some(Arc::clone(&view));
        drop(state);
        if view.is_whole() {
            self.troubles.all_reached(&self.server);
            return view;
        }
        for server in &view.servers {
            match &server.problem {
                Some(problem) => {
                    let error = CacheError::Away(problem.clone());
                    self.troubles.unreachable(&server.name, &error);
                }
                None => self.troubles.reached(&server.name),
            }
        }
        self.restore();
        view
    }

    /// Takes over a slot's new master, if it is one of the known ones.
    pub(super) fn move_slot(
        &self,
        seen: &Arc<View>,
        slot: u16,
        master: &Address,
    ) -> Option<Arc<View>> {
        let mut state = self.state.lock();
        let view = state.view.as_ref()?;
        let moved = Arc::new(view.with_moved(slot, master)?);
        if view.generation != seen.generation {
            return None;
        }
        state.view = Some(Arc::clone(&moved));
        Some(moved)
    }

    /// Compares the servers' epochs with the last ones. If one of them differs or is missing, its server was emptied, and
    /// a new generation begins.
    pub(super) fn saw_epochs(
        &self,
        session: &RedisSession<'_>,
        seen: Vec<(String, Option<String>)>,
    ) -> Generation {
        let mut state = self.state.lock();
        if session.generation() != state.generation {
            return state.generation;
        }
        let mut was_emptied = false;
        for (key, epoch) in seen {
            let before = state.epochs.remove(&key);
            was_emptied |= before.is_some() && before != epoch;
            if let Some(epoch) = epoch {
                state.epochs.insert(key, epoch);
            }
        }
        if was_emptied {
            state.begin_generation();
        }
        state.generation
    }

    /// The epoch that was seen last under a key.
    pub(super) fn known_epoch(&self, key: &str) -> Option<String> {
        self.state.lock().epochs.get(key).cloned()
    }

    /// The same, empty if there was none; `None` once that generation is over.
    pub(super) fn epoch_in(&self, generation: Generation, key: &str) -> Option<String> {
        let state = self.state.lock();
        let epoch = || state.epochs.get(key).cloned().unwrap_or_default();
        (state.generation == generation).then(epoch)
    }

    /// This process has replaced an epoch by that one, while a part of the cluster is away.
    pub(super) fn note_epoch(&self, key: String, epoch: String) {
        let mut state = self.state.lock();
        state.epochs.insert(key, epoch);
        state.has_replaced_epoch = true;
    }

    /// Whether [`Self::note_epoch`] was called since all servers took commands.
    pub(super) fn has_replaced_epoch(&self) -> bool {
        self.state.lock().has_replaced_epoch
    }

    /// The data behind a session is lost: begins a new generation, unless one has begun since.
    pub(super) fn was_emptied(&self, session: &RedisSession<'_>) -> Generation {
        let mut state = self.state.lock();
        if session.generation() == state.generation {
            state.begin_generation();
        }
        state.generation
    }

    /// A part of the cluster misses writes: once it is back, all is to be written again.
    pub(super) fn note_missed(&self) {
        self.state.lock().has_missed = true;
    }

    /// Whether [`Self::note_missed`] was called, and not all is being written again yet.
    pub(super) fn has_missed(&self) -> bool {
        self.state.lock().has_missed
    }

    /// All servers took commands: if a part of them has missed writes, a new generation begins.
    pub(super) fn all_answered(&self, session: &RedisSession<'_>) -> Generation {
        let mut state = self.state.lock();
        state.has_replaced_epoch = false;
        if state.has_missed && session.generation() == state.generation {
            state.begin_generation();
        }
        state.generation
    }

    /// An idle connection, or a new one, for what is not to be mixed with the commands of others.
    pub(super) async fn idle_connection(
        &self,
        address: Option<&Address>,
    ) -> Result<Connection, RedisFault> {
        let idle = {
            let mut state = self.state.lock();
            let found = state
                .idle
                .iter()
                .position(|it| it.address.as_ref() == address);
            found.map(|index| state.idle.swap_remove(index))
        };
        match idle {
            Some(connection) => Ok(connection),
            None => self.open(address).await,
        }
    }

    async fn open(&self, address: Option<&Address>) -> Result<Connection, RedisFault> {
        let wrong = |error| RedisFault::of_link(&self.server, &error);
        let (info, kind) = match (&self.place, address) {
            (Place::One(info), _) => ((**info).clone(), RunKind::Process),
            (Place::Sentinel(place), Some(address)) => (
                place.connect_to(address).map_err(wrong)?,
                RunKind::Mastership,
            ),
            (Place::Cluster(hosts), Some(address)) => (
                hosts.connect_to(address).map_err(wrong)?,
                RunKind::Mastership,
            ),
            (_, None) => return Err(RedisFault::lost(&self.server, "no server is known")),
        };
        let server = address.map_or_else(|| Arc::clone(&self.server), |it| self.name_of(it));
        let Ok(Ok(_permit)) = timeout(CONNECT_TIMEOUT, self.opening.acquire()).await else {
            return Err(RedisFault::away(
                &server,
                "too many connections are being made",
            ));
        };
        self.connect(info, server, address.cloned(), kind).await
    }

    /// Keeps a connection for [`Self::idle_connection`].
    pub(super) fn keep_idle(&self, connection: Connection) {
        let mut state = self.state.lock();
        if state.idle.len() < IDLE_MAX {
            state.idle.push(connection);
        }
    }

    /// A server of several, for messages.
    pub(super) fn name_of(&self, address: &Address) -> Arc<str> {
        format!("{}, server {address}", self.server).into()
    }

    /// Drops a shared connection, unless that was done already. Those to other servers stay.
    pub(super) fn drop_connection(&self, lost: &Arc<Connection>, fault: &RedisFault) {
        let mut state = self.state.lock();
        state.idle.retain(|it| it.address != lost.address);
        let Some(view) = state
            .view
            .as_ref()
            .and_then(|view| view.without(lost, &fault.error))
        else {
            return;
        };
        // Only a connection that lasted resets the backoff.
        if lost.made.elapsed() > BACKOFF_MAX {
            state.backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        }
        let view = Arc::new(view);
        if view.has_connection() {
            state.view = Some(view);
            drop(state);
            self.restore();
        } else {
            state.last_view = Some(view);
            state.view = None;
            state.close();
        }
    }

    /// Has the missing connections restored in the background, so that nobody who needs other servers waits for that.
    pub(super) fn restore(&self) {
        if std::mem::replace(&mut self.state.lock().is_restoring, true) {
            return;
        }
        let mut guard = Restoring(Weak::clone(&self.me));
        tokio::spawn(async move {
            let mut delays = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
            loop {
                delays.pause().await;
                let Some(link) = guard.0.upgrade() else {
                    return;
                };
                if let Some(view) = link.view()
                    && let Err(error) = link.refresh(&view).await
                {
                    tracing::debug!(%error, "not all servers of the cache are back");
                }
                if link.ends_restoring() {
                    guard.disarm();
                    return;
                }
            }
        });
    }

    /// Whether nothing is to be restored any more: all servers are connected, or none, so that the next call looks for them.
    fn ends_restoring(&self) -> bool {
        let mut state = self.state.lock();
        let is_done = state.view.as_ref().is_none_or(|view| view.is_whole());
        state.is_restoring = !is_done;
        is_done
    }

    /// The error for a reply that only another program or a proxy could cause.
    pub(super) fn unexpected(&self, command: &str) -> CacheError {
        CacheError::Broken(format!(
            "{}: an unexpected reply to {command}: is it Redis?",
            self.server
        ))
    }

    /// The error for a single row that can't be used.
    pub(super) fn unusable(&self, bad: &BadRow) -> CacheError {
        self.broken(&format!("{}:{}: {}", bad.table, bad.id, bad.problem))
    }

    /// The error for what needs all masters of a cluster to have all that was written.
    pub(super) fn incomplete(&self) -> CacheError {
        CacheError::Away(format!("{}: a part of the cluster is away", self.server))
    }

    pub(super) fn broken(&self, text: &str) -> CacheError {
        CacheError::Broken(format!("{}: {text}", self.server))
    }
}

// === impl State ===

impl State {
    /// Keeps the connections, for the next generation.
    fn begin_generation(&mut self) {
        self.generation.0 += 1;
        self.has_missed = false;
        let generation = self.generation;
        if let Some(view) = &self.view {
            self.view = Some(Arc::new(View {
                generation,
                ..(**view).clone()
            }));
        }
    }

    fn close(&mut self) {
        let delay = self.backoff.next().unwrap_or(BACKOFF_MAX);
        self.closed_until = Some(moment(delay));
    }
}

// === impl Restoring ===

impl Restoring {
    /// It has ended by itself.
    fn disarm(&mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        if let Some(link) = self.0.upgrade() {
            link.state.lock().is_restoring = false;
        }
    }
}
