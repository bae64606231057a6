//! The swarm of a public torrent: who is there, by endpoint (rule W1).

use crate::addr::{Compact, Compact4, Compact6, Endpoint};
use crate::clock::Seconds;
use crate::ids::PeerId;
use crate::swarm::classes::{Classes, Counts, Role};
use crate::swarm::index::{Index, SEARCH_MAX, hash_of};
use crate::swarm::select::Selector;

/// Which client is behind an endpoint, in few bytes: the peer id and the key, hashed.
///
/// It is compared only among clients of one address, so 32 bits of the id are plenty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTag {
    peer_id: u32,
    /// 0 where the client sends no key.
    key: u16,
}

/// A public torrent's peers of both families.
#[derive(Debug, Default)]
pub struct PublicSwarm {
    v4: Family<Compact4>,
    /// Apart, because most swarms have none and many have few of anything.
    v6: Option<Box<Family<Compact6>>>,
    /// Snatches; they outlive the peers.
    pub downloaded: u32,
}

/// What a peer was before its announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub role: Role,
    /// Its snatch was counted already (rule W5).
    pub counted: bool,
}

#[derive(Debug)]
struct Family<C> {
    members: Classes<Member<C>>,
    indexes: Option<Box<Indexes>>,
}

#[derive(Debug, Default)]
struct Indexes {
    by_endpoint: Index,
    by_client: Index,
}

#[derive(Clone, Copy, Debug)]
struct Member<C> {
    endpoint: C,
    /// 15 bits of the client's key; the top bit tells that its snatch was counted.
    key_and_counted: u16,
    seen: Seconds,
    peer_id: u32,
}

const COUNTED: u16 = 1 << 15;

/// What decides who of a range is eligible (rule W8).
#[derive(Clone, Copy, Debug)]
pub struct Eligibility {
    /// Peers last seen before this have expired.
    pub alive_since: Seconds,
    /// Addresses that the internet can't reach are given out: the requester has one too.
    pub allow_local: bool,
}

// === impl ClientTag ===

impl ClientTag {
    pub fn new(peer_id: &PeerId, key: Option<u32>) -> Self {
        Self {
            peer_id: hash_of(peer_id.0) as u32,
            key: key.map_or(0, |key| (hash_of(key) as u16 & !COUNTED).max(1)),
        }
    }
}

// === impl PublicSwarm ===

impl PublicSwarm {
    pub fn counts(&self) -> Counts {
        let v4 = self.v4.members.counts();
        self.v6
            .as_ref()
            .map_or(v4, |v6| v4.plus(v6.members.counts()))
    }

    pub fn is_empty(&self) -> bool {
        self.v4.members.is_empty() && self.v6.is_none()
    }

    /// Puts a peer in, or updates it; returns what it was before: nothing, if it was last seen
    /// before `alive_since`.
    pub fn upsert(
        &mut self,
        endpoint: Endpoint,
        client: ClientTag,
        role: Role,
        now: Seconds,
        alive_since: Seconds,
    ) -> Option<Before> {
        match endpoint {
            Endpoint::V4(endpoint) => self.v4.upsert(endpoint, client, role, now, alive_since),
            Endpoint::V6(endpoint) => {
                let v6 = self.v6.get_or_insert_default();
                v6.upsert(endpoint, client, role, now, alive_since)
            }
        }
    }

    /// Remembers that the peer's snatch was counted.
    pub fn set_counted(&mut self, endpoint: Endpoint, client: ClientTag) {
        match endpoint {
            Endpoint::V4(endpoint) => self.v4.set_counted(endpoint, client),
            Endpoint::V6(endpoint) => {
                if let Some(v6) = &mut self.v6 {
                    v6.set_counted(endpoint, client);
                }
            }
        }
    }

    /// Takes a peer out; returns what it was.
    pub fn remove(&mut self, endpoint: Endpoint, client: ClientTag) -> Option<Before> {
        match endpoint {
            Endpoint::V4(endpoint) => self.v4.remove(endpoint, client),
            Endpoint::V6(endpoint) => {
                let removed = self.v6.as_mut()?.remove(endpoint, client);
                self.drop_empty_v6();
                removed
            }
        }
    }

    /// Takes out all who were last seen before `alive_since`; returns how many.
    pub fn expire(&mut self, alive_since: Seconds) -> usize {
        let v6 = self.v6.as_mut().map_or(0, |v6| v6.expire(alive_since));
        self.drop_empty_v6();
        self.v4.expire(alive_since) + v6
    }

    fn drop_empty_v6(&mut self) {
        if self.v6.as_ref().is_some_and(|v6| v6.members.is_empty()) {
            self.v6 = None;
        }
    }

    /// Appends up to `want` endpoints of the requester's family, its own excepted.
    pub fn select(
        &self,
        requester: Endpoint,
        role: Role,
        want: usize,
        eligibility: Eligibility,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        match requester {
            Endpoint::V4(own) => self.v4.select(own, role, want, eligibility, selector, out),
            Endpoint::V6(own) => {
                if let Some(v6) = &self.v6 {
                    v6.select(own, role, want, eligibility, selector, out);
                }
            }
        }
    }
}

// === impl Family ===

impl<C> Default for Family<C> {
    fn default() -> Self {
        Self {
            members: Classes::default(),
            indexes: None,
        }
    }
}

impl<C: Compact> Family<C> {
    fn upsert(
        &mut self,
        endpoint: C,
        client: ClientTag,
        role: Role,
        now: Seconds,
        alive_since: Seconds,
    ) -> Option<Before> {
        let mut member = Member {
            endpoint,
            key_and_counted: client.key,
            seen: now,
            peer_id: client.peer_id,
        };
        let Some(place) = self.find(endpoint, client) else {
            self.insert(member, role);
            return None;
        };
        let old = self.members.get(place);
        let same_client = old.is_client(endpoint, client);
        let same_endpoint = old.endpoint == endpoint;
        let before = (old.seen >= alive_since).then(|| self.before(place));
        if before.is_some_and(|before| before.counted) {
            member.key_and_counted |= COUNTED;
        }
        if same_client && same_endpoint && self.members.role(place) == role {
            *self.members.get_mut(place) = member;
            return before;
        }
        self.take(place);
        // Who takes over the port of another client may leave a port of its own behind.
        if !same_client && let Some(place) = self.find(endpoint, client) {
            self.take(place);
        }
        self.insert(member, role);
        before
    }

    fn set_counted(&mut self, endpoint: C, client: ClientTag) {
        if let Some(place) = self.find(endpoint, client) {
            self.members.get_mut(place).key_and_counted |= COUNTED;
        }
    }

    fn remove(&mut self, endpoint: C, client: ClientTag) -> Option<Before> {
        let place = self.find(endpoint, client)?;
        let before = self.before(place);
        self.take(place);
        Some(before)
    }

    fn before(&self, place: usize) -> Before {
        Before {
            role: self.members.role(place),
            counted: self.members.get(place).key_and_counted & COUNTED != 0,
        }
    }

    fn expire(&mut self, alive_since: Seconds) -> usize {
        let before = self.members.len();
        // From the end, because what moves into a hole comes from behind it and was looked at.
        for place in (0..before).rev() {
            if place < self.members.len() && self.members.get(place).seen < alive_since {
                self.take(place);
            }
        }
        before - self.members.len()
    }

    fn select(
        &self,
        own: C,
        role: Role,
        want: usize,
        eligibility: Eligibility,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        let candidates = &self.members.items()[self.members.candidates(role)];
        selector.select(candidates.len(), want, |place| {
            let member = &candidates[place];
            let eligible = member.seen >= eligibility.alive_since
                && (eligibility.allow_local || member.endpoint.is_global())
                && member.endpoint != own;
            if eligible {
                out.extend_from_slice(member.endpoint.as_ref());
            }
            eligible
        });
    }

    /// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
    fn find(&self, endpoint: C, client: ClientTag) -> Option<usize> {
        let items = self.members.items();
        // Without a port the endpoint alone does not tell two clients of one address apart.
        let is_endpoint = |it: &Member<C>| {
            it.endpoint == endpoint && (endpoint.port() != 0 || it.peer_id == client.peer_id)
        };
        let Some(indexes) = &self.indexes else {
            let mut at_another_port = None;
            for (place, it) in items.iter().enumerate() {
                if is_endpoint(it) {
                    return Some(place);
                }
                if at_another_port.is_none() && it.is_client(endpoint, client) {
                    at_another_port = Some(place);
                }
            }
            return at_another_port;
        };
        let hash = hash_of(endpoint.as_ref());
        let found = indexes
            .by_endpoint
            .find(hash, |place| is_endpoint(&items[place]));
        found.or_else(|| {
            let hash = client_hash(endpoint, client.peer_id);
            let is_client = |place: usize| items[place].is_client(endpoint, client);
            indexes.by_client.find(hash, is_client)
        })
    }

    fn insert(&mut self, member: Member<C>, role: Role) {
        let indexes = &mut self.indexes;
        let place =
            self.members
                .insert(member, role, member.endpoint.port() != 0, |it, from, to| {
                    if let Some(indexes) = indexes {
                        indexes.moved(it, from, to);
                    }
                });
        match &mut self.indexes {
            Some(indexes) => indexes.insert(self.members.items(), place),
            None if self.members.len() > SEARCH_MAX => self.build_indexes(),
            None => {}
        }
    }

    fn take(&mut self, place: usize) {
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
        } else if self.indexes.as_deref().is_some_and(sparse) {
            self.build_indexes();
        }
    }

    fn build_indexes(&mut self) {
        let mut indexes = Box::<Indexes>::default();
        for place in 0..self.members.len() {
            indexes.insert(self.members.items(), place);
        }
        self.indexes = Some(indexes);
    }
}

// === impl Indexes ===

impl Indexes {
    fn insert<C: Compact>(&mut self, items: &[Member<C>], place: usize) {
        let endpoint_hash = |place: usize| hash_of(items[place].endpoint.as_ref());
        let tag_hash = |place: usize| items[place].client_hash();
        self.by_endpoint
            .insert(endpoint_hash(place), place, endpoint_hash);
        self.by_client.insert(tag_hash(place), place, tag_hash);
    }

    fn moved<C: Compact>(&mut self, member: &Member<C>, from: usize, to: usize) {
        self.by_endpoint
            .moved(hash_of(member.endpoint.as_ref()), from, to);
        self.by_client.moved(member.client_hash(), from, to);
    }

    fn remove<C: Compact>(&mut self, member: &Member<C>, place: usize) {
        self.by_endpoint
            .remove(hash_of(member.endpoint.as_ref()), place);
        self.by_client.remove(member.client_hash(), place);
    }

    /// So few of its places are in use that a new one would need a quarter of the memory.
    fn is_sparse(&self) -> bool {
        self.by_endpoint.capacity() > 8 * self.by_endpoint.len()
    }
}

// === impl Member ===

impl<C: Compact> Member<C> {
    fn is_client(&self, endpoint: C, client: ClientTag) -> bool {
        let key = self.key_and_counted & !COUNTED;
        self.peer_id == client.peer_id
            && (key == client.key || key == 0 || client.key == 0)
            && ip_of(&self.endpoint) == ip_of(&endpoint)
    }

    fn client_hash(&self) -> u64 {
        client_hash(self.endpoint, self.peer_id)
    }
}

fn client_hash<C: Compact>(endpoint: C, peer_id: u32) -> u64 {
    hash_of((ip_of(&endpoint), peer_id))
}

fn ip_of<C: Compact>(endpoint: &C) -> &[u8] {
    &endpoint.as_ref()[..C::LEN - 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, port: u16) -> Endpoint {
        Endpoint::new(ip.parse().unwrap(), port)
    }

    fn client(name: u8, key: Option<u32>) -> ClientTag {
        ClientTag::new(&PeerId([name; 20]), key)
    }

    fn put(
        swarm: &mut PublicSwarm,
        ip: &str,
        port: u16,
        tag: ClientTag,
        role: Role,
    ) -> Option<Role> {
        let now = Seconds::START;
        let before = swarm.upsert(endpoint(ip, port), tag, role, now, now);
        before.map(|before| before.role)
    }

    #[test]
    fn a_client_that_changes_its_port_is_replaced() {
        let mut swarm = PublicSwarm::default();
        put(
            &mut swarm,
            "1.2.3.4",
            1000,
            client(1, Some(7)),
            Role::Leecher,
        );
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.4",
                2000,
                client(1, Some(7)),
                Role::Seeder
            ),
            Some(Role::Leecher)
        );
        assert_eq!(swarm.counts().seeders, 1);
        assert_eq!(swarm.counts().leechers, 0);
        // Another key is another client; no key is the same one.
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.4",
                3000,
                client(1, Some(8)),
                Role::Seeder
            ),
            None
        );
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 4000, client(1, None), Role::Seeder),
            Some(Role::Seeder)
        );
        // The peer id alone is no identity: another address can't touch the peer.
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.5",
                2000,
                client(1, Some(7)),
                Role::Seeder
            ),
            None
        );
    }

    #[test]
    fn clients_without_a_port_are_told_apart_by_their_ids() {
        let mut swarm = PublicSwarm::default();
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 0, client(1, None), Role::Leecher),
            None
        );
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 0, client(2, None), Role::Leecher),
            None
        );
        assert_eq!(swarm.counts().leechers, 2);
        assert!(
            swarm
                .remove(endpoint("1.2.3.4", 0), client(1, None))
                .is_some()
        );
        assert_eq!(swarm.counts().leechers, 1);
    }

    #[test]
    fn a_stop_without_its_port_finds_the_client() {
        let mut swarm = PublicSwarm::default();
        put(&mut swarm, "2a00::1", 1000, client(1, None), Role::Seeder);
        assert!(
            swarm
                .remove(endpoint("2a00::1", 0), client(1, None))
                .is_some()
        );
        assert!(swarm.is_empty());
    }

    #[test]
    fn swarms_of_every_size_find_their_peers() {
        let mut swarm = PublicSwarm::default();
        let mut rng = fastrand::Rng::with_seed(5);
        let mut present = std::collections::HashMap::new();
        for _ in 0..20_000 {
            let number = rng.u8(..200);
            let ip = format!("9.9.9.{number}");
            let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
            if rng.u8(..100) < 45 {
                let removed = swarm.remove(endpoint(&ip, 0), client(number, None));
                assert_eq!(removed.map(|it| it.role), present.remove(&number));
            } else {
                let before = put(&mut swarm, &ip, rng.u16(1..), client(number, None), role);
                assert_eq!(before, present.insert(number, role));
            }
            let seeders = present
                .values()
                .filter(|&&role| role == Role::Seeder)
                .count();
            assert_eq!(swarm.counts().seeders as usize, seeders);
            assert_eq!(swarm.counts().leechers as usize, present.len() - seeders);
        }
    }

    #[test]
    fn expired_peers_go_and_only_they() {
        let mut swarm = PublicSwarm::default();
        for number in 0..100 {
            let seen = Seconds::START.plus(u32::from(number));
            let role = if number % 3 == 0 {
                Role::Seeder
            } else {
                Role::Leecher
            };
            swarm.upsert(
                endpoint(&format!("9.9.9.{number}"), 1),
                client(number, None),
                role,
                seen,
                Seconds::START,
            );
        }
        assert_eq!(swarm.expire(Seconds::START.plus(60)), 60);
        let left = swarm.v4.members.items().iter().map(|it| it.endpoint.ip());
        assert_eq!(left.map(|ip| ip.octets()[3]).min(), Some(60));
        let counts = swarm.counts();
        assert_eq!(counts.seeders + counts.leechers, 40);
        assert_eq!(swarm.expire(Seconds::START.plus(1000)), 40);
        assert!(swarm.is_empty());
    }
}
