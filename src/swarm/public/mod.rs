//! The swarm of a public torrent: who is there, by endpoint (rule W1).

mod few;
mod large;
mod pool;
mod shard;
mod small;
#[cfg(test)]
mod tests;

use crate::base::addr::{Compact, Compact4, Compact6, Endpoint, Viewer};
use crate::base::clock::Seconds;
use crate::swarm::classes::{Counts, Families, Role};
use crate::swarm::member::{Before, ClientTag, Kept, Member};
use crate::swarm::select::Selector;

use self::few::{Few, InFew};
use self::large::{Family, Many};
use self::pool::Pool;

pub use self::shard::PublicShard;

/// A public torrent's peers of both families, and its snatches, which outlive the peers; where its
/// shard keeps them.
pub struct PublicSwarm<'a> {
    store: &'a mut Store,
    pool: &'a mut Pool,
}

/// What a shard's table has of a swarm: sixteen bytes, because most swarms are small and there
/// are millions of them.
#[derive(Debug)]
enum Store {
    Few(Few),
    Many(Box<Many>),
}

/// A peer that announces.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    pub endpoint: Endpoint,
    pub client: ClientTag,
    pub role: Role,
    pub seen: Seconds,
}

/// What decides who of a range is eligible (rule W8).
#[derive(Clone, Copy, Debug)]
pub struct Eligibility<'a> {
    /// Peers last seen before this have expired.
    pub alive_since: Seconds,
    /// Where the requester is: which addresses it can reach.
    pub viewer: Viewer<'a>,
}

/// There are as many peers of that host as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPeers;

/// A peer that is there, and what it was, if it was alive.
struct Known(Option<Before>);

/// A peer that comes, or comes again.
#[derive(Clone, Copy)]
struct Newcomer<C> {
    member: Member<C>,
    client: ClientTag,
    alive_since: Seconds,
}

/// Who wants to hear of others, and of whom.
struct Asker<'a, C> {
    endpoint: C,
    role: Role,
    want: usize,
    eligibility: Eligibility<'a>,
}

/// What an announce will read on its way to a peer.
pub(super) struct Way<'a> {
    store: &'a Store,
    pool: &'a Pool,
    endpoint: Endpoint,
}

/// What a sweep counts for a small swarm beside its peers: the way to it costs more than they do.
const SWEEP_COST: usize = 8;

// === impl PublicSwarm ===

impl PublicSwarm<'_> {
    pub fn counts(&self) -> Counts {
        self.store.counts(self.pool)
    }

    /// The counts of each family.
    pub fn families(&self) -> Families {
        self.store.families(self.pool)
    }

    pub fn is_empty(&self) -> bool {
        match &*self.store {
            Store::Few(few) => few.is_empty(),
            Store::Many(many) => many.is_empty(),
        }
    }

    pub fn downloaded(&self) -> u32 {
        self.store.downloaded()
    }

    pub fn set_downloaded(&mut self, downloaded: u32) {
        match self.store {
            Store::Few(few) => few.set_downloaded(self.pool, downloaded),
            Store::Many(many) => many.downloaded = downloaded,
        }
    }

    /// Remembers, if nobody is there, since when it is known; what was noted before stays until
    /// somebody comes.
    pub fn note_empty(&mut self, now: Seconds) {
        if let Store::Few(few) = self.store {
            few.note_empty(now);
        }
    }

    /// Since when it is known that nobody is there; none if somebody is, or if that was not noted:
    /// of torrents with very many snatches it is not.
    pub fn empty_since(&self) -> Option<Seconds> {
        match &*self.store {
            Store::Few(few) => few.empty_since(),
            Store::Many(_) => None,
        }
    }

    /// Counts a snatch.
    pub fn add_snatch(&mut self) {
        self.set_downloaded(self.downloaded().saturating_add(1));
    }

    /// Puts a peer in, or updates it; returns what it was before: nothing, if it was last seen
    /// before `alive_since`.
    ///
    /// # Errors
    /// It would be a new one, and its host, if the internet can reach it, has `max_per_host`
    /// peers already; 0 is no limit. Nothing was changed.
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

    /// Remembers that the peer completes nothing any more while it stays (rule W5).
    pub fn set_counted(&mut self, endpoint: Endpoint, client: ClientTag) {
        match endpoint {
            Endpoint::V4(at) => self.set_counted_at(at, client),
            Endpoint::V6(at) => self.set_counted_at(at, client),
        }
    }

    /// Takes a peer out; returns what it was.
    pub fn remove(&mut self, endpoint: Endpoint, client: ClientTag) -> Option<Before> {
        match endpoint {
            Endpoint::V4(at) => self.remove_at(at, client),
            Endpoint::V6(at) => self.remove_at(at, client),
        }
    }

    /// Takes out those who were last seen before `alive_since`, looking at not much more than
    /// `budget` peers, which it lessens by those that it looked at. Returns how many went, and
    /// whether all were looked at; if not, it goes on with the others when it is called again.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> (usize, bool) {
        let mut expired = 0;
        if let Store::Many(many) = self.store {
            let (gone, is_done) = many.sweep(alive_since, budget);
            if !many.is_few() {
                return (gone, is_done);
            }
            expired = gone;
            self.compact();
        }
        if let Store::Few(few) = self.store {
            *budget = budget.saturating_sub(few.used() + SWEEP_COST);
            let v4 = small::expire::<Compact4>(few, self.pool, alive_since);
            let v6 = small::expire::<Compact6>(few, self.pool, alive_since);
            if v4 + v6 > 0 {
                few.shrink(self.pool);
            }
            expired += v4 + v6;
        }
        (expired, true)
    }

    /// Appends up to `want` endpoints of the requester's family, its own excepted.
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
                let asker = Asker::new(own, role, want, eligibility);
                self.select_for(&asker, selector, out);
            }
            Endpoint::V6(own) => {
                let asker = Asker::new(own, role, want, eligibility);
                self.select_for(&asker, selector, out);
            }
        }
    }

    /// Shows peers as long as `show` wants more: the endpoint, the role, and the lower 16 bits of when
    /// each was last seen.
    pub fn each(&self, mut show: impl FnMut(Endpoint, Role, u16) -> bool) {
        let mut v4 = |it: Member<Compact4>| show(Endpoint::V4(it.endpoint), it.role(), it.seen);
        let wants_more = match &*self.store {
            Store::Few(few) => Compact4::all(few, self.pool)
                .iter()
                .map(Compact4::unpack)
                .all(&mut v4),
            Store::Many(many) => many.v4.members().iter().copied().all(&mut v4),
        };
        let mut v6 = |it: Member<Compact6>| show(Endpoint::V6(it.endpoint), it.role(), it.seen);
        if wants_more {
            match &*self.store {
                Store::Few(few) => {
                    let all = Compact6::all(few, self.pool).iter();
                    all.map(Compact6::unpack).all(&mut v6);
                }
                Store::Many(many) => {
                    many.v6.members().iter().copied().all(&mut v6);
                }
            }
        }
    }

    fn upsert_at<C: Family>(
        &mut self,
        endpoint: C,
        peer: &Presence,
        alive_since: Seconds,
        max_per_host: u32,
    ) -> Result<Option<Before>, TooManyPeers> {
        let newcomer = Newcomer {
            member: Member::new(endpoint, peer.client, peer.role, peer.seen),
            client: peer.client,
            alive_since,
        };
        let known = match self.store {
            Store::Few(few) => small::update(few, self.pool, newcomer),
            Store::Many(many) => large::update(C::crowd_mut(many), newcomer),
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
        self.insert(&newcomer);
        Ok(None)
    }

    fn peers_of_host<C: Family>(&self, endpoint: C) -> usize {
        match &*self.store {
            Store::Few(few) => small::peers_of_host(C::all(few, self.pool), endpoint),
            Store::Many(many) => C::crowd(many).peers_of_host(endpoint),
        }
    }

    fn insert<C: Family>(&mut self, newcomer: &Newcomer<C>) {
        if let Store::Few(few) = self.store {
            if few.push(self.pool, &newcomer.member) {
                return;
            }
            let many = Many::of(few, self.pool);
            few.clear(self.pool);
            *self.store = Store::Many(Box::new(many));
        }
        if let Store::Many(many) = self.store {
            C::crowd_mut(many).insert(newcomer.member, newcomer.alive_since);
        }
    }

    fn set_counted_at<C: Family>(&mut self, endpoint: C, client: ClientTag) {
        match self.store {
            Store::Few(few) => small::set_counted(C::all_mut(few, self.pool), endpoint, client),
            Store::Many(many) => large::set_counted(C::crowd_mut(many), endpoint, client),
        }
    }

    fn remove_at<C: Family>(&mut self, endpoint: C, client: ClientTag) -> Option<Before> {
        let before = match self.store {
            Store::Few(few) => small::remove(few, self.pool, endpoint, client)?,
            Store::Many(many) => large::remove(C::crowd_mut(many), endpoint, client)?,
        };
        self.compact();
        Some(before)
    }

    /// Keeps a large swarm that became small as one.
    fn compact(&mut self) {
        if let Store::Many(many) = self.store
            && many.is_few()
        {
            *self.store = Store::Few(many.few(self.pool));
        }
    }

    fn select_for<C: Family>(
        &self,
        asker: &Asker<'_, C>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        match &*self.store {
            Store::Few(few) => small::select(C::all(few, self.pool), asker, selector, out),
            Store::Many(many) => large::select(C::crowd(many), asker, selector, out),
        }
    }
}

// === impl Store ===

impl Default for Store {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Store {
    fn counts(&self, pool: &Pool) -> Counts {
        let Families { v4, v6 } = self.families(pool);
        v4.plus(v6)
    }

    fn families(&self, pool: &Pool) -> Families {
        match self {
            Self::Few(few) => Families {
                v4: small::counts::<Compact4>(Compact4::all(few, pool)),
                v6: small::counts::<Compact6>(Compact6::all(few, pool)),
            },
            Self::Many(many) => Families {
                v4: many.v4.counts(),
                v6: many.v6.counts(),
            },
        }
    }

    fn downloaded(&self) -> u32 {
        match self {
            Self::Few(few) => few.downloaded(),
            Self::Many(many) => many.downloaded,
        }
    }

    fn few_mut(&mut self) -> Option<&mut Few> {
        match self {
            Self::Few(few) => Some(few),
            Self::Many(_) => None,
        }
    }
}

// === impl Way ===

impl Way<'_> {
    /// The reads, each from a place further on, for [`Swarms::touch`](super::Swarms::touch).
    pub const READS: [fn(&Self) -> usize; 3] = [Self::peers, Self::index, Self::peer];

    fn peers(&self) -> usize {
        match (self.store, self.endpoint) {
            (Store::Few(few), _) => few.touch(self.pool),
            (Store::Many(many), Endpoint::V4(_)) => many.v4.touch(),
            (Store::Many(many), Endpoint::V6(_)) => many.v6.touch(),
        }
    }

    fn index(&self) -> usize {
        match (self.store, self.endpoint) {
            (Store::Few(_), _) => 0,
            (Store::Many(many), Endpoint::V4(at)) => many.v4.touch_index(at),
            (Store::Many(many), Endpoint::V6(at)) => many.v6.touch_index(at),
        }
    }

    fn peer(&self) -> usize {
        let place = match (self.store, self.endpoint) {
            (Store::Few(_), _) => None,
            (Store::Many(many), Endpoint::V4(at)) => many.v4.glance(at),
            (Store::Many(many), Endpoint::V6(at)) => many.v6.glance(at),
        };
        place.unwrap_or(0)
    }
}

// === impl Asker ===

impl<'a, C: Compact> Asker<'a, C> {
    fn new(endpoint: C, role: Role, want: usize, eligibility: Eligibility<'a>) -> Self {
        Self {
            endpoint,
            role,
            want,
            eligibility,
        }
    }

    /// Of those who fit by their roles.
    fn may_get(&self, it: &Member<C>) -> bool {
        self.is_other(it) && self.eligibility.viewer.reaches(it.endpoint).is_some()
    }

    /// The same, but for whether the requester can reach it.
    fn is_other(&self, it: &Member<C>) -> bool {
        it.is_alive(self.eligibility.alive_since) && it.endpoint != self.endpoint
    }

    /// Appends the endpoint of one who fits, as the requester reaches it.
    fn hand_out(&self, it: &Member<C>, out: &mut Vec<u8>) -> bool {
        let viewer = &self.eligibility.viewer;
        viewer.hand_out(self.endpoint, it.endpoint, out)
    }
}

/// Hands on to a peer what is kept of the one in whose place it comes, if that is alive: what it
/// was.
fn take_over<C: Compact>(old: &Member<C>, newcomer: &mut Newcomer<C>) -> Option<Before> {
    let is_alive = old.is_alive(newcomer.alive_since);
    let before = is_alive.then(|| old.before());
    // One that was a seeder completes nothing when it is one again, say after a recheck.
    if before.is_some_and(|before| before.counted || before.role == Role::Seeder) {
        newcomer.member.set_counted();
    }
    before
}
