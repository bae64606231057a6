//! The floor under the UDP figures: Mika's sockets and Mika's system calls, answering every
//! request with as many bytes as Mika would, without state.
//! `scripts/bench udp` starts it; `docs/bench.md` explains it.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, bail};
use mika::listen::udp::{Outgoing, Received, bind};
use mika::wire::udp::{Action, Header};

/// The one that Mika uses; a floor on another allocator would measure allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTION_ID: [u8; 8] = *b"constant";
const USAGE: &str = "usage: floor_udp ADDRESS:PORT PEERS [single]";

/// Bytes of a compact endpoint, of a torrent in a scrape request, and in its reply.
const ENDPOINT: usize = 6;
const HASH: usize = 20;
const ENTRY: usize = 12;

/// Seconds between announces, in the place where a client looks for it.
const INTERVAL: u32 = 1800;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, peers, calls @ ..] = arguments.as_slice() else {
        bail!(USAGE);
    };
    let address: SocketAddr = address.parse().context("ADDRESS:PORT")?;
    let peers = vec![1; ENDPOINT * peers.parse::<usize>().context("PEERS")?];
    let socket = bind(address, 1)
        .with_context(|| format!("listening on {address}"))?
        .pop()
        .context("no socket")?;
    match calls {
        [] => serve_batches(&socket, &peers),
        [word] if word == "single" => serve_singly(&socket, &peers),
        _ => bail!(USAGE),
    }
}

/// Many packets a call, as Mika does.
fn serve_batches(socket: &UdpSocket, peers: &[u8]) -> anyhow::Result<()> {
    let (mut received, mut outgoing) = (Received::default(), Outgoing::default());
    loop {
        let number = match received.receive(socket) {
            Ok(number) => number,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        for at in 0..number {
            let packet = received.packet(at);
            if let Some(header) = Header::parse(packet) {
                outgoing.add(received.route(at), |out| answer(out, header, packet, peers));
            }
        }
        outgoing.send(socket);
    }
}

/// A call for each packet, as is usual.
fn serve_singly(socket: &UdpSocket, peers: &[u8]) -> anyhow::Result<()> {
    let (mut packet, mut out) = ([0; 2048], Vec::new());
    loop {
        let (length, source) = socket.recv_from(&mut packet)?;
        let packet = &packet[..length];
        if let Some(header) = Header::parse(packet) {
            out.clear();
            answer(&mut out, header, packet, peers);
            // Packets that the network does not take are lost, as they might be on their way.
            let _ = socket.send_to(&out, source);
        }
    }
}

fn answer(out: &mut Vec<u8>, header: Header, packet: &[u8], peers: &[u8]) {
    let action: u32 = match header.action {
        Action::Connect => 0,
        Action::Announce => 1,
        Action::Scrape => 2,
    };
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&header.transaction.0);
    match header.action {
        Action::Connect => out.extend_from_slice(&CONNECTION_ID),
        Action::Announce => {
            for number in [INTERVAL, 1, 1] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(peers);
        }
        Action::Scrape => {
            let torrents = packet.len().saturating_sub(16) / HASH;
            out.resize(out.len() + torrents * ENTRY, 0);
        }
    }
}
