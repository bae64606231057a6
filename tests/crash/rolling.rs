//! Two nodes of two versions side by side, under load: each is upgraded and downgraded in turn, by a stop or by a
//! kill. Credit is exact, and each hands out the peers of the other. `scripts/rolling-test` has the earlier programs built.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::crowd;
use crate::harness::database::Database;
use crate::harness::http::{escape, get};
use crate::harness::load::{USERS_PER_THREAD, info_hash, passkey};
use crate::harness::redis::AOF;
use crate::harness::{Mika, number, poll};
use crate::nodes::Pair;
use crate::seed;

/// How long the load goes on with each pair of versions.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);

/// How long a peer may take to the other node under load.
const SEEN: Duration = Duration::from_secs(20);

/// The torrent of the clients that are looked for; a reply has room for all of its peers.
const MEETING: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Earlier,
    This,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    A,
    B,
}

/// From this version at both nodes to the earlier one and back.
const CYCLE: [(Node, Version); 4] = [
    (Node::B, Version::Earlier),
    (Node::A, Version::Earlier),
    (Node::B, Version::This),
    (Node::A, Version::This),
];

#[test]
#[ignore = "scripts/rolling-test builds the earlier version and runs it"]
fn nodes_of_two_versions_side_by_side_lose_or_double_no_credit() {
    let folder = env::var("MIKA_EARLIER").expect("MIKA_EARLIER: a folder with programs");
    let earlier = PathBuf::from(folder);
    let cycles = number("MIKA_CYCLES", 1) as usize;
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("MIKA_CYCLES={cycles} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let users = threads * USERS_PER_THREAD;
    // Tables and cache are those that the earlier version makes.
    let release = |mika: &mut Mika| mika.use_release(Some(&earlier));
    let mut pair = Pair::start_changed(Database::MariaDb, users + 2, &AOF, release);
    let stage = pair.stage();
    let mut rng = Rng::with_seed(seed);
    let clients = crowd::run(&stage, threads, seed, || {
        thread::sleep(SIDE_BY_SIDE);
        pair.migrate(&earlier);
        let upgrade = CYCLE[2..].iter();
        let all = upgrade.chain(CYCLE.iter().cycle().take(cycles * CYCLE.len()));
        for &(node, version) in all {
            let is_killed = rng.bool();
            stage.note(format!("{node:?} becomes {version:?}, killed: {is_killed}"));
            eprintln!("{node:?} becomes {version:?}, killed: {is_killed}");
            pair.roll(node, version, is_killed, &earlier);
            pair.meet(users);
            thread::sleep(SIDE_BY_SIDE);
        }
    });
    pair.assert_settles(&stage, &clients);
}

// === impl Pair ===

impl Pair {
    /// Prepares the database for this version, while nodes of the earlier one run.
    fn migrate(&mut self, earlier: &Path) {
        self.b.use_release(None);
        eprint!("{}", self.b.managed(&["migrate"]));
        self.b.use_release(Some(earlier));
    }

    /// Ends a node, and starts it again in another version.
    fn roll(&mut self, node: Node, version: Version, is_killed: bool, earlier: &Path) {
        let mika = match node {
            Node::A => &mut self.site.mika,
            Node::B => &mut self.b,
        };
        if is_killed {
            mika.kill9();
        } else {
            assert_eq!(mika.stop(), 0);
        }
        mika.use_release(match version {
            Version::Earlier => Some(earlier),
            Version::This => None,
        });
        mika.launch();
        self.wait_for_answers();
    }

    /// Each node hands out a peer that announces to the other, and forgets it when it stops there.
    fn meet(&self, users: usize) {
        let (a, b) = (self.site.mika.http(), self.b.http());
        for (here, there) in [(a, b), (b, a)] {
            let port = fastrand::u16(1024..);
            let own = [&[127, 0, 0, 1][..], &port.to_be_bytes()].concat();
            let is_seen = || {
                let peers = announce(there, users + 1, 1, 9, "");
                peers.chunks(6).any(|peer| peer == own)
            };
            announce(here, users, 0, port, "started");
            poll(SEEN, "the other node hands it out", is_seen);
            announce(here, users, 0, port, "stopped");
            poll(SEEN, "the other node lets it go", || !is_seen());
        }
    }
}

/// The peers that a client of a user gets.
fn announce(node: SocketAddr, user: usize, left: u64, port: u16, event: &str) -> Vec<u8> {
    let target = format!(
        "/{}/announce?info_hash={}&peer_id=-MK0001-rolling{port:05}&port={port}&uploaded=0&downloaded=0\
         &left={left}&compact=1&numwant=200&event={event}",
        passkey(user),
        escape(&info_hash(MEETING)),
    );
    let reply = get(node, &target);
    assert_eq!(reply.failure(), None, "{target}");
    reply.bytes("peers").expect("peers")
}
