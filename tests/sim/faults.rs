//! The faults of a run: which there may be, and when they come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::network::{Cut, Place};
use super::redis::{Forgets, Redis, Stream, slot_of};
use super::story::About;
use super::world::{Plan, World};

/// How long it may take until all have what was there before a loss.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long until a replica has what its master has: the longest that a failover loses.
const REPLICATED: Duration = Duration::from_secs(4);

/// How long a node has to make up for what it missed: the longest flush interval, and tries that failed before.
const CATCH_UP: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed, and started again.
    Crash,
    /// It is stopped in order, and started again.
    Stop,
    /// It is paused, while its clock goes on.
    Pause,
    /// It starts again under another name.
    Rename,
    /// It is paused; another process starts under its name elsewhere; then it resumes.
    Twin,
    StorageAway,
    StorageSlow,
    /// Requests or replies of storage get lost, or arrive late.
    StorageLossy,
    /// Storage lacks its last transactions.
    StorageBack,
    CacheAway,
    CacheSlow,
    CacheLossy,
    /// The cache is restarted, and forgets as its settings are.
    CacheCrash,
    /// All keys are deleted.
    CacheFlush,
    /// Failover to a replica that lacks the last writes.
    CacheFailover,
    /// A slot of a cluster moves to another master.
    SlotMove,
    /// Storage is away, some nodes stop in order, and the cache is emptied before all come back. If the cache
    /// keeps everything in memory, those nodes may be killed as well, as by a power failure.
    Outage,
    DiskFull,
    /// The clock of one machine is set, that of a node, of the cache or of storage; later it is right again.
    ClockJump,
    /// A process is cut off from the cache, from storage, or from both, in one direction or in both; the load
    /// balancer may notice, and send its clients to other nodes.
    Partition,
}

use Kind::{
    CacheAway, CacheCrash, CacheFailover, CacheFlush, CacheLossy, CacheSlow, ClockJump, Crash,
    DiskFull, Outage, Partition, Pause, Rename, SlotMove, Stop, StorageAway, StorageBack,
    StorageLossy, StorageSlow, Twin,
};

const ALWAYS: &[Kind] = &[
    ClockJump,
    Crash,
    Stop,
    StorageAway,
    StorageSlow,
    StorageLossy,
    StorageBack,
];
const WITH_CACHE: &[Kind] = &[
    Pause,
    Rename,
    CacheAway,
    CacheSlow,
    CacheLossy,
    CacheCrash,
    CacheFlush,
    CacheFailover,
    Outage,
    DiskFull,
    Partition,
];
const SEVERAL: &[Kind] = &[Twin];
const WITH_CLUSTER: &[Kind] = &[SlotMove];

/// After these, a cache may have batches again that it had deleted; or it does not know of it.
pub const FORGETTING: &[Kind] = &[
    CacheCrash,
    CacheFailover,
    CacheLossy,
    CacheAway,
    Partition,
    StorageBack,
];

/// During these, or after them, storage may get what one node passes on later than what others do.
pub const HOLDING_UP: &[Kind] = &[
    Crash,
    Stop,
    Pause,
    Rename,
    Twin,
    StorageAway,
    StorageSlow,
    StorageLossy,
    StorageBack,
    Partition,
    DiskFull,
];

/// What may happen in a run.
pub fn draw(plan: &Plan, random: &mut fastrand::Rng) -> Vec<Kind> {
    let mut kinds = ALWAYS.to_vec();
    if plan.has_cache {
        kinds.extend(WITH_CACHE);
    }
    if plan.sites > 1 {
        kinds.extend(SEVERAL);
    }
    if plan.has_cache && plan.parts > 1 {
        kinds.extend(WITH_CLUSTER);
    }
    if let Ok(only) = std::env::var("MIKA_SIM_FAULTS") {
        kinds.retain(|kind| only.split(',').any(|name| name == format!("{kind:?}")));
    }
    // Without a cache, what storage lost is in the memory of the process alone, as far as it has room.
    if !plan.has_cache {
        let is_kept = plan.max_pending > 1000 && random.bool();
        let gone: &[Kind] = if is_kept {
            &[Crash, Stop]
        } else {
            &[StorageBack]
        };
        kinds.retain(|kind| !gone.contains(kind));
    }
    // Some runs have few kinds of faults, and so more of each; some have none.
    let wanted = [0, 1, 2, 3, 5, 100][random.usize(..6)];
    while kinds.len() > wanted {
        let gone = random.usize(..kinds.len());
        kinds.remove(gone);
    }
    kinds
}

/// Lets faults come until the time of the run is over.
pub async fn go_on(world: &Arc<World>, mut random: fastrand::Rng) {
    let until = Instant::now() + world.plan.time;
    // Held by whatever must not meet a loss of what was acknowledged.
    let losses = Arc::new(RwLock::new(()));
    // Held by the one clock that is wrong.
    let clocks = Arc::new(Mutex::new(()));
    let mut running = JoinSet::new();
    while Instant::now() < until {
        let longest = if world.plan.is_rough { 25_000 } else { 45_000 };
        sleep(Duration::from_millis(random.u64(2_000..longest))).await;
        if world.plan.faults.is_empty() {
            continue;
        }
        let kind = world.plan.faults[random.usize(..world.plan.faults.len())];
        let fault = Fault {
            world: Arc::clone(world),
            random: random.fork(),
            losses: Arc::clone(&losses),
            clocks: Arc::clone(&clocks),
        };
        running.spawn(fault.happen(kind));
        if !world.plan.is_rough {
            while running.join_next().await.is_some() {}
        }
    }
    running.shutdown().await;
}

pub struct Fault {
    pub world: Arc<World>,
    pub random: fastrand::Rng,
    losses: Arc<RwLock<()>>,
    pub clocks: Arc<Mutex<()>>,
}

// === impl Fault ===

impl Fault {
    async fn happen(mut self, kind: Kind) {
        match kind {
            Crash | Stop | Rename | Pause | Twin | Partition | DiskFull | StorageAway
            | StorageSlow | StorageLossy | CacheAway | CacheSlow | CacheLossy | SlotMove
            | ClockJump => {
                let losses = Arc::clone(&self.losses);
                let Ok(_turn) = losses.try_read() else { return };
                self.spell(kind).await;
            }
            // No reply went because of what such a cache has, so it may forget while nodes are down.
            CacheCrash | CacheFlush | CacheFailover if !self.world.plan.is_persistent => {
                let losses = Arc::clone(&self.losses);
                let Ok(_turn) = losses.try_read() else { return };
                self.lose(kind).await;
            }
            CacheCrash | CacheFlush | CacheFailover | Outage | StorageBack => {
                let losses = Arc::clone(&self.losses);
                let Ok(_turn) = losses.try_write() else {
                    return;
                };
                if self.all_are_well() {
                    self.lose(kind).await;
                }
            }
        }
    }

    pub fn record(&self, text: impl Into<String>) {
        self.world.story.record(About::All, text);
    }

    /// A temporary fault that loses nothing by itself.
    async fn spell(&mut self, kind: Kind) {
        let network = Arc::clone(&self.world.network);
        match kind {
            Crash | Stop | Rename => self.restart(kind).await,
            Pause => self.pause().await,
            Twin => self.twin().await,
            Partition => self.partition().await,
            ClockJump => self.set_a_clock().await,
            SlotMove => self.move_a_slot().await,
            DiskFull => {
                self.record("all disks are full");
                self.world.disk.is_full.store(true, Ordering::Relaxed);
                self.wait(5, 60).await;
                self.world.disk.is_full.store(false, Ordering::Relaxed);
                self.record("the disks have room again");
            }
            StorageAway | CacheAway => {
                let places = self.places_of(kind);
                self.record(format!("{places:?} are away"));
                network.set_up(&places, false);
                self.wait(1, 60).await;
                network.set_up(&places, true);
                self.record(format!("{places:?} are back"));
                self.cache_catches_up().await;
            }
            StorageSlow | CacheSlow => {
                let places = self.places_of(kind);
                let millis = self.random.u64(15..1_500);
                self.record(format!("{places:?} are slower by {millis} ms each way"));
                network.set_slow(&places, Duration::from_millis(millis));
                self.wait(5, 60).await;
                network.set_slow(&places, Duration::ZERO);
                self.record(format!("{places:?} are fast again"));
                self.cache_catches_up().await;
            }
            _ => {
                let places = self.places_of(kind);
                let mut share = || [0, 30, 200][self.random.usize(..3)];
                let (requests, replies, late) = (share(), share(), share());
                self.record(format!(
                    "{places:?} lose {requests} requests and {replies} replies of 1000, and {late} arrive late"
                ));
                network.set_losses(&places, requests, replies, late);
                self.wait(10, 90).await;
                network.set_losses(&places, 0, 0, 0);
                self.record(format!("{places:?} lose nothing any more"));
                self.cache_catches_up().await;
            }
        }
    }

    /// Where a fault of that kind happens.
    fn places_of(&mut self, kind: Kind) -> Vec<Place> {
        match kind {
            StorageAway | StorageSlow | StorageLossy => vec![Place::Storage],
            _ => self.parts().into_iter().map(Place::Cache).collect(),
        }
    }

    /// One part of the cache, more often than all of them.
    fn parts(&mut self) -> Vec<usize> {
        let parts = self.world.plan.parts;
        if self.random.u32(..4) == 0 {
            return (0..parts).collect();
        }
        vec![self.random.usize(..parts)]
    }

    /// One of the slots that matter goes to another master, key by key.
    async fn move_a_slot(&mut self) {
        let Some(redis) = self.world.redis.clone() else {
            return;
        };
        let keys = redis.keys();
        if keys.is_empty() {
            return;
        }
        let key = &keys[self.random.usize(..keys.len())];
        let to = self.random.usize(..self.world.plan.parts);
        if !redis.begin_move(slot_of(key), to) {
            return;
        }
        self.record(format!("the slot of {key} moves to part {to}"));
        self.wait(0, 5).await;
        while redis.move_next() {
            self.wait(0, 5).await;
        }
        redis.end_move();
        self.record(format!("the slot of {key} is at part {to}"));
        // The replica of that part has it, too, before anything else is lost.
        sleep(REPLICATED).await;
        self.cache_catches_up().await;
    }

    pub async fn wait(&mut self, least: u64, most: u64) {
        // Short ones are as likely as long ones.
        let most = if self.random.bool() {
            least + (most - least) / 8
        } else {
            most
        };
        let millis = self.random.u64(least * 1000..=most * 1000);
        sleep(Duration::from_millis(millis)).await;
    }

    async fn restart(&mut self, kind: Kind) {
        let site = Arc::clone(&self.world.sites[self.random.usize(..self.world.sites.len())]);
        if !site.is_on() {
            return;
        }
        if kind == Stop || (kind == Rename && self.random.bool()) {
            site.stop().await;
        } else {
            self.record(format!("{} is killed", site.name()));
            site.kill();
        }
        self.wait(1, 40).await;
        if kind == Rename {
            let name = format!("{}x", site.name());
            self.record(format!("{} is {name} from now on", site.name()));
            site.rename(&name);
        }
        site.start(&self.world);
        self.serves(&site).await;
    }

    /// Waits until a node serves, so that nothing of it depends on the cache alone.
    pub async fn serves(&self, site: &super::process::Site) {
        let until = Instant::now() + PATIENCE;
        while site.running().is_none() && Instant::now() < until {
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn pause(&mut self) {
        let site = Arc::clone(&self.world.sites[self.random.usize(..self.world.sites.len())]);
        let Some(host) = site.host() else { return };
        self.record(format!("{} is paused", site.name()));
        host.pause(true);
        self.wait(1, 80).await;
        host.pause(false);
        self.record(format!("{} goes on", site.name()));
        self.catch_up().await;
    }

    /// A moment later, nodes know what was said while one of them did not listen, if nothing else is wrong.
    async fn catch_up(&self) {
        let before = super::network::elapsed();
        sleep(CATCH_UP).await;
        if !self.world.plan.is_rough && self.all_are_well() {
            self.world.check_presence(before);
        }
    }

    /// A moment after something was wrong with the cache, it has what it says that it has.
    async fn cache_catches_up(&self) {
        sleep(CATCH_UP).await;
        if !self.world.plan.is_rough && self.all_are_well() {
            self.world.check_cache(false).await;
        }
    }

    async fn twin(&mut self) {
        let sites = &self.world.sites;
        let at = self.random.usize(..sites.len());
        let (old, new) = (
            Arc::clone(&sites[at]),
            Arc::clone(&sites[(at + 1) % sites.len()]),
        );
        let Some(host) = old.host() else { return };
        if old.running().is_none() || !new.is_on() {
            return;
        }
        // The other machine's own node makes room.
        let name = new.name();
        new.stop().await;
        self.record(format!(
            "{} is paused, and another machine takes its name",
            old.name()
        ));
        host.pause(true);
        self.wait(1, 20).await;
        new.rename(&old.name());
        new.start(&self.world);
        self.wait(1, 30).await;
        host.pause(false);
        self.record(format!("the former {} goes on", old.name()));
        self.wait(5, 20).await;
        old.stop().await;
        old.rename(&name);
        old.start(&self.world);
        self.serves(&old).await;
    }

    async fn partition(&mut self) {
        let site = Arc::clone(&self.world.sites[self.random.usize(..self.world.sites.len())]);
        let Some(host) = site.host() else { return };
        let cut = [(true, true), (true, false), (false, true)][self.random.usize(..3)];
        let cut = Cut {
            requests: cut.0,
            replies: cut.1,
        };
        let which = self.random.usize(..3);
        let mut places = match which {
            1 => Vec::new(),
            _ => self.places_of(CacheAway),
        };
        if which > 0 {
            places.push(Place::Storage);
        }
        self.record(format!("{} and {places:?} are cut: {cut:?}", site.name()));
        for place in &places {
            self.world.network.cut(host.id, *place, cut);
        }
        if self.random.bool() {
            self.wait(1, 40).await;
            self.record(format!(
                "clients of {} are sent to other nodes",
                site.name()
            ));
            site.set_out_of_service(true);
        }
        self.wait(1, 60).await;
        site.set_out_of_service(false);
        for place in &places {
            self.world.network.cut(host.id, *place, Cut::default());
        }
        self.record(format!(
            "{} and {places:?} are connected again",
            site.name()
        ));
        self.catch_up().await;
    }

    /// The cache forgets something while all nodes are there to bring it again.
    async fn lose(&mut self, kind: Kind) {
        if kind == StorageBack {
            self.go_back();
            return self.settled().await;
        }
        let Some(redis) = self.world.redis.clone() else {
            return;
        };
        if kind == Outage {
            self.outage(&redis).await;
        } else {
            self.lose_cache(kind, &redis).await;
        }
        self.settled().await;
        self.cache_catches_up().await;
        let now = super::network::now();
        self.world.forgot_at.store(now, Ordering::Relaxed);
    }

    async fn lose_cache(&mut self, kind: Kind, redis: &Redis) {
        let persistent = self.world.plan.is_persistent;
        let forgets = match kind {
            CacheCrash if persistent => Forgets::Latest(Duration::from_secs(1)),
            CacheFailover => Forgets::Latest(Duration::from_millis(self.random.u64(50..3_000))),
            CacheCrash | CacheFlush => Forgets::Everything,
            _ => Forgets::Nothing,
        };
        let parts = self.parts();
        let places: Vec<Place> = parts.iter().copied().map(Place::Cache).collect();
        self.record(format!("{kind:?}: {places:?} forget {forgets:?}"));
        if kind == CacheFlush {
            for part in parts {
                redis.flush(part);
            }
            return;
        }
        self.world.network.set_up(&places, false);
        for part in parts {
            if kind == CacheFailover && redis.is_cluster() {
                redis.fail_over(part, forgets);
            } else {
                redis.restart(part, forgets);
            }
        }
        self.wait(1, 10).await;
        self.world.network.set_up(&places, true);
        self.record(format!("{places:?} are back"));
    }

    async fn outage(&mut self, redis: &Redis) {
        let world = Arc::clone(&self.world);
        self.record("Storage is away, and some nodes are to end");
        world.network.set_up(&[Place::Storage], false);
        self.wait(1, 40).await;
        let sites = world.sites.iter();
        let ending: Vec<_> = sites.filter(|_| self.random.bool()).collect();
        let are_killed = !world.plan.is_persistent && self.random.bool();
        for site in &ending {
            if are_killed {
                self.record(format!("{} is killed", site.name()));
                site.kill();
            } else {
                site.stop().await;
            }
        }
        let parts = self.parts();
        self.record(format!("the parts {parts:?} of the cache are emptied"));
        for part in parts {
            redis.flush(part);
        }
        self.wait(1, 20).await;
        self.record("Storage is back");
        world.network.set_up(&[Place::Storage], true);
        for site in ending {
            site.start(&world);
            self.serves(site).await;
        }
    }

    /// Storage lacks what it got within some time, which nodes and cache still have.
    fn go_back(&mut self) {
        let kept = self.world.plan.keep.as_secs().cast_signed();
        let (most, seconds) = (self.random.usize(1..30), self.random.i64(1..40.min(kept)));
        let forgot_at = self.world.forgot_at.load(Ordering::Relaxed);
        let seconds = seconds.min(super::network::now() - forgot_at);
        let gone = self.world.database.go_back(most, seconds);
        self.record(format!("storage lacks its last {gone} transactions"));
    }

    /// Whether every node serves, and the leftovers of dead nodes are in storage.
    fn all_are_well(&self) -> bool {
        let applied = &self.world.database.tables().journals;
        let is_served = |site: &Arc<super::process::Site>| {
            let running = site.running();
            running.is_some_and(|it| !it.host.is_paused() && !self.world.network.is_cut(it.host.id))
        };
        let journals = self.world.sites.iter();
        let journals = journals.filter_map(|site| site.running()?.journal());
        let names: Vec<String> = journals.map(|it| it.name().to_owned()).collect();
        let is_rest = |(name, stream): (&String, &Stream)| {
            let last = stream.entries.last_key_value();
            let last = last.map_or(0, |((number, _), _)| *number);
            !names.contains(name) && last > applied.get(name).copied().unwrap_or(0)
        };
        let has_rest = |redis: &Arc<Redis>| redis.journals().iter().any(is_rest);
        let has_rest = self.world.redis.as_ref().is_some_and(has_rest);
        self.world.sites.iter().all(is_served) && !has_rest
    }

    /// Waits until all that was there before is in the cache and in storage.
    async fn settled(&self) {
        let journals = self
            .world
            .sites
            .iter()
            .filter_map(|site| site.running()?.journal());
        let wanted: Vec<_> = journals.map(|it| (it.progress().last, it)).collect();
        let until = Instant::now() + PATIENCE;
        sleep(Duration::from_secs(3)).await;
        while Instant::now() < until {
            let is_settled = wanted.iter().all(|(last, journal)| {
                let progress = journal.progress();
                progress.applied >= *last && progress.sent >= *last
            });
            if is_settled {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}
