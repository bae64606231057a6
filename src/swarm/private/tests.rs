//! Random lives of packed swarms beside plain ones, and entries at the edges of every number.

use std::collections::BTreeMap;

use super::*;
use crate::accounting::machines::{Machine, Machines};
use crate::accounting::sessions::Point;
use crate::base::addr::{Compact4, Compact6, PublicAddresses};
use crate::swarm::records::Owed;

/// What a swarm should be, without any packing.
#[derive(Default)]
struct Plain {
    peers: BTreeMap<(UserId, PeerId), PeerState>,
    histories: BTreeMap<UserId, UserHistory>,
}

fn endpoint(ip: &str, port: u16) -> Endpoint {
    Endpoint::new(ip.parse().unwrap(), port)
}

/// A number of any magnitude, the edges of widths more often than by chance.
fn number(rng: &mut fastrand::Rng) -> u64 {
    let edge = 1_u64.checked_shl(8 * rng.u32(..9)).unwrap_or(0);
    match rng.u8(..6) {
        0 => 0,
        1 => edge,
        2 => edge.wrapping_sub(1),
        3 => Account::NO_TOTAL,
        4 => u64::MAX,
        _ => rng.u64(..) >> rng.u32(..64),
    }
}

fn seconds(rng: &mut fastrand::Rng, around: Seconds) -> Seconds {
    match rng.u8(..4) {
        0 => Seconds(number(rng) as u32),
        1 => Seconds(around.0.wrapping_sub(rng.u32(..100_000))),
        _ => around,
    }
}

fn account(rng: &mut fastrand::Rng) -> Account {
    let last = Seconds(number(rng) as u32);
    let (base_up, base_down) = (number(rng), number(rng));
    let machines = rng.bool().then(|| machines(rng, last));
    let start = |rng: &mut fastrand::Rng| {
        let is_there = machines.is_none() && rng.bool();
        is_there.then(|| Point {
            total: if rng.bool() { 0 } else { number(rng) },
            at: if rng.bool() {
                7
            } else {
                seconds(rng, last).0.into()
            },
        })
    };
    Account {
        base_up,
        base_down,
        start_up: start(rng),
        start_down: start(rng),
        base_at: seconds(rng, last),
        dip_up: rng.bool().then(|| seconds(rng, last)),
        dip_down: rng.bool().then(|| seconds(rng, last)),
        uploaded: if rng.bool() { base_up } else { number(rng) },
        downloaded: if rng.bool() { base_down } else { number(rng) },
        left: rng.bool().then(|| number(rng)),
        speed_up: number(rng) as u32,
        speed_down: number(rng) as u32,
        seed_time: number(rng) as u32,
        announces: number(rng) as u32,
        first_announce: seconds(rng, last),
        last_announce: last,
        machines,
    }
}

fn machines(rng: &mut fastrand::Rng, around: Seconds) -> Machines {
    let mut machine = || Machine {
        id: number(rng) as u32,
        up: number(rng),
        down: number(rng),
        at: seconds(rng, around).0.into(),
    };
    let (latest, other) = (machine(), machine());
    Machines {
        is_v6: rng.bool(),
        latest,
        other: rng.bool().then_some(other),
    }
}

fn history(rng: &mut fastrand::Rng, user: UserId) -> UserHistory {
    UserHistory {
        user,
        hnr: rng.bool(),
        owes_snatch: rng.bool(),
        seed_time: number(rng) as u32,
        downloaded: number(rng),
        completed_at: match rng.u8(..4) {
            0 => None,
            1 => Some(1_800_000_000),
            2 => Some(i64::MIN),
            _ => Some(number(rng) as i64),
        },
    }
}

fn peer(rng: &mut fastrand::Rng) -> PeerState {
    let account = account(rng);
    let last = account.last_announce;
    let user = UserId(rng.u32(..));
    let mut peer = PeerState::new(user, PeerId(std::array::from_fn(|_| rng.u8(..))), account);
    let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
    if rng.bool() {
        let port = rng.u16(..) * u16::from(rng.bool());
        peer.enter(endpoint("9.8.7.6", port), role, seconds(rng, last));
    }
    if rng.bool() {
        let port = rng.u16(..) * u16::from(rng.bool());
        peer.enter(endpoint("2a00::7", port), role, seconds(rng, last));
    }
    if peer.role().is_none() {
        for family in Family::BOTH {
            peer.leave(family, seconds(rng, last));
        }
    } else if peer.endpoints().0.is_none() && rng.bool() {
        peer.leave(Family::V4, seconds(rng, last));
    }
    peer.owed = rng.bool().then(|| Owed {
        uploaded: number(rng),
        downloaded: number(rng),
        seed_time: number(rng) as u32,
        seeded_until: seconds(rng, Seconds::START),
        announces: number(rng) as u32,
        since: seconds(rng, Seconds::START),
        began_up: rng.bool(),
        began_down: rng.bool(),
        left: rng.bool(),
    });
    peer
}

fn view(packed: &PackedEntry) -> EntryView<'_> {
    EntryView {
        bytes: packed.bytes(),
        tag: packed.tag,
    }
}

#[test]
fn what_is_packed_is_unpacked_as_it_was() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..30_000 {
        let peer = peer(&mut rng);
        let mut carried = rng.bool().then(|| history(&mut rng, peer.user));
        if rng.bool()
            && let Some(history) = &mut carried
        {
            history.downloaded = peer.account.downloaded;
            history.seed_time = peer.account.seed_time;
        }
        let packed = PackedEntry::client(&peer, carried.as_ref());
        let view = view(&packed);
        assert!(packed.bytes().len() <= packed::LEN_MAX);
        assert_eq!((view.v4(), view.v6()), (peer.v4, peer.v6));
        assert_eq!(view.last_announce(), peer.account.last_announce);
        assert_eq!(view.owes(), peer.owed.is_some());
        assert_eq!(view.carries_history(), carried.is_some());
        assert!(view.is(peer.user, &peer.peer_id) && view.is_client());
        assert!(view.tag.may_be(peer.user));
        assert_eq!(view.unpack(), (Some(peer), carried));
    }
}

#[test]
fn a_history_alone_is_unpacked_as_it_was() {
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..10_000 {
        let user = UserId(rng.u32(..));
        let history = history(&mut rng, user);
        let packed = PackedEntry::history(&history);
        assert_eq!(view(&packed).unpack(), (None, Some(history)));
        assert!(!view(&packed).is(user, &PeerId([0; 20])));
    }
}

#[test]
fn the_largest_entry_has_room() {
    let mut account = Account::begin(u64::MAX, u64::MAX, Seconds(u32::MAX));
    (account.uploaded, account.downloaded) = (u64::MAX - 1, u64::MAX - 1);
    (account.left, account.base_at) = (Some(u64::MAX), Seconds(1));
    (account.dip_up, account.dip_down) = (Some(Seconds(1)), Some(Seconds(1)));
    (account.speed_up, account.speed_down) = (u32::MAX, u32::MAX);
    (account.seed_time, account.announces) = (u32::MAX, u32::MAX);
    account.first_announce = Seconds(0);
    let machine = Machine {
        id: u32::MAX,
        up: u64::MAX,
        down: u64::MAX,
        at: u32::MAX.into(),
    };
    account.machines = Some(Machines {
        is_v6: true,
        latest: machine,
        other: Some(machine),
    });
    let mut peer = PeerState::new(UserId(u32::MAX), PeerId([255; 20]), account);
    peer.enter(endpoint("9.9.9.9", 1), Role::Seeder, Seconds(1));
    peer.enter(endpoint("2a00::1", 1), Role::Seeder, Seconds(1));
    peer.owed = Some(Owed {
        uploaded: u64::MAX,
        downloaded: u64::MAX,
        seed_time: u32::MAX,
        seeded_until: Seconds(u32::MAX),
        announces: u32::MAX,
        since: Seconds(u32::MAX),
        began_up: true,
        began_down: true,
        left: true,
    });
    let history = UserHistory {
        user: peer.user,
        hnr: true,
        owes_snatch: true,
        seed_time: u32::MAX - 1,
        downloaded: u64::MAX - 1,
        completed_at: Some(i64::MAX),
    };
    let packed = PackedEntry::client(&peer, Some(&history));
    assert_eq!(packed.bytes().len(), packed::LEN_MAX);
    assert_eq!(view(&packed).unpack(), (Some(peer), Some(history)));
}

#[test]
fn a_common_peer_is_small() {
    let mut account = Account::begin(0, 0, Seconds::START);
    (account.base_up, account.uploaded) = (300 << 30, 300 << 30);
    (account.base_down, account.downloaded) = (8 << 30, 8 << 30);
    (account.left, account.speed_up) = (Some(0), 500_000);
    (account.seed_time, account.announces) = (1_000_000, 600);
    account.last_announce = Seconds::START.plus(1_100_000);
    account.base_at = account.last_announce;
    let mut history = UserHistory::new(UserId(123_456));
    (history.downloaded, history.seed_time) = (account.downloaded, account.seed_time);
    history.completed_at = Some(1_800_000_000);
    let seen = account.last_announce;
    let mut peer = PeerState::new(history.user, PeerId([7; 20]), account);
    peer.enter(endpoint("9.9.9.9", 6881), Role::Seeder, seen);
    assert_eq!(PackedEntry::client(&peer, Some(&history)).bytes().len(), 66);
    // One that began with `started`.
    let start = Some(Point {
        total: 0,
        at: 1_800_000_000,
    });
    (peer.account.start_up, peer.account.start_down) = (start, start);
    assert_eq!(PackedEntry::client(&peer, Some(&history)).bytes().len(), 70);
    assert_eq!(size_of::<PrivateSwarm>(), 16);
}

#[test]
fn a_peer_of_two_families_counts_once_and_leaves_with_its_last_endpoint() {
    let mut swarm = PrivateSwarm::default();
    let now = Seconds::START;
    let (user, peer_id) = (UserId(1), PeerId([1; 20]));
    let mut client = swarm.newcomer(user, peer_id, Account::begin(0, 0, now));
    client
        .state
        .enter(endpoint("1.2.3.4", 1), Role::Leecher, now);
    client
        .state
        .enter(endpoint("2a00::1", 1), Role::Leecher, now);
    swarm.put(&client);
    assert_eq!(swarm.counts(), PeerCounts::of(Role::Leecher));
    let step = |swarm: &mut PrivateSwarm, change: &dyn Fn(&mut PeerState) -> bool| {
        let place = swarm.find(user, &peer_id).unwrap();
        let mut client = swarm.peer(place).unwrap();
        let left = change(&mut client.state);
        swarm.put(&client);
        left
    };
    step(&mut swarm, &|peer| {
        peer.enter(endpoint("1.2.3.4", 2), Role::Seeder, now);
        false
    });
    assert_eq!(swarm.counts(), PeerCounts::of(Role::Seeder));
    assert!(!step(&mut swarm, &|peer| peer.leave(Family::V4, now)));
    assert_eq!(swarm.counts(), PeerCounts::of(Role::Seeder));
    assert!(step(&mut swarm, &|peer| peer.leave(Family::V6, now)));
    assert!(!step(&mut swarm, &|peer| peer.leave(Family::V6, now)));
    assert_eq!(swarm.counts(), PeerCounts::default());
    assert_eq!(swarm.len(), 1);
}

#[test]
fn any_sequence_leaves_a_swarm_as_it_should_be() {
    // Few users with many clients, and many with few; sizes from one block to many, and back.
    for (seed, users, ids, steps) in [(1, 3, 4, 4000), (2, 20, 3, 8000), (3, 150, 2, 20_000)] {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut swarm = PrivateSwarm::default();
        let mut plain = Plain::default();
        for step in 0..steps {
            let now = Seconds::START.plus(step);
            // It fills in the first half, and empties in the second.
            let fills = if step < steps / 2 { 7 } else { 3 };
            let key = (UserId(rng.u32(..users)), PeerId([rng.u8(..ids); 20]));
            match rng.u8(..10) {
                9 => {
                    let mut history = history(&mut rng, key.0);
                    history.hnr &= rng.bool();
                    swarm.set_history(&history);
                    plain.histories.insert(key.0, history);
                }
                dice if dice < fills => announce(&mut swarm, &mut plain, key, now, &mut rng),
                _ => leave_or_forget(&mut swarm, &mut plain, key, &mut rng),
            }
            if step % 128 == 0 || step + 1 == steps {
                check(&swarm, &plain);
            }
        }
        swarm.set_snatches(7);
        assert_eq!(swarm.snatches(), 7);
        check(&swarm, &plain);
    }
}

fn announce(
    swarm: &mut PrivateSwarm,
    plain: &mut Plain,
    key: (UserId, PeerId),
    now: Seconds,
    rng: &mut fastrand::Rng,
) {
    let found = swarm.find(key.0, &key.1);
    assert_eq!(found.is_some(), plain.peers.contains_key(&key));
    let mut client = found.map_or_else(
        || swarm.newcomer(key.0, key.1, Account::begin(0, 0, now)),
        |place| swarm.peer(place).unwrap(),
    );
    let known = plain.histories.get(&key.0).copied();
    assert_eq!(client.history, known.unwrap_or(UserHistory::new(key.0)));
    let n = key.0.0 * 4 + u32::from(key.1.0[0]);
    let ip = match rng.u8(..3) {
        0 => format!("2a00::{n:x}"),
        _ => format!("9.9.{}.{}", n / 256, n % 256),
    };
    let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
    client.state.enter(endpoint(&ip, rng.u16(..4)), role, now);
    let (account, history) = (&mut client.state.account, &mut client.history);
    (account.last_announce, account.base_at) = (now, now);
    let downloaded = rng.u64(..1 << 40);
    account.downloaded += downloaded;
    account.uploaded = number(rng);
    history.downloaded = history.downloaded.saturating_add(downloaded);
    history.hnr |= rng.u8(..20) == 0;
    swarm.put(&client);
    plain.peers.insert(key, client.state);
    plain.histories.insert(key.0, client.history);
}

fn leave_or_forget(
    swarm: &mut PrivateSwarm,
    plain: &mut Plain,
    key: (UserId, PeerId),
    rng: &mut fastrand::Rng,
) {
    let Some(place) = swarm.find(key.0, &key.1) else {
        return;
    };
    let mut client = swarm.peer(place).unwrap();
    if client.state.role().is_some() {
        let family = if rng.bool() { Family::V4 } else { Family::V6 };
        let at = client.state.account.last_announce;
        client.state.leave(family, at);
        if client.state.role().is_none() {
            client.state.leave(Family::V4, at);
            client.state.leave(Family::V6, at);
        }
        swarm.put(&client);
        plain.peers.insert(key, client.state);
    } else {
        swarm.forget(place);
        plain.peers.remove(&key);
    }
}

fn check(swarm: &PrivateSwarm, plain: &Plain) {
    let mut counts = PeerCounts::default();
    for ((user, peer_id), peer) in &plain.peers {
        let client = swarm.peer(swarm.find(*user, peer_id).unwrap()).unwrap();
        assert_eq!(&client.state, peer);
        let others = plain.peers.values().filter(|it| it.user == *user);
        let mut others = others.filter(|it| it.peer_id != *peer_id);
        let has_other = others.any(|it| it.role().is_some());
        assert_eq!(swarm.has_other(&client), has_other);
        counts = peer
            .role()
            .map_or(counts, |role| counts.plus(PeerCounts::of(role)));
    }
    assert_eq!(swarm.counts(), counts);
    let mut without_clients = 0;
    for (user, history) in &plain.histories {
        let records = plain.peers.values().filter(|it| it.user == *user).count();
        let found = swarm.history(*user);
        assert_eq!(found.unwrap_or(UserHistory::new(*user)), *history);
        assert_eq!(swarm.records_of(*user, 1000), records);
        without_clients += usize::from(records == 0 && found.is_some());
    }
    assert_eq!(swarm.len(), plain.peers.len() + without_clients);
    check_selection(swarm, plain);
}

/// A request for all peers gets exactly the eligible ones.
fn check_selection(swarm: &PrivateSwarm, plain: &Plain) {
    let mut selector = Selector::new(fastrand::Rng::with_seed(1));
    let nowhere = PublicAddresses::default();
    for own in [endpoint("8.8.8.8", 1), endpoint("2a01::8", 1)] {
        for role in [Role::Leecher, Role::Seeder] {
            let request = Request {
                user: UserId(0),
                endpoint: own,
                role,
                want: 1000,
                eligibility: Eligibility {
                    alive_since: Seconds::START.plus(100),
                    viewer: nowhere.viewer(own.ip()),
                },
                hide_own: true,
            };
            let (mut out, mut ids) = (Vec::new(), Vec::new());
            swarm.select(&request, &mut selector, &mut out, Some(&mut ids));
            let mut expected: Vec<(Vec<u8>, PeerId)> = Vec::new();
            for peer in plain.peers.values() {
                let is_wanted = role == Role::Leecher || peer.role() == Some(Role::Leecher);
                let bytes = match own {
                    Endpoint::V4(_) => eligible(peer.v4.as_ref()),
                    Endpoint::V6(_) => eligible(peer.v6.as_ref()),
                };
                if is_wanted && peer.user != UserId(0) {
                    expected.extend(bytes.map(|bytes| (bytes, peer.peer_id)));
                }
            }
            let len = match own {
                Endpoint::V4(_) => Compact4::LEN,
                Endpoint::V6(_) => Compact6::LEN,
            };
            let got = out.chunks(len).map(<[u8]>::to_vec).zip(ids);
            let mut got: Vec<(Vec<u8>, PeerId)> = got.collect();
            got.sort();
            expected.sort();
            assert_eq!(got, expected);
        }
    }
}

fn eligible<C: Compact>(seen: Option<&SeenEndpoint<C>>) -> Option<Vec<u8>> {
    let seen = seen.filter(|it| it.at >= Seconds::START.plus(100) && it.endpoint.port() != 0)?;
    Some(seen.endpoint.as_ref().to_vec())
}

#[test]
fn memory_goes_with_the_last_entry() {
    let mut swarm = PrivateSwarm::default();
    for n in 0..100 {
        let account = Account::begin(0, 0, Seconds::START);
        swarm.put(&swarm.newcomer(UserId(n), PeerId([1; 20]), account));
    }
    assert_eq!(swarm.len(), 100);
    while !swarm.is_empty() {
        swarm.forget(swarm.len() - 1);
    }
    assert!(matches!(&swarm.0, PrivateStore::Small(block) if block.size() == 0));
}
