//! UDP: one socket on a thread of its own, and the answers to its packets (BEP 15; rules U1 to U7).
//!
//! A thread waits for packets in the kernel, receives a batch, answers its packets one by one, and
//! sends the replies with one call. It shares nothing but the tracker.

mod batch;
mod connection_id;
mod hold;
mod socket;
mod spool;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::base::addr::{Endpoint, canonical};
use crate::base::clock::{Clock, Now, Stopwatch};
use crate::base::ids::InfoHash;
use crate::base::limit::SourceLimit;
use crate::base::memory::GiveBackTimer;
use crate::listen::ListenState;
use crate::telemetry::metrics::{Metrics, Protocol, RequestKind};
use crate::telemetry::pulse::Pulse;
use crate::tracker::{AnnounceRequest, Mode, Reason, Refusal, Tracker, Workspace};
use crate::wire::http::{Target, parse_path};
use crate::wire::udp::{self as wire, Action, Header, Transaction};

pub use batch::{BATCH, Outgoing, Received, Route, enable_pktinfo};
pub use connection_id::{ConnectionIds, ConnectionSecret};
pub use hold::HeldReplies;
pub use socket::{bind, prepare};
pub use spool::{Datagram, Spool};

/// How long a worker waits in the kernel before it checks whether it is to stop.
const SOCKET_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a worker pauses when its socket fails.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The fewest announces in a batch for which prefetching pays off.
const PREFETCH_MIN: usize = 4;

const BAD_ID: &str = "bad connection id";
const MALFORMED: &str = "malformed";
const NO_PASSKEY: &str = "passkey required";
const NO_SCRAPE: &str = "scrape not available";

/// The settings that a reload may change.
#[derive(Clone, Copy, Debug)]
pub struct UdpSettings {
    /// A connection id is accepted for at least this many seconds.
    pub id_lifetime: u32,
    /// The most replies to connects, and the most errors, for one network in a second; 0 for no limit.
    pub connect_limit: u32,
    pub error_limit: u32,
    /// The longest that a reply waits until what it acknowledges is durable.
    pub ack_timeout: Duration,
}

/// What all UDP workers share.
#[derive(Clone)]
pub struct UdpService {
    pub tracker: Arc<Tracker>,
    pub settings: Arc<ArcSwap<UdpSettings>>,
    pub secret: ConnectionSecret,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub connects: Arc<SourceLimit>,
    pub errors: Arc<SourceLimit>,
    pub held: HeldReplies,
}

/// A thread and its socket.
struct Worker {
    service: UdpService,
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    ids: ConnectionIds,
    settings: UdpSettings,
    work: Workspace,
    /// The path in a private announce; reused.
    path: Vec<u8>,
    /// The torrents and peers of a batch's announces, to prefetch.
    announced: Vec<(InfoHash, Endpoint)>,
    outgoing: Outgoing,
    memory: GiveBackTimer,
}

/// A request to answer: a connect, or one with a valid connection id.
#[derive(Clone, Copy)]
struct Request {
    /// The number of its packet in the batch.
    at: usize,
    header: Header,
    ip: IpAddr,
}

/// Answers the packets of a socket, first those of `spool`, until `state` says to stop. Beats `pulse` each
/// time it receives.
pub fn serve(
    socket: UdpSocket,
    spool: Spool,
    service: UdpService,
    pulse: Pulse,
    mut state: watch::Receiver<ListenState>,
) -> io::Result<()> {
    socket.set_read_timeout(Some(SOCKET_TIMEOUT))?;
    // If the send buffer stays full for this long, replies are dropped; clients retry.
    socket.set_write_timeout(Some(SOCKET_TIMEOUT))?;
    let address = socket.local_addr()?;
    let peers_max = if address.is_ipv4() {
        wire::PEERS_MAX_V4
    } else {
        wire::PEERS_MAX_V6
    };
    let settings = **service.settings.load();
    let memory = GiveBackTimer::start(service.clock.now().mono);
    let mut worker = Worker {
        ids: ConnectionIds::new(&service.secret, settings.id_lifetime),
        service,
        socket: Arc::new(socket),
        address,
        settings,
        work: Workspace::new(Protocol::Udp, fastrand::Rng::new()).with_peers_max(peers_max),
        path: Vec::new(),
        announced: Vec::with_capacity(BATCH),
        outgoing: Outgoing::default(),
        memory,
    };
    let mut received = Received::default();
    let mut requests = Vec::with_capacity(BATCH);
    for batch in spool.batches(crate::base::clock::wall()) {
        pulse.beat();
        let number = received.load(&batch);
        worker.on_batch(&received, number, &mut requests);
    }
    let mut failing = false;
    state.mark_changed();
    while is_open(&mut state) {
        pulse.beat();
        match received.receive(&worker.socket) {
            Ok(number) => {
                failing = false;
                worker.on_batch(&received, number, &mut requests);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                worker.memory.tick(worker.service.clock.now().mono);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, %address, "packets can't be received; trying again until they can");
                }
                failing = true;
                std::thread::sleep(FAILURE_PAUSE);
            }
        }
    }
    Ok(())
}

/// Whether packets are still answered. Looks at the value only when it has changed, because that takes a lock which all
/// workers share, for each batch.
fn is_open(state: &mut watch::Receiver<ListenState>) -> bool {
    // Without a sender nobody is left to say more.
    !state.has_changed().unwrap_or(true) || *state.borrow_and_update() <= ListenState::Closing
}

impl Worker {
    /// Answers the packets of a batch in two passes. After the first, the memory that the second needs
    /// is prefetched, for all announces at once.
    fn on_batch(&mut self, received: &Received, number: usize, requests: &mut Vec<Request>) {
        let now = self.service.clock.now();
        let watch = Stopwatch::start();
        self.reload_settings();
        requests.clear();
        self.announced.clear();
        for at in 0..number {
            let Some(request) = self.verify(received, at, now) else {
                continue;
            };
            if request.header.action == Action::Announce
                && let Some((info_hash, port)) = wire::announced(received.packet(at))
            {
                self.announced
                    .push((info_hash, Endpoint::new(request.ip, port)));
            }
            requests.push(request);
        }
        if self.announced.len() >= PREFETCH_MIN {
            self.service.tracker.prefetch(&self.announced);
        }
        for request in &*requests {
            let (packet, route) = (received.packet(request.at), received.route(request.at));
            match request.header.action {
                Action::Connect => self.connect(request, route, now),
                Action::Announce => self.announce(request, packet, route, now),
                Action::Scrape => self.scrape(request, packet, route, now),
            }
        }
        self.observe(watch, requests);
        if !self.outgoing.is_empty() {
            let lost = self.outgoing.send(&self.socket);
            if lost > 0 {
                self.service.metrics.udp_unsent.add(lost as u64);
            }
        }
        self.memory.tick(now.mono);
    }

    /// Records the duration of the batch for each of its requests: no reply is sent before the last one
    /// is written.
    fn observe(&self, watch: Stopwatch, requests: &[Request]) {
        let number = requests
            .iter()
            .filter(|request| request.header.action != Action::Connect)
            .count() as u64;
        if number > 0 {
            let durations = self.service.metrics.durations.of(Protocol::Udp);
            durations.observe_each(watch.elapsed(), number);
        }
    }

    fn reload_settings(&mut self) {
        let settings = **self.service.settings.load();
        if settings.id_lifetime != self.settings.id_lifetime {
            self.ids = ConnectionIds::new(&self.service.secret, settings.id_lifetime);
        }
        self.settings = settings;
    }

    /// Checks the header and the connection id of a packet; none if it is dropped, or was answered with
    /// an error (rule U4).
    fn verify(&mut self, received: &Received, at: usize, now: Now) -> Option<Request> {
        let packet = received.packet(at);
        let route = received.route(at);
        let source = route.source().filter(|&source| !self.is_own(source, route));
        let (Some(source), Some(header)) = (source, Header::parse(packet)) else {
            self.service.metrics.udp_dropped.increment();
            return None;
        };
        let ip = canonical(source.ip());
        let request = Request { at, header, ip };
        let is_valid =
            header.action == Action::Connect || self.ids.verify(header.connection_id, ip, now.unix);
        if is_valid {
            return Some(request);
        }
        self.service.metrics.udp_bad_ids.increment();
        // A reply to an address that may be forged is never longer than the request.
        if wire::error_len(BAD_ID) <= packet.len() {
            self.error(&request, route, BAD_ID, now);
        }
        None
    }

    /// Whether a packet's source is this socket itself, or can't be replied to.
    fn is_own(&self, source: SocketAddr, route: &Route) -> bool {
        let own = route.destination().unwrap_or(self.address.ip());
        source.port() == 0 || (source.ip(), source.port()) == (own, self.address.port())
    }

    fn connect(&mut self, request: &Request, route: &Route, now: Now) {
        let limit = self.settings.connect_limit;
        if !allows(&self.service.connects, request.ip, limit, now) {
            self.service.metrics.udp_connects_limited.increment();
            return;
        }
        self.service.metrics.udp_connects.increment();
        let id = self.ids.issue(request.ip, now.unix);
        let transaction = request.header.transaction;
        self.outgoing
            .add(route, |out| wire::write_connect(out, transaction, id));
    }

    fn announce(&mut self, request: &Request, packet: &[u8], route: &Route, now: Now) {
        let Some(params) = wire::parse_announce(packet) else {
            return self.malformed(RequestKind::Announce, request, route, now);
        };
        let tracker = &self.service.tracker;
        let passkey = match tracker.mode() {
            Mode::Public => None,
            Mode::Private => {
                wire::read_url_data(packet, &mut self.path);
                let Some(passkey) = passkey_of(&self.path) else {
                    let metrics = &self.service.metrics;
                    metrics.refused(RequestKind::Announce, Protocol::Udp, Reason::NoPasskey);
                    return self.error(request, route, NO_PASSKEY, now);
                };
                Some(passkey)
            }
        };
        let announce = AnnounceRequest {
            passkey: passkey.as_deref(),
            params: Ok(params),
            source: request.ip,
        };
        match tracker.announce(&announce, now, &mut self.work) {
            Ok(answer) => {
                let endpoints = &self.work.peers.endpoints;
                let write = |out: &mut Vec<u8>| {
                    wire::write_announce(out, request.header.transaction, &answer.reply, endpoints);
                };
                match answer.ticket {
                    None => self.outgoing.add(route, write),
                    Some(ticket) => self.service.held.hold(&self.socket, route, ticket, write),
                }
            }
            Err(refusal) => {
                drop(passkey); // it borrows `self.path`
                self.refuse(request, route, &refusal, now);
            }
        }
    }

    fn scrape(&mut self, request: &Request, packet: &[u8], route: &Route, now: Now) {
        let Some(hashes) = wire::parse_scrape(packet) else {
            return self.malformed(RequestKind::Scrape, request, route, now);
        };
        if self.service.tracker.mode() == Mode::Private {
            // A scrape has no field for a passkey (rule U6).
            let metrics = &self.service.metrics;
            metrics.refused(RequestKind::Scrape, Protocol::Udp, Reason::NoScrape);
            return self.error(request, route, NO_SCRAPE, now);
        }
        let transaction = request.header.transaction;
        match self.service.tracker.scrape(None, Ok(hashes), Protocol::Udp) {
            Ok(entries) => {
                let entries = entries.into_iter().map(|(_, entry)| entry);
                self.outgoing.add(route, |out| {
                    wire::write_scrape(out, transaction, entries);
                });
            }
            Err(refusal) => self.refuse(request, route, &refusal, now),
        }
    }

    fn refuse(&mut self, request: &Request, route: &Route, refusal: &Refusal, now: Now) {
        let failure = refusal.failure(0, 0);
        self.error(request, route, failure.reason, now);
    }

    fn malformed(&mut self, asked: RequestKind, request: &Request, route: &Route, now: Now) {
        let metrics = &self.service.metrics;
        metrics.refused(asked, Protocol::Udp, Reason::Malformed);
        self.error(request, route, MALFORMED, now);
    }

    fn error(&mut self, request: &Request, route: &Route, text: &str, now: Now) {
        let limit = self.settings.error_limit;
        if !allows(&self.service.errors, request.ip, limit, now) {
            self.service.metrics.udp_errors_limited.increment();
            return;
        }
        let transaction: Transaction = request.header.transaction;
        self.outgoing
            .add(route, |out| wire::write_error(out, transaction, text));
    }
}

/// Whether a source that may be forged is replied to: the replies to forged sources hit others, so each
/// network gets at most `per_second` of them (rule U4); 0 is no limit. This host has none: its
/// addresses can't be forged from outside.
fn allows(limit: &SourceLimit, source: IpAddr, per_second: u32, now: Now) -> bool {
    per_second == 0 || source.is_loopback() || limit.allows(source, per_second, now.mono.0)
}

/// The passkey in the path of a private announce; none if it is not `/<passkey>/announce` (rule H2).
fn passkey_of(path: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    match parse_path(path) {
        Some(Target::Announce { passkey }) => passkey,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Seconds;

    #[test]
    fn replies_are_limited_for_each_network_but_not_for_this_host() {
        let limit = SourceLimit::default();
        let allowed = |source: &str, per_second, seconds| {
            let now = Now {
                mono: Seconds::START.plus(seconds),
                unix: 0,
            };
            let source = source.parse().unwrap();
            (0..100)
                .filter(|_| allows(&limit, source, per_second, now))
                .count()
        };
        assert_eq!(allowed("192.0.2.1", 10, 0), 10);
        assert_eq!(allowed("192.0.2.200", 10, 0), 0);
        assert_eq!(allowed("192.0.2.200", 10, 1), 10);
        assert_eq!(allowed("192.0.2.1", 0, 1), 100);
        assert_eq!(allowed("127.0.0.1", 10, 0), 100);
        assert_eq!(allowed("::1", 10, 0), 100);
    }

    #[test]
    fn passkeys_are_parsed_as_in_http_paths() {
        let passkey = |path: &str| passkey_of(path.as_bytes()).map(std::borrow::Cow::into_owned);
        let known = Some("0123456789abcdef".to_owned());
        assert_eq!(passkey("/0123456789abcdef/announce"), known);
        assert_eq!(passkey("//0123456789abcdef/announce/"), known);
        assert_eq!(passkey("/0123456789abcde%66/announce?a=b"), known);
        for other in [
            "",
            "/announce",
            "/0123456789abcdef/scrape",
            "/short/announce",
            "/x",
        ] {
            assert_eq!(passkey(other), None, "{other}");
        }
        assert_eq!(passkey_of(b"/0123456789abcdef\xff/announce"), None);
    }
}
