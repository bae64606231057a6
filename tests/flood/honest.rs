//! Honest clients: each announces once a second and needs a correct answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::http::{Connection, escape};
use crate::harness::udp::{Announce, Client, Reply, connect};
use crate::harness::{Mika, now};

/// Clients of each kind.
const NUMBER: u8 = 4;

/// How long an answer may take. A flood makes the kernel lose packets, so UDP asks again, as all
/// clients do, though sooner than they.
const DEADLINE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(250);

const PAUSE: Duration = Duration::from_secs(1);

/// A client, alone in a torrent of its own.
pub struct Honest {
    is_udp: bool,
    own: IpAddr,
    udp: SocketAddr,
    http: SocketAddr,
    info_hash: [u8; 20],
}

/// How a client fared.
#[derive(Debug, Default)]
pub struct Tally {
    pub is_udp: bool,
    pub asked: u64,
    /// In time, and right.
    pub answered: u64,
    pub slowest: Duration,
}

/// Clients at addresses of their own.
pub fn clients(mika: &Mika) -> impl Iterator<Item = Honest> {
    let (udp, http) = (mika.udp("127.0.0.1"), mika.http());
    (0..2 * NUMBER).map(move |number| {
        let mut info_hash = [0; 20];
        fastrand::fill(&mut info_hash);
        Honest {
            is_udp: number % 2 == 0,
            own: [127, 0, 7, number + 1].into(),
            udp,
            http,
            info_hash,
        }
    })
}

// === impl Honest ===

impl Honest {
    /// Announces once a second until `is_over`.
    pub fn run(&self, is_over: &AtomicBool) -> Tally {
        let mut tally = Tally {
            is_udp: self.is_udp,
            ..Tally::default()
        };
        while !is_over.load(Ordering::Relaxed) {
            self.ask(&mut tally);
            thread::sleep(PAUSE);
        }
        tally
    }

    pub fn once(&self) -> Tally {
        let mut tally = Tally::default();
        self.ask(&mut tally);
        tally
    }

    fn ask(&self, tally: &mut Tally) {
        let begun = now();
        let is_right = if self.is_udp {
            self.ask_udp()
        } else {
            self.ask_http()
        };
        let took = begun.elapsed();
        tally.asked += 1;
        tally.answered += u64::from(is_right && took <= DEADLINE);
        tally.slowest = tally.slowest.max(took);
    }

    /// Only this client is in its torrent.
    fn ask_udp(&self) -> bool {
        let client = Client::at(self.own, self.udp);
        client.set_timeout(PATIENCE);
        let Some(Reply::Connected(id)) = insist(&client, &connect(fastrand::u32(..))) else {
            return false;
        };
        let announce = Announce {
            transaction: fastrand::u32(..),
            ..Announce::new(id, self.info_hash)
        };
        match insist(&client, &announce.packet()) {
            Some(Reply::Announced(it)) => (it.leechers, it.seeders, it.peers.len()) == (1, 0, 0),
            _ => false,
        }
    }

    fn ask_http(&self) -> bool {
        let target = format!(
            "/announce?info_hash={}&peer_id=-MK0001-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=9",
            escape(&self.info_hash)
        );
        let reply = Connection::open(self.http).and_then(|mut it| it.get(&target));
        reply.is_ok_and(|reply| (reply.status, reply.int("incomplete")) == (200, Some(1)))
    }
}

/// Sends a request until its answer comes, or the deadline.
fn insist(client: &Client, packet: &[u8]) -> Option<Reply> {
    let begun = now();
    while begun.elapsed() < DEADLINE {
        client.send(packet);
        while let Ok(reply) = client.receive() {
            // Not the answer to an earlier request that came late.
            if reply[4..8] == packet[12..16] {
                return Some(Reply::read(&reply, client.tracker));
            }
        }
    }
    None
}
