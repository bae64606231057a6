//! The swarm of a private torrent: peers by user and peer id, their accounts, and what each
//! user has done with the torrent (rules W1, W2, A1).
//!
//! Peers are packed: [`PrivateSwarm::client`] takes one out, [`PrivateSwarm::put`] puts it back. The
//! place of a peer holds until the swarm is changed.

mod large;
mod own;
mod packed;
mod page;
mod peer;
mod tape;
#[cfg(test)]
mod tests;

use crate::base::addr::{Compact, Endpoint};
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::classes::{Counts, Families, Role};
use crate::swarm::public::Eligibility;
use crate::swarm::records::{Account, History};
use crate::swarm::select::Selector;

use self::large::Large;
use self::packed::{Packed, Tag, View};
use self::page::{PAGE_MAX, Page};
use self::peer::Seen;

pub use self::peer::{Client, Family, Peer, Whereabouts};

/// The peers and histories of a private torrent, and its snatches, which outlive the peers.
#[derive(Debug)]
pub struct PrivateSwarm(Form);

/// Each user with any entry has one that carries the history.
#[derive(Debug)]
enum Form {
    Small(Page),
    Large(Box<Large>),
}

/// Whom a requester may get.
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

// === impl PrivateSwarm ===

impl Default for PrivateSwarm {
    fn default() -> Self {
        Self(Form::Small(Page::default()))
    }
}

impl PrivateSwarm {
    pub fn counts(&self) -> Counts {
        match &self.0 {
            Form::Small(page) => {
                let roles = page.tags().filter_map(Tag::role);
                roles.map(Counts::of).fold(Counts::default(), Counts::plus)
            }
            Form::Large(large) => large.counts(),
        }
    }

    /// The counts of each family. A peer that is there by both counts in each where it has a port.
    pub fn families(&self) -> Families {
        let page = match &self.0 {
            Form::Small(page) => page,
            Form::Large(large) => return large.families(),
        };
        let mut families = Families::default();
        for (slot, tag) in page.tags().enumerate() {
            if let Some(role) = tag.role() {
                let reach = tag.families();
                let reach = reach.unwrap_or_else(|| page.view(slot).families());
                families.add(role, reach, 1);
            }
        }
        families
    }

    /// Snatches of the torrent.
    pub fn snatches(&self) -> u32 {
        match &self.0 {
            Form::Small(page) => page.snatches(),
            Form::Large(large) => large.snatches(),
        }
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        match &mut self.0 {
            Form::Small(page) => page.set_snatches(snatches),
            Form::Large(large) => large.set_snatches(snatches),
        }
    }

    /// Nothing in it is worth its memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.snatches() == 0
    }

    /// Whether any of its peers announced at that moment or after it.
    pub fn is_any_since(&self, moment: Seconds) -> bool {
        let mut views = (0..self.len()).map(|place| self.view(place));
        views.any(|view| view.is_client() && view.last_announce() >= moment)
    }

    /// Peers, tombstones and histories of users without either: their places are `0..len`.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Small(page) => page.len(),
            Form::Large(large) => large.len(),
        }
    }

    /// Where a user's client is.
    pub fn find(&self, user: UserId, peer_id: &PeerId) -> Option<usize> {
        self.find_of(user, |view| view.is(user, peer_id))
    }

    /// Whether that client is at that place.
    pub fn holds(&self, place: usize, user: UserId, peer_id: &PeerId) -> bool {
        place < self.len() && self.view(place).is(user, peer_id)
    }

    /// The client at that place; none if there is only a history.
    pub fn client(&self, place: usize) -> Option<Client> {
        let (peer, history) = self.view(place).unpack();
        let peer = peer?;
        let history = history.or_else(|| self.history(peer.user));
        Some(Client {
            history: history.unwrap_or_else(|| History::new(peer.user)),
            peer,
            place: Some(place),
            known: history,
        })
    }

    /// A client that is not in the swarm yet.
    pub fn newcomer(&self, user: UserId, peer_id: PeerId, account: Account) -> Client {
        let known = self.history(user);
        Client {
            peer: Peer::new(user, peer_id, account),
            history: known.unwrap_or_else(|| History::new(user)),
            place: None,
            known,
        }
    }

    /// Puts a client into the swarm, or back. Nothing else may have changed since it was taken out.
    pub fn put(&mut self, client: &Client) {
        let Client {
            peer,
            history,
            place,
            known,
        } = client;
        let carrier = match place {
            Some(place) if self.view(*place).carries_history() => Some(*place),
            _ => self.carrier(peer.user),
        };
        let Some(carrier) = carrier else {
            self.add(&Packed::client(peer, Some(history)));
            return;
        };
        // The first client after those of before takes the history over.
        if *place == Some(carrier) || !self.view(carrier).is_client() {
            self.set(carrier, &Packed::client(peer, Some(history)));
            return;
        }
        if Some(history) != known.as_ref() {
            self.set_carried(carrier, history);
        }
        let packed = Packed::client(peer, None);
        match place {
            Some(place) => self.set(*place, &packed),
            None => self.add(&packed),
        }
    }

    /// Forgets a tombstone, but not what its user did with the torrent.
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
            self.set(place, &Packed::history(&history));
        }
    }

    /// What the user did with the torrent, if anything is known.
    pub fn history(&self, user: UserId) -> Option<History> {
        let place = self.carrier(user)?;
        self.view(place).unpack().1
    }

    pub fn set_history(&mut self, history: &History) {
        match self.carrier(history.user) {
            Some(carrier) => self.set_carried(carrier, history),
            None if history.is_nothing() => {}
            None => self.add(&Packed::history(history)),
        }
    }

    /// Whether there is anything to do about the entry at that place: an endpoint that was not
    /// seen since `alive_since`, a debt, a tombstone older than `kept_since`.
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

    /// Appends up to `want` endpoints, and their peer ids where they are asked for.
    pub fn select(
        &self,
        request: &Request<'_>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        match request.endpoint {
            Endpoint::V4(own) => {
                let v4 = |view: View<'_>| view.v4();
                self.select_from(v4, own, request, selector, out, peer_ids);
            }
            Endpoint::V6(own) => {
                let v6 = |view: View<'_>| view.v6();
                self.select_from(v6, own, request, selector, out, peer_ids);
            }
        }
    }

    fn select_from<C: Compact>(
        &self,
        endpoint_of: impl Fn(View<'_>) -> Option<Seen<C>>,
        own: C,
        request: &Request<'_>,
        selector: &mut Selector,
        out: &mut Vec<u8>,
        mut peer_ids: Option<&mut Vec<PeerId>>,
    ) {
        let eligibility = request.eligibility;
        // Two users may share an endpoint: both are counted, and it is handed out once.
        let mut distinct = selector.take_distinct(request.want.min(self.len()));
        let mut offer = |view: View<'_>| {
            let Some(seen) = endpoint_of(view) else {
                return false;
            };
            let eligible = seen.heard(view.last_announce()) >= eligibility.alive_since
                && seen.endpoint.port() != 0
                && seen.endpoint != own
                && !(request.hide_own && view.user() == request.user)
                && eligibility
                    .viewer
                    .reaches(seen.endpoint)
                    .is_some_and(|it| it != own && distinct.add(it.as_ref(), out));
            if eligible && let Some(peer_ids) = &mut peer_ids {
                peer_ids.push(view.peer_id());
            }
            eligible
        };
        match &self.0 {
            Form::Small(page) => selector.select(page.len(), request.want, |slot| {
                let view = page.view(slot);
                let is_wanted = match (request.role, view.tag.role()) {
                    (_, None) => false,
                    (Role::Leecher, Some(_)) => true,
                    (Role::Paused | Role::Seeder, role) => role == Some(Role::Leecher),
                };
                is_wanted && offer(view)
            }),
            Form::Large(large) => {
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

    fn view(&self, place: usize) -> View<'_> {
        match &self.0 {
            Form::Small(page) => page.view(place),
            Form::Large(large) => large.view(place),
        }
    }

    fn carrier(&self, user: UserId) -> Option<usize> {
        self.find_of(user, |view| view.carries_history())
    }

    /// The first entry of that user for which `is_it` holds.
    fn find_of(&self, user: UserId, mut is_it: impl FnMut(View<'_>) -> bool) -> Option<usize> {
        match &self.0 {
            Form::Small(page) => {
                page.find(|tag| tag.may_be(user), |it| it.user() == user && is_it(it))
            }
            Form::Large(large) => large.find(user, is_it),
        }
    }

    /// False if at most one entry is a user's, as far as that costs next to nothing to see.
    fn may_have_several(&self, user: UserId) -> bool {
        match &self.0 {
            Form::Small(page) => page.tags().filter(|tag| tag.may_be(user)).count() > 1,
            Form::Large(_) => true,
        }
    }

    /// Writes a history into the entry that is to carry it.
    fn set_carried(&mut self, place: usize, history: &History) {
        let packed = match self.view(place).unpack().0 {
            Some(peer) => Packed::client(&peer, Some(history)),
            None => Packed::history(history),
        };
        self.set(place, &packed);
    }

    fn set(&mut self, place: usize, entry: &Packed) {
        match &mut self.0 {
            Form::Small(page) => page.set(place, entry),
            Form::Large(large) => large.set(place, entry),
        }
    }

    fn add(&mut self, entry: &Packed) {
        if let Form::Small(page) = &self.0
            && page.len() == PAGE_MAX
        {
            let mut large = Box::<Large>::default();
            for slot in 0..page.len() {
                large.add(&page.view(slot).into());
            }
            large.set_snatches(page.snatches());
            self.0 = Form::Large(large);
        }
        match &mut self.0 {
            Form::Small(page) => page.push(entry),
            Form::Large(large) => large.add(entry),
        }
    }

    fn remove(&mut self, place: usize) {
        match &mut self.0 {
            Form::Small(page) => page.remove(place),
            Form::Large(large) => large.remove(place),
        }
        if let Form::Large(large) = &self.0
            && large.len() < PAGE_MAX / 2
        {
            let mut page = Page::default();
            for place in 0..large.len() {
                page.push(&large.view(place).into());
            }
            page.set_snatches(large.snatches());
            self.0 = Form::Small(page);
        }
    }
}
