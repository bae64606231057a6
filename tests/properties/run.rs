//! A sequence of announces, sweeps, full outboxes and restarts, run on the tracker and on the model
//! side by side. After every step the tracker has to agree with the model.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};

use mika::base::ids::{PeerId, TorrentId, UserId};
use mika::change::PeerRecord;
use mika::registry::{Permille, RegistryChange};
use mika::tracker::Mode;
use mika::wire::{self, ClientKey, Event};

use super::model::{self, Announce, Deeds, Expected, Model};
use super::world::{Reply, Storage, World, hash, passkey, rules, torrent, user};

const USERS: u32 = 4;
const TORRENTS: usize = 2;
const PEER_IDS: u8 = 5;

/// Longer than any sequence, in seconds.
const NEVER: u32 = 1 << 29;

/// The second hash of torrent 0.
const SECOND_HASH: u8 = 100;

/// What decides each step: random numbers, or bytes of a fuzzer.
#[allow(dead_code)] // each test uses one of them
pub enum Choices<'a> {
    /// Random steps.
    Random { rng: fastrand::Rng, steps: u32 },
    /// Until the bytes are used up.
    Bytes(&'a [u8]),
}

/// One sequence: tracker and model side by side.
pub struct Run<'a> {
    choices: Choices<'a>,
    world: World,
    model: Model,
    /// Which of the addresses are in use: with few, clients get in each other's way.
    ips: Range<usize>,
    /// The clients' own totals.
    clients: Vec<(u64, u64)>,
    /// What a crash falls back to: storage and model when both agreed last.
    saved: (Storage, Model),
    /// Until the next flush the journal may lack what the outbox had no room for.
    was_full: bool,
    /// A session that began meanwhile may have been adopted late, so that bytes are counted from
    /// another base than the model's from then on.
    base_differs: bool,
    /// Seconds since the last sweep.
    unswept: u32,
}

/// Seconds that may pass without a sweep.
const UNSWEPT_MAX: u32 = 4 * 3600;

// === impl Choices ===

impl Choices<'_> {
    /// Begins another step, if there is to be one.
    fn begin_step(&mut self) -> bool {
        match self {
            Self::Random { steps, .. } => {
                let are_left = *steps > 0;
                *steps = steps.saturating_sub(1);
                are_left
            }
            Self::Bytes(bytes) => !bytes.is_empty(),
        }
    }

    /// A number less than `limit`; 0 when the bytes are used up.
    fn below(&mut self, limit: u32) -> u32 {
        match self {
            Self::Random { rng, .. } => rng.u32(..limit),
            Self::Bytes(bytes) => {
                // Small numbers take one byte, so that changing it changes one choice.
                let len = (4 - limit.leading_zeros() as usize / 8).min(bytes.len());
                let (taken, rest) = bytes.split_at(len);
                *bytes = rest;
                let number = taken
                    .iter()
                    .fold(0, |number, &byte| number << 8 | u32::from(byte));
                number % limit
            }
        }
    }

    fn among(&mut self, range: RangeInclusive<u32>) -> u32 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize].clone()
    }

    fn bool(&mut self) -> bool {
        self.below(2) == 1
    }
}

// === impl Run ===

impl<'a> Run<'a> {
    pub fn new(mut choices: Choices<'a>, private: bool) -> Self {
        let mut rules = rules();
        rules.max_peers_per_user = model::PEERS_PER_USER as u32;
        rules.peer_ttl = model::TTL;
        rules.tombstone_ttl = NEVER;
        rules.hide_own_peers = choices.bool();
        rules.hnr_threshold = model::HNR_SEED_TIME as u32;
        rules.hnr_min_bytes = model::HNR_MIN_BYTES;
        let mut model = Model::new(private, TORRENTS);
        model.hide_own = rules.hide_own_peers;
        model.barred = vec![USERS];
        // Small ones fill up; a public tracker has nothing that may wait.
        let capacity = if private && choices.bool() {
            12
        } else {
            10_000
        };
        let mode = if private { Mode::Private } else { Mode::Public };
        let world = World::new(mode, rules, capacity);
        if private {
            register(&world);
        }
        Self {
            ips: [0..7, 0..7, 0..1, 4..5, 2..5][choices.below(5) as usize].clone(),
            saved: (world.storage.clone(), model.clone()),
            clients: vec![(0, 0); (USERS as usize + 1) * TORRENTS * PEER_IDS as usize],
            choices,
            world,
            model,
            was_full: false,
            base_differs: false,
            unswept: 0,
        }
    }

    /// Takes steps until there are no more choices.
    pub fn go(&mut self) {
        while self.choices.begin_step() {
            match self.choices.below(100) {
                0..=79 => self.announce(),
                80..=85 => self.sweep(),
                86..=91 => self.drain(),
                92..=94 => self.flush(),
                95..=97 => self.restart(),
                _ => self.crash(),
            }
            self.check_scrapes();
            self.wait();
        }
        self.flush();
    }

    fn wait(&mut self) {
        let seconds = match self.choices.below(100) {
            0..=49 => 0,
            50..=59 => self.choices.among(1..=69),
            60..=69 => self.choices.among(59..=61),
            70..=89 => self.choices.among(900..=1899),
            90..=93 => self.choices.among(model::TTL - 1..=model::TTL + 1),
            94..=97 => self.choices.among(model::TTL..=3 * model::TTL),
            _ => self
                .choices
                .among(model::TOMBSTONE - 1..=model::TOMBSTONE + 5000),
        };
        self.pass(seconds);
    }

    /// Lets time pass. Public peers are swept now and then, for they know the time of their
    /// announces within a day only.
    fn pass(&mut self, seconds: u32) {
        let mut left = seconds;
        while !self.model.private && self.unswept + left > UNSWEPT_MAX {
            let piece = UNSWEPT_MAX.saturating_sub(self.unswept);
            self.world.wait(piece);
            self.model.now += piece;
            left -= piece;
            self.sweep();
        }
        self.unswept += left;
        self.world.wait(left);
        self.model.now += left;
    }

    fn announce(&mut self) {
        let it = self.draw();
        let waiting = self.world.metrics.outbox_full.get();
        let expected = self.model.announce(&it);
        let key = passkey(it.user);
        let key = self.model.private.then_some(&*key);
        let params = self.params(&it);
        let source = it.address.ip();
        let reply = self
            .world
            .announce_parsed(key, Ok(params), source)
            .map_err(|refusal| refusal.failure(1, 1).reason.to_owned());
        let had_room = self.world.metrics.outbox_full.get() == waiting;
        self.model.journal(&it, had_room);
        self.was_full |= !had_room;
        self.base_differs |= self.was_full;
        match (reply, expected) {
            (Ok(reply), Ok(expected)) => compare(&it, reply, expected),
            (reply, expected) => {
                let reply = reply.map(|_| ()).unwrap_err();
                assert_eq!(reply, expected.map(|_| ()).unwrap_err(), "{it:?}");
            }
        }
    }

    /// A random announce.
    fn draw(&mut self) -> Announce {
        let user = if self.model.private {
            self.choices.among(1..=USERS)
        } else {
            0
        };
        let torrent = self.choices.below(TORRENTS as u32) as usize;
        let peer_id = self.choices.below(PEER_IDS.into()) as u8;
        let client = (user as usize * TORRENTS + torrent) * PEER_IDS as usize;
        let (up, down) = self.totals(client + peer_id as usize);
        let events = [
            Event::None,
            Event::None,
            Event::Started,
            Event::Completed,
            Event::Stopped,
            Event::Paused,
        ];
        Announce {
            user,
            torrent,
            peer_id,
            // Some clients send one and some don't; two may share a peer id.
            key: peer_id.is_multiple_of(2).then(|| self.choices.among(1..=2)),
            address: self.address(),
            event: self.choices.one_of(&events),
            up,
            down,
            left: self
                .choices
                .one_of(&[Some(0), Some(0), Some(1), Some(u64::MAX), None]),
            numwant: self
                .choices
                .one_of(&[None, None, None, Some(0), Some(2), Some(u32::MAX)]),
        }
    }

    fn address(&mut self) -> SocketAddr {
        let ips = [
            "9.9.9.1", "9.9.9.2", "9.9.9.3", "10.0.0.1", "2a00::1", "2a00::2", "fd00::1",
        ];
        let ip = self.choices.one_of(&ips[self.ips.clone()]).parse().unwrap();
        SocketAddr::new(ip, self.choices.one_of(&[0, 6881, 6882]))
    }

    /// Totals rise, stay, begin again, lag behind, are left out, or are nonsense.
    fn totals(&mut self, client: usize) -> (Option<u64>, Option<u64>) {
        let (up, down) = &mut self.clients[client];
        match self.choices.below(100) {
            0..=59 => {
                *up += u64::from(self.choices.below(5_000_000));
                *down += u64::from(self.choices.below(1_000_000));
            }
            60..=69 => (*up, *down) = (0, 0),
            // What failed its check is taken off again.
            70..=74 => *down = down.saturating_sub(u64::from(self.choices.below(1_000_000))),
            _ => {}
        }
        let (up, down) = (*up, *down);
        match self.choices.below(100) {
            0..=4 => (None, Some(down)),
            5..=9 => (Some(up), None),
            10..=11 => (None, None),
            12..=16 => (Some(up / 2), Some(down / 2)),
            17..=18 => (Some(up + (1 << 51)), Some(down)),
            _ => (Some(up), Some(down)),
        }
    }

    fn params(&mut self, it: &Announce) -> wire::Announce {
        let second = it.torrent == 0 && self.model.private && self.choices.bool();
        wire::Announce {
            info_hash: hash(if second {
                SECOND_HASH
            } else {
                it.torrent as u8
            }),
            info_hash_as_form: None,
            peer_id: PeerId([it.peer_id; 20]),
            port: it.address.port(),
            uploaded: it.up,
            downloaded: it.down,
            left: it.left,
            event: it.event,
            numwant: it.numwant,
            key: it.key.map(ClientKey),
            claimed_v4: Some("8.8.8.8".parse().unwrap()),
            claimed_v6: Some("2a00::8".parse().unwrap()),
            list_form: false,
            no_peer_id: false,
        }
    }

    fn sweep(&mut self) {
        self.world.sweep();
        self.model.sweep();
        self.unswept = 0;
    }

    fn drain(&mut self) {
        self.world.drain();
        if !self.was_full && self.model.private {
            self.check_credit();
        }
    }

    /// Everything goes to storage: now it has to equal the model.
    fn flush(&mut self) {
        self.model.sweep();
        self.world.flush();
        self.was_full = false;
        self.check_storage();
        self.forget();
        self.saved = (self.world.storage.clone(), self.model.clone());
    }

    /// Removes old tombstones: now, when none of them waits for room in the journal.
    fn forget(&mut self) {
        let mut rules = self.world.rules.clone();
        rules.tombstone_ttl = model::TOMBSTONE;
        self.world.tracker.set_rules(rules);
        self.world.sweep();
        self.world.tracker.set_rules(self.world.rules.clone());
        self.model.forget();
        let kept_since = self.world.now.unix - i64::from(model::TOMBSTONE);
        let stays = |record: &PeerRecord| record.active || record.last_announce >= kept_since;
        self.world.storage.peers.retain(|_, record| stays(record));
    }

    fn restart(&mut self) {
        self.flush();
        self.crash();
    }

    /// What came after the last flush is gone from the tracker, but not from the clients.
    fn crash(&mut self) {
        let now = self.model.now;
        (self.world.storage, self.model) = self.saved.clone();
        self.model.now = now;
        self.model.restart();
        self.world.restart();
        self.was_full = false;
    }

    fn check_scrapes(&self) {
        for torrent in 0..TORRENTS {
            let entry = self.world.scrape(hash(torrent as u8)).unwrap();
            let scraped = (
                entry.complete,
                entry.downloaded,
                entry.incomplete,
                entry.paused,
            );
            assert_eq!(scraped, self.model.scrape(torrent));
        }
    }

    /// Bytes and seconds; marks and peers may wait for a sweep to be journaled.
    fn check_credit(&self) {
        for (torrent, user) in pairs() {
            let stored = self.deeds(torrent, user);
            let hnr = stored.hnr;
            let expected = self.gained(torrent, user, &stored);
            assert_eq!(stored, Deeds { hnr, ..expected }, "{torrent} {user}");
        }
    }

    /// What is to be stored: as in the model, but for bytes if the base is another one, and for seed
    /// time that no room was found for.
    fn gained(&self, torrent: usize, user: u32, stored: &Deeds) -> Deeds {
        let expected = self.model.deeds(torrent, user);
        if !self.base_differs {
            return expected;
        }
        let (most, lost) = (expected.seed_time, self.model.lost(torrent, user));
        Deeds {
            raw_up: stored.raw_up,
            raw_down: stored.raw_down,
            seed_time: stored.seed_time.clamp(most.saturating_sub(lost), most),
            hnr: stored.hnr,
            ..expected
        }
    }

    fn check_storage(&self) {
        if !self.model.private {
            for torrent in 0..TORRENTS {
                let stored = &self.world.storage.public_snatches;
                let snatches = stored.get(&hash(torrent as u8)).copied();
                assert_eq!(snatches.unwrap_or(0), self.model.scrape(torrent).1);
            }
            return;
        }
        for (torrent, user) in pairs() {
            let stored = self.deeds(torrent, user);
            let expected = self.gained(torrent, user, &stored);
            assert_eq!(stored, expected, "torrent {torrent}, user {user}");
        }
        for user in 1..=USERS {
            let double: u64 = self.deeds(1, user).raw_up;
            let totals = self.world.totals(user);
            let plain = self.deeds(0, user);
            assert_eq!(totals.up, plain.raw_up + 2 * double, "multiplied");
            assert_eq!(totals.down, plain.raw_down, "free");
        }
        for (key, record) in &self.world.storage.peers {
            let torrent = key.torrent.0 as usize - 1;
            let kept = self.model.record(torrent, key.user.0, key.peer_id.0[0]);
            assert_eq!(record.active, kept.unwrap_or(false), "{key:?}");
            assert!(!record.active || record.v4.is_some() || record.v6.is_some());
        }
        for torrent in 0..TORRENTS {
            let (complete, snatches, incomplete, _) = self.model.scrape(torrent);
            let id = TorrentId(torrent as u32 + 1);
            let stored = &self.world.storage;
            let counts = stored.counts.get(&id).copied().unwrap_or_default();
            assert_eq!((counts.seeders, counts.leechers), (complete, incomplete));
            assert_eq!(stored.snatches.get(&id).copied().unwrap_or(0), snatches);
        }
    }

    fn deeds(&self, torrent: usize, user: u32) -> Deeds {
        let key = (UserId(user), TorrentId(torrent as u32 + 1));
        let stored = self.world.storage.histories.get(&key);
        let (totals, standing) = stored.copied().unwrap_or_default();
        assert_eq!(totals.snatches, u64::from(standing.completed_at.is_some()));
        Deeds {
            raw_up: totals.raw_up,
            raw_down: totals.raw_down,
            seed_time: totals.seed_time,
            announces: totals.announces,
            snatched: standing.completed_at.is_some(),
            hnr: standing.hnr,
        }
    }
}

/// Torrent 0 is a hybrid; torrent 1 counts uploads twice and downloads not at all.
fn register(world: &World) {
    let mut hybrid = torrent(0);
    hybrid.id = TorrentId(1);
    hybrid.info_hash_v2 = Some(hash(SECOND_HASH));
    world.apply(RegistryChange::Torrent(hybrid));
    let mut free = torrent(1);
    free.id = TorrentId(2);
    (free.multi_up, free.multi_down) = (Permille(2000), Permille(0));
    world.apply(RegistryChange::Torrent(free));
    for id in 1..=USERS {
        let mut user = user(id);
        user.can_leech = id != USERS;
        world.apply(RegistryChange::User(user));
    }
}

fn pairs() -> impl Iterator<Item = (usize, u32)> {
    (0..TORRENTS).flat_map(|torrent| (1..=USERS).map(move |user| (torrent, user)))
}

fn compare(it: &Announce, reply: Reply, mut expected: Expected) {
    assert_eq!(
        (reply.complete, reply.incomplete, reply.downloaded),
        (expected.complete, expected.incomplete, expected.downloaded),
        "{it:?}"
    );
    assert_eq!(reply.peers.len(), expected.size, "{it:?}: {expected:?}");
    // An endpoint is handed out once.
    for peer in reply.peers {
        let at = expected.eligible.iter().position(|&other| other == peer);
        let at = at.unwrap_or_else(|| panic!("{peer} was handed out to {it:?}"));
        expected.eligible.swap_remove(at);
    }
    assert!(reply.ticket.is_some() || !expected.waits, "{it:?}");
}
