//! What is particular to SQLite; the rest is in the contract.

use std::fs;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use crate::change::{
    Batch, Change, Credit, PeerChange, PeerKey, PeerRecord, Standing, SwarmCounts,
};
use crate::registry::RowChange;
use crate::storage::sql::calls::{self, Call};
use crate::storage::sql::cells::Cell;
use crate::storage::sql::statements::{Statement, Statements};
use crate::storage::{CreditRules, Feed, FeedPosition, StorageError};

const SHORT: Duration = Duration::from_millis(50);

/// What a site writes at least.
pub(super) const SITE: &str = "
    INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven');
    INSERT INTO users (passkey, username) VALUES ('passkey-8', 'eight');
    INSERT INTO torrents (id, info_hash, release_name)
        VALUES (3, X'0101010101010101010101010101010101010101', 'three');
    INSERT INTO torrents (info_hash) VALUES (X'0202020202020202020202020202020202020202');
    INSERT INTO whitelist (peer_id, vstring) VALUES ('-TR', 'Transmission');";

/// A migrated database, and a connection to it as a site has one.
pub(super) struct Fixture {
    folder: TempDir,
    pub(super) storage: SqlStorage<Sqlite>,
    pub(super) site: Connection,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mika.db");
        let storage = opened(&path).unwrap();
        storage.migrate().await.unwrap();
        Self {
            site: Connection::open(&path).unwrap(),
            storage,
            folder,
        }
    }

    /// The same file, opened by a config with these statements.
    pub(super) fn with_statements(&self, statements: &[(&str, &str)]) -> Arc<dyn Storage> {
        let mut config = place(self.path().display());
        let statements = statements.iter();
        config.statements = statements
            .map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned()))
            .collect();
        open(&config).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mika.db")
    }

    async fn changes(&self, after: FeedPosition) -> Vec<RowChange> {
        match self.storage.feed(after, 100).await.unwrap() {
            Feed::Changes(changes, _) => changes,
            Feed::Lost => panic!("lost"),
        }
    }
}

fn built_in() -> Arc<Statements> {
    statements(&SCHEMAS[0], &StorageConfig::default()).unwrap()
}

fn opened(path: &Path) -> Result<SqlStorage<Sqlite>, StorageError> {
    let database = Sqlite::open(path, SHORT, &SCHEMAS[0])?;
    Ok(SqlStorage::new(database, built_in()))
}

fn open_error(path: &Path) -> StorageError {
    match opened(path) {
        Ok(_) => panic!("{} opened", path.display()),
        Err(error) => error,
    }
}

/// The file of that path, as a config names it.
fn place(path: impl std::fmt::Display) -> StorageConfig {
    StorageConfig {
        url: Secret::new(format!("sqlite://{path}")),
        schema: "mika".into(),
        ..StorageConfig::default()
    }
}

pub(super) fn batch(number: u64, peers: std::ops::Range<u32>) -> Batch {
    let change = |peer: u32| {
        let mut peer_id = [0; 20];
        peer_id[..4].copy_from_slice(&peer.to_be_bytes());
        Change::from(PeerChange {
            key: PeerKey {
                user: UserId(7 + peer % 2),
                torrent: TorrentId(3 + peer % 2),
                peer_id: PeerId(peer_id),
            },
            info_hash: InfoHash([3; 20]),
            record: record(),
            credit: Credit {
                up: 1,
                announces: 1,
                ..Credit::default()
            },
            standing: Standing::default(),
            counts: SwarmCounts::default(),
            report: None,
        })
    };
    Batch::new("a".into(), number, peers.map(change).collect())
}

fn record() -> PeerRecord {
    PeerRecord {
        base_up: 1 << 40,
        base_down: 1 << 40,
        start_up: None,
        start_down: None,
        dip_up: None,
        dip_down: None,
        base_at: 1_800_000_000,
        uploaded: 1 << 40,
        downloaded: 1 << 40,
        left: Some(0),
        v4: Some("192.0.2.1:6881".parse().unwrap()),
        v6: None,
        v4_at: None,
        v6_at: None,
        speed_up: 1 << 20,
        speed_down: 0,
        seed_time: 1000,
        announces: 10,
        first_announce: 1_800_000_000,
        last_announce: 1_800_000_000,
        active: true,
        paused: false,
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    crate::storage::contract::run(|| {
        count.set(count.get() + 1);
        let path = folder.path().join(format!("{}.db", count.get()));
        async move { open(&place(path.display())).unwrap() }
    })
    .await;
}

#[tokio::test]
async fn plain_sql_of_a_site_works_and_is_followed() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    it.site.execute_batch(SITE).unwrap();
    let user = it.storage.user(UserId(8)).await.unwrap().unwrap().user;
    assert!(user.enabled && user.can_leech);
    assert_eq!(it.changes(start).await.len(), 5);

    let position = it.storage.feed_position().await.unwrap();
    it.site
        .execute_batch(
            "UPDATE users SET uploaded = 5 WHERE id = 7;
             UPDATE users SET enabled = enabled, uploaded = 6;
             UPDATE torrents SET seeders = 4, snatches = 9;",
        )
        .unwrap();
    it.storage
        .apply(&[Arc::new(batch(1, 0..10))], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(
        it.changes(position).await,
        [],
        "totals are no changes of the registry"
    );

    it.site
        .execute_batch(
            "UPDATE users SET passkey = 'short' WHERE id = 7;
             DELETE FROM users WHERE id = 8;
             UPDATE torrents SET id = 30 WHERE id = 3;
             DELETE FROM whitelist;",
        )
        .unwrap();
    let changes = it.changes(position).await;
    let gone = [
        RowChange::UserGone(UserId(7)),
        RowChange::UserGone(UserId(8)),
        RowChange::TorrentGone(TorrentId(3)),
    ];
    assert!(
        gone.iter().all(|change| changes.contains(change)),
        "{changes:?}"
    );
    assert_eq!(changes.len(), 5);
}

#[tokio::test]
async fn the_id_of_a_deleted_user_is_not_given_to_another() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site
        .execute_batch(
            "DELETE FROM users WHERE id = 8;
             INSERT INTO users (passkey, username) VALUES ('passkey-9', 'nine');",
        )
        .unwrap();
    assert_eq!(it.storage.user(UserId(8)).await.unwrap(), None);
    assert!(it.storage.user(UserId(9)).await.unwrap().is_some());
}

#[tokio::test]
async fn unusable_rows_are_reported_without_their_secrets() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site
        .execute_batch(
            "INSERT INTO users (id, passkey, username) VALUES (-1, 'secret-one', 'x'),
                 (1, 'secret!secret', 'x'), (5000000000, 'secret-two', 'x');
             INSERT INTO users (id, passkey, username, enabled) VALUES (2, 'secret-4', 'x', 'yes');
             INSERT INTO torrents (info_hash) VALUES ('0101'), (X'00');
             INSERT INTO torrents (info_hash, multi_up)
                 VALUES (X'0303030303030303030303030303030303030303', -1);
             INSERT INTO whitelist (peer_id) VALUES (''), ('-a-prefix-of-over-20-bytes');",
        )
        .unwrap();
    let users = it.storage.users(None, 1).await.unwrap();
    assert_eq!(
        (users.rows.len(), users.bad.len(), users.last),
        (1, 3, false)
    );
    assert!(!format!("{:?}", users.bad).contains("secret"));
    assert_eq!(users.bad[0].id, "-1");
    let rest = it.storage.users(Some(UserId(7)), 10).await.unwrap();
    assert_eq!((rest.rows.len(), rest.bad.len(), rest.last), (1, 1, true));
    let torrents = it.storage.torrents(None, 10).await.unwrap();
    assert_eq!((torrents.rows.len(), torrents.bad.len()), (2, 3));
    assert_eq!(it.storage.whitelist().await.unwrap().len(), 1);
    let findings = it.storage.check().await.unwrap();
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(
        findings[0].problem.starts_with("users: 4 rows"),
        "{findings:?}"
    );
    assert!(!format!("{findings:?}").contains("secret"));
}

#[tokio::test]
async fn missing_tables_and_columns_are_found() {
    let it = Fixture::new().await;
    it.site
        .execute_batch("ALTER TABLE history DROP COLUMN announces; DROP TABLE whitelist;")
        .unwrap();
    let problems: Vec<String> = it
        .storage
        .check()
        .await
        .unwrap()
        .into_iter()
        .map(|it| it.problem)
        .collect();
    let expected = [
        "the table history has no column announces",
        "the table `whitelist` is missing, though the migration was applied",
    ];
    assert_eq!(problems, expected);
}

#[tokio::test]
async fn all_peers_of_a_user_on_a_torrent_show_the_same_standing() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let shown = || -> (i64, i64, i64) {
        let sql = "SELECT COUNT(*), SUM(hnr), COUNT(completed_at) FROM peers WHERE user_id = 7";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        it.site.query_row(sql, [], row).unwrap()
    };
    it.storage
        .apply(&[Arc::new(batch(1, 0..6))], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(shown(), (3, 0, 0));
    for (number, hnr, expected) in [(2, true, (3, 3, 3)), (3, false, (3, 0, 3))] {
        let mut batch = batch(number, 0..1);
        let Change::Peer(change) = &mut batch.changes[0] else {
            unreachable!()
        };
        change.standing.hnr = hnr;
        change.standing.completed_at = Some(1_800_000_000);
        it.storage
            .apply(&[Arc::new(batch.clone())], &CreditRules::default())
            .await
            .unwrap();
        assert_eq!(shown(), expected);
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let full = Sqlite::open(&it.path(), SHORT, &SCHEMAS[0]).unwrap();
    let no_room = |connection: &mut Connection| {
        // SQLite takes the present size.
        connection.pragma_update_and_check(None, "max_page_count", 1, |_| Ok(()))?;
        Ok(())
    };
    full.writer.run(ANSWER_TIMEOUT, no_room).await.unwrap();
    let full = SqlStorage::new(full, built_in());
    let batch = batch(1, 0..5000);
    let error = full
        .apply(&[Arc::new(batch.clone())], &CreditRules::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StorageError::Away(text) if text.contains("full")),
        "{error}"
    );
    assert_eq!(full.last_applied("a").await.unwrap(), 0);
    assert!(full.peers(0, None, 1).await.unwrap().rows.is_empty());
    it.storage
        .apply(&[Arc::new(batch.clone())], &CreditRules::default())
        .await
        .unwrap();
    let user = it.storage.user(UserId(7)).await.unwrap().unwrap();
    assert_eq!(user.totals.uploaded, 2500);
}

#[tokio::test]
async fn a_lock_of_another_program_is_waited_for_and_then_reported() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = it
        .storage
        .apply(&[Arc::new(batch(1, 0..1))], &CreditRules::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StorageError::Away(text) if text.contains("locked")),
        "{error}"
    );
    assert_eq!(
        it.storage.users(None, 10).await.unwrap().rows.len(),
        2,
        "readers go on"
    );
    it.site.execute_batch("ROLLBACK").unwrap();
    it.storage
        .apply(&[Arc::new(batch(1, 0..1))], &CreditRules::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn followers_too_far_behind_load_everything_again() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
             INSERT INTO mika_feed (kind, key) SELECT 'user', 7 FROM n",
        )
        .unwrap();
    // Each time, a bounded number goes.
    for _ in 0..3 {
        it.storage.prune(0, 10).await.unwrap();
    }
    let newest = it.storage.feed_position().await.unwrap();
    assert!(matches!(
        it.storage.feed(FeedPosition(0), 10).await,
        Ok(Feed::Lost)
    ));
    let oldest_known = FeedPosition(newest.0 - 100_000);
    assert_eq!(it.changes(oldest_known).await.len(), 1);
    let too_old = FeedPosition(oldest_known.0 - 1);
    assert!(matches!(it.storage.feed(too_old, 10).await, Ok(Feed::Lost)));

    it.site.execute_batch("DELETE FROM mika_feed").unwrap();
    assert_eq!(it.storage.feed_position().await.unwrap(), newest);
    assert_eq!(
        it.changes(newest).await,
        [],
        "a follower at the newest position loses nothing"
    );
}

#[tokio::test]
async fn queued_work_is_finished_before_the_end() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let database = Sqlite::open(&it.path(), SHORT, &SCHEMAS[0]).unwrap();
    let turn = database.writer.turn(SHORT).await.unwrap();
    for number in 1..=5 {
        turn.send(move |connection| {
            let sql = "INSERT INTO mika_journal (node, applied) VALUES (?1, 1)";
            connection.execute(sql, [number.to_string()]).unwrap();
        });
    }
    drop(turn);
    drop(database);
    assert_eq!(it.storage.journals().await.unwrap().len(), 5);
}

/// The only statement of that name.
fn named(statements: &Statements, call: &'static Call) -> Statement {
    statements.of(call)[0].clone()
}

#[tokio::test]
async fn a_job_has_its_connection_alone_until_it_is_taken_back() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let statements = built_in();
    let (add, list) = (
        named(&statements, &calls::ADD_USER),
        named(&statements, &calls::USERS),
    );
    let page = [("after", Cell::Int(-1)), ("limit", Cell::Int(10))];
    let database = Sqlite::open(&it.path(), SHORT, &SCHEMAS[0]).unwrap();
    let mut first = database.session(Use::Write).await.unwrap();
    first.begin().await.unwrap();
    let user = [("passkey", "passkey-9".into()), ("username", "nine".into())];
    assert_eq!(first.run(&add, &user, "").await.unwrap().changed, 1);
    first.savepoint().await.unwrap();
    first.run(&add, &[], "").await.unwrap_err();
    first.undo().await.unwrap();
    first.savepoint().await.unwrap();
    assert_eq!(first.run(&list, &page, "").await.unwrap().len(), 3);
    let second = tokio::time::timeout(SHORT, database.session(Use::Write));
    assert!(second.await.is_err(), "it has to wait");
    drop(first);
    let mut second = database.session(Use::Write).await.unwrap();
    assert_eq!(second.run(&list, &page, "").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_whose_caller_goes_is_applied_or_not() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let storage = Arc::new(it.storage);
    let apply = |number| {
        let storage = Arc::clone(&storage);
        let batch = Arc::new(batch(number, 0..500));
        async move { storage.apply(&[batch], &CreditRules::default()).await }
    };
    for attempt in 0..10 {
        let applied = storage.last_applied("a").await.unwrap();
        let job = tokio::spawn(apply(applied + 1));
        tokio::time::sleep(Duration::from_millis(2 * attempt)).await;
        job.abort();
        let _ = job.await;
        let applied = storage.last_applied("a").await.unwrap();
        let user = storage.user(UserId(7)).await.unwrap().unwrap();
        assert_eq!(user.totals.uploaded, 250 * applied);
    }
    let next = storage.last_applied("a").await.unwrap() + 1;
    apply(next).await.unwrap();
}

#[tokio::test]
async fn held_rows_are_found_by_their_primary_keys() {
    let it = Fixture::new().await;
    let columns: Vec<&str> = calls::HELD.rows.split(' ').collect();
    let held = named(&built_in(), &calls::HELD);
    let sql = statement::SqliteStatement::new(&held, &columns, "").sql;
    let mut explain = it
        .site
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let plan = explain.raw_query().mapped(|row| row.get(3));
    let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
    for table in ["peer", "history"] {
        let search = format!("SEARCH {table} USING PRIMARY KEY");
        let is_found = plan.iter().any(|step| step.starts_with(&search));
        assert!(is_found, "{plan:?}");
    }
}

#[tokio::test]
async fn one_process_claims_a_database() {
    let it = Fixture::new().await;
    let other = opened(&it.path()).unwrap();
    let claim = it.storage.claim().await.unwrap();
    let error = other.claim().await.unwrap_err().to_string();
    assert!(error.contains("in use by another mika"), "{error}");
    drop(claim);
    let _claim = other.claim().await.unwrap();
}

#[tokio::test]
async fn the_tables_of_a_newer_version_are_left_alone() {
    let it = Fixture::new().await;
    it.site
        .execute_batch("INSERT INTO mika_migrations (name) VALUES ('9999_later')")
        .unwrap();
    let error = open_error(&it.path()).to_string();
    assert!(
        error.contains("newer Mika") && error.contains("9999_later"),
        "{error}"
    );
    assert!(it.storage.migrate().await.is_err());
}

#[test]
fn a_path_that_can_not_be_opened_is_reported_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "no database ".repeat(1000)).unwrap();
    let cases = [
        (folder.path().join("none/mika.db"), "folder does not exist"),
        (folder.path().to_path_buf(), "is a folder"),
        (text.clone(), "is not an SQLite database"),
        (text.join("mika.db"), "folder does not exist"),
    ];
    for (path, expected) in cases {
        let error = open_error(&path).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    for url in ["sqlite://", "sqlite://:memory:", "mika.db"] {
        assert!(
            open(&StorageConfig {
                url: Secret::new(url),
                schema: "mika".into(),
                ..StorageConfig::default()
            })
            .is_err(),
            "{url}"
        );
    }
}

#[test]
fn a_read_only_folder_is_reported_in_one_line() {
    // Not even root creates files here.
    let error = open_error(Path::new("/proc/mika.db"));
    let StorageError::Broken(text) = error else {
        panic!("{error}");
    };
    assert!(text.starts_with("can't create /proc/mika.db: "), "{text}");
}

#[tokio::test]
async fn damage_is_reported_where_it_is_met_and_by_the_check() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.storage
        .apply(&[Arc::new(batch(1, 0..5000))], &CreditRules::default())
        .await
        .unwrap();
    let path = it.path();
    drop((it.storage, it.site));
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end / 2..end].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let storage = opened(&path).unwrap();
    let error = storage.peers(0, None, 5000).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Broken(text) if text.contains("damaged")),
        "{error}"
    );
    let findings = storage.check().await;
    assert!(!findings.is_ok_and(|findings| findings.is_empty()));
}

#[tokio::test]
async fn peers_go_with_their_user_and_their_torrent() {
    let fixture = Fixture::new().await;
    fixture.site.execute_batch(SITE).unwrap();
    let peers = async || fixture.storage.peers(0, None, 10).await.unwrap().rows.len();
    fixture
        .storage
        .apply(&[Arc::new(batch(1, 0..3))], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(peers().await, 3);
    fixture
        .site
        .execute_batch("DELETE FROM torrents WHERE id = 3")
        .unwrap();
    assert_eq!(peers().await, 1);
    fixture
        .site
        .execute_batch("DELETE FROM users WHERE id = 8")
        .unwrap();
    assert_eq!(peers().await, 0);
    let histories = fixture.storage.histories(None, 10).await.unwrap().rows;
    assert!(!histories.is_empty(), "what was counted stays");
}

#[tokio::test]
async fn a_copy_is_the_same_database_and_another_is_not() {
    let (one, other) = (Fixture::new().await, Fixture::new().await);
    let id = one.storage.identity().await.unwrap();
    assert_eq!(id.len(), 32, "{id}");
    assert_ne!(other.storage.identity().await.unwrap(), id);
    let copy = one.folder.path().join("copy.db");
    let sql = format!("VACUUM INTO '{}'", copy.display());
    one.site.execute_batch(&sql).unwrap();
    let copy = opened(&copy).unwrap();
    assert_eq!(copy.identity().await.unwrap(), id);
    assert_eq!(copy.migrate().await.unwrap(), [""; 0]);
    assert_eq!(copy.identity().await.unwrap(), id);
    let new = copy.renew_identity().await.unwrap();
    assert!(new.len() == 32 && new != id, "{new}");
    assert_eq!(copy.identity().await.unwrap(), new);
    assert_eq!(one.storage.identity().await.unwrap(), id);
}

#[tokio::test]
async fn a_database_without_an_identity_gets_one() {
    let fixture = Fixture::new().await;
    let id = fixture.storage.identity().await.unwrap();
    for (sql, hint) in [
        ("UPDATE mika_identity SET id = 'a/b'", "delete that row"),
        ("DELETE FROM mika_identity", "run mika-manage migrate"),
        ("DROP TABLE mika_identity", "run mika-manage migrate"),
    ] {
        fixture.site.execute_batch(sql).unwrap();
        let error = fixture.storage.identity().await.unwrap_err().to_string();
        assert!(error.contains(hint), "{sql}: {error}");
    }
    assert_eq!(fixture.storage.migrate().await.unwrap(), ["identity"]);
    assert_ne!(fixture.storage.identity().await.unwrap(), id);
}

#[tokio::test]
async fn a_database_of_before_gets_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mika.db");
    let site = Connection::open(&path).unwrap();
    site.execute_batch(
        "CREATE TABLE mika_migrations (name TEXT PRIMARY KEY NOT NULL, applied_at INTEGER)",
    )
    .unwrap();
    for migration in &migrate::SQLITE[..2] {
        site.execute_batch(migration.sql).unwrap();
        let sql = "INSERT INTO mika_migrations (name) VALUES (?1)";
        site.execute(sql, [migration.name]).unwrap();
    }
    let storage = opened(&path).unwrap();
    assert!(storage.identity().await.is_err());
    assert_eq!(storage.migrate().await.unwrap(), ["0003_identity"]);
    assert_eq!(storage.identity().await.unwrap().len(), 32);
}

#[tokio::test]
async fn peers_and_histories_behind_an_unusable_row_are_read() {
    let fixture = Fixture::new().await;
    fixture.site.execute_batch(SITE).unwrap();
    fixture
        .site
        .execute_batch(
            "WITH RECURSIVE it (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it WHERE n < 9)
             INSERT INTO peers (user_id, torrent_id, peer_id, base_up, base_down, base_at, uploaded, downloaded,
                     speed_up, speed_down, seed_time, announces, first_announce, last_announce, active, paused)
                 SELECT n, 3, IIF(n IN (2, 4, 5, 6), X'00', CAST(printf('-XX0001-%012d', n) AS BLOB)), 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,
                     1, 0 FROM it;
             INSERT INTO history (torrent_id, user_id) SELECT 3, IIF(user_id IN (2, 4, 5, 6), -user_id, user_id) FROM peers;",
        )
        .unwrap();
    let (mut peers, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.storage.peers(0, after, 2).await.unwrap();
        peers.extend(page.rows.iter().map(|row| row.key.user.0));
        after = page.rows.last().map(|row| row.key);
        if page.last {
            break;
        }
    }
    assert_eq!(peers, [1, 3, 7, 8, 9]);
    let (mut users, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.storage.histories(after, 2).await.unwrap();
        users.extend(page.rows.iter().map(|row| row.user.0));
        after = page.rows.last().map(|row| (row.torrent, row.user));
        if page.last {
            break;
        }
    }
    assert_eq!(users, [1, 3, 7, 8, 9]);
}
