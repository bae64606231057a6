//! A model of the rules of `docs/protocol.md`, as simple as possible: lists searched from end to end,
//! nothing cached. It shares the tracker's types (events, records) and none of its code.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use mika::wire::Event;

pub const TTL: u32 = 3900;
pub const TOMBSTONE: u32 = 86_400;
pub const PEERS_PER_USER: usize = 3;
pub const HNR_SEED_TIME: u64 = 10_000;
pub const HNR_MIN_BYTES: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Announce {
    /// 0 in public mode.
    pub user: u32,
    pub torrent: usize,
    pub peer_id: u8,
    pub key: Option<u32>,
    pub address: SocketAddr,
    pub event: Event,
    pub up: Option<u64>,
    pub down: Option<u64>,
    pub left: Option<u64>,
    pub numwant: Option<u32>,
}

#[derive(Debug)]
pub struct Expected {
    pub complete: u32,
    pub incomplete: u32,
    pub downloaded: u32,
    /// How many peers come, and who may be among them.
    pub size: usize,
    pub eligible: Vec<SocketAddr>,
    /// The reply must not go before the journal has it.
    pub waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leecher,
    Paused,
    Seeder,
}

#[derive(Clone, Debug)]
struct Place {
    address: SocketAddr,
    seen: u32,
}

#[derive(Clone, Debug, Default)]
struct Counter {
    base: Option<u64>,
    dip: Option<u32>,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names)] // a peer id is called so
struct Peer {
    user: u32,
    peer_id: u8,
    key: Option<u32>,
    /// In the swarm, as what.
    kind: Option<Kind>,
    v4: Option<Place>,
    v6: Option<Place>,
    up: Counter,
    down: Counter,
    /// Several machines: whether they are distinguished by IPv4, and the last two, the latest first.
    machines: Option<(bool, Vec<Machine>)>,
    base_at: u32,
    last: u32,
    untold: Untold,
    /// Public: it was a seeder, or its snatch was counted.
    counted: bool,
}

/// Seed time since the last announce that the journal had room for. Of several stretches with gaps between
/// them only the last can be owed.
#[derive(Clone, Debug, Default)]
struct Untold {
    seconds: u64,
    until: u32,
    /// What the stretches before it had.
    before: u64,
}

/// What a machine that shares its peer id with others reported last.
#[derive(Clone, Debug)]
struct Machine {
    address: SocketAddr,
    totals: [Option<u64>; 2],
    at: u32,
}

/// A user with one torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    pub raw_up: u64,
    pub raw_down: u64,
    pub seed_time: u64,
    pub announces: u64,
    pub snatched: bool,
    pub hnr: bool,
}

#[derive(Clone, Debug, Default)]
struct Torrent {
    peers: Vec<Peer>,
    snatches: u32,
    deeds: HashMap<u32, Deeds>,
    /// Seconds of each user's seed time that may be lost because the journal had no room.
    lost: HashMap<u32, u64>,
    /// When the tracker was restarted.
    started: u32,
    /// Public: the latest completion of each peer id, by IPv4 or not, and when.
    completed: HashMap<u8, (bool, u32)>,
}

#[derive(Clone)]
pub struct Model {
    pub private: bool,
    pub hide_own: bool,
    pub now: u32,
    /// Users who may not download.
    pub barred: Vec<u32>,
    torrents: Vec<Torrent>,
}

impl Model {
    pub fn new(private: bool, torrents: usize) -> Self {
        Self {
            private,
            hide_own: false,
            now: 1_000_000,
            barred: Vec::new(),
            torrents: vec![Torrent::default(); torrents],
        }
    }

    pub fn announce(&mut self, it: &Announce) -> Result<Expected, &'static str> {
        if self.private {
            self.announce_private(it)
        } else {
            Ok(self.announce_public(it))
        }
    }

    fn announce_private(&mut self, it: &Announce) -> Result<Expected, &'static str> {
        let (now, stops) = (self.now, it.event == Event::Stopped);
        if self.barred.contains(&it.user) && it.left != Some(0) && !stops {
            return Err("download not allowed");
        }
        let torrent = &mut self.torrents[it.torrent];
        let found = torrent
            .peers
            .iter()
            .position(|peer| peer.user == it.user && peer.peer_id == it.peer_id);
        // W10: a peer that was silent too long has left.
        if let Some(at) = found {
            torrent.expire(at, now);
        }
        let before = found.and_then(|at| torrent.peers[at].kind);
        if stops && found.is_none() {
            return Ok(torrent.expected(Vec::new(), 0, false));
        }
        if !stops {
            torrent.let_in(it, before.is_none(), now)?;
        }
        let at = found.unwrap_or_else(|| {
            torrent.peers.push(Peer::new(it, now));
            torrent.peers.len() - 1
        });
        // A1 to A4, A7: each counter for itself.
        let peer = &mut torrent.peers[at];
        let [up, down] = peer.report(it, now);
        // A10
        let seeded = match before {
            Some(Kind::Seeder) => (now - peer.last).min(TTL),
            _ => 0,
        };
        let since = std::mem::replace(&mut peer.last, now);
        let seeded = u64::from(seeded.min(torrent.since_others_seeded(at, now)));
        let peer = &mut torrent.peers[at];
        peer.untold.add(before, seeded, since, now);
        // W2, W3
        let mut leaves = false;
        if stops {
            *peer.place(it.address) = None;
            leaves = peer.kind.is_some() && peer.v4.is_none() && peer.v6.is_none();
            if leaves {
                peer.kind = None;
            }
        } else {
            *peer.place(it.address) = Some(Place {
                address: it.address,
                seen: now,
            });
            peer.kind = Some(kind(it));
        }
        let deeds = torrent.deeds.entry(it.user).or_default();
        deeds.raw_up += up;
        deeds.raw_down += down;
        deeds.seed_time += seeded;
        deeds.announces += 1;
        if deeds.seed_time >= HNR_SEED_TIME {
            deeds.hnr = false;
        }
        // W5
        let completes = it.event == Event::Completed && it.left == Some(0);
        if completes && before != Some(Kind::Seeder) && !deeds.snatched {
            deeds.snatched = true;
            torrent.snatches += 1;
        }
        if leaves {
            torrent.run(it.user);
        }
        let waits = found.is_none() || stops || completes;
        let hidden = self.hide_own.then_some(it.user);
        let mut eligible = self.eligible(it, hidden);
        // W8: two users may share an endpoint.
        eligible.sort_unstable();
        eligible.dedup();
        Ok(self.torrents[it.torrent].expected(eligible, want(it), waits))
    }

    fn announce_public(&mut self, it: &Announce) -> Expected {
        let now = self.now;
        let torrent = &mut self.torrents[it.torrent];
        // W1: the endpoint, or else the same client at another port of its address.
        let at_endpoint = torrent.peers.iter().position(|peer| {
            peer.address() == it.address && (it.address.port() != 0 || peer.peer_id == it.peer_id)
        });
        let is_client = |peer: &Peer| {
            peer.address().ip() == it.address.ip()
                // One of zeros identifies no client.
                && it.peer_id != 0
                && peer.peer_id == it.peer_id
                && (peer.key.is_none() || it.key.is_none() || peer.key == it.key)
        };
        let found = at_endpoint.or_else(|| torrent.peers.iter().position(is_client));
        let before = found.map(|at| torrent.peers.remove(at));
        if it.event == Event::Stopped {
            return torrent.expected(Vec::new(), 0, false);
        }
        if at_endpoint.is_some() {
            torrent.peers.retain(|peer| !is_client(peer));
        }
        let before = before.filter(|peer| peer.is_alive(now));
        let mut peer = Peer::new(it, now);
        *peer.place(it.address) = Some(Place {
            address: it.address,
            seen: now,
        });
        peer.kind = Some(kind(it));
        // One that was a seeder completes nothing any more.
        let was_seeder = before
            .as_ref()
            .is_some_and(|it| it.kind == Some(Kind::Seeder));
        peer.counted = was_seeder || before.as_ref().is_some_and(|it| it.counted);
        let completes = it.event == Event::Completed && it.left == Some(0);
        if completes && !peer.counted {
            peer.counted = true;
            let by_v4 = it.address.is_ipv4();
            // W5: counted by the other family a moment ago. One of zeros identifies no client.
            let counted = torrent.completed.get(&it.peer_id);
            let is_known = counted.is_some_and(|&(v4, at)| v4 != by_v4 && now - at <= 300);
            if it.peer_id == 0 || !is_known {
                torrent.completed.insert(it.peer_id, (by_v4, now));
                torrent.snatches += 1;
            }
        }
        torrent.peers.push(peer);
        let eligible = self.eligible(it, None);
        self.torrents[it.torrent].expected(eligible, want(it), false)
    }

    /// W7, W8: the peers that the requester may get.
    fn eligible(&self, it: &Announce, hidden: Option<u32>) -> Vec<SocketAddr> {
        let local = is_local(it.address.ip());
        let mut eligible = Vec::new();
        for peer in &self.torrents[it.torrent].peers {
            let place = if it.address.is_ipv4() {
                &peer.v4
            } else {
                &peer.v6
            };
            let (Some(place), Some(theirs)) = (place, peer.kind) else {
                continue;
            };
            let wanted = match kind(it) {
                Kind::Leecher => true,
                Kind::Paused | Kind::Seeder => theirs == Kind::Leecher,
            };
            if wanted
                && place.address != it.address
                && place.address.port() != 0
                && self.now - place.seen <= TTL
                && (local || !is_local(place.address.ip()))
                && hidden != Some(peer.user)
            {
                eligible.push(place.address);
            }
        }
        eligible
    }

    /// What a scrape has: seeders, snatches, leechers, partial seeds.
    pub fn scrape(&self, torrent: usize) -> (u32, u32, u32, u32) {
        let it = &self.torrents[torrent];
        let paused = it.count(|kind| kind == Kind::Paused);
        (it.seeders(), it.snatches, it.leechers(), paused)
    }

    pub fn sweep(&mut self) {
        let (now, private) = (self.now, self.private);
        for torrent in &mut self.torrents {
            for at in 0..torrent.peers.len() {
                torrent.expire(at, now);
            }
            let stays = |peer: &Peer| private || peer.kind.is_some();
            torrent.peers.retain(stays);
        }
    }

    /// Whether the journal had room for what was announced, and for what its client owed.
    pub fn journal(&mut self, it: &Announce, had_room: bool) {
        let torrent = &mut self.torrents[it.torrent];
        let is_it = |peer: &&mut Peer| peer.user == it.user && peer.peer_id == it.peer_id;
        let Some(peer) = torrent.peers.iter_mut().find(is_it) else {
            return;
        };
        if had_room {
            peer.untold = Untold::default();
        } else {
            let lost = std::mem::take(&mut peer.untold.before);
            *torrent.lost.entry(it.user).or_default() += lost;
        }
    }

    /// Lets old records go, when the journal has all.
    pub fn forget(&mut self) {
        let now = self.now;
        for torrent in &mut self.torrents {
            for peer in &mut torrent.peers {
                peer.untold = Untold::default();
            }
            let stays = |peer: &Peer| peer.kind.is_some() || now - peer.last <= TOMBSTONE;
            torrent.peers.retain(stays);
        }
    }

    /// What a restart makes of it: which of several machines reported what is forgotten.
    pub fn restart(&mut self) {
        for torrent in &mut self.torrents {
            torrent.started = self.now;
            if !self.private {
                torrent.peers.clear();
                torrent.completed.clear();
            }
            for peer in &mut torrent.peers {
                if let Some((_, known)) = &mut peer.machines {
                    known.clear();
                }
            }
        }
    }

    pub fn deeds(&self, torrent: usize, user: u32) -> Deeds {
        let deeds = &self.torrents[torrent].deeds;
        deeds.get(&user).cloned().unwrap_or_default()
    }

    /// Seconds of a user's seed time that may be lost.
    pub fn lost(&self, torrent: usize, user: u32) -> u64 {
        let lost = self.torrents[torrent].lost.get(&user);
        lost.copied().unwrap_or(0)
    }

    /// Whether a record is kept, and whether its peer is in the swarm.
    pub fn record(&self, torrent: usize, user: u32, peer_id: u8) -> Option<bool> {
        let peers = &self.torrents[torrent].peers;
        let is_it = |peer: &&Peer| peer.user == user && peer.peer_id == peer_id;
        peers.iter().find(is_it).map(|peer| peer.kind.is_some())
    }
}

fn want(it: &Announce) -> usize {
    match it.event {
        Event::Stopped => 0,
        _ => it.numwant.unwrap_or(50).min(200) as usize,
    }
}

fn kind(it: &Announce) -> Kind {
    match (it.left, it.event) {
        (Some(0), _) => Kind::Seeder,
        (_, Event::Paused) => Kind::Paused,
        _ => Kind::Leecher,
    }
}

/// Of the addresses that the sequences use.
fn is_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10)
        || matches!(ip, IpAddr::V6(ip) if ip.segments()[0] == 0xfd00)
}

impl Torrent {
    /// A8a: seconds since another client of the user that seeds announced.
    fn since_others_seeded(&self, at: usize, now: u32) -> u32 {
        let user = self.peers[at].user;
        let others = self.peers.iter().enumerate().filter(|(place, other)| {
            *place != at && other.user == user && other.kind == Some(Kind::Seeder)
        });
        let since = others.map(|(_, other)| now - other.last);
        since.min().unwrap_or(u32::MAX)
    }

    fn expected(&self, eligible: Vec<SocketAddr>, want: usize, waits: bool) -> Expected {
        Expected {
            complete: self.seeders(),
            incomplete: self.leechers(),
            downloaded: self.snatches,
            size: want.min(eligible.len()),
            eligible,
            waits,
        }
    }

    fn count(&self, is_it: impl Fn(Kind) -> bool) -> u32 {
        let kinds = self.peers.iter().filter_map(|peer| peer.kind);
        kinds.filter(|&kind| is_it(kind)).count() as u32
    }

    fn seeders(&self) -> u32 {
        self.count(|kind| kind == Kind::Seeder)
    }

    fn leechers(&self) -> u32 {
        self.count(|kind| kind != Kind::Seeder)
    }

    /// A6, W1a: a newcomer may be one too many; a client that enters replaces the user's others there.
    fn let_in(&mut self, it: &Announce, is_newcomer: bool, now: u32) -> Result<(), &'static str> {
        let is_other_there = |peer: &Peer| {
            let mut places = [&peer.v4, &peer.v6].into_iter().flatten();
            (peer.user, peer.kind.is_some()) == (it.user, true)
                && peer.peer_id != it.peer_id
                && it.address.port() != 0
                && places.any(|place| place.address == it.address)
        };
        let is_alive =
            |peer: &&Peer| peer.user == it.user && peer.is_alive(now) && !is_other_there(peer);
        if is_newcomer && self.peers.iter().filter(is_alive).count() >= PEERS_PER_USER {
            return Err("too many peers");
        }
        for peer in &mut self.peers {
            if is_other_there(peer) {
                (peer.kind, peer.v4, peer.v6) = (None, None, None);
            }
        }
        Ok(())
    }

    fn expire(&mut self, at: usize, now: u32) {
        let peer = &mut self.peers[at];
        for place in [&mut peer.v4, &mut peer.v6] {
            if place.as_ref().is_some_and(|place| now - place.seen > TTL) {
                *place = None;
            }
        }
        if peer.kind.is_some() && peer.v4.is_none() && peer.v6.is_none() {
            peer.kind = None;
            let (user, last_seen) = (peer.user, peer.last);
            // Clients from before a restart have a peer's life to come back.
            if last_seen > self.started || now >= self.started + TTL {
                self.run(user);
            }
        }
    }

    /// A peer of that user has left: with no other one there they may have run.
    fn run(&mut self, user: u32) {
        let is_there = |peer: &Peer| peer.user == user && peer.kind.is_some();
        if self.peers.iter().any(is_there) {
            return;
        }
        let deeds = self.deeds.entry(user).or_default();
        deeds.hnr |= deeds.raw_down > HNR_MIN_BYTES && deeds.seed_time < HNR_SEED_TIME;
    }
}

impl Peer {
    fn new(it: &Announce, now: u32) -> Self {
        Self {
            user: it.user,
            peer_id: it.peer_id,
            key: it.key,
            kind: None,
            v4: None,
            v6: None,
            up: Counter::default(),
            down: Counter::default(),
            machines: None,
            base_at: now,
            last: now,
            untold: Untold::default(),
            counted: false,
        }
    }

    /// What both totals add: A1 to A4, A7, each counter for itself.
    fn report(&mut self, it: &Announce, now: u32) -> [u64; 2] {
        let started = it.event == Event::Started;
        let held = |is_v4: bool| if is_v4 { &self.v4 } else { &self.v6 };
        let is_v4 = it.address.is_ipv4();
        let mut sender = it.address;
        if let Some(place) = held(is_v4)
            && (it.event, sender.port()) == (Event::Stopped, 0)
            && place.address.ip() == sender.ip()
        {
            sender = place.address;
        }
        let is_lower = |base: Option<u64>, total: Option<u64>| {
            base.zip(total).is_some_and(|(base, total)| total < base)
        };
        let lower = is_lower(self.up.base, it.up) || is_lower(self.down.base, it.down);
        if let Some(place) = held(is_v4).clone()
            && self.machines.is_none()
            && lower
            && place.address != sender
        {
            let first = Machine {
                address: place.address,
                totals: [self.up.base, self.down.base],
                at: self.base_at,
            };
            self.machines = Some((is_v4, vec![first]));
        }
        let Some((family, mut machines)) = self.machines.take() else {
            return self.report_alone(it, now);
        };
        if family != is_v4 {
            if held(family).is_none() {
                return self.report_alone(it, now);
            }
            self.machines = Some((family, machines));
            return [0, 0];
        }
        let known = machines.iter().position(|other| other.address == sender);
        let mut own = known.map_or(
            Machine {
                address: sender,
                totals: [None, None],
                at: now,
            },
            |at| machines.remove(at),
        );
        let may_reset = started || now - own.at >= 60;
        let before = own.totals;
        let highest = [self.up.base, self.down.base];
        let [own_up, own_down] = &mut own.totals;
        let up = self.up.report_of(own_up, it.up, may_reset);
        let down = self.down.report_of(own_down, it.down, may_reset);
        if before != own.totals || may_reset {
            own.at = now;
        }
        if highest != [self.up.base, self.down.base] {
            self.base_at = now;
        }
        machines.insert(0, own);
        machines.truncate(2);
        self.machines = Some((family, machines));
        [up, down]
    }

    fn report_alone(&mut self, it: &Announce, now: u32) -> [u64; 2] {
        let started = it.event == Event::Started;
        let up = self.up.report(it.up, started, now);
        let down = self.down.report(it.down, started, now);
        if self.up.dip.is_none() && self.down.dip.is_none() {
            self.base_at = now;
        }
        [up, down]
    }

    fn place(&mut self, address: SocketAddr) -> &mut Option<Place> {
        if address.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }

    /// Of a public peer, which has one.
    fn address(&self) -> SocketAddr {
        let place = self.v4.as_ref().or(self.v6.as_ref());
        place.expect("a public peer is somewhere").address
    }

    fn is_alive(&self, now: u32) -> bool {
        let places = [&self.v4, &self.v6];
        places.into_iter().flatten().any(|it| now - it.seen <= TTL)
    }
}

impl Untold {
    /// More seed time of the stretch that went on until `since`, or the first of another one; none of who
    /// was no seeder.
    fn add(&mut self, before: Option<Kind>, seconds: u64, since: u32, now: u32) {
        if before != Some(Kind::Seeder) {
            return;
        }
        if self.until != since {
            self.before += std::mem::take(&mut self.seconds);
        }
        self.seconds += seconds;
        self.until = now;
    }
}

impl Counter {
    /// What a reported total adds.
    fn report(&mut self, reported: Option<u64>, started: bool, now: u32) -> u64 {
        let Some(reported) = reported else {
            return 0;
        };
        let Some(base) = self.base else {
            self.base = Some(reported); // A1
            return 0;
        };
        if reported >= base {
            self.base = Some(reported);
            self.dip = None;
            let credit = reported - base; // A2
            return if credit > 1 << 50 { 0 } else { credit }; // A7
        }
        // A3
        if started || self.dip.is_some_and(|since| now - since >= 60) {
            self.base = Some(reported);
            self.dip = None;
        } else if self.dip.is_none() {
            self.dip = Some(now);
        }
        0
    }

    /// What a reported total of one of several machines adds; `own` is what it reported last.
    fn report_of(&mut self, own: &mut Option<u64>, reported: Option<u64>, may_reset: bool) -> u64 {
        self.dip = None;
        let Some(reported) = reported else {
            return 0;
        };
        let Some(highest) = self.base else {
            (self.base, *own) = (Some(reported), Some(reported));
            return 0;
        };
        let from = own.unwrap_or(highest);
        if reported >= from {
            (self.base, *own) = (Some(highest.max(reported)), Some(reported));
            let credit = reported - from;
            return if credit > 1 << 50 { 0 } else { credit };
        }
        if own.is_none() || may_reset {
            *own = Some(reported);
        }
        0
    }
}
