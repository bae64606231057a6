//! UDP: one socket on a thread of its own, and the answers to its packets (BEP 15; rules U1 to U7).
//!
//! A thread waits for packets in the kernel, takes all that are there, answers them one after
//! another, and sends all answers with one call. It shares nothing but the tracker.

mod batch;
mod connection_id;
mod hold;
mod socket;

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
use crate::telemetry::metrics::{Asked, Metrics, Protocol, Reason};
use crate::telemetry::pulse::Pulse;
use crate::tracker::{AnnounceRequest, Mode, Refusal, Tracker, Workspace};
use crate::wire::http::{Target, parse_path};
use crate::wire::udp::{self as wire, Action, Header, Transaction};

pub use batch::{BATCH, Outgoing, Received, Route, tell_destinations};
pub use connection_id::{ConnectionIds, Secret};
pub use hold::Held;
pub use socket::bind;

/// How long a worker waits for packets before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a worker pauses when its socket fails for a reason that may pass.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Announces of a batch from which on reading ahead pays.
const PREPARED_MIN: usize = 4;

const BAD_ID: &str = "bad connection id";
const MALFORMED: &str = "malformed";
const NO_PASSKEY: &str = "passkey required";
const NO_SCRAPE: &str = "scrape not available";

/// The settings that a reload may change.
#[derive(Clone, Copy, Debug)]
pub struct UdpSettings {
    /// Seconds that a connection id is accepted for at least.
    pub id_lifetime: u32,
    /// Answers a second to connects, and errors, for one network; 0 for any number.
    pub connect_limit: u32,
    pub error_limit: u32,
    /// How long a reply waits at most until what it acknowledges is durable.
    pub ack_timeout: Duration,
}

/// What all UDP workers share.
#[derive(Clone)]
pub struct UdpService {
    pub tracker: Arc<Tracker>,
    pub settings: Arc<ArcSwap<UdpSettings>>,
    pub secret: Secret,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub connects: Arc<SourceLimit>,
    pub errors: Arc<SourceLimit>,
    pub held: Held,
}

/// One socket's thread.
struct Worker {
    service: UdpService,
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    ids: ConnectionIds,
    settings: UdpSettings,
    work: Workspace,
    /// The path of a private announce.
    path: Vec<u8>,
    /// The torrents and peers of a batch.
    announced: Vec<(InfoHash, Endpoint)>,
    outgoing: Outgoing,
}

/// A request whose sender has shown that its address is its own, or a connect.
#[derive(Clone, Copy)]
struct Arrival {
    /// Its number in the batch.
    at: usize,
    header: Header,
    ip: IpAddr,
}

/// Answers what comes on that socket until `stop` is true. The thread beats `pulse` every time it
/// looks for packets.
///
/// # Errors
/// The socket can't be used.
pub fn serve(
    socket: UdpSocket,
    service: UdpService,
    pulse: Pulse,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    // Full for so long, the network takes nothing more; a client asks again.
    socket.set_write_timeout(Some(PATIENCE))?;
    let address = socket.local_addr()?;
    let peers_max = if address.is_ipv4() {
        wire::PEERS_MAX_V4
    } else {
        wire::PEERS_MAX_V6
    };
    let settings = **service.settings.load();
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
    };
    let mut received = Received::default();
    let mut arrivals = Vec::with_capacity(BATCH);
    let mut failing = false;
    while !*stop.borrow() {
        pulse.beat();
        match received.receive(&worker.socket) {
            Ok(number) => {
                failing = false;
                worker.answer(&received, number, &mut arrivals);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
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

// === impl Worker ===

impl Worker {
    /// Answers the packets of a batch, in two turns: after the first, all of the memory that the
    /// second needs is asked for at once.
    fn answer(&mut self, received: &Received, number: usize, arrivals: &mut Vec<Arrival>) {
        let now = self.service.clock.now();
        let watch = Stopwatch::start();
        self.take_over_settings();
        arrivals.clear();
        self.announced.clear();
        for at in 0..number {
            let Some(arrival) = self.receive(received, at, now) else {
                continue;
            };
            if arrival.header.action == Action::Announce {
                let announced = wire::announced(received.packet(at));
                let peer = announced.map(|(it, port)| (it, Endpoint::new(arrival.ip, port)));
                self.announced.extend(peer);
            }
            arrivals.push(arrival);
        }
        if self.announced.len() >= PREPARED_MIN {
            self.service.tracker.prefetch(&self.announced);
        }
        for arrival in &*arrivals {
            let (packet, route) = (received.packet(arrival.at), received.route(arrival.at));
            match arrival.header.action {
                Action::Connect => self.connect(arrival, route, now),
                Action::Announce => self.announce(arrival, packet, route, now),
                Action::Scrape => self.scrape(arrival, packet, route, now),
            }
        }
        self.measure(watch, arrivals);
        if !self.outgoing.is_empty() {
            let lost = self.outgoing.send(&self.socket);
            if lost > 0 {
                self.service.metrics.udp_unsent.add(lost as u64);
            }
        }
    }

    /// No reply of a batch goes before the last one is written: all took as long.
    fn measure(&self, watch: Stopwatch, arrivals: &[Arrival]) {
        let arrivals = arrivals.iter();
        let decided = arrivals.filter(|it| it.header.action != Action::Connect);
        let number = decided.count() as u64;
        if number > 0 {
            let durations = self.service.metrics.durations.of(Protocol::Udp);
            durations.observe_each(watch.elapsed(), number);
        }
    }

    fn take_over_settings(&mut self) {
        let settings = **self.service.settings.load();
        if settings.id_lifetime != self.settings.id_lifetime {
            self.ids = ConnectionIds::new(&self.service.secret, settings.id_lifetime);
        }
        self.settings = settings;
    }

    /// Looks at the head of a packet; none if it is to be dropped, or has been answered by an
    /// error (rule U4).
    fn receive(&mut self, received: &Received, at: usize, now: Now) -> Option<Arrival> {
        let packet = received.packet(at);
        let route = received.route(at);
        let source = route.source().filter(|it| self.is_other(*it, route));
        let (Some(source), Some(header)) = (source, Header::parse(packet)) else {
            self.service.metrics.udp_dropped.one();
            return None;
        };
        let ip = canonical(source.ip());
        let arrival = Arrival { at, header, ip };
        let is_proven =
            header.action == Action::Connect || self.ids.verify(header.connection_id, ip, now.unix);
        if is_proven {
            return Some(arrival);
        }
        self.service.metrics.udp_bad_ids.one();
        // No answer to an address that may be forged is longer than the request.
        if wire::error_len(BAD_ID) <= packet.len() {
            self.error(&arrival, route, BAD_ID, now);
        }
        None
    }

    /// Whether the packet comes from somewhere else than this very socket.
    fn is_other(&self, source: SocketAddr, route: &Route) -> bool {
        let own = route.destination().unwrap_or(self.address.ip());
        source.port() != 0 && (source.ip(), source.port()) != (own, self.address.port())
    }

    fn connect(&mut self, arrival: &Arrival, route: &Route, now: Now) {
        let limit = self.settings.connect_limit;
        if !allows(&self.service.connects, arrival.ip, limit, now) {
            self.service.metrics.udp_connects_limited.one();
            return;
        }
        self.service.metrics.udp_connects.one();
        let id = self.ids.issue(arrival.ip, now.unix);
        let transaction = arrival.header.transaction;
        self.outgoing
            .add(route, |out| wire::write_connect(out, transaction, id));
    }

    fn announce(&mut self, arrival: &Arrival, packet: &[u8], route: &Route, now: Now) {
        let Some(params) = wire::parse_announce(packet) else {
            self.malformed(Asked::Announce, arrival, route, now);
            return;
        };
        let mut path = std::mem::take(&mut self.path);
        let passkey = match self.service.tracker.mode() {
            Mode::Public => Some(None),
            Mode::Private => {
                wire::read_url_data(packet, &mut path);
                passkey_of(&path).map(Some)
            }
        };
        if let Some(passkey) = passkey {
            let request = AnnounceRequest {
                passkey: passkey.as_deref(),
                params: Ok(params),
                source: arrival.ip,
            };
            self.decide(&request, arrival, route, now);
        } else {
            let metrics = &self.service.metrics;
            metrics.refused(Asked::Announce, Protocol::Udp, Reason::NoPasskey);
            self.error(arrival, route, NO_PASSKEY, now);
        }
        self.path = path;
    }

    fn decide(&mut self, request: &AnnounceRequest, arrival: &Arrival, route: &Route, now: Now) {
        let tracker = &self.service.tracker;
        let transaction = arrival.header.transaction;
        match tracker.announce(request, now, &mut self.work) {
            Ok(answer) => {
                let endpoints = &self.work.peers.endpoints;
                let write = |out: &mut Vec<u8>| {
                    wire::write_announce(out, transaction, &answer.reply, endpoints);
                };
                match answer.ticket {
                    None => self.outgoing.add(route, write),
                    Some(ticket) => self.service.held.hold(&self.socket, route, ticket, write),
                }
            }
            Err(refusal) => self.refuse(arrival, route, &refusal, now),
        }
    }

    fn scrape(&mut self, arrival: &Arrival, packet: &[u8], route: &Route, now: Now) {
        let Some(hashes) = wire::parse_scrape(packet) else {
            self.malformed(Asked::Scrape, arrival, route, now);
            return;
        };
        if self.service.tracker.mode() == Mode::Private {
            // There is no place for a passkey in it (rule U6).
            let metrics = &self.service.metrics;
            metrics.refused(Asked::Scrape, Protocol::Udp, Reason::NoScrape);
            self.error(arrival, route, NO_SCRAPE, now);
            return;
        }
        let transaction = arrival.header.transaction;
        match self.service.tracker.scrape(None, Ok(hashes), Protocol::Udp) {
            Ok(entries) => {
                let entries = entries.into_iter().map(|(_, entry)| entry);
                self.outgoing.add(route, |out| {
                    wire::write_scrape(out, transaction, entries);
                });
            }
            Err(refusal) => self.refuse(arrival, route, &refusal, now),
        }
    }

    fn refuse(&mut self, arrival: &Arrival, route: &Route, refusal: &Refusal, now: Now) {
        let failure = refusal.failure(0, 0);
        self.error(arrival, route, failure.reason, now);
    }

    fn malformed(&mut self, asked: Asked, arrival: &Arrival, route: &Route, now: Now) {
        let metrics = &self.service.metrics;
        metrics.refused(asked, Protocol::Udp, Reason::Malformed);
        self.error(arrival, route, MALFORMED, now);
    }

    fn error(&mut self, arrival: &Arrival, route: &Route, text: &str, now: Now) {
        let limit = self.settings.error_limit;
        if !allows(&self.service.errors, arrival.ip, limit, now) {
            self.service.metrics.udp_errors_limited.one();
            return;
        }
        let transaction: Transaction = arrival.header.transaction;
        self.outgoing
            .add(route, |out| wire::write_error(out, transaction, text));
    }
}

/// Whether one who has not shown yet that the address is its own is answered: whoever forges
/// addresses makes a tracker answer somebody else, so each network gets only so many answers a
/// second (rule U4); 0 is no limit. This host itself has none: nobody can forge its address from outside.
fn allows(answers: &SourceLimit, source: IpAddr, per_second: u32, now: Now) -> bool {
    per_second == 0 || source.is_loopback() || answers.allows(source, per_second, now.mono.0)
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
    fn networks_get_so_many_answers_a_second_and_this_host_any_number() {
        let answers = SourceLimit::default();
        let allowed = |source: &str, per_second, seconds| {
            let now = Now {
                mono: Seconds::START.plus(seconds),
                unix: 0,
            };
            let source = source.parse().unwrap();
            let allowed = (0..100).filter(|_| allows(&answers, source, per_second, now));
            allowed.count()
        };
        assert_eq!(allowed("192.0.2.1", 10, 0), 10);
        assert_eq!(allowed("192.0.2.200", 10, 0), 0);
        assert_eq!(allowed("192.0.2.200", 10, 1), 10);
        assert_eq!(allowed("192.0.2.1", 0, 1), 100);
        assert_eq!(allowed("127.0.0.1", 10, 0), 100);
        assert_eq!(allowed("::1", 10, 0), 100);
    }

    #[test]
    fn passkeys_are_found_as_in_http_paths() {
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
