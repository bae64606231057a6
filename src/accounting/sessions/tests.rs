//! Sessions: what is credited, whatever the order and routing of the reports.

use super::*;

const MAX_RATE: u64 = 2_500_000_000;

fn point(at: i64, total: u64) -> Point {
    Point { total, at }
}

/// Reports as (time, started, total); returns what is credited for all of them.
fn credited(reports: &[(i64, bool, u64)]) -> u64 {
    let mut sessions = Sessions::default();
    reports
        .iter()
        .map(|&(at, started, total)| {
            let stretch = Stretch::at(point(at, total), started);
            sessions
                .settle(&stretch, ReportSource::UNKNOWN, MAX_RATE)
                .bytes
        })
        .sum()
}

#[test]
fn starts_of_a_node_follow_each_other() {
    for hash in [0, 7, u64::from(u16::MAX) - 1, u64::MAX] {
        let (first, second) = (
            ReportSource::new(hash, 65_534),
            ReportSource::new(hash, 65_535),
        );
        assert_eq!(first.slack_after(first), Some(SKEW));
        assert_eq!(second.slack_after(first), Some(1));
        assert_eq!(first.slack_after(second), None);
        assert_eq!(
            ReportSource::new(hash, 65_534 + 33).slack_after(first),
            None
        );
    }
    assert_eq!(
        ReportSource::UNKNOWN.slack_after(ReportSource::UNKNOWN),
        None
    );
}

#[test]
fn a_client_may_begin_again_at_the_next_start_in_the_same_second() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(40, 4));
    let credited = |sources: [ReportSource; 4]| -> u64 {
        let mut sessions = Sessions::default();
        let reports = [
            (10, true, 0),
            (20, false, 100),
            (20, true, 0),
            (30, false, 7),
        ];
        let settled = reports
            .iter()
            .zip(sources)
            .map(|(&(at, started, total), by)| {
                let stretch = Stretch::at(point(at, total), started);
                sessions.settle(&stretch, by, MAX_RATE).bytes
            });
        settled.sum()
    };
    assert_eq!(credited([first, first, second, second]), 107);
    let other = ReportSource::new(99, 1);
    assert_eq!(
        credited([first, first, other, other]),
        100,
        "of two nodes, the order is unknown"
    );
}

/// Two reports of one second, of which the second one has less.
#[test]
fn a_lower_total_in_the_second_of_the_first_report_gains_nothing() {
    let [first, second] = [1, 40_000].map(|hash| ReportSource::new(hash, 1));
    let credited = |by: [ReportSource; 2]| -> u64 {
        let mut sessions = Sessions::default();
        let reports = [(4, 2461), (4, 376)].into_iter().zip(by);
        let settled = reports.map(|((at, total), by)| {
            let stretch = Stretch::at(point(at, total), false);
            sessions.settle(&stretch, by, MAX_RATE).bytes
        });
        settled.sum()
    };
    assert_eq!(credited([first, first]), 0);
    assert_eq!(
        credited([first, second]),
        0,
        "of two nodes, the order is unknown"
    );
}

/// Settles reports: source, time, whether it is a start, total, and the expected credit.
fn expect(sessions: &mut Sessions, reports: &[(ReportSource, (i64, bool, u64), u64)]) {
    for &(by, (at, started, total), credited) in reports {
        let stretch = Stretch::at(point(at, total), started);
        let bytes = sessions.settle(&stretch, by, MAX_RATE).bytes;
        assert_eq!(bytes, credited, "{total} at {at}");
    }
}

#[test]
fn a_start_that_two_nodes_pass_on_begins_one_session() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    let mut sessions = Sessions::known(700, 5);
    // The clock of the second is a second ahead, and the client moves something at once.
    let reports = [
        (first, (10, true, 0), 0),
        (first, (10, false, 100), 100),
        (second, (11, true, 0), 0),
        (second, (11, false, 100), 0),
        (second, (12, false, 150), 50),
        (first, (11, false, 150), 0),
    ];
    expect(&mut sessions, &reports);
}

#[test]
fn a_client_that_goes_on_counting_is_credited_once_by_two_nodes() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    let mut sessions = Sessions::default();
    let reports = [
        (first, (10, true, 0), 0),
        (first, (20, false, 100), 100),
        (first, (30, true, 100), 0),
        (first, (30, false, 150), 50),
        // The second node's clock is a second ahead, and it does not know the client.
        (second, (31, true, 100), 0),
        (second, (31, false, 150), 0),
        (second, (40, false, 170), 20),
    ];
    expect(&mut sessions, &reports);
}

#[test]
fn the_base_of_a_report_says_which_session_it_is_of() {
    let mut sessions = Sessions::default();
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    for (at, total, credited) in [(20, 0, 0), (20, 100, 100)] {
        let stretch = Stretch::at(point(at, total), total == 0);
        assert_eq!(sessions.settle(&stretch, first, MAX_RATE).bytes, credited);
    }
    let stretch = Stretch {
        from: point(19, 100),
        to: point(19, 150),
        started: false,
    };
    let credited = sessions.settle(&stretch, second, MAX_RATE).bytes;
    assert_eq!(credited, 50, "the other node's clock is behind");
    assert_eq!(sessions.settle(&stretch, second, MAX_RATE).bytes, 0);
}

#[test]
fn a_base_of_the_future_sets_no_limit() {
    let far = MAX_RATE * 1000;
    for (base_at, credited) in [(3, 0), (100, far)] {
        let mut sessions = Sessions::known(5, 0);
        let stretch = Stretch {
            from: point(base_at, 5),
            to: point(2, 5 + far),
            started: false,
        };
        let settled = sessions.settle(&stretch, ReportSource::UNKNOWN, MAX_RATE);
        assert_eq!(settled.bytes, credited, "{base_at}");
    }
}

#[test]
fn a_client_in_order_gains_what_it_moved() {
    assert_eq!(credited(&[(0, true, 0), (10, false, 100)]), 100);
    assert_eq!(credited(&[(0, false, 500), (10, false, 600)]), 100, "A1");
    assert_eq!(
        credited(&[
            (0, true, 0),
            (10, false, 100),
            (20, true, 0),
            (30, false, 7)
        ]),
        107
    );
    assert_eq!(
        credited(&[(0, true, 0), (10, false, 100), (20, true, 120)]),
        120,
        "a `started` that goes on from the old totals (rule A2)"
    );
}

#[test]
fn a_late_report_from_before_a_lower_total_does_not_make_it_wait_longer() {
    let in_order = [
        (0, true, 0),
        (100, false, 500),
        (150, false, 900),
        (200, false, 50),
        (261, false, 60),
        (280, false, 70),
    ];
    let mut late = in_order;
    late.swap(2, 3);
    assert_eq!(credited(&in_order), 910);
    assert_eq!(credited(&late), 910);
}

#[test]
fn a_lower_total_is_believed_after_a_minute() {
    let lower = [(0, true, 0), (10, false, 100), (20, false, 40)];
    let after = |at, total| {
        let mut all = lower.to_vec();
        all.push((at, false, total));
        all.push((at + 10, false, total + 5));
        credited(&all)
    };
    assert_eq!(after(79, 41), 100);
    assert_eq!(after(80, 41), 105);
    assert_eq!(after(79, 100), 105, "the dip is over");
}

#[test]
fn a_lower_total_is_believed_as_soon_as_a_late_report_shows_that_it_has_lasted_a_minute() {
    let in_order = [
        (0, true, 0),
        (126, false, 1000),
        (145, false, 500),
        (186, false, 520),
        (211, false, 530),
        (226, false, 550),
    ];
    let mut late = in_order;
    late[2..5].rotate_left(1);
    assert_eq!(credited(&in_order), 1020);
    assert_eq!(credited(&late), 1020);
}

#[test]
fn reports_count_once_in_any_order_and_number() {
    let reports = [
        (0, true, 0),
        (10, false, 100),
        (20, false, 250),
        (30, false, 300),
    ];
    let mut order = [0, 1, 2, 3];
    let mut permutations = 0;
    permute(&mut order, 0, &mut |order| {
        let mut all: Vec<_> = order.iter().map(|&place| reports[place]).collect();
        all.extend_from_within(..);
        assert_eq!(credited(&all), 300, "{order:?}");
        permutations += 1;
    });
    assert_eq!(permutations, 24);
}

fn permute(order: &mut [usize; 4], fixed: usize, visit: &mut dyn FnMut(&[usize; 4])) {
    if fixed == order.len() {
        visit(order);
        return;
    }
    for place in fixed..order.len() {
        order.swap(fixed, place);
        permute(order, fixed + 1, visit);
        order.swap(fixed, place);
    }
}

#[test]
fn a_start_that_arrives_after_its_session_begins_it() {
    let late = [
        (0, true, 0),
        (10, false, 100),
        (22, false, 20),
        (20, true, 0),
    ];
    assert_eq!(credited(&late), 120);
    let unknown = [(30, false, 50), (0, false, 100), (20, true, 0)];
    assert_eq!(credited(&unknown), 50);
}

#[test]
fn reports_before_their_start_count_when_they_were_made() {
    let late = [
        (0, true, 0),
        (61, false, 900),
        (160, false, 500),
        (139, false, 300),
        (114, false, 200),
        (75, true, 0),
        // It went on from where it was.
        (127, true, 200),
        (160, false, 500),
    ];
    assert_eq!(credited(&late), 1400);
}

#[test]
fn what_a_client_showed_another_node_before_is_credited_when_it_arrives() {
    // One node had 0 to 300 in its spill file while the client went on at another, from 500.
    let late = [
        (100, false, 500),
        (110, false, 600),
        (0, true, 0),
        (50, false, 300),
    ];
    assert_eq!(credited(&late), 600);
}

#[test]
fn what_is_older_than_records_are_kept_is_not_credited() {
    let at = LATE_MAX + 10;
    assert_eq!(credited(&[(at, false, 500), (0, true, 0)]), 0);
    assert_eq!(credited(&[(at, false, 500), (10, true, 0)]), 500);
}

#[test]
fn a_step_beyond_any_line_moves_the_base_and_credits_nothing() {
    let far = MAX_RATE * 11;
    assert_eq!(
        credited(&[(0, true, 0), (10, false, far), (20, false, far + 5)]),
        5
    );
}

/// A client that restarts at random; its reports arrive in random order, some twice, some never.
#[test]
fn no_order_of_reports_credits_more_than_was_moved() {
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut reports = Vec::new();
        let (mut at, mut total, mut moved) = (0, random.u64(..1000), 0);
        let mut started = random.bool();
        for _ in 0..random.usize(1..12) {
            reports.push((at, started, total));
            at += random.i64(1..40);
            started = random.u8(..4) == 0;
            if started {
                // A client that goes on from its old totals, or from none.
                total = if random.bool() { total } else { 0 };
            } else {
                let step = random.u64(..1000);
                total += step;
                moved += step;
            }
        }
        let in_order = credited(&reports);
        assert!(in_order <= moved, "seed {seed}: {in_order} of {moved}");
        let mut arrivals = reports.clone();
        arrivals.retain(|_| random.u8(..8) > 0);
        arrivals.extend(reports.iter().filter(|_| random.u8(..4) == 0).copied());
        random.shuffle(&mut arrivals);
        let shuffled = credited(&arrivals);
        assert!(
            shuffled <= moved,
            "seed {seed}: {shuffled} of {moved}: {arrivals:?}"
        );
    }
}

#[test]
fn a_report_right_after_a_start_counts_once_though_clocks_differ_by_a_second() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    let mut sessions = Sessions::default();
    let mut settle = |from: (i64, u64), to: (i64, u64), started, by| {
        let stretch = Stretch {
            from: point(from.0, from.1),
            to: point(to.0, to.1),
            started,
        };
        sessions.settle(&stretch, by, MAX_RATE).bytes
    };
    assert_eq!(settle((87, 0), (87, 0), true, first), 0);
    assert_eq!(settle((87, 0), (94, 700), false, first), 700);
    // It goes on from there, by the first node's clock a second later than by the other's.
    assert_eq!(settle((98, 700), (98, 700), true, first), 0);
    assert_eq!(settle((98, 700), (98, 1000), false, first), 300);
    assert_eq!(settle((97, 700), (97, 700), true, second), 0);
    assert_eq!(settle((97, 700), (97, 1000), false, second), 0);
    assert_eq!(settle((97, 1000), (105, 1100), false, second), 100);
}

/// What is credited for the reports of two nodes, each of which passes on its own in order, but late.
fn credited_late(passed_on: &[Vec<Stretch>; 2], random: &mut fastrand::Rng) -> u64 {
    let (mut sessions, mut gained) = (Sessions::default(), 0);
    let mut next = [0, 0];
    while next[0] < passed_on[0].len() || next[1] < passed_on[1].len() {
        let node = usize::from(random.bool());
        if let Some(stretch) = passed_on[node].get(next[node]) {
            next[node] += 1;
            let by = ReportSource::new(1000 * node as u64, 1);
            gained += sessions.settle(stretch, by, MAX_RATE).bytes;
        }
    }
    gained
}

/// A client that goes on from its totals at each start, at two nodes whose clocks differ by a
/// second; what each passes on arrives in order, but late.
#[test]
fn nodes_whose_clocks_differ_credit_no_more_than_was_moved() {
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let skew = random.i64(-1..=1);
        let (mut at, mut total, mut started, mut began) = (100, 0, true, 100);
        let mut passed_on = [Vec::new(), Vec::new()];
        let mut bases: [Option<Point>; 2] = [None, None];
        for _ in 0..random.usize(1..12) {
            for (node, reports) in passed_on.iter_mut().enumerate() {
                let to = point(at + skew * node as i64, total);
                let from = bases[node].replace(to).filter(|_| !started).unwrap_or(to);
                reports.push(Stretch { from, to, started });
            }
            at += if random.bool() { 0 } else { random.i64(0..9) };
            // Within five seconds it may be the same start.
            started = random.u8(..4) == 0 && at > began + 7;
            if started {
                began = at;
            } else {
                total += random.u64(..1000);
            }
        }
        let gained = credited_late(&passed_on, &mut random);
        assert!(
            gained <= total,
            "seed {seed}: {gained} of {total}: {passed_on:?}"
        );
    }
}

/// A client that reports to two nodes, several times a second, and starts over now and then; what
/// each node passes on arrives in order, but late.
#[test]
fn two_nodes_credit_no_more_than_was_moved() {
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut at, mut total, mut moved) = (0, 0, 0);
        let mut passed_on = [Vec::new(), Vec::new()];
        let mut started = true;
        for _ in 0..random.usize(1..12) {
            for node in &mut passed_on {
                if random.u8(..6) > 0 {
                    node.push(Stretch::at(point(at, total), started));
                }
            }
            at += random.i64(0..3);
            started = random.u8(..4) == 0;
            if started {
                total = 0;
            } else {
                let step = random.u64(..1000);
                (total, moved) = (total + step, moved + step);
            }
        }
        let gained = credited_late(&passed_on, &mut random);
        assert!(
            gained <= moved,
            "seed {seed}: {gained} of {moved}: {passed_on:?}"
        );
    }
}

/// A time and a total.
type At = (i64, u64);

/// Settles reports: source, `started` of the session, from, to, and the expected credit.
fn expect_named(reports: &[(ReportSource, At, At, At, u64)]) {
    let mut sessions = Sessions::default();
    for &(by, start, from, to, credited) in reports {
        let [start, from, to] = [start, from, to].map(|(at, total)| point(at, total));
        let started = from == to && from == start;
        let stretch = Stretch { from, to, started };
        let bytes = sessions.settle_in(start, &stretch, by, MAX_RATE).bytes;
        assert_eq!(bytes, credited, "{stretch:?} since {start:?}");
        let again = sessions.settle_in(start, &stretch, ReportSource::UNKNOWN, MAX_RATE);
        assert_eq!(again.bytes, 0, "again: {stretch:?} since {start:?}");
    }
}

#[test]
fn a_session_counts_in_full_whatever_arrives_first() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    // It starts over at the first node, whose batches are late, and goes on at the second.
    expect_named(&[
        (second, (0, 0), (0, 0), (0, 0), 0),
        (second, (0, 0), (0, 0), (9, 900), 900),
        (second, (20, 500), (24, 600), (30, 2000), 1500),
        (first, (0, 0), (9, 900), (12, 1000), 100),
        (first, (20, 500), (20, 500), (20, 500), 0),
        (first, (20, 500), (20, 500), (24, 600), 0),
        (second, (20, 500), (30, 2000), (40, 2100), 100),
    ]);
    // Nothing of the session before had arrived when the next one began.
    expect_named(&[
        (second, (20, 500), (24, 600), (30, 700), 200),
        (first, (0, 0), (0, 0), (12, 1000), 1000),
        (first, (20, 500), (20, 500), (24, 600), 0),
    ]);
    // One that began and ended between two others.
    expect_named(&[
        (second, (0, 0), (0, 0), (10, 100), 100),
        (second, (40, 0), (40, 0), (50, 30), 30),
        (first, (20, 0), (20, 0), (30, 70), 70),
        (first, (20, 0), (30, 70), (35, 75), 5),
    ]);
}

#[test]
fn a_session_counts_in_full_after_several_later_ones() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    // The first node can't reach storage, while the client begins again and again at the second.
    let later = [
        (second, (0, 0), (0, 0), (10, 100), 100),
        (second, (60, 0), (60, 0), (70, 40), 40),
        (second, (80, 40), (80, 40), (90, 60), 20),
        (second, (95, 0), (95, 0), (97, 5), 5),
    ];
    let late = [
        (first, (0, 0), (10, 100), (20, 150), 50),
        (first, (30, 0), (30, 0), (50, 500), 500),
        (first, (30, 0), (50, 500), (55, 600), 100),
        (second, (95, 0), (97, 5), (99, 8), 3),
    ];
    expect_named(&[&later[..], &late].concat());
    // Whether one was settled before it that is not kept any more is unknown.
    let before_all = (first, (-50, 0), (-50, 0), (-30, 70), 0);
    expect_named(&[&later[..], &[before_all]].concat());
    // Two sessions that began at the same total are told apart by their times.
    let overlapping = (first, (65, 0), (65, 0), (68, 30), 0);
    expect_named(&[&later[..], &[overlapping]].concat());
}

#[test]
fn a_forgotten_session_leaves_no_gap() {
    let mut earlier = EarlierSessions::default();
    // The second is of a clock that was set back.
    for at in [5, -2 * LATE_MAX, 10] {
        earlier.push(Session::begin(point(at, 0)), 20);
    }
    let kept: Vec<i64> = earlier.iter().map(|it| it.last).collect();
    assert_eq!(kept, [10]);
    assert_eq!(earlier.get(1), None);
}

#[test]
fn the_oldest_sessions_are_forgotten() {
    let by = ReportSource::new(40, 3);
    let kept = EarlierSessions::MAX as i64 + 2;
    let session = |at: i64| (by, (at, 0), (at, 0), (at + 5, 100), 100);
    let late = |at: i64, credit| (by, (at, 0), (at + 5, 100), (at + 6, 110), credit);
    let sessions: Vec<_> = (0..=kept).map(|it| session(it * 10)).collect();
    for (number, credit) in [(0, 0), (1, 10)] {
        expect_named(&[&sessions[..], &[late(number * 10, credit)]].concat());
    }
    let next = [session(0), session(10), session(20), session(20 + LATE_MAX)];
    expect_named(&[&next[..], &[late(0, 0)]].concat());
}

#[test]
fn what_a_client_moved_before_it_started_again_counts() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    // Nothing else is known of it; what it moved before arrives later.
    expect_named(&[
        (second, (30, 700), (20, 500), (30, 700), 200),
        (second, (30, 700), (30, 700), (40, 800), 100),
        (first, (0, 0), (0, 0), (10, 400), 500),
        (first, (0, 0), (10, 400), (20, 500), 0),
    ]);
    // What it moved until then arrives late.
    expect_named(&[
        (first, (0, 0), (0, 0), (10, 400), 400),
        (second, (30, 700), (20, 500), (30, 700), 0),
        (second, (30, 700), (30, 700), (40, 800), 100),
        (first, (0, 0), (10, 400), (20, 500), 300),
    ]);
    // The node that received the `started` did not know it.
    let mut sessions = Sessions::known(400, 10);
    let start = point(30, 700);
    let settled = sessions.settle_in(start, &Stretch::at(start, false), second, MAX_RATE);
    assert_eq!(settled.bytes, 300);
}

#[test]
fn what_a_client_moved_between_two_starts_counts_though_one_node_knew_of_one_only() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    // The client starts again at the first node, gets no answer, moves 40 bytes, and starts at the second.
    let known_until = (77, 354);
    let mut sessions = Sessions::known(known_until.0, known_until.1);
    let mut settle = |start: (u64, i64), by| {
        let start = point(start.1, start.0);
        let stretch = Stretch {
            from: point(known_until.1, known_until.0),
            to: start,
            started: false,
        };
        sessions.settle_in(start, &stretch, by, MAX_RATE).bytes
    };
    assert_eq!(settle((83, 403), first), 6);
    assert_eq!(settle((123, 405), second), 40);
    // A repeated report adds nothing.
    assert_eq!(settle((123, 405), second), 0);
}

#[test]
fn a_start_that_two_nodes_saw_is_one_though_their_clocks_differ() {
    let (first, second) = (ReportSource::new(40, 3), ReportSource::new(99, 1));
    expect_named(&[
        (first, (56, 0), (56, 0), (60, 273), 273),
        (second, (66, 249), (66, 249), (66, 249), 0),
        (first, (65, 249), (65, 249), (65, 249), 0),
        (second, (66, 249), (66, 249), (66, 313), 64),
        (first, (65, 249), (65, 249), (65, 313), 0),
        (second, (66, 249), (66, 313), (67, 393), 80),
    ]);
    // The clock of the second node is ahead: by it, the first report was made before the second `started`.
    expect_named(&[
        (first, (10, 0), (10, 0), (10, 0), 0),
        (first, (10, 0), (10, 0), (20, 500), 500),
        (first, (31, 0), (31, 0), (31, 0), 0),
        (second, (34, 0), (34, 0), (34, 0), 0),
        (first, (31, 0), (31, 0), (33, 300), 300),
        (second, (31, 0), (33, 300), (36, 300), 0),
        (second, (34, 0), (34, 0), (37, 400), 100),
        (first, (31, 0), (33, 300), (38, 450), 50),
    ]);
    // It started over at once, at the same node, and once more within a second.
    expect_named(&[
        (first, (10, 0), (10, 0), (10, 0), 0),
        (first, (10, 0), (10, 0), (11, 50), 50),
        (first, (12, 0), (12, 0), (12, 0), 0),
        (first, (12, 0), (12, 0), (13, 30), 30),
        (first, (13, 0), (13, 0), (13, 0), 0),
        (first, (13, 0), (13, 0), (13, 7), 7),
        (first, (13, 0), (13, 0), (13, 0), 0),
        (first, (13, 0), (13, 0), (13, 5), 5),
    ]);
}

/// A client that goes on at once after its stop reports to both nodes, of which one notes it a second later.
#[test]
fn a_late_session_counts_once_though_nodes_note_its_start_a_second_apart() {
    let [first, second] = [1, 40_000].map(|hash| ReportSource::new(hash, 1));
    let stopped = (first, (100, 0), (100, 0), (120, 50), 50);
    let at_first = (first, (120, 50), (120, 50), (120, 56), 6);
    let at_second = [
        (second, (121, 50), (121, 50), (121, 56), 0),
        (second, (121, 50), (121, 56), (126, 62), 6),
    ];
    let later = [
        (second, (130, 40), (130, 40), (135, 47), 7),
        (second, (140, 0), (140, 0), (145, 3), 3),
    ];
    // It is the previous session, or an earlier one, when the second node's reports arrive.
    for count in 1..=2 {
        let known = later.into_iter().take(count);
        let reports: Vec<_> = [(first, (100, 0), (100, 0), (100, 0), 0), stopped]
            .into_iter()
            .chain(known)
            .chain([at_first])
            .chain(at_second)
            .collect();
        expect_named(&reports);
    }
}

/// A client stops at one node and goes on at another in the same second. What the first one had in that second arrives last.
#[test]
fn a_session_that_ended_in_the_second_of_the_next_start_counts_in_full() {
    let [first, second] = [1, 40_000].map(|hash| ReportSource::new(hash, 1));
    let start = (100, 0);
    for clock in -1..=1 {
        let restart = (110 + clock, 70);
        expect_named(&[
            (first, start, start, (108, 40), 40),
            (second, restart, restart, (120, 75), 5),
            (first, start, (108, 40), (110, 60), 20),
            (first, start, (110, 60), (110, 70), 10),
        ]);
    }
}

/// A client goes on at another node, and again before that answered, each time from more than it had. What the first
/// node had arrives last.
#[test]
fn starts_that_go_on_one_after_another_count_what_was_moved_before_each() {
    let [first, second] = [1, 40_000].map(|hash| ReportSource::new(hash, 1));
    let begin = (100, 0);
    let starts = [
        (second, (110, 80), (109, 50), (110, 80), 0),
        (second, (113, 95), (110, 80), (113, 95), 15),
        (second, (116, 97), (113, 95), (116, 97), 2),
    ];
    for count in 1..=3 {
        let mut reports = vec![
            (first, begin, begin, begin, 0),
            (first, begin, begin, (108, 40), 40),
        ];
        reports.extend(&starts[..count]);
        let (_, start, _, _, _) = starts[count - 1];
        reports.extend([
            (second, start, start, (130, 100), 100 - start.1),
            (first, begin, (108, 40), (109, 50), 10 + 30),
        ]);
        expect_named(&reports);
    }
}

/// What two nodes pass on about a client that reports to one or both of them and starts over now and then; and
/// what it moved.
struct Routed {
    passed_on: [Vec<(Option<Point>, Stretch)>; 2],
    moved: u64,
}

/// What a node knows of a client: its session and its base.
type Known = Option<(Option<Point>, Point)>;

/// What a node passes on for a report, and what it knows afterwards.
fn pass_on(known: Known, to: Point, started: bool) -> ((Option<Point>, Stretch), Known) {
    let named = started.then_some(to);
    let Some((start, from)) = known else {
        return ((named, Stretch::at(to, false)), Some((named, to)));
    };
    if to.total < from.total && !started {
        // It does not know of the `started` at the other node.
        return ((start, Stretch::at(to, false)), known);
    }
    let start = named.or(start);
    let stretch = if to.total < from.total {
        Stretch::at(to, true)
    } else {
        Stretch {
            from,
            ..Stretch::at(to, false)
        }
    };
    ((start, stretch), Some((start, to)))
}

impl Routed {
    /// `are_connected`: each node learns what the other one knows, and neither forgets.
    fn by_chance(random: &mut fastrand::Rng, are_connected: bool) -> Self {
        let skew = random.i64(-1..=1);
        let (mut at, mut total, mut moved) = (100, 0, 0);
        let mut known: [Known; 2] = [None, None];
        let mut passed_on = [Vec::new(), Vec::new()];
        for _ in 0..random.usize(2..14) {
            let started = random.u8(..4) == 0;
            if started {
                // One that goes on from its total may do so at once.
                let goes_on = random.bool();
                at += if goes_on { random.i64(0..=3) } else { 3 };
                let step = if random.bool() { random.u64(..500) } else { 0 };
                total = if goes_on {
                    total + step
                } else {
                    random.u64(..=total)
                };
                moved += if goes_on && known != [None, None] {
                    step
                } else {
                    0
                };
            } else {
                let step = random.u64(..1000);
                total += step;
                // What it moved before its first announce is its base (rule A1).
                moved += if known == [None, None] { 0 } else { step };
            }
            let way = random.usize(..3);
            // When the client announces to both, the second may learn of it from the first before its own arrives.
            let is_known_first = are_connected && random.bool();
            for node in (0..2).filter(|&node| way == node || way == 2) {
                if !are_connected && random.u8(..6) == 0 {
                    known[node] = known[node].map(|(_, base)| (None, base));
                }
                let to = point(at + skew * node as i64, total);
                let (report, knows) = pass_on(known[node], to, started);
                passed_on[node].push(report);
                known[node] = knows;
                if are_connected && (way != 2 || (node == 0 && is_known_first)) {
                    known[1 - node] = knows;
                }
            }
            // Within one second, the order of two nodes is unknown.
            let is_soon = (!started || way == 2) && random.u8(..3) == 0;
            at += if is_soon { 0 } else { random.i64(3..40) };
        }
        Self { passed_on, moved }
    }

    /// What is credited if the reports of each node arrive in order, but late.
    fn credited(&self, random: &mut fastrand::Rng) -> u64 {
        let (mut sessions, mut gained) = (Sessions::default(), 0);
        let mut next = [0, 0];
        while (0..2).any(|node| next[node] < self.passed_on[node].len()) {
            let node = usize::from(random.bool());
            let Some((start, stretch)) = self.passed_on[node].get(next[node]) else {
                continue;
            };
            next[node] += 1;
            let by = ReportSource::new(1000 * node as u64, 1);
            let settled = match start {
                Some(start) => sessions.settle_in(*start, stretch, by, MAX_RATE),
                None => sessions.settle(stretch, by, MAX_RATE),
            };
            gained += settled.bytes;
        }
        gained
    }
}

#[test]
fn named_sessions_credit_what_was_moved_and_no_more() {
    let (mut moved, mut gained) = (0, 0);
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let are_connected = random.u8(..4) > 0;
        let routed = Routed::by_chance(&mut random, are_connected);
        let credited = routed.credited(&mut random);
        let Routed { passed_on, .. } = &routed;
        assert!(
            credited <= routed.moved,
            "seed {seed}: {credited} of {}: {passed_on:?}",
            routed.moved
        );
        if are_connected {
            (moved, gained) = (moved + routed.moved, gained + credited);
        }
    }
    // What is lost: sessions that began and ended before anything of them arrived, and reports within one second.
    assert!(gained * 100 > moved * 97, "{gained} of {moved}");
}
