//! A large public swarm: a [`PeerSet`] of each family.

use crate::base::addr::{Compact, Compact4, Compact6};
use crate::base::clock::Seconds;
use crate::swarm::draw::Selector;
use crate::swarm::public::endpoint::PackedEndpoint;
use crate::swarm::public::peer::{Before, ClientTag};
use crate::swarm::public::peer_set::PeerSet;
use crate::swarm::public::pool::{Pool, UNITS_MAX};
use crate::swarm::public::small::SmallPublic;
use crate::swarm::public::{Known, NewPeer, PeerRequest, inherit};

/// A large swarm becomes a small one again when it needs at most this number of units.
const SMALL_AGAIN: usize = UNITS_MAX / 2;

#[derive(Debug, Default)]
pub(super) struct LargePublic {
    pub v4: PeerSet<Compact4>,
    pub v6: PeerSet<Compact6>,
    pub snatches: u32,
    is_sweeping: bool,
}

impl LargePublic {
    /// The peers of a small swarm.
    pub fn of(small: &SmallPublic, pool: &Pool) -> Self {
        let mut large = Self {
            snatches: small.snatches(),
            ..Self::default()
        };
        for packed in Compact4::in_small(small, pool) {
            large.v4.insert(Compact4::unpack(packed), Seconds(0));
        }
        for packed in Compact6::in_small(small, pool) {
            large.v6.insert(Compact6::unpack(packed), Seconds(0));
        }
        large
    }

    /// Its peers as a small swarm.
    pub fn to_small(&self, pool: &mut Pool) -> SmallPublic {
        let mut small = SmallPublic::new(pool, self.units(), self.snatches);
        for peer in self.v4.peers() {
            small.push(pool, peer);
        }
        for peer in self.v6.peers() {
            small.push(pool, peer);
        }
        small
    }

    pub fn is_empty(&self) -> bool {
        self.units() == 0
    }

    /// Whether it is small enough for a small swarm.
    pub fn is_small(&self) -> bool {
        self.units() <= SMALL_AGAIN
    }

    /// Units that it would take as a small swarm.
    fn units(&self) -> usize {
        self.v4.len() + 2 * self.v6.len()
    }

    /// Continues a sweep, or begins one; returns how many peers were removed, and whether it is done.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> (usize, bool) {
        if !self.is_sweeping {
            self.is_sweeping = true;
            self.v4.begin_sweep();
            self.v6.begin_sweep();
        }
        let v4 = self.v4.sweep(alive_since, budget);
        let v6 = self.v6.sweep(alive_since, budget);
        self.is_sweeping = !(self.v4.is_swept() && self.v6.is_swept());
        (v4 + v6, !self.is_sweeping)
    }
}

/// Updates a peer, if it is there.
pub(super) fn update<C: PackedEndpoint>(
    peers: &mut PeerSet<C>,
    mut new: NewPeer<C>,
) -> Option<Known> {
    let (client, alive_since) = (new.client, new.alive_since);
    let endpoint = new.member.endpoint;
    let place = peers.find(endpoint, client)?;
    let old = *peers.get(place);
    let before = inherit(&old, &mut new);
    let member = new.member;
    let same_client = old.is_client(endpoint, client);
    if same_client && old.endpoint == endpoint {
        if old.role() == member.role() {
            *peers.get_mut(place) = member;
        } else {
            peers.reclass(place, member, alive_since);
        }
        return Some(Known(before));
    }
    peers.remove(place);
    if !same_client && let Some(left) = peers.find(endpoint, client) {
        peers.remove(left);
    }
    peers.insert(member, alive_since);
    Some(Known(before))
}

/// Removes a peer; returns what it was.
pub(super) fn remove<C: Compact>(
    peers: &mut PeerSet<C>,
    endpoint: C,
    client: ClientTag,
) -> Option<Before> {
    let place = peers.find(endpoint, client)?;
    let before = peers.get(place).before();
    peers.remove(place);
    Some(before)
}

pub(super) fn set_counted<C: Compact>(peers: &mut PeerSet<C>, endpoint: C, client: ClientTag) {
    if let Some(place) = peers.find(endpoint, client) {
        peers.get_mut(place).set_counted();
    }
}

pub(super) fn select<C: Compact>(
    peers: &PeerSet<C>,
    request: &PeerRequest<'_, C>,
    selector: &mut Selector,
    out: &mut Vec<u8>,
) {
    let candidates = peers.candidates(request.role);
    selector.select(candidates.len(), request.want, |drawn| {
        let member = &candidates[drawn];
        request.is_other(member) && request.hand_out(member, out)
    });
}
