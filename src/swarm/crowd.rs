//! The peers of one family in a large public swarm: in order of class, and found by indexes.

use hashbrown::HashTable;

use crate::base::addr::Compact;
use crate::base::clock::Seconds;
use crate::swarm::classes::{Classes, Counts, Role};
use crate::swarm::index::{Index, SEARCH_MAX, hash_of};
use crate::swarm::member::{ClientTag, Member, client_hash};

#[derive(Debug)]
pub(super) struct Crowd<C> {
    members: Classes<Member<C>>,
    indexes: Option<Indexes>,
    /// The places below are still to be looked at by a sweep that has begun.
    unswept: usize,
    /// Peers that went because they would have slipped past it.
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

/// Who was moved past a sweep that is under way and would not be looked at by it: at most the
/// first of each class above the lowest.
#[derive(Default)]
struct Late {
    places: [usize; 5],
    len: usize,
}

// === impl Crowd ===

impl<C> Default for Crowd<C> {
    fn default() -> Self {
        Self {
            members: Classes::default(),
            indexes: None,
            unswept: 0,
            late: 0,
        }
    }
}

impl<C: Compact> Crowd<C> {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn counts(&self) -> Counts {
        self.members.counts()
    }

    pub fn members(&self) -> &[Member<C>] {
        self.members.items()
    }

    pub fn get(&self, place: usize) -> &Member<C> {
        self.members.get(place)
    }

    pub fn get_mut(&mut self, place: usize) -> &mut Member<C> {
        self.members.get_mut(place)
    }

    /// Those who may be handed to a requester of that role.
    pub fn candidates(&self, requester: Role) -> &[Member<C>] {
        &self.members.items()[self.members.candidates(requester)]
    }

    /// Peers of the host that has this endpoint.
    pub fn peers_of_host(&self, endpoint: C) -> usize {
        if let Some(indexes) = &self.indexes {
            return indexes.peers_of_host(endpoint);
        }
        let members = self.members.items().iter();
        members
            .filter(|it| it.endpoint.host() == endpoint.host())
            .count()
    }

    /// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
    pub fn find(&self, endpoint: C, client: ClientTag) -> Option<usize> {
        let items = self.members.items();
        let Some(indexes) = &self.indexes else {
            let mut items = items.iter();
            return items
                .clone()
                .position(|it| it.is_at(endpoint, client))
                .or_else(|| items.position(|it| it.is_client(endpoint, client)));
        };
        let is_at = |place: usize| items[place].is_at(endpoint, client);
        let found = indexes.by_endpoint.find(endpoint_hash(endpoint), is_at);
        found.or_else(|| {
            let hash = client_hash(endpoint, client.peer_id);
            let is_client = |place: usize| items[place].is_client(endpoint, client);
            indexes.by_client.find(hash, is_client)
        })
    }

    /// Reads what says where everything else is, so that it is near by then.
    pub fn touch(&self) -> usize {
        let indexes = self.indexes.as_ref();
        self.members.len() + indexes.map_or(0, |it| it.by_endpoint.capacity())
    }

    /// Reads where a look-up of that endpoint begins.
    pub fn touch_index(&self, endpoint: C) -> usize {
        let indexes = self.indexes.as_ref();
        indexes.map_or(0, |it| it.by_endpoint.touch(endpoint_hash(endpoint)))
    }

    /// The place of a peer at that endpoint, for reading ahead.
    pub fn glance(&self, endpoint: C) -> Option<usize> {
        let items = self.members.items();
        let is_at = |place: usize| items[place].endpoint == endpoint;
        let indexes = self.indexes.as_ref()?;
        indexes.by_endpoint.find(endpoint_hash(endpoint), is_at)
    }

    /// Adds a peer. Who was last seen before `alive_since` and would slip past a sweep goes at once.
    pub fn insert(&mut self, member: Member<C>, alive_since: Seconds) {
        let mut late = Late::default();
        let moved = follow(&mut self.indexes, self.unswept, alive_since, &mut late);
        let has_port = member.endpoint.port() != 0;
        let place = self.members.insert(member, member.role(), has_port, moved);
        match &mut self.indexes {
            Some(indexes) => indexes.insert(self.members.items(), place),
            None if self.members.len() > SEARCH_MAX => self.build_indexes(),
            None => {}
        }
        self.drop_late(&late);
    }

    /// Puts the same client at the same endpoint, in another role, in its own place.
    pub fn reclass(&mut self, place: usize, member: Member<C>, alive_since: Seconds) {
        *self.members.get_mut(place) = member;
        let mut late = Late::default();
        let moved = follow(&mut self.indexes, self.unswept, alive_since, &mut late);
        let has_port = member.endpoint.port() != 0;
        self.members.reclass(place, member.role(), has_port, moved);
        self.drop_late(&late);
    }

    fn drop_late(&mut self, late: &Late) {
        // Told from the end to the front; taking one out moves none that is before it.
        for &place in &late.places[..late.len] {
            self.take(place);
        }
        self.late += late.len;
    }

    pub fn take(&mut self, place: usize) {
        if let Some(indexes) = &mut self.indexes {
            indexes.remove(self.members.get(place), place);
        }
        let indexes = &mut self.indexes;
        self.members.remove(place, |it, from, to| {
            if let Some(indexes) = indexes {
                indexes.moved(it, from, to);
            }
        });
        let small = self.members.len() < SEARCH_MAX / 2;
        let sparse = |indexes: &Indexes| indexes.is_sparse();
        if small {
            self.indexes = None;
        } else if self.indexes.as_ref().is_some_and(sparse) {
            self.build_indexes();
        }
    }

    /// Begins a sweep of all who are here now.
    pub fn begin_sweep(&mut self) {
        self.unswept = self.members.len();
    }

    pub fn is_swept(&self) -> bool {
        self.unswept == 0
    }

    /// Goes on with the sweep for up to `budget` peers; returns how many went.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> usize {
        let before = self.members.len();
        // From the end, because what moves into a hole comes from behind it and was looked at.
        while *budget > 0 && self.unswept > 0 {
            *budget -= 1;
            self.unswept -= 1;
            let place = self.unswept;
            if place < self.members.len() && !self.members.get(place).is_alive(alive_since) {
                self.take(place);
            }
        }
        before - self.members.len() + std::mem::take(&mut self.late)
    }

    fn build_indexes(&mut self) {
        let mut indexes = Indexes::default();
        for place in 0..self.members.len() {
            indexes.insert(self.members.items(), place);
        }
        self.indexes = Some(indexes);
    }
}

/// What is to be done whenever a member is moved.
fn follow<C: Compact>(
    indexes: &mut Option<Indexes>,
    unswept: usize,
    alive_since: Seconds,
    late: &mut Late,
) -> impl FnMut(&Member<C>, usize, usize) {
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
    fn insert<C: Compact>(&mut self, items: &[Member<C>], place: usize) {
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

    fn moved<C: Compact>(&mut self, member: &Member<C>, from: usize, to: usize) {
        let Member {
            endpoint, peer_id, ..
        } = *member;
        self.by_endpoint.moved(endpoint_hash(endpoint), from, to);
        self.by_client
            .moved(client_hash(endpoint, peer_id), from, to);
    }

    fn remove<C: Compact>(&mut self, member: &Member<C>, place: usize) {
        let Member {
            endpoint, peer_id, ..
        } = *member;
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

    /// So few of its places are in use that a new one would need a quarter of the memory.
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

/// The same over 64 bits: a table takes both the lower and the upper ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
