//! The swarm of a private torrent: peers by user and peer id, their accounts, and what each
//! user has done with the torrent (rules W1, W2, A1).
//!
//! Peers are packed: [`PrivateSwarm::peer`] unpacks one, [`PrivateSwarm::put`] packs it again. The
//! place of a peer is valid until the swarm is changed.

mod block;
mod large;
mod own;
mod packed;
mod peer;
#[cfg(test)]
mod tests;
mod varint_buf;

use crate::base::addr::{Compact, Endpoint};
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::classes::{FamilyCounts, PeerCounts, Role};
use crate::swarm::draw::Selector;
use crate::swarm::public::Eligibility;
use crate::swarm::records::{Account, UserHistory};

use self::block::{BLOCK_MAX, PeerBlock};
use self::large::LargePrivate;
use self::packed::{EntryView, PackedEntry, Tag};
use self::peer::SeenEndpoint;

pub use self::peer::{Family, PeerLocation, PeerState, PrivatePeer};

/// The peers and histories of a private torrent, and its snatches, which outlive the peers.
#[derive(Debug)]
pub struct PrivateSwarm(PrivateStore);

/// Of each user's entries, one carries the history.
#[derive(Debug)]
enum PrivateStore {
    Small(PeerBlock),
    Large(Box<LargePrivate>),
}

/// A requester, and what it wants.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub user: UserId,
    pub endpoint: Endpoint,
    pub role: Role,
    pub want: usize,
    pub eligibility: Eligibility<'a>,
    /// The user's own other clients are left out.
    pub hide_own: bool,
}

impl Default for PrivateSwarm {
    fn default() -> Self {
        Self(PrivateStore::Small(PeerBlock::default()))
    }
}

impl PrivateSwarm {
    pub fn counts(&self) -> PeerCounts {
        match &self.0 {
            PrivateStore::Small(block) => {
                let roles = block.tags().filter_map(Tag::role);
                roles
                    .map(PeerCounts::of)
                    .fold(PeerCounts::default(), PeerCounts::plus)
            }
            PrivateStore::Large(large) => large.counts(),
        }
    }

    /// The counts of each family. A peer counts in each family in which it has a port; without any port,
    /// in each in which it has an address.
    pub fn families(&self) -> FamilyCounts {
        let block = match &self.0 {
            PrivateStore::Small(block) => block,
            PrivateStore::Large(large) => return large.families(),
        };
        let mut families = FamilyCounts::default();
        for (slot, tag) in block.tags().enumerate() {
            if let Some(role) = tag.role() {
                let reach = tag.families();
                let reach = reach.unwrap_or_else(|| block.view(slot).families());
                families.add(role, reach, 1);
            }
        }
        families
    }

    /// Snatches of the torrent.
    pub fn snatches(&self) -> u32 {
        match &self.0 {
            PrivateStore::Small(block) => block.snatches(),
            PrivateStore::Large(large) => large.snatches(),
        }
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        match &mut self.0 {
            PrivateStore::Small(block) => block.set_snatches(snatches),
            PrivateStore::Large(large) => large.set_snatches(snatches),
        }
    }

    /// Whether it can be dropped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.snatches() == 0
    }

    /// Whether any of its peers announced at that moment or after it.
    pub fn has_announce_since(&self, moment: Seconds) -> bool {
        let mut views = (0..self.len()).map(|place| self.view(place));
        views.any(|view| view.is_client() && view.last_announce() >= moment)
    }

    /// The number of peers, tombstones and histories of users without either. Their places are `0..len`.
    pub fn len(&self) -> usize {
        match &self.0 {
            PrivateStore::Small(block) => block.len(),
            PrivateStore::Large(large) => large.len(),
        }
    }

    /// The place of a user's client.
    pub fn find(&self, user: UserId, peer_id: &PeerId) -> Option<usize> {
        self.find_of(user, |view| view.is(user, peer_id))
    }

    /// Whether that client is at that place.
    pub fn holds(&self, place: usize, user: UserId, peer_id: &PeerId) -> bool {
        place < self.len() && self.view(place).is(user, peer_id)
    }

    /// The client at that place; none if there is only a history.
    pub fn peer(&self, place: usize) -> Option<PrivatePeer> {
        let (peer, history) = self.view(place).unpack();
        let peer = peer?;
        let history = history.or_else(|| self.history(peer.user));
        Some(PrivatePeer {
            history: history.unwrap_or_else(|| UserHistory::new(peer.user)),
            state: peer,
            place: Some(place),
            known: history,
        })
    }

    /// All clients, tombstones too.
    pub fn peers(&self) -> impl Iterator<Item = PrivatePeer> + '_ {
        (0..self.len()).filter_map(|place| self.peer(place))
    }

    /// A client that is not in the swarm yet.
    pub fn newcomer(&self, user: UserId, peer_id: PeerId, account: Account) -> PrivatePeer {
        let known = self.history(user);
        PrivatePeer {
            state: PeerState::new(user, peer_id, account),
            history: known.unwrap_or_else(|| UserHistory::new(user)),
            place: None,
            known,
        }
    }

    /// Puts a client into the swarm, or back. The swarm must not have changed since it was taken out.
    pub fn put(&mut self, client: &PrivatePeer) {
        let PrivatePeer {
            state: peer,
            history,
            place,
            known,
        } = client;
        let carrier = match place {
            Some(place) if self.view(*place).carries_history() => Some(*place),
            _ => self.carrier(peer.user),
        };
        let Some(carrier) = carrier else {
            self.add(&PackedEntry::client(peer, Some(history)));
            return;
        };
        // An entry with only a history becomes this client's, which carries the history from now on.
        if *place == Some(carrier) || !self.view(carrier).is_client() {
            self.set(carrier, &PackedEntry::client(peer, Some(history)));
            return;
        }
        if Some(history) != known.as_ref() {
            self.set_carried(carrier, history);
        }
        let packed = PackedEntry::client(peer, None);
        match place {
            Some(place) => self.set(*place, &packed),
            None => self.add(&packed),
        }
    }

    /// Forgets a tombstone, but not the user's history.
    pub fn forget(&mut self, place: usize) {
        let view = self.view(place);
        debug_assert!(view.tag.role().is_none(), "only tombstones are forgotten");
        let user = view.user();
        let (_, Some(history)) = view.unpack() else {
            self.remove(place);
            return;
        };
        if let Some(heir) = self.find_of(user, |view| !view.carries_history()) {
            self.set_carried(heir, &history);
            self.remove(place);
        } else if history.is_nothing() {
            self.remove(place);
        } else {
            self.set(place, &PackedEntry::history(&history));
        }
    }

    /// The user's history, if anything is known.
    pub fn history(&self, user: UserId) -> Option<UserHistory> {
        let place = self.carrier(user)?;
        self.view(place).unpack().1
    }

    pub fn set_history(&mut self, history: &UserHistory) {
        match self.carrier(history.user) {
            Some(carrier) => self.set_carried(carrier, history),
            None if history.is_nothing() => {}
            None => self.add(&PackedEntry::history(history)),
        }
    }

    /// Whether the entry at that place needs work: it has an endpoint that was not
    /// seen since `alive_since`, owes the journal, or is a tombstone older than `kept_since`.
    pub fn is_due(&self, place: usize, alive_since: Seconds, kept_since: Seconds) -> bool {
        let view = self.view(place);
        if !view.is_client() {
            return false;
        }
        let since = match view.tag.role() {
            Some(_) => alive_since,
            None => kept_since,
        };
        view.owes() || view.is_any_seen_before(since)
    }

    /// Appends up to `want` endpoints (rule W8), and their peer ids if requested.
    pub fn select(
        &self,
        request: &Request<'_>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        match request.endpoint {
            Endpoint::V4(own) => {
                let v4 = |view: EntryView<'_>| view.v4();
                self.select_from(v4, own, request, selector, out, peer_ids);
            }
            Endpoint::V6(own) => {
                let v6 = |view: EntryView<'_>| view.v6();
                self.select_from(v6, own, request, selector, out, peer_ids);
            }
        }
    }

    fn select_from<C: Compact>(
        &self,
        endpoint_of: impl Fn(EntryView<'_>) -> Option<SeenEndpoint<C>>,
        own: C,
        request: &Request<'_>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        mut peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        let eligibility = request.eligibility;
        // Two users may share an endpoint: both are counted, and it is handed out once.
        let mut distinct = selector.take_distinct(request.want.min(self.len()));
        let mut offer = |view: EntryView<'_>| {
            let Some(seen) = endpoint_of(view) else {
                return false;
            };
            let eligible = seen.last_seen(view.last_announce()) >= eligibility.alive_since
                && seen.endpoint.port() != 0
                && seen.endpoint != own
                && !(request.hide_own && view.user() == request.user)
                && eligibility
                    .viewer
                    .reaches(seen.endpoint)
                    .is_some_and(|endpoint| {
                        endpoint != own && distinct.add(endpoint.as_ref(), out)
                    });
            if eligible && let Some(peer_ids) = &mut peer_ids {
                peer_ids.push(view.peer_id());
            }
            eligible
        };
        match &self.0 {
            PrivateStore::Small(block) => selector.select(block.len(), request.want, |slot| {
                let view = block.view(slot);
                let is_wanted = match (request.role, view.tag.role()) {
                    (_, None) => false,
                    (Role::Leecher, Some(_)) => true,
                    (Role::Paused | Role::Seeder, role) => role == Some(Role::Leecher),
                };
                is_wanted && offer(view)
            }),
            PrivateStore::Large(large) => {
                let family = Family::of(request.endpoint);
                let [first, second, third] = large.candidates(family, request.role);
                let (one, two) = (first.len(), first.len() + second.len());
                selector.select(two + third.len(), request.want, |at| {
                    offer(large.view(if at < one {
                        first.start + at
                    } else if at < two {
                        second.start + at - one
                    } else {
                        third.start + at - two
                    }))
                });
            }
        }
        selector.give_back(distinct);
    }

    fn view(&self, place: usize) -> EntryView<'_> {
        match &self.0 {
            PrivateStore::Small(block) => block.view(place),
            PrivateStore::Large(large) => large.view(place),
        }
    }

    fn carrier(&self, user: UserId) -> Option<usize> {
        self.find_of(user, |view| view.carries_history())
    }

    /// The first entry of that user that `matches`.
    fn find_of(
        &self,
        user: UserId,
        mut matches: impl FnMut(EntryView<'_>) -> bool,
    ) -> Option<usize> {
        match &self.0 {
            PrivateStore::Small(block) => block.find(
                |tag| tag.may_be(user),
                |view| view.user() == user && matches(view),
            ),
            PrivateStore::Large(large) => large.find(user, matches),
        }
    }

    /// False if at most one entry can be the user's, as far as the tags tell.
    fn may_have_several(&self, user: UserId) -> bool {
        match &self.0 {
            PrivateStore::Small(block) => block.tags().filter(|tag| tag.may_be(user)).count() > 1,
            PrivateStore::Large(_) => true,
        }
    }

    /// Writes a history into the entry that carries it.
    fn set_carried(&mut self, place: usize, history: &UserHistory) {
        let packed = match self.view(place).unpack().0 {
            Some(peer) => PackedEntry::client(&peer, Some(history)),
            None => PackedEntry::history(history),
        };
        self.set(place, &packed);
    }

    fn set(&mut self, place: usize, entry: &PackedEntry) {
        match &mut self.0 {
            PrivateStore::Small(block) => block.set(place, entry),
            PrivateStore::Large(large) => large.set(place, entry),
        }
    }

    fn add(&mut self, entry: &PackedEntry) {
        if let PrivateStore::Small(block) = &self.0
            && block.len() == BLOCK_MAX
        {
            let mut large = Box::<LargePrivate>::default();
            for slot in 0..block.len() {
                large.add(&block.view(slot).into());
            }
            large.set_snatches(block.snatches());
            self.0 = PrivateStore::Large(large);
        }
        match &mut self.0 {
            PrivateStore::Small(block) => block.push(entry),
            PrivateStore::Large(large) => large.add(entry),
        }
    }

    fn remove(&mut self, place: usize) {
        match &mut self.0 {
            PrivateStore::Small(block) => block.remove(place),
            PrivateStore::Large(large) => large.remove(place),
        }
        if let PrivateStore::Large(large) = &self.0
            && large.len() < BLOCK_MAX / 2
        {
            let mut block = PeerBlock::default();
            for place in 0..large.len() {
                block.push(&large.view(place).into());
            }
            block.set_snatches(large.snatches());
            self.0 = PrivateStore::Small(block);
        }
    }
}
