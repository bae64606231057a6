//! Servers that may lose confirmed writes.

use std::time::Duration;

use mika::storage::{Finding, Severity};

use super::open;
use super::setups::server_with;
use crate::harness::mariadb::MariaDb;
use crate::harness::poll;

/// How long a replica may take to connect.
const CONNECTED: Duration = Duration::from_secs(30);

fn the_only_one(findings: &[Finding], what: &str) {
    assert!(findings.len() == 1, "{findings:#?}");
    assert!(findings[0].problem.contains(what), "{findings:#?}");
    assert_eq!(findings[0].severity, Severity::Note);
}

#[tokio::test]
async fn settings_that_lose_confirmed_writes_are_noted() {
    let (server, url) = server_with(&["--log-bin", "--sync-binlog=1"]);
    server.sql("SET GLOBAL log_bin_trust_function_creators = 1");
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    let found = async || storage.durability().await.unwrap();
    assert_eq!(found().await, []);
    for (flush, crash) in [(0, "a crash of the server"), (2, "a crash of its host")] {
        server.sql(&format!(
            "SET GLOBAL innodb_flush_log_at_trx_commit = {flush}"
        ));
        let found = found().await;
        the_only_one(
            &found,
            &format!("innodb_flush_log_at_trx_commit is {flush}: {crash}"),
        );
        assert!(found[0].hint.contains("= 1"));
    }
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 100");
    the_only_one(&found().await, "sync_binlog is 100");
    let checked = storage.check().await.unwrap();
    the_only_one(&checked, "sync_binlog is 100");
}

#[tokio::test]
async fn sync_binlog_does_not_matter_without_a_binary_log() {
    let (_server, url) = server_with(&["--sync-binlog=0"]);
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    assert_eq!(storage.durability().await.unwrap(), []);
}

#[tokio::test]
async fn a_replica_that_lags_is_noted_unless_the_server_waits_for_it() {
    let (primary, url) = server_with(&["--log-bin", "--sync-binlog=1", "--server-id=1"]);
    primary.sql(
        "SET GLOBAL log_bin_trust_function_creators = 1;
         CREATE USER copy IDENTIFIED BY 'p'; GRANT REPLICATION SLAVE ON *.* TO copy",
    );
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    let replica = MariaDb::start_with(&["--server-id=2"]);
    let port = primary.address().port();
    replica.sql(&format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'copy',
             MASTER_PASSWORD = 'p', MASTER_LOG_FILE = '', MASTER_USE_GTID = slave_pos;
         START SLAVE"
    ));
    let is_connected = || {
        let status = primary.sql("SHOW GLOBAL STATUS LIKE 'Slaves_connected'");
        status.ends_with('1')
    };
    poll(CONNECTED, "the replica connects", is_connected);
    the_only_one(
        &storage.durability().await.unwrap(),
        "1 replica follows asynchronously",
    );

    primary.sql("SET GLOBAL rpl_semi_sync_master_enabled = 1");
    replica.sql("STOP SLAVE; SET GLOBAL rpl_semi_sync_slave_enabled = 1; START SLAVE");
    poll(CONNECTED, "the server waits for it", || {
        let clients = primary.sql("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'");
        clients.ends_with('1') && is_connected()
    });
    assert_eq!(storage.durability().await.unwrap(), []);
}
