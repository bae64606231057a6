//! Crowds reach the connection limit and more, and honest clients, each announce on a connection
//! of its own, are answered meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::harness::api::Api;
use crate::harness::http::{Connection, escape};
use crate::harness::{self, Mika, now, poll};
use crate::kept::{Crowd, Habit, REQUEST};
use crate::{Over, SECONDS, turn, usage};

/// Connections of one address, and of fifty others: more than the default limit has places for.
const OF_ONE: usize = 16_384 + 64;
const OF_OTHERS: usize = 2000;

/// Files that the test needs beside the connections.
const OTHER_FILES: usize = 512;

/// Honest clients, and how often each announces.
const HONEST: u8 = 8;
const PAUSE: Duration = Duration::from_millis(200);

/// How long an honest client waits, as libtorrent does.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long crowds may take to come.
const ARRIVAL: Duration = Duration::from_secs(120);

/// The beginning of a `ClientHello`.
const HANDSHAKE: &[u8] = b"\x16\x03\x01\x02";

/// How long each announce took that was answered, and how many were not.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    lost: usize,
}

#[test]
fn honest_clients_are_answered_during_a_flood_of_idle_connections() {
    beside_crowds_over_http("HTTP", false);
}

/// Nearly half of the crowd is closed and comes back all the time, as fast as it can.
#[test]
fn honest_clients_are_answered_during_a_flood_of_reconnects() {
    beside_crowds_over_http("HTTP, back at once", true);
}

fn beside_crowds_over_http(how: &str, comes_at_once: bool) {
    let _turn = turn();
    let mika = Mika::start(&json!({ "mode": "public" }));
    let habit = Habit {
        sends: REQUEST,
        comes_at_once,
    };
    beside_crowds(how, &mika, habit, |info_hash| {
        let reply = Connection::open(mika.http()).and_then(|mut it| it.get(&target(info_hash)));
        reply.is_ok_and(|it| (it.status, it.int("incomplete")) == (200, Some(1)))
    });
}

#[test]
fn honest_clients_are_answered_during_a_flood_of_tls_handshakes() {
    let _turn = turn();
    let mut mika = Mika::prepare(&json!({
        "mode": "public",
        "http": { "tls": { "key": "key_priv", "cert": "key_ca" } },
    }));
    mika.managed(&["genkey"]);
    mika.run();
    let https = Api::at(&mika, mika.http());
    let habit = Habit {
        sends: HANDSHAKE,
        comes_at_once: true,
    };
    beside_crowds("HTTPS, back at once", &mika, habit, |info_hash| {
        let answer = https.try_send("GET", &target(info_hash), &[], &[]);
        answer.is_ok_and(|it| it.status == 200 && it.body.starts_with(b"d8:complete"))
    });
}

fn target(info_hash: &[u8; 20]) -> String {
    format!(
        "/announce?info_hash={}&peer_id=-MK0001-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=9",
        escape(info_hash)
    )
}

#[allow(clippy::print_stderr)] // the figures of a long run
fn beside_crowds(
    how: &str,
    mika: &Mika,
    habit: Habit,
    announce: impl Fn(&[u8; 20]) -> bool + Sync,
) {
    let seconds = harness::number("MIKA_FLOOD_SECONDS", SECONDS);
    let (of_one, of_others) = sizes();
    let crowds = [
        Crowd::new(of_one, Ipv4Addr::new(127, 4, 0, 1), 1, habit),
        Crowd::new(of_others, Ipv4Addr::new(127, 5, 0, 1), 50, habit),
    ];
    let is_over = &AtomicBool::new(false);
    let most_files = &mut 0;
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let _over = Over(is_over);
        let announce = &announce;
        let honest: Vec<_> = (0..HONEST)
            .map(|_| scope.spawn(move || ask(announce, is_over)))
            .collect();
        let tracker: SocketAddr = mika.http();
        for crowd in &crowds {
            scope.spawn(move || crowd.hold(tracker, is_over));
        }
        poll(ARRIVAL, "the crowds are there", || {
            *most_files = usage(mika).files.max(*most_files);
            crowds.iter().all(|it| it.is_there.load(Ordering::Relaxed))
        });
        // The share of one network is no limit before half of the places are taken.
        assert!(*most_files > of_one / 2, "{most_files}");
        let begun = now();
        poll(
            Duration::from_secs(seconds + 60),
            "the time is over",
            || {
                *most_files = usage(mika).files.max(*most_files);
                thread::sleep(Duration::from_millis(100));
                begun.elapsed() >= Duration::from_secs(seconds)
            },
        );
        let open: Vec<usize> = crowds
            .iter()
            .map(|it| it.open.load(Ordering::Relaxed))
            .collect();
        eprintln!(
            "{how}: the crowds have {open:?} connections open; the tracker had {most_files} files at most"
        );
        is_over.store(true, Ordering::Relaxed);
        let tallies = honest.into_iter().map(|it| it.join().expect("a client"));
        tallies.collect()
    });
    let lost: usize = tallies.iter().map(|it| it.lost).sum();
    let mut took: Vec<Duration> = tallies.into_iter().flat_map(|it| it.took).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{how}: {} honest announces answered, {lost} lost; p50 {:?}, p99 {:?}, slowest {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert_eq!(lost, 0, "of {}", took.len());
    assert!(*most_files <= of_one + OTHER_FILES, "{most_files}");
}

/// Announces until `is_over`, each time for a torrent of its own.
fn ask(announce: &impl Fn(&[u8; 20]) -> bool, is_over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !is_over.load(Ordering::Relaxed) {
        let mut info_hash = [0; 20];
        fastrand::fill(&mut info_hash);
        let begun: Instant = now();
        let is_right = announce(&info_hash);
        let took = begun.elapsed();
        if is_right && took <= PATIENCE {
            tally.took.push(took);
        } else {
            tally.lost += 1;
        }
        thread::sleep(PAUSE);
    }
    tally
}

/// How large the crowds can be with the files that this process may open: usually as they should be.
#[allow(clippy::print_stderr)]
fn sizes() -> (usize, usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit can be raised to its maximum");
    let room = limit.current.map_or(usize::MAX, |it| it as usize);
    let room = room.saturating_sub(OTHER_FILES);
    if room >= OF_ONE + OF_OTHERS {
        return (OF_ONE, OF_OTHERS);
    }
    eprintln!("only {room} connections, because this process may have no more files");
    (room * 8 / 9, room / 9)
}
