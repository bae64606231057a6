//! A small public swarm: its peers are in a run of the shard's [pool](super::pool), or in place if
//! there is a single IPv4 peer. Everything is done by a scan of all peers.
//!
//! An IPv4 peer takes a unit from the front of the run, an IPv6 peer two from the back:
//!
//! ```text
//! | v4 | v4 | v4 |  free  |   v6    |   v6    |
//! ```

use crate::base::clock::Seconds;
use crate::swarm::classes::{PeerCounts, Role};
use crate::swarm::draw::Selector;
use crate::swarm::public::endpoint::PackedEndpoint;
use crate::swarm::public::peer::{Before, ClientTag, PublicPeer};
use crate::swarm::public::pool::{Pool, Run, UNITS_MAX, Unit};
use crate::swarm::public::{Known, NewPeer, PeerRequest, inherit};

/// Peers of both families, at most [`UNITS_MAX`] units of them, and the torrent's snatches.
#[derive(Debug)]
pub(super) enum SmallPublic {
    /// At most one IPv4 peer.
    One {
        v4: u8,
        snatches: u16,
        unit: [Unit; 1],
    },
    /// Peers of each family.
    Several {
        v4: u8,
        v6: u8,
        run: Run,
        snatches: u32,
    },
}

impl Default for SmallPublic {
    fn default() -> Self {
        Self::One {
            v4: 0,
            snatches: 0,
            unit: [[0; 12]],
        }
    }
}

impl SmallPublic {
    /// An empty swarm with these `snatches` and room for `units`, at most [`UNITS_MAX`].
    pub fn new(pool: &mut Pool, units: usize, snatches: u32) -> Self {
        match (units, u16::try_from(snatches)) {
            (0..=1, Ok(snatches)) => Self::One {
                v4: 0,
                snatches,
                unit: [[0; 12]],
            },
            _ => Self::Several {
                v4: 0,
                v6: 0,
                run: pool.take(units),
                snatches,
            },
        }
    }

    pub fn snatches(&self) -> u32 {
        match *self {
            Self::One { snatches, .. } => snatches.into(),
            Self::Several { snatches, .. } => snatches,
        }
    }

    pub fn set_snatches(&mut self, pool: &mut Pool, number: u32) {
        match self {
            Self::Several { snatches, .. } => *snatches = number,
            Self::One { snatches, .. } => match u16::try_from(number) {
                Ok(number) => *snatches = number,
                Err(_) => self.rebuild(pool, self.used(), number),
            },
        }
    }

    /// Notes when the swarm was first found empty, in the unit that it does not use then.
    pub fn note_empty(&mut self, now: Seconds) {
        if let (None, Self::One { v4: 0, unit, .. }) = (self.empty_since(), self) {
            unit[0][..4].copy_from_slice(&now.0.to_le_bytes());
        }
    }

    /// When it was first found empty; not noted yet if the unit is all zeros.
    pub fn empty_since(&self) -> Option<Seconds> {
        let Self::One { v4: 0, unit, .. } = self else {
            return None;
        };
        let noted = unit[0]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        (noted != 0).then_some(Seconds(noted))
    }

    /// Units in use.
    pub fn used(&self) -> usize {
        let (v4, v6) = self.lens();
        v4 + 2 * v6
    }

    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Reads the first cache line of the peers, and the third.
    pub fn prefetch(&self, pool: &Pool) -> usize {
        let units = self.units(pool);
        let read = |at: usize| units.get(at).map_or(0, |unit| usize::from(unit[0]));
        read(0) + read(11)
    }

    /// Adds a peer; false if the swarm would be too large.
    pub fn push<C: PackedEndpoint>(&mut self, pool: &mut Pool, member: &PublicPeer<C>) -> bool {
        let used = self.used() + C::UNITS;
        if used > UNITS_MAX {
            return false;
        }
        if used > self.units(pool).len() {
            let roomy = (used + used / 8).min(UNITS_MAX);
            self.rebuild(pool, roomy, self.snatches());
        }
        let len = C::in_small(self, pool).len() + 1;
        C::set_len(self, len);
        C::in_small_mut(self, pool)[C::newest(len)] = C::pack(member);
        true
    }

    /// Removes a peer; the newest one moves to its place.
    pub fn remove<C: PackedEndpoint>(&mut self, pool: &mut Pool, place: usize) {
        let all = C::in_small_mut(self, pool);
        let len = all.len();
        all[place] = all[C::newest(len)];
        C::set_len(self, len - 1);
    }

    /// Gives spare memory back, beyond a slack for swarms that grow and shrink.
    pub fn shrink(&mut self, pool: &mut Pool) {
        let (used, units) = (self.used(), self.units(pool).len());
        if used == 0 || units > used + used / 4 + 2 {
            self.rebuild(pool, used, self.snatches());
        }
    }

    /// Removes all peers.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Self::Several { run, .. } = self {
            pool.give_back(*run);
        }
        *self = Self::default();
    }

    /// Moves to another pool, without spare units.
    pub fn move_over(&mut self, from: &Pool, to: &mut Pool) {
        if let Self::Several { snatches, .. } = *self {
            let (v4, v6) = self.ends(self.units(from));
            let mut moved = Self::new(to, self.used(), snatches);
            moved.fill(to, v4, v6);
            *self = moved;
        }
    }

    /// Moves all peers to a run of `units`, which must not be fewer than are in use.
    fn rebuild(&mut self, pool: &mut Pool, units: usize, snatches: u32) {
        let mut kept = [[0; 12]; UNITS_MAX];
        let old = self.units(pool);
        let kept = &mut kept[..old.len()];
        kept.copy_from_slice(old);
        let (v4, v6) = self.ends(kept);
        if let Self::Several { run, .. } = self {
            pool.give_back(*run);
        }
        let mut small = Self::new(pool, units, snatches);
        small.fill(pool, v4, v6);
        *self = small;
    }

    /// Writes all peers of both families into an empty swarm.
    fn fill(&mut self, pool: &mut Pool, v4: &[Unit], v6: &[Unit]) {
        let units = self.units_mut(pool);
        let v6_start = units.len() - v6.len();
        units[..v4.len()].copy_from_slice(v4);
        units[v6_start..].copy_from_slice(v6);
        self.set_lens(v4.len(), v6.len() / 2);
    }

    /// The units of each family.
    pub fn ends<'a>(&self, units: &'a [Unit]) -> (&'a [Unit], &'a [Unit]) {
        let (v4, v6) = self.lens();
        (&units[..v4], &units[units.len() - 2 * v6..])
    }

    /// Peers of each family.
    pub fn lens(&self) -> (usize, usize) {
        match *self {
            Self::One { v4, .. } => (v4.into(), 0),
            Self::Several { v4, v6, .. } => (v4.into(), v6.into()),
        }
    }

    pub fn set_lens(&mut self, v4_len: usize, v6_len: usize) {
        match self {
            Self::One { v4, .. } => *v4 = v4_len as u8,
            Self::Several { v4, v6, .. } => (*v4, *v6) = (v4_len as u8, v6_len as u8),
        }
    }

    pub fn units<'a>(&'a self, pool: &'a Pool) -> &'a [Unit] {
        match self {
            Self::One { unit, .. } => unit,
            Self::Several { run, .. } => pool.get(*run),
        }
    }

    pub fn units_mut<'a>(&'a mut self, pool: &'a mut Pool) -> &'a mut [Unit] {
        match self {
            Self::One { unit, .. } => unit,
            Self::Several { run, .. } => pool.get_mut(*run),
        }
    }
}

/// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
pub(super) fn find<C: PackedEndpoint>(
    all: &[C::Packed],
    endpoint: C,
    client: ClientTag,
) -> Option<usize> {
    let all = || all.iter().map(C::unpack);
    all()
        .position(|peer| peer.is_at(endpoint, client))
        .or_else(|| all().position(|peer| peer.is_client(endpoint, client)))
}

/// Updates a peer, if it is there.
pub(super) fn update<C: PackedEndpoint>(
    small: &mut SmallPublic,
    pool: &mut Pool,
    mut new: NewPeer<C>,
) -> Option<Known> {
    let NewPeer { client, .. } = new;
    let endpoint = new.member.endpoint;
    let all = C::in_small_mut(small, pool);
    let place = find(all, endpoint, client)?;
    let old = C::unpack(&all[place]);
    let before = inherit(&old, &mut new);
    all[place] = C::pack(&new.member);
    // A client that moves to another one's port may leave its own old port behind.
    if !old.is_client(endpoint, client) {
        let mut all = all.iter().map(C::unpack).enumerate();
        let left = all.find(|(at, it)| *at != place && it.is_client(endpoint, client));
        if let Some((left, _)) = left {
            small.remove::<C>(pool, left);
            small.shrink(pool);
        }
    }
    Some(Known(before))
}

/// Removes a peer; returns what it was.
pub(super) fn remove<C: PackedEndpoint>(
    small: &mut SmallPublic,
    pool: &mut Pool,
    endpoint: C,
    client: ClientTag,
) -> Option<Before> {
    let all = C::in_small(small, pool);
    let place = find(all, endpoint, client)?;
    let before = C::unpack(&all[place]).before();
    small.remove::<C>(pool, place);
    small.shrink(pool);
    Some(before)
}

pub(super) fn set_counted<C: PackedEndpoint>(
    all: &mut [C::Packed],
    endpoint: C,
    client: ClientTag,
) {
    if let Some(place) = find(all, endpoint, client) {
        let mut member = C::unpack(&all[place]);
        member.set_counted();
        all[place] = C::pack(&member);
    }
}

pub(super) fn peers_of_host<C: PackedEndpoint>(all: &[C::Packed], endpoint: C) -> usize {
    all.iter()
        .map(C::unpack)
        .filter(|peer| peer.endpoint.host() == endpoint.host())
        .count()
}

pub(super) fn counts<C: PackedEndpoint>(all: &[C::Packed]) -> PeerCounts {
    let roles = all.iter().map(|packed| C::unpack(packed).role());
    roles.fold(PeerCounts::default(), |sum, role| {
        sum.plus(PeerCounts::of(role))
    })
}

/// Removes peers that were last seen before `alive_since`; returns how many.
pub(super) fn expire<C: PackedEndpoint>(
    small: &mut SmallPublic,
    pool: &mut Pool,
    alive_since: Seconds,
) -> usize {
    let before = C::in_small(small, pool).len();
    // The newest peer moves to the place of a removed one. The newest IPv4 peer is last, so it is checked there;
    // the newest IPv6 peer is first, so it was checked before.
    let mut place = 0;
    while let Some(packed) = C::in_small(small, pool).get(place) {
        if C::unpack(packed).is_alive(alive_since) {
            place += 1;
        } else {
            small.remove::<C>(pool, place);
        }
    }
    before - C::in_small(small, pool).len()
}

pub(super) fn select<C: PackedEndpoint>(
    all: &[C::Packed],
    request: &PeerRequest<'_, C>,
    selector: &mut Selector,
    out: &mut Vec<u8>,
) {
    let (mut eligible, mut len) = ([0_u8; UNITS_MAX], 0);
    for (place, packed) in all.iter().enumerate() {
        let it = C::unpack(packed);
        let fits = request.role == Role::Leecher || it.role() == Role::Leecher;
        if fits && it.endpoint.port() != 0 && request.may_get(&it) {
            eligible[len] = place as u8;
            len += 1;
        }
    }
    selector.select(len, request.want, |drawn| {
        let member = C::unpack(&all[usize::from(eligible[drawn])]);
        request.hand_out(&member, out)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    impl SmallPublic {
        /// Checks that it has little more memory than its peers need.
        pub fn check(&self, pool: &Pool) {
            let (used, units) = (self.used(), self.units(pool).len());
            let is_tight = used <= units && units <= (used + used / 4 + 2).max(1);
            assert!(is_tight, "{used} of {units}");
        }

        /// Its run, if it has one.
        pub fn run(&self) -> Option<Run> {
            match self {
                Self::One { .. } => None,
                Self::Several { run, .. } => Some(*run),
            }
        }
    }
}
