//! Following changes while transactions overlap.

use mika::registry::RowChange;
use mika::storage::{CreditRules, Feed, FeedPosition};

use super::Fixture;
use crate::mysql::batch;

async fn feed(fixture: &Fixture, after: FeedPosition) -> (Vec<u32>, FeedPosition) {
    let Feed::Changes(changes, reached) = fixture.storage.feed(after, 100).await.unwrap() else {
        panic!("lost");
    };
    let user = |change| match change {
        RowChange::User(row) => row.user.id.0,
        RowChange::UserGone(id) => id.0,
        other => panic!("{other:?}"),
    };
    (changes.into_iter().map(user).collect(), reached)
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_missed() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    let mut late = it.server.session("mika");
    late.run("BEGIN; UPDATE users SET enabled = false WHERE id = 7;");
    it.sql("UPDATE users SET enabled = false WHERE id = 8");
    let (changed, reached) = feed(&it, start).await;
    assert_eq!(
        (changed, reached),
        (vec![8], start),
        "reported at once, and remembered"
    );
    assert!(it.storage.feed_position().await.unwrap() <= start);
    // However long it takes.
    it.sql("UPDATE mika_feed SET noted_at = noted_at - interval '1 hour'");
    assert_eq!(feed(&it, start).await.1, start);
    late.run("COMMIT;");
    let (changed, reached) = feed(&it, start).await;
    assert_eq!(changed, [7, 8]);
    assert_eq!(reached, it.storage.feed_position().await.unwrap());
    assert_eq!(feed(&it, reached).await, (vec![], reached));
}

#[tokio::test]
async fn a_rolled_back_transaction_delays_the_feed_only_briefly() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    it.sql("BEGIN; UPDATE users SET enabled = false WHERE id = 7; ROLLBACK");
    it.sql("UPDATE users SET enabled = false WHERE id = 8");
    it.sql("UPDATE mika_feed SET noted_at = noted_at - interval '10 seconds'");
    let (changed, reached) = feed(&it, start).await;
    assert_eq!((changed, reached), (vec![8], FeedPosition(start.0 + 2)));
}

/// A position on the timeline of a new server, which is the first.
fn position(number: u64) -> FeedPosition {
    FeedPosition(1 << 48 | number)
}

/// SQL that adds a user.
fn add(user: u32) -> String {
    format!("INSERT INTO users (id, passkey, username) VALUES ({user}, 'passkey-{user}', 'x');")
}

#[tokio::test]
async fn the_first_transaction_of_a_feed_may_be_open_or_rolled_back() {
    for end in ["COMMIT;", "ROLLBACK;"] {
        let it = Fixture::empty(&[]).await;
        let start = it.storage.feed_position().await.unwrap();
        assert_eq!(start, position(0));
        let mut late = it.server.session("mika");
        late.run(&format!("BEGIN; {}", add(7)));
        it.sql(&add(8));
        assert_eq!(feed(&it, start).await, (vec![8], start));
        late.run(end);
        let is_there = end == "COMMIT;";
        let changed = if is_there { vec![7, 8] } else { vec![8] };
        assert_eq!(feed(&it, start).await.0, changed);
        it.sql("UPDATE mika_feed SET noted_at = noted_at - interval '10 seconds'");
        assert_eq!(feed(&it, start).await, (changed, position(2)));
    }
}

#[tokio::test]
async fn a_feed_that_somebody_emptied_is_followed_again_after_one_load() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    it.sql("TRUNCATE mika_feed; ALTER TABLE mika_feed ALTER seq RESTART WITH 50000");
    it.sql("UPDATE users SET enabled = false WHERE id = 8");
    let lost = it.storage.feed(start, 100).await.unwrap();
    assert!(matches!(lost, Feed::Lost), "{lost:?}");
    let loaded = it.storage.feed_position().await.unwrap();
    assert_eq!(feed(&it, loaded).await, (vec![8], loaded), "a young gap");
    it.sql("UPDATE mika_feed SET noted_at = noted_at - interval '10 seconds'");
    assert_eq!(feed(&it, loaded).await.1, position(50_000));
}

#[tokio::test]
async fn changed_totals_are_not_in_the_feed() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    it.sql("UPDATE users SET uploaded = 5 WHERE id = 7; UPDATE users SET enabled = enabled");
    it.storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(feed(&it, start).await, (vec![], start));
    it.sql("UPDATE users SET passkey = 'PASSKEY-7' WHERE id = 7; DELETE FROM users WHERE id = 8");
    assert_eq!(feed(&it, start).await.0, [7, 8]);
}

#[tokio::test]
async fn followers_too_far_behind_get_an_error() {
    let it = Fixture::new().await;
    it.sql("INSERT INTO mika_feed (kind, key) SELECT 'user', 7 FROM generate_series(1, 120000)");
    it.sql("UPDATE mika_feed SET noted_at = noted_at - interval '10 seconds'");
    for _ in 0..10 {
        it.storage.prune(0, 10).await.unwrap();
    }
    assert_eq!(it.sql("SELECT COUNT(*) FROM mika_feed"), "100000");
    let lost = it.storage.feed(FeedPosition(0), 10).await.unwrap();
    assert!(matches!(lost, Feed::Lost));
    let newest = it.storage.feed_position().await.unwrap();
    assert_eq!(feed(&it, newest).await, (vec![], newest));
}

#[tokio::test]
async fn peers_are_deleted_with_their_user_and_torrent() {
    let it = Fixture::new().await;
    let peers = async || it.storage.peers(0, None, 100).await.unwrap().rows.len();
    it.storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(peers().await, 10);
    it.sql("DELETE FROM torrents WHERE id = 3");
    assert_eq!(peers().await, 5);
    it.sql("DELETE FROM users WHERE id = 8");
    assert_eq!(peers().await, 0);
    // What was on its way is passed over.
    it.storage
        .apply(&[batch(2, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(peers().await, 0);
}
