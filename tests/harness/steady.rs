//! Clients that announce at a steady rate and never repeat an announce: each must be answered, whatever
//! happens to the tracker meanwhile.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::{Connection, Reply, escape};
use super::load::{info_hash, passkey};
use super::now;
use super::udp::{self, Announce};

/// How long a client waits for an answer, as clients do.
const ANSWER: Duration = Duration::from_secs(15);

/// The pause between two announces of a client.
const REST: Duration = Duration::from_millis(5);

/// Bytes that a client uploads between two announces.
pub const STEP: u64 = 100_000;

/// How a client announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    /// All over one connection, until the tracker closes it with a reply.
    KeepAlive,
    /// Each over a connection of its own.
    Close,
}

pub const KINDS: [Kind; 3] = [Kind::Udp, Kind::KeepAlive, Kind::Close];

/// The clients at work.
pub struct Steady {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What became of one client's announces.
#[derive(Debug)]
pub struct Tally {
    pub kind: Kind,
    pub user: usize,
    pub answered: u64,
    /// Announces without an answer, or with an error.
    pub problems: Vec<String>,
    /// The longest that an answer took.
    pub longest: Duration,
    /// What the client reported last, having begun at 0.
    pub uploaded: u64,
}

/// One client of one user, on one torrent.
struct Client {
    kind: Kind,
    tracker: SocketAddr,
    user: usize,
    is_private: bool,
    socket: udp::Client,
    id: u64,
    connection: Option<Connection>,
}

// === impl Steady ===

impl Steady {
    /// `each` clients of each kind at each tracker, which serves HTTP and UDP there. In private mode client
    /// number n, counted from 0, is that user.
    pub fn start(trackers: &[SocketAddr], each: usize, is_private: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for &tracker in trackers {
            for kind in KINDS.into_iter().cycle().take(each * KINDS.len()) {
                let (user, stop) = (threads.len(), Arc::clone(&stop));
                let client = Client::new(kind, tracker, user, is_private);
                threads.push(thread::spawn(move || client.announce_until(&stop)));
            }
        }
        Self { stop, threads }
    }

    /// Ends them after the answer that each waits for.
    pub fn stop(self) -> Vec<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads
            .map(|thread| thread.join().expect("a client"))
            .collect()
    }
}

/// Fails if an announce was not answered, or refused; otherwise a line for each kind.
pub fn all_answered(tallies: &[Tally]) -> String {
    let mut lines = String::new();
    for kind in KINDS {
        let of_kind = || tallies.iter().filter(|tally| tally.kind == kind);
        let answered: u64 = of_kind().map(|tally| tally.answered).sum();
        let longest = of_kind().map(|tally| tally.longest).max();
        let longest = longest.unwrap_or_default();
        let problems: Vec<&String> = of_kind().flat_map(|tally| &tally.problems).collect();
        assert!(problems.is_empty(), "{kind:?}: {problems:#?}");
        assert!(answered > 0, "{kind:?} has announced");
        writeln!(
            lines,
            "{kind:?}: {answered} answered, none lost or refused, longest {longest:?}"
        )
        .expect("a String takes everything");
    }
    lines
}

// === impl Client ===

impl Client {
    fn new(kind: Kind, tracker: SocketAddr, user: usize, is_private: bool) -> Self {
        let socket = udp::Client::new(tracker);
        socket.set_timeout(ANSWER);
        Self {
            kind,
            tracker,
            user,
            is_private,
            socket,
            id: 0,
            connection: None,
        }
    }

    fn announce_until(mut self, stop: &AtomicBool) -> Tally {
        let mut tally = Tally {
            kind: self.kind,
            user: self.user,
            answered: 0,
            problems: Vec::new(),
            longest: Duration::ZERO,
            uploaded: 0,
        };
        while !stop.load(Ordering::Relaxed) {
            let begun = now();
            let is_first = tally.answered == 0;
            match self.announce(tally.uploaded, is_first) {
                Ok(()) => {
                    tally.answered += 1;
                    tally.longest = tally.longest.max(begun.elapsed());
                    if !stop.load(Ordering::Relaxed) {
                        tally.uploaded += STEP;
                    }
                }
                Err(problem) => tally.problems.push(problem),
            }
            thread::sleep(REST);
        }
        // The last announce reports what the tally says.
        if let Err(problem) = self.announce(tally.uploaded, false) {
            tally.problems.push(problem);
        }
        tally
    }

    fn announce(&mut self, uploaded: u64, is_first: bool) -> Result<(), String> {
        match self.kind {
            Kind::Udp => self.over_udp(uploaded, is_first),
            Kind::KeepAlive | Kind::Close => {
                let connection = self.connection.take();
                let reply = self.over_http(connection, uploaded, is_first);
                let reply = reply.map_err(|error| format!("no answer: {error}"))?;
                match (reply.status, reply.failure()) {
                    (200, None) => Ok(()),
                    (status, failure) => Err(format!("{status} {failure:?}")),
                }
            }
        }
    }

    /// The id is used as long as BEP 15 has a client use one.
    fn over_udp(&mut self, uploaded: u64, is_first: bool) -> Result<(), String> {
        let transaction = fastrand::u32(..);
        if is_first {
            self.socket.send(&udp::connect(transaction));
            let reply = self.received(transaction)?;
            let udp::Reply::Connected(id) = udp::Reply::read(&reply, self.tracker) else {
                return Err("no connection id".into());
            };
            self.id = id;
        }
        let mut announce = Announce {
            transaction,
            uploaded,
            left: 0,
            event: if is_first { 2 } else { 0 },
            ..Announce::new(self.id, info_hash(1)).peer(self.user as u16)
        };
        if self.is_private {
            announce.options = udp::url_data(&format!("/{}/announce", passkey(self.user)));
        }
        self.socket.send(&announce.packet());
        let reply = self.received(transaction)?;
        match udp::Reply::read(&reply, self.tracker) {
            udp::Reply::Announced(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// The reply of that transaction.
    fn received(&self, transaction: u32) -> Result<Vec<u8>, String> {
        loop {
            let reply = self.socket.receive();
            let reply = reply.map_err(|error| format!("no answer: {error}"))?;
            if reply.get(4..8) == Some(&transaction.to_be_bytes()) {
                return Ok(reply);
            }
        }
    }

    fn over_http(
        &mut self,
        connection: Option<Connection>,
        uploaded: u64,
        is_first: bool,
    ) -> io::Result<Reply> {
        let mut connection = if let Some(connection) = connection {
            connection
        } else {
            let connection = Connection::open(self.tracker)?;
            connection.wait_up_to(ANSWER)?;
            connection
        };
        let path = if self.is_private {
            format!("/{}/announce", passkey(self.user))
        } else {
            "/announce".into()
        };
        let header = match self.kind {
            Kind::Close => "Connection: close\r\n",
            _ => "",
        };
        let request = format!(
            "GET {path}?info_hash={}&peer_id=-MK0001-{:012}&port={}&uploaded={uploaded}&downloaded=0&left=0\
             &compact=1&event={} HTTP/1.1\r\nHost: tracker\r\n{header}\r\n",
            escape(&info_hash(1)),
            self.user,
            20_000 + self.user,
            if is_first { "started" } else { "" },
        );
        connection.send(request.as_bytes())?;
        let reply = connection.receive()?;
        if reply.header("connection") != Some("close") && self.kind == Kind::KeepAlive {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}
