//! One endpoint of one user is one client (rule W1a): a client that enters where another record of
//! its user is takes that one's place.

use crate::base::addr::Endpoint;
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::{Client, PrivateSwarm};
use crate::tracker::private::Ledger;

/// What becomes of a record that leaves because another node or an earlier process knew of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Displaced {
    /// Whoever decided it has journaled it.
    IsJournaled,
    /// The next sweep journals it.
    OwesJournal,
}

// === impl Ledger ===

impl Ledger<'_> {
    /// Takes the user's other records at that endpoint out of the swarm, as if they had expired. Their user
    /// stays, so this is no hit and run. Without room in the outbox a record owes its change until a sweep.
    pub(super) fn take_place(&mut self, user: UserId, peer_id: &PeerId, endpoint: Endpoint) {
        while let Some(place) = self.swarm.other_at(user, peer_id, endpoint) {
            let Some(mut client) = self.swarm.client(place) else {
                return;
            };
            client.peer.depart();
            self.tracker.metrics.replaced.one();
            let owed = client.peer.owed.take().unwrap_or_default();
            self.queue(client, owed);
        }
    }
}

/// Puts a record that came from elsewhere into the swarm. Where it shares an endpoint with another
/// client of its user, the one that announced later stays and the other becomes a tombstone.
pub(super) fn put_apart(swarm: &mut PrivateSwarm, mut client: Client, displaced: Displaced) {
    let (user, peer_id) = (client.peer.user, client.peer.peer_id);
    let (v4, v6) = client.peer.endpoints();
    let endpoints = [v4.map(Endpoint::V4), v6.map(Endpoint::V6)];
    let mut others = Vec::new();
    for endpoint in endpoints.into_iter().flatten() {
        let place = swarm.other_at(user, &peer_id, endpoint);
        others.extend(place.and_then(|place| swarm.client(place)));
    }
    if others.is_empty() {
        swarm.put(&client);
        return;
    }
    let own = precedence(&client);
    if others.iter().any(|other| precedence(other) > own) {
        client.peer.depart();
        // Its record said that it is there, and nobody else knows better.
        client.peer.owed.get_or_insert_default();
        swarm.put(&client);
        return;
    }
    swarm.put(&client);
    for other in others {
        displace(swarm, &other.peer.peer_id, user, displaced);
    }
}

/// Turns a client into a tombstone.
fn displace(swarm: &mut PrivateSwarm, peer_id: &PeerId, user: UserId, displaced: Displaced) {
    let place = swarm.find(user, peer_id);
    let Some(mut client) = place.and_then(|place| swarm.client(place)) else {
        return;
    };
    client.peer.depart();
    if displaced == Displaced::OwesJournal {
        client.peer.owed.get_or_insert_default();
    }
    swarm.put(&client);
}

/// Which of two clients at one endpoint stays: the greater one, the same at every node.
fn precedence(client: &Client) -> (Seconds, PeerId) {
    (client.peer.account.last_announce, client.peer.peer_id)
}
