//! A load of announces during outages, and what is asked of each.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::database::Database;
use crate::harness::load::{self, Stage, USERS_PER_THREAD, report};
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, number, poll};

/// Threads that announce, and how long each rests after an announce: a light load.
pub const THREADS: usize = 2;
pub const REST: Duration = Duration::from_millis(10);

/// How long announces may take, also those that wait until their batch is durable. They take some
/// milliseconds; the bounds leave room for a busy machine, and are below every patience with a server.
const SLOWEST: Duration = Duration::from_millis(1500);
const MOST: Duration = Duration::from_millis(300);

/// Lines that one outage may add to the log: its begin and its end, once for each affected part of
/// the node.
const LINES_MAX: usize = 16;

/// Warnings and errors among them.
const COMPLAINTS_MAX: usize = 6;

/// A tracker under load.
pub struct Trial {
    pub site: Site,
    stage: Arc<Stage>,
    /// Whether the end waits until both journals are empty: that takes ten seconds more.
    pub drains: bool,
    /// How much of the log belongs to outages that were looked at.
    read: usize,
}

/// How long a test's outage lasts.
pub fn outage() -> Duration {
    Duration::from_secs(number("MIKA_OUTAGE", 3))
}

/// A site with as many users as the load has.
fn prepare(database: Database, persistence: &[&str], config: &Value) -> Site {
    Site::prepare_on(database, THREADS * USERS_PER_THREAD, persistence, config)
}

// === impl Trial ===

impl Trial {
    /// Runs `act` during a load on a tracker with `config`, and holds the end to what was announced.
    pub fn run(
        database: Database,
        persistence: &[&str],
        config: &Value,
        act: impl FnOnce(&mut Self),
    ) {
        Self::run_on(prepare(database, persistence, config), REST, act);
    }

    /// Like [`Trial::run`], with a load that does not rest.
    pub fn run_hard(
        database: Database,
        persistence: &[&str],
        config: &Value,
        act: impl FnOnce(&mut Self),
    ) {
        let site = prepare(database, persistence, config);
        Self::run_on(site, Duration::ZERO, act);
    }

    /// The same on a site that is prepared.
    pub fn run_on(mut site: Site, rest: Duration, act: impl FnOnce(&mut Self)) {
        site.mika.run();
        let stage = Stage::new(site.mika.http()).resting(rest);
        let stage = match site.mika.namespace() {
            Some(namespace) => stage.within(namespace),
            None => stage,
        };
        let stage = Arc::new(stage);
        let mut trial = Self {
            read: 0,
            site,
            stage: Arc::clone(&stage),
            drains: false,
        };
        let seed = number("MIKA_SEED", fastrand::u64(..));
        eprintln!("MIKA_SEED={seed}");
        let expected = load::run(&stage, THREADS, seed, || {
            // Announces are answered before the start is over and has logged everything.
            trial.is_saved();
            trial.read = trial.site.mika.log().lines().count();
            act(&mut trial);
        });
        report(&stage, &expected);
        assert_eq!(stage.unanswered(), 0, "announces without an answer");
        if trial.drains {
            trial.site.is_drained();
        }
        trial.site.is_reconciled();
        assert_eq!(trial.site.mika.stop(), 0);
        trial.site.compare(&expected);
    }

    /// Lets `begin` and `end` enclose an outage, and looks at the replies and at the log, of which
    /// it returns the new lines.
    pub fn outage(
        &mut self,
        name: &str,
        begin: impl FnOnce(&mut Site),
        end: impl FnOnce(&mut Site),
    ) -> String {
        self.stage.is_answered();
        self.stage.waits();
        begin(&mut self.site);
        thread::sleep(outage());
        end(&mut self.site);
        self.is_saved();
        self.is_over();
        self.was_quick(name);
        self.was_told_once(name)
    }

    /// Waits until both servers have what is announced from now on.
    pub fn is_saved(&self) {
        for number in [Self::applied, Self::kept] {
            let mut first = None;
            poll(
                PROGRAM_DEADLINE,
                "both servers take the journal again",
                || {
                    let Some(number) = number(self) else {
                        return false;
                    };
                    // The batch after the next has nothing that was announced before.
                    *first.get_or_insert(number) + 2 <= number
                },
            );
        }
    }

    /// Waits until the log has the end of each problem with the journal. A server may have some batches of many
    /// before.
    fn is_over(&self) {
        poll(
            PROGRAM_DEADLINE,
            "the log has the end of the outage",
            || {
                let log = self.site.mika.log();
                let lines: Vec<&str> = log.lines().skip(self.read).collect();
                let last = |text: &str| lines.iter().rposition(|line| line.contains(text));
                ["the cache", "storage"].iter().all(|server| {
                    let began = last(&format!("{server} does not take the journal"));
                    began <= last(&format!("{server} takes the journal again"))
                })
            },
        );
    }

    /// The last batch that storage has.
    fn applied(&self) -> Option<u64> {
        let sql = "SELECT COALESCE(MAX(applied), 0) FROM mika_journal";
        self.site.database.try_sql(sql).ok()?.parse().ok()
    }

    /// The last batch that the cache has.
    fn kept(&self) -> Option<u64> {
        let keys = self.site.redis.cli(&["KEYS", "t:journal:*"]);
        let last = |key: &str| {
            let entry = ["XREVRANGE", key, "+", "-", "COUNT", "1"];
            let last = self.site.redis.cli(&entry);
            last.split_once("-0")?.0.parse::<u64>().ok()
        };
        keys.lines().filter_map(last).max()
    }

    fn was_quick(&self, name: &str) {
        let waits = self.stage.waits();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        let slowest = at(1.0);
        eprintln!(
            "{name}: {} announces, p50 {:?}, p99 {:?}, slowest {slowest:?}",
            waits.len(),
            at(0.5),
            at(0.99),
        );
        assert!(slowest < SLOWEST, "{name}: an announce took {slowest:?}");
        assert!(at(0.99) < MOST, "{name}: announces took {:?}", at(0.99));
    }

    fn was_told_once(&mut self, name: &str) -> String {
        let log = self.site.mika.log();
        let lines: Vec<&str> = log.lines().skip(self.read).collect();
        self.read += lines.len();
        let is_complaint = |line: &&&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let complaints = lines.iter().filter(is_complaint).count();
        let text = lines.join("\n");
        eprintln!("{name}: the log says\n{text}");
        assert!(lines.len() <= LINES_MAX, "{name}: too many lines");
        assert!(complaints <= COMPLAINTS_MAX, "{name}: too many complaints");
        text
    }
}
