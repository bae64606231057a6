//! The peers of one family in a large public swarm: in order of class, and found through indexes.

use hashbrown::HashTable;

use crate::base::addr::Compact;
use crate::base::clock::Seconds;
use crate::swarm::classes::{Classes, PeerCounts, Role};
use crate::swarm::index::{Index, SEARCH_MAX, hash_of};
use crate::swarm::public::peer::{ClientTag, PublicPeer, client_hash};

#[derive(Debug)]
pub(super) struct PeerSet<C> {
    peers: Classes<PublicPeer<C>>,
    indexes: Option<Indexes>,
    /// Places below this are still to be swept, by a sweep that has begun.
    unswept: usize,
    /// Peers that were removed because they would have slipped past the sweep.
    late: usize,
}

#[derive(Debug, Default)]
struct Indexes {
    by_endpoint: Index,
    by_client: Index,
    /// Peers of each host, by its hash.
    hosts: HashTable<Host>,
}

#[derive(Debug)]
struct Host {
    hash: u32,
    peers: u32,
}

/// Expired peers that were moved behind a sweep in progress, which would miss them: at most the
/// first of each class above the lowest.
#[derive(Default)]
struct Late {
    places: [usize; 5],
    len: usize,
}

// === impl PeerSet ===

impl<C> Default for PeerSet<C> {
    fn default() -> Self {
        Self {
            peers: Classes::default(),
            indexes: None,
            unswept: 0,
            late: 0,
        }
    }
}

impl<C: Compact> PeerSet<C> {
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn counts(&self) -> PeerCounts {
        self.peers.counts()
    }

    pub fn peers(&self) -> &[PublicPeer<C>] {
        self.peers.items()
    }

    pub fn get(&self, place: usize) -> &PublicPeer<C> {
        self.peers.get(place)
    }

    pub fn get_mut(&mut self, place: usize) -> &mut PublicPeer<C> {
        self.peers.get_mut(place)
    }

    /// The peers that may be handed to a requester of that role.
    pub fn candidates(&self, requester: Role) -> &[PublicPeer<C>] {
        &self.peers.items()[self.peers.candidates(requester)]
    }

    /// Peers of the host that has this endpoint.
    pub fn peers_of_host(&self, endpoint: C) -> usize {
        if let Some(indexes) = &self.indexes {
            return indexes.peers_of_host(endpoint);
        }
        let peers = self.peers.items().iter();
        peers
            .filter(|peer| peer.endpoint.host() == endpoint.host())
            .count()
    }

    /// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
    pub fn find(&self, endpoint: C, client: ClientTag) -> Option<usize> {
        let items = self.peers.items();
        let Some(indexes) = &self.indexes else {
            let mut items = items.iter();
            return items
                .clone()
                .position(|peer| peer.is_at(endpoint, client))
                .or_else(|| items.position(|peer| peer.is_client(endpoint, client)));
        };
        let is_at = |place: usize| items[place].is_at(endpoint, client);
        let found = indexes.by_endpoint.find(endpoint_hash(endpoint), is_at);
        found.or_else(|| {
            let hash = client_hash(endpoint, client.peer_id);
            let is_client = |place: usize| items[place].is_client(endpoint, client);
            indexes.by_client.find(hash, is_client)
        })
    }

    /// Prefetches the fields that say where peers and indexes are.
    pub fn prefetch(&self) -> usize {
        let indexes = self.indexes.as_ref();
        self.peers.len() + indexes.map_or(0, |indexes| indexes.by_endpoint.capacity())
    }

    /// Prefetches where a look-up of that endpoint begins.
    pub fn prefetch_index(&self, endpoint: C) -> usize {
        let indexes = self.indexes.as_ref();
        indexes.map_or(0, |indexes| {
            indexes.by_endpoint.prefetch(endpoint_hash(endpoint))
        })
    }

    /// Prefetches a peer at that endpoint; returns its place.
    pub fn prefetch_peer(&self, endpoint: C) -> Option<usize> {
        let items = self.peers.items();
        let is_at = |place: usize| items[place].endpoint == endpoint;
        let indexes = self.indexes.as_ref()?;
        indexes.by_endpoint.find(endpoint_hash(endpoint), is_at)
    }

    /// Adds a peer. Peers that were last seen before `alive_since` and would slip past a sweep are removed.
    pub fn insert(&mut self, member: PublicPeer<C>, alive_since: Seconds) {
        let mut late = Late::default();
        let moved = on_move(&mut self.indexes, self.unswept, alive_since, &mut late);
        let has_port = member.endpoint.port() != 0;
        let place = self.peers.insert(member, member.role(), has_port, moved);
        match &mut self.indexes {
            Some(indexes) => indexes.insert(self.peers.items(), place),
            None if self.peers.len() > SEARCH_MAX => self.build_indexes(),
            None => {}
        }
        self.drop_late(&late);
    }

    /// Replaces a peer with the same client at the same endpoint, in another role.
    pub fn reclass(&mut self, place: usize, member: PublicPeer<C>, alive_since: Seconds) {
        *self.peers.get_mut(place) = member;
        let mut late = Late::default();
        let moved = on_move(&mut self.indexes, self.unswept, alive_since, &mut late);
        let has_port = member.endpoint.port() != 0;
        self.peers.reclass(place, member.role(), has_port, moved);
        self.drop_late(&late);
    }

    fn drop_late(&mut self, late: &Late) {
        // Ordered from the end to the front; removing one moves none before it.
        for &place in &late.places[..late.len] {
            self.remove(place);
        }
        self.late += late.len;
    }

    pub fn remove(&mut self, place: usize) {
        if let Some(indexes) = &mut self.indexes {
            indexes.remove(self.peers.get(place), place);
        }
        let indexes = &mut self.indexes;
        self.peers.remove(place, |it, from, to| {
            if let Some(indexes) = indexes {
                indexes.moved(it, from, to);
            }
        });
        let small = self.peers.len() < SEARCH_MAX / 2;
        let sparse = |indexes: &Indexes| indexes.is_sparse();
        if small {
            self.indexes = None;
        } else if self.indexes.as_ref().is_some_and(sparse) {
            self.build_indexes();
        }
    }

    /// Begins a sweep of all current peers.
    pub fn begin_sweep(&mut self) {
        self.unswept = self.peers.len();
    }

    pub fn is_swept(&self) -> bool {
        self.unswept == 0
    }

    /// Continues the sweep for up to `budget` peers; returns how many were removed.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> usize {
        let before = self.peers.len();
        // From the end: a peer that moves into a hole comes from behind it, where all were swept.
        while *budget > 0 && self.unswept > 0 {
            *budget -= 1;
            self.unswept -= 1;
            let place = self.unswept;
            if place < self.peers.len() && !self.peers.get(place).is_alive(alive_since) {
                self.remove(place);
            }
        }
        before - self.peers.len() + std::mem::take(&mut self.late)
    }

    fn build_indexes(&mut self) {
        let mut indexes = Indexes::default();
        for place in 0..self.peers.len() {
            indexes.insert(self.peers.items(), place);
        }
        self.indexes = Some(indexes);
    }
}

/// What to do whenever a peer is moved.
fn on_move<C: Compact>(
    indexes: &mut Option<Indexes>,
    unswept: usize,
    alive_since: Seconds,
    late: &mut Late,
) -> impl FnMut(&PublicPeer<C>, usize, usize) {
    move |it, from, to| {
        if let Some(indexes) = indexes {
            indexes.moved(it, from, to);
        }
        if from < unswept && to >= unswept && !it.is_alive(alive_since) {
            late.places[late.len] = to;
            late.len += 1;
        }
    }
}

// === impl Indexes ===

impl Indexes {
    fn insert<C: Compact>(&mut self, items: &[PublicPeer<C>], place: usize) {
        let at_hash = |place: usize| endpoint_hash(items[place].endpoint);
        let tag_hash = |place: usize| client_hash(items[place].endpoint, items[place].peer_id);
        self.by_endpoint.insert(at_hash(place), place, at_hash);
        self.by_client.insert(tag_hash(place), place, tag_hash);
        let hash = host_hash(items[place].endpoint);
        let same = |host: &Host| host.hash == hash;
        let host = self
            .hosts
            .entry(spread(hash), same, |host| spread(host.hash))
            .or_insert(Host { hash, peers: 0 })
            .into_mut();
        host.peers += 1;
    }

    fn moved<C: Compact>(&mut self, member: &PublicPeer<C>, from: usize, to: usize) {
        let (endpoint, peer_id) = (member.endpoint, member.peer_id);
        self.by_endpoint.moved(endpoint_hash(endpoint), from, to);
        self.by_client
            .moved(client_hash(endpoint, peer_id), from, to);
    }

    fn remove<C: Compact>(&mut self, member: &PublicPeer<C>, place: usize) {
        let (endpoint, peer_id) = (member.endpoint, member.peer_id);
        self.by_endpoint.remove(endpoint_hash(endpoint), place);
        self.by_client.remove(client_hash(endpoint, peer_id), place);
        let hash = host_hash(endpoint);
        let same = |host: &Host| host.hash == hash;
        if let Ok(mut host) = self.hosts.find_entry(spread(hash), same) {
            host.get_mut().peers -= 1;
            if host.get().peers == 0 {
                host.remove();
            }
        }
    }

    fn peers_of_host<C: Compact>(&self, endpoint: C) -> usize {
        let hash = host_hash(endpoint);
        let found = self.hosts.find(spread(hash), |host| host.hash == hash);
        found.map_or(0, |host| host.peers as usize)
    }

    /// Whether a rebuilt index would need a quarter of the memory.
    fn is_sparse(&self) -> bool {
        self.by_endpoint.capacity() > 8 * self.by_endpoint.len()
    }
}

fn endpoint_hash<C: Compact>(endpoint: C) -> u64 {
    hash_of(endpoint.as_ref())
}

fn host_hash<C: Compact>(endpoint: C) -> u32 {
    hash_of(endpoint.host()) as u32
}

/// Spreads a hash over 64 bits: `HashTable` uses both the lower and the upper ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
