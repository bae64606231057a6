//! The swarm of a public torrent: its peers, by endpoint (rule W1).

mod endpoint;
mod large;
mod peer;
mod peer_set;
mod pool;
mod shard;
mod small;
#[cfg(test)]
mod tests;

use crate::base::addr::{Compact, Compact4, Compact6, Endpoint, Viewer};
use crate::base::clock::Seconds;
use crate::swarm::classes::{FamilyCounts, PeerCounts, Role};
use crate::swarm::draw::Selector;

use self::endpoint::PackedEndpoint;
use self::large::LargePublic;
use self::peer::PublicPeer;
use self::pool::Pool;
use self::small::SmallPublic;

pub use self::peer::{Before, ClientTag, LIFE_MAX};
pub use self::shard::PublicShard;

/// A public torrent's peers of both families, and its snatches, which outlive the peers: a reference
/// into its shard.
pub struct PublicSwarm<'a> {
    store: &'a mut PublicStore,
    pool: &'a mut Pool,
}

/// A swarm in its shard's table: sixteen bytes, because most swarms are small and there
/// are millions of them.
#[derive(Debug)]
enum PublicStore {
    Small(SmallPublic),
    Large(Box<LargePublic>),
}

/// A peer that announces.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    pub endpoint: Endpoint,
    pub client: ClientTag,
    pub role: Role,
    pub seen: Seconds,
}

/// What decides which candidates are eligible (rule W8).
#[derive(Clone, Copy, Debug)]
pub struct Eligibility<'a> {
    /// Peers last seen before this have expired.
    pub alive_since: Seconds,
    /// The addresses that the requester can reach.
    pub viewer: Viewer<'a>,
}

/// The host already has the maximum number of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPeers;

/// The peer was known; what it was before, if it was alive.
struct Known(Option<Before>);

/// A peer to insert or to update.
#[derive(Clone, Copy)]
struct NewPeer<C> {
    member: PublicPeer<C>,
    client: ClientTag,
    alive_since: Seconds,
}

/// A requester, and what it wants.
struct PeerRequest<'a, C> {
    endpoint: C,
    role: Role,
    want: usize,
    eligibility: Eligibility<'a>,
}

/// The memory that an announce will read on the way to a peer.
pub(super) struct PrefetchPath<'a> {
    store: &'a PublicStore,
    pool: &'a Pool,
    endpoint: Endpoint,
}

/// What a small swarm costs a sweep in addition to its peers: finding it in memory costs more than they do.
const SWEEP_COST: usize = 8;

// === impl PublicSwarm ===

impl PublicSwarm<'_> {
    pub fn counts(&self) -> PeerCounts {
        self.store.counts(self.pool)
    }

    /// The counts of each family.
    pub fn families(&self) -> FamilyCounts {
        self.store.families(self.pool)
    }

    pub fn is_empty(&self) -> bool {
        match &*self.store {
            PublicStore::Small(small) => small.is_empty(),
            PublicStore::Large(large) => large.is_empty(),
        }
    }

    pub fn snatches(&self) -> u32 {
        self.store.snatches()
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        match self.store {
            PublicStore::Small(small) => small.set_snatches(self.pool, snatches),
            PublicStore::Large(large) => large.snatches = snatches,
        }
    }

    /// Notes that the swarm is empty, if it is. An earlier note stays until a peer comes.
    pub fn note_empty(&mut self, now: Seconds) {
        if let PublicStore::Small(small) = self.store {
            small.note_empty(now);
        }
    }

    /// Since when the swarm is known to be empty; none if it is not, or if that was not noted, as for
    /// torrents with very many snatches.
    pub fn empty_since(&self) -> Option<Seconds> {
        match &*self.store {
            PublicStore::Small(small) => small.empty_since(),
            PublicStore::Large(_) => None,
        }
    }

    /// Counts more snatches.
    pub fn add_snatches(&mut self, count: u32) {
        self.set_snatches(self.snatches().saturating_add(count));
    }

    /// Inserts a peer, or updates a known one (rule W4); returns what it was before: nothing, if it was last
    /// seen before `alive_since`.
    ///
    /// # Errors
    /// The peer is new, and its host, if the internet can reach it, already has `max_per_host`
    /// peers; 0 is no limit. Nothing was changed.
    pub fn upsert(
        &mut self,
        peer: &Presence,
        alive_since: Seconds,
        max_per_host: u32,
    ) -> Result<Option<Before>, TooManyPeers> {
        match peer.endpoint {
            Endpoint::V4(at) => self.upsert_at(at, peer, alive_since, max_per_host),
            Endpoint::V6(at) => self.upsert_at(at, peer, alive_since, max_per_host),
        }
    }

    /// Marks the peer: while it stays, its `completed` no longer counts (rule W5).
    pub fn set_counted(&mut self, endpoint: Endpoint, client: ClientTag) {
        match endpoint {
            Endpoint::V4(at) => self.set_counted_at(at, client),
            Endpoint::V6(at) => self.set_counted_at(at, client),
        }
    }

    /// Removes a peer; returns what it was.
    pub fn remove(&mut self, endpoint: Endpoint, client: ClientTag) -> Option<Before> {
        match endpoint {
            Endpoint::V4(at) => self.remove_at(at, client),
            Endpoint::V6(at) => self.remove_at(at, client),
        }
    }

    /// Removes peers that were last seen before `alive_since`. Looks at about `budget` peers, and
    /// subtracts them from it. Returns how many were removed, and whether all were looked at; if not, the
    /// next call continues.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> (usize, bool) {
        let mut expired = 0;
        if let PublicStore::Large(large) = self.store {
            let (gone, is_done) = large.sweep(alive_since, budget);
            if !large.is_small() {
                return (gone, is_done);
            }
            expired = gone;
            self.compact();
        }
        if let PublicStore::Small(small) = self.store {
            *budget = budget.saturating_sub(small.used() + SWEEP_COST);
            let v4 = small::expire::<Compact4>(small, self.pool, alive_since);
            let v6 = small::expire::<Compact6>(small, self.pool, alive_since);
            if v4 + v6 > 0 {
                small.shrink(self.pool);
            }
            expired += v4 + v6;
        }
        (expired, true)
    }

    /// Appends up to `want` endpoints of the requester's family, except its own (rule W8).
    pub fn select(
        &self,
        requester: Endpoint,
        role: Role,
        want: usize,
        eligibility: Eligibility<'_>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        match requester {
            Endpoint::V4(own) => {
                let request = PeerRequest::new(own, role, want, eligibility);
                self.select_for(&request, selector, out);
            }
            Endpoint::V6(own) => {
                let request = PeerRequest::new(own, role, want, eligibility);
                self.select_for(&request, selector, out);
            }
        }
    }

    /// Passes peers to `visit` while it returns true, and whether the snatch of each was counted (rule W5).
    pub fn each(&self, now: Seconds, mut visit: impl FnMut(Presence, bool) -> bool) {
        let mut v4 = |peer: PublicPeer<Compact4>| {
            visit(
                peer.presence(Endpoint::V4(peer.endpoint), now),
                peer.before().counted,
            )
        };
        let wants_more = match &*self.store {
            PublicStore::Small(small) => Compact4::in_small(small, self.pool)
                .iter()
                .map(Compact4::unpack)
                .all(&mut v4),
            PublicStore::Large(large) => large.v4.peers().iter().copied().all(&mut v4),
        };
        let mut v6 = |peer: PublicPeer<Compact6>| {
            visit(
                peer.presence(Endpoint::V6(peer.endpoint), now),
                peer.before().counted,
            )
        };
        if wants_more {
            match &*self.store {
                PublicStore::Small(small) => {
                    let all = Compact6::in_small(small, self.pool).iter();
                    all.map(Compact6::unpack).all(&mut v6);
                }
                PublicStore::Large(large) => {
                    large.v6.peers().iter().copied().all(&mut v6);
                }
            }
        }
    }

    fn upsert_at<C: PackedEndpoint>(
        &mut self,
        endpoint: C,
        peer: &Presence,
        alive_since: Seconds,
        max_per_host: u32,
    ) -> Result<Option<Before>, TooManyPeers> {
        let new = NewPeer {
            member: PublicPeer::new(endpoint, peer.client, peer.role, peer.seen),
            client: peer.client,
            alive_since,
        };
        let known = match self.store {
            PublicStore::Small(small) => small::update(small, self.pool, new),
            PublicStore::Large(large) => large::update(C::in_large_mut(large), new),
        };
        if let Some(Known(before)) = known {
            self.compact();
            return Ok(before);
        }
        if max_per_host > 0
            && endpoint.is_global()
            && self.peers_of_host(endpoint) >= max_per_host as usize
        {
            return Err(TooManyPeers);
        }
        self.insert(&new);
        Ok(None)
    }

    fn peers_of_host<C: PackedEndpoint>(&self, endpoint: C) -> usize {
        match &*self.store {
            PublicStore::Small(small) => {
                small::peers_of_host(C::in_small(small, self.pool), endpoint)
            }
            PublicStore::Large(large) => C::in_large(large).peers_of_host(endpoint),
        }
    }

    fn insert<C: PackedEndpoint>(&mut self, new: &NewPeer<C>) {
        if let PublicStore::Small(small) = self.store {
            if small.push(self.pool, &new.member) {
                return;
            }
            let large = LargePublic::of(small, self.pool);
            small.clear(self.pool);
            *self.store = PublicStore::Large(Box::new(large));
        }
        if let PublicStore::Large(large) = self.store {
            C::in_large_mut(large).insert(new.member, new.alive_since);
        }
    }

    fn set_counted_at<C: PackedEndpoint>(&mut self, endpoint: C, client: ClientTag) {
        match self.store {
            PublicStore::Small(small) => {
                small::set_counted(C::in_small_mut(small, self.pool), endpoint, client);
            }
            PublicStore::Large(large) => {
                large::set_counted(C::in_large_mut(large), endpoint, client);
            }
        }
    }

    fn remove_at<C: PackedEndpoint>(&mut self, endpoint: C, client: ClientTag) -> Option<Before> {
        let before = match self.store {
            PublicStore::Small(small) => small::remove(small, self.pool, endpoint, client)?,
            PublicStore::Large(large) => large::remove(C::in_large_mut(large), endpoint, client)?,
        };
        self.compact();
        Some(before)
    }

    /// Turns a large swarm that has shrunk into a small one.
    fn compact(&mut self) {
        if let PublicStore::Large(large) = self.store
            && large.is_small()
        {
            *self.store = PublicStore::Small(large.to_small(self.pool));
        }
    }

    fn select_for<C: PackedEndpoint>(
        &self,
        request: &PeerRequest<'_, C>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        match &*self.store {
            PublicStore::Small(small) => {
                small::select(C::in_small(small, self.pool), request, selector, out);
            }
            PublicStore::Large(large) => large::select(C::in_large(large), request, selector, out),
        }
    }
}

// === impl PublicStore ===

impl Default for PublicStore {
    fn default() -> Self {
        Self::Small(SmallPublic::default())
    }
}

impl PublicStore {
    fn counts(&self, pool: &Pool) -> PeerCounts {
        let FamilyCounts { v4, v6 } = self.families(pool);
        v4.plus(v6)
    }

    fn families(&self, pool: &Pool) -> FamilyCounts {
        match self {
            Self::Small(small) => FamilyCounts {
                v4: small::counts::<Compact4>(Compact4::in_small(small, pool)),
                v6: small::counts::<Compact6>(Compact6::in_small(small, pool)),
            },
            Self::Large(large) => FamilyCounts {
                v4: large.v4.counts(),
                v6: large.v6.counts(),
            },
        }
    }

    fn snatches(&self) -> u32 {
        match self {
            Self::Small(small) => small.snatches(),
            Self::Large(large) => large.snatches,
        }
    }

    fn small_mut(&mut self) -> Option<&mut SmallPublic> {
        match self {
            Self::Small(small) => Some(small),
            Self::Large(_) => None,
        }
    }
}

// === impl PrefetchPath ===

impl PrefetchPath<'_> {
    /// The reads in order; each depends on the one before it. See [`Swarms::prefetch`](super::Swarms::prefetch).
    pub const PREFETCH_READS: [fn(&Self) -> usize; 3] = [Self::peers, Self::index, Self::peer];

    fn peers(&self) -> usize {
        match (self.store, self.endpoint) {
            (PublicStore::Small(small), _) => small.prefetch(self.pool),
            (PublicStore::Large(large), Endpoint::V4(_)) => large.v4.prefetch(),
            (PublicStore::Large(large), Endpoint::V6(_)) => large.v6.prefetch(),
        }
    }

    fn index(&self) -> usize {
        match (self.store, self.endpoint) {
            (PublicStore::Small(_), _) => 0,
            (PublicStore::Large(large), Endpoint::V4(at)) => large.v4.prefetch_index(at),
            (PublicStore::Large(large), Endpoint::V6(at)) => large.v6.prefetch_index(at),
        }
    }

    fn peer(&self) -> usize {
        let place = match (self.store, self.endpoint) {
            (PublicStore::Small(_), _) => None,
            (PublicStore::Large(large), Endpoint::V4(at)) => large.v4.prefetch_peer(at),
            (PublicStore::Large(large), Endpoint::V6(at)) => large.v6.prefetch_peer(at),
        };
        place.unwrap_or(0)
    }
}

// === impl PeerRequest ===

impl<'a, C: Compact> PeerRequest<'a, C> {
    fn new(endpoint: C, role: Role, want: usize, eligibility: Eligibility<'a>) -> Self {
        Self {
            endpoint,
            role,
            want,
            eligibility,
        }
    }

    /// Whether a candidate is eligible. Its role was checked already.
    fn may_get(&self, peer: &PublicPeer<C>) -> bool {
        self.is_other(peer) && self.eligibility.viewer.reaches(peer.endpoint).is_some()
    }

    /// Whether a candidate is alive and not the requester itself.
    fn is_other(&self, peer: &PublicPeer<C>) -> bool {
        peer.is_alive(self.eligibility.alive_since) && peer.endpoint != self.endpoint
    }

    /// Appends the endpoint of a candidate, as the requester reaches it; false if it can't.
    fn hand_out(&self, peer: &PublicPeer<C>, out: &mut Vec<u8>) -> bool {
        let viewer = &self.eligibility.viewer;
        viewer.hand_out(self.endpoint, peer.endpoint, out)
    }
}

/// Copies to a peer what it inherits from the one that it replaces, if that is alive; returns what that
/// was.
fn inherit<C: Compact>(old: &PublicPeer<C>, new: &mut NewPeer<C>) -> Option<Before> {
    let is_alive = old.is_alive(new.alive_since);
    let before = is_alive.then(|| old.before());
    // A `completed` of a former seeder does not count, for example after a recheck.
    if before.is_some_and(|before| before.counted || before.role == Role::Seeder) {
        new.member.set_counted();
    }
    before
}
