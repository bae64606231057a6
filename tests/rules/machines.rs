//! Several machines of one user with one peer id: a copied client folder (rule A3).

use crate::world::{Ask, World, peer};

const MB: u64 = 1_000_000;

/// The client on machine `n`, which shares its peer id with the others.
fn machine(n: u8, uploaded: u64) -> Ask {
    peer(1)
        .of(1)
        .from(&format!("9.9.9.{n}"))
        .with(&format!("port={}", 7000 + u16::from(n)))
        .totals(uploaded, 0)
}

#[test]
fn two_machines_with_one_peer_id_gain_what_they_show_together() {
    for is_same_port in [false, true] {
        let mut world = World::private();
        let port = if is_same_port { "port=6881" } else { "" };
        let mut announce = |wait: u32, ask: Ask| {
            world.wait(wait);
            world.ok(ask.with(port));
            world.credited(1).0
        };
        announce(0, machine(1, 0).event("started"));
        let credits = [
            announce(900, machine(1, 10 * MB)),
            announce(5, machine(2, 0).event("started")),
            announce(900, machine(1, 11 * MB)),
            announce(900, machine(2, MB)),
            announce(900, machine(1, 12 * MB)),
        ];
        assert_eq!(credits, [10 * MB, 0, MB, MB, MB]);
    }
}

#[test]
fn downloads_of_two_machines_are_not_counted_twice() {
    let mut world = World::private();
    world.ok(machine(1, 0).event("started"));
    world.wait(900);
    world.ok(machine(1, 0).totals(0, 10 * MB));
    world.ok(machine(2, 0).event("started"));
    for n in 1..=5 {
        world.wait(900);
        world.ok(machine(2, 0).totals(0, n * MB));
        world.ok(machine(1, 0).totals(0, (10 + n) * MB));
    }
    assert_eq!(world.credited(1), (0, 20 * MB));
}

#[test]
fn three_machines_gain_at_most_what_they_show() {
    let mut world = World::private();
    for n in 1..=3 {
        world.ok(machine(n, 0).event("started"));
    }
    for round in 1..=10 {
        for n in 1..=3 {
            world.wait(600);
            world.ok(machine(n, round * u64::from(n) * MB));
        }
    }
    let credited = world.credited(1).0;
    assert!((30 * MB..=60 * MB).contains(&credited), "{credited}");
}

#[test]
fn a_client_that_returns_at_another_address_loses_no_later_growth() {
    let mut world = World::private();
    world.ok(machine(1, 0).event("started"));
    world.wait(1800);
    world.ok(machine(1, 500 * MB));
    // A tunnel broke, and the client was started again behind another one.
    world.wait(10);
    world.ok(machine(2, 0).event("started"));
    for n in 1..=20 {
        world.wait(1800);
        world.ok(machine(2, n * 30 * MB));
    }
    world.ok(machine(2, 600 * MB).event("stopped").with("port=0"));
    assert_eq!(world.credited(1).0, 1100 * MB);
}

#[test]
fn a_restart_between_two_machines_doubles_nothing() {
    let mut world = World::private();
    world.ok(machine(1, 0).event("started"));
    world.wait(900);
    world.ok(machine(1, 10 * MB));
    world.ok(machine(2, 0).event("started"));
    world.wait(900);
    world.ok(machine(2, MB));
    world.flush();
    world.restart();
    world.wait(60);
    world.ok(machine(1, 11 * MB));
    world.wait(60);
    world.ok(machine(2, 2 * MB));
    world.wait(60);
    world.ok(machine(1, 12 * MB));
    world.wait(60);
    world.ok(machine(2, 3 * MB));
    world.drain();
    assert_eq!(world.totals(1).up, 10 * MB + MB + MB + MB + MB);
    // The one that is behind comes several times before the other.
    world.flush();
    world.restart();
    for n in 4..=6 {
        world.wait(900);
        world.ok(machine(2, n * MB));
    }
    world.wait(60);
    world.ok(machine(1, 13 * MB));
    world.drain();
    assert_eq!(world.totals(1).up, 14 * MB + 2 * MB + MB);
}

#[test]
fn another_node_knows_that_several_machines_share_a_record() {
    let (mut one, mut two) = (World::private(), World::private());
    one.ok(machine(1, 0).event("started"));
    one.wait(900);
    one.ok(machine(1, 10 * MB));
    one.ok(machine(2, 0).event("started"));
    for change in one.drain_peers() {
        two.tracker.follow_peer(&change, false, two.now);
    }
    for n in 1..=3 {
        two.wait(900);
        two.ok(machine(2, n * MB));
    }
    two.wait(900);
    two.ok(machine(1, 11 * MB));
    assert_eq!(two.credited(1).0, 2 * MB + MB);
}
