//! The entries of one user in a private swarm: clients, tombstones, and which of them is at an endpoint.

use crate::base::addr::{Compact, Endpoint};
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::Role;
use crate::swarm::private::packed::EntryView;
use crate::swarm::private::{PrivatePeer, PrivateSwarm};

// === impl PrivateSwarm ===

impl PrivateSwarm {
    /// The number of a user's records, tombstones included; counted up to `max`.
    pub fn records_of(&self, user: UserId, max: usize) -> usize {
        self.count_of(user, max, |view| view.is_client())
    }

    /// The number of a user's clients in the swarm that have not expired and are not at `endpoint`;
    /// counted up to `max`. A new client at that endpoint displaces those there (rule W1a).
    pub fn alive_elsewhere(
        &self,
        user: UserId,
        endpoint: Endpoint,
        alive_since: Seconds,
        max: usize,
    ) -> usize {
        self.count_of(user, max, |view| {
            let v4 = view.v4().map(|seen| seen.last_seen(view.last_announce()));
            let v6 = view.v6().map(|seen| seen.last_seen(view.last_announce()));
            v4.max(v6).is_some_and(|last_seen| last_seen >= alive_since) && !view.is_at(endpoint)
        })
    }

    /// Whether another client of its user is in the swarm.
    pub fn has_other(&self, client: &PrivatePeer) -> bool {
        let user = client.state.user;
        let is_other = |view: &EntryView<'_>| !view.is(user, &client.state.peer_id);
        let is_there = |view: EntryView<'_>| view.tag.role().is_some() && is_other(&view);
        self.find_of(user, is_there).is_some()
    }

    /// The place of another client of the user that is in the swarm at that endpoint (rule W1a).
    /// None at an endpoint without a port, which identifies no client.
    pub fn other_at(&self, user: UserId, peer_id: &PeerId, endpoint: Endpoint) -> Option<usize> {
        if endpoint.port() == 0 {
            return None;
        }
        self.find_of(user, |view| {
            view.tag.role().is_some() && view.is_at(endpoint) && !view.is(user, peer_id)
        })
    }

    /// The last announce of the user's other clients that seed.
    pub fn other_seeded_at(&self, client: &PrivatePeer) -> Option<Seconds> {
        self.latest_of_others(client, Some(Role::Seeder))
    }

    /// The last announce of the user's other clients, tombstones included.
    pub fn other_announced_at(&self, client: &PrivatePeer) -> Option<Seconds> {
        self.latest_of_others(client, None)
    }

    fn latest_of_others(&self, client: &PrivatePeer, role: Option<Role>) -> Option<Seconds> {
        let user = client.state.user;
        if !self.may_have_several(user) {
            return None;
        }
        let mut latest = None;
        self.find_of(user, |view| {
            let counts = role.is_none() || view.tag.role() == role;
            if counts && view.is_client() && !view.is(user, &client.state.peer_id) {
                latest = latest.max(Some(view.last_announce()));
            }
            false
        });
        latest
    }

    /// The place of the user's oldest tombstone that owes the journal nothing.
    pub fn oldest_tombstone(&self, user: UserId) -> Option<usize> {
        let mut oldest = None;
        self.find_of(user, |view| {
            if view.is_client() && view.tag.role().is_none() && !view.owes() {
                let last = view.last_announce();
                if oldest.is_none_or(|(moment, _)| last < moment) {
                    oldest = Some((last, view.peer_id()));
                }
            }
            false
        });
        self.find(user, &oldest?.1)
    }

    /// The user of each record, tombstones included.
    pub fn owners(&self) -> impl Iterator<Item = UserId> + '_ {
        (0..self.len())
            .map(|place| self.view(place))
            .filter(EntryView::is_client)
            .map(|view| view.user())
    }

    fn count_of(&self, user: UserId, max: usize, matches: impl Fn(EntryView<'_>) -> bool) -> usize {
        let mut count = 0;
        self.find_of(user, |view| {
            count += usize::from(matches(view));
            count >= max
        });
        count
    }
}

// === impl EntryView ===

impl EntryView<'_> {
    /// Whether a client is at that endpoint. One without a port identifies no client.
    fn is_at(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::V4(v4) => v4.port() != 0 && self.v4().is_some_and(|seen| seen.endpoint == v4),
            Endpoint::V6(v6) => v6.port() != 0 && self.v6().is_some_and(|seen| seen.endpoint == v6),
        }
    }
}
