//! The swarm of a private torrent: peers by user and peer id, their accounts, and what each
//! user has done with the torrent (rules W1, W2, A1).

use crate::addr::{Compact, Compact4, Compact6, Endpoint};
use crate::clock::Seconds;
use crate::ids::{PeerId, UserId};
use crate::swarm::classes::{Classes, Counts, Role};
use crate::swarm::index::{Index, SEARCH_MAX, hash_of};
use crate::swarm::public::Eligibility;
use crate::swarm::records::{Account, History, Owed};
use crate::swarm::select::Selector;

/// One client of one user. With a role it is in the swarm; without one it is a tombstone,
/// kept for its account.
#[derive(Debug)]
pub struct Peer {
    pub user: UserId,
    pub peer_id: PeerId,
    pub account: Account,
    pub owed: Option<Box<Owed>>,
    role: Option<Role>,
    /// Places of its endpoints among the members of each family.
    v4: Option<u32>,
    v6: Option<u32>,
}

/// The peers and histories of a private torrent.
#[derive(Debug, Default)]
pub struct PrivateSwarm {
    peers: Vec<Peer>,
    by_identity: Option<Box<Index>>,
    v4: Classes<Member<Compact4>>,
    v6: Classes<Member<Compact6>>,
    counts: Counts,
    /// Sorted by user.
    histories: Vec<History>,
    /// Snatches; they outlive the peers.
    pub downloaded: u32,
}

/// Whom a requester may get.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub user: UserId,
    pub endpoint: Endpoint,
    pub role: Role,
    pub want: usize,
    pub eligibility: Eligibility,
    /// The user's own other clients are left out.
    pub hide_own: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member<C> {
    endpoint: C,
    user: UserId,
    /// The place of its peer.
    peer: u32,
    seen: Seconds,
}

// === impl Peer ===

impl Peer {
    /// None for a tombstone.
    pub fn role(&self) -> Option<Role> {
        self.role
    }
}

// === impl PrivateSwarm ===

impl PrivateSwarm {
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Nothing in it is worth its memory.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.histories.is_empty() && self.downloaded == 0
    }

    /// Whether any of its peers announced at that moment or after it.
    pub fn is_any_since(&self, moment: Seconds) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|peer| peer.account.last_announce >= moment)
    }

    /// Peers and tombstones: their places are `0..len`.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn peer(&self, place: usize) -> &Peer {
        &self.peers[place]
    }

    pub fn peer_mut(&mut self, place: usize) -> &mut Peer {
        &mut self.peers[place]
    }

    pub fn find(&self, user: UserId, peer_id: &PeerId) -> Option<usize> {
        let is_it = |place: usize| {
            let peer = &self.peers[place];
            peer.user == user && peer.peer_id == *peer_id
        };
        match &self.by_identity {
            None => (0..self.peers.len()).find(|&place| is_it(place)),
            Some(index) => index.find(hash_of((user, peer_id.0)), is_it),
        }
    }

    /// Adds a record that is not in the swarm yet; returns its place.
    pub fn add(&mut self, user: UserId, peer_id: PeerId, account: Account) -> usize {
        let records = &mut self.history_mut(user).records;
        *records = records.saturating_add(1);
        let place = self.peers.len();
        self.peers.push(Peer {
            user,
            peer_id,
            account,
            owed: None,
            role: None,
            v4: None,
            v6: None,
        });
        match &mut self.by_identity {
            Some(index) => {
                let peers = &self.peers;
                let hash_at = |place: usize| identity_hash(&peers[place]);
                index.insert(hash_at(place), place, hash_at);
            }
            None if self.peers.len() > SEARCH_MAX => self.build_index(),
            None => {}
        }
        place
    }

    /// Puts a peer into the swarm at that endpoint, or updates it there (rule W2). Its other family stays.
    pub fn enter(&mut self, place: usize, endpoint: Endpoint, role: Role, now: Seconds) {
        let before = self.peers[place].role.replace(role);
        if before != Some(role) {
            self.count(before, Some(role), self.peers[place].user);
            // The endpoint of the other family changes its class with the peer.
            self.reclass(place, role);
        }
        let peer = &self.peers[place];
        let (user, index) = (peer.user, place as u32);
        match endpoint {
            Endpoint::V4(endpoint) => {
                let member = Member {
                    endpoint,
                    user,
                    peer: index,
                    seen: now,
                };
                put(&mut self.v4, &mut self.peers, place, member, role);
            }
            Endpoint::V6(endpoint) => {
                let member = Member {
                    endpoint,
                    user,
                    peer: index,
                    seen: now,
                };
                put(&mut self.v6, &mut self.peers, place, member, role);
            }
        }
    }

    /// Takes the endpoint of that family away; the peer goes with its last one (rule W3).
    /// Returns whether the peer was in the swarm and left it.
    pub fn leave(&mut self, place: usize, family: Family) -> bool {
        match family {
            Family::V4 => drop_member(&mut self.v4, &mut self.peers, place),
            Family::V6 => drop_member(&mut self.v6, &mut self.peers, place),
        }
        let peer = &mut self.peers[place];
        if peer.v4.is_some() || peer.v6.is_some() || peer.role.is_none() {
            return false;
        }
        let before = peer.role.take();
        self.count(before, None, self.peers[place].user);
        true
    }

    /// Takes away the endpoints that were last seen before `alive_since`; returns whether the peer left with them.
    pub fn expire(&mut self, place: usize, alive_since: Seconds) -> bool {
        let peer = &self.peers[place];
        let v4 = peer
            .v4
            .is_some_and(|at| self.v4.get(at as usize).seen < alive_since);
        let v6 = peer
            .v6
            .is_some_and(|at| self.v6.get(at as usize).seen < alive_since);
        let mut left = v4 && self.leave(place, Family::V4);
        left |= v6 && self.leave(place, Family::V6);
        left
    }

    /// Whether [`PrivateSwarm::expire`] would make the peer leave.
    pub fn is_expired(&self, place: usize, alive_since: Seconds) -> bool {
        let peer = &self.peers[place];
        let v4 = peer
            .v4
            .is_none_or(|at| self.v4.get(at as usize).seen < alive_since);
        let v6 = peer
            .v6
            .is_none_or(|at| self.v6.get(at as usize).seen < alive_since);
        peer.role.is_some() && v4 && v6
    }

    /// Forgets a tombstone. The last record moves to its place.
    pub fn forget(&mut self, place: usize) {
        debug_assert!(
            self.peers[place].role.is_none(),
            "only tombstones are forgotten"
        );
        if let Some(index) = &mut self.by_identity {
            index.remove(identity_hash(&self.peers[place]), place);
        }
        let forgotten = self.peers.swap_remove(place);
        let records = &mut self.history_mut(forgotten.user).records;
        *records = records.saturating_sub(1);
        if let Some(moved) = self.peers.get(place) {
            if let Some(index) = &mut self.by_identity {
                index.moved(identity_hash(moved), self.peers.len(), place);
            }
            if let Some(at) = moved.v4 {
                self.v4.get_mut(at as usize).peer = place as u32;
            }
            if let Some(at) = moved.v6 {
                self.v6.get_mut(at as usize).peer = place as u32;
            }
        }
        if self.peers.len() < SEARCH_MAX / 2 {
            self.by_identity = None;
        }
        if self.peers.capacity() > 4 * self.peers.len() + 8 {
            self.peers.shrink_to(2 * self.peers.len());
        }
    }

    /// The endpoints of a peer.
    pub fn endpoints(&self, place: usize) -> (Option<Compact4>, Option<Compact6>) {
        let peer = &self.peers[place];
        (
            peer.v4.map(|at| self.v4.get(at as usize).endpoint),
            peer.v6.map(|at| self.v6.get(at as usize).endpoint),
        )
    }

    /// What the user did with the torrent; a new, empty record if nothing is known.
    pub fn history_mut(&mut self, user: UserId) -> &mut History {
        let at = match self.histories.binary_search_by_key(&user, |it| it.user) {
            Ok(at) => at,
            Err(at) => {
                self.histories.insert(at, History::new(user));
                at
            }
        };
        &mut self.histories[at]
    }

    pub fn history(&self, user: UserId) -> Option<&History> {
        let found = self.histories.binary_search_by_key(&user, |it| it.user);
        found.ok().map(|at| &self.histories[at])
    }

    /// Appends up to `want` endpoints, and their peer ids where they are asked for.
    pub fn select(
        &self,
        request: &Request,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        match request.endpoint {
            Endpoint::V4(own) => self.select_from(&self.v4, own, request, selector, out, peer_ids),
            Endpoint::V6(own) => self.select_from(&self.v6, own, request, selector, out, peer_ids),
        }
    }

    fn select_from<C: Compact>(
        &self,
        members: &Classes<Member<C>>,
        own: C,
        request: &Request,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        mut peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        let candidates = &members.items()[members.candidates(request.role)];
        let eligibility = request.eligibility;
        selector.select(candidates.len(), request.want, |place| {
            let member = &candidates[place];
            let eligible = member.seen >= eligibility.alive_since
                && (eligibility.allow_local || member.endpoint.is_global())
                && member.endpoint != own
                && !(request.hide_own && member.user == request.user);
            if eligible {
                out.extend_from_slice(member.endpoint.as_ref());
                if let Some(peer_ids) = &mut peer_ids {
                    peer_ids.push(self.peers[member.peer as usize].peer_id);
                }
            }
            eligible
        });
    }

    fn build_index(&mut self) {
        let mut index = Box::<Index>::default();
        let hash_at = |place: usize| identity_hash(&self.peers[place]);
        for place in 0..self.peers.len() {
            index.insert(hash_at(place), place, hash_at);
        }
        self.by_identity = Some(index);
    }

    /// Moves the counters with a peer that changes its role, enters or leaves.
    fn count(&mut self, before: Option<Role>, after: Option<Role>, user: UserId) {
        if let Some(role) = before {
            let counts = Counts::of(role);
            self.counts = self.counts.minus(counts);
        }
        if let Some(role) = after {
            self.counts = self.counts.plus(Counts::of(role));
        }
        let live = &mut self.history_mut(user).live;
        match (before.is_some(), after.is_some()) {
            (false, true) => *live += 1,
            (true, false) => *live -= 1,
            _ => {}
        }
    }

    fn reclass(&mut self, place: usize, role: Role) {
        if let Some(at) = self.peers[place].v4 {
            let member = *self.v4.get(at as usize);
            put(&mut self.v4, &mut self.peers, place, member, role);
        }
        if let Some(at) = self.peers[place].v6 {
            let member = *self.v6.get(at as usize);
            put(&mut self.v6, &mut self.peers, place, member, role);
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

// === impl Family ===

impl Family {
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::V4(_) => Self::V4,
            Endpoint::V6(_) => Self::V6,
        }
    }
}

/// The place that a peer keeps of its member, by family.
trait Place: Compact {
    fn place(peer: &mut Peer) -> &mut Option<u32>;
}

// === impl Place ===

impl Place for Compact4 {
    fn place(peer: &mut Peer) -> &mut Option<u32> {
        &mut peer.v4
    }
}

impl Place for Compact6 {
    fn place(peer: &mut Peer) -> &mut Option<u32> {
        &mut peer.v6
    }
}

/// Sets a peer's member of one family, in the class of its role.
fn put<C: Place>(
    members: &mut Classes<Member<C>>,
    peers: &mut [Peer],
    place: usize,
    member: Member<C>,
    role: Role,
) {
    let has_port = member.endpoint.port() != 0;
    if let Some(at) = *C::place(&mut peers[place]) {
        let at = at as usize;
        let same_class =
            members.role(at) == role && (members.get(at).endpoint.port() != 0) == has_port;
        if same_class {
            *members.get_mut(at) = member;
            return;
        }
        drop_member(members, peers, place);
    }
    let at = members.insert(member, role, has_port, |it, _, to| {
        *C::place(&mut peers[it.peer as usize]) = Some(to as u32);
    });
    *C::place(&mut peers[place]) = Some(at as u32);
}

fn drop_member<C: Place>(members: &mut Classes<Member<C>>, peers: &mut [Peer], place: usize) {
    if let Some(at) = C::place(&mut peers[place]).take() {
        members.remove(at as usize, |it, _, to| {
            *C::place(&mut peers[it.peer as usize]) = Some(to as u32);
        });
    }
}

fn identity_hash(peer: &Peer) -> u64 {
    hash_of((peer.user, peer.peer_id.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(now: Seconds) -> Account {
        Account::begin(0, 0, now)
    }

    fn endpoint(ip: &str, port: u16) -> Endpoint {
        Endpoint::new(ip.parse().unwrap(), port)
    }

    #[test]
    fn a_peer_of_two_families_counts_once_and_leaves_with_its_last_endpoint() {
        let mut swarm = PrivateSwarm::default();
        let now = Seconds::START;
        let place = swarm.add(UserId(1), PeerId([1; 20]), account(now));
        swarm.enter(place, endpoint("1.2.3.4", 1), Role::Leecher, now);
        swarm.enter(place, endpoint("2a00::1", 1), Role::Leecher, now);
        assert_eq!(swarm.counts().leechers, 1);
        swarm.enter(place, endpoint("1.2.3.4", 2), Role::Seeder, now);
        assert_eq!(swarm.counts(), Counts::of(Role::Seeder));
        assert_eq!(swarm.v6.role(0), Role::Seeder);
        assert!(!swarm.leave(place, Family::V4));
        assert_eq!(swarm.counts().seeders, 1);
        assert!(swarm.leave(place, Family::V6));
        assert!(!swarm.leave(place, Family::V6));
        assert_eq!(swarm.counts(), Counts::default());
        assert_eq!(swarm.peer(place).role(), None);
        assert_eq!(swarm.history(UserId(1)).unwrap().live, 0);
    }

    #[test]
    fn places_stay_right_through_any_sequence() {
        let mut swarm = PrivateSwarm::default();
        let mut rng = fastrand::Rng::with_seed(11);
        let ids = 60;
        for step in 0..30_000u32 {
            let now = Seconds::START.plus(step);
            let id = rng.u8(..ids);
            let (user, peer_id) = (UserId(u32::from(id % 20)), PeerId([id; 20]));
            let found = swarm.find(user, &peer_id);
            let family = if rng.bool() { Family::V4 } else { Family::V6 };
            let ip = match family {
                Family::V4 => format!("9.9.9.{id}"),
                Family::V6 => format!("2a00::{id}"),
            };
            match (rng.u8(..10), found) {
                (0..=4, _) => {
                    let place = found.unwrap_or_else(|| swarm.add(user, peer_id, account(now)));
                    let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
                    swarm.enter(place, endpoint(&ip, rng.u16(..2)), role, now);
                }
                (5..=7, Some(place)) => {
                    swarm.leave(place, family);
                }
                (8, Some(place)) => {
                    let expired =
                        swarm.is_expired(place, Seconds::START.plus(step.saturating_sub(300)));
                    assert_eq!(
                        expired,
                        swarm.expire(place, Seconds::START.plus(step.saturating_sub(300)))
                    );
                }
                (9, Some(place)) if swarm.peer(place).role().is_none() => swarm.forget(place),
                _ => {}
            }
            check(&swarm);
        }
    }

    fn check(swarm: &PrivateSwarm) {
        let mut counts = Counts::default();
        let mut members = (0, 0);
        for (place, peer) in swarm.peers.iter().enumerate() {
            assert_eq!(swarm.find(peer.user, &peer.peer_id), Some(place));
            if let Some(at) = peer.v4 {
                assert_eq!(swarm.v4.get(at as usize).peer as usize, place);
                assert_eq!(Some(swarm.v4.role(at as usize)), peer.role);
                members.0 += 1;
            }
            if let Some(at) = peer.v6 {
                assert_eq!(swarm.v6.get(at as usize).peer as usize, place);
                assert_eq!(Some(swarm.v6.role(at as usize)), peer.role);
                members.1 += 1;
            }
            assert_eq!(peer.role.is_some(), peer.v4.is_some() || peer.v6.is_some());
            if let Some(role) = peer.role {
                counts = counts.plus(Counts::of(role));
            }
        }
        assert_eq!(swarm.counts(), counts);
        assert_eq!((swarm.v4.len(), swarm.v6.len()), members);
        let live: u32 = swarm.histories.iter().map(|it| u32::from(it.live)).sum();
        assert_eq!(live, counts.seeders + counts.leechers);
    }
}
