//! What users gain, and what is kept of it: rules A1 to A11, hit and run, and a full outbox.

use mika::registry::{Permille, RegistryChange};
use mika::tracker::Ticket;

use crate::world::{Ask, MAX_RATE, TOMBSTONE, TTL, World, peer, rules, torrent, user};

/// Seconds to wait, what is announced, and the credit that the journal then holds.
type Line<'a> = (u32, &'a str, (u64, u64));

fn run(world: &mut World, lines: &[Line]) {
    for (number, (wait, announce, expected)) in lines.iter().enumerate() {
        world.wait(*wait);
        world.ok(peer(1).of(1).with(announce));
        assert_eq!(world.credited(1), *expected, "line {number}: {announce}");
    }
}

#[test]
fn totals_become_credit() {
    let tables: &[&[Line]] = &[
        // The vector: 150 bytes, and the same stop again adds nothing.
        &[
            (0, "uploaded=0", (0, 0)),
            (10, "uploaded=100", (100, 0)),
            (10, "uploaded=150&event=stopped", (50, 0)),
            (10, "uploaded=150&event=stopped", (0, 0)),
        ],
        // A1: the first report is the base, whatever the event.
        &[
            (
                0,
                "uploaded=500&downloaded=9&event=completed&left=0",
                (0, 0),
            ),
            (10, "uploaded=600&downloaded=9", (100, 0)),
        ],
        // A1: also if the first announce does not report it.
        &[
            (0, "uploaded=-1&downloaded=", (0, 0)),
            (10, "uploaded=500&downloaded=9", (0, 0)),
            (10, "uploaded=510&downloaded=10", (10, 1)),
        ],
        // A2: on every event, and from a tombstone.
        &[
            (0, "", (0, 0)),
            (10, "uploaded=5&event=started", (5, 0)),
            (10, "uploaded=7&downloaded=3&left=0&event=completed", (2, 3)),
            (10, "uploaded=8&downloaded=3&event=stopped", (1, 0)),
            (10, "uploaded=10&downloaded=4", (2, 1)),
        ],
        // A3: `started` begins a session, at any total.
        &[
            (0, "uploaded=500&downloaded=90", (0, 0)),
            (10, "uploaded=20&downloaded=100&event=started", (0, 10)),
            (10, "uploaded=50&downloaded=100", (30, 0)),
        ],
        // A3: a straggler costs nothing; a lost `started` costs one minute.
        &[
            (0, "uploaded=500", (0, 0)),
            (10, "uploaded=400", (0, 0)),
            (1, "uploaded=520", (20, 0)),
            (1, "uploaded=100", (0, 0)),
            (59, "uploaded=110", (0, 0)),
            (1, "uploaded=120", (0, 0)),
            (1, "uploaded=130", (10, 0)),
        ],
        // A3: the counters are independent.
        &[
            (0, "uploaded=0&downloaded=1000", (0, 0)),
            (10, "uploaded=10&downloaded=900", (10, 0)),
            (1800, "uploaded=30&downloaded=1100", (20, 100)),
        ],
        // What can't be read leaves the account alone.
        &[
            (0, "uploaded=10&downloaded=10", (0, 0)),
            (10, "uploaded=-1&downloaded=12", (0, 2)),
            (10, "uploaded=9223372036854775808&downloaded=x", (0, 0)),
            (10, "uploaded=11&downloaded=12", (1, 0)),
        ],
        // A10: corrupt and redundant bytes change nothing.
        &[
            (0, "", (0, 0)),
            (10, "uploaded=5&downloaded=5&corrupt=5&redundant=5", (5, 5)),
        ],
    ];
    for lines in tables {
        run(&mut World::private(), lines);
    }
}

#[test]
fn a_gap_loses_nothing_and_gains_nothing() {
    let first: Line = (0, "uploaded=700&downloaded=800", (0, 0));
    for gap in [TTL + 1, TOMBSTONE, 3 * TOMBSTONE] {
        let mut world = World::private();
        run(&mut world, &[first]);
        world.wait(gap);
        world.sweep();
        world.sweep();
        world.drain();
        let credit = if gap <= TOMBSTONE { 5 } else { 0 };
        let lines: [Line; 2] = [
            (0, "uploaded=705&downloaded=800", (credit, 0)),
            (1, "uploaded=707&downloaded=800", (2, 0)),
        ];
        run(&mut world, &lines);
    }
}

#[test]
fn families_and_clients() {
    let mut world = World::private();
    let v6 = |more: &str| peer(1).of(1).from("2a00::1").with(more);
    run(&mut world, &[(0, "event=started&key=1", (0, 0))]);
    world.ok(v6("event=started&key=2"));
    run(&mut world, &[(10, "uploaded=100&key=1", (100, 0))]);
    world.ok(v6("uploaded=100&key=2"));
    assert_eq!(world.credited(1), (0, 0), "reported in both families");
    run(&mut world, &[(10, "uploaded=120&event=stopped", (20, 0))]);
    world.ok(v6("uploaded=120&event=stopped"));
    assert_eq!(world.credited(1), (0, 0));
    assert_eq!(world.record(1, 1).announces, 6);

    // A6: two clients of one user have an account each.
    world.ok(peer(2).of(1));
    world.ok(peer(3).of(1));
    world.wait(10);
    world.ok(peer(2).of(1).totals(5, 0));
    world.ok(peer(3).of(1).totals(7, 0));
    assert_eq!(world.credited(1), (12, 0));
    // A11: a peer id that moves to another user begins there.
    world.ok(peer(3).of(2).totals(9, 0));
    assert_eq!(world.credited(2), (0, 0));
}

#[test]
fn newcomers_beyond_the_limit_are_refused() {
    let mut world = World::private();
    for n in 1..=5 {
        world.ok(peer(n).of(1));
    }
    assert_eq!(world.refused(peer(6).of(1)), "too many peers");
    world.ok(peer(6).of(1).event("stopped"));
    world.ok(peer(5).of(1));
    world.ok(peer(5).of(1).from("2a00::5"));
    world.ok(peer(6).of(2));
    world.ok(peer(1).of(1).torrent(2));
    // One that comes back is a newcomer too.
    world.ok(peer(1).of(1).event("stopped"));
    world.ok(peer(6).of(1));
    assert_eq!(world.refused(peer(1).of(1)), "too many peers");
    // The expired take no place, swept or not.
    world.wait(TTL + 1);
    world.ok(peer(1).of(1));
}

#[test]
fn implausible_rates_are_not_credited() {
    let megabyte = 1_000_000;
    let per_10 = MAX_RATE * 10;
    let mut world = World::private();
    let up = |total: u64| peer(1).of(1).totals(total, 0);
    world.ok(up(0));
    world.wait(10);
    world.ok(up(per_10));
    assert_eq!(world.credited(1), (per_10, 0), "just believable");
    world.wait(10);
    world.ok(up(2 * per_10 + 1));
    assert_eq!(world.credited(1), (0, 0));
    world.ok(up(2 * per_10 + 1 + megabyte));
    assert_eq!(world.credited(1), (megabyte, 0), "its base moved on");
    // Whatever the rate, 2^50 bytes at once are too many.
    world.wait(1_000_000);
    world.ok(peer(1).of(1).totals(1 << 51, 0));
    assert_eq!(world.credited(1), (0, 0));
    // A step of the wall clock is no time.
    let mut world = World::private();
    world.ok(up(0));
    world.now.unix += 1_000_000;
    world.ok(up(per_10));
    assert_eq!(world.credited(1), (0, 0));
    world.now.unix -= 2_000_000;
    world.sweep();
    assert_eq!(world.counts(up(per_10)), (0, 1, 0));
}

#[test]
fn multipliers_are_integers_of_the_torrent() {
    let mut world = World::private();
    let mut half = torrent(1);
    (half.multi_up, half.multi_down) = (Permille(1500), Permille(500));
    world.apply(RegistryChange::Torrent(half.clone()));
    run(
        &mut world,
        &[(0, "", (0, 0)), (9, "uploaded=3&downloaded=3", (4, 1))],
    );
    half.multi_down = Permille(0);
    world.apply(RegistryChange::Torrent(half));
    run(&mut world, &[(9, "uploaded=5&downloaded=9", (3, 0))]);
    let totals = world.totals(1);
    assert_eq!((totals.raw_up, totals.raw_down), (5, 9));
    assert_eq!(
        (world.record(1, 1).uploaded, world.record(1, 1).downloaded),
        (5, 9)
    );
}

#[test]
fn a_new_passkey_keeps_the_record() {
    let mut world = World::private();
    run(&mut world, &[(0, "uploaded=10", (0, 0))]);
    let mut renewed = user(1);
    renewed.passkey = "another-passkey".parse().unwrap();
    world.apply(RegistryChange::User(renewed));
    assert_eq!(world.refused(peer(1).of(1)), "invalid passkey");
    world.wait(10);
    world.ok(peer(1).passkey("another-passkey").totals(15, 0));
    assert_eq!(world.credited(1), (5, 0));
}

#[test]
fn seed_time_counts_from_the_second_announce_to_the_stop() {
    let mut world = World::private();
    let table: &[(u32, &str, u64)] = &[
        (0, "left=0&event=started", 0),
        (1800, "left=0", 1800),
        (1800, "left=5", 1800),
        (1800, "left=5", 0),
        (1800, "left=0&event=completed", 0),
        (0, "left=0", 0),
        (TTL, "left=0", TTL.into()),
        (700, "left=0&event=stopped", 700),
        (700, "left=0&event=stopped", 0),
        (700, "left=0", 0),
        (TTL + 1, "left=0", 0),
    ];
    for (number, (wait, announce, expected)) in table.iter().enumerate() {
        let before = world.totals(1).seed_time;
        world.wait(*wait);
        world.ok(peer(1).of(1).with(announce));
        world.drain();
        let added = world.totals(1).seed_time - before;
        assert_eq!(added, *expected, "line {number}");
    }
    let total = u32::try_from(world.totals(1).seed_time).unwrap();
    assert_eq!(world.record(1, 1).seed_time, total);
}

#[test]
fn a_client_that_stops_and_returns_at_once_loses_no_seed_time() {
    let mut world = World::private();
    for event in ["started", "stopped", "started", "stopped", "started"] {
        world.ok(peer(1).of(1).left(0).event(event));
    }
    world.wait(60);
    world.ok(peer(1).of(1).left(0));
    world.drain();
    assert_eq!(world.totals(1).seed_time, 60);
}

#[test]
fn a_client_that_stops_and_returns_at_once_can_expire() {
    let mut world = World::private();
    for event in ["started", "stopped", "started"] {
        world.ok(peer(1).of(1).left(0).event(event));
    }
    world.wait(TTL + 1);
    assert_eq!(world.ok(peer(2).of(2)).peers, []);
    world.ok(peer(1).of(1).left(0));
    world.drain();
    assert_eq!(world.totals(1).seed_time, 0);
}

#[test]
fn clients_of_a_user_that_seed_at_the_same_time_count_once() {
    let mut world = World::private();
    for n in [1, 2, 3] {
        world.ok(peer(n).of(1).left(0));
    }
    for _ in 0..2 {
        for n in [1, 2, 3] {
            world.wait(100);
            world.ok(peer(n).of(1).left(0));
        }
    }
    world.drain();
    assert_eq!(world.totals(1).seed_time, 600);
    // Each of them is shown its own.
    assert_eq!(world.record(1, 3).seed_time, 600);
}

#[test]
fn a_leaping_clock_does_not_double_seed_time() {
    let mut world = World::private();
    for n in [1, 2] {
        world.ok(peer(n).of(1).left(0));
    }
    world.wait(100);
    world.ok(peer(1).of(1).left(0));
    world.wait(50);
    world.now.unix += 3600;
    world.wait(50);
    for n in [2, 1] {
        world.ok(peer(n).of(1).left(0));
    }
    world.drain();
    assert_eq!(world.totals(1).seed_time, 200);
    world.wait(100);
    world.ok(peer(1).of(1).left(0));
    world.drain();
    assert_eq!(world.totals(1).seed_time, 300);
}

/// Since when the last change that the journal keeps says that its client has been seeding, and until when, by
/// how long ago that was.
fn seeded(world: &mut World) -> Option<(i64, i64)> {
    let report = world.drain_peers().pop()?.report?;
    let now = world.now.unix;
    Some((now - report.seeding_since?, now - report.at))
}

#[test]
fn a_leaping_clock_does_not_double_the_last_report_of_a_client() {
    let mut world = World::private();
    for n in [1, 2] {
        world.ok(peer(n).of(1).left(0));
    }
    world.wait(100);
    world.ok(peer(1).of(1).left(0).event("stopped"));
    world.now.unix += 3600;
    world.wait(50);
    world.ok(peer(2).of(1).left(0));
    assert_eq!(seeded(&mut world), Some((50, 0)));
    world.wait(100);
    world.ok(peer(2).of(1).left(0));
    assert_eq!(seeded(&mut world), Some((100, 0)));
}

#[test]
fn owed_seed_time_keeps_its_time() {
    let seeds = |event: &'static str| peer(1).of(1).left(0).event(event);
    // It stops again, or not; or it begins again, and seeds on in the end.
    for (again, wait, expected) in [
        (Some("stopped"), 10, (2060, 60)),
        (None, 10, (2060, 60)),
        (Some("started"), 10, (2060, 60)),
        (Some("started"), 1000, (1050, 50)),
    ] {
        let mut world = World::private_by(rules(), 2);
        world.ok(seeds("started"));
        world.drain();
        world.ok(peer(8).of(8));
        world.ok(peer(9).of(9));
        world.wait(2000);
        world.ok(seeds("stopped"));
        world.wait(10);
        if let Some(event) = again {
            world.ok(seeds(event));
        }
        if wait > 10 {
            world.wait(wait);
            world.ok(seeds(""));
        }
        world.wait(50);
        world.drain();
        world.sweep();
        assert_eq!(seeded(&mut world), Some(expected), "{again:?} {wait}");
    }
}

/// A client began again, and its `started` is not known here: the lower download must not date the upload back, to before
/// that `started`, where storage would count it once more.
#[test]
fn an_owed_report_keeps_the_time_of_each_total() {
    let mut world = World::private_by(rules(), 2);
    let totals = |up: u64, down: u64| peer(1).of(1).totals(up, down);
    world.ok(totals(0, 500).event("started"));
    world.drain();
    world.wait(100);
    world.ok(totals(10, 5));
    world.drain();
    world.wait(20);
    world.ok(peer(8).of(8));
    world.ok(peer(9).of(9));
    world.ok(totals(60, 6));
    let reported_at = world.now.unix;
    world.drain();
    world.wait(5);
    world.sweep();
    let changes = world.drain_peers();
    let report = changes[0].report.expect("what was owed");
    let up = report.up.expect("more than before");
    assert_eq!((up.to.total, up.to.at), (60, reported_at));
}

/// The rules here: more than 1000 bytes oblige to 10,000 seconds.
#[test]
fn a_user_who_leaves_too_early_is_marked() {
    let down = |total: u64| peer(1).of(1).totals(0, total);
    let seed = |n: u8| peer(n).of(1).totals(0, 1001).left(0);
    let hnr = |world: &mut World| {
        world.flush();
        world.standing(1).hnr
    };
    // A thousand bytes oblige to nothing; the stop's own bytes count.
    for (total, marked) in [(1000, false), (1001, true)] {
        let mut world = World::private();
        world.ok(down(0));
        world.wait(10);
        world.ok(down(total).event("stopped"));
        assert_eq!(hnr(&mut world), marked, "{total}");
    }
    // So do silent peers, swept or seen again before.
    for sweeps in [true, false] {
        let mut world = World::private();
        world.ok(down(0));
        world.wait(10);
        world.ok(down(1001));
        assert!(!hnr(&mut world), "still there");
        world.wait(TTL + 1);
        if sweeps {
            world.sweep();
        }
        world.ok(down(1001));
        assert!(hnr(&mut world), "swept: {sweeps}");
    }
    // The mark is removed when the seed time is reached, over sessions, clients and a restart.
    let mut world = World::private();
    world.ok(down(0));
    world.wait(10);
    world.ok(seed(1).event("completed"));
    world.wait(3800);
    world.ok(seed(1).event("stopped"));
    assert!(hnr(&mut world));
    world.restart();
    world.ok(seed(2));
    world.wait(3800);
    world.ok(seed(2));
    world.wait(2399);
    world.ok(seed(2));
    assert!(hnr(&mut world), "9999 seconds");
    world.wait(1);
    world.ok(seed(2).event("stopped"));
    assert!(!hnr(&mut world));
    // One client that leaves while another stays is no run.
    let mut world = World::private();
    world.ok(down(0));
    world.wait(10);
    world.ok(seed(1));
    world.ok(seed(2));
    world.ok(seed(1).event("stopped"));
    assert!(!hnr(&mut world));
    world.ok(seed(2).event("stopped"));
    assert!(hnr(&mut world));
    // Nor is it if the torrent was disabled meanwhile.
    let mut world = World::private();
    world.ok(down(0));
    world.wait(10);
    world.ok(down(1001));
    let mut gone = torrent(1);
    gone.enabled = false;
    world.apply(RegistryChange::Torrent(gone));
    world.wait(TTL + 1);
    assert!(!hnr(&mut world));
    assert!(!world.record(1, 1).active);
}

#[test]
fn silence_explained_by_a_restart_marks_no_user() {
    let mut world = World::private();
    let announce = |down: u64, left: u64| peer(1).of(1).totals(0, down).left(left);
    let hnr = |world: &mut World| {
        world.flush();
        world.standing(1).hnr
    };
    world.ok(announce(0, 16384));
    world.wait(10);
    world.ok(announce(1001, 0));
    world.flush();
    world.now.unix += 10 * i64::from(TTL);
    world.restart();
    world.wait(TTL - 1);
    assert!(!hnr(&mut world), "the tracker was away");
    assert!(!world.record(1, 1).active);
    // A client that stays away for a peer's life has run.
    world.ok(announce(1001, 0));
    world.wait(TTL + 1);
    assert!(hnr(&mut world));
}

#[test]
fn silence_from_the_second_of_a_restart_marks_no_user() {
    let mut world = World::private();
    world.ok(peer(1).of(1).totals(0, 0));
    world.wait(10);
    world.ok(peer(1).of(1).totals(0, 1001));
    world.wait(1000);
    // It stays by IPv4.
    world.ok(peer(1)
        .of(1)
        .from("2a00::1")
        .event("stopped")
        .totals(0, 1001));
    world.flush();
    world.restart();
    world.wait(TTL - 1);
    world.flush();
    assert!(!world.record(1, 1).active);
    assert!(!world.standing(1).hnr);
}

#[test]
fn bases_survive_a_restart() {
    let mut world = World::private();
    run(
        &mut world,
        &[(0, "uploaded=10", (0, 0)), (9, "uploaded=15", (5, 0))],
    );
    // What was not durable is credited by the next announce, once.
    world.wait(10);
    world.ok(peer(1).of(1).totals(25, 0));
    world.restart();
    run(
        &mut world,
        &[(10, "uploaded=40", (25, 0)), (9, "uploaded=40", (0, 0))],
    );
    // A dip continues, too.
    run(&mut world, &[(9, "uploaded=4", (0, 0))]);
    world.restart();
    run(
        &mut world,
        &[(60, "uploaded=5", (0, 0)), (1, "uploaded=7", (2, 0))],
    );
    // And a peer of both families keeps its role.
    let mut world = World::private();
    world.ok(peer(1).of(1).event("paused"));
    world.ok(peer(1).of(1).from("2a00::1").event("paused"));
    world.ok(peer(2).of(2).left(0));
    world.drain();
    world.restart();
    let entry = world.scrape(crate::world::hash(1)).unwrap();
    assert_eq!((entry.complete, entry.incomplete, entry.paused), (1, 1, 1));
    assert_eq!(world.ok(peer(3).of(3)).peers.len(), 2);
    assert_eq!(world.ok(peer(3).of(3).from("2a00::3")).peers.len(), 1);
}

/// Makes the outbox full: it has room for two changes.
fn full() -> World {
    let mut world = World::private_by(rules(), 2);
    world.ok(peer(1).of(1));
    world.drain();
    world.ok(peer(8).of(8));
    world.ok(peer(9).of(9));
    world
}

#[test]
fn with_a_full_outbox_credit_comes_later() {
    let up = |total: u64| peer(1).of(1).totals(total, 0);
    let mut world = full();
    world.wait(10);
    let reply = world.ok(up(100));
    assert_eq!((reply.incomplete, reply.ticket), (3, None));
    assert_eq!(world.metrics.outbox_full.get(), 1);
    assert_eq!(world.credited(1), (0, 0));
    assert_eq!(world.record(1, 1).base_up, 0, "the kept base stays");
    world.wait(10);
    world.ok(up(130));
    assert_eq!(world.credited(1), (130, 0));
    assert_eq!(world.record(1, 1).base_up, 130);
    assert_eq!(world.totals(1).announces, 3);
    assert_eq!(world.credited(1), (0, 0));

    // Not durable and then gone: the next announce reports it again.
    let mut world = full();
    world.wait(10);
    world.ok(up(100));
    world.drain();
    world.restart();
    world.wait(10);
    world.ok(up(100));
    assert_eq!(world.credited(1), (100, 0));
}

#[test]
fn a_total_below_its_base_without_room_does_not_report_the_base() {
    let up = |total: u64| peer(1).of(1).totals(total, 0);
    let mut world = World::private_by(rules(), 2);
    world.ok(up(100));
    world.drain();
    world.ok(peer(8).of(8));
    world.ok(peer(9).of(9));
    world.wait(10);
    assert_eq!(world.ok(up(40)).ticket, None);
    world.drain();
    world.wait(10);
    world.ok(up(50));
    let reports = world.drain_peers().into_iter().filter_map(|it| it.report);
    let shown: Vec<u64> = reports.filter_map(|it| Some(it.up?.to.total)).collect();
    assert_eq!(shown, [50]);
}

#[test]
fn a_stop_without_room_is_kept_until_there_is() {
    let stop = || peer(1).of(1).totals(150, 2000).left(0).event("stopped");
    for again in [false, true] {
        let mut world = full();
        world.wait(3000);
        let reply = world.ok(stop());
        assert_eq!((reply.incomplete, reply.ticket), (2, Some(Ticket::NEVER)));
        if again {
            world.ok(stop());
        }
        world.sweep();
        assert_eq!(world.credited(1), (0, 0));
        assert!(world.record(1, 1).active);
        world.wait(10);
        world.sweep();
        assert_eq!(world.credited(1), (150, 2000));
        assert!(!world.record(1, 1).active);
        assert!(world.standing(1).hnr);
        world.sweep();
        assert!(world.drain().is_empty());
    }
    // Its seed time too; and a new session begins at its own totals meanwhile.
    let mut world = World::private_by(rules(), 2);
    world.ok(peer(1).of(1).left(0));
    world.ok(peer(8).of(8));
    world.wait(3000);
    world.ok(stop());
    world.wait(10);
    // One that begins now can't be journaled beside it: it gets no answer, and retries.
    world.ok(peer(1).of(1).event("started"));
    assert_eq!(world.credited(1), (0, 0));
    world.ok(peer(1).of(1).event("started"));
    world.wait(10);
    world.ok(peer(1).of(1).totals(30, 0));
    assert_eq!(world.credited(1), (150, 2000));
    world.ok(peer(1).of(1).totals(30, 0));
    assert_eq!(world.credited(1), (30, 0));
    assert_eq!(world.totals(1).seed_time, 3000);
}

#[test]
fn a_snatch_without_room_is_journaled_later() {
    let mut world = full();
    world.wait(10);
    let done = |total: u64| peer(1).of(1).totals(0, total).left(0).event("completed");
    let reply = world.ok(done(50));
    assert_eq!((reply.downloaded, reply.ticket), (1, Some(Ticket::NEVER)));
    world.drain();
    assert_eq!(world.totals(1).snatches, 0);
    world.sweep();
    world.drain();
    assert_eq!(world.totals(1).snatches, 1);
    world.ok(done(50));
    world.drain();
    assert_eq!((world.totals(1).snatches, world.totals(1).down), (1, 50));
}

#[test]
fn a_public_client_that_completes_again_by_the_family_that_was_counted_counts_again() {
    let mut world = World::public();
    let done = || peer(1).left(0).event("completed");
    for (from, snatches) in [("9.9.9.1", 1), ("2a00::1", 1), ("9.9.9.1", 2)] {
        assert_eq!(world.counts(done().from(from)).2, snatches, "{from}");
        world.ok(peer(1).left(0).event("stopped").from(from));
        world.wait(10);
    }
}

#[test]
fn replies_wait_for_what_they_acknowledge() {
    let mut world = World::private();
    let table: &[(u32, &str, bool)] = &[
        (0, "", true),
        (60, "uploaded=5", false),
        (60, "uploaded=9&event=started", true),
        (60, "left=0&event=completed&uploaded=9", true),
        (60, "left=0&uploaded=10", false),
        // A lowered base is the base of all that follows.
        (60, "left=0&uploaded=1", false),
        (60, "left=0&uploaded=1", true),
        (60, "left=0&uploaded=1&event=stopped", true),
    ];
    for (number, (wait, announce, waits)) in table.iter().enumerate() {
        world.wait(*wait);
        let reply = world.ok(peer(1).of(1).with(announce));
        assert_eq!(reply.ticket.is_some(), *waits, "line {number}: {announce}");
        world.drain();
    }
    let stranger: Ask = peer(5).of(5).event("stopped");
    assert_eq!(world.ok(stranger).ticket, None, "nothing was changed");
    assert!(world.drain().is_empty());
    let mut public = World::public();
    let done = peer(1).left(0).event("completed");
    assert_eq!(public.ok(done).ticket, None);
}

#[test]
fn records_are_absolute_and_credits_sum_up() {
    let mut world = World::private();
    world.ok(peer(1).of(1).with("left=900&event=started"));
    world.wait(100);
    world.ok(peer(1).of(1).with("uploaded=1000&downloaded=500&left=400"));
    world.wait(100);
    world.ok(peer(1)
        .of(1)
        .with("uploaded=1000&downloaded=900&left=0&event=completed"));
    let changes = world.drain_peers();
    assert_eq!(changes.len(), 3);
    let record = &changes[1].record;
    assert_eq!((record.base_up, record.base_down), (1000, 500));
    assert_eq!((record.speed_up, record.speed_down), (10, 5));
    assert_eq!((record.uploaded, record.downloaded), (1000, 500));
    assert_eq!((record.left, record.announces), (Some(400), 2));
    assert_eq!(record.first_announce, 1_800_000_000);
    assert_eq!(record.last_announce, 1_800_000_100);
    assert_eq!(record.base_at, 1_800_000_100);
    assert_eq!(record.v4, Some("9.9.9.1:6881".parse().unwrap()));
    assert!(record.active && !record.paused);
    let last = &changes[2];
    assert_eq!((last.counts.seeders, last.counts.leechers), (1, 0));
    assert_eq!(last.record.downloaded, 900);
    assert!(last.credit.snatched && !changes[1].credit.snatched);
    assert_eq!(last.standing.completed_at, Some(1_800_000_200));
    assert!(changes.iter().all(|change| change.credit.announces == 1));
}
