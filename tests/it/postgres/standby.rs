//! A standby that is promoted although it lacks the last changes of the registry.

use std::time::Duration;

use mika::storage::{Feed, FeedPosition};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Fixture, open};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::standby::Pair;
use crate::nodes::pair::knows_user;

/// How long a node may take to follow the registry.
const FOLLOWED: Duration = Duration::from_secs(20);

/// The standby takes over, without what was committed since it was stopped.
fn take_over(pair: &mut Pair) {
    pair.kill_primary();
    pair.start_standby();
    pair.promote();
}

#[tokio::test]
async fn the_feed_of_a_promoted_standby_is_another_one() {
    let mut pair = Pair::start(false);
    pair.database("mika");
    pair.is_level();
    let storage = open(&pair.url_of_both("mika"));
    storage.migrate().await.unwrap();
    pair.sql("mika", super::SITE);
    pair.is_level();
    let start = storage.feed_position().await.unwrap();
    pair.stop_standby();
    pair.sql("mika", "UPDATE users SET enabled = false WHERE id = 7");
    let Feed::Changes(changes, read) = storage.feed(start, 10).await.unwrap() else {
        panic!("the feed is lost");
    };
    assert_eq!(changes.len(), 1);
    take_over(&mut pair);
    // The numbers of what was lost may be given to other changes.
    for is_enabled in [false, true] {
        let sql = format!("UPDATE users SET enabled = {is_enabled} WHERE id = 8");
        pair.sql("mika", &sql);
    }
    for position in [start, read] {
        let found = storage.feed(position, 10).await.unwrap();
        assert!(matches!(found, Feed::Lost), "{found:?}");
    }
    let loaded = storage.feed_position().await.unwrap();
    let found = storage.feed(loaded, 10).await.unwrap();
    assert!(matches!(found, Feed::Changes(..)), "lost again");
}

#[tokio::test]
async fn the_feed_is_followed_without_the_right_to_know_the_timeline() {
    let it = Fixture::new().await;
    it.sql(
        "REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC;
         CREATE ROLE weak LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak",
    );
    let weak = open(&it.server.url("mika").replace("//mika@", "//weak@"));
    let start = weak.feed_position().await.unwrap();
    let known = it.storage.feed_position().await.unwrap();
    assert_eq!(known, FeedPosition(1 << 48 | start.0));
    it.sql("UPDATE users SET enabled = false WHERE id = 7");
    // One that is unknown equals each, such as that of an earlier version.
    for storage in [&weak, &it.storage] {
        for position in [start, known] {
            let found = storage.feed(position, 10).await.unwrap();
            assert!(
                matches!(&found, Feed::Changes(changes, _) if changes.len() == 1),
                "{position:?}: {found:?}"
            );
        }
    }
}

/// A user is banned, and the database forgets it.
fn forgets_a_ban(config: &Value) {
    let mut site = Site::prepare_on(Database::LaggingStandby, 2, &AOF, &json!({}));
    site.mika.reconfigure(config);
    site.mika.run();
    let node = site.mika.http();
    assert!(knows_user(node, &passkey(0)));
    site.database.standby().is_level();
    site.database.standby().stop_standby();
    let ban = |user: usize| {
        let passkey = passkey(user);
        format!("UPDATE users SET enabled = false WHERE passkey = '{passkey}'")
    };
    site.database.sql(&ban(0));
    poll(FOLLOWED, "the ban is followed", || {
        !knows_user(node, &passkey(0))
    });
    // So that it does not see the database before the other change.
    site.mika.signal(Signal::STOP);
    take_over(site.database.standby());
    site.database.sql(&ban(1));
    site.mika.signal(Signal::CONT);
    poll(FOLLOWED, "the ban is forgotten", || {
        knows_user(node, &passkey(0)) && !knows_user(node, &passkey(1))
    });
    assert_eq!(site.mika.stop(), 0);
}

#[test]
fn a_change_that_a_promoted_standby_lacks_is_forgotten() {
    forgets_a_ban(&json!({ "cache": { "driver": "memory", "url": "" } }));
}

#[test]
fn a_change_that_a_promoted_standby_lacks_is_forgotten_by_the_cache() {
    forgets_a_ban(&json!({}));
}
