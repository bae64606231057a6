//! A private peer unpacked: taken out of its swarm, changed, and put back.

use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::change::CLOCK_SKEW;
use crate::swarm::classes::Role;
use crate::swarm::records::{Account, Owed, UserHistory};

/// One client of one user. With an endpoint it is in the swarm, and has a role there; without
/// one it is a tombstone, kept for its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    pub user: UserId,
    pub peer_id: PeerId,
    pub account: Account,
    pub owed: Option<Owed>,
    pub(super) role: Option<Role>,
    pub(super) v4: Option<SeenEndpoint<Compact4>>,
    pub(super) v6: Option<SeenEndpoint<Compact6>>,
    /// When the endpoint of a family without one was given up, where that is known.
    pub(super) left_v4: Option<Seconds>,
    pub(super) left_v6: Option<Seconds>,
}

/// An endpoint, and when an announce last came from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenEndpoint<C> {
    pub endpoint: C,
    pub at: Seconds,
}

/// Where a client is in one address family. Of two nodes' locations the later one is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLocation {
    /// None if it gave its endpoint up.
    pub endpoint: Option<Endpoint>,
    /// When an announce last came from there, or when it was given up.
    pub at: Seconds,
}

/// A peer and what its user did with the torrent, taken out of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivatePeer {
    pub state: PeerState,
    pub history: UserHistory,
    /// Its place in the swarm; none for a new one.
    pub(super) place: Option<usize>,
    /// The history as the swarm has it, to skip the write of an unchanged one.
    pub(super) known: Option<UserHistory>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

// === impl PeerState ===

impl PeerState {
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
            left_v4: None,
            left_v6: None,
        }
    }

    /// None for a tombstone.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    pub fn endpoints(&self) -> (Option<Compact4>, Option<Compact6>) {
        (
            self.v4.map(|seen| seen.endpoint),
            self.v6.map(|seen| seen.endpoint),
        )
    }

    /// Whether it is in the swarm at that endpoint.
    pub fn is_at(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::V4(v4) => self.v4.is_some_and(|seen| seen.endpoint == v4),
            Endpoint::V6(v6) => self.v6.is_some_and(|seen| seen.endpoint == v6),
        }
    }

    /// Its location in that family, if anything is known.
    pub fn location(&self, family: Family) -> Option<PeerLocation> {
        let (seen, left) = match family {
            Family::V4 => {
                let seen = self.v4.map(|seen| (Endpoint::V4(seen.endpoint), seen.at));
                (seen, self.left_v4)
            }
            Family::V6 => {
                let seen = self.v6.map(|seen| (Endpoint::V6(seen.endpoint), seen.at));
                (seen, self.left_v6)
            }
        };
        let (endpoint, at) = match seen {
            Some((endpoint, at)) => (Some(endpoint), at),
            None => (None, left?),
        };
        Some(PeerLocation { endpoint, at })
    }

    /// When it was last seen, by the account or by an endpoint.
    pub fn last_seen(&self) -> Seconds {
        let last = self.account.last_announce;
        let seen = self.v4.map(|seen| seen.last_seen(last));
        let seen = seen.max(self.v6.map(|seen| seen.last_seen(last)));
        seen.map_or(last, |seen| seen.max(last))
    }

    /// Gives up the endpoints of both families; the record stays as a tombstone.
    pub fn depart(&mut self) {
        for family in Family::BOTH {
            self.lose(family);
        }
    }

    /// Enters the swarm at that endpoint, or moves there (rule W2). Its other family stays. The new location
    /// counts as later than the known one, even if that has a later time by another node's clock.
    pub fn enter(&mut self, endpoint: Endpoint, role: Role, at: Seconds) {
        self.role = Some(role);
        match endpoint {
            Endpoint::V4(endpoint) => {
                let at = after(at, self.v4.as_ref(), self.left_v4.take());
                self.v4 = Some(SeenEndpoint { endpoint, at });
            }
            Endpoint::V6(endpoint) => {
                let at = after(at, self.v6.as_ref(), self.left_v6.take());
                self.v6 = Some(SeenEndpoint { endpoint, at });
            }
        }
    }

    /// Gives up the endpoint of that family; with its last one the peer leaves (rule W3).
    /// Returns whether it was in the swarm and left it.
    pub fn leave(&mut self, family: Family, at: Seconds) -> bool {
        match family {
            Family::V4 => {
                let seen = self.v4.take().map(|seen| seen.at);
                self.left_v4 = seen.max(self.left_v4).max(Some(at));
            }
            Family::V6 => {
                let seen = self.v6.take().map(|seen| seen.at);
                self.left_v6 = seen.max(self.left_v6).max(Some(at));
            }
        }
        if self.v4.is_some() || self.v6.is_some() {
            return false;
        }
        self.role.take().is_some()
    }

    /// Gives up the endpoints that were last seen before `alive_since`; returns whether the peer
    /// left the swarm.
    pub fn expire(&mut self, alive_since: Seconds) -> bool {
        let last = self.account.last_announce;
        let v4 = self
            .v4
            .is_some_and(|seen| seen.last_seen(last) < alive_since);
        let v6 = self
            .v6
            .is_some_and(|seen| seen.last_seen(last) < alive_since);
        let mut left = v4 && self.lose(Family::V4);
        left |= v6 && self.lose(Family::V6);
        left
    }

    /// Gives up the endpoint of that family as of when it was last seen: any later announce from there
    /// counts. Returns whether the peer was in the swarm and left it.
    fn lose(&mut self, family: Family) -> bool {
        let seen = match family {
            Family::V4 => self.v4.map(|seen| seen.at),
            Family::V6 => self.v6.map(|seen| seen.at),
        };
        seen.is_some_and(|at| self.leave(family, at))
    }

    /// Adopts another node's location of it in that family.
    pub fn follow(&mut self, family: Family, theirs: PeerLocation, role: Role) {
        match theirs.endpoint {
            Some(endpoint) => self.enter(endpoint, role, theirs.at),
            None => drop(self.leave(family, theirs.at)),
        }
    }

    /// Sets the role of a peer that is in the swarm.
    pub fn set_role(&mut self, role: Role) {
        if let Some(own) = &mut self.role {
            *own = role;
        }
    }
}

// === impl SeenEndpoint ===

impl<C> SeenEndpoint<C> {
    /// When the client was seen there; `last` is the last announce of its account. The endpoint's time
    /// may be later than that, if the two come from records of two nodes. It is also later by a few
    /// seconds if the endpoint was given up and entered within one second, to keep the order; then the
    /// account's time is right.
    pub fn last_seen(&self, last: Seconds) -> Seconds {
        if i64::from(self.at.since(last)) > CLOCK_SKEW {
            self.at
        } else {
            self.at.min(last)
        }
    }
}

/// The time of an announce, but no earlier than what was known of its family, and later than a departure.
fn after<C>(at: Seconds, seen: Option<&SeenEndpoint<C>>, left: Option<Seconds>) -> Seconds {
    let known = seen.map(|seen| seen.at).max(left.map(|left| left.plus(1)));
    known.map_or(at, |known| known.max(at))
}

// === impl PeerLocation ===

impl PeerLocation {
    /// Whether it replaces `other`. In the same second, a lost endpoint takes precedence; else
    /// the newer record decides.
    pub fn replaces(self, other: Self, is_newer: bool) -> bool {
        if self.at != other.at {
            return self.at > other.at;
        }
        match (self.endpoint, other.endpoint) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            _ => is_newer,
        }
    }
}

// === impl Family ===

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::V4(_) => Self::V4,
            Endpoint::V6(_) => Self::V6,
        }
    }
}
