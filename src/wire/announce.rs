//! Announces and scrapes as values, for every transport.

use std::net::IpAddr;

use crate::base::ids::{InfoHash, PeerId};
use crate::wire::FormHash;

/// The event that a client reports (BEP 3, BEP 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    #[default]
    None,
    Started,
    Completed,
    Stopped,
    /// A partial seed: it has all that it wants, but not everything.
    Paused,
}

/// A client's `key`, reduced to 32 bits: enough to distinguish two clients behind one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey(pub u32);

/// A parsed announce. Values that are missing or malformed are `None` where the rules allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    pub info_hash: InfoHash,
    /// The info hash with each raw `+` read as a space, for clients with a form encoder (rule Q4);
    /// none without a raw `+`.
    pub info_hash_as_form: Option<FormHash>,
    pub peer_id: PeerId,
    /// 0 for a client that accepts no connections.
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
    /// The addresses that the client claims to have, one of each family.
    pub claimed_v4: Option<IpAddr>,
    pub claimed_v6: Option<IpAddr>,
    /// `compact=0`: the client prefers the list form (BEP 23).
    pub list_form: bool,
    pub no_peer_id: bool,
}

/// The peers of a reply: compact endpoints one after another, all of one family.
///
/// Meant to be reused, so that a reply allocates nothing.
#[derive(Debug, Default)]
pub struct PeerList {
    pub endpoints: Vec<u8>,
    /// The peer ids in the same order, if the list form needs them.
    pub peer_ids: Vec<PeerId>,
}

/// The reply to an announce, without its peers.
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

impl PeerList {
    pub fn clear(&mut self) {
        self.endpoints.clear();
        self.peer_ids.clear();
    }
}
