//! What is done in a small public swarm: everything by a look at each of its peers.

use crate::base::clock::Seconds;
use crate::swarm::classes::{Counts, Role};
use crate::swarm::member::{Before, ClientTag, Kept};
use crate::swarm::public::few::{Few, InFew};
use crate::swarm::public::pool::{Pool, UNITS_MAX};
use crate::swarm::public::{Asker, Known, Newcomer, take_over};
use crate::swarm::select::Selector;

/// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
pub(super) fn find<C: Kept>(all: &[C::Packed], endpoint: C, client: ClientTag) -> Option<usize> {
    let all = || all.iter().map(C::unpack);
    all()
        .position(|it| it.is_at(endpoint, client))
        .or_else(|| all().position(|it| it.is_client(endpoint, client)))
}

/// Updates a peer, if it is there.
pub(super) fn update<C: InFew>(
    few: &mut Few,
    pool: &mut Pool,
    mut newcomer: Newcomer<C>,
) -> Option<Known> {
    let Newcomer { client, .. } = newcomer;
    let endpoint = newcomer.member.endpoint;
    let all = C::all_mut(few, pool);
    let place = find(all, endpoint, client)?;
    let old = C::unpack(&all[place]);
    let before = take_over(&old, &mut newcomer);
    all[place] = C::pack(&newcomer.member);
    // Who takes over the port of another client may leave a port of its own behind.
    if !old.is_client(endpoint, client) {
        let mut all = all.iter().map(C::unpack).enumerate();
        let left = all.find(|(at, it)| *at != place && it.is_client(endpoint, client));
        if let Some((left, _)) = left {
            few.remove::<C>(pool, left);
            few.shrink(pool);
        }
    }
    Some(Known(before))
}

/// Takes a peer out; returns what it was.
pub(super) fn remove<C: InFew>(
    few: &mut Few,
    pool: &mut Pool,
    endpoint: C,
    client: ClientTag,
) -> Option<Before> {
    let all = C::all(few, pool);
    let place = find(all, endpoint, client)?;
    let before = C::unpack(&all[place]).before();
    few.remove::<C>(pool, place);
    few.shrink(pool);
    Some(before)
}

pub(super) fn set_counted<C: Kept>(all: &mut [C::Packed], endpoint: C, client: ClientTag) {
    if let Some(place) = find(all, endpoint, client) {
        let mut member = C::unpack(&all[place]);
        member.set_counted();
        all[place] = C::pack(&member);
    }
}

pub(super) fn peers_of_host<C: Kept>(all: &[C::Packed], endpoint: C) -> usize {
    let all = all.iter().map(C::unpack);
    all.filter(|it| it.endpoint.host() == endpoint.host())
        .count()
}

pub(super) fn counts<C: Kept>(all: &[C::Packed]) -> Counts {
    let roles = all.iter().map(|packed| C::unpack(packed).role());
    roles.fold(Counts::default(), |sum, role| sum.plus(Counts::of(role)))
}

/// Takes out those who were last seen before `alive_since`; returns how many.
pub(super) fn expire<C: InFew>(few: &mut Few, pool: &mut Pool, alive_since: Seconds) -> usize {
    let before = C::all(few, pool).len();
    // From the end that others come from when one goes: they were looked at.
    let mut place = 0;
    while let Some(packed) = C::all(few, pool).get(place) {
        if C::unpack(packed).is_alive(alive_since) {
            place += 1;
        } else {
            few.remove::<C>(pool, place);
        }
    }
    before - C::all(few, pool).len()
}

pub(super) fn select<C: Kept>(
    all: &[C::Packed],
    asker: &Asker<'_, C>,
    selector: &mut Selector,
    out: &mut Vec<u8>,
) {
    let (mut eligible, mut len) = ([0_u8; UNITS_MAX], 0);
    for (place, packed) in all.iter().enumerate() {
        let it = C::unpack(packed);
        let fits = asker.role == Role::Leecher || it.role() == Role::Leecher;
        if fits && it.endpoint.port() != 0 && asker.may_get(&it) {
            eligible[len] = place as u8;
            len += 1;
        }
    }
    selector.select(len, asker.want, |drawn| {
        let member = C::unpack(&all[usize::from(eligible[drawn])]);
        asker.hand_out(&member, out)
    });
}
