//! One run: what there is, which faults come when, how it ends, and what must hold then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use mika::config::{self, Config};
use mika::ids::PeerId;
use mika::journal;
use mika::tracker::Tracker;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::cache::Server;
use super::clients::{Client, Return};
use super::faults;
use super::model::{Birth, LifeId, Model, Wrong};
use super::network::{self, Host, Network, elapsed};
use super::process::{Running, Site};
use super::storage::{Database, info_hash};
use super::story::{About, Story};

/// How long a peer stays without announcing, in seconds.
pub const TTL: u64 = 60;

/// Seconds by which whole seconds, and the way to another node, may lengthen that.
pub const TTL_SLACK: u64 = 4;

/// How long a node has after the faults to take up everything.
const RECOVERY: Duration = Duration::from_secs(25);

/// How long others have after the last announces to hear of them.
const QUIET: Duration = Duration::from_secs(20);

/// After so long, nothing that is settled may be kept anywhere: peers expire meanwhile.
const SETTLED: Duration = Duration::from_secs(2 * TTL + 70);

/// Who a client is: user, torrent and peer id.
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
    /// The cache writes a log to its disk.
    pub is_persistent: bool,
    pub copies: bool,
    /// Faults may come while others last.
    pub is_rough: bool,
    pub faults: Vec<faults::Kind>,
    /// Of 1000 replies, so many don't reach their client.
    pub client_losses: u32,
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
    pub server: Option<Arc<Server>>,
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
    /// Who is there at the end, and who is not.
    ends: Mutex<BTreeMap<Key, bool>>,
    copied: Mutex<BTreeSet<PeerId>>,
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
    /// The page that tells of it.
    pub page: String,
    pub plan: Plan,
}

impl journal::disk::Disk for Disk {
    fn turn(&self) -> Result<(), String> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err("the disk is full: free some space".into());
        }
        Ok(())
    }
}

/// Runs a seed to its end. To be called on a thread of its own.
pub fn run(seed: u64) -> Outcome {
    super::entropy::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        network::begin();
        let world = World::new(seed);
        world.play().await
    })
}

// === impl Plan ===

impl Plan {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let has_cache = random.u32(..8) > 0;
        let is_rough = random.u32(..3) == 0;
        let clients = random.u32(2..7);
        let mut plan = Self {
            users: random.u32(1..4),
            torrents: random.u32(1..4),
            sites: if has_cache { random.usize(1..4) } else { 1 },
            clients,
            has_cache,
            is_persistent: random.bool(),
            copies: random.u32(..5) == 0,
            is_rough,
            faults: Vec::new(),
            client_losses: [0, 20, 100][random.usize(..3)],
            flush: Duration::from_millis([200, 1000, 5000][random.usize(..3)]),
            keep: Duration::from_secs([60, 60, 10][random.usize(..3)]),
            max_pending: [100_000, 100_000, 8][random.usize(..3)],
            time: Duration::from_secs(random.u64(200..700)),
        };
        plan.faults = faults::draw(&plan, random);
        plan
    }

    fn config(&self) -> Config {
        let mut config = Config {
            mode: config::Mode::Private,
            ..Config::default()
        };
        let tracker = &mut config.tracker;
        tracker.announce_interval = Duration::from_secs(20);
        tracker.min_announce_interval = Duration::from_secs(10);
        tracker.peer_ttl = Duration::from_secs(TTL);
        tracker.hnr_threshold = Duration::from_secs(90);
        tracker.hnr_min_bytes = 5 << 20;
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
        let plan = Plan::draw(&mut random);
        let folder = folder(seed);
        let site = |at: usize| {
            let name = ["a", "b", "c"][at];
            Arc::new(Site::new(name, folder.join(format!("spill-{at}"))))
        };
        let disk = Arc::new(Disk::default());
        journal::disk::set(Arc::clone(&disk) as Arc<dyn journal::disk::Disk>);
        Arc::new(Self {
            story: Story::begin(),
            network: Arc::new(Network::new(random.u64(..))),
            server: plan
                .has_cache
                .then(|| Arc::new(Server::new(plan.is_persistent))),
            database: Arc::new(Database::new(plan.users, plan.torrents)),
            model: Mutex::new(Model::new()),
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
            client.spawn(&self, Return::Anew);
        }
        faults::go_on(&self, random.fork()).await;
        self.is_over.send_replace(true);
        self.heal().await;
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
        sleep(QUIET).await;
        self.check_credit();
        self.check_swarms();
        sleep(SETTLED).await;
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
        self.story.tell(About::All, "everything is well again");
        self.network.heal();
        self.disk.is_full.store(false, Ordering::Relaxed);
        for (at, site) in self.sites.iter().enumerate() {
            if let Some(host) = site.host() {
                host.pause(false);
            }
            site.set_skew(0);
            // The name may be another machine's by now, where a later process has it.
            let mut others = self
                .sites
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at);
            let id = |site: &Site| site.host().map_or(0, |host| host.id);
            let has_name = |it: &Site| it.is_on() && it.name() == site.name();
            let is_taken = others.any(|(_, it)| has_name(it) && id(it) > id(site));
            if is_taken {
                site.kill();
                site.rename(&format!("late-{at}"));
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
        self.story.tell(About::All, format!("WRONG: {what}"));
        self.wrong.lock().push(Wrong { users, what });
    }

    fn check_credit(&self) {
        let wrong = self.model.lock().check(&self.database.tables());
        for Wrong { users, what } in wrong {
            self.fault(users, what);
        }
    }

    /// All nodes know who is there of those whose last announce was `before`: they did not need the next one to
    /// learn it.
    pub fn check_presence(&self, before: Duration) {
        let limit = elapsed().saturating_sub(Duration::from_secs(TTL - TTL_SLACK));
        let expected = self.model.lock().presence(limit, before);
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            let here = self.swarms_of(&running);
            for (key, is_there) in &expected {
                if here.contains(key) != *is_there {
                    let is = if *is_there { "is not" } else { "is still" };
                    let what = format!("{}: {key:?} {is} there for it", running.name);
                    self.fault(vec![key.0], what);
                }
            }
        }
    }

    /// All nodes know the same peers, and those who are there.
    fn check_swarms(&self) {
        let copied = self.copied.lock().clone();
        let mut ends = self.ends.lock().clone();
        // Whether somebody with two machines is there is a matter of opinion.
        ends.retain(|key, _| !copied.contains(&key.2));
        let mut known: Option<(String, BTreeSet<Key>)> = None;
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            // Of others it is open when their time is over.
            let mut here = self.swarms_of(&running);
            here.retain(|key| ends.contains_key(key));
            if let Some((name, other)) = &known
                && *other != here
            {
                let differ: Vec<&Key> = other.symmetric_difference(&here).collect();
                let users = differ.iter().map(|key| key.0).collect();
                self.fault(
                    users,
                    format!(
                        "{name} and {} differ in who is there: {differ:?}",
                        running.name
                    ),
                );
            }
            known.get_or_insert((running.name.clone(), here));
        }
        let Some((name, here)) = known else { return };
        for (key, is_there) in &ends {
            if here.contains(key) != *is_there {
                self.fault(
                    vec![key.0],
                    format!("{name}: whether {key:?} is there is not {is_there}"),
                );
            }
        }
    }

    fn swarms_of(&self, running: &Running) -> BTreeSet<Key> {
        let torrents: BTreeMap<_, u32> = (1..=self.plan.torrents)
            .map(|torrent| (info_hash(torrent), torrent))
            .collect();
        let mut here = BTreeSet::new();
        for shard in 0..Tracker::SHARDS {
            for (hash, members) in running.tracker.members(shard, running.clock.now()) {
                let active = members.into_iter().filter(|member| member.record.active);
                let torrent = torrents.get(&hash).copied().unwrap_or(0);
                here.extend(active.map(|member| (member.user.0, torrent, member.peer_id)));
            }
        }
        here
    }

    /// Nobody keeps what is settled. Where a deletion failed or was forgotten, it is done again with the next
    /// batch only, which may be long after.
    async fn check_rest(&self) {
        let may = |kinds: &[faults::Kind]| self.plan.faults.iter().any(|it| kinds.contains(it));
        let may_spill = may(&[faults::Kind::DiskFull]);
        let may_keep = may(faults::FORGETTING);
        for site in &self.sites {
            let Some(running) = site.running() else {
                continue;
            };
            let name = &running.name;
            let waiting = running.tracker.outbox().pending();
            if waiting > 0 {
                self.fault(
                    Vec::new(),
                    format!("{name}: {waiting} changes are still in the outbox"),
                );
            }
            if let Some(journal) = running.journal()
                && journal.backlog() > 0
            {
                let backlog = journal.backlog();
                self.fault(
                    Vec::new(),
                    format!("{name}: storage lacks {backlog} changes"),
                );
            }
            let spilled = journal::spill_owner(site.spill().clone()).await;
            if !may_spill && !matches!(spilled, Ok(None)) {
                self.fault(
                    Vec::new(),
                    format!("{name}: the spill file has batches: {spilled:?}"),
                );
            }
        }
        let tables = self.database.tables();
        if let Some(server) = &self.server {
            for (name, stream) in server.data().streams {
                let applied = tables.journals.get(&name).copied().unwrap_or(0);
                let is_left = |number: &&u64| !may_keep || **number > applied;
                let left = stream.batches.keys().filter(is_left).count();
                if left > 0 {
                    self.fault(
                        Vec::new(),
                        format!("the stream of {name} keeps {left} batches"),
                    );
                }
            }
        }
    }

    pub fn new_host(&self, skew: i64) -> &'static Host {
        Host::begin(self.hosts.fetch_add(1, Ordering::Relaxed) + 1, skew)
    }

    pub fn new_client(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// So many clients more are alive.
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
        self.ends.lock().insert(key, is_there);
    }

    pub fn set_copied(&self, peer_id: PeerId) {
        self.copied.lock().insert(peer_id);
        self.model.lock().set_copied(peer_id);
    }

    pub fn is_copied(&self, peer_id: PeerId) -> bool {
        self.copied.lock().contains(&peer_id)
    }

    /// Begins a life.
    pub fn begin_life(&self, birth: Birth) -> LifeId {
        self.model.lock().begin(birth)
    }

    /// A client announced from there now. Nodes tell each other one time for both addresses of a client, so its
    /// `other` one counts as heard of, if it was ever.
    pub fn present(&self, endpoint: SocketAddr, other: Option<SocketAddr>, torrent: u32) {
        let mut present = self.present.lock();
        present
            .entry(endpoint)
            .or_default()
            .insert(torrent, elapsed());
        let other = other.and_then(|other| present.get_mut(&other)?.get_mut(&torrent));
        if let Some(at) = other {
            *at = elapsed();
        }
    }

    /// Nobody is handed out who is not in that swarm, or was silent for too long.
    pub fn check_peers(
        &self,
        running: &Running,
        user: u32,
        torrent: u32,
        family: usize,
        peers: &[u8],
    ) {
        let slack = TTL_SLACK + self.model.lock().skew;
        let oldest = elapsed().saturating_sub(Duration::from_secs(TTL + slack));
        for endpoint in endpoints(family, peers) {
            let present = self.present.lock();
            let announced = present
                .get(&endpoint)
                .and_then(|it| it.get(&torrent))
                .copied();
            drop(present);
            let what = match announced {
                Some(at) if at >= oldest => continue,
                Some(at) => format!(
                    "was last heard of {} s ago",
                    elapsed().saturating_sub(at).as_secs()
                ),
                None => "never was there".to_owned(),
            };
            self.fault(
                vec![user],
                format!(
                    "{} hands out {endpoint} of torrent {torrent}, who {what}",
                    running.name
                ),
            );
        }
    }
}

/// Compact peers of one family.
fn endpoints(family: usize, peers: &[u8]) -> Vec<SocketAddr> {
    let size = [6, 18][family];
    let endpoint = |bytes: &[u8]| {
        let (ip, port) = bytes.split_at(size - 2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        let ip: IpAddr = match <[u8; 4]>::try_from(ip) {
            Ok(v4) => Ipv4Addr::from(v4).into(),
            Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap_or_default()).into(),
        };
        SocketAddr::new(ip, port)
    };
    peers.chunks_exact(size).map(endpoint).collect()
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
