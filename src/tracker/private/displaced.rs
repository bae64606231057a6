//! One endpoint of one user is one client (rule W1a): a client that enters at the endpoint of another
//! record of its user displaces that record.

use crate::base::addr::Endpoint;
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::{PrivatePeer, PrivateSwarm};
use crate::tracker::private::announce::PrivateAnnounce;

/// What becomes of a record that is displaced by one from another node or an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Displaced {
    /// The node that decided it has journaled it.
    IsJournaled,
    /// The next sweep journals it.
    OwesJournal,
}

impl PrivateAnnounce<'_> {
    /// Takes the user's other records at that endpoint out of the swarm, as if they had expired. The user
    /// stays, so this is no hit and run. Without room in the outbox a record owes its change until a sweep.
    pub(super) fn displace_others(&mut self, user: UserId, peer_id: &PeerId, endpoint: Endpoint) {
        while let Some(place) = self.swarm.other_at(user, peer_id, endpoint) {
            let Some(mut client) = self.swarm.peer(place) else {
                return;
            };
            client.state.depart();
            self.tracker.common.metrics.replaced.increment();
            let owed = client.state.owed.take().unwrap_or_default();
            self.queue(client, owed);
        }
    }
}

/// Puts a record that came from elsewhere into the swarm. Where it shares an endpoint with another
/// client of its user, the one that announced later stays and the other becomes a tombstone.
pub(super) fn put_apart(swarm: &mut PrivateSwarm, mut client: PrivatePeer, displaced: Displaced) {
    let (user, peer_id) = (client.state.user, client.state.peer_id);
    let (v4, v6) = client.state.endpoints();
    let endpoints = [v4.map(Endpoint::V4), v6.map(Endpoint::V6)];
    let mut others = Vec::new();
    for endpoint in endpoints.into_iter().flatten() {
        let place = swarm.other_at(user, &peer_id, endpoint);
        others.extend(place.and_then(|place| swarm.peer(place)));
    }
    if others.is_empty() {
        swarm.put(&client);
        return;
    }
    let own = precedence(&client);
    if others.iter().any(|other| precedence(other) > own) {
        client.state.depart();
        // Its record said that it is active, and only this node knows better.
        client.state.owed.get_or_insert_default();
        swarm.put(&client);
        return;
    }
    swarm.put(&client);
    for other in others {
        displace(swarm, &other.state.peer_id, user, displaced);
    }
}

/// Turns a client into a tombstone.
fn displace(swarm: &mut PrivateSwarm, peer_id: &PeerId, user: UserId, displaced: Displaced) {
    let place = swarm.find(user, peer_id);
    let Some(mut client) = place.and_then(|place| swarm.peer(place)) else {
        return;
    };
    client.state.depart();
    if displaced == Displaced::OwesJournal {
        client.state.owed.get_or_insert_default();
    }
    swarm.put(&client);
}

/// Of two clients at one endpoint the one with the greater value stays, the same on every node.
fn precedence(client: &PrivatePeer) -> (Seconds, PeerId) {
    (client.state.account.last_announce, client.state.peer_id)
}
