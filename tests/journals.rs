//! Journals of several starts over a real Redis that forgets: no batch is applied twice, and none is lost.

mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::redis::Redis;
use mika::cache::{Cache, Drivers};
use mika::change::Change;
use mika::clock::{Clock, Seconds};
use mika::ids::InfoHash;
use mika::journal::{Handle, Journal, Parts, Replay, Settings, spill_owner};
use mika::metrics::Metrics;
use mika::registry::Registry;
use mika::secret::Secret;
use mika::storage::{self, CreditRules, Place, Storage};
use mika::tracker::{Mode, Rules, Tracker};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Seconds for which batches stay.
const KEEP: u32 = 60;

/// Longer than a flush takes.
const BOUND: Duration = Duration::from_secs(20);

/// A cache that keeps nothing on its own, a database, and a folder for spill files.
struct Site {
    redis: Redis,
    storage: Arc<dyn Storage>,
    folder: TempDir,
}

/// One start of a node.
struct Start {
    cache: Arc<dyn Cache>,
    tracker: Arc<Tracker>,
    journal: Handle,
    task: JoinHandle<()>,
}

// === impl Site ===

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("mika.db").display());
        let statements = BTreeMap::new();
        let open = storage::Drivers::built_in().get("sqlite").unwrap();
        let storage = open(&Place::of(&Secret::new(url), "mika", &statements)).unwrap();
        storage.migrate().await.unwrap();
        Self {
            redis: Redis::start(),
            storage,
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A start of `node` with a spill file: what earlier ones left is in storage then.
    async fn start(&self, node: &str, spill: &Path) -> Start {
        let open = Drivers::built_in().get("redis").unwrap();
        let cache = open(&Secret::new(self.redis.url())).unwrap().unwrap();
        let metrics = Arc::new(Metrics::default());
        let registry = Arc::new(Registry::default());
        let rules = Rules {
            auto_register: true,
            ..Rules::default()
        };
        let tracker = Tracker::new(Mode::Public, rules, registry, 100, Arc::clone(&metrics));
        let tracker = Arc::new(tracker);
        let parts = Parts {
            tracker: Arc::clone(&tracker),
            cache: Some(Arc::clone(&cache)),
            storage: Arc::clone(&self.storage),
            metrics,
            clock: Clock::start(),
        };
        let settings = Settings {
            node: node.into(),
            // Storage gets a batch so much later than the spill file.
            flush_interval: Duration::from_millis(500),
            spill: spill.to_owned(),
            memory_max: 1000,
            keep: KEEP,
        };
        let journal = Journal::resume(parts, settings).await.unwrap();
        let handle = journal.handle();
        cache.beat(handle.name(), "sign").await.unwrap();
        journal.apply_rest().await.unwrap();
        let task = tokio::spawn(async {
            let _ = journal.run(std::future::pending()).await;
        });
        Start {
            cache,
            tracker,
            journal: handle,
            task,
        }
    }

    fn database(&self) -> Connection {
        Connection::open(self.file("mika.db")).unwrap()
    }

    /// Snatches that storage has counted.
    fn snatches(&self) -> u32 {
        let sql = "SELECT COALESCE(SUM(snatches), 0) FROM torrents";
        self.database()
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }

    async fn applied(&self, journal: &str) -> u64 {
        self.storage.applied(journal).await.unwrap()
    }
}

// === impl Start ===

impl Start {
    /// Somebody completes a torrent; storage has it then.
    async fn snatch(&self) {
        let info_hash = InfoHash([1; 20]);
        let room = self.tracker.outbox().reserve().unwrap();
        room.push(0, Change::Snatch { info_hash });
        let applied = tokio::time::timeout(BOUND, self.journal.all_applied());
        applied.await.expect("storage gets it");
    }

    /// The process is gone; returns the name of its journal.
    async fn kill(self) -> String {
        self.task.abort();
        let _ = self.task.await;
        self.journal.name().to_owned()
    }
}

/// The earlier process is paused, as it were, while the cache is emptied and a later one starts elsewhere.
#[tokio::test]
async fn a_process_that_a_later_start_does_not_see_goes_on_where_it_was() {
    let site = Site::new().await;
    let earlier = site.start("a", &site.file("spill-1")).await;
    earlier.snatch().await;
    site.redis.cli(&["FLUSHALL"]);
    let later = site.start("a", &site.file("spill-2")).await;
    assert_eq!(site.applied(earlier.journal.name()).await, 1);
    earlier.snatch().await;
    assert_eq!(site.applied(earlier.journal.name()).await, 2);
    assert_eq!(site.snatches(), 2);
    earlier.kill().await;
    later.kill().await;
}

/// Its node has started on another disk meanwhile, and the cache knows nothing of it any more.
#[tokio::test]
async fn a_spill_file_that_turns_up_under_another_name_is_not_applied_again() {
    let site = Site::new().await;
    let spill = site.file("spill-1");
    let first = site.start("a", &spill).await;
    first.snatch().await;
    let former = first.kill().await;
    assert_eq!(
        spill_owner(spill.clone()).await.unwrap(),
        Some(former.clone())
    );
    site.redis.cli(&["FLUSHALL"]);
    let second = site.start("a", &site.file("spill-2")).await;
    let third = site.start("b", &spill).await;
    assert_eq!((site.applied(&former).await, site.snatches()), (1, 1));
    second.kill().await;
    third.kill().await;
}

/// The node is killed right after storage had its batch, which is not in the cache; it starts again, and
/// then storage goes back.
#[tokio::test]
async fn what_an_earlier_start_spilled_is_there_when_storage_goes_back() {
    let site = Site::new().await;
    let spill = site.file("spill");
    let first = site.start("a", &spill).await;
    first.snatch().await;
    let former = first.kill().await;
    assert_eq!(
        spill_owner(spill.clone()).await.unwrap(),
        Some(former.clone())
    );
    site.redis.cli(&["FLUSHALL"]);
    let second = site.start("a", &spill).await;
    site.database()
        .execute_batch("UPDATE torrents SET snatches = 0; UPDATE mika_journal SET applied = 0")
        .unwrap();
    let own = second.journal.name().to_owned();
    let (cache, storage) = (Arc::clone(&second.cache), Arc::clone(&site.storage));
    let mut replay = Replay::new(cache, storage, own, KEEP);
    for (now, expected) in [(0, 0), (15, 1), (KEEP + 15, 1), (2 * KEEP + 15, 1)] {
        let looked = replay.look(Seconds(now), &CreditRules::default()).await;
        looked.unwrap();
        let found = (site.applied(&former).await, site.snatches());
        assert_eq!(found, (expected, expected as u32), "after {now} seconds");
    }
    let kept = second.cache.kept(&former, 0, 1).await.unwrap();
    assert!(kept.is_empty(), "it is deleted in the end");
    second.kill().await;
}
