//! Packets that are read but not answered, while the tracker restarts in place.
//!
//! The kernel's buffer of a socket holds a few hundred packets by default. So the process that ends reads on
//! while it saves, the next one while it loads, and answers all of them once it is ready.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::batch::{BATCH, Received};
use crate::base::clock::wall;

/// Bytes that the spool of a socket takes, with what each packet needs beside its own.
const BYTES_MAX: usize = 16 << 20;

/// What a packet takes beside its own bytes: about the size of a [`Datagram`].
const OVERHEAD: usize = 96;

/// Seconds after which a packet is not answered any more: its client has sent it again.
const AGE_MAX: i64 = 60;

/// How long a read waits before it looks whether to go on.
const READ_TIMEOUT: Duration = Duration::from_millis(10);

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Unix time at which it was read.
    pub at: i64,
    pub source: SocketAddr,
    /// The address of this host that it was sent to, if the socket has any.
    pub destination: Option<IpAddr>,
    pub packet: Box<[u8]>,
}

/// The packets of one socket, in the order in which they came.
#[derive(Debug, Default)]
pub struct Spool {
    datagrams: Vec<Datagram>,
    bytes: usize,
}

impl Spool {
    /// Reads the packets of a socket as long as `goes_on` returns true. Once the spool is full, the rest stays
    /// in the kernel.
    pub fn fill(&mut self, socket: &UdpSocket, goes_on: impl Fn() -> bool) {
        if let Err(error) = socket.set_read_timeout(Some(READ_TIMEOUT)) {
            tracing::warn!(%error, "packets can't be read during the restart; they wait in the kernel");
            return;
        }
        let mut received = Received::default();
        while goes_on() {
            if self.bytes >= BYTES_MAX {
                std::thread::sleep(READ_TIMEOUT);
                continue;
            }
            match received.receive(socket) {
                Ok(number) => self.extend(&received, number),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    tracing::debug!(%error, "packets can't be read");
                    std::thread::sleep(READ_TIMEOUT);
                }
            }
        }
    }

    fn extend(&mut self, received: &Received, number: usize) {
        let at = wall();
        for index in 0..number {
            let route = received.route(index);
            // One without a source can't be answered.
            if let Some(source) = route.source() {
                self.push(Datagram {
                    at,
                    source,
                    destination: route.destination(),
                    packet: received.packet(index).into(),
                });
            }
        }
    }

    /// Adds a packet behind the others.
    pub fn push(&mut self, datagram: Datagram) {
        self.bytes += OVERHEAD + datagram.packet.len();
        self.datagrams.push(datagram);
    }

    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// All packets.
    pub fn into_datagrams(self) -> Vec<Datagram> {
        self.datagrams
    }

    /// The packets that are not too old at that Unix time, in batches of at most [`BATCH`].
    pub(super) fn batches(self, now: i64) -> impl Iterator<Item = Vec<Datagram>> {
        let mut datagrams = self.datagrams.into_iter();
        std::iter::from_fn(move || {
            let young = datagrams.by_ref().filter(|it| now - it.at <= AGE_MAX);
            let batch: Vec<Datagram> = young.take(BATCH).collect();
            (!batch.is_empty()).then_some(batch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn datagram(at: i64, number: u8) -> Datagram {
        Datagram {
            at,
            source: "192.0.2.1:6881".parse().unwrap(),
            destination: None,
            packet: [number].into(),
        }
    }

    #[test]
    fn packets_come_out_in_their_order_without_old_ones() {
        let mut spool = Spool::default();
        spool.push(datagram(99, 0));
        (1..=150).for_each(|number| spool.push(datagram(100, number)));
        let batches: Vec<_> = spool.batches(100 + AGE_MAX).collect();
        assert_eq!(
            batches.iter().map(Vec::len).collect::<Vec<_>>(),
            [64, 64, 22]
        );
        let numbers = batches.into_iter().flatten().map(|it| it.packet[0]);
        assert!(numbers.eq(1..=150));
    }

    #[test]
    fn a_full_spool_leaves_the_rest_in_the_kernel() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        client.send(b"first").unwrap();
        client.send(b"second").unwrap();
        let turns = AtomicUsize::new(0);
        let goes_on = || turns.fetch_add(1, Ordering::Relaxed) < 3;
        let mut spool = Spool {
            bytes: BYTES_MAX,
            ..Spool::default()
        };
        spool.fill(&socket, goes_on);
        assert!(spool.is_empty());
        spool.bytes = 0;
        turns.store(0, Ordering::Relaxed);
        spool.fill(&socket, goes_on);
        let read: Vec<_> = spool.into_datagrams();
        let packets: Vec<&[u8]> = read.iter().map(|it| &*it.packet).collect();
        assert_eq!(packets, [&b"first"[..], b"second"]);
        assert_eq!(read[0].source, client.local_addr().unwrap());
    }
}
