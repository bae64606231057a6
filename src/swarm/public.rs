//! The swarm of a public torrent: who is there, by endpoint (rule W1).

use crate::addr::{Compact4, Compact6, Endpoint};
use crate::clock::Seconds;
use crate::swarm::classes::{Counts, Role};
use crate::swarm::crowd::Crowd;
use crate::swarm::few::{Few, InFew, UNITS_MAX};
use crate::swarm::member::{Before, ClientTag, Kept, Member};
use crate::swarm::select::Selector;

/// A public torrent's peers of both families, and its snatches, which outlive the peers.
///
/// Sixteen bytes for itself, because most swarms are small and there are millions of them.
#[derive(Debug, Default)]
pub struct PublicSwarm(Store);

#[derive(Debug)]
enum Store {
    Few(Few),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
struct Many {
    v4: Crowd<Compact4>,
    v6: Crowd<Compact6>,
    downloaded: u32,
    is_sweeping: bool,
}

/// A peer that announces.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    pub endpoint: Endpoint,
    pub client: ClientTag,
    pub role: Role,
    pub seen: Seconds,
}

/// What decides who of a range is eligible (rule W8).
#[derive(Clone, Copy, Debug)]
pub struct Eligibility {
    /// Peers last seen before this have expired.
    pub alive_since: Seconds,
    /// Addresses that the internet can't reach are given out: the requester has one too.
    pub allow_local: bool,
}

/// There are as many peers of that host as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPeers;

/// A peer that is there, and what it was, if it was alive.
struct Known(Option<Before>);

/// A large swarm is kept as a small one again when so few units would do.
const FEW_AGAIN: usize = UNITS_MAX / 2;

/// What a sweep counts for a small swarm beside its peers: the way to it costs more than they do.
const SWEEP_COST: usize = 8;

/// A family of peers in swarms of either size.
trait Family: InFew {
    fn crowd(many: &Many) -> &Crowd<Self>;
    fn crowd_mut(many: &mut Many) -> &mut Crowd<Self>;
}

// === impl PublicSwarm ===

impl Default for Store {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl PublicSwarm {
    pub fn counts(&self) -> Counts {
        match &self.0 {
            Store::Few(few) => counts::<Compact4>(few).plus(counts::<Compact6>(few)),
            Store::Many(many) => many.v4.counts().plus(many.v6.counts()),
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Store::Few(few) => few.is_empty(),
            Store::Many(many) => many.units() == 0,
        }
    }

    pub fn downloaded(&self) -> u32 {
        match &self.0 {
            Store::Few(few) => few.downloaded(),
            Store::Many(many) => many.downloaded,
        }
    }

    pub fn set_downloaded(&mut self, downloaded: u32) {
        match &mut self.0 {
            Store::Few(few) => few.set_downloaded(downloaded),
            Store::Many(many) => many.downloaded = downloaded,
        }
    }

    /// Counts a snatch.
    pub fn add_snatch(&mut self) {
        self.set_downloaded(self.downloaded().saturating_add(1));
    }

    /// Puts a peer in, or updates it; returns what it was before: nothing, if it was last seen
    /// before `alive_since`.
    ///
    /// # Errors
    /// It would be a new one, and its host, if the internet can reach it, has `max_per_host`
    /// peers already; 0 is no limit. Nothing was changed.
    pub fn upsert(
        &mut self,
        peer: &Presence,
        alive_since: Seconds,
        max_per_host: u32,
    ) -> Result<Option<Before>, TooManyPeers> {
        match peer.endpoint {
            Endpoint::V4(at) => self.upsert_at(at, peer, alive_since, max_per_host),
            Endpoint::V6(at) => self.upsert_at(at, peer, alive_since, max_per_host),
        }
    }

    /// Remembers that the peer's snatch was counted.
    pub fn set_counted(&mut self, endpoint: Endpoint, client: ClientTag) {
        match endpoint {
            Endpoint::V4(at) => self.set_counted_at(at, client),
            Endpoint::V6(at) => self.set_counted_at(at, client),
        }
    }

    /// Takes a peer out; returns what it was.
    pub fn remove(&mut self, endpoint: Endpoint, client: ClientTag) -> Option<Before> {
        match endpoint {
            Endpoint::V4(at) => self.remove_at(at, client),
            Endpoint::V6(at) => self.remove_at(at, client),
        }
    }

    /// Takes out those who were last seen before `alive_since`, looking at not much more than
    /// `budget` peers, which it lessens by those that it looked at. Returns how many went, and
    /// whether all were looked at; if not, it goes on with the others when it is called again.
    pub fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> (usize, bool) {
        if let Store::Many(many) = &mut self.0 {
            let expired = many.sweep(alive_since, budget);
            let is_done = !many.is_sweeping;
            if many.units() > FEW_AGAIN {
                return (expired, is_done);
            }
            self.compact();
            return (expired + self.sweep(alive_since, budget).0, true);
        }
        let Store::Few(few) = &mut self.0 else {
            return (0, true);
        };
        let before = few.used();
        *budget = budget.saturating_sub(before + SWEEP_COST);
        let expired = expire::<Compact4>(few, alive_since) + expire::<Compact6>(few, alive_since);
        if expired > 0 {
            few.shrink();
        }
        (expired, true)
    }

    /// Reads on the way to a peer, one after the other, for [`Swarms::touch`](super::Swarms::touch).
    pub const TOUCHES: [fn(&Self, Endpoint) -> usize; 3] =
        [Self::touch, Self::touch_index, Self::touch_peer];

    fn touch(&self, endpoint: Endpoint) -> usize {
        match (&self.0, endpoint) {
            (Store::Few(few), _) => few.touch(),
            (Store::Many(many), Endpoint::V4(_)) => many.v4.touch(),
            (Store::Many(many), Endpoint::V6(_)) => many.v6.touch(),
        }
    }

    fn touch_index(&self, endpoint: Endpoint) -> usize {
        match (&self.0, endpoint) {
            (Store::Few(_), _) => 0,
            (Store::Many(many), Endpoint::V4(at)) => many.v4.touch_index(at),
            (Store::Many(many), Endpoint::V6(at)) => many.v6.touch_index(at),
        }
    }

    fn touch_peer(&self, endpoint: Endpoint) -> usize {
        let place = match (&self.0, endpoint) {
            (Store::Few(_), _) => None,
            (Store::Many(many), Endpoint::V4(at)) => many.v4.glance(at),
            (Store::Many(many), Endpoint::V6(at)) => many.v6.glance(at),
        };
        place.unwrap_or(0)
    }

    /// Appends up to `want` endpoints of the requester's family, its own excepted.
    pub fn select(
        &self,
        requester: Endpoint,
        role: Role,
        want: usize,
        eligibility: Eligibility,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        match requester {
            Endpoint::V4(own) => self.select_for(own, role, want, eligibility, selector, out),
            Endpoint::V6(own) => self.select_for(own, role, want, eligibility, selector, out),
        }
    }

    fn upsert_at<C: Family>(
        &mut self,
        endpoint: C,
        peer: &Presence,
        alive_since: Seconds,
        max_per_host: u32,
    ) -> Result<Option<Before>, TooManyPeers> {
        let member = Member::new(endpoint, peer.client, peer.role, peer.seen);
        let found = match &mut self.0 {
            Store::Few(few) => update_few(few, member, peer.client, alive_since),
            Store::Many(many) => {
                let crowd = C::crowd_mut(many);
                update_many(crowd, member, peer.client, alive_since)
            }
        };
        if let Some(Known(before)) = found {
            self.compact();
            return Ok(before);
        }
        if max_per_host > 0
            && endpoint.is_global()
            && self.peers_of_host(endpoint) >= max_per_host as usize
        {
            return Err(TooManyPeers);
        }
        self.insert(&member, alive_since);
        Ok(None)
    }

    fn peers_of_host<C: Family>(&self, endpoint: C) -> usize {
        match &self.0 {
            Store::Few(few) => {
                let all = C::all(few).iter().map(C::unpack);
                all.filter(|it| it.endpoint.host() == endpoint.host())
                    .count()
            }
            Store::Many(many) => C::crowd(many).peers_of_host(endpoint),
        }
    }

    fn insert<C: Family>(&mut self, member: &Member<C>, alive_since: Seconds) {
        if let Store::Few(few) = &mut self.0 {
            if few.push(member) {
                return;
            }
            self.0 = Store::Many(Box::new(Many::of(few)));
        }
        if let Store::Many(many) = &mut self.0 {
            C::crowd_mut(many).insert(*member, alive_since);
        }
    }

    fn set_counted_at<C: Family>(&mut self, endpoint: C, client: ClientTag) {
        match &mut self.0 {
            Store::Few(few) => {
                if let Some(place) = find(C::all(few), endpoint, client) {
                    let packed = &mut C::all_mut(few)[place];
                    let mut member = C::unpack(packed);
                    member.set_counted();
                    *packed = C::pack(&member);
                }
            }
            Store::Many(many) => {
                let crowd = C::crowd_mut(many);
                if let Some(place) = crowd.find(endpoint, client) {
                    crowd.get_mut(place).set_counted();
                }
            }
        }
    }

    fn remove_at<C: Family>(&mut self, endpoint: C, client: ClientTag) -> Option<Before> {
        let before = match &mut self.0 {
            Store::Few(few) => {
                let place = find(C::all(few), endpoint, client)?;
                let before = C::unpack(&C::all(few)[place]).before();
                few.remove::<C>(place);
                few.shrink();
                before
            }
            Store::Many(many) => {
                let crowd = C::crowd_mut(many);
                let place = crowd.find(endpoint, client)?;
                let before = crowd.get(place).before();
                crowd.take(place);
                before
            }
        };
        self.compact();
        Some(before)
    }

    /// Keeps a large swarm that became small as one.
    fn compact(&mut self) {
        if let Store::Many(many) = &self.0
            && many.units() <= FEW_AGAIN
        {
            self.0 = Store::Few(many.few());
        }
    }

    fn select_for<C: Family>(
        &self,
        own: C,
        role: Role,
        want: usize,
        eligibility: Eligibility,
        selector: &mut Selector,
        out: &mut Vec<u8>,
    ) {
        let is_eligible = |it: &Member<C>| {
            it.is_alive(eligibility.alive_since)
                && it.endpoint != own
                && (eligibility.allow_local || it.endpoint.is_global())
        };
        match &self.0 {
            Store::Few(few) => {
                let all = C::all(few);
                let (mut eligible, mut len) = ([0; UNITS_MAX], 0);
                for (place, packed) in all.iter().enumerate() {
                    let it = C::unpack(packed);
                    let fits = role == Role::Leecher || it.role() == Role::Leecher;
                    if fits && it.endpoint.port() != 0 && is_eligible(&it) {
                        eligible[len] = place;
                        len += 1;
                    }
                }
                selector.select(len, want, |drawn| {
                    let member = C::unpack(&all[eligible[drawn]]);
                    out.extend_from_slice(member.endpoint.as_ref());
                    true
                });
            }
            Store::Many(many) => {
                let candidates = C::crowd(many).candidates(role);
                selector.select(candidates.len(), want, |drawn| {
                    let member = &candidates[drawn];
                    let eligible = is_eligible(member);
                    if eligible {
                        out.extend_from_slice(member.endpoint.as_ref());
                    }
                    eligible
                });
            }
        }
    }
}

/// Updates a peer, if it is there.
fn update_few<C: Family>(
    few: &mut Few,
    mut member: Member<C>,
    client: ClientTag,
    alive_since: Seconds,
) -> Option<Known> {
    let endpoint = member.endpoint;
    let place = find(C::all(few), endpoint, client)?;
    let old = C::unpack(&C::all(few)[place]);
    let before = take_over(&old, &mut member, alive_since);
    C::all_mut(few)[place] = C::pack(&member);
    // Who takes over the port of another client may leave a port of its own behind.
    if !old.is_client(endpoint, client) {
        let mut all = C::all(few).iter().map(C::unpack).enumerate();
        let left = all.find(|(at, it)| *at != place && it.is_client(endpoint, client));
        if let Some((left, _)) = left {
            few.remove::<C>(left);
            few.shrink();
        }
    }
    Some(Known(before))
}

/// The same in a large swarm.
fn update_many<C: Family>(
    crowd: &mut Crowd<C>,
    mut member: Member<C>,
    client: ClientTag,
    alive_since: Seconds,
) -> Option<Known> {
    let endpoint = member.endpoint;
    let place = crowd.find(endpoint, client)?;
    let old = *crowd.get(place);
    let before = take_over(&old, &mut member, alive_since);
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

/// Hands on to a member what is kept of the one in whose place it comes, if that is alive.
fn take_over<C: Family>(
    old: &Member<C>,
    member: &mut Member<C>,
    alive_since: Seconds,
) -> Option<Before> {
    let before = old.is_alive(alive_since).then(|| old.before());
    if before.is_some_and(|before| before.counted) {
        member.set_counted();
    }
    before
}

/// The place of a peer by its endpoint, or else of the same client at another port (rule W1).
fn find<C: Family>(all: &[C::Packed], endpoint: C, client: ClientTag) -> Option<usize> {
    let all = || all.iter().map(C::unpack);
    all()
        .position(|it| it.is_at(endpoint, client))
        .or_else(|| all().position(|it| it.is_client(endpoint, client)))
}

fn counts<C: Family>(few: &Few) -> Counts {
    let all = C::all(few).iter().map(|packed| C::unpack(packed).role());
    all.fold(Counts::default(), |sum, role| sum.plus(Counts::of(role)))
}

fn expire<C: Family>(few: &mut Few, alive_since: Seconds) -> usize {
    let before = C::all(few).len();
    // From the end that others come from when one goes: they were looked at.
    let mut place = 0;
    while let Some(packed) = C::all(few).get(place) {
        if C::unpack(packed).is_alive(alive_since) {
            place += 1;
        } else {
            few.remove::<C>(place);
        }
    }
    before - C::all(few).len()
}

// === impl Many ===

impl Many {
    /// All of a small swarm.
    fn of(few: &Few) -> Self {
        let mut many = Self {
            downloaded: few.downloaded(),
            ..Self::default()
        };
        for packed in Compact4::all(few) {
            many.v4.insert(Compact4::unpack(packed), Seconds(0));
        }
        for packed in Compact6::all(few) {
            many.v6.insert(Compact6::unpack(packed), Seconds(0));
        }
        many
    }

    /// The same as a small swarm.
    fn few(&self) -> Few {
        let mut few = Few::new(self.units(), self.downloaded);
        self.v4.members().iter().for_each(|it| {
            few.push(it);
        });
        self.v6.members().iter().for_each(|it| {
            few.push(it);
        });
        few
    }

    /// Units that it would take as a small swarm.
    fn units(&self) -> usize {
        self.v4.len() + 2 * self.v6.len()
    }

    fn sweep(&mut self, alive_since: Seconds, budget: &mut usize) -> usize {
        if !self.is_sweeping {
            self.is_sweeping = true;
            self.v4.begin_sweep();
            self.v6.begin_sweep();
        }
        let v4 = self.v4.sweep(alive_since, budget);
        let v6 = self.v6.sweep(alive_since, budget);
        self.is_sweeping = !(self.v4.is_swept() && self.v6.is_swept());
        v4 + v6
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeerId;

    fn endpoint(ip: &str, port: u16) -> Endpoint {
        Endpoint::new(ip.parse().unwrap(), port)
    }

    fn client(name: u8, key: Option<u32>) -> ClientTag {
        ClientTag::new(&PeerId([name; 20]), key)
    }

    fn put(
        swarm: &mut PublicSwarm,
        ip: &str,
        port: u16,
        tag: ClientTag,
        role: Role,
    ) -> Option<Role> {
        let peer = Presence {
            endpoint: endpoint(ip, port),
            client: tag,
            role,
            seen: Seconds::START,
        };
        let before = swarm.upsert(&peer, Seconds::START, 0).unwrap();
        swarm.check();
        before.map(|before| before.role)
    }

    /// Sweeps all of it in pieces of 10 peers; how many went.
    fn sweep(swarm: &mut PublicSwarm, alive_since: Seconds) -> usize {
        let mut gone = 0;
        loop {
            let (expired, is_done) = swarm.sweep(alive_since, &mut 10);
            gone += expired;
            swarm.check();
            if is_done {
                return gone;
            }
        }
    }

    impl PublicSwarm {
        /// It is as large as its peers need.
        fn check(&self) {
            match &self.0 {
                Store::Few(few) => few.check(),
                Store::Many(many) => assert!(many.units() > FEW_AGAIN),
            }
        }
    }

    #[test]
    fn a_swarm_takes_sixteen_bytes() {
        assert_eq!(size_of::<PublicSwarm>(), 16);
        assert_eq!(
            size_of::<Option<(u32, crate::ids::InfoHash, PublicSwarm)>>(),
            40
        );
    }

    #[test]
    fn a_client_that_changes_its_port_is_replaced() {
        let mut swarm = PublicSwarm::default();
        put(
            &mut swarm,
            "1.2.3.4",
            1000,
            client(1, Some(7)),
            Role::Leecher,
        );
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.4",
                2000,
                client(1, Some(7)),
                Role::Seeder
            ),
            Some(Role::Leecher)
        );
        assert_eq!(swarm.counts().seeders, 1);
        assert_eq!(swarm.counts().leechers, 0);
        // Another key is another client; no key is the same one.
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.4",
                3000,
                client(1, Some(8)),
                Role::Seeder
            ),
            None
        );
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 4000, client(1, None), Role::Seeder),
            Some(Role::Seeder)
        );
        // The peer id alone is no identity: another address can't touch the peer.
        assert_eq!(
            put(
                &mut swarm,
                "1.2.3.5",
                2000,
                client(1, Some(7)),
                Role::Seeder
            ),
            None
        );
    }

    #[test]
    fn a_peer_id_of_zeros_names_nobody() {
        let mut swarm = PublicSwarm::default();
        for round in 0..2 {
            for port in 1..=40 {
                let before = put(&mut swarm, "1.2.3.4", port, client(0, None), Role::Leecher);
                assert_eq!(before.is_some(), round > 0, "{port}");
            }
        }
        assert_eq!(swarm.counts().leechers, 40);
        for port in 1..=40 {
            let role = Role::Seeder;
            put(&mut swarm, "1.2.3.4", port, client(0, None), role);
        }
        assert_eq!(swarm.counts().seeders, 40);
        for port in 1..=40 {
            let peer = endpoint("1.2.3.4", port);
            assert!(swarm.remove(peer, client(0, None)).is_some(), "{port}");
        }
        assert!(swarm.is_empty());
    }

    #[test]
    fn clients_without_a_port_are_told_apart_by_their_ids() {
        let mut swarm = PublicSwarm::default();
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 0, client(1, None), Role::Leecher),
            None
        );
        assert_eq!(
            put(&mut swarm, "1.2.3.4", 0, client(2, None), Role::Leecher),
            None
        );
        assert_eq!(swarm.counts().leechers, 2);
        assert!(
            swarm
                .remove(endpoint("1.2.3.4", 0), client(1, None))
                .is_some()
        );
        assert_eq!(swarm.counts().leechers, 1);
    }

    #[test]
    fn a_stop_without_its_port_finds_the_client() {
        let mut swarm = PublicSwarm::default();
        put(&mut swarm, "2a00::1", 1000, client(1, None), Role::Seeder);
        assert!(
            swarm
                .remove(endpoint("2a00::1", 0), client(1, None))
                .is_some()
        );
        assert!(swarm.is_empty());
    }

    /// Peers of both families, told apart by their numbers; every third of them by IPv6.
    fn address(number: u16) -> String {
        let [high, low] = number.to_be_bytes();
        if number.is_multiple_of(3) {
            format!("2a00:{high:x}:{low:x}::1")
        } else {
            format!("9.9.{high}.{low}")
        }
    }

    fn tag(number: u16) -> ClientTag {
        let mut peer_id = [0; 20];
        peer_id[..2].copy_from_slice(&number.to_be_bytes());
        ClientTag::new(&PeerId(peer_id), Some(number.into()))
    }

    #[test]
    fn swarms_of_every_size_find_their_peers() {
        let mut swarm = PublicSwarm::default();
        let mut rng = fastrand::Rng::with_seed(5);
        let mut present = std::collections::HashMap::new();
        swarm.set_downloaded(70_000);
        for round in 0..40_000 {
            let number = rng.u16(1..200);
            let ip = address(number);
            let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
            // It grows and empties, several times.
            let leaving = if round / 2000 % 2 == 0 { 20 } else { 80 };
            if rng.u8(..100) < leaving {
                let removed = swarm.remove(endpoint(&ip, 0), tag(number));
                assert_eq!(removed.map(|it| it.role), present.remove(&number));
            } else {
                let before = put(&mut swarm, &ip, rng.u16(1..), tag(number), role);
                assert_eq!(before, present.insert(number, role));
            }
            let mut counts = Counts::default();
            for &role in present.values() {
                counts = counts.plus(Counts::of(role));
            }
            assert_eq!(swarm.counts(), counts);
            assert_eq!(swarm.is_empty(), present.is_empty());
        }
        assert_eq!(swarm.downloaded(), 70_000);
    }

    #[test]
    fn what_was_counted_is_remembered_in_swarms_of_every_size() {
        let mut swarm = PublicSwarm::default();
        let mut others = 1..200;
        for size in [1, 5, 30, 100, 180] {
            let at = (endpoint("9.8.7.6", 1), client(1, None));
            put(&mut swarm, "9.8.7.6", 1, at.1, Role::Leecher);
            swarm.set_counted(at.0, at.1);
            for number in others.by_ref().take(size - 1) {
                put(&mut swarm, &address(number), 1, tag(number), Role::Leecher);
            }
            let removed = swarm.remove(at.0, at.1).unwrap();
            assert!(removed.counted);
            assert_eq!(removed.role, Role::Leecher);
        }
    }

    #[test]
    fn expired_peers_go_and_only_they() {
        for size in [1, 2, 20, 100, 1000] {
            let mut swarm = PublicSwarm::default();
            for number in 0..size {
                let peer = Presence {
                    endpoint: endpoint(&address(number), 1),
                    client: tag(number),
                    role: [Role::Seeder, Role::Leecher, Role::Paused][usize::from(number % 3)],
                    seen: Seconds::START.plus(u32::from(number)),
                };
                swarm.upsert(&peer, Seconds::START, 0).unwrap();
            }
            let gone = size / 2;
            let alive_since = Seconds::START.plus(gone.into());
            assert_eq!(sweep(&mut swarm, alive_since), usize::from(gone));
            for number in (0..size).rev() {
                let left = swarm.remove(endpoint(&address(number), 1), tag(number));
                assert_eq!(left.is_some(), number >= gone, "{number} of {size}");
            }
            assert!(swarm.is_empty());
        }
    }

    #[test]
    fn a_sweep_in_pieces_misses_nobody_whom_others_move() {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut swarm = PublicSwarm::default();
        let mut put = |swarm: &mut PublicSwarm, number: u16, seen: Seconds, since: Seconds| {
            let peer = Presence {
                endpoint: endpoint(&address(number), rng.u16(..3)),
                client: tag(number),
                role: [Role::Seeder, Role::Leecher, Role::Paused][rng.usize(..3)],
                seen,
            };
            swarm.upsert(&peer, since, 0).unwrap();
        };
        let (old, new) = (Seconds::START, Seconds::START.plus(100));
        (0..2000).for_each(|number| put(&mut swarm, number, old, old));
        let (mut gone, mut coming) = (0, 2000);
        loop {
            let (expired, is_done) = swarm.sweep(new, &mut 16);
            gone += expired;
            if is_done {
                break;
            }
            for _ in 0..6 {
                put(&mut swarm, coming, new, new);
                coming += 1;
            }
        }
        let counts = swarm.counts();
        assert_eq!(counts.seeders + counts.leechers, u32::from(coming) - 2000);
        assert_eq!(gone, 2000);
    }

    #[test]
    fn a_host_has_so_many_peers_and_no_more() {
        for (size, hosts) in [(3, 3), (40, 3), (3, 40)] {
            let mut swarm = PublicSwarm::default();
            let mut number = 0;
            let mut put = |swarm: &mut PublicSwarm, ip: &str, port: u16| {
                number += 1;
                let peer = Presence {
                    endpoint: endpoint(ip, port),
                    client: tag(number),
                    role: Role::Leecher,
                    seen: Seconds::START,
                };
                swarm.upsert(&peer, Seconds::START, size)
            };
            for port in 1..=size as u16 {
                for host in 0..hosts {
                    assert_eq!(put(&mut swarm, &format!("9.9.9.{host}"), port), Ok(None));
                    let v6 = format!("2a00::{host}:0:0:0:{port}");
                    assert_eq!(put(&mut swarm, &v6, port), Ok(None));
                }
                for other in 0..3 {
                    let local = put(&mut swarm, "10.0.0.1", port + 1000 * other);
                    assert_eq!(local, Ok(None));
                }
            }
            let counts = swarm.counts();
            assert_eq!(put(&mut swarm, "9.9.9.1", 999), Err(TooManyPeers));
            assert_eq!(
                put(&mut swarm, "2a00::1:0:0:0:9999", 999),
                Err(TooManyPeers)
            );
            assert_eq!(put(&mut swarm, "10.0.0.1", 5000), Ok(None));
            // Who is known goes on, and another may come when one has gone.
            assert!(put(&mut swarm, "9.9.9.1", 1).unwrap().is_some());
            assert_eq!(swarm.counts().leechers, counts.leechers + 1);
            swarm.remove(endpoint("9.9.9.1", 1), tag(0)).unwrap();
            assert_eq!(put(&mut swarm, "9.9.9.1", 999), Ok(None));
            assert_eq!(put(&mut swarm, "9.9.9.1", 1), Err(TooManyPeers));
        }
    }
}
