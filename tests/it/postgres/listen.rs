//! Hearing of edits by plain SQL at once, by LISTEN and NOTIFY.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::Fixture;
use crate::harness::postgres::Postgres;
use crate::harness::{Mika, PROGRAM_DEADLINE, now, poll};
use crate::nodes::pair::knows_user;

/// The process of the server that listens.
const LISTENER: &str = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %'";
/// How soon an edit must be in force: much sooner than the feed is polled.
const HEARD: Duration = Duration::from_secs(10);

/// A tracker whose user `alice` has the passkey `passkey-0`, and that polls only once a minute.
fn tracker() -> (Postgres, Mika) {
    let server = Postgres::start();
    let mut mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "postgres", "url": server.database("site"), "poll_interval": "60s" },
        "tracker": { "whitelist": false },
    }));
    mika.managed(&["migrate"]);
    mika.managed(&["users", "add", "alice", "--passkey", "passkey-0"]);
    mika.run();
    assert!(knows_user(mika.http(), "passkey-0"));
    poll(PROGRAM_DEADLINE, "it listens", || {
        !listener(&server).is_empty()
    });
    (server, mika)
}

fn listener(server: &Postgres) -> String {
    server.sql("site", LISTENER)
}

/// Changes the passkey by plain SQL, and waits until the tracker has it.
fn edit(server: &Postgres, mika: &Mika, from: &str, to: &str) {
    let sql = format!("UPDATE users SET passkey = '{to}' WHERE passkey = '{from}'");
    server.sql("site", &sql);
    poll(HEARD, "the edit is heard of", || {
        knows_user(mika.http(), to)
    });
    assert!(!knows_user(mika.http(), from));
}

#[test]
fn an_edit_is_in_force_at_once() {
    let (server, mut mika) = tracker();
    edit(&server, &mika, "passkey-0", "passkey-1");
    edit(&server, &mika, "passkey-1", "passkey-2");
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_listener_that_was_ended_is_replaced() {
    let (mut server, mut mika) = tracker();
    let former = listener(&server);
    server.sql("site", &format!("SELECT pg_terminate_backend({former})"));
    // Unheard, unless the feed is read again once there is another listener.
    edit(&server, &mika, "passkey-0", "passkey-1");
    let another = || !["", &former].contains(&listener(&server).as_str());
    poll(PROGRAM_DEADLINE, "it listens again", another);
    edit(&server, &mika, "passkey-1", "passkey-2");

    server.kill9();
    server.restart();
    poll(PROGRAM_DEADLINE, "it listens again", || {
        !listener(&server).is_empty()
    });
    edit(&server, &mika, "passkey-2", "passkey-3");
    assert_eq!(mika.stop(), 0);
}

#[tokio::test]
async fn a_burst_of_edits_wakes_a_few_times() {
    let it = Fixture::new().await;
    let changed = || timeout(HEARD, it.storage.feed_changed());
    changed().await.expect("it listens from now on");
    let mut site = it.server.session("mika");
    let start = now();
    site.run(&"UPDATE users SET enabled = NOT enabled WHERE id = 7;\n".repeat(500));
    changed().await.expect("it has heard");
    let mut count = 1;
    while timeout(Duration::from_secs(1), it.storage.feed_changed())
        .await
        .is_ok()
    {
        count += 1;
    }
    let most = start.elapsed().as_millis() / 50 + 1;
    assert!(count <= most, "{count} times, of {most} at most");
}

#[tokio::test]
async fn nobody_listens_without_a_feed() {
    let it = Fixture::new().await;
    let deaf = super::try_open(&it.server.url("mika"), &[("feed", "")]).unwrap();
    let changed = timeout(Duration::from_millis(500), deaf.feed_changed());
    changed.await.expect_err("there is nothing to hear");
    assert_eq!(it.sql(LISTENER), "");
}
