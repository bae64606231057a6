//! Following changes while transactions overlap.

use std::sync::Arc;

use mika::registry::RowChange;
use mika::storage::{CreditRules, Feed, FeedPosition};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use super::{Fixture, batch};

async fn client(fixture: &Fixture) -> Conn {
    let opts = Opts::from_url(&fixture.server.url("mika")).unwrap();
    Conn::new(opts).await.unwrap()
}

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
    let (mut early, mut late) = (client(&it).await, client(&it).await);
    late.query_drop("START TRANSACTION").await.unwrap();
    late.query_drop("UPDATE users SET enabled = 0 WHERE id = 7")
        .await
        .unwrap();
    early
        .query_drop("UPDATE users SET enabled = 0 WHERE id = 8")
        .await
        .unwrap();

    let (changed, reached) = feed(&it, start).await;
    assert_eq!(
        (changed, reached),
        (vec![8], start),
        "reported at once, and remembered"
    );
    assert!(it.storage.feed_position().await.unwrap() <= start);
    late.query_drop("COMMIT").await.unwrap();
    let (changed, reached) = feed(&it, start).await;
    assert_eq!(changed, [7, 8]);
    assert_eq!(reached, it.storage.feed_position().await.unwrap());
    assert_eq!(feed(&it, reached).await, (vec![], reached));
}

#[tokio::test]
async fn a_rolled_back_transaction_delays_the_feed_only_briefly() {
    let it = Fixture::new().await;
    let start = it.storage.feed_position().await.unwrap();
    let mut site = client(&it).await;
    site.query_drop("START TRANSACTION").await.unwrap();
    site.query_drop("UPDATE users SET enabled = 0 WHERE id = 7")
        .await
        .unwrap();
    site.query_drop("ROLLBACK").await.unwrap();
    site.query_drop("UPDATE users SET enabled = 0 WHERE id = 8")
        .await
        .unwrap();
    assert_eq!(
        feed(&it, start).await,
        (vec![8], start),
        "it may still come"
    );
    it.sql("UPDATE mika_feed SET noted_at = noted_at - INTERVAL 10 SECOND");
    let (changed, reached) = feed(&it, start).await;
    assert_eq!((changed, reached), (vec![8], FeedPosition(start.0 + 2)));
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
    it.sql("INSERT INTO mika_feed (kind, `key`) SELECT 'user', 7 FROM seq_1_to_120000");
    it.sql("UPDATE mika_feed SET noted_at = noted_at - INTERVAL 10 SECOND");
    for _ in 0..10 {
        it.storage.prune(0, 10).await.unwrap();
    }
    let count: u64 = it.sql("SELECT COUNT(*) FROM mika_feed").parse().unwrap();
    assert_eq!(count, 100_000);
    let lost = it.storage.feed(FeedPosition(0), 10).await.unwrap();
    assert!(matches!(lost, Feed::Lost));
    let newest = it.storage.feed_position().await.unwrap();
    assert_eq!(feed(&it, newest).await, (vec![], newest));
}

#[tokio::test]
async fn peers_are_deleted_with_their_user_and_torrent() {
    let it = Fixture::new().await;
    let storage = Arc::clone(&it.storage);
    let peers = async || storage.peers(0, None, 100).await.unwrap().rows.len();
    storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(peers().await, 10);
    it.sql("DELETE FROM torrents WHERE id = 3");
    assert_eq!(peers().await, 5);
    it.sql("DELETE FROM users WHERE id = 8");
    assert_eq!(peers().await, 0);
    // What was on its way is passed over.
    storage
        .apply(&[batch(2, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(peers().await, 0);
}
