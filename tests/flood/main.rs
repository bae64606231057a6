//! Crowds that keep more connections open than the limit: `places`.
//!
//! A flood: the load generator's full speed, with random bytes, torn packets, wrong ids and impossible
//! numbers between, and crowds that hold HTTP connections without asking anything. Honest clients have
//! to be answered meanwhile, memory and files stay bounded, and all returns to normal afterwards.
//!
//! `MIKA_FLOOD_SECONDS` makes it longer; `scripts/flood` runs the long one.

mod crowd;
#[path = "../harness/mod.rs"]
mod harness;
mod honest;
mod kept;
mod places;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use harness::{Mika, example, poll};
use serde_json::{Value, json};

/// How long each flood is, in seconds, by default.
const SECONDS: u64 = 5;

/// How long one slice of garbage is.
const SLICE_SECONDS: u64 = 5;

/// The load generator at full speed, and its garbage: each from a network of its own, and the
/// torrents of the first fit into what one network may begin.
const FULL: &[&str] = &["--from", "127.2.0.1", "--torrents", "10000", "full"];
const FLOOD: &[&str] = &["--from", "127.3.0.1", "flood"];

/// Torrents that strangers may have the tracker hold at once.
const TORRENTS_MAX: u64 = 300_000;

/// What those torrents may take with the peers that a flood leaves in them, all in: bytes each.
const TORRENT_BYTES_MAX: u64 = 1024;

/// What the program takes besides: code, buffers, and connections at some 20 KiB each.
const BASE_BYTES_MAX: u64 = 128 << 20;

/// Files besides the connections of the crowd and of honest clients.
const FILES_MAX: usize = 64;

/// When the crowd's connections have to be closed afterwards: idle ones are closed after 30 s.
const RECOVERY: Duration = Duration::from_secs(90);

/// What a process takes at some moment.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    memory: u64,
    files: usize,
}

#[test]
#[allow(clippy::print_stderr)] // the figures of a long run
fn honest_clients_are_answered_in_a_flood() {
    let _turn = turn();
    let seconds = harness::number("MIKA_FLOOD_SECONDS", SECONDS);
    let config = json!({ "mode": "public", "tracker": { "max_torrents": TORRENTS_MAX } });
    let mut mika = Mika::prepare_udp(&["127.0.0.1"], &config);
    mika.run();
    let before = usage(&mika);
    let mut most = before;
    let is_over = &AtomicBool::new(false);
    let tracker = mika.udp("127.0.0.1");
    let (full, garbage, honest) = thread::scope(|scope| {
        let _over = Over(is_over);
        let honest: Vec<_> = honest::clients(&mika)
            .map(|client| scope.spawn(move || client.run(is_over)))
            .collect();
        scope.spawn(|| crowd::hold(mika.http(), is_over));
        let garbage = scope.spawn(move || keep_flooding(tracker, is_over));
        let mut full = load(tracker, FULL, seconds);
        let deadline = Duration::from_secs(2 * seconds + 60);
        poll(deadline, "the load ends", || {
            let now = usage(&mika);
            most.memory = most.memory.max(now.memory);
            most.files = most.files.max(now.files);
            thread::sleep(Duration::from_millis(100));
            full.has_ended()
        });
        is_over.store(true, Ordering::Relaxed);
        let tallies = honest.into_iter().map(|it| it.join().expect("a client"));
        let tallies: Vec<honest::Tally> = tallies.collect();
        let garbage = garbage.join().expect("the flood");
        (full.result(), garbage, tallies)
    });
    poll(RECOVERY, "the crowd's connections are gone", || {
        usage(&mika).files <= before.files + 8
    });
    let after = usage(&mika);
    eprintln!("{seconds} s; before {before:?}, at most {most:?}, after {after:?}");
    eprintln!("full speed: {full:?}; {garbage} packets of garbage");
    for it in &honest {
        let how = if it.is_udp { "UDP" } else { "HTTP" };
        let (answered, asked, slowest) = (it.answered, it.asked, it.slowest);
        eprintln!("{how}: {answered} of {asked} answered, the slowest after {slowest:?}");
    }
    let full = full.expect("who asks at full speed is answered");
    assert!(full["replies"].as_u64() > Some(100 * seconds));
    assert!(garbage > 100 * seconds, "{garbage} packets of garbage");
    assert!(
        most.files <= FILES_MAX + crowd::SIZE + honest.len(),
        "{most:?}"
    );
    let memory_max = BASE_BYTES_MAX + TORRENTS_MAX * TORRENT_BYTES_MAX;
    assert!(
        most.memory <= memory_max,
        "{most:?} is more than {memory_max}"
    );
    for tally in &honest {
        assert!(tally.asked >= seconds / 4, "{tally:?}");
        assert!(tally.answered * 100 >= tally.asked * 99, "{tally:?}");
    }
    // Everything is as before: a new client is answered at once, each way.
    for client in honest::clients(&mika) {
        let tally = client.once();
        assert_eq!((tally.asked, tally.answered), (1, 1));
        assert!(tally.slowest < Duration::from_secs(5), "{tally:?}");
    }
    assert_eq!(mika.stop(), 0);
    let log = mika.log();
    for word in ["panic", " ERROR "] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(log.lines().count() < 100, "a flood fills the log");
}

/// Floods one at a time: each needs all the files and cores that there are.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the threads when the test is over, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A running load generator.
struct Load {
    process: Child,
}

/// Starts the load generator, which `cargo test` has built beside the tests.
fn load(tracker: SocketAddr, how: &[&str], seconds: u64) -> Load {
    let process = Command::new(example("load_udp"))
        .args(["--server", &tracker.to_string(), "--seed"])
        .arg(fastrand::u32(..).to_string())
        .args(how)
        .args(["--seconds", &seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let process = process.expect("the load generator starts");
    Load { process }
}

// === impl Load ===

impl Load {
    fn has_ended(&mut self) -> bool {
        let status = self.process.try_wait();
        status.expect("a child can be waited for").is_some()
    }

    /// The one line of JSON that it has written; none if it gave up.
    fn result(mut self) -> Option<Value> {
        let status = self.process.wait().expect("a child can be waited for");
        let stdout = self.process.stdout.take().expect("a pipe");
        let result = serde_json::from_reader(stdout).ok();
        result.filter(|_| status.success())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Has no effect on one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends garbage until `is_over`; how much. In slices, because its duration is not known before.
fn keep_flooding(tracker: SocketAddr, is_over: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let slice = load(tracker, FLOOD, SLICE_SECONDS).result();
        sent += slice.and_then(|it| it["garbage"].as_u64()).unwrap_or(0);
    }
    sent
}

/// What the daemon takes now.
fn usage(mika: &Mika) -> Usage {
    let folder = PathBuf::from(format!("/proc/{}", mika.pid().as_raw_nonzero()));
    let status = fs::read_to_string(folder.join("status")).expect("mika runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    Usage {
        memory: kib << 10,
        files: fs::read_dir(folder.join("fd")).expect("its files").count(),
    }
}
