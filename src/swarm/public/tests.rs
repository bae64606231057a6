use super::shard::PublicShard;
use super::*;
use crate::base::ids::{InfoHash, PeerId};
use crate::swarm::table::{Cursor, Key, Visit};

fn endpoint(ip: &str, port: u16) -> Endpoint {
    Endpoint::new(ip.parse().unwrap(), port)
}

fn client(name: u8, key: Option<u32>) -> ClientTag {
    ClientTag::new(&PeerId([name; 20]), key)
}

fn put(swarm: &mut PublicSwarm, ip: &str, port: u16, tag: ClientTag, role: Role) -> Option<Role> {
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

/// Sweeps all of it in chunks of 10 peers; returns how many were removed.
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

/// A swarm that has its shard for itself.
fn only(shard: &mut PublicShard) -> PublicSwarm<'_> {
    shard.get_or_default(Key::from(InfoHash([1; 20])))
}

impl PublicSwarm<'_> {
    /// It is as large as its peers need.
    fn check(&self) {
        match &*self.store {
            PublicStore::Small(small) => small.check(self.pool),
            PublicStore::Large(large) => assert!(!large.is_small()),
        }
    }
}

#[test]
fn a_swarm_takes_sixteen_bytes() {
    assert_eq!(size_of::<PublicStore>(), 16);
    assert_eq!(size_of::<(u32, InfoHash, PublicStore)>(), 40);
}

#[test]
fn a_client_that_changes_its_port_is_replaced() {
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
fn a_peer_id_of_zeros_identifies_no_client() {
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut present = std::collections::HashMap::new();
    swarm.set_snatches(70_000);
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
        let mut counts = PeerCounts::default();
        for &role in present.values() {
            counts = counts.plus(PeerCounts::of(role));
        }
        assert_eq!(swarm.counts(), counts);
        assert_eq!(swarm.is_empty(), present.is_empty());
    }
    assert_eq!(swarm.snatches(), 70_000);
}

#[test]
fn what_was_counted_is_remembered_in_swarms_of_every_size() {
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
        let mut shard = PublicShard::default();
        let mut swarm = only(&mut shard);
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
fn a_sweep_in_chunks_misses_no_peer_that_others_move() {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut shard = PublicShard::default();
    let mut swarm = only(&mut shard);
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
        let mut shard = PublicShard::default();
        let mut swarm = only(&mut shard);
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
        // A known peer may stay, and a new one may come when one has left.
        assert!(put(&mut swarm, "9.9.9.1", 1).unwrap().is_some());
        assert_eq!(swarm.counts().leechers, counts.leechers + 1);
        swarm.remove(endpoint("9.9.9.1", 1), tag(0)).unwrap();
        assert_eq!(put(&mut swarm, "9.9.9.1", 999), Ok(None));
        assert_eq!(put(&mut swarm, "9.9.9.1", 1), Err(TooManyPeers));
    }
}

#[test]
fn swarms_of_one_shard_keep_out_of_each_others_memory() {
    let mut rng = fastrand::Rng::with_seed(13);
    let mut shard = PublicShard::default();
    let mut present = std::collections::HashMap::new();
    let mut packed = 0;
    for round in 0..60_000 {
        let torrent = rng.u8(..40) + rng.u8(..40);
        let key = Key::from(InfoHash([torrent; 20]));
        let number = rng.u16(1..30 + 40 * u16::from(torrent / 70));
        let at = endpoint(&address(number), 1);
        let units = shard.pool_units();
        // It grows and empties, several times.
        let leaving = if round / 10_000 % 2 == 0 { 30 } else { 75 };
        if rng.u8(..100) < leaving {
            let removed = shard
                .get_mut(key)
                .and_then(|mut it| it.remove(at, tag(number)));
            assert_eq!(
                removed.is_some(),
                present.remove(&(torrent, number)).is_some()
            );
        } else {
            let role = [Role::Leecher, Role::Seeder][rng.usize(..2)];
            let before = put(
                &mut shard.get_or_default(key),
                &address(number),
                1,
                tag(number),
                role,
            );
            assert_eq!(before, present.insert((torrent, number), role));
        }
        packed += usize::from(shard.pool_units() + 32 < units);
        if round % 97 == 0 {
            shard.check();
            let mut counts = std::collections::HashMap::new();
            for ((torrent, _), role) in &present {
                let sum: &mut PeerCounts = counts.entry(*torrent).or_default();
                *sum = sum.plus(PeerCounts::of(*role));
            }
            for torrent in 0..80 {
                let found = shard.get(Key::from(InfoHash([torrent; 20])));
                let found = found.map(|(counts, _)| counts).unwrap_or_default();
                assert_eq!(found, counts.remove(&torrent).unwrap_or_default());
            }
        }
    }
    assert!(packed > 20, "{packed}");
    shard.walk(Cursor::default(), |_, _| Visit::Remove);
    shard.check();
    assert_eq!((shard.len(), shard.pool_units()), (0, 0));
}
