//! The population. Everything about a peer follows from its number and the seed, so that millions of
//! them take no memory, and all runs have the same ones.

use std::path::Path;

use anyhow::Context;

/// Torrent `number * u^3` for a uniform `u`: an eighth of the torrents has half of the peers.
const SKEW: i32 = 3;

/// Ports of one address that peers say they listen on.
const PORT_FIRST: u64 = 1024;
pub const PORTS: u64 = 65_536 - PORT_FIRST;

const HASH: usize = 20;
const ANNOUNCE: usize = 98;
pub const EVENT_NONE: u32 = 0;
/// Seeders say so; leechers say that they have started.
pub const EVENT_COMPLETED: u32 = 1;
pub const EVENT_STARTED: u32 = 2;

/// What a client's totals grow by from one announce to the next.
const STEP_BYTES: u64 = 1000;

pub struct Population {
    pub peers: u64,
    pub torrents: u64,
    /// Addresses that peers come from.
    pub sources: u64,
    pub numwant: i32,
    pub seed: u64,
    /// Private: the path with the passkey of each user, as the option of BEP 41.
    users: Vec<Vec<u8>>,
}

pub struct Peer {
    pub torrent: u64,
    pub is_seeder: bool,
    number: u64,
    port: u16,
}

impl Population {
    pub fn new(peers: u64, torrents: u64, sources: u64, numwant: i32, seed: u64) -> Self {
        Self {
            peers,
            torrents,
            sources,
            numwant,
            seed,
            users: Vec::new(),
        }
    }

    /// Gives the peers to the users of a private tracker, whose passkeys are the lines of a file.
    pub fn of_users(mut self, passkeys: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(passkeys)
            .with_context(|| format!("reading {}", passkeys.display()))?;
        self.users = text.lines().map(url_data).collect();
        Ok(self)
    }

    pub fn is_public(&self) -> bool {
        self.users.is_empty()
    }

    /// Peers that come from one source: those whose number leaves the source's when divided.
    pub fn peers_of(&self, source: u64) -> u64 {
        (self.peers + self.sources - 1 - source) / self.sources
    }

    /// Peers have endpoints of their own: no two of them are one to a tracker.
    pub fn peer(&self, number: u64) -> Peer {
        let chance = mixed(self.seed ^ mixed(number));
        let uniform = (chance >> 11) as f64 / (1_u64 << 53) as f64;
        Peer {
            torrent: (self.torrents as f64 * uniform.powi(SKEW)) as u64,
            is_seeder: chance & 1 == 0,
            number,
            port: (PORT_FIRST + number / self.sources % PORTS) as u16,
        }
    }

    pub fn info_hash(&self, torrent: u64) -> [u8; HASH] {
        let mut hash = [0; HASH];
        for (at, part) in hash.chunks_mut(8).enumerate() {
            let chance = mixed(mixed(torrent) ^ self.seed ^ (at as u64 + 1)).to_be_bytes();
            part.copy_from_slice(&chance[..part.len()]);
        }
        hash
    }

    /// The length of all announces with their headers; none if they differ.
    pub fn announce_len(&self) -> Option<usize> {
        let option = self.users.first().map_or(0, Vec::len);
        let is_same = self.users.iter().all(|it| it.len() == option);
        is_same.then_some(ANNOUNCE + option)
    }

    /// Appends what follows the header of a peer's announce with that event; `lap` is how often it announced before.
    pub fn write_announce(&self, out: &mut Vec<u8>, peer: &Peer, event: u32, lap: u64) {
        let total = (lap * STEP_BYTES).to_be_bytes();
        let left: u64 = if peer.is_seeder { 0 } else { 1 << 30 };
        let event = match event {
            EVENT_COMPLETED if !peer.is_seeder => EVENT_STARTED,
            _ => event,
        };
        out.extend_from_slice(&self.info_hash(peer.torrent));
        out.extend_from_slice(b"-LT20B0-");
        out.extend_from_slice(&self.seed.to_be_bytes()[4..]);
        out.extend_from_slice(&peer.number.to_be_bytes());
        out.extend_from_slice(&total);
        out.extend_from_slice(&left.to_be_bytes());
        out.extend_from_slice(&total);
        out.extend_from_slice(&event.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(mixed(peer.number) as u32 | 1).to_be_bytes());
        out.extend_from_slice(&self.numwant.to_be_bytes());
        out.extend_from_slice(&peer.port.to_be_bytes());
        if !self.users.is_empty() {
            let user = peer.number % self.users.len() as u64;
            out.extend_from_slice(&self.users[user as usize]);
        }
    }
}

/// The option of BEP 41 that carries a path.
fn url_data(passkey: &str) -> Vec<u8> {
    let path = format!("/{passkey}/announce");
    let mut option = vec![2, path.len() as u8];
    option.extend_from_slice(path.as_bytes());
    option
}

/// A number that follows from `number` as if by chance (the finish of SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let mut mix = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix = (mix ^ mix >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mix = (mix ^ mix >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mix ^ mix >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_peer_has_an_endpoint_of_its_own_and_belongs_to_one_source() {
        let population = Population::new(100_001, 50_000, 3, 50, 1);
        let numbers = 0..population.peers;
        let endpoints: HashSet<_> = numbers
            .map(|number| (number % population.sources, population.peer(number).port))
            .collect();
        assert_eq!(endpoints.len() as u64, population.peers);
        let of_sources: u64 = (0..3).map(|source| population.peers_of(source)).sum();
        assert_eq!(of_sources, population.peers);
    }

    #[test]
    fn an_eighth_of_the_torrents_has_half_of_the_peers_and_half_of_them_seed() {
        let population = Population::new(20_000, 8000, 4, 50, 1);
        let peers: Vec<_> = (0..population.peers)
            .map(|number| population.peer(number))
            .collect();
        let near_half = |number: usize| (9500..10_500).contains(&number);
        assert!(near_half(
            peers.iter().filter(|it| it.torrent < 1000).count()
        ));
        assert!(near_half(peers.iter().filter(|it| it.is_seeder).count()));
        assert!(peers.iter().all(|it| it.torrent < 8000));
    }
}
