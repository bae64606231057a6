//! Failures of servers, and other clients of theirs.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use mika::storage::migrate::MYSQL;
use mika::storage::{CreditRules, Storage, StorageError};

use super::{Fixture, batch, open, problems, try_open};
use crate::harness::mariadb::MariaDb;
use crate::harness::{now, poll};

/// A second client that keeps a transaction open. It ends with its input.
struct Client {
    process: Child,
}

impl Client {
    fn begin(fixture: &Fixture, sql: &str) -> Self {
        let mut client = fixture.server.client();
        let mut process = client.stdin(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.as_mut().unwrap();
        writeln!(
            input,
            "USE mika; START TRANSACTION; {sql} DO GET_LOCK('begun', 0);"
        )
        .unwrap();
        poll(Duration::from_secs(10), "the transaction has begun", || {
            fixture.sql("SELECT IS_FREE_LOCK('begun')") == "0"
        });
        Self { process }
    }

    fn also(&mut self, sql: &str) {
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{sql}").unwrap();
    }

    fn end(mut self, sql: &str) {
        self.also(sql);
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_away(error: &StorageError) -> bool {
    matches!(error, StorageError::Away(_))
}

#[tokio::test]
async fn a_deadlock_with_the_site_is_retried() {
    let it = Fixture::new().await;
    // The site has user 8 and then wants torrent 3, which the driver has by then. The weight of
    // its transaction makes InnoDB end the driver's.
    let filler = "UPDATE users SET username = 'x' WHERE id = 8; \
        CREATE TEMPORARY TABLE heavy (i INT) ENGINE = InnoDB; \
        INSERT INTO heavy SELECT seq FROM seq_1_to_20000;";
    let mut site = Client::begin(&it, filler);
    let storage = it.storage.clone();
    let apply = tokio::spawn(async move {
        storage
            .apply(&[batch(1, 0..100)], &CreditRules::default())
            .await
    });
    let waits = "SELECT COUNT(*) FROM information_schema.innodb_lock_waits";
    let is_waiting = || it.sql(waits) != "0";
    tokio::task::yield_now().await;
    let deadline = now() + Duration::from_secs(10);
    while !is_waiting() {
        assert!(now() < deadline, "the driver waits for user 8");
        // InnoDB renews that table only after 100 ms without a read.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    site.also("UPDATE torrents SET release_name = 'x' WHERE id = 3;");
    site.end("COMMIT;");
    apply.await.unwrap().unwrap();
    assert_eq!((it.uploaded(7).await, it.uploaded(8).await), (50, 50));
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
}

#[tokio::test]
async fn a_lock_of_the_site_is_waited_for_and_then_reported() {
    let it = Fixture::new().await;
    let site = Client::begin(&it, "UPDATE users SET username = 'x' WHERE id = 8;");
    let error = it
        .storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(is_away(&error) && text.contains("locked"), "{text}");
    assert!(text.contains("credit_users"), "{text}");
    assert_eq!(
        it.storage.users(None, 10).await.unwrap().rows.len(),
        2,
        "readers go on"
    );
    site.end("ROLLBACK;");
    it.storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(it.uploaded(8).await, 5);
}

#[tokio::test]
async fn a_restarted_server_is_reconnected_to() {
    let mut it = Fixture::new().await;
    for number in 1..=4 {
        it.storage
            .apply(&[batch(number, 0..10)], &CreditRules::default())
            .await
            .unwrap();
        if number % 2 == 0 {
            it.server.stop();
        } else {
            it.server.kill9();
        }
        let error = it.storage.last_applied("a").await.unwrap_err();
        assert!(is_away(&error), "{error}");
        it.server.restart();
        assert_eq!(it.storage.last_applied("a").await.unwrap(), number);
    }
    assert_eq!(it.uploaded(7).await, 20);
}

#[tokio::test]
async fn a_batch_counts_once_whenever_the_server_is_killed() {
    let mut it = Fixture::new().await;
    let mut expected = 0;
    for (number, delay) in (1..).zip([1, 5, 10, 20, 40, 80, 160]) {
        let storage = it.storage.clone();
        let apply = tokio::spawn(async move {
            storage
                .apply(&[batch(number, 0..2000)], &CreditRules::default())
                .await
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        it.server.kill9();
        let first = apply.await.unwrap();
        it.server.restart();
        assert!(first.as_ref().err().is_none_or(is_away), "{first:?}");
        it.storage
            .apply(&[batch(number, 0..2000)], &CreditRules::default())
            .await
            .unwrap();
        expected += 1000;
        assert_eq!(
            (it.uploaded(7).await, it.uploaded(8).await),
            (expected, expected)
        );
    }
}

#[tokio::test]
async fn cut_connections_lose_nothing() {
    let it = Fixture::new().await;
    let others = "SELECT GROUP_CONCAT('KILL ', id SEPARATOR '; ') FROM information_schema.processlist \
        WHERE id <> CONNECTION_ID() AND db = 'mika'";
    for number in 1..=3 {
        it.storage
            .apply(&[batch(number, 0..10)], &CreditRules::default())
            .await
            .unwrap();
        let kill = it.sql(others);
        it.sql(&kill);
        assert_eq!(it.uploaded(7).await, 5 * number);
    }
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let it = Fixture::new().await;
    it.storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    it.server.pause();
    let start = now();
    let (read, write) = tokio::join!(it.storage.users(None, 10), apply(&*it.storage, 2));
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
    let (read, write) = (read.unwrap_err(), write.unwrap_err());
    assert!(
        is_away(&read) && read.to_string().contains("did not answer"),
        "{read}"
    );
    assert!(is_away(&write), "{write}");
    it.server.resume();
    it.storage
        .apply(&[batch(2, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(it.uploaded(7).await, 10);
}

#[tokio::test]
async fn a_server_without_room_is_away() {
    let it = Fixture::with(&["--max-connections=10"]).await;
    let url = it.server.url("mika");
    it.server
        .sql("CREATE USER site IDENTIFIED BY ''; GRANT ALL ON mika.* TO site");
    let other = open(&url.replace("root", "site"), "mika");
    // The driver has one connection; the site takes the others.
    it.storage.last_applied("a").await.unwrap();
    let clients = [(); 9].map(|()| {
        let mut client = it.server.client();
        client.stdin(Stdio::piped()).stdout(Stdio::null());
        client.spawn().unwrap()
    });
    // An administrator has a connection beyond these.
    let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE command <> 'Daemon'";
    poll(
        Duration::from_secs(10),
        "the site takes its connections",
        || it.server.sql(count) == "11",
    );
    let error = other.last_applied("a").await.unwrap_err();
    assert!(is_away(&error), "{error}");
    assert!(
        error.to_string().contains("too many connections"),
        "{error}"
    );
    it.storage.last_applied("a").await.unwrap();
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[tokio::test]
async fn url_errors_do_not_show_the_password() {
    let server = MariaDb::start();
    server.sql("CREATE USER it IDENTIFIED BY 'secret'; CREATE DATABASE mika");
    let address = server.address();
    let cases = [
        (
            format!("mysql://it:wrong-secret@{address}/mika"),
            "Access denied",
        ),
        (format!("mysql://it:secret@{address}/mika"), "Access denied"),
        (
            format!("mysql://root@{address}/nothing"),
            "Unknown database 'nothing'",
        ),
        (
            format!("mysql://root:secret@{address}/mika?require_ssl=true"),
            "TLS",
        ),
    ];
    for (url, expected) in cases {
        let error = open(&url, "mika").migrations().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StorageError::Broken(_)), "{text}");
        assert!(
            text.contains(expected) && !text.contains("secret"),
            "{text}"
        );
    }
    for url in [
        "mysql://host",
        "postgres://host/db",
        "mysql://user:pa#secret@host/db",
        "mysql://user:secret@host/db?require_tls=true",
        "nothing",
    ] {
        let error = try_open(url, "mika", &[]).err().unwrap().to_string();
        assert!(
            error.contains("mysql://") && !error.contains("secret"),
            "{error}"
        );
    }
    let unreachable = open("mysql://root@127.0.0.1:1/mika", "mika");
    assert!(is_away(&unreachable.migrations().await.unwrap_err()));
}

#[tokio::test]
async fn a_missing_trigger_privilege_is_reported_with_the_grant() {
    let server = MariaDb::start();
    server.sql(
        "CREATE DATABASE mika; CREATE USER it IDENTIFIED BY 'secret';
         GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER ON mika.* TO it",
    );
    let storage = open(
        &format!("mysql://it:secret@{}/mika", server.address()),
        "mika",
    );
    let error = storage.migrate().await.unwrap_err().to_string();
    assert!(
        error.contains("GRANT TRIGGER ON `mika`.* TO 'it'@'%'; and then mika-manage migrate"),
        "{error}"
    );
    // An interrupted migration continues.
    server.sql("GRANT TRIGGER ON mika.* TO it");
    assert_eq!(storage.migrate().await.unwrap().len(), MYSQL.len());
    assert_eq!(problems(&*storage).await, "");
}

#[tokio::test]
async fn a_statement_binlog_is_reported() {
    let server = MariaDb::start_with(&["--log-bin", "--binlog-format=STATEMENT"]);
    server.sql(
        "CREATE DATABASE mika; CREATE USER it IDENTIFIED BY 'secret'; GRANT ALL ON mika.* TO it",
    );
    let storage = open(
        &format!("mysql://it:secret@{}/mika", server.address()),
        "mika",
    );
    let error = storage.migrate().await.unwrap_err().to_string();
    assert!(error.contains("binlog_format"), "{error}");
    let found = problems(&*storage).await;
    assert!(found.contains("binlog_format is STATEMENT"), "{found}");
    server.sql("SET GLOBAL binlog_format = MIXED");
    // An old connection has the old format, and is replaced.
    let error = storage.migrate().await.unwrap_err().to_string();
    assert!(
        error.contains("log_bin_trust_function_creators = 1, then mika-manage migrate again"),
        "{error}"
    );
    server.sql("SET GLOBAL log_bin_trust_function_creators = 1");
    storage.migrate().await.unwrap();
    storage
        .apply(&[batch(1, 0..1)], &CreditRules::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn concurrent_migrations_exclude_each_other() {
    let server = MariaDb::start();
    let url = server.database("mika");
    let several = [(); 4].map(|()| {
        let storage = open(&url, "mika");
        tokio::spawn(async move { storage.migrate().await.unwrap().len() })
    });
    let mut applied = 0;
    for one in several {
        applied += one.await.unwrap();
    }
    assert_eq!(applied, MYSQL.len());
}

async fn apply(storage: &dyn Storage, number: u64) -> Result<(), StorageError> {
    storage
        .apply(&[batch(number, 0..10)], &CreditRules::default())
        .await
        .map(drop)
}
