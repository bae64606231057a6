//! The decision: who may take part, what the swarm becomes, what is credited, who is handed out.
//!
//! Every transport comes through [`Tracker::announce`] and [`Tracker::scrape`]. They are plain
//! functions over memory: no socket, no SQL, no clock. What must be kept goes to the [`Outbox`];
//! an answer that acknowledges it carries a [`Ticket`] to wait for.

mod admit;
mod completions;
pub mod credit;
mod idle;
mod leaps;
mod machines;
mod newcomer;
mod outbox;
mod private;
mod public;
mod record;
mod refusal;
mod registration;
mod restore;
mod rules;
mod share;
mod sweep;
mod takeover;
mod user_records;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::base::addr::{Endpoint, canonical, is_global};
use crate::base::clock::{Now, Seconds};
use crate::base::ids::{InfoHash, UserId};
use crate::registry::Registry;
use crate::swarm::{Counts, Eligibility, PrivateShard, PublicShard, Role, Selector, Swarms};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{Asked, Metrics, Protocol};
use crate::tracker::leaps::Leaps;
use crate::tracker::user_records::UserRecords;
use crate::wire::{Announce, AnnounceReply, Event, ParseError, PeerList, ScrapeEntry};

use self::completions::Completions;
use self::registration::{NetworkShares, Registrations};

pub use idle::{IdleTorrent, IdleTorrents};
pub use outbox::{Cut, Outbox, Ticket};
pub use refusal::{Reason, Refusal};
pub use restore::KnownHistory;
pub use rules::{Mode, Rules};
pub use sweep::{Census, Roles};
pub use view::LivePeer;

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
    /// The answer is to be held back until this is settled, or `ack_timeout` is over.
    pub ticket: Option<Ticket>,
}

/// What a worker lends to each announce, so that announces allocate nothing of their own.
pub struct Workspace {
    pub peers: PeerList,
    pub selector: Selector,
    /// What the worker's requests come by.
    protocol: Protocol,
    /// Peers that a reply has room for, whatever the rules and the client say.
    peers_max: u32,
}

/// The state of a tracker and the rules it goes by.
pub struct Tracker {
    mode: Mode,
    rules: ArcSwap<Rules>,
    registry: Arc<Registry>,
    public: Swarms<PublicShard>,
    private: Swarms<PrivateShard>,
    /// Public swarms held now.
    public_torrents: AtomicUsize,
    /// Those that networks began while there was little room.
    begun: NetworkShares,
    /// Private mode: what each user has.
    records: UserRecords,
    registrations: Registrations,
    leaps: Leaps,
    /// Public downloads that completed a moment ago.
    completions: Completions,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// When a client's doings were last written to the log.
    warned: AtomicU32,
    /// Other nodes are told of public peers too.
    is_shared: bool,
    /// There are other nodes at the moment, which may know clients that this one has not heard of.
    has_company: AtomicBool,
    /// Where snatches are told to those who watch.
    events: Option<Arc<Events>>,
}

/// What an announce is to its swarm, worked out once.
struct Arrival<'a> {
    params: &'a Announce,
    /// The address as the tracker sees it, whatever the client claims.
    source: IpAddr,
    endpoint: Endpoint,
    role: Role,
    now: Now,
}

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

    /// The same for a transport whose replies have room for so many peers.
    pub fn with_peers_max(self, peers_max: u32) -> Self {
        Self { peers_max, ..self }
    }
}

// === impl Tracker ===

impl Tracker {
    /// A tracker without swarms. `outbox_capacity` is in changes.
    pub fn new(
        mode: Mode,
        rules: Rules,
        registry: Arc<Registry>,
        outbox_capacity: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            mode,
            rules: ArcSwap::from_pointee(rules.within(mode)),
            registry,
            public: Swarms::default(),
            private: Swarms::default(),
            public_torrents: AtomicUsize::new(0),
            begun: NetworkShares::default(),
            records: UserRecords::default(),
            registrations: Registrations::default(),
            leaps: Leaps::default(),
            completions: Completions::default(),
            outbox: Outbox::new(outbox_capacity),
            metrics,
            warned: AtomicU32::new(0),
            is_shared: false,
            has_company: AtomicBool::new(false),
            events: None,
        }
    }

    /// The same tracker as one of several nodes, which tell each other of their peers.
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Says that there are other nodes, or were: what they heard may still be on its way.
    pub fn note_company(&self) {
        self.has_company.store(true, Ordering::Relaxed);
    }

    /// The same tracker, which tells there what happens.
    pub fn telling(mut self, events: Arc<Events>) -> Self {
        self.events = Some(events);
        self
    }

    fn tell_snatch(&self, info_hash: InfoHash, user: Option<UserId>, now: Seconds) {
        if let Some(events) = &self.events {
            events.publish_snatch(info_hash, user, now);
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// From now on, other rules.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules.within(self.mode)));
    }

    /// The announce and the least interval in seconds, as failures carry them.
    pub fn intervals(&self) -> (u32, u32) {
        let rules = self.rules.load();
        (rules.announce_interval, rules.min_announce_interval)
    }

    /// Whether a client's doings may be written to the log: once a second, so that nobody can
    /// fill it.
    fn may_warn(&self, now: Seconds) -> bool {
        self.warned.swap(now.0, Ordering::Relaxed) != now.0
    }

    /// Private records of that user over all torrents, those of peers that left included.
    pub fn records_of(&self, user: UserId) -> u32 {
        self.records.count(user)
    }

    /// Seconds that a peer stays without announcing.
    pub fn peer_ttl(&self) -> u32 {
        self.rules.load().peer_ttl
    }

    /// [`Rules::record_ttl`] as it is now.
    pub fn record_ttl(&self) -> u32 {
        self.rules.load().record_ttl()
    }

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
        let rules = self.rules.load();
        let answer = match self.mode {
            Mode::Public => self
                .admit_public(request, &rules)
                .and_then(|(info_hash, params)| {
                    let arrival = Arrival::new(params, request.source, &rules, now);
                    self.announce_public(info_hash, &arrival, &rules, work)
                }),
            Mode::Private => self
                .admit_private(request, &rules)
                .and_then(|(who, params)| {
                    let arrival = Arrival::new(params, request.source, &rules, now);
                    self.announce_private(&who, &arrival, &rules, work)
                }),
        };
        match &answer {
            Ok(_) => self.count_answered(request, work.protocol),
            Err(refusal) => {
                let protocol = work.protocol;
                self.metrics
                    .refused(Asked::Announce, protocol, refusal.kind());
                if let Some(events) = &self.events {
                    let reason = refusal.kind().name();
                    let source = Some(request.source);
                    events.publish_refusal(reason, protocol.name(), source, now.mono);
                }
            }
        }
        answer
    }

    fn count_answered(&self, request: &AnnounceRequest, protocol: Protocol) {
        self.metrics.announces.of(protocol).one();
        if let Ok(params) = &request.params
            && params.event == Event::Started
        {
            self.metrics.clients.count(&params.peer_id.0);
        }
    }

    /// The counters of the torrents asked for: zeros for unknown ones in public mode, nothing in
    /// private mode (rules S1 to S5). Torrents and peers are left as they are.
    ///
    /// # Errors
    /// A refusal.
    pub fn scrape(
        &self,
        passkey: Option<&str>,
        hashes: Result<Vec<InfoHash>, ParseError>,
        protocol: Protocol,
    ) -> Result<Vec<(InfoHash, ScrapeEntry)>, Refusal> {
        let hashes = match self
            .admit_scrape(passkey)
            .and(hashes.map_err(Refusal::from))
        {
            Ok(hashes) => hashes,
            Err(refusal) => {
                self.metrics
                    .refused(Asked::Scrape, protocol, refusal.kind());
                return Err(refusal);
            }
        };
        self.metrics.scrapes.of(protocol).one();
        let entries = hashes.into_iter().filter_map(|hash| {
            let entry = match self.mode {
                Mode::Public => Some(self.scrape_public(&hash)),
                Mode::Private => self.scrape_private(&hash),
            };
            Some((hash, entry?))
        });
        Ok(entries.collect())
    }
}

/// The counters of a swarm as a scrape tells them.
fn scraped(counts: Counts, downloaded: u32) -> ScrapeEntry {
    ScrapeEntry {
        complete: counts.seeders,
        downloaded,
        incomplete: counts.leechers,
        paused: counts.paused,
    }
}

// === impl Arrival ===

impl<'a> Arrival<'a> {
    fn new(params: &'a Announce, source: IpAddr, rules: &Rules, now: Now) -> Self {
        let source = canonical(source);
        let claimed = match source {
            IpAddr::V4(_) => params.claimed_v4,
            IpAddr::V6(_) => params.claimed_v6,
        };
        let claimed = claimed.filter(|&ip| rules.trust_client_ip && is_global(ip));
        let role = match (params.left, params.event) {
            (Some(0), _) => Role::Seeder,
            (_, Event::Paused) => Role::Paused,
            _ => Role::Leecher,
        };
        Self {
            params,
            source,
            endpoint: Endpoint::new(claimed.unwrap_or(source), params.port),
            role,
            now,
        }
    }

    /// The reply, with the counters as they are after the announce (rule W11).
    fn reply(
        &self,
        counts: Counts,
        downloaded: u32,
        rules: &Rules,
        work: &mut Workspace,
    ) -> AnnounceReply {
        AnnounceReply {
            complete: counts.seeders,
            incomplete: counts.leechers,
            downloaded,
            interval: rules.jittered_interval(work.selector.rng()),
            min_interval: rules.min_announce_interval,
            external_ip: rules
                .public_addresses
                .of(self.source)
                .unwrap_or(self.source),
        }
    }

    /// Whether it says that the download is complete, and it is.
    fn completes(&self) -> bool {
        self.params.event == Event::Completed && self.role == Role::Seeder
    }

    /// How many peers to hand out: none to one that goes.
    fn want(&self, rules: &Rules, work: &Workspace) -> usize {
        if self.params.event == Event::Stopped {
            return 0;
        }
        let want = self.params.numwant.unwrap_or(rules.numwant);
        want.min(rules.max_numwant).min(work.peers_max) as usize
    }

    fn eligibility<'r>(&self, rules: &'r Rules) -> Eligibility<'r> {
        Eligibility {
            alive_since: rules.alive_since(self.now.mono),
            viewer: rules.public_addresses.viewer(self.endpoint.ip()),
        }
    }
}
