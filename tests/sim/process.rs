//! Nodes: the machines that they run on, and their processes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mika::base::clock::Clock;
use mika::config::Config;
use mika::journal;
use mika::node::bare::{BareNode, NodeProcess as Identity};
use mika::registry::Registry;
use mika::storage::Storage;
use mika::telemetry::metrics::Protocol;
use mika::tracker::{AnnounceRequest, Tracker, Workspace};
use mika::wire::{Announce, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::model::{LifeId, Report, ReportId};
use super::network::{Host, elapsed};
use super::storage;
use super::story::About;
use super::world::World;

/// How long a service manager waits until it starts a process again that ended.
const RESTART: Duration = Duration::from_secs(3);

/// How often a process is looked at for reports that have become durable.
const LOOK: Duration = Duration::from_millis(500);

/// How long a stop may take before the process is killed.
const STOP: Duration = Duration::from_secs(60);

/// A machine with a disk, on which a node runs under some name.
pub struct Site {
    state: Mutex<State>,
    spill: PathBuf,
    /// The load balancer sends nobody here.
    is_out_of_service: AtomicBool,
}

struct State {
    name: String,
    /// Seconds by which its clock is wrong.
    skew: i64,
    /// Seen to by a service manager.
    manager: Option<Manager>,
    running: Option<Arc<Running>>,
    /// Of the process that runs or is about to.
    host: Option<&'static Host>,
    /// When the last process ended, and what time it went by then.
    ended: Option<(Duration, i64)>,
}

struct Manager {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// A process that serves.
pub struct Running {
    pub name: String,
    pub host: &'static Host,
    /// Since when it serves.
    pub since: Duration,
    pub tracker: Arc<Tracker>,
    pub registry: Arc<Registry>,
    /// None once the process is gone: its file is free then.
    journal: Mutex<Option<journal::JournalHandle>>,
    pub clock: Clock,
    work: Mutex<Workspace>,
    /// Reports that were answered at once, and may not be durable yet.
    unsure: Mutex<Vec<ReportId>>,
}

/// An announce on its way to a process.
pub struct Ask {
    pub world: Arc<World>,
    pub user: u32,
    pub torrent: u32,
    pub params: Announce,
    pub source: IpAddr,
    /// The client's address of the other family.
    pub other: Option<IpAddr>,
    pub life: LifeId,
}

/// What came of an announce.
pub struct Answered {
    /// None if it was refused.
    pub report: Option<ReportId>,
    /// The reply was released because the report was durable; none if it did not wait for that.
    pub is_durable: Option<bool>,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// Peers as bytes: 6 or 18 each.
    pub peers: Vec<u8>,
}

// === impl Site ===

impl Site {
    pub fn new(name: &str, spill: PathBuf) -> Self {
        Self {
            state: Mutex::new(State {
                name: name.to_owned(),
                skew: 0,
                manager: None,
                running: None,
                host: None,
                ended: None,
            }),
            spill,
            is_out_of_service: AtomicBool::new(false),
        }
    }

    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }

    pub fn spill(&self) -> &PathBuf {
        &self.spill
    }

    pub fn is_out_of_service(&self) -> bool {
        self.is_out_of_service.load(Ordering::Relaxed)
    }

    pub fn set_out_of_service(&self, is_out: bool) {
        self.is_out_of_service.store(is_out, Ordering::Relaxed);
    }

    pub fn rename(&self, name: &str) {
        name.clone_into(&mut self.state.lock().name);
    }

    /// The process that serves now.
    pub fn running(&self) -> Option<Arc<Running>> {
        self.state.lock().running.clone()
    }

    /// Whether a process runs, or is to.
    pub fn is_on(&self) -> bool {
        let state = self.state.lock();
        let manager = state.manager.as_ref();
        manager.is_some_and(|it| !it.task.is_finished())
    }

    pub fn host(&self) -> Option<&'static Host> {
        self.state.lock().host
    }

    pub fn set_skew(&self, skew: i64) {
        let mut state = self.state.lock();
        state.skew = skew;
        if let Some(host) = state.host {
            host.set_skew(skew);
        }
    }

    /// Has a process run here from now on, unless another fault has already started one.
    pub fn start(self: &Arc<Self>, world: &Arc<World>) {
        if self.is_on() {
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(self).manage(Arc::clone(world), stopped));
        self.state.lock().manager = Some(Manager { task, stop });
    }

    /// The process has ended, at whatever point.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        if let Some(manager) = state.manager.take() {
            manager.task.abort();
        }
        if let Some(host) = state.host.take() {
            host.is_dead.store(true, Ordering::Relaxed);
        }
        state.end();
    }

    /// Whether the process was asked to stop, and has not ended.
    pub fn is_stopping(&self) -> bool {
        let state = self.state.lock();
        let manager = state.manager.as_ref();
        manager.is_some_and(|it| *it.stop.borrow() && !it.task.is_finished())
    }

    /// Stops the process in order. The machine has it until it has ended, also if this is given up before.
    pub async fn stop(&self) {
        if let Some(manager) = &self.state.lock().manager {
            manager.stop.send_replace(true);
        } else {
            return;
        }
        let ended = async {
            while self.is_on() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(STOP, ended).await.is_err() {
            self.kill();
        }
    }

    /// A node alone measures by its own time how long it was away.
    fn note_rest(&self, world: &World, clock: Clock) {
        let ended = self.state.lock().ended;
        if let (1, Some((at, unix))) = (world.sites.len(), ended) {
            let rest = elapsed().saturating_sub(at).as_secs().cast_signed();
            let noted = clock.now().unix - unix;
            world.shift.fetch_add(noted - rest, Ordering::Relaxed);
        }
    }

    /// An error without the name of the folder, which differs in each run.
    fn without_folder(&self, error: &anyhow::Error) -> String {
        let folder = self.spill.parent().map(|it| it.display().to_string());
        format!("{error:#}").replace(&folder.unwrap_or_default(), "")
    }

    async fn manage(self: Arc<Self>, world: Arc<World>, mut stop: watch::Receiver<bool>) {
        loop {
            let host = world.new_host(self.state.lock().skew);
            self.state.lock().host = Some(host);
            let is_over = self.live(&world, host, &mut stop).await;
            host.is_dead.store(true, Ordering::Relaxed);
            self.state.lock().end_of(host);
            if is_over || *stop.borrow() {
                return;
            }
            sleep(RESTART).await;
        }
    }

    /// One process, from its start to its end; returns whether there is to be no other.
    async fn live(
        &self,
        world: &Arc<World>,
        host: &'static Host,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        let name = self.name();
        world
            .story
            .record(About::All, format!("{name} (p{}) starts", host.id));
        let clock = Clock::start_by(host);
        let starting = self.begin(world, host, clock);
        let started = tokio::select! {
            started = starting => started,
            _ = stop.wait_for(|stop| *stop) => return true,
        };
        let mut node = match started {
            Ok(node) => node,
            Err(error) => {
                world.story.record(
                    About::All,
                    format!(
                        "{name} (p{}) does not start: {}",
                        host.id,
                        self.without_folder(&error)
                    ),
                );
                return false;
            }
        };
        let running = Arc::new(Running {
            name: name.clone(),
            host,
            since: elapsed(),
            tracker: node.tracker(),
            registry: node.registry(),
            journal: Mutex::new(Some(node.journal())),
            clock,
            work: Mutex::new(Workspace::new(
                Protocol::Http,
                fastrand::Rng::with_seed(fastrand::u64(..)),
            )),
            unsure: Mutex::default(),
        });
        world
            .story
            .record(About::All, format!("{name} (p{}) serves", host.id));
        self.state.lock().running = Some(Arc::clone(&running));
        self.note_rest(world, clock);
        let is_asked = tokio::select! {
            () = node.ended() => false,
            () = watch_durable(world, &running) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        self.state.lock().end_of(host);
        // Replies that are held go as far as they can.
        sleep(Duration::from_millis(50)).await;
        drop(running);
        let how = if is_asked {
            "is to stop"
        } else {
            "ends by itself"
        };
        world
            .story
            .record(About::All, format!("{name} (p{}) {how}", host.id));
        let stopped = node.stop().await;
        let how = match stopped {
            Ok(left) => format!("has stopped; storage lacks {} changes", left.changes),
            Err(error) => format!("has stopped: {}", self.without_folder(&error)),
        };
        world
            .story
            .record(About::All, format!("{name} (p{}) {how}", host.id));
        is_asked
    }

    async fn begin(
        &self,
        world: &Arc<World>,
        host: &'static Host,
        clock: Clock,
    ) -> anyhow::Result<BareNode> {
        let storage: Arc<dyn Storage> = Arc::new(storage::Link {
            database: Arc::clone(&world.database),
            network: Arc::clone(&world.network),
            host,
            story: world.story.clone(),
        });
        let cache = world.cache_of(host);
        let mut config = Config {
            node: self.name(),
            ..world.config.clone()
        };
        config.journal.spill.clone_from(&self.spill);
        let identity = Identity::elsewhere(&format!("host-{}", host.id), host.id);
        BareNode::start(&config, storage, cache, clock, identity).await
    }
}

/// Notes which reports have become durable without a reply that waited for it; runs until cancelled.
async fn watch_durable(world: &World, running: &Running) {
    loop {
        sleep(LOOK).await;
        if running.tracker.outbox().pending() == 0 && !running.host.is_paused() {
            let unsure = std::mem::take(&mut *running.unsure.lock());
            let mut model = world.model.lock();
            for report in unsure {
                model.set_durable(report);
            }
        }
    }
}

// === impl Ask ===

impl Ask {
    /// Notes in the model that a node decided it now.
    fn decided(&self, process: u32, unix: i64, factors: (u32, u32)) -> ReportId {
        let params = &self.params;
        let endpoint = |ip: IpAddr| SocketAddr::new(ip, params.port);
        if params.event != Event::Stopped {
            self.world.present(endpoint(self.source), self.torrent);
        }
        if let Some(other) = self.other {
            self.world.other_is_heard_of(endpoint(other), self.torrent);
        }
        let report = Report {
            at: elapsed(),
            noted: self.world.time(),
            unix,
            up: params.uploaded.unwrap_or(0),
            down: params.downloaded.unwrap_or(0),
            factors,
            is_seeding: params.left == Some(0),
            event: params.event,
            process,
            is_durable: false,
            is_answered: false,
        };
        self.world.model.lock().decide(self.life, report)
    }
}

// === impl State ===

impl State {
    /// This process no longer serves; one that was started while it stopped continues.
    fn end_of(&mut self, host: &Host) {
        if self.host.is_some_and(|it| it.id == host.id) {
            self.end();
        }
    }

    /// No process serves any more.
    fn end(&mut self) {
        if let Some(running) = self.running.take() {
            self.ended = Some((elapsed(), running.clock.now().unix));
            *running.journal.lock() = None;
        }
    }
}

// === impl Running ===

impl Running {
    pub fn journal(&self) -> Option<journal::JournalHandle> {
        self.journal.lock().clone()
    }

    /// Decides an announce and holds its reply back, as the listeners do; none if the process is gone by then.
    pub async fn announce(self: Arc<Self>, ask: Ask) -> Option<Answered> {
        self.host.turn().await;
        if self.is_dead() {
            return None;
        }
        let outbox = self.tracker.outbox();
        // What it has no room for is owed, and durable at some later time.
        let has_room = outbox.pending() < outbox.capacity();
        let now = self.clock.now();
        let (answer, peers) = {
            let mut work = self.work.lock();
            let request = AnnounceRequest {
                passkey: Some(&storage::passkey(ask.user)),
                params: Ok(ask.params.clone()),
                source: ask.source,
            };
            let answer = self.tracker.announce(&request, now, &mut work);
            (answer, work.peers.endpoints.clone())
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                return Some(Answered {
                    report: None,
                    is_durable: None,
                    refusal: Some(format!("{refusal:?}")),
                    peers: Vec::new(),
                });
            }
        };
        let factors = self.registry.torrent(&ask.params.info_hash);
        let factors = factors.map_or((1000, 1000), |it| (it.multi_up.0, it.multi_down.0));
        let report = ask.decided(self.host.id, now.unix, factors);
        let mut is_durable = None;
        if let Some(ticket) = answer.ticket {
            let settled = self.tracker.outbox().durable(ticket);
            let patience = ask.world.config.journal.ack_timeout;
            is_durable = Some(timeout(patience, settled).await.is_ok());
            if is_durable == Some(true) {
                ask.world.model.lock().set_durable(report);
            }
        } else if has_room && ask.params.event != Event::Stopped {
            // A `stopped` without a ticket is of a client that this node does not know: it is not kept.
            self.unsure.lock().push(report);
        }
        self.host.turn().await;
        if self.is_dead() {
            return None;
        }
        Some(Answered {
            report: Some(report),
            is_durable,
            refusal: None,
            peers,
        })
    }

    pub fn is_dead(&self) -> bool {
        self.host.is_dead.load(Ordering::Relaxed)
    }
}
