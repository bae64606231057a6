//! One run: setup, faults, end, and checks.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use mika::base::ids::PeerId;
use mika::cache::Cache;
use mika::config::{self, Config};
use mika::journal;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::clients::{Client, Return};
use super::edits::Operator;
use super::faults::{self, Kind};
use super::hnr;
use super::model::{Birth, LifeId, Model, Wrong};
use super::network::{self, Host, Network, elapsed};
use super::process::Site;
use super::redis::{Dialer, Redis};
use super::seedtime::Order;
use super::storage::Database;
use super::story::{About, Story};

/// How long a peer stays without announcing, in seconds.
pub const TTL: u64 = 60;

/// Seconds by which whole seconds, and the way to another node, may lengthen that.
pub const TTL_SLACK: u64 = 4;

/// How long a node has after the faults to apply everything.
const RECOVERY: Duration = Duration::from_secs(25);

/// Room in a node's journal that is never used up.
const MAX_PENDING: u32 = 100_000;

/// How long other nodes have after the last announces to learn of them, and then cache and storage.
const LEARNING: Duration = Duration::from_secs(5);

/// After so long, nothing that is settled may be kept anywhere: peers expire meanwhile.
const SETTLED: Duration = Duration::from_secs(2 * TTL + 70);

/// One seed in so many has a cluster, whose runs take several times as long.
const CLUSTER_EVERY: u64 = 5;

/// Masters of a cluster.
const CLUSTER_PARTS: usize = 3;

/// The identity of a client: user, torrent and peer id.
pub type Key = (u32, u32, PeerId);

/// What a run has, and which faults there may be.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Plan {
    pub users: u32,
    pub torrents: u32,
    pub sites: usize,
    pub clients: u32,
    pub has_cache: bool,
    /// Parts of the cache: one server, or the masters of a cluster.
    pub parts: usize,
    /// The database is a server, with a clock of its own.
    pub has_storage_clock: bool,
    /// The cache writes a log to its disk.
    pub is_persistent: bool,
    pub copies: bool,
    /// Users, torrents and the whitelist are edited.
    pub edits: bool,
    /// Faults may come while others last.
    pub is_rough: bool,
    pub faults: Vec<Kind>,
    /// Replies of 1000 that don't reach their client.
    pub client_losses: u32,
    /// When a user who left owes seed time.
    pub hnr: hnr::Rules,
    pub flush: Duration,
    /// How long batches are kept after storage had them.
    pub keep: Duration,
    pub max_pending: u32,
    /// How long faults go on.
    pub time: Duration,
}

pub struct World {
    pub plan: Plan,
    pub story: Story,
    pub network: Arc<Network>,
    pub redis: Option<Arc<Redis>>,
    pub database: Arc<Database>,
    pub model: Mutex<Model>,
    pub config: Config,
    pub sites: Vec<Arc<Site>>,
    pub disk: Arc<Disk>,
    hosts: AtomicU32,
    clients: AtomicU32,
    /// Clients that have not made their last announce.
    living: watch::Sender<i32>,
    is_over: watch::Sender<bool>,
    is_healed: watch::Sender<bool>,
    /// When each endpoint was last announced, and for which torrent.
    present: Mutex<BTreeMap<SocketAddr, BTreeMap<u32, Duration>>>,
    /// Peers that are present at the end, and absent ones, with times.
    ends: Mutex<BTreeMap<Key, (bool, Duration)>>,
    copied: Mutex<BTreeSet<PeerId>>,
    /// Seconds by which a node alone took the times in which it was away for longer than they were.
    pub shift: AtomicI64,
    wrong: Mutex<Vec<Wrong>>,
    /// When the cache last forgot something, in seconds: what storage had then is kept nowhere else.
    pub forgot_at: AtomicI64,
}

/// The disks of all machines.
#[derive(Default)]
pub struct Disk {
    pub is_full: AtomicBool,
}

/// What came of a run.
pub struct Outcome {
    pub hash: u64,
    pub wrong: Vec<Wrong>,
    /// The story.
    pub page: String,
    pub plan: Plan,
}

impl journal::disk::Disk for Disk {
    fn before_job(&self) -> Result<(), String> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err("the disk is full: free some space".into());
        }
        Ok(())
    }
}

/// Runs a seed to its end. To be called on a thread of its own.
pub fn run(seed: u64) -> Outcome {
    super::entropy::seed(seed);
    on_jumping_clock(async {
        let world = World::new(seed);
        world.play().await
    })
}

/// Runs on a clock that jumps from one event to the next.
pub fn on_jumping_clock<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        network::begin();
        task.await
    })
}

// === impl Plan ===

impl Plan {
    fn draw(seed: u64, random: &mut fastrand::Rng) -> Self {
        let has_cache = random.u32(..8) > 0;
        let is_rough = random.u32(..3) == 0;
        let clients = random.u32(2..7);
        let sites = if has_cache { random.usize(1..4) } else { 1 };
        let mut plan = Self {
            users: random.u32(1..4),
            torrents: random.u32(1..4),
            sites,
            has_storage_clock: sites > 1 || random.bool(),
            clients,
            has_cache,
            parts: if seed.is_multiple_of(CLUSTER_EVERY) {
                CLUSTER_PARTS
            } else {
                1
            },
            is_persistent: random.bool(),
            copies: random.u32(..5) == 0,
            edits: random.u32(..3) == 0,
            is_rough,
            faults: Vec::new(),
            client_losses: [0, 20, 100][random.usize(..3)],
            hnr: hnr::Rules {
                threshold: [30, 90, 400][random.usize(..3)],
                min_bytes: [0, 5 << 20, 100 << 20][random.usize(..3)],
            },
            flush: Duration::from_millis([200, 1000, 5000][random.usize(..3)]),
            keep: Duration::from_secs([60, 60, 10][random.usize(..3)]),
            max_pending: [MAX_PENDING, MAX_PENDING, 3][random.usize(..3)],
            time: Duration::from_secs(random.u64(200..700)),
        };
        if plan.copies {
            // A node without room passes nothing on, so nodes can't distinguish machines (rule A3).
            plan.max_pending = MAX_PENDING;
        }
        plan.faults = faults::draw(&plan, random);
        plan
    }

    fn order(&self) -> Order {
        let is_alone = self.sites == 1;
        let may_jump = self.faults.contains(&Kind::ClockJump);
        let is_held_up = self
            .faults
            .iter()
            .any(|kind| faults::HOLDING_UP.contains(kind));
        Order {
            is_kept: is_alone || !is_held_up,
            may_leap: is_alone && may_jump,
            apart: if may_jump { 3 } else { 1 },
        }
    }

    fn config(&self) -> Config {
        let mut config = Config {
            mode: config::Mode::Private,
            ..Config::default()
        };
        let tracker = &mut config.tracker;
        tracker.announce_interval = 20;
        tracker.min_announce_interval = 10;
        tracker.peer_ttl = TTL as u32;
        tracker.hnr_threshold = self.hnr.threshold as u32;
        tracker.hnr_min_bytes = self.hnr.min_bytes;
        config.journal.flush_interval = self.flush;
        config.journal.keep = self.keep;
        config.journal.max_pending = self.max_pending;
        config
    }
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(seed, &mut random);
        let folder = folder(seed);
        let site = |at: usize| {
            let name = ["a", "b", "c"][at];
            Arc::new(Site::new(name, folder.join(format!("spill-{at}"))))
        };
        let disk = Arc::new(Disk::default());
        journal::disk::set(Arc::clone(&disk) as Arc<dyn journal::disk::Disk>);
        Arc::new(Self {
            story: Story::begin(),
            network: Arc::new(Network::new(random.u64(..), plan.parts)),
            redis: plan.has_cache.then(|| {
                let going_back = [Kind::CacheCrash, Kind::CacheFailover];
                let goes_back = plan.faults.iter().any(|kind| going_back.contains(kind));
                let seed = random.u64(..);
                Arc::new(Redis::new(plan.is_persistent, goes_back, plan.parts, seed))
            }),
            database: Arc::new(Database::new(
                plan.users,
                plan.torrents,
                plan.has_storage_clock,
            )),
            model: Mutex::new(Model::new(plan.order())),
            config: plan.config(),
            sites: (0..plan.sites).map(site).collect(),
            disk,
            hosts: AtomicU32::new(0),
            clients: AtomicU32::new(0),
            living: watch::Sender::new(0),
            is_over: watch::Sender::new(false),
            is_healed: watch::Sender::new(false),
            present: Mutex::default(),
            ends: Mutex::default(),
            copied: Mutex::default(),
            shift: AtomicI64::new(0),
            wrong: Mutex::default(),
            forgot_at: AtomicI64::new(0),
            plan,
        })
    }

    async fn play(self: Arc<Self>) -> Outcome {
        let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
        for site in &self.sites {
            site.start(&self);
            sleep(Duration::from_millis(random.u64(..2_000))).await;
        }
        for _ in 0..self.plan.clients {
            let id = self.new_client();
            let client = Client::new(id, &self, random.fork());
            client.spawn(&self, Return::Restarted);
        }
        let mut operator = Operator::new(&self, random.fork());
        let faults = faults::go_on(&self, random.fork());
        if self.plan.edits {
            tokio::select! {
                () = faults => {}
                () = operator.go_on() => {}
            }
        } else {
            faults.await;
        }
        self.is_over.send_replace(true);
        self.heal().await;
        if self.plan.edits {
            operator.end().await;
        }
        self.check_presence(elapsed());
        self.is_healed.send_replace(true);
        let mut living = self.living.subscribe();
        let ended = living.wait_for(|living| *living == 0);
        if timeout(Duration::from_secs(900), ended).await.is_err() {
            self.fault(
                Vec::new(),
                "clients get no answer after everything is well again",
            );
        }
        sleep(LEARNING).await;
        let counts = self.steady_counts().await;
        self.check_credit();
        self.check_swarms();
        self.check_registry();
        self.check_cache(true).await;
        self.check_counts(&counts).await;
        sleep(SETTLED).await;
        self.check_hnr();
        self.check_rest().await;
        self.end()
    }

    fn end(&self) -> Outcome {
        let wrong = std::mem::take(&mut *self.wrong.lock());
        let users: Vec<u32> = wrong.iter().flat_map(|it| it.users.clone()).collect();
        for site in &self.sites {
            site.kill();
        }
        if let Some(folder) = self.sites[0].spill().parent() {
            let _ = fs::remove_dir_all(folder);
        }
        Outcome {
            hash: self.story.hash(),
            page: self.story.page(&users),
            wrong,
            plan: self.plan.clone(),
        }
    }

    /// Everything is well from now on, and every machine has a node.
    async fn heal(self: &Arc<Self>) {
        self.story.record(About::All, "everything is well again");
        self.network.heal();
        self.disk.is_full.store(false, Ordering::Relaxed);
        for (at, site) in self.sites.iter().enumerate() {
            if let Some(host) = site.host() {
                host.pause(false);
            }
            site.set_skew(0);
            site.set_out_of_service(false);
            // One fault may have renamed the machine while another one kept its process running.
            if site.running().is_some_and(|it| it.name != site.name()) {
                site.stop().await;
            }
            // The name may be another machine's by now, and this one's process the former one.
            let namesakes = self
                .sites
                .iter()
                .enumerate()
                .filter(|(other, it)| *other != at && it.is_on() && it.name() == site.name());
            let newest = namesakes.map(|(_, it)| it.host().map(|host| host.id)).max();
            if let Some(newest) = newest
                && (site.running().is_none() || site.host().map(|host| host.id) < newest)
            {
                site.stop().await;
                site.rename(&format!("late-{at}"));
            }
            if site.is_stopping() {
                site.stop().await;
            }
            if !site.is_on() {
                site.start(self);
            }
        }
        sleep(RECOVERY).await;
        let serve = async {
            while self.sites.iter().any(|site| site.running().is_none()) {
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(Duration::from_secs(120), serve).await.is_err() {
            self.fault(
                Vec::new(),
                "a node does not serve although everything is well again",
            );
        }
    }

    pub fn fault(&self, users: Vec<u32>, what: impl Into<String>) {
        let what = what.into();
        self.story.record(About::All, format!("WRONG: {what}"));
        self.wrong.lock().push(Wrong { users, what });
    }

    pub fn new_host(&self, skew: i64) -> &'static Host {
        Host::begin(self.hosts.fetch_add(1, Ordering::Relaxed) + 1, skew)
    }

    /// The driver of the cache in a process.
    pub fn cache_of(&self, host: &'static Host) -> Option<Arc<dyn Cache>> {
        let dialer = Dialer {
            redis: Arc::clone(self.redis.as_ref()?),
            network: Arc::clone(&self.network),
            host,
            story: self.story.clone(),
        };
        Some(dialer.open())
    }

    pub fn new_client(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The node that a client gets by chance, of those in service.
    pub fn choose_site(&self, random: &mut fastrand::Rng) -> usize {
        let all = 0..self.sites.len();
        let served: Vec<usize> = all
            .filter(|at| !self.sites[*at].is_out_of_service())
            .collect();
        if served.is_empty() {
            return random.usize(..self.sites.len());
        }
        served[random.usize(..served.len())]
    }

    /// More clients that are alive.
    pub fn client_lives(&self, more: i32) {
        self.living.send_modify(|living| *living += more);
    }

    pub fn client_losses(&self) -> u32 {
        if self.is_over() {
            0
        } else {
            self.plan.client_losses
        }
    }

    pub fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    pub fn is_healed(&self) -> bool {
        *self.is_healed.borrow()
    }

    /// Waits until everything is well again at the end.
    pub async fn healed(&self) {
        let _ = self.is_healed.subscribe().wait_for(|it| *it).await;
    }

    /// Waits so long, or until the run is over.
    pub async fn unless_over(&self, time: Duration) {
        let mut over = self.is_over.subscribe();
        let _ = timeout(time, over.wait_for(|over| *over)).await;
    }

    pub fn set_end(&self, key: Key, is_there: bool) {
        self.ends.lock().insert(key, (is_there, elapsed()));
    }

    pub fn set_copied(&self, peer_id: PeerId) {
        self.copied.lock().insert(peer_id);
        self.model.lock().set_copied(peer_id);
    }

    pub fn is_copied(&self, peer_id: PeerId) -> bool {
        self.copied.lock().contains(&peer_id)
    }

    /// The time as nodes have it, since some moment long before the begin.
    pub fn time(&self) -> Duration {
        let shift = (self.shift.load(Ordering::Relaxed) + 1_000_000) * 1000;
        let millis = elapsed().as_millis() as i64 + shift;
        Duration::from_millis(millis.max(0).cast_unsigned())
    }

    /// Begins a life.
    pub fn begin_life(&self, birth: Birth) -> LifeId {
        self.model.lock().begin(birth)
    }

    /// A client announced from there now.
    pub fn present(&self, endpoint: SocketAddr, torrent: u32) {
        let mut present = self.present.lock();
        present
            .entry(endpoint)
            .or_default()
            .insert(torrent, self.time());
    }

    /// A client announced from its other address, or stopped there. A row of storage has one time for both, so
    /// this one counts as received, if it ever was.
    pub fn other_is_heard_of(&self, endpoint: SocketAddr, torrent: u32) {
        let mut present = self.present.lock();
        let at = present
            .get_mut(&endpoint)
            .and_then(|it| it.get_mut(&torrent));
        if let Some(at) = at {
            *at = self.time();
        }
    }
}

/// A folder for the spill files of a run, in memory where the system has such a place.
fn folder(seed: u64) -> PathBuf {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = base.join(format!("mika-sim-{}-{run}-{seed}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
