//! A URL with several servers, of which one takes writes.

use super::{eventually, open, problems};
use crate::harness::mariadb::MariaDb;

/// A server with a migrated database of its own, and the identity of that.
async fn server() -> (MariaDb, String) {
    let server = MariaDb::start();
    let storage = open(&server.database("mika"), "mika");
    storage.migrate().await.unwrap();
    let identity = storage.identity().await.unwrap();
    (server, identity)
}

fn url(servers: [&MariaDb; 2]) -> String {
    let [a, b] = servers.map(MariaDb::address);
    format!("mysql://root@{a},{b}/mika")
}

#[tokio::test]
async fn the_server_that_takes_writes_is_used_until_it_is_lost() {
    let ((mut a, id_a), (mut b, id_b)) = (server().await, server().await);
    a.sql("SET GLOBAL read_only = 1");
    let storage = open(&url([&a, &b]), "mika");
    let used = async || storage.identity().await.unwrap();
    assert_eq!(used().await, id_b);
    assert_eq!(problems(&*storage).await, "");

    b.kill9();
    let error = storage.identity().await.unwrap_err().to_string();
    assert!(
        error.contains("no server takes writes now") || error.contains("can't be reached"),
        "{error}"
    );
    a.sql("SET GLOBAL read_only = 0");
    assert_eq!(used().await, id_a);
    let found = problems(&*storage).await;
    let said = format!(
        "the server {} of storage.url could not take over now",
        b.address()
    );
    assert!(found.contains(&said), "{found}");

    // One that comes back does not take over, also if the other one ended all connections.
    b.restart();
    a.stop();
    a.restart();
    assert_eq!(used().await, id_a);
}

#[tokio::test]
async fn a_server_that_became_read_only_is_left() {
    let ((a, id_a), (b, id_b)) = (server().await, server().await);
    for server in [&a, &b] {
        server.sql("CREATE USER site IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO site");
    }
    let storage = open(&url([&a, &b]).replace("root", "site:p"), "mika");
    assert_eq!(storage.identity().await.unwrap(), id_a);
    a.sql("SET GLOBAL read_only = 1");
    let error = storage.begin_at("a", 1).await.unwrap_err().to_string();
    assert!(error.contains("is read-only now"), "{error}");
    storage.begin_at("a", 1).await.unwrap();
    assert_eq!(storage.identity().await.unwrap(), id_b);
}

#[tokio::test]
async fn a_database_is_claimed_on_each_server_that_can_be_reached() {
    let ((a, id), (mut b, _)) = (server().await, server().await);
    b.stop();
    let storage = open(&url([&a, &b]), "mika");
    let claim = storage.claim().await.unwrap();
    let is_claimed = async |server: &MariaDb, wanted: &str| {
        let found = server.sql(&format!("SELECT IS_USED_LOCK('mika.{id}') IS NOT NULL"));
        if found == wanted { Ok(()) } else { Err(found) }
    };
    is_claimed(&a, "1").await.unwrap();
    b.restart();
    eventually(async || is_claimed(&b, "1").await).await;
    drop(claim);
    for server in [&a, &b] {
        eventually(async || is_claimed(server, "0").await).await;
    }
}
