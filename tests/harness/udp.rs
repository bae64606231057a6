//! A plain UDP client of a tracker (BEP 15) that sends exactly the packets given.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_secs(20);

pub const PROTOCOL: u64 = 0x0417_2710_1980;
pub const CONNECT: u32 = 0;
pub const ANNOUNCE: u32 = 1;
pub const SCRAPE: u32 = 2;
pub const ERROR: u32 = 3;

/// The header of an announce, and what follows it without options.
pub const HEADER: usize = 16;
pub const ANNOUNCE_LEN: usize = 98;

/// A socket that talks to one tracker.
pub struct Client {
    socket: UdpSocket,
    pub tracker: SocketAddr,
}

/// The fields of an announce.
#[derive(Clone, Debug)]
pub struct Announce {
    pub id: u64,
    pub transaction: u32,
    pub info_hash: [u8; 20],
    pub peer_id: [u8; 20],
    pub downloaded: u64,
    pub left: u64,
    pub uploaded: u64,
    pub event: u32,
    pub ip: u32,
    pub key: u32,
    pub num_want: i32,
    pub port: u16,
    pub options: Vec<u8>,
}

/// A reply to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    pub interval: u32,
    pub leechers: u32,
    pub seeders: u32,
    pub peers: Vec<SocketAddr>,
}

/// Any reply, by its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Connected(u64),
    Announced(Announced),
    /// Seeders, snatches and leechers of each torrent.
    Scraped(Vec<[u32; 3]>),
    Failed(String),
}

/// A request's header.
pub fn header(id: u64, action: u32, transaction: u32) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend(action.to_be_bytes());
    packet.extend(transaction.to_be_bytes());
    packet
}

pub fn connect(transaction: u32) -> Vec<u8> {
    header(PROTOCOL, CONNECT, transaction)
}

pub fn scrape(id: u64, transaction: u32, hashes: &[[u8; 20]]) -> Vec<u8> {
    let mut packet = header(id, SCRAPE, transaction);
    packet.extend(hashes.iter().flatten());
    packet
}

/// The path as one option of URL data, or as many as it takes (BEP 41).
pub fn url_data(path: &str) -> Vec<u8> {
    let option = |part: &[u8]| [&[2, part.len() as u8], part].concat();
    path.as_bytes().chunks(255).flat_map(option).collect()
}

/// Whether a server answers a connect to that address; for "any address", on this host.
pub fn is_there(mut tracker: SocketAddr) -> bool {
    if tracker.ip().is_unspecified() {
        tracker.set_ip(loopback(tracker));
    }
    let own = if tracker.ip().is_loopback() {
        loopback(tracker)
    } else {
        tracker.ip()
    };
    let client = Client::at(own, tracker);
    client.set_timeout(Duration::from_millis(200));
    client.send(&connect(7));
    client.receive().is_ok()
}

/// The loopback address of the same family.
fn loopback(of: SocketAddr) -> IpAddr {
    if of.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

// === impl Client ===

impl Client {
    /// A client on a free port of the loopback address of the tracker's family.
    pub fn new(tracker: SocketAddr) -> Self {
        Self::at(loopback(tracker), tracker)
    }

    /// A client on a free port of that address.
    pub fn at(own: IpAddr, tracker: SocketAddr) -> Self {
        let socket = UdpSocket::bind((own, 0)).expect("a free port");
        socket
            .set_read_timeout(Some(TIMEOUT))
            .expect("a timeout can be set");
        Self { socket, tracker }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("its address")
    }

    pub fn set_timeout(&self, timeout: Duration) {
        self.socket
            .set_read_timeout(Some(timeout))
            .expect("a timeout can be set");
    }

    pub fn send(&self, packet: &[u8]) {
        let sent = self.socket.send_to(packet, self.tracker);
        assert_eq!(sent.expect("the packet is sent"), packet.len());
    }

    /// The next packet, which must come from where the client sends to (rule U2).
    ///
    /// # Errors
    /// None came in time.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => {
                    assert_eq!(source, self.tracker, "from another address");
                    return Ok(buffer[..length].to_vec());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a packet; the bytes that come back.
    pub fn exchange(&self, packet: &[u8]) -> Vec<u8> {
        self.send(packet);
        self.receive()
            .unwrap_or_else(|error| panic!("no answer to {}: {error}", packet.escape_ascii()))
    }

    /// Sends a request; what comes back, which must carry its transaction.
    pub fn ask(&self, packet: &[u8]) -> Reply {
        let reply = self.exchange(packet);
        assert_eq!(reply[4..8], packet[12..16], "the transaction");
        Reply::read(&reply, self.tracker)
    }

    /// A connection id.
    pub fn connect(&self) -> u64 {
        match self.ask(&connect(fastrand::u32(..))) {
            Reply::Connected(id) => id,
            other => panic!("no id: {other:?}"),
        }
    }

    /// Announces; it must be answered.
    pub fn announce(&self, announce: &Announce) -> Announced {
        match self.ask(&announce.packet()) {
            Reply::Announced(reply) => reply,
            other => panic!("{announce:?}: {other:?}"),
        }
    }

    /// Announces; the text of the error that must come.
    pub fn refused(&self, announce: &Announce) -> String {
        self.error(&announce.packet())
    }

    /// Sends a request; the text of the error that must come.
    pub fn error(&self, packet: &[u8]) -> String {
        match self.ask(packet) {
            Reply::Failed(text) => text,
            other => panic!("{}: {other:?}", packet.escape_ascii()),
        }
    }

    pub fn scrape(&self, id: u64, hashes: &[[u8; 20]]) -> Vec<[u32; 3]> {
        match self.ask(&scrape(id, 7, hashes)) {
            Reply::Scraped(entries) => entries,
            other => panic!("no scrape: {other:?}"),
        }
    }

    /// Sends a packet that must not be answered. A socket's packets are answered in order, so
    /// the first thing to come is the answer to the connect behind it.
    pub fn is_dropped(&self, packet: &[u8]) -> bool {
        let transaction = fastrand::u32(..);
        self.send(packet);
        let reply = self.exchange(&connect(transaction));
        reply[..8] == header(PROTOCOL, CONNECT, transaction)[8..]
    }
}

// === impl Announce ===

impl Announce {
    /// The announce of the vectors: a leecher on port 6881 that has started.
    pub fn new(id: u64, info_hash: [u8; 20]) -> Self {
        Self {
            id,
            transaction: 0x1122_3344,
            info_hash,
            peer_id: *b"-MK0001-abcdefghijkl",
            downloaded: 0,
            left: 16_384,
            uploaded: 0,
            event: 2,
            ip: 0,
            key: 0x1234_abcd,
            num_want: -1,
            port: 6881,
            options: Vec::new(),
        }
    }

    /// Peer `n` of its torrent: at its own port, with its own peer id and key.
    pub fn peer(&self, n: u16) -> Self {
        Self {
            peer_id: *format!("-MK0001-{n:012}")
                .as_bytes()
                .first_chunk()
                .expect("20 bytes"),
            port: 20_000 + n,
            key: u32::from(n) + 1,
            ..self.clone()
        }
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut packet = header(self.id, ANNOUNCE, self.transaction);
        packet.extend(self.info_hash);
        packet.extend(self.peer_id);
        for total in [self.downloaded, self.left, self.uploaded] {
            packet.extend(total.to_be_bytes());
        }
        for number in [self.event, self.ip, self.key] {
            packet.extend(number.to_be_bytes());
        }
        packet.extend(self.num_want.to_be_bytes());
        packet.extend(self.port.to_be_bytes());
        packet.extend(&self.options);
        packet
    }
}

// === impl Reply ===

impl Reply {
    /// Reads a reply, whose length must be exact.
    pub fn read(packet: &[u8], tracker: SocketAddr) -> Self {
        let number = |at: usize| {
            let bytes = packet.get(at..at + 4).and_then(<[u8]>::first_chunk);
            u32::from_be_bytes(*bytes.unwrap_or_else(|| panic!("short: {packet:02x?}")))
        };
        match number(0) {
            CONNECT => {
                assert_eq!(packet.len(), 16);
                Self::Connected(u64::from(number(8)) << 32 | u64::from(number(12)))
            }
            ANNOUNCE => Self::Announced(Announced {
                interval: number(8),
                leechers: number(12),
                seeders: number(16),
                peers: endpoints(&packet[20..], tracker.is_ipv4()),
            }),
            SCRAPE => {
                assert_eq!((packet.len() - 8) % 12, 0);
                let entries = (8..packet.len()).step_by(12);
                Self::Scraped(
                    entries
                        .map(|at| [0, 4, 8].map(|it| number(at + it)))
                        .collect(),
                )
            }
            ERROR => {
                let text = String::from_utf8(packet[8..].to_vec()).expect("a text");
                assert!(text.len() <= 100 && !text.contains('\0'), "{text:?}");
                Self::Failed(text)
            }
            other => panic!("action {other}"),
        }
    }
}

fn endpoints(bytes: &[u8], are_v4: bool) -> Vec<SocketAddr> {
    let stride = if are_v4 { 6 } else { 18 };
    assert_eq!(bytes.len() % stride, 0);
    let endpoint = |bytes: &[u8]| {
        let (ip, port) = bytes.split_at(stride - 2);
        let ip = if are_v4 {
            <[u8; 4]>::try_from(ip).expect("4 bytes").into()
        } else {
            <[u8; 16]>::try_from(ip).expect("16 bytes").into()
        };
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    };
    bytes.chunks(stride).map(endpoint).collect()
}
