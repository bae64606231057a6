//! Chaos on real parts: three nodes, a cache and a database on hosts of their own, and faults one at a time while
//! clients announce. When all is healed, everything is reconciled, user by user.
//!
//! What a single fault may undo is what docs/architecture.md ("How credit is settled") says: reports whose reply did
//! not wait until they were durable, and seed time of clients that move between nodes. [`crate::client::Client`] knows
//! which of its reports were acknowledged, so each total has a lower and an upper bound, and clients for which the two
//! differ are counted. Nothing else may be lost, and nothing may count twice.

mod check;
mod faults;
mod hosts;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::client::Client;
use crate::crowd;
use crate::harness::database::Database;
use crate::harness::load::USERS_PER_THREAD;
use crate::harness::site::settles;
use crate::harness::{now, number, poll};
use crate::reconcile::Books;
use crate::seed;
use crate::stage::{Habits, Phase, Stage};
use faults::{Fault, Kind};
use hosts::{CacheKind, NODES, Trial};

/// Milliseconds from when all works again to the next fault, and the longer ones in which clients may move on.
const REST: std::ops::RangeInclusive<u64> = 0..=800;
const LONG_REST: std::ops::RangeInclusive<u64> = 3500..=5000;

/// A run of every test run: that many faults, which are shorter.
const BRIEF_FAULTS: u64 = 6;
const BRIEF_PACE: u64 = 25;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long nodes may take to learn from each other that a client stopped. They take milliseconds.
const LEARNING: Duration = Duration::from_secs(3);

/// How long a thread rests after each announce.
const BREATH: Duration = Duration::from_millis(25);

/// How long it may take until storage has all that was acknowledged.
const SETTLED: Duration = Duration::from_secs(120);

/// How long it may take until all nodes have learned from each other that the last clients stopped.
const LEFT: Duration = Duration::from_secs(10);

/// How long all nodes may take until they have the same swarms when clients rest: less than `tracker.peer_ttl`, after
/// which peers that should not be there vanish.
const ALIKE: Duration = Duration::from_secs(25);

/// How often a long run reports.
const PROGRESS: Duration = Duration::from_secs(60);

/// How long a run is.
#[derive(Clone, Copy, Debug)]
enum Length {
    Faults(u64),
    Minutes(u64),
}

/// What a run is.
#[derive(Clone, Copy, Debug)]
struct Setup {
    cache: CacheKind,
    database: Database,
    length: Length,
    /// How long faults last and how much time is between them, in hundredths of the usual.
    pace: u64,
    seed: u64,
    threads: usize,
}

/// How often each kind of fault was, and the longest that it took until all worked again.
type Tally = BTreeMap<Kind, (u64, Duration)>;

#[test]
fn faults_of_any_kind_lose_or_double_no_credit() {
    let text = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.into());
    let minutes = number("MIKA_CHAOS_MINUTES", 0);
    let faults = number("MIKA_CHAOS_FAULTS", 0);
    let setup = Setup {
        cache: CacheKind::parse(&text("MIKA_CHAOS_CACHE", "cluster")),
        database: match text("MIKA_CHAOS_DATABASE", "mariadb").as_str() {
            "mariadb" => Database::MariaDb,
            "postgres" => Database::Postgres,
            other => panic!("a database is mariadb or postgres, not {other}"),
        },
        length: match (minutes, faults) {
            (0, 0) => Length::Faults(BRIEF_FAULTS),
            (0, faults) => Length::Faults(faults),
            (minutes, _) => Length::Minutes(minutes),
        },
        pace: if minutes + faults == 0 {
            BRIEF_PACE
        } else {
            100
        },
        seed: seed(),
        threads: number("MIKA_LOAD", 8) as usize,
    };
    endure(&setup);
}

fn endure(setup: &Setup) {
    eprintln!("{setup:?}");
    let users = setup.threads * USERS_PER_THREAD;
    let mut trial = Trial::start(setup.cache, setup.database, users);
    let habits = Habits {
        namespace: Some(trial.host(hosts::Part::Clients).namespace.clone()),
        patience: PATIENCE,
        deadline: hosts::WELL,
        learning: LEARNING * setup.pace as u32 / 100,
        rest: BREATH,
        has_steady: true,
    };
    let both = vec![[0, NODES + 1], [1, NODES + 2], [2, NODES]];
    let stage = Stage::new(trial.ways(), NODES, both, habits);
    let run = || run(&mut trial, &stage, setup);
    let result = catch_unwind(AssertUnwindSafe(run));
    let wrong = match result {
        Ok(wrong) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).into()));
            vec![text.unwrap_or_default()]
        }
    };
    if !wrong.is_empty() {
        let kept = trial.disks.keep();
        drop(trial);
        panic!(
            "{}\n\nseed {}; logs and data of all hosts: {}, of nodes node-*/*/mika.log",
            wrong.join("\n"),
            setup.seed,
            kept.display()
        );
    }
}

/// The faults, and then the reconciliation: what is wrong.
fn run(trial: &mut Trial, stage: &Stage, setup: &Setup) -> Vec<String> {
    let mut tally = Tally::new();
    let mut different = None;
    let clients = crowd::run(stage, setup.threads, setup.seed, || {
        tally = inject(trial, stage, setup);
        stage.set_phase(Phase::Hold);
        poll(SETTLED, "all threads rest", || {
            stage.holding.load(Ordering::Relaxed) == setup.threads
        });
        settles(ALIKE, || {
            different = check::different_swarms(trial);
            different.is_none()
        });
        note(stage, "clients have rested");
    });
    note(stage, "clients have stopped");
    if let Some(different) = different {
        return vec![format!("with clients at rest, {different}")];
    }
    report(stage, &tally, &clients);
    let wrong = reconcile(trial, stage, &clients, "after quiet");
    if !wrong.is_empty() {
        return wrong;
    }
    // What a start applies again must not count again.
    for node in &mut trial.nodes {
        assert_eq!(node.stop(), 0);
    }
    for node in &mut trial.nodes {
        node.run();
    }
    trial.is_well();
    note(stage, "nodes have started again");
    reconcile(trial, stage, &clients, "after another start")
}

fn inject(trial: &mut Trial, stage: &Stage, setup: &Setup) -> Tally {
    let mut rng = Rng::with_seed(setup.seed);
    let mut tally = Tally::new();
    let mut reported = now();
    for count in 1.. {
        if setup.length.is_over(count, stage.start) {
            break;
        }
        let rest = if rng.u8(..4) == 0 { LONG_REST } else { REST };
        thread::sleep(Duration::from_millis(rng.u64(rest) * setup.pace / 100));
        let fault = Fault::draw(&mut rng, setup.cache, setup.pace);
        eprintln!(
            "{count:5} {:9.1} s  {fault}",
            stage.start.elapsed().as_secs_f64()
        );
        stage.note(fault.to_string());
        stage.trouble_begins();
        let undo = fault.begin(trial);
        thread::sleep(fault.time);
        fault.end(trial, &undo);
        let ended = now();
        stage.note(format!("end of {fault}"));
        trial.is_well();
        stage.trouble_ends();
        stage.note("all works".into());
        let (times, longest) = tally.entry(fault.kind).or_default();
        *times += 1;
        *longest = ended.elapsed().max(*longest);
        if reported.elapsed() > PROGRESS {
            reported = now();
            eprintln!(
                "      {count} faults; {} announces answered, {} not",
                stage.answered.load(Ordering::Relaxed),
                stage.unanswered.load(Ordering::Relaxed)
            );
        }
    }
    tally
}

/// Waits until nothing is wrong; what still is.
fn reconcile(trial: &Trial, stage: &Stage, clients: &[Client], when: &str) -> Vec<String> {
    let books = Books::new(&trial.database, stage, clients);
    let mut wrong = Vec::new();
    settles(SETTLED, || {
        wrong = check::wrong(trial, &books);
        wrong.is_empty()
    });
    if !wrong.is_empty() {
        wrong.insert(0, format!("{when}:"));
        return wrong;
    }
    let has_no_peers = |trial: &Trial| {
        let [active] = trial
            .database
            .row("SELECT COUNT(*) FROM peers WHERE active");
        active == 0
    };
    settles(LEFT, || has_no_peers(trial));
    let stay = books.active();
    let at_both = stay.iter().filter(|it| it.is_at_both()).count();
    eprintln!(
        "{when}: {} clients that stopped are peers until they expire; {at_both} of them announced to two nodes",
        stay.len()
    );
    if !settles(check::EXPIRED, || has_no_peers(trial)) {
        let stories = books.active().into_iter().take(3);
        let stories = stories.map(|it| stage.story_of(it)).collect::<Vec<_>>();
        wrong.push(format!("{when}, peers stay:\n{}", stories.join("\n")));
    }
    let mut different = None;
    settles(SETTLED, || {
        different = check::different_swarms(trial);
        different.is_none()
    });
    wrong.extend(different.map(|it| format!("{when}, {it}")));
    let mut kept = Vec::new();
    settles(SETTLED, || {
        kept = check::kept(trial);
        kept.is_empty()
    });
    wrong.extend(kept.into_iter().map(|it| format!("{when}, {it}")));
    note(stage, &format!("nothing is kept any more, {when}"));
    // Peers that expired may have left marks.
    wrong.extend(check::wrong(trial, &books));
    wrong
}

/// A line with the time since the beginning.
fn note(stage: &Stage, what: &str) {
    eprintln!("{:15.1} s  {what}", stage.start.elapsed().as_secs_f64());
}

fn report(stage: &Stage, tally: &Tally, clients: &[Client]) {
    eprintln!(
        "{} announces answered, {} not; {} clients, of which {} are owed exactly what they announced",
        stage.answered.load(Ordering::Relaxed),
        stage.unanswered.load(Ordering::Relaxed),
        clients.len(),
        clients
            .iter()
            .filter(|it| it.owed.iter().all(|range| range.low == range.high))
            .count(),
    );
    for (kind, (times, longest)) in tally {
        let longest = longest.as_secs_f64();
        eprintln!("{times:5} {kind:?}, all well again after {longest:.1} s at most");
    }
}

// === impl Length ===

impl Length {
    fn is_over(self, count: u64, start: Instant) -> bool {
        match self {
            Self::Faults(faults) => count > faults,
            Self::Minutes(minutes) => start.elapsed() > Duration::from_secs(60 * minutes),
        }
    }
}
