//! One address of the load: a socket, its connection id, and the announces that wait for an answer.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mika::listen::udp::{BATCH, Outgoing, Received, Route, bind};

use crate::population::{Peer, Population};
use crate::train::{TRAIN, cut_into};

const PROTOCOL: [u8; 8] = 0x0417_2710_1980_u64.to_be_bytes();

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const FAILURE: u32 = 3;

/// Transactions that are no announce's; the lower half of those is below [`WINDOW_MAX`].
const CONNECT_TRANSACTION: u32 = u32::MAX;
const SCRAPE_TRANSACTION: u32 = u32::MAX - 1;
pub const WINDOW_MAX: usize = 1 << 15;

/// How often connection ids are renewed: before the two minutes are over that they are good for.
const ID_AGE_MAX: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_millis(500);
const TRIES_MAX: usize = 20;

pub struct Source {
    pub socket: UdpSocket,
    pub route: Route,
    pub id: [u8; 8],
    pub outgoing: Outgoing,
    connected: Instant,
    /// Announces that are to go as one; none while they go one by one.
    train: Option<Vec<u8>>,
    cars: usize,
}

/// What a tracker answered.
pub struct Reply {
    pub transaction: u32,
    pub said: Said,
}

pub enum Said {
    /// It was the answer to a connect, and has been taken care of.
    Connected,
    Announced {
        peers: usize,
    },
    /// Seeders and leechers of each torrent, in the order of the request.
    Scraped(Vec<(u32, u32)>),
    Failed(String),
}

/// Opens as many addresses as the population has, from `first` on, and connects them to the servers in turn.
pub fn open(
    servers: &[SocketAddr],
    first: Ipv4Addr,
    population: &Population,
) -> anyhow::Result<Vec<Source>> {
    let mut received = Received::default();
    let own = |number| Ipv4Addr::from(first.to_bits().wrapping_add(number as u32));
    (0..population.sources)
        .map(|number| {
            let server = servers[number as usize % servers.len()];
            Source::open(server, own(number), &mut received)
        })
        .collect()
}

impl Source {
    fn open(server: SocketAddr, own: Ipv4Addr, received: &mut Received) -> anyhow::Result<Self> {
        ensure!(server.is_ipv4(), "the load is IPv4 only");
        let own = SocketAddr::from((own, 0));
        let socket = bind(own, 1)
            .with_context(|| format!("a socket on {own}"))?
            .pop()
            .context("no socket")?;
        let mut source = Self {
            socket,
            route: Route::to(server),
            id: [0; 8],
            outgoing: Outgoing::default(),
            connected: Instant::now(),
            train: None,
            cars: 0,
        };
        source.socket.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..TRIES_MAX {
            source.ask_for_id();
            source.send();
            let replies = source.receive(received)?;
            if replies.iter().any(|it| matches!(it.said, Said::Connected)) {
                source.socket.set_nonblocking(true)?;
                return Ok(source);
            }
        }
        bail!("{server} does not answer to a connect from {own}")
    }

    /// Asks for a new connection id when it is time, each time until it is there: packets get lost.
    pub fn keep_connected(&mut self, now: Instant) {
        if now.duration_since(self.connected) > ID_AGE_MAX {
            self.ask_for_id();
        }
    }

    fn ask_for_id(&mut self) {
        let packet = [
            &PROTOCOL[..],
            &CONNECT.to_be_bytes(),
            &CONNECT_TRANSACTION.to_be_bytes(),
        ]
        .concat();
        self.outgoing
            .add(&self.route, |out| out.extend_from_slice(&packet));
    }

    /// Lets announces, all of which have that length, go as one.
    pub fn use_trains(&mut self, announce_len: usize) -> anyhow::Result<()> {
        cut_into(&self.socket, announce_len).context("UDP_SEGMENT")?;
        self.train = Some(Vec::with_capacity(TRAIN * announce_len));
        Ok(())
    }

    /// Lets packets of any length go as they are.
    pub fn use_no_trains(&mut self) -> anyhow::Result<()> {
        self.train = None;
        cut_into(&self.socket, 0).context("UDP_SEGMENT")
    }

    pub fn announce(
        &mut self,
        population: &Population,
        peer: &Peer,
        transaction: u32,
        event: u32,
        lap: u64,
    ) {
        let head = self.head(ANNOUNCE, transaction);
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&head);
            population.write_announce(out, peer, event, lap);
        };
        if let Some(train) = &mut self.train {
            write(train);
            self.cars += 1;
            if self.cars == TRAIN {
                self.close_train();
            }
        } else {
            self.outgoing.add(&self.route, write);
        }
    }

    /// Sends all that was added.
    pub fn send(&mut self) {
        self.close_train();
        if !self.outgoing.is_empty() {
            // Packets that the network does not take are lost, as they might be on their way.
            self.outgoing.send(&self.socket);
        }
    }

    fn close_train(&mut self) {
        if let Some(train) = self.train.as_mut().filter(|it| !it.is_empty()) {
            self.outgoing
                .add(&self.route, |out| out.extend_from_slice(train));
            train.clear();
            self.cars = 0;
        }
    }

    /// The first 16 bytes of a request.
    pub fn head(&self, action: u32, transaction: u32) -> [u8; 16] {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&self.id);
        head[8..12].copy_from_slice(&action.to_be_bytes());
        head[12..].copy_from_slice(&transaction.to_be_bytes());
        head
    }

    /// Seeders and leechers of some torrents.
    pub fn scrape(&mut self, hashes: &[[u8; 20]]) -> anyhow::Result<Vec<(u32, u32)>> {
        let mut received = Received::default();
        self.use_no_trains()?;
        self.socket.set_nonblocking(false)?;
        for _ in 0..TRIES_MAX {
            let head = self.head(SCRAPE, SCRAPE_TRANSACTION);
            self.outgoing.add(&self.route, |out| {
                out.extend_from_slice(&head);
                out.extend_from_slice(hashes.as_flattened());
            });
            self.send();
            for reply in self.receive(&mut received)? {
                match reply.said {
                    Said::Scraped(entries) if reply.transaction == SCRAPE_TRANSACTION => {
                        self.socket.set_nonblocking(true)?;
                        return Ok(entries);
                    }
                    Said::Failed(text) => bail!("the tracker refuses a scrape: {text}"),
                    _ => {}
                }
            }
        }
        bail!("the tracker does not answer to a scrape")
    }

    /// What has come, up to a batch; nothing after the socket's timeout.
    ///
    /// # Errors
    /// A packet that is no reply of BEP 15.
    pub fn receive(&mut self, received: &mut Received) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(BATCH);
        self.receive_each(received, |reply| replies.push(reply))?;
        Ok(replies)
    }

    /// Receives without a list. Returns how many packets and bytes came.
    pub fn receive_each(
        &mut self,
        received: &mut Received,
        mut take: impl FnMut(Reply),
    ) -> anyhow::Result<(usize, usize)> {
        let number = match received.receive(&self.socket) {
            Ok(number) => number,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok((0, 0));
            }
            Err(error) => return Err(error.into()),
        };
        let mut bytes = 0;
        for at in 0..number {
            let packet = received.packet(at);
            bytes += packet.len();
            let reply = self.parse(packet).with_context(|| {
                format!("no reply of BEP 15, {} bytes: {packet:02x?}", packet.len())
            })?;
            take(reply);
        }
        Ok((number, bytes))
    }

    fn parse(&mut self, packet: &[u8]) -> Option<Reply> {
        let (action, rest) = packet.split_first_chunk()?;
        let (transaction, rest) = rest.split_first_chunk()?;
        let said = match u32::from_be_bytes(*action) {
            CONNECT => {
                self.id = rest.try_into().ok()?;
                self.connected = Instant::now();
                Said::Connected
            }
            ANNOUNCE => Said::Announced {
                peers: rest.len().checked_sub(12).filter(|it| it % 6 == 0)? / 6,
            },
            SCRAPE if rest.len() % 12 == 0 => {
                let number =
                    |bytes: &[u8]| bytes.iter().fold(0, |it, &byte| it << 8 | u32::from(byte));
                let entry = |it: &[u8]| (number(&it[..4]), number(&it[8..]));
                Said::Scraped(rest.chunks_exact(12).map(entry).collect())
            }
            FAILURE => Said::Failed(String::from_utf8_lossy(rest).into_owned()),
            _ => return None,
        };
        Some(Reply {
            transaction: u32::from_be_bytes(*transaction),
            said,
        })
    }
}
