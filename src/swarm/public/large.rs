//! A large public swarm: a crowd of each family.

use crate::base::addr::{Compact, Compact4, Compact6};
use crate::base::clock::Seconds;
use crate::swarm::crowd::Crowd;
use crate::swarm::member::{Before, ClientTag, Kept};
use crate::swarm::public::few::{Few, InFew};
use crate::swarm::public::pool::{Pool, UNITS_MAX};
use crate::swarm::public::{Asker, Known, Newcomer, take_over};
use crate::swarm::select::Selector;

/// One is kept as a small swarm again when so few units would do.
const FEW_AGAIN: usize = UNITS_MAX / 2;

#[derive(Debug, Default)]
pub(super) struct Many {
    pub v4: Crowd<Compact4>,
    pub v6: Crowd<Compact6>,
    pub downloaded: u32,
    is_sweeping: bool,
}

/// A family of peers in swarms of either size.
pub(super) trait Family: InFew {
    fn crowd(many: &Many) -> &Crowd<Self>;
    fn crowd_mut(many: &mut Many) -> &mut Crowd<Self>;
}

// === impl Many ===

impl Many {
    /// All of a small swarm.
    pub fn of(few: &Few, pool: &Pool) -> Self {
        let mut many = Self {
            downloaded: few.downloaded(),
            ..Self::default()
        };
        for packed in Compact4::all(few, pool) {
            many.v4.insert(Compact4::unpack(packed), Seconds(0));
        }
        for packed in Compact6::all(few, pool) {
            many.v6.insert(Compact6::unpack(packed), Seconds(0));
        }
        many
    }

    /// The same as a small swarm.
    pub fn few(&self, pool: &mut Pool) -> Few {
        let mut few = Few::new(pool, self.units(), self.downloaded);
        self.v4.members().iter().for_each(|it| {
            few.push(pool, it);
        });
        self.v6.members().iter().for_each(|it| {
            few.push(pool, it);
        });
        few
    }

    pub fn is_empty(&self) -> bool {
        self.units() == 0
    }

    /// It is large no more.
    pub fn is_few(&self) -> bool {
        self.units() <= FEW_AGAIN
    }

    /// Units that it would take as a small swarm.
    fn units(&self) -> usize {
        self.v4.len() + 2 * self.v6.len()
    }

    /// Goes on with a sweep, or begins one; returns how many went, and whether it is done.
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

impl Family for Compact4 {
    fn crowd(many: &Many) -> &Crowd<Self> {
        &many.v4
    }

    fn crowd_mut(many: &mut Many) -> &mut Crowd<Self> {
        &mut many.v4
    }
}

impl Family for Compact6 {
    fn crowd(many: &Many) -> &Crowd<Self> {
        &many.v6
    }

    fn crowd_mut(many: &mut Many) -> &mut Crowd<Self> {
        &mut many.v6
    }
}

/// Updates a peer, if it is there.
pub(super) fn update<C: Kept>(crowd: &mut Crowd<C>, mut newcomer: Newcomer<C>) -> Option<Known> {
    let Newcomer {
        client,
        alive_since,
        ..
    } = newcomer;
    let endpoint = newcomer.member.endpoint;
    let place = crowd.find(endpoint, client)?;
    let old = *crowd.get(place);
    let before = take_over(&old, &mut newcomer);
    let member = newcomer.member;
    let same_client = old.is_client(endpoint, client);
    if same_client && old.endpoint == endpoint {
        if old.role() == member.role() {
            *crowd.get_mut(place) = member;
        } else {
            crowd.reclass(place, member, alive_since);
        }
        return Some(Known(before));
    }
    crowd.take(place);
    if !same_client && let Some(left) = crowd.find(endpoint, client) {
        crowd.take(left);
    }
    crowd.insert(member, alive_since);
    Some(Known(before))
}

/// Takes a peer out; returns what it was.
pub(super) fn remove<C: Compact>(
    crowd: &mut Crowd<C>,
    endpoint: C,
    client: ClientTag,
) -> Option<Before> {
    let place = crowd.find(endpoint, client)?;
    let before = crowd.get(place).before();
    crowd.take(place);
    Some(before)
}

pub(super) fn set_counted<C: Compact>(crowd: &mut Crowd<C>, endpoint: C, client: ClientTag) {
    if let Some(place) = crowd.find(endpoint, client) {
        crowd.get_mut(place).set_counted();
    }
}

pub(super) fn select<C: Compact>(
    crowd: &Crowd<C>,
    asker: &Asker<'_, C>,
    selector: &mut Selector,
    out: &mut Vec<u8>,
) {
    let candidates = crowd.candidates(asker.role);
    selector.select(candidates.len(), asker.want, |drawn| {
        let member = &candidates[drawn];
        asker.is_other(member) && asker.hand_out(member, out)
    });
}
