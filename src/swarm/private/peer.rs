//! A private peer as the tracker works on it: taken out of its swarm, changed, and put back.

use crate::addr::{Compact4, Compact6, Endpoint};
use crate::clock::Seconds;
use crate::ids::{PeerId, UserId};
use crate::swarm::classes::Role;
use crate::swarm::records::{Account, History, Owed};

/// One client of one user. With an endpoint it is in the swarm, and has a role there; without
/// one it is a tombstone, kept for its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub user: UserId,
    pub peer_id: PeerId,
    pub account: Account,
    pub owed: Option<Owed>,
    pub(super) role: Option<Role>,
    pub(super) v4: Option<Seen<Compact4>>,
    pub(super) v6: Option<Seen<Compact6>>,
}

/// An endpoint, and when an announce last came from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen<C> {
    pub endpoint: C,
    pub at: Seconds,
}

/// A peer and what its user did with the torrent, out of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub peer: Peer,
    pub history: History,
    /// Where it was; none for a newcomer.
    pub(super) place: Option<usize>,
    /// The history as the swarm has it: one that was not changed need not be written again.
    pub(super) known: Option<History>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

// === impl Peer ===

impl Peer {
    /// A tombstone, until it enters.
    pub fn new(user: UserId, peer_id: PeerId, account: Account) -> Self {
        Self {
            user,
            peer_id,
            account,
            owed: None,
            role: None,
            v4: None,
            v6: None,
        }
    }

    /// None for a tombstone.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    pub fn endpoints(&self) -> (Option<Compact4>, Option<Compact6>) {
        (self.v4.map(|it| it.endpoint), self.v6.map(|it| it.endpoint))
    }

    /// Whether it is in the swarm at that endpoint.
    pub fn is_at(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::V4(it) => self.v4.is_some_and(|seen| seen.endpoint == it),
            Endpoint::V6(it) => self.v6.is_some_and(|seen| seen.endpoint == it),
        }
    }

    /// Gives up the endpoints of both families; the record stays as a tombstone.
    pub fn depart(&mut self) {
        self.leave(Family::V4);
        self.leave(Family::V6);
    }

    /// Enters the swarm at that endpoint, or moves there (rule W2). Its other family stays.
    pub fn enter(&mut self, endpoint: Endpoint, role: Role, at: Seconds) {
        self.role = Some(role);
        match endpoint {
            Endpoint::V4(endpoint) => self.v4 = Some(Seen { endpoint, at }),
            Endpoint::V6(endpoint) => self.v6 = Some(Seen { endpoint, at }),
        }
    }

    /// Gives up the endpoint of that family; the peer goes with its last one (rule W3).
    /// Returns whether it was in the swarm and left it.
    pub fn leave(&mut self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4 = None,
            Family::V6 => self.v6 = None,
        }
        if self.v4.is_some() || self.v6.is_some() {
            return false;
        }
        self.role.take().is_some()
    }

    /// Gives up the endpoints that were last seen before `alive_since`; returns whether the peer
    /// left with them.
    pub fn expire(&mut self, alive_since: Seconds) -> bool {
        let v4 = self.v4.is_some_and(|it| it.at < alive_since);
        let v6 = self.v6.is_some_and(|it| it.at < alive_since);
        let mut left = v4 && self.leave(Family::V4);
        left |= v6 && self.leave(Family::V6);
        left
    }
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
