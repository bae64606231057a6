//! The cache driver `redis` on real servers: the contract, and failures of servers.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use crate::harness::certificate::{Certificate, ROOTS};
use crate::harness::redis::{AOF, Redis};
use crate::harness::{free_port, now};
use mika::base::clock::{Now, Seconds};
use mika::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use mika::base::secret::Secret;
use mika::cache::{
    Cache, CacheDrivers, CacheError, CacheKey, Generation, Mark, Membership, Mirrored, Notice,
    Rows, SharedPeer, Write, contract,
};
use mika::change::sums::Credited;
use mika::change::{
    Batch, Change, Credit, GuestChange, GuestRecord, PeerChange, PeerKey, PeerRecord, Standing,
    SwarmCounts,
};
use mika::journal::Replay;
use mika::registry::{
    ClientPrefix, Permille, StoredTorrent, StoredUser, Torrent, User, UserTotals,
};
use mika::storage::{self, CreditRules, StorageConfig};

pub(super) const NODE: &str = "node-a";

/// Above what one call may wait: a new connection, a reply, and a slow machine.
pub(super) const BOUND: Duration = Duration::from_secs(6);

/// What "at once" is on a slow machine: well below any patience.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How long a cache may take to come back.
pub(super) const COMEBACK: Duration = Duration::from_secs(20);

pub(super) fn open(url: &str) -> Arc<dyn Cache> {
    let open = CacheDrivers::built_in().get("redis").expect("the driver");
    open(&Secret::new(url)).unwrap().expect("a cache")
}

/// Waits until `condition` holds, which the driver finds out in the background.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = now();
    while !condition().await {
        assert!(start.elapsed() < COMEBACK, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn batch(number: u64) -> Arc<Batch> {
    let address: SocketAddr = "10.0.0.1:6881".parse().unwrap();
    let record = GuestRecord {
        peer_id: PeerId([7; 20]),
        key: None,
        seeder: true,
        paused: false,
        counted: false,
        last_announce: 1_800_000_000,
        active: true,
    };
    Arc::new(Batch::new(
        NODE.into(),
        number,
        vec![Change::from(GuestChange {
            info_hash: InfoHash([1; 20]),
            address,
            record,
        })],
    ))
}

pub(super) fn user(id: u32, passkey: &str) -> StoredUser {
    StoredUser {
        user: User {
            id: UserId(id),
            passkey: passkey.parse().unwrap(),
            username: "somebody".into(),
            enabled: true,
            can_leech: true,
        },
        totals: UserTotals::default(),
    }
}

pub(super) fn torrent(byte: u8) -> StoredTorrent {
    StoredTorrent {
        torrent: Torrent {
            id: TorrentId(byte.into()),
            info_hash: InfoHash([byte; 20]),
            info_hash_v2: None,
            enabled: true,
            reason: None,
            multi_up: Permille(1500),
            multi_down: Permille::ONE,
            snatches: 0,
        },
        name: format!("torrent {byte}"),
        seeders: 0,
        leechers: 0,
        announces: 0,
        uploaded: 0,
        downloaded: 0,
    }
}

/// An announce of a leecher.
pub(super) fn change(user: u32, torrent: u8) -> PeerChange {
    PeerChange {
        key: PeerKey {
            user: UserId(user),
            torrent: TorrentId(torrent.into()),
            peer_id: PeerId([7; 20]),
        },
        info_hash: InfoHash([torrent; 20]),
        record: PeerRecord {
            base_up: 10,
            base_down: 10,
            start_up: None,
            start_down: None,
            dip_up: None,
            dip_down: None,
            base_at: 1_800_000_000,
            uploaded: 10,
            downloaded: 10,
            left: Some(16384),
            v4: None,
            v6: None,
            v4_at: None,
            v6_at: None,
            speed_up: 1,
            speed_down: 2,
            seed_time: 0,
            announces: 1,
            first_announce: 1_800_000_000,
            last_announce: 1_800_000_000,
            active: true,
            paused: false,
        },
        credit: Credit {
            up: 20,
            announces: 1,
            ..Credit::default()
        },
        standing: Standing::default(),
        counts: SwarmCounts {
            seeders: 3,
            leechers: 4,
        },
        report: None,
    }
}

/// The generation once the server answers again.
pub(super) async fn comeback(cache: &dyn Cache) -> Generation {
    let start = now();
    loop {
        match cache.ping().await {
            Ok(generation) => return generation,
            Err(CacheError::Away(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < COMEBACK, "the cache stays away");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn away<T: std::fmt::Debug>(result: Result<T, CacheError>) -> String {
    match result {
        Err(CacheError::Away(text)) => text,
        other => panic!("away expected: {other:?}"),
    }
}

pub(super) fn broken<T: std::fmt::Debug>(result: Result<T, CacheError>) -> String {
    match result {
        Err(CacheError::Broken(text)) => text,
        other => panic!("broken expected: {other:?}"),
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let servers = Mutex::new(Vec::new());
    contract::run(async || {
        let redis = Redis::start();
        let cache = open(&redis.url());
        servers.lock().unwrap().push(redis);
        cache
    })
    .await;
}

#[tokio::test]
async fn no_journal_begins_in_the_cache_of_another_database() {
    let redis = Redis::start();
    let (ours, theirs) = (open(&redis.url()), open(&redis.url()));
    assert_eq!(ours.set_database("one", None).await.unwrap(), "one");
    redis.cli(&["FLUSHALL"]);
    assert_eq!(theirs.set_database("two", None).await.unwrap(), "two");
    let generation = ours.ping().await.unwrap();
    let said = broken(ours.keep(generation, &[batch(1)]).await);
    assert!(said.contains("another database"), "{said}");
    assert_eq!(redis.cli(&["KEYS", "*"]), "t:registry");
    theirs.keep(generation, &[batch(1)]).await.unwrap();
}

/// The permissions of Mika's user in docs/redis.md.
pub(super) const ALLOWED: &str = "+ping +info +select +scan +get +set +incrby +pexpire +unlink +hget +hset \
    +hdel +hexists +hincrby +hmget +hgetall +hkeys +sadd +srem +zadd +zincrby +zrem +xadd +xtrim \
    +xrange +xread +xinfo|stream +evalsha +script|load";

#[tokio::test]
async fn keeps_the_contract_by_a_socket_with_few_permissions() {
    let servers = Mutex::new(Vec::new());
    contract::run(async || {
        let redis = Redis::start();
        let mut rule = vec!["ACL", "SETUSER", "mika", "on", ">hunter2", "~t:*"];
        rule.extend(ALLOWED.split_whitespace());
        assert_eq!(redis.cli(&rule), "OK");
        let login = "db=1&user=mika&pass=hunter2";
        let cache = open(&redis.socket_url().replace("db=0", login));
        servers.lock().unwrap().push(redis);
        cache
    })
    .await;
    let docs = include_str!("../../docs/redis.md");
    let missing = |word: &&str| !docs.contains(*word);
    let missing: Vec<&str> = ALLOWED.split_whitespace().filter(missing).collect();
    assert!(missing.is_empty(), "not in docs/redis.md: {missing:?}");
}

#[tokio::test]
async fn a_killed_server_that_kept_its_data_is_another_generation() {
    let mut redis = Redis::start_with(&AOF);
    let cache = open(&redis.url());
    let first = cache.ping().await.unwrap();
    cache.keep(first, &[batch(1), batch(2)]).await.unwrap();
    let position = cache.control_position().await.unwrap();
    cache.publish(&[Notice::Whitelist]).await.unwrap();

    redis.kill9();
    away(cache.keep(first, &[batch(3)]).await);
    redis.restart();
    let second = comeback(&*cache).await;
    assert_eq!(second, Generation(2));
    let refused = cache.keep(first, &[batch(3)]).await;
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == second));
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 2, "all was kept");
    cache.keep(second, &[batch(2), batch(3)]).await.unwrap();
    assert_eq!(
        cache.kept(NODE, 0, 10, Duration::ZERO).await.unwrap().len(),
        3
    );
    // It is unknown whether it kept everything, so everything is read again.
    let (notices, position) = cache.control(Some(&position), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::Registry, Notice::Peers]);
    cache.publish(&[Notice::User(UserId(1))]).await.unwrap();
    let (notices, _) = cache.control(Some(&position), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::User(UserId(1))]);
}

#[tokio::test]
async fn an_emptied_server_is_distinguished_from_a_restarted_one() {
    let mut redis = Redis::start();
    let cache = open(&redis.url());
    let first = cache.ping().await.unwrap();
    cache.keep(first, &[batch(1)]).await.unwrap();
    let mirrored = Mirrored {
        position: 7,
        storage: "site".into(),
        evicted: 0,
    };
    cache.set_mirrored(first, mirrored).await.unwrap();
    redis.stop();
    redis.restart();
    let second = comeback(&*cache).await;
    let refused = cache.keep(first, &[batch(2)]).await;
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == second));
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
    assert_eq!(cache.mirrored().await.unwrap(), None);
}

#[tokio::test]
async fn a_lost_connection_to_the_same_server_changes_no_generation() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.ping().await.unwrap();
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(comeback(&*cache).await, generation);
    cache.keep(generation, &[batch(1)]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_delays_calls_briefly() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    cache.ping().await.unwrap();
    redis.pause();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let start = now();
                away(cache.nodes().await);
                start.elapsed()
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap() < BOUND);
    }
    // Within the backoff no call waits; an attempt to connect in between may take its time.
    let mut quick = 0;
    for _ in 0..3 {
        let start = now();
        away(cache.ping().await);
        assert!(start.elapsed() < BOUND);
        let start = now();
        away(cache.ping().await);
        quick += u32::from(start.elapsed() < AT_ONCE);
    }
    assert!(quick > 0);
    let wait = Duration::from_millis(100);
    let start = now();
    away(cache.kept(NODE, 0, 10, wait).await);
    assert!(start.elapsed() < BOUND);
    redis.resume();
    comeback(&*cache).await;
}

#[tokio::test]
async fn a_server_that_hangs_ends_blocking_reads() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let wait = Duration::from_millis(100);
    assert_eq!(cache.kept(NODE, 0, 10, wait).await.unwrap(), []);
    redis.pause();
    let start = now();
    away(cache.kept(NODE, 0, 10, wait).await);
    assert!(start.elapsed() < BOUND);
    redis.resume();
    let generation = comeback(&*cache).await;
    cache.keep(generation, &[batch(1)]).await.unwrap();
    assert_eq!(cache.kept(NODE, 0, 10, wait).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_unreachable_server_is_away_and_logged_once() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let mut redis = Redis::start();
    redis.kill9();
    let cache = open(&redis.url());
    for _ in 0..20 {
        away(cache.ping().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis.restart();
    comeback(&*cache).await;
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("is away").count(), 1, "{log}");
    assert_eq!(log.matches("is back").count(), 1, "{log}");
}

#[tokio::test]
async fn a_server_out_of_memory_is_away_and_logged_once() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.ping().await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..5 {
        let text = away(cache.keep(generation, &[batch(1)]).await);
        assert!(text.contains("maxmemory"), "{text}");
        cache.nodes().await.unwrap();
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    cache.keep(generation, &[batch(1)]).await.unwrap();
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("is away").count(), 1, "{log}");
    assert_eq!(log.matches("is back").count(), 1, "{log}");
}

/// What is logged, as text.
fn subscriber(log: &Arc<Mutex<Vec<u8>>>) -> impl tracing::Subscriber + use<> {
    static FOR_ALL: Once = Once::new();
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // Without one for all threads, a line that another test's thread reaches first may stay disabled.
    FOR_ALL.call_once(|| {
        let all = tracing_subscriber::fmt().with_writer(io::sink).finish();
        // Another test's is as good.
        let _ = tracing::subscriber::set_global_default(all);
    });
    let log = log.clone();
    tracing_subscriber::fmt()
        .with_writer(move || Sink(log.clone()))
        .finish()
}

#[tokio::test]
async fn a_replica_is_away_until_it_is_the_master() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.ping().await.unwrap();
    let master = free_port().port().to_string();
    redis.cli(&["REPLICAOF", "127.0.0.1", &master]);
    let text = away(cache.keep(generation, &[batch(1)]).await);
    assert!(text.contains("replica"), "{text}");
    redis.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    comeback_from(&cache, "master").await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    let generation = comeback(&*cache).await;
    cache.keep(generation, &[batch(1)]).await.unwrap();
}

/// Waits until the connection is made again, and the server sends `word` on it.
async fn comeback_from(cache: &Arc<dyn Cache>, word: &str) {
    let start = now();
    while !away(cache.ping().await).contains(word) {
        assert!(start.elapsed() < COMEBACK, "never {word:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_loading_server_is_away() {
    // A tenth of a second for each key, and a look at its clients after each.
    let slow = ["--key-load-delay", "100000"];
    let polite = ["--loading-process-events-interval-bytes", "1024"];
    let large = ["--rdbcompression", "no"];
    let mut redis = Redis::start_with(&[slow, polite, large].concat());
    for number in 0..20 {
        redis.cli(&["SET", &format!("key:{number}"), &"x".repeat(4096)]);
    }
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    let cache = open(&redis.url());
    cache.ping().await.unwrap();
    redis.restart();
    comeback_from(&cache, "loads").await;
    assert_eq!(comeback(&*cache).await, Generation(2));
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_away() {
    let redis = Redis::start_with(&["--maxclients", "1"]);
    let only = TcpStream::connect(redis.address()).unwrap();
    let cache = open(&redis.url());
    let text = away(cache.ping().await);
    assert!(
        text.contains("maxclients") || text.contains("clos") || text.contains("reset"),
        "{text}"
    );
    drop(only);
    comeback(&*cache).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_shown() {
    let redis = Redis::start_locked("the-password");
    let cache = open(&redis.url());
    cache.ping().await.unwrap();
    for url in [
        format!("redis://:hunter2@{}/0", redis.address()),
        format!("redis://user:hunter2@{}/0", redis.address()),
        format!("redis://{}/0", redis.address()),
        // SELECT is refused before anything else is asked.
        format!("redis://{}/3", redis.address()),
        format!("redis://hunter2@{}/0", redis.address()),
    ] {
        let text = broken(open(&url).ping().await);
        assert!(text.contains("password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// The URL of a server whose certificate only [`tls_child`] trusts.
const TLS_URL: &str = "MIKA_TEST_TLS_URL";

#[tokio::test]
async fn certificates_are_checked() {
    let certificate = Certificate::make();
    let redis = Redis::start_with(&certificate.of_redis());
    let url = redis.url();
    let text = away(open(&url).ping().await);
    assert!(text.contains("certificate"), "{text}");
    // Trusted roots come from the environment, which all tests of a process share.
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "cache_redis::tls_child", "--ignored"])
        .env(ROOTS, certificate.path())
        .env(TLS_URL, &url)
        .output()
        .unwrap();
    let has_run = String::from_utf8_lossy(&child.stdout).contains("1 passed");
    assert!(child.status.success() && has_run, "{child:?}");
}

#[tokio::test]
#[ignore = "certificates_are_checked runs it"]
async fn tls_child() {
    // Nothing to do where all ignored tests are run.
    if let Ok(url) = env::var(TLS_URL) {
        open(&url).ping().await.unwrap();
    }
}

#[tokio::test]
async fn an_emptied_server_is_another_generation() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let first = cache.ping().await.unwrap();
    cache.beat(NODE, "1").await.unwrap();
    assert_eq!(cache.ping().await.unwrap(), first, "an epoch began");
    cache.beat(NODE, "2").await.unwrap();
    assert_eq!(cache.ping().await.unwrap(), first);

    redis.cli(&["FLUSHDB"]);
    let second = cache.ping().await.unwrap();
    assert!(second > first);
    cache.beat(NODE, "3").await.unwrap();
    assert_eq!(cache.ping().await.unwrap(), second);
    // Another node may begin the next epoch first.
    redis.cli(&["FLUSHALL"]);
    open(&redis.url()).beat("node-b", "1").await.unwrap();
    let third = cache.ping().await.unwrap();
    assert!(third > second);
    let refused = cache.keep(second, &[batch(1)]).await;
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == third));
}

#[tokio::test]
async fn a_registry_that_was_forgotten_while_it_was_written_is_not_complete() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.begin_epoch().await.unwrap();
    cache
        .put(Rows::Users(&[user(1, "passkey-1")]), Write::Fill)
        .await
        .unwrap();
    redis.cli(&["FLUSHALL"]);
    let mirrored = Mirrored {
        position: 7,
        storage: "site".into(),
        evicted: 0,
    };
    for refused in [
        cache.set_mirrored(generation, mirrored).await,
        cache.set_has_all_peers(generation).await,
    ] {
        assert!(matches!(refused, Err(CacheError::Restarted(it)) if it > generation));
    }
    assert_eq!(cache.mirrored().await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_is_emptied_while_a_mark_is_set_does_not_get_it() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let waits = |command: &str| {
        let is_it = |client: &str| client.contains(" flags=b") && client.contains(command);
        redis.cli(&["CLIENT", "LIST"]).lines().any(is_it)
    };
    let mut marks = VecDeque::from([Mark::Registry, Mark::Peers]);
    while let Some(mark) = marks.pop_front() {
        let generation = cache.begin_epoch().await.unwrap();
        // Reads go on, so nothing speaks against the mark; but it waits behind what empties the server.
        redis.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]);
        let mut flush = TcpStream::connect(redis.address()).unwrap();
        flush.write_all(b"FLUSHALL\r\n").unwrap();
        until("the flush waits", async || waits(" cmd=flushall ")).await;
        let other = Arc::clone(&cache);
        let set = async move { other.set_mark(mark, Some((generation, "text"))).await };
        let setting = tokio::spawn(set);
        let waits = async || waits(" cmd=evalsha ") || waits(" cmd=hset ");
        until("the mark waits", waits).await;
        redis.cli(&["CLIENT", "UNPAUSE"]);
        let mut flushed = [0; 5];
        flush.read_exact(&mut flushed).unwrap();
        assert_eq!(flushed, *b"+OK\r\n");
        let refused = setting.await.unwrap();
        if matches!(refused, Err(CacheError::Away(_))) {
            // The reply came too late: on a machine with much other work.
            marks.push_back(mark);
            continue;
        }
        let is_refused = matches!(refused, Err(CacheError::Restarted(it)) if it > generation);
        assert!(is_refused, "{refused:?}");
        assert_eq!(cache.mark(mark).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_emptied_server_refuses_batches_after_a_gap() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let first = cache.ping().await.unwrap();
    cache.keep(first, &[batch(1), batch(2)]).await.unwrap();
    redis.cli(&["FLUSHALL"]);
    let refused = cache.keep(first, &[batch(3)]).await;
    let second = cache.ping().await.unwrap();
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == second));
    assert!(second > first);
    let all = [batch(1), batch(2), batch(3)];
    cache.keep(second, &all).await.unwrap();
    assert_eq!(
        cache.kept(NODE, 0, 10, Duration::ZERO).await.unwrap().len(),
        3
    );
}

#[tokio::test]
async fn torrents_enter_and_leave_the_sets_of_users() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    redis.cli(&["SADD", "t:u:active:1", "2"]);
    redis.cli(&["SADD", "t:u:hnr:1", "2"]);
    let membership = |torrent, active, hnr| Membership {
        user: UserId(1),
        torrent: TorrentId(torrent),
        active: Some(active),
        incomplete: None,
        complete: Some(true),
        hnr,
    };
    let memberships = [membership(2, false, None), membership(3, true, Some(false))];
    cache.put_memberships(&memberships).await.unwrap();
    for (set, expected) in [
        ("active", "3"),
        ("incomplete", ""),
        ("complete", "2\n3"),
        ("hnr", "2"),
    ] {
        let found = redis.cli(&["SORT", &format!("t:u:{set}:1")]);
        assert_eq!(found, expected, "{set}");
    }
}

#[tokio::test]
async fn settings_and_permissions_are_checked() {
    let redis = Redis::start_with(&AOF);
    let cache = open(&redis.url());
    assert_eq!(cache.check().await.unwrap(), []);
    assert!((cache.time().await.unwrap().unwrap() - now_unix()).abs() < 60);
    assert_eq!(cache.evicted().await.unwrap(), 0);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.cli(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    let findings = cache.check().await.unwrap();
    let is_told = |text: &str, is_note| {
        let found = findings.iter().find(|it| it.problem.contains(text));
        assert_eq!(
            found.map(|it| it.is_note),
            Some(is_note),
            "{text}: {findings:?}"
        );
    };
    is_told("allkeys-lru", false);
    is_told("notify-keyspace-events", true);
    is_told("appendonly", true);

    let generation = cache.ping().await.unwrap();
    cache.set_has_all_peers(generation).await.unwrap();
    let before = redis.cli(&["KEYS", "*"]);
    redis.cli(&[
        "ACL", "SETUSER", "few", "on", ">hunter2", "~t:*", "+@all", "-xtrim", "-sadd", "-config",
    ]);
    let few = open(&format!("redis://few:hunter2@{}/0", redis.address()));
    let mirrored = Mirrored {
        position: 1,
        storage: "site".into(),
        evicted: 0,
    };
    cache.set_mirrored(generation, mirrored).await.unwrap();
    let findings = few.check().await.unwrap();
    let lacks = findings
        .iter()
        .find(|it| it.problem.contains("permissions"));
    let lacks = &lacks.expect("permissions that are missing").problem;
    assert!(lacks.ends_with(": +xtrim +sadd"), "{lacks}");
    assert_eq!(redis.cli(&["KEYS", "*"]), before, "it leaves nothing");
}

fn now_unix() -> i64 {
    mika::base::clock::Clock::start().now().unix
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let redis = Redis::start();
    redis.cli(&[
        "ACL", "SETUSER", "mika", "on", ">hunter2", "~t:*", "+info", "+ping",
    ]);
    let cache = open(&format!("redis://mika:hunter2@{}/0", redis.address()));
    cache.ping().await.unwrap();
    let text = broken(cache.beat(NODE, "1").await);
    assert!(
        text.contains("HSET t:nodes") && text.contains("docs/redis.md"),
        "{text}"
    );
    redis.cli(&["ACL", "SETUSER", "mika", "+hset"]);
    cache.beat(NODE, "1").await.unwrap();
}

#[tokio::test]
async fn invalid_urls_are_refused() {
    let open = CacheDrivers::built_in().get("redis").expect("the driver");
    for url in [
        "",
        "localhost",
        "http://localhost",
        "redis://:hunter2@host/x",
    ] {
        let Err(CacheError::Broken(text)) = open(&Secret::new(url)) else {
            panic!("{url} is accepted");
        };
        assert!(text.contains("redis://user:password@host"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for url in [
        "redis://host",
        "rediss://host:1/2",
        "unix:///x?db=1",
        "redis+unix:///x",
    ] {
        assert!(open(&Secret::new(url)).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_named() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    for (key, call) in [("t:whitelist", 0), ("t:journal:node-a", 1), ("t:u:1", 2)] {
        redis.cli(&["SET", key, "x"]);
        let generation = cache.ping().await.unwrap();
        let text = match call {
            0 => broken(cache.put(Rows::Whitelist(&[]), Write::Edit).await),
            1 => broken(cache.keep(generation, &[batch(1)]).await),
            _ => broken(
                cache
                    .put(Rows::Users(&[user(1, "passkey-1")]), Write::Edit)
                    .await,
            ),
        };
        assert!(text.contains(key), "{text}");
    }
    redis.cli(&["LPUSH", "t:user:passkey-2", "x"]);
    redis.cli(&["HSET", "t:u:2", "passkey", "passkey-2"]);
    let text = broken(cache.remove(&[CacheKey::User(UserId(2))]).await);
    assert!(text.contains("GET t:user:***"), "no passkey: {text}");
}

#[tokio::test]
async fn a_web_application_finds_what_it_reads() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let rows = [user(5, "passkey-5")];
    cache.put(Rows::Users(&rows), Write::Edit).await.unwrap();
    let torrents: Vec<_> = (1..=3).map(torrent).collect();
    let torrents = Rows::Torrents(&torrents);
    cache.put(torrents, Write::Edit).await.unwrap();
    let generation = cache.ping().await.unwrap();
    let keep = async |number, changes: &[Change]| {
        let batch = Batch::new(NODE.into(), number, changes.to_vec());
        cache.keep(generation, &[Arc::new(batch)]).await.unwrap();
    };
    // Leeching the first; seeding the second, which it completed; gone from the third too early.
    let mut seeding = change(5, 2);
    seeding.record.left = Some(0);
    seeding.standing.completed_at = Some(1_800_000_000);
    let mut gone = change(5, 3);
    gone.record.active = false;
    gone.standing.hnr = true;
    let mut credited = Credited::default();
    credited.users.entry(UserId(5)).or_default().up = 60;
    let torrent = InfoHash([2; 20]);
    credited.torrents.entry(torrent).or_default().snatches = 1;
    cache.add_totals(generation, &credited).await.unwrap();
    keep(1, &[change(5, 1), seeding, gone].map(Change::from)).await;
    let members = |set: &str| {
        let members = redis.cli(&["SMEMBERS", &format!("t:u:{set}:5")]);
        let mut members: Vec<String> = members.lines().map(Into::into).collect();
        members.sort();
        members.join(" ")
    };
    assert_eq!(members("active"), "1 2");
    assert_eq!(members("incomplete"), "1");
    assert_eq!(members("complete"), "2");
    assert_eq!(members("hnr"), "3");
    assert_eq!(redis.cli(&["ZSCORE", "t:i:seeders", "1"]), "3");
    assert_eq!(redis.cli(&["ZSCORE", "t:i:leechers", "1"]), "4");
    assert_eq!(redis.cli(&["ZSCORE", "t:i:snatches", "2"]), "1");
    let key = format!("t:t:{torrent}");
    let fields = [
        "info_hash",
        "torrent_id",
        "name",
        "enabled",
        "multi_up",
        "multi_dn",
    ];
    let values = redis.cli(&[&["HMGET", &key], &fields[..]].concat());
    assert_eq!(values, format!("{torrent}\n2\ntorrent 2\n1\n1.5\n1"));
    assert_eq!(redis.cli(&["HGET", &key, "snatches"]), "1");
    assert_eq!(redis.cli(&["HGET", "t:u:5", "uploaded"]), "60");
    assert_eq!(redis.cli(&["GET", "t:user:passkey-5"]), "5");

    let mut stopped = change(5, 1);
    stopped.record.active = false;
    keep(2, &[Change::from(stopped)]).await;
    assert_eq!(
        (members("active"), members("incomplete")),
        ("2".into(), String::new())
    );

    let torrents = [1, 2, 3].map(|byte| CacheKey::Torrent(InfoHash([byte; 20])));
    cache.remove(&torrents).await.unwrap();
    cache.remove(&[CacheKey::User(UserId(5))]).await.unwrap();
    assert_eq!(
        redis.cli(&["KEYS", "*"]),
        "t:journal:node-a",
        "nothing else is left"
    );
}

#[tokio::test]
async fn a_damaged_journal_entry_is_named() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    for entry in [
        &["1-0", "changes", "x"][..],
        &["2-0", "other", "x"],
        &["3-3", "changes", ""],
        &["4-0", "changes", "", "guests", "x"],
    ] {
        redis.cli(&[&["XADD", "t:journal:node-b"], entry].concat());
        let text = broken(cache.kept("node-b", 0, 10, Duration::ZERO).await);
        assert!(
            text.contains("t:journal:node-b") && text.contains(entry[0]),
            "{text}"
        );
        let text = broken(cache.kept("node-b", 0, 10, BOUND).await);
        assert!(text.contains(entry[0]), "{text}");
        redis.cli(&["XDEL", "t:journal:node-b", entry[0]]);
    }
    assert_eq!(
        cache.kept("node-b", 0, 10, Duration::ZERO).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn public_peers_are_packed_once_all_nodes_read_that() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.ping().await.unwrap();
    let snatch = Change::Snatches {
        info_hash: InfoHash([2; 20]),
        count: 1,
    };
    let mut batches = Vec::new();
    for (number, is_read_by_all) in [(1, false), (2, true), (3, false)] {
        let mut next = (*batch(number)).clone();
        next.changes.insert(0, snatch.clone());
        cache.pack_guests(is_read_by_all);
        cache
            .keep(generation, &[Arc::new(next.clone())])
            .await
            .unwrap();
        batches.push(next);
    }
    let kept = cache.kept(NODE, 0, 10, Duration::ZERO).await.unwrap();
    assert_eq!(kept, batches);
    let key = format!("t:journal:{NODE}");
    let entry = |number| redis.cli(&["XRANGE", &key, number, number]);
    assert!(entry("1").contains("guest1") && entry("3").contains("guest1"));
    let packed = entry("2");
    assert!(packed.contains("guests"), "{packed}");
    assert!(!packed.contains("guest1") && packed.contains("snatch1"));
    let peers = cache.peers(&[InfoHash([1; 20])]).await.unwrap();
    assert_eq!(peers[0].1.len(), 1, "the swarm has it as always");
}

#[tokio::test]
async fn asking_for_the_last_batch_does_not_read_it() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
    let generation = cache.ping().await.unwrap();
    let changes = vec![batch(1).changes[0].clone(); 5000];
    let large = Batch::new(NODE.into(), 1, changes);
    cache.keep(generation, &[Arc::new(large)]).await.unwrap();
    let sent = || {
        let stats = redis.cli(&["INFO", "stats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
            .expect("the bytes that Redis sent")
    };
    let before = sent();
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 1);
    let bytes = sent() - before;
    assert!(bytes < 100_000, "{bytes} bytes; the batch has some 600,000");
}

#[tokio::test]
async fn damaged_peers_are_skipped() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let generation = cache.ping().await.unwrap();
    cache.keep(generation, &[batch(1)]).await.unwrap();
    let swarm = format!("t:p:{}", InfoHash([1; 20]));
    for (field, text) in [("x", "1"), ("10.0.0.2:1", "2 x"), ("1:00", "1 2 3")] {
        redis.cli(&["HSET", &swarm, field, text]);
    }
    redis.cli(&["SET", "t:p:x", "not a swarm"]);
    let swarms = cache.peers(&[InfoHash([1; 20])]).await.unwrap();
    assert!(matches!(&swarms[0].1[..], [SharedPeer::Guest { .. }]));
    assert_eq!(cache.swarms(0).await.unwrap().rows, [InfoHash([1; 20])]);
}

#[tokio::test]
async fn rows_written_by_hand_are_read() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let hash = InfoHash([0xab; 20]);
    let key = format!("t:t:{hash}");
    redis.cli(&[
        "HSET",
        &key,
        "torrent_id",
        "3",
        "enabled",
        "false",
        "multi_dn",
        "0.5",
    ]);
    redis.cli(&[
        "HSET",
        &format!("t:t:{}", InfoHash([1; 20])),
        "uploaded",
        "5",
    ]);
    redis.cli(&["HSET", "t:u:7", "passkey", "passkey-7"]);
    redis.cli(&[
        "HSET",
        "t:u:8",
        "passkey",
        "passkey-8",
        "can_leech",
        "maybe",
    ]);
    redis.cli(&["HSET", "t:u:9", "uploaded", "5"]);
    let row = cache.torrent(hash).await.unwrap().unwrap().torrent;
    assert_eq!((row.enabled, row.multi_up), (false, Permille::ONE));
    assert_eq!(row.multi_down, Permille(500));
    assert_eq!(
        cache.torrents(0).await.unwrap().rows.len(),
        1,
        "half a row is none"
    );

    let scan = cache.users(0).await.unwrap();
    assert_eq!(scan.rows.len(), 1);
    assert!(scan.rows[0].user.enabled && scan.rows[0].user.can_leech);
    assert_eq!((scan.bad.len(), scan.bad[0].id.as_str()), (1, "8"));
    let text = broken(cache.user(UserId(8)).await);
    assert!(
        text.contains("t:u:8") && text.contains("can_leech"),
        "{text}"
    );
    assert_eq!(cache.user(UserId(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_former_passkey_is_removed_unless_another_user_has_it() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let put =
        async |users: &[StoredUser]| cache.put(Rows::Users(users), Write::Edit).await.unwrap();
    put(&[user(1, "passkey-a"), user(2, "passkey-b")]).await;
    put(&[user(1, "passkey-c")]).await;
    assert_eq!(redis.cli(&["EXISTS", "t:user:passkey-a"]), "0");
    assert_eq!(redis.cli(&["GET", "t:user:passkey-c"]), "1");
    // They swap.
    put(&[user(1, "passkey-b"), user(2, "passkey-c")]).await;
    assert_eq!(redis.cli(&["GET", "t:user:passkey-b"]), "1");
    assert_eq!(redis.cli(&["GET", "t:user:passkey-c"]), "2");
    put(&[user(1, "passkey-c")]).await;
    put(&[user(2, "passkey-b")]).await;
    assert_eq!(redis.cli(&["GET", "t:user:passkey-b"]), "2");
    assert_eq!(redis.cli(&["GET", "t:user:passkey-c"]), "1");
    cache
        .remove(&[CacheKey::User(UserId(1)), CacheKey::User(UserId(2))])
        .await
        .unwrap();
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn notices_may_be_written_by_hand() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    let position = cache.control_position().await.unwrap();
    redis.cli(&["XADD", "t:control", "*", "kind", "weather", "id", "5"]);
    redis.cli(&["XADD", "t:control", "*", "kind", "user", "id", "5"]);
    redis.cli(&["XADD", "t:control", "*", "kind", "user"]);
    redis.cli(&["XADD", "t:control", "*", "kind", "whitelist"]);
    let (notices, position) = cache.control(Some(&position), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::User(UserId(5)), Notice::Whitelist]);
    redis.cli(&["DEL", "t:control"]);
    let (notices, position) = cache.control(Some(&position), BOUND).await.unwrap();
    assert_eq!(
        notices,
        [Notice::Registry, Notice::Peers],
        "a stream that is gone"
    );
    redis.cli(&["XADD", "t:control", "*", "kind", "registry"]);
    let (notices, _) = cache.control(Some(&position), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::Registry]);
}

#[tokio::test]
async fn the_whitelist_drops_invalid_prefixes() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    redis.cli(&["HSET", "t:whitelist", "", "everybody", "-qB", "qBittorrent"]);
    let client = ClientPrefix {
        prefix: "-qB".into(),
        name: "qBittorrent".into(),
    };
    let clients = [client];
    assert_eq!(cache.whitelist().await.unwrap(), clients);
    cache
        .put(Rows::Whitelist(&clients), Write::Edit)
        .await
        .unwrap();
    assert_eq!(redis.cli(&["HLEN", "t:whitelist"]), "1");
}

/// A node that was silent for a day.
#[tokio::test]
async fn a_node_that_is_gone_is_forgotten_once_storage_has_its_journal() {
    const DAY: u32 = 86_400;
    let redis = Redis::start();
    let cache = open(&redis.url());
    let folder = tempfile::tempdir().unwrap();
    let url = Secret::new(format!(
        "sqlite://{}",
        folder.path().join("mika.db").display()
    ));
    let statements = BTreeMap::new();
    let storage = storage::StorageDrivers::built_in()
        .get("sqlite")
        .expect("the driver")(&StorageConfig::of(&url, "mika", &statements));
    let storage = storage.unwrap();
    storage.migrate().await.unwrap();
    let at = |seconds: u32| Now {
        mono: Seconds(seconds),
        unix: 1_800_000_000 + i64::from(seconds),
    };
    let nodes = async || {
        let nodes = cache.nodes().await.unwrap();
        nodes.into_iter().map(|(node, _)| node).collect::<Vec<_>>()
    };

    let generation = cache.ping().await.unwrap();
    cache.keep(generation, &[batch(1)]).await.unwrap();
    cache.beat(NODE, "sign").await.unwrap();
    let mut replay = Replay::new(cache.clone(), storage.clone(), "node-b".into(), 60);
    for now in [0, DAY - 1] {
        replay.look(at(now), &CreditRules::default()).await.unwrap();
        assert_eq!(nodes().await, [NODE]);
    }
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 1);
    // A node that comes back counts from now on.
    cache.beat(NODE, "another sign").await.unwrap();
    for now in [DAY, 2 * DAY - 1] {
        replay.look(at(now), &CreditRules::default()).await.unwrap();
        assert_eq!(nodes().await, [NODE]);
    }
    // A batch is trimmed from the cache a minute after storage has it, and only then is the name removed.
    cache.keep(generation, &[batch(2)]).await.unwrap();
    replay
        .look(at(2 * DAY), &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 2);
    assert_eq!(nodes().await, [NODE]);
    for (now, left) in [(59, 1), (60, 1), (121, 0)] {
        replay
            .look(at(2 * DAY + now), &CreditRules::default())
            .await
            .unwrap();
        assert_eq!(nodes().await.len(), left, "after {now} seconds");
    }
    // Its number stays: its spill file may turn up.
    assert_eq!(storage.journals().await.unwrap(), [(NODE.to_owned(), 2)]);
    // Once its node has started again, that has been saved, and the journal is forgotten.
    let later = format!("{NODE}#1.0a0b0c0d");
    cache.beat(NODE, "stopped").await.unwrap();
    for now in [0, 601] {
        cache.beat(&later, &format!("sign {now}")).await.unwrap();
        let now = at(3 * DAY + now);
        replay.look(now, &CreditRules::default()).await.unwrap();
    }
    assert_eq!(nodes().await, [later]);
    assert_eq!(storage.journals().await.unwrap(), []);
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
}
