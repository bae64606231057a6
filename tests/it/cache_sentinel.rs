//! The cache driver `redis` with sentinels: the contract, and failovers.

use std::time::Duration;

use super::cache_redis::{BOUND, COMEBACK, NODE, batch, open};
use crate::harness::now;
use crate::harness::redis::{AOF, Redis};
use crate::harness::sentinel::Watched;
use mika::cache::{Cache, CacheError, Generation, contract};

/// The generation once it is another one than before.
async fn next_generation(cache: &dyn Cache, before: Generation) -> Generation {
    let start = now();
    loop {
        match cache.ping().await {
            Ok(now) if now != before => return now,
            Ok(_) | Err(CacheError::Away(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < COMEBACK, "the failover goes unnoticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let watched = Watched::start(&[]);
    contract::run(async || {
        assert_eq!(watched.servers[0].cli(&["FLUSHALL"]), "OK");
        open(&watched.url())
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_lacks_the_last_writes_is_noticed() {
    let mut watched = Watched::start(&AOF);
    let cache = open(&watched.url());
    let first = cache.begin_epoch().await.unwrap();
    cache.keep(first, &[batch(1)]).await.unwrap();
    cache.set_has_all_peers(first).await.unwrap();
    let wait = watched.servers[0].cli(&["WAIT", "1", "5000"]);
    assert_eq!(wait, "1");
    // What is written from now on does not reach the replica.
    watched.cut_replica(0);
    cache.keep(first, &[batch(2)]).await.unwrap();

    assert_eq!(watched.fail_over(0), 1);
    let second = next_generation(&*cache, first).await;
    assert_eq!(
        cache.last_kept(NODE).await.unwrap(),
        1,
        "this is what the replica lacked"
    );
    assert!(!cache.has_all_peers().await.unwrap());
    let refused = cache.keep(first, &[batch(3)]).await;
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == second));
    cache.keep(second, &[batch(1), batch(2)]).await.unwrap();
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 2);
    assert_eq!(cache.kept(NODE, 1, 10, BOUND).await.unwrap().len(), 1);

    // And back again: the old master follows the new one first.
    watched.servers[0].restart();
    watched.follows(0);
    watched.fail_over(1);
    let third = next_generation(&*cache, second).await;
    cache.keep(third, &[batch(3)]).await.unwrap();
    assert_eq!(
        watched.servers[0].cli(&["XLEN", &format!("t:journal:{NODE}")]),
        "3"
    );
}

#[tokio::test]
async fn sentinels_that_know_no_such_master_are_named() {
    let watched = Watched::start(&[]);
    let cache = open(&watched.url().replace("/mika", "/other"));
    let error = cache.ping().await.unwrap_err().to_string();
    assert!(error.contains("No such master"), "{error}");
    let redis = Redis::start();
    let cache = open(&format!("redis+sentinel://{}/mika", redis.address()));
    let error = cache.ping().await.unwrap_err().to_string();
    assert!(error.contains("SENTINEL"), "{error}");
}

#[tokio::test]
async fn a_check_names_what_prevents_a_failover() {
    let mut watched = Watched::start(&[]);
    let cache = open(&watched.url());
    let words = ["sentinel", "no replica"];
    let found = async || {
        let findings = cache.check().await.unwrap();
        let problems: Vec<String> = findings.into_iter().map(|it| it.problem).collect();
        words
            .iter()
            .filter(|word| problems.iter().any(|it| it.contains(**word)))
            .count()
    };
    assert_eq!(found().await, 0);
    watched.stop_sentinel();
    assert_eq!(found().await, 1);
}
