//! The decision: who may take part, what the swarm becomes, what is credited, who is handed out.
//!
//! Every transport comes through [`Tracker::announce`] and [`Tracker::scrape`]. They are plain
//! functions over memory: no socket, no SQL, no clock. What must be kept goes to the [`Outbox`];
//! an answer that acknowledges it carries a [`Ticket`] to wait for.
//!
//! A process is public or private for life. [`Tracker`] is the door to both: for each call it chooses
//! between `public` and `private`, which decide the rest.

mod admit;
mod context;
pub mod credit;
mod machines;
mod outbox;
mod private;
mod public;
mod refusal;
mod rules;
mod upkeep;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;

use crate::base::addr::Endpoint;
use crate::base::clock::{Now, Seconds};
use crate::base::ids::{InfoHash, UserId};
use crate::base::lock::LockWaits;
use crate::change::SwarmCounts;
use crate::registry::Registry;
use crate::swarm::{PeerCounts, Selector};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{Metrics, Protocol, RequestKind};
use crate::wire::{Announce, AnnounceReply, Event, ParseError, PeerList, ScrapeEntry};

use self::private::PrivateTracker;
use self::public::PublicTracker;

pub use credit::HnrRules;
pub use outbox::{Drained, Outbox, Ticket};
pub use private::{KnownHistory, RecordLimits};
pub use public::{IdleTorrent, IdleTorrents, MalformedSwarms};
pub use refusal::{Reason, Refusal};
pub use rules::{Mode, Rules};
pub use view::{LivePeer, Roles, SwarmStats};

/// An announce as a transport received it.
#[derive(Clone, Debug)]
pub struct AnnounceRequest<'a> {
    pub passkey: Option<&'a str>,
    pub params: Result<Announce, ParseError>,
    /// The address that the request came from.
    pub source: IpAddr,
}

/// What to answer to an announce; the peers are in the workspace.
#[derive(Clone, Debug)]
pub struct Answer {
    pub reply: AnnounceReply,
    /// The answer is to be held back until what it acknowledges is durable, or `ack_timeout` is over.
    pub ticket: Option<Ticket>,
}

/// What a worker lends to each announce, so that announces allocate nothing of their own.
pub struct Workspace {
    pub peers: PeerList,
    pub selector: Selector,
    /// The protocol of the worker's requests.
    protocol: Protocol,
    /// Peers that a reply has room for, whatever the rules and the client say.
    peers_max: u32,
}

/// The state of a tracker and the rules in force.
pub struct Tracker {
    by_mode: ByMode,
}

/// The mode, chosen at start.
#[allow(clippy::large_enum_variant)] // a process has one
enum ByMode {
    Public(PublicTracker),
    Private(PrivateTracker),
}

/// What trackers of both modes have.
struct Common {
    rules: ArcSwap<Rules>,
    registry: Arc<Registry>,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// When a warning about a client was last logged.
    warned: AtomicU32,
    /// Where snatches and refusals are published.
    events: Option<Arc<Events>>,
    /// There is a cache that other nodes may share.
    is_shared: bool,
}

/// How much is swept before the lock is released for a moment: some tens of microseconds, in
/// private mode a small part of a millisecond. The unit is an entry that only has to be looked at.
const SWEPT_AT_ONCE: usize = 4096;

/// Evaluates `$do` with the tracker of the mode that `$tracker` names.
macro_rules! by_mode {
    ($self:expr, $tracker:ident => $do:expr) => {
        match $self.by_mode {
            ByMode::Public(ref $tracker) => $do,
            ByMode::Private(ref $tracker) => $do,
        }
    };
}

use by_mode;

// === impl Workspace ===

impl Workspace {
    pub fn new(protocol: Protocol, rng: fastrand::Rng) -> Self {
        Self {
            peers: PeerList::default(),
            selector: Selector::new(rng),
            protocol,
            peers_max: u32::MAX,
        }
    }

    /// For a transport whose replies have room for at most `peers_max` peers.
    pub fn with_peers_max(self, peers_max: u32) -> Self {
        Self { peers_max, ..self }
    }
}

// === impl Tracker ===

/// Setup and settings.
impl Tracker {
    /// A tracker without swarms. `outbox_capacity` is in changes.
    pub fn new(
        mode: Mode,
        rules: Rules,
        registry: Arc<Registry>,
        outbox_capacity: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let common = Common {
            rules: ArcSwap::from_pointee(rules.within(mode)),
            registry,
            outbox: Outbox::new(outbox_capacity),
            metrics,
            warned: AtomicU32::new(0),
            events: None,
            is_shared: false,
        };
        let by_mode = match mode {
            Mode::Public => ByMode::Public(PublicTracker::new(common)),
            Mode::Private => ByMode::Private(PrivateTracker::new(common)),
        };
        Self { by_mode }
    }

    /// Makes it one of the nodes that share a cache, however many run: they share their peers, and another one
    /// may know a client that this one does not.
    pub fn shared(mut self) -> Self {
        self.common_mut().is_shared = true;
        self
    }

    /// Publishes snatches and refusals to `events`.
    pub fn with_events(mut self, events: Arc<Events>) -> Self {
        self.common_mut().events = Some(events);
        self
    }

    pub fn mode(&self) -> Mode {
        match self.by_mode {
            ByMode::Public(_) => Mode::Public,
            ByMode::Private(_) => Mode::Private,
        }
    }

    pub fn outbox(&self) -> &Outbox {
        &self.common().outbox
    }

    /// Waits for locks that announces take, by what they protect.
    pub fn lock_waits(&self) -> [(&'static str, &LockWaits); 2] {
        let swarms = by_mode!(self, tracker => tracker.swarms.waits());
        [("swarms", swarms), ("outbox", self.outbox().waits())]
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.common().rules.load_full()
    }

    /// Replaces the rules.
    pub fn set_rules(&self, rules: Rules) {
        let rules = rules.within(self.mode());
        self.common().rules.store(Arc::new(rules));
    }

    /// The announce interval and the minimum interval in seconds, as failures carry them.
    pub fn intervals(&self) -> (u32, u32) {
        let rules = self.common().rules.load();
        (rules.announce_interval, rules.min_announce_interval)
    }

    /// Seconds that a peer stays without announcing.
    pub fn peer_ttl(&self) -> u32 {
        self.common().rules.load().peer_ttl
    }

    /// [`Rules::record_ttl`] as it is now.
    pub fn record_ttl(&self) -> u32 {
        self.common().rules.load().record_ttl()
    }

    /// [`Rules::forget_torrents_after`] as it is now.
    pub fn forget_torrents_after(&self) -> u32 {
        self.common().rules.load().forget_torrents_after
    }

    fn common(&self) -> &Common {
        by_mode!(self, tracker => &tracker.common)
    }

    fn common_mut(&mut self) -> &mut Common {
        match &mut self.by_mode {
            ByMode::Public(tracker) => &mut tracker.common,
            ByMode::Private(tracker) => &mut tracker.common,
        }
    }

    fn public(&self) -> Option<&PublicTracker> {
        match &self.by_mode {
            ByMode::Public(tracker) => Some(tracker),
            ByMode::Private(_) => None,
        }
    }

    fn private(&self) -> Option<&PrivateTracker> {
        match &self.by_mode {
            ByMode::Private(tracker) => Some(tracker),
            ByMode::Public(_) => None,
        }
    }
}

/// Requests.
impl Tracker {
    /// Decides an announce. Its peers are left in `work`.
    ///
    /// # Errors
    /// A refusal, which changed nothing.
    pub fn announce(
        &self,
        request: &AnnounceRequest,
        now: Now,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        work.peers.clear();
        let answer = by_mode!(self, tracker => tracker.announce(request, now, work));
        let common = self.common();
        match &answer {
            Ok(_) => common.count_answered(request, work.protocol),
            Err(refusal) => {
                let protocol = work.protocol;
                common
                    .metrics
                    .refused(RequestKind::Announce, protocol, refusal.kind());
                if let Some(events) = &common.events {
                    let reason = refusal.kind().name();
                    let source = Some(request.source);
                    events.publish_refusal(reason, protocol.name(), source, now.mono);
                }
            }
        }
        answer
    }

    /// The counters of the torrents asked for: zeros for unknown ones in public mode, nothing in
    /// private mode (rule S3). Changes no torrent and no peer (rule S5).
    pub fn scrape(
        &self,
        passkey: Option<&str>,
        hashes: Result<Vec<InfoHash>, ParseError>,
        protocol: Protocol,
    ) -> Result<Vec<(InfoHash, ScrapeEntry)>, Refusal> {
        let admitted = self
            .private()
            .map_or(Ok(()), |tracker| tracker.admit_scrape(passkey));
        let metrics = &self.common().metrics;
        let hashes = match admitted.and(hashes.map_err(Refusal::from)) {
            Ok(hashes) => hashes,
            Err(refusal) => {
                metrics.refused(RequestKind::Scrape, protocol, refusal.kind());
                return Err(refusal);
            }
        };
        metrics.scrapes.of(protocol).increment();
        let scrape = |hash: InfoHash| {
            let entry = match &self.by_mode {
                ByMode::Public(tracker) => Some(tracker.scrape(&hash)),
                ByMode::Private(tracker) => tracker.scrape(&hash),
            };
            Some((hash, entry?))
        };
        Ok(hashes.into_iter().filter_map(scrape).collect())
    }

    /// Prefetches some of the memory that these announces will need. For a transport
    /// that has received several of them at once: their reads overlap then. Any number will do.
    pub fn prefetch(&self, announces: &[(InfoHash, Endpoint)]) {
        if let Some(tracker) = self.public() {
            tracker.prefetch(announces);
        }
    }
}

// === impl Common ===

impl Common {
    fn count_answered(&self, request: &AnnounceRequest, protocol: Protocol) {
        self.metrics.announces.of(protocol).increment();
        if let Ok(params) = &request.params
            && params.event == Event::Started
        {
            self.metrics.clients.count(&params.peer_id.0);
        }
    }

    fn publish_snatch(&self, info_hash: InfoHash, user: Option<UserId>, now: Seconds) {
        if let Some(events) = &self.events {
            events.publish_snatch(info_hash, user, now);
        }
    }

    /// Takes the one warning about a client that may be logged in this second, so that clients can't
    /// fill the log; false if it is taken.
    fn take_warning(&self, now: Seconds) -> bool {
        self.warned.swap(now.0, Ordering::Relaxed) != now.0
    }
}

/// The counters of a swarm in a scrape.
fn scrape_entry(counts: PeerCounts, downloaded: u32) -> ScrapeEntry {
    ScrapeEntry {
        complete: counts.seeders,
        downloaded,
        incomplete: counts.leechers,
        paused: counts.paused,
    }
}

/// The counters as they are journaled.
fn swarm_counts(counts: PeerCounts) -> SwarmCounts {
    SwarmCounts {
        seeders: counts.seeders,
        leechers: counts.leechers,
    }
}
