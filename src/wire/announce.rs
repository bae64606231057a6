//! Announce and scrape as values, the same for every transport.

use std::net::IpAddr;

use crate::base::ids::{InfoHash, PeerId};
use crate::wire::FormHash;

/// What a client says has happened (BEP 3, BEP 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    #[default]
    None,
    Started,
    Completed,
    Stopped,
    /// A partial seed: it has all that it wants, though not everything.
    Paused,
}

/// A client's `key`, cut to 32 bits: enough to tell two clients behind one address apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey(pub u32);

/// An announce, parsed. What a client left out or garbled is `None` where the rules allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    pub info_hash: InfoHash,
    /// The info hash with every raw `+` read as a space, for clients that encode forms (rule Q4);
    /// none if there is no raw `+`.
    pub info_hash_as_form: Option<FormHash>,
    pub peer_id: PeerId,
    /// 0 for a client that can't be connected to.
    pub port: u16,
    /// Running totals in bytes; none if not reported.
    pub uploaded: Option<u64>,
    pub downloaded: Option<u64>,
    /// Bytes still to download; none if unknown, which counts as a leecher.
    pub left: Option<u64>,
    pub event: Event,
    /// Peers wanted; none for the tracker's default.
    pub numwant: Option<u32>,
    pub key: Option<ClientKey>,
    /// The addresses that the client says it has, of each family.
    pub claimed_v4: Option<IpAddr>,
    pub claimed_v6: Option<IpAddr>,
    /// `compact=0`: the client would like the list form (BEP 23).
    pub list_form: bool,
    pub no_peer_id: bool,
}

/// The peers of a reply: compact endpoints one after another, all of one family.
///
/// Meant to be used again and again, so that a reply needs no memory of its own.
#[derive(Debug, Default)]
pub struct PeerList {
    pub endpoints: Vec<u8>,
    /// The peer ids in the same order, where the list form asks for them.
    pub peer_ids: Vec<PeerId>,
}

/// A successful announce, but for its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Seeders in the swarm.
    pub complete: u32,
    /// Leechers in the swarm.
    pub incomplete: u32,
    /// Snatches of the torrent.
    pub downloaded: u32,
    /// Seconds.
    pub interval: u32,
    pub min_interval: u32,
    /// The client's address as the tracker sees it (BEP 24). Its family is that of the peers.
    pub external_ip: IpAddr,
}

/// When a refused client may try again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryIn {
    Minutes(u32),
    Never,
}

/// A refused request (rule R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    pub reason: &'a str,
    /// Seconds.
    pub interval: u32,
    pub min_interval: u32,
    pub retry_in: Option<RetryIn>,
}

/// One torrent of a scrape (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeEntry {
    pub complete: u32,
    pub downloaded: u32,
    pub incomplete: u32,
    /// Leechers that are partial seeds (BEP 21).
    pub paused: u32,
}

// === impl PeerList ===

impl PeerList {
    pub fn clear(&mut self) {
        self.endpoints.clear();
        self.peer_ids.clear();
    }
}
