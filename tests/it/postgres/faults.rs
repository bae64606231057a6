//! What a server and its operator can do to Mika's storage.

use std::time::Duration;

use mika::storage::migrate::POSTGRES;
use mika::storage::{CreditRules, Storage, StorageError};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::{Fixture, open, problems, try_open};
use crate::harness::now;
use crate::harness::postgres::Postgres;
use crate::mysql::batch;

/// How long a node may take until it waits for another one.
const WAITS: Duration = Duration::from_secs(30);

#[test]
fn url_errors_do_not_show_the_password() {
    for url in [
        "postgres://mika:hun?ter2=x@localhost/mika",
        "postgres://mika:hunter2@localhost:port/mika",
        "postgres://mika:hunter2@localhost",
        "postgres://mika:hunter2@localhost/mika?sslmode=hunter2",
        "postgres://mika:hunter2@localhost/mika?sslmod=prefer",
    ] {
        let error = try_open(url, &[]).err().expect(url).to_string();
        assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
    }
}

fn is_away(error: &StorageError) -> bool {
    matches!(error, StorageError::Away(_))
}

async fn apply(storage: &dyn Storage, number: u64) -> Result<(), StorageError> {
    let rules = CreditRules::default();
    let applied = storage.apply(&[batch(number, 0..10)], &rules).await;
    applied.map(drop)
}

/// Waits until a node waits for a lock.
async fn waits_for_a_lock(fixture: &Fixture) {
    let waits = async || {
        while fixture.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != "1" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAITS, waits()).await.expect("the node waits");
}

#[tokio::test]
async fn a_deadlock_with_the_site_is_retried() {
    // The server ends the transaction that looks for deadlocks first.
    let it = Fixture::with(&["deadlock_timeout=2s"]).await;
    let mut site = it.server.session("mika");
    site.run("SET deadlock_timeout = '60s'; BEGIN; UPDATE users SET username = 'x' WHERE id = 8;");
    let storage = it.storage.clone();
    let applied = tokio::spawn(async move { apply(&*storage, 1).await });
    waits_for_a_lock(&it).await;
    // The driver has torrent 3 by then.
    let wants = "UPDATE torrents SET release_name = 'x' WHERE id = 3; COMMIT;";
    let site = spawn_blocking(move || site.run(wants));
    applied.await.unwrap().unwrap();
    site.await.unwrap();
    assert!(it.server.log().contains("deadlock detected"));
    assert_eq!((it.uploaded(7).await, it.uploaded(8).await), (5, 5));
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
}

#[tokio::test]
async fn a_lock_of_the_site_is_waited_for_and_then_reported() {
    let it = Fixture::new().await;
    let mut site = it.server.session("mika");
    site.run("BEGIN; UPDATE users SET username = 'x' WHERE id = 8;");
    let error = apply(&*it.storage, 1).await.unwrap_err();
    let text = error.to_string();
    assert!(is_away(&error) && text.contains("locked"), "{text}");
    assert!(text.contains("credit_users"), "{text}");
    let users = it.storage.users(None, 10).await.unwrap();
    assert_eq!(users.rows.len(), 2, "readers go on");
    site.run("ROLLBACK;");
    apply(&*it.storage, 1).await.unwrap();
    assert_eq!(it.uploaded(8).await, 5);
}

#[tokio::test]
async fn a_restarted_server_is_reconnected_to() {
    let mut it = Fixture::new().await;
    for number in 1..=4 {
        apply(&*it.storage, number).await.unwrap();
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
async fn a_silent_server_times_out() {
    let it = Fixture::new().await;
    apply(&*it.storage, 1).await.unwrap();
    it.server.pause();
    let start = now();
    let (read, write) = tokio::join!(it.storage.users(None, 10), apply(&*it.storage, 2));
    let took = start.elapsed();
    it.server.resume();
    assert!(took < Duration::from_secs(25), "{took:?}");
    let (read, write) = (read.unwrap_err(), write.unwrap_err());
    assert!(
        is_away(&read) && read.to_string().contains("did not answer"),
        "{read}"
    );
    assert!(is_away(&write), "{write}");
    apply(&*it.storage, 2).await.unwrap();
    assert_eq!(it.uploaded(7).await, 10);
}

#[tokio::test]
async fn a_server_without_room_is_away() {
    let options = ["max_connections=10", "superuser_reserved_connections=3"];
    let it = Fixture::with(&options).await;
    it.sql("CREATE ROLE site LOGIN");
    let other = open(&it.server.url("mika").replace("//mika@", "//site@"));
    // The driver has one connection; the site takes the others. An administrator has three beyond these.
    it.storage.last_applied("a").await.unwrap();
    let clients = [(); 6].map(|()| {
        let mut client = it.server.session("mika");
        client.run("SELECT 1;");
        client
    });
    let error = other.last_applied("a").await.unwrap_err();
    assert!(is_away(&error), "{error}");
    let text = error.to_string();
    assert!(text.contains("too many connections"), "{text}");
    it.storage.last_applied("a").await.unwrap();
    drop(clients);
}

#[tokio::test]
async fn concurrent_migrations_exclude_each_other() {
    let server = Postgres::start();
    let url = server.database("mika");
    let several = [(); 4].map(|()| {
        let storage = open(&url);
        tokio::spawn(async move { storage.migrate().await.unwrap().len() })
    });
    let mut applied = 0;
    for one in several {
        applied += one.await.unwrap();
    }
    assert_eq!(applied, POSTGRES.len());
}

#[tokio::test]
async fn a_batch_counts_once_though_the_server_was_killed() {
    let mut it = Fixture::new().await;
    let rules = CreditRules::default();
    it.storage.apply(&[batch(1, 0..10)], &rules).await.unwrap();
    assert_eq!(it.uploaded(7).await, 5);
    it.server.kill9();
    let away = it.storage.apply(&[batch(2, 0..10)], &rules).await;
    assert!(matches!(away, Err(StorageError::Away(_))), "{away:?}");
    it.server.restart();
    it.storage.apply(&[batch(2, 0..10)], &rules).await.unwrap();
    it.storage.apply(&[batch(2, 0..10)], &rules).await.unwrap();
    assert_eq!(it.uploaded(7).await, 10);
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 2);
}

#[tokio::test]
async fn a_connection_that_an_administrator_ended_is_replaced() {
    let it = Fixture::new().await;
    let rules = CreditRules::default();
    for number in 1..4 {
        it.storage
            .apply(&[batch(number, 0..10)], &rules)
            .await
            .unwrap();
        it.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND datname = 'mika'",
        );
    }
    assert_eq!(it.uploaded(7).await, 15);
}

#[tokio::test]
async fn a_transaction_of_the_site_that_holds_a_row_is_waited_for() {
    let it = Fixture::new().await;
    let mut site = it.server.session("mika");
    site.run("BEGIN; UPDATE users SET username = 'x' WHERE id = 7;");
    let storage = it.storage.clone();
    let apply = tokio::spawn(async move {
        let rules = CreditRules::default();
        storage.apply(&[batch(1, 0..10)], &rules).await
    });
    // It waits for the row by now, or will.
    site.run("SELECT pg_sleep(0.3); COMMIT;");
    apply.await.unwrap().unwrap();
    assert_eq!(it.uploaded(7).await, 5);
}

/// A transaction of another node that inserts a peer of `batch`: one of user 7 on torrent 3.
fn insert_peer(peer: u32) -> String {
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared(1835625313, hashtext('apply.public'));
         INSERT INTO peers (user_id, torrent_id, peer_id, base_up, base_down, base_at, uploaded, downloaded,
             speed_up, speed_down, seed_time, announces, first_announce, last_announce, active, paused)
         VALUES (7, 3, decode('{peer:08x}' || repeat('00', 16), 'hex'), 0, 0, 0, 0, 0,
             0, 0, 0, 1, 0, 0, true, false);"
    )
}

#[tokio::test]
async fn a_node_whose_new_peers_others_insert_one_by_one_gets_its_turn() {
    const PEERS: u32 = 12;
    let it = Fixture::new().await;
    let others: Vec<_> = (0..PEERS)
        .step_by(2)
        .map(|peer| {
            let mut other = it.server.session("mika");
            other.run(&insert_peer(peer));
            other
        })
        .collect();
    let storage = it.storage.clone();
    let apply = tokio::spawn(async move {
        let rules = CreditRules::default();
        storage.apply(&[batch(1, 0..PEERS)], &rules).await
    });
    for mut other in others {
        // It waits for one of them after the other, unless it excludes them.
        waits_for_a_lock(&it).await;
        other.run("COMMIT;");
    }
    apply.await.unwrap().unwrap();
    let uploaded = it.uploaded(7).await + it.uploaded(8).await;
    assert_eq!(uploaded, u64::from(PEERS));
}

#[tokio::test]
async fn a_row_that_the_site_refuses_does_not_hold_up_the_others() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE users ADD CHECK (id <> 7 OR uploaded < 3)");
    it.storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!((it.uploaded(7).await, it.uploaded(8).await), (0, 5));
}

#[tokio::test]
async fn a_missing_column_and_a_missing_table_are_named() {
    let it = Fixture::new().await;
    assert_eq!(problems(&*it.storage).await, "");
    it.sql("ALTER TABLE users DROP COLUMN can_leech CASCADE");
    let found = problems(&*it.storage).await;
    assert!(found.contains("can_leech"), "{found}");
    it.sql("DROP TABLE history");
    let found = problems(&*it.storage).await;
    assert!(found.contains("history"), "{found}");
}

#[tokio::test]
async fn triggers_that_are_lost_are_found_and_made_again() {
    let it = Fixture::new().await;
    it.sql("DROP TRIGGER mika_users_update ON users");
    let found = problems(&*it.storage).await;
    assert!(found.contains("mika_users_update"), "{found}");
    let done = it.storage.migrate().await.unwrap();
    assert_eq!(done, ["trigger mika_users_update"]);
    assert_eq!(problems(&*it.storage).await, "");
}

#[tokio::test]
async fn an_account_without_privileges_is_told_what_it_lacks() {
    let it = Fixture::new().await;
    it.sql("CREATE ROLE weak LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak");
    let url = it.server.url("mika").replace("//mika@", "//weak@");
    let found = problems(&*open(&url)).await;
    assert!(found.contains("INSERT"), "{found}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_away() {
    let mut server = Postgres::start();
    let storage = open(&server.database("mika"));
    server.stop();
    let error = storage.migrate().await.unwrap_err();
    assert!(matches!(error, StorageError::Away(_)), "{error}");
    let url = server.url("nowhere");
    server.restart();
    let error = open(&url).migrate().await.unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[tokio::test]
async fn one_daemon_claims_a_database() {
    let it = Fixture::new().await;
    let other = open(&it.server.url("mika"));
    let claim = it.storage.claim().await.unwrap();
    let error = other.claim().await.unwrap_err().to_string();
    assert!(error.contains("in use by another mika"), "{error}");
    drop(claim);
    let _claim = other.claim().await.unwrap();
}
