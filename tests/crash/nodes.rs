//! Two nodes with one Redis and one database server: one of the four is killed at a time, and is back
//! before the next. What clients are credited with is exact, whichever node they announced to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::client::Client;
use crate::crowd;
use crate::harness::database::Database;
use crate::harness::http::try_get;
use crate::harness::load::USERS_PER_THREAD;
use crate::harness::redis::AOF;
use crate::harness::site::{Site, settles};
use crate::harness::{Mika, PROGRAM_DEADLINE, number, poll};
use crate::reconcile::{Books, losses};
use crate::seed;
use crate::stage::{Habits, Stage, Way};

/// Milliseconds between two kills, from when all answer again.
const PAUSE: RangeInclusive<u64> = 0..=300;

/// Milliseconds that a victim stays away.
const ABSENCE: RangeInclusive<u64> = 0..=1500;

/// How long it may take until storage has all that was acknowledged.
const SETTLED: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug)]
enum Victim {
    A,
    B,
    Redis,
    Database,
}

const VICTIMS: [Victim; 4] = [Victim::A, Victim::B, Victim::Redis, Victim::Database];

/// The nodes `a`, which is the site's, and `b`.
pub struct Pair {
    pub site: Site,
    pub b: Mika,
}

#[test]
fn killing_two_nodes_and_their_servers_loses_or_doubles_no_credit() {
    endure(Database::MariaDb, &AOF, "MIKA_NODE_KILLS", 6);
}

#[test]
fn two_nodes_with_a_redis_that_forgets_everything_lose_no_credit() {
    endure(Database::MariaDb, &[], "MIKA_FORGETTING_NODE_KILLS", 6);
}

#[test]
fn killing_two_nodes_and_their_servers_loses_or_doubles_no_credit_on_postgresql() {
    endure(Database::Postgres, &AOF, "MIKA_POSTGRES_NODE_KILLS", 4);
}

#[test]
fn two_nodes_with_a_redis_that_forgets_everything_lose_no_credit_on_postgresql() {
    let variable = "MIKA_POSTGRES_FORGETTING_NODE_KILLS";
    endure(Database::Postgres, &[], variable, 2);
}

fn endure(database: Database, persistence: &[&str], variable: &str, default: u64) {
    let kills = number(variable, default);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("{variable}={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let mut pair = Pair::start(database, threads * USERS_PER_THREAD, persistence);
    let stage = pair.stage();
    let clients = crowd::run(&stage, threads, seed, || {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(rng.u64(PAUSE)));
            let victim = *rng.choice(&VICTIMS).expect("one of four");
            let absence = Duration::from_millis(rng.u64(ABSENCE));
            pair.kill(victim, absence, &stage);
        }
    });
    eprintln!(
        "{} announces answered, {} not; {} clients",
        stage.answered.load(Ordering::Relaxed),
        stage.unanswered.load(Ordering::Relaxed),
        clients.len()
    );
    pair.assert_settles(&stage, &clients);
}

// === impl Pair ===

impl Pair {
    fn start(database: Database, users: usize, persistence: &[&str]) -> Self {
        Self::start_changed(database, users, persistence, |_| ())
    }

    /// The same with what `change` changes of both before they run.
    pub fn start_changed(
        database: Database,
        users: usize,
        persistence: &[&str],
        change: impl Fn(&mut Mika),
    ) -> Self {
        // Peers whose stop reaches a node late count until they expire.
        let limits = json!({ "max_peers_per_user": 1000 });
        let config = |node| json!({ "node": node, "tracker": limits });
        let mut site = Site::prepare_with(database, users, persistence, &config("a"), &change);
        let mut b = site.another(&config("b"));
        change(&mut b);
        let v4 = b.http();
        b.reconfigure(&json!({ "http": { "listen": [v4, v6_of(v4)] } }));
        site.mika.run();
        b.run();
        Self { site, b }
    }

    pub fn stage(&self) -> Stage {
        let b = self.b.http();
        let ways = [("A", self.site.mika.http()), ("B", b), ("B/v6", v6_of(b))];
        let ways = ways.map(|(name, address)| Way {
            name: name.into(),
            address,
        });
        Stage::new(ways.into(), 2, vec![[0, 2]], Habits::default())
    }

    fn stop(&mut self) {
        assert_eq!(self.site.mika.stop(), 0);
        assert_eq!(self.b.stop(), 0);
    }

    /// Kills a server, starts it again after a while, and waits until all answer.
    fn kill(&mut self, victim: Victim, absence: Duration, stage: &Stage) {
        stage.note(format!("{victim:?} is killed"));
        match victim {
            Victim::A => self.site.mika.kill9(),
            Victim::B => self.b.kill9(),
            Victim::Redis => self.site.redis.kill9(),
            Victim::Database => self.site.database.kill9(),
        }
        thread::sleep(absence);
        stage.note(format!("{victim:?} starts again"));
        match victim {
            Victim::A => self.site.mika.launch(),
            Victim::B => self.b.launch(),
            Victim::Redis => self.site.redis.restart(),
            Victim::Database => self.site.database.restart(),
        }
        self.wait_for_answers();
        stage.note(format!("{victim:?} answers"));
    }

    /// Waits until nodes and servers answer.
    pub fn wait_for_answers(&self) {
        poll(PROGRAM_DEADLINE, "Redis answers", || {
            self.site.redis.cli(&["PING"]) == "PONG"
        });
        poll(PROGRAM_DEADLINE, "the database answers", || {
            self.site.database.try_sql("SELECT 1").is_ok()
        });
        for node in [self.site.mika.http(), self.b.http()] {
            // It accepts at once, and answers when it is ready.
            poll(PROGRAM_DEADLINE, "the node answers", || {
                try_get(node, "/").is_ok()
            });
        }
    }

    /// Storage gets right once all that was acknowledged has reached it, and stays so after another start.
    pub fn assert_settles(&mut self, stage: &Stage, clients: &[Client]) {
        settles(SETTLED, || self.wrong(stage, clients).is_empty());
        self.assert_right(stage, clients, "after quiet");
        // What a start applies again must not count again.
        self.stop();
        self.site.mika.run();
        self.b.run();
        self.wait_for_answers();
        self.stop();
        self.assert_right(stage, clients, "after another start");
    }

    fn assert_right(&self, stage: &Stage, clients: &[Client], when: &str) {
        let wrong = self.wrong(stage, clients);
        assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
        let books = Books::new(&self.site.database, stage, clients);
        let wanted = books.wanted.values();
        let [seeded, at_most] = [
            wanted.clone().map(|it| it.seeded.len()).sum::<usize>(),
            wanted.map(|it| it.maybe_seeded.len()).sum(),
        ];
        let sql = "SELECT SUM(seed_time), SUM(snatches) FROM users";
        let [seed_time, snatches] = self.site.database.row(sql);
        eprintln!(
            "{when}: {snatches} snatches; {seed_time} s of seed time, clients seeded {seeded}, at most {at_most}"
        );
        let stay = books.active();
        let at_both = stay.iter().filter(|it| it.is_at_both()).count();
        eprintln!(
            "{when}: {} peers are there until they expire, though they stopped; {at_both} of them had stopped \
             at both nodes at once",
            stay.len()
        );
    }

    /// What differs between storage and what clients announced.
    fn wrong(&self, stage: &Stage, clients: &[Client]) -> Vec<String> {
        let mut wrong = Books::new(&self.site.database, stage, clients).wrong();
        for (name, mika) in [("A", &self.site.mika), ("B", &self.b)] {
            wrong.extend(losses(name, &mika.log()));
        }
        wrong
    }
}

/// The same port of the other family.
fn v6_of(v4: SocketAddr) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], v4.port()))
}
