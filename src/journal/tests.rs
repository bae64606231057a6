//! The journal against a storage that fails for a while.

use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::base::addr::PublicAddresses;
use crate::base::ids::InfoHash;
use crate::base::secret::Secret;
use crate::change::Change;
use crate::registry::Registry;
use crate::storage::{StorageConfig, StorageDrivers};
use crate::tracker::{Mode, Rules};

fn tracker(metrics: &Arc<Metrics>) -> Arc<Tracker> {
    let rules = Rules {
        announce_interval: 1800,
        min_announce_interval: 900,
        peer_ttl: 3900,
        tombstone_ttl: 86400,
        numwant: 50,
        max_numwant: 200,
        auto_register: true,
        max_torrents: 1000,
        forget_torrents_after: 0,
        blocked_ports: Vec::new(),
        blocked_networks: Vec::new(),
        whitelist: false,
        trust_client_ip: false,
        public_addresses: PublicAddresses::default(),
        max_peers_per_ip: 0,
        max_peers_per_user: 5,
        hide_own_peers: false,
        max_rate: 1 << 40,
        hnr_threshold: 1,
        hnr_min_bytes: 1,
        ..Rules::default()
    };
    let registry = Arc::new(Registry::default());
    Arc::new(Tracker::new(
        Mode::Public,
        rules,
        registry,
        100,
        Arc::clone(metrics),
    ))
}

async fn open(path: &Path) -> Arc<dyn Storage> {
    let open = StorageDrivers::built_in().get("sqlite").unwrap();
    let storage = open(&StorageConfig {
        url: Secret::new(format!("sqlite://{}", path.display())),
        schema: "mika".into(),
        ..StorageConfig::default()
    })
    .unwrap();
    storage.migrate().await.unwrap();
    storage
}

fn snatch(tracker: &Tracker) {
    let info_hash = InfoHash([1; 20]);
    let room = tracker.outbox().reserve().unwrap();
    room.push(
        0,
        Change::Snatches {
            info_hash,
            count: 1,
        },
    );
}

/// A journal in front of this storage alone.
async fn resume(folder: &Path, storage: &Arc<dyn Storage>, metrics: &Arc<Metrics>) -> Journal {
    let parts = JournalParts {
        tracker: tracker(metrics),
        cache: None,
        storage: Arc::clone(storage),
        metrics: Arc::clone(metrics),
        clock: Clock::start(),
    };
    let settings = JournalSettings {
        node: "n".into(),
        flush_interval: Duration::from_millis(10),
        spill: folder.join("spill"),
        memory_max: 1000,
        keep: 60,
    };
    Journal::resume(parts, settings).await.unwrap()
}

/// Storage fails, the journal is stopped, storage comes back: it gets the batch, and one that came
/// meanwhile.
#[tokio::test]
async fn a_batch_that_only_the_journal_has_outlives_a_failing_storage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mika.db");
    let storage = open(&path).await;
    let site = Connection::open(&path).unwrap();
    let metrics = Arc::new(Metrics::default());
    let journal = resume(folder.path(), &storage, &metrics).await;
    let tracker = Arc::clone(&journal.shared.parts.tracker);
    site.execute_batch("ALTER TABLE torrents RENAME TO away")
        .unwrap();
    snatch(&tracker);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(journal.run(async {
        let _ = stopped.await;
    }));
    while metrics.batch_failures.get() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    snatch(&tracker);
    drop(stop);
    while metrics.batch_failures.get() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    site.execute_batch("ALTER TABLE away RENAME TO torrents")
        .unwrap();
    running.await.unwrap().unwrap();
    let snatches: u32 = site
        .query_row("SELECT snatches FROM torrents", [], |row| row.get(0))
        .unwrap();
    assert_eq!(snatches, 2);
    let journals = storage.journals().await.unwrap();
    let [(journal, 2)] = &journals[..] else {
        panic!("{journals:?}")
    };
    assert!(journal.starts_with("n#1."), "{journal}");
    assert_eq!(tracker.outbox().pending(), 0);
}

/// The log of this thread, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The journal itself and the node's health check may both see it.
#[tokio::test]
async fn a_storage_that_went_back_is_found_by_one_of_those_that_ask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mika.db");
    let storage = open(&path).await;
    let metrics = Arc::new(Metrics::default());
    let journal = resume(folder.path(), &storage, &metrics).await;
    let (handle, shared) = (journal.handle(), Arc::clone(&journal.shared));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    snatch(&shared.parts.tracker);
    let running = tokio::spawn(journal.run(async {
        let _ = stopped.await;
    }));
    handle.all_applied().await;
    let after_keep = Seconds(shared.now().0 + shared.settings.keep);
    shared.queue.confirm(after_keep);
    assert_eq!(shared.queue.release(after_keep), Some(1));

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let site = Connection::open(&path).unwrap();
    site.execute_batch("UPDATE mika_journal SET applied = 0")
        .unwrap();
    let (first, second) = tokio::join!(handle.ask_storage(), handle.ask_storage());
    first.unwrap();
    second.unwrap();
    assert_eq!(storage.last_applied(handle.name()).await.unwrap(), 1);
    drop(stop);
    running.await.unwrap().unwrap();
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(log.matches("storage went back").count(), 1, "{log}");
}
