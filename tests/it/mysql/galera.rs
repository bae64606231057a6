//! A Galera cluster of three nodes as storage.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mika::base::ids::UserId;
use mika::registry::RowChange;
use mika::storage::{CreditRules, Feed, Storage, contract};

use super::{SITE, batch, eventually, open, problems};
use crate::harness::galera::{Galera, NODES};
use crate::harness::poll;

/// How long a statement of the site may be refused.
const DONE: Duration = Duration::from_secs(60);

/// Whether a node takes a statement of the site.
fn runs(node: SocketAddr, sql: &str) -> bool {
    let status = Command::new("mariadb")
        .args(["--no-defaults", "--user=root", "--host=127.0.0.1", "mika"])
        .arg(format!("--port={}", node.port()))
        .arg(format!("--execute={sql}"))
        .status();
    status.expect("mariadb starts").success()
}

fn url(cluster: &Galera, database: &str) -> String {
    let nodes: Vec<String> = cluster
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    format!("mysql://root@{}/{database}", nodes.join(","))
}

/// A cluster with the migrated database `mika` and a site's rows.
async fn prepare() -> (Galera, Arc<dyn Storage>) {
    let cluster = Galera::start();
    cluster.database("mika");
    let storage = open(&url(&cluster, "mika"), "mika");
    storage.migrate().await.unwrap();
    cluster.sql(&format!("USE mika; {SITE}"));
    (cluster, storage)
}

async fn uploaded(storage: &dyn Storage) -> u64 {
    let user = storage.user(UserId(7)).await.unwrap().unwrap();
    user.totals.uploaded
}

#[tokio::test]
async fn keeps_the_contract() {
    // Without steps in its numbers, each change is in the feed once.
    let cluster = Galera::start_with(&["--wsrep-auto-increment-control=OFF"]);
    let count = Cell::new(0);
    contract::run(|| {
        count.set(count.get() + 1);
        let name = format!("own{}", count.get());
        cluster.database(&name);
        let url = url(&cluster, &name);
        async move { open(&url, "mika") }
    })
    .await;
}

#[tokio::test]
async fn batches_count_once_whichever_node_is_lost() {
    let (mut cluster, storage) = prepare().await;
    let rules = CreditRules::default();
    assert_eq!(problems(&*storage).await, "");
    let claim = storage.claim().await.unwrap();
    for place in 0..NODES {
        let number = place as u64 + 1;
        storage
            .apply(&[batch(number, 0..10)], &rules)
            .await
            .unwrap();
        cluster.kill(place);
        // The others take nothing until they agree on who is left.
        eventually(async || storage.apply(&[batch(number, 0..10)], &rules).await).await;
        assert_eq!(uploaded(&*storage).await, number * 5);
        // A batch that was applied is only read, so it may be answered before the node is missed.
        eventually(async || {
            let found = problems(&*storage).await;
            let parts = ["has 2 of the 3 members", "could not take over now"];
            let is_noticed = parts.iter().all(|part| found.contains(part));
            is_noticed.then_some(()).ok_or(found)
        })
        .await;
        cluster.rejoin();
    }
    // Another daemon is refused, whichever node it would write to.
    let mut nodes = cluster.addresses();
    nodes.reverse();
    for node in nodes {
        let second = open(&format!("mysql://root@{node}/mika"), "mika");
        eventually(async || {
            let refused = second.claim().await.err();
            refused
                .filter(|error| error.to_string().contains("in use by another mika"))
                .ok_or(())
        })
        .await;
    }
    drop(claim);
}

#[tokio::test]
async fn a_site_may_write_to_another_node_than_mika() {
    let (cluster, storage) = prepare().await;
    let before = storage.feed_position().await.unwrap();
    let bonus = 20;
    let rules = CreditRules::default();
    let other = cluster.addresses()[1];
    let site = thread::spawn(move || {
        let mut statements = vec!["UPDATE users SET uploaded = uploaded + 100 WHERE id = 7"; bonus];
        statements.push("UPDATE users SET username = 'new' WHERE id = 8");
        for statement in statements {
            // It may be refused, too, when it conflicts with a batch.
            poll(DONE, statement, || runs(other, statement));
        }
    });
    for number in 1..=50 {
        eventually(async || storage.apply(&[batch(number, 0..10)], &rules).await).await;
    }
    site.join().unwrap();
    assert_eq!(uploaded(&*storage).await, 50 * 5 + bonus as u64 * 100);
    let Feed::Changes(changes, _) = storage.feed(before, 1000).await.unwrap() else {
        panic!("the feed has lost changes");
    };
    let is_new = |change: &RowChange| matches!(change, RowChange::User(row) if row.user.id == UserId(8) && row.user.username == "new");
    assert!(changes.iter().any(is_new), "{changes:?}");
    // Numbers of the other nodes that nobody takes do not stop it.
    let newest: u64 = cluster
        .sql("SELECT MAX(seq) FROM mika.mika_feed")
        .parse()
        .unwrap();
    eventually(async || {
        let position = storage.feed_position().await.unwrap();
        (position.0 >= newest).then_some(()).ok_or(position)
    })
    .await;
}
