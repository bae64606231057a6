//! The cache driver `redis` on a Redis Cluster: the contract, slots that move, masters that die or forget.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::cache_redis::{
    ALLOWED, BOUND, COMEBACK, NODE, away, batch, change, open, torrent, until, user,
};
use crate::harness::cluster::{Cluster, MASTERS};
use crate::harness::redis::AOF;
use crate::harness::{now, poll};
use mika::base::ids::{InfoHash, UserId};
use mika::cache::{
    Cache, CacheError, Generation, Mirrored, Notice, Rows, SharedPeer, Write, contract, members_of,
};
use mika::change::{Batch, Change};

/// A batch of that number, with an announce in each of some swarms.
fn batch_of(number: u64, torrents: impl IntoIterator<Item = u8>) -> Arc<Batch> {
    let changes = torrents.into_iter().map(|torrent| {
        let mut change = change(1, torrent);
        change.record.announces = u32::try_from(number).unwrap();
        change.record.last_announce += i64::try_from(number).unwrap();
        Change::from(change)
    });
    Arc::new(Batch::new(NODE.into(), number, changes.collect()))
}

fn swarm(torrent: u8) -> String {
    format!("t:p:{}", InfoHash([torrent; 20]))
}

/// Torrents whose swarms a server has now.
fn torrents_on(cluster: &Cluster, server: usize) -> Vec<u8> {
    let of_key = |torrent: &u8| cluster.master_of(&swarm(*torrent)) == server;
    (1..=40).filter(of_key).collect()
}

async fn announces(cache: &dyn Cache, torrent: u8) -> Option<u32> {
    let found = cache.peers(&[InfoHash([torrent; 20])]).await.unwrap();
    let (_, peers) = found.into_iter().next()?;
    match peers.into_iter().next()? {
        SharedPeer::Member(member) => Some(member.record.announces),
        SharedPeer::Guest { .. } => None,
    }
}

/// Begins epochs, and marks the cache as complete.
async fn mark(cache: &dyn Cache) -> Generation {
    let generation = cache.begin_epoch().await.unwrap();
    let mirrored = Mirrored {
        position: 7,
        storage: "site".into(),
        evicted: 0,
    };
    cache.set_mirrored(generation, mirrored).await.unwrap();
    cache.set_has_all_peers(generation).await.unwrap();
    generation
}

async fn is_marked(cache: &dyn Cache) -> bool {
    let marks = (cache.mirrored().await, cache.has_all_peers().await);
    let (Ok(mirrored), Ok(has_peers)) = marks else {
        return false;
    };
    assert_eq!(mirrored.is_some(), has_peers);
    has_peers
}

#[tokio::test]
async fn keeps_the_contract() {
    let cluster = Cluster::start();
    contract::run(async || {
        cluster.flush();
        open(&cluster.url())
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_with_few_permissions() {
    let cluster = Cluster::start();
    let more = [
        "+cluster|info",
        "+cluster|slots",
        "+cluster|nodes",
        "+asking",
    ];
    for server in &cluster.servers {
        let mut rule = vec!["ACL", "SETUSER", "mika", "on", ">hunter2", "~t:*"];
        rule.extend(ALLOWED.split_whitespace().chain(more));
        assert_eq!(server.cli(&rule), "OK");
    }
    let url = cluster.url().replace("://", "://mika:hunter2@");
    contract::run_core(async || {
        cluster.flush();
        open(&url)
    })
    .await;
    let cache = open(&url);
    let lacks = |findings: &[mika::cache::CacheFinding]| {
        findings
            .iter()
            .filter(|it| it.problem.contains("lacks permissions"))
            .count()
    };
    assert_eq!(lacks(&cache.check().await.unwrap()), 0);
    for server in &cluster.servers {
        assert_eq!(server.cli(&["ACL", "SETUSER", "mika", "-asking"]), "OK");
    }
    assert_eq!(
        lacks(&cache.check().await.unwrap()),
        MASTERS,
        "of each master"
    );
    let docs = include_str!("../../docs/redis.md");
    assert!(
        more.iter().all(|word| docs.contains(word)),
        "not in docs/redis.md"
    );
}

#[tokio::test]
async fn what_all_nodes_write_is_spread() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let rows: Vec<_> = (1..=200)
        .map(|byte| {
            let mut row = torrent(byte);
            (row.seeders, row.torrent.snatches) = (byte.into(), 1);
            row
        })
        .collect();
    cache.put(Rows::Torrents(&rows), Write::Fill).await.unwrap();
    let generation = cache.ping().await.unwrap();
    cache
        .keep(generation, &[batch_of(1, 1..=200)])
        .await
        .unwrap();
    for list in ["t:i:seeders", "t:i:leechers", "t:i:snatches"] {
        let parts = cluster.keys(&format!("{list}*"));
        assert_eq!(parts.len(), 16, "{parts:?}");
        let size = |part: &String| {
            cluster
                .cli(part, &["ZCARD", part])
                .parse::<usize>()
                .unwrap()
        };
        assert_eq!(parts.iter().map(size).sum::<usize>(), rows.len());
        let masters: BTreeSet<usize> = parts.iter().map(|part| cluster.master_of(part)).collect();
        assert_eq!(masters.len(), MASTERS);
    }
    // As docs/redis.md says: torrent 17 is in the part of 17 modulo 16.
    assert_eq!(
        cluster.cli("t:i:seeders:{3}", &["ZSCORE", "t:i:seeders:{3}", "17"]),
        "3"
    );
}

#[tokio::test]
async fn a_slot_that_is_half_moved_is_read_and_written() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    cache
        .keep(generation, &[batch_of(1, 1..=40)])
        .await
        .unwrap();
    let slot = cluster.slot_of(&swarm(1));
    let from = cluster.index_of(slot);
    let to = (from + 1) % MASTERS;
    let (from, to) = (&cluster.servers[from], &cluster.servers[to]);
    Cluster::open_slot(slot, from, to);
    assert_eq!(Cluster::move_keys(slot, from, to, 1), 1);
    assert_eq!(announces(&*cache, 1).await, Some(1));
    cache
        .keep(generation, &[batch_of(2, 1..=40)])
        .await
        .unwrap();
    assert_eq!(announces(&*cache, 1).await, Some(2));
    let moving = cache.users(0).await;
    assert!(matches!(moving, Err(CacheError::Moving)), "{moving:?}");

    Cluster::close_slot(slot, from, to);
    cache
        .keep(generation, &[batch_of(3, 1..=40)])
        .await
        .unwrap();
    assert_eq!(announces(&*cache, 1).await, Some(3));
    assert_eq!(to.cli(&["EXISTS", &swarm(1)]), "1");
    assert_eq!(cache.ping().await.unwrap(), generation, "nothing is lost");
    assert!(is_marked(&*cache).await);
    assert!(cache.users(0).await.is_ok());
}

#[tokio::test]
async fn a_journal_is_followed_while_its_slot_moves() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = cache.ping().await.unwrap();
    cache.keep(generation, &[batch(1)]).await.unwrap();
    let key = format!("t:journal:{NODE}");
    let slot = cluster.slot_of(&key);
    let from = cluster.index_of(slot);
    let to = (from + 1) % MASTERS;
    let (from, to) = (&cluster.servers[from], &cluster.servers[to]);
    let follow = |after| {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move { cache.kept(NODE, after, 10, BOUND).await })
    };
    let number = |batches: &[Batch]| batches.first().map(|batch| batch.number);
    Cluster::open_slot(slot, from, to);
    Cluster::move_keys(slot, from, to, 100);
    let reader = follow(1);
    until("the reader waits at the other master", || async {
        to.cli(&["INFO", "clients"]).contains("blocked_clients:1")
    })
    .await;
    cache.keep(generation, &[batch(2)]).await.unwrap();
    assert_eq!(number(&reader.await.unwrap().unwrap()), Some(2));

    // It is cut off when the slot goes back while it waits; the next call finds the journal again.
    Cluster::close_slot(slot, from, to);
    let reader = follow(2);
    until("the reader waits", || async {
        to.cli(&["INFO", "clients"]).contains("blocked_clients:1")
    })
    .await;
    Cluster::open_slot(slot, to, from);
    Cluster::close_slot(slot, to, from);
    cache.keep(generation, &[batch(3)]).await.unwrap();
    assert_eq!(number(&reader.await.unwrap().unwrap()), Some(3));
    assert_eq!(cache.ping().await.unwrap(), generation);
}

#[tokio::test]
async fn slots_may_move_to_a_new_master_under_load() {
    let cluster = Cluster::start();
    let new = Cluster::server(&[]);
    cluster.meet(&new);
    cluster.agrees_on(2 * MASTERS + 1);
    let cache = open(&cluster.url());
    let before = cache.begin_epoch().await.unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (cache, is_done) = (Arc::clone(&cache), Arc::clone(&is_done));
        tokio::spawn(async move {
            let (mut number, mut generation) = (0, before);
            while !is_done.load(Ordering::Relaxed) {
                // A retry, as the journal makes them, writes the batch again.
                match cache
                    .keep(generation, &[batch_of(number + 1, 1..=40)])
                    .await
                {
                    Ok(()) => number += 1,
                    Err(CacheError::Restarted(now)) => generation = now,
                    Err(CacheError::Away(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            number
        })
    };
    let slots: Vec<u16> = (1..=20)
        .map(|torrent| cluster.slot_of(&swarm(torrent)))
        .collect();
    let moved: BTreeSet<u16> = slots.into_iter().collect();
    // The servers stay until the thread that moves the slots is done with them.
    let mover = thread::spawn(move || {
        for slot in moved {
            let from = &cluster.servers[cluster.index_of(slot)];
            Cluster::open_slot(slot, from, &new);
            Cluster::close_slot(slot, from, &new);
        }
        (cluster, new)
    });
    until("all slots have moved", || async { mover.is_finished() }).await;
    let _servers = mover.join().unwrap();
    is_done.store(true, Ordering::Relaxed);
    let number = writer.await.unwrap();
    assert!(number > 0);
    for torrent in 1..=40 {
        let expected = u32::try_from(number).unwrap();
        assert_eq!(
            announces(&*cache, torrent).await,
            Some(expected),
            "{torrent}"
        );
    }
    assert_eq!(cache.last_kept(NODE).await.unwrap(), number);
    // A master that is new may be one that replaces another, so all is written again.
    assert_eq!(cache.ping().await.unwrap(), Generation(before.0 + 1));
}

#[tokio::test]
async fn a_replica_that_lacks_the_last_writes_is_noticed() {
    let mut cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    cache
        .put(Rows::Users(&[user(1, "passkey-1")]), Write::Fill)
        .await
        .unwrap();
    let master = cluster.master_of(&format!("t:journal:{NODE}"));
    let torrents = torrents_on(&cluster, master);
    cache
        .keep(generation, &[batch_of(1, 1..=40)])
        .await
        .unwrap();
    poll(BOUND, "the replica has the first batch", || {
        let replica = &cluster.servers[MASTERS + master];
        let id = replica.cli(&["INFO", "replication"]);
        id.contains("master_link_status:up") && id.contains("slave_read_only") && {
            let offset = |text: &str, name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            let own = cluster.servers[master].cli(&["INFO", "replication"]);
            offset(&own, "master_repl_offset:") == offset(&id, "slave_repl_offset:")
        }
    });
    cluster.cut_replica(master);
    cache
        .keep(generation, &[batch_of(2, 1..=40)])
        .await
        .unwrap();
    assert!(is_marked(&*cache).await);

    cluster.fail_over(master);
    until("the driver notices", || async {
        cache.ping().await.is_ok_and(|now| now > generation)
    })
    .await;
    let now = cache.ping().await.unwrap();
    assert_eq!(now, Generation(generation.0 + 1));
    assert!(
        !is_marked(&*cache).await,
        "what was complete may not be so any more"
    );
    assert!(!is_marked(&*open(&cluster.url())).await, "for others, too");
    assert_eq!(
        cache.last_kept(NODE).await.unwrap(),
        1,
        "this is what the replica lacked"
    );
    let lost = torrents.first().expect("it had swarms");
    assert_eq!(announces(&*cache, *lost).await, Some(1));
    let refused = cache.keep(generation, &[batch_of(3, [1])]).await;
    assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == now));

    let again = [batch_of(1, 1..=40), batch_of(2, 1..=40)];
    cache.keep(now, &again).await.unwrap();
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 2);
    for torrent in 1..=40 {
        assert_eq!(announces(&*cache, torrent).await, Some(2), "{torrent}");
    }
    mark(&*cache).await;
    assert!(is_marked(&*open(&cluster.url())).await);
}

#[tokio::test]
async fn one_emptied_master_is_noticed() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let registry = cluster.master_of("t:registry");
    for master in (0..MASTERS).filter(|master| *master != registry) {
        let generation = mark(&*cache).await;
        assert!(is_marked(&*cache).await);
        assert_eq!(cluster.servers[master].cli(&["FLUSHALL"]), "OK");
        assert_eq!(cache.ping().await.unwrap(), Generation(generation.0 + 1));
        assert!(!is_marked(&*cache).await);
        // Nobody else may have seen it happen.
        assert!(!is_marked(&*open(&cluster.url())).await);
    }
}

#[tokio::test]
async fn the_rest_of_a_cluster_goes_on() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    cache
        .keep(generation, &[batch_of(1, 1..=40)])
        .await
        .unwrap();
    let own = [
        cluster.master_of(&format!("t:journal:{NODE}")),
        cluster.master_of("t:registry"),
    ];
    let paused = (0..MASTERS)
        .find(|master| !own.contains(master))
        .expect("another master");
    let (theirs, others): (Vec<u8>, Vec<u8>) =
        (1..=40).partition(|torrent| cluster.master_of(&swarm(*torrent)) == paused);
    // Its replica must not replace it.
    for server in &cluster.servers {
        assert_eq!(
            server.cli(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]),
            "OK"
        );
    }
    cluster.servers[paused].pause();
    until("it is found to be away", || async {
        cache.ping().await.is_ok() && cache.away_part().is_some()
    })
    .await;
    let start = now();
    assert_eq!(cache.ping().await.unwrap(), generation, "the rest answers");
    cache
        .keep(generation, &[batch_of(2, 1..=40)])
        .await
        .unwrap();
    for torrent in &others {
        assert_eq!(announces(&*cache, *torrent).await, Some(2), "{torrent}");
    }
    away(cache.peers(&[InfoHash([theirs[0]; 20])]).await);
    assert!(start.elapsed() < BOUND, "nothing waits for it");
    assert_eq!(
        cache.has_all_peers().await.ok(),
        Some(false),
        "it lacks the second batch"
    );
    away(cache.set_has_all_peers(generation).await);
    let findings = cache.inspect().await.unwrap();
    assert!(
        findings
            .iter()
            .any(|it| it.problem.contains("a part of the cluster is away")),
        "{findings:?}"
    );

    cluster.servers[paused].resume();
    until("it is back", || async { cache.away_part().is_none() }).await;
    until("all is to be written again", || async {
        cache
            .ping()
            .await
            .is_ok_and(|now| now == Generation(generation.0 + 1))
    })
    .await;
    let generation = Generation(generation.0 + 1);
    cache
        .keep(generation, &[batch_of(1, 1..=40), batch_of(2, 1..=40)])
        .await
        .unwrap();
    for torrent in theirs {
        assert_eq!(announces(&*cache, torrent).await, Some(2), "{torrent}");
    }
    cache.set_has_all_peers(generation).await.unwrap();
}

#[tokio::test]
async fn a_restarted_master_is_noticed() {
    let mut cluster = Cluster::start_with(&AOF);
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    cache
        .keep(generation, &[batch_of(1, 1..=40)])
        .await
        .unwrap();
    let master = cluster.master_of("t:registry");
    cluster.servers[master].restart();
    until("the driver notices", || async {
        cache
            .ping()
            .await
            .is_ok_and(|now| now == Generation(generation.0 + 1))
    })
    .await;
    until("it has loaded its data", || async {
        cache.away_part().is_none() && cache.mirrored().await.is_ok()
    })
    .await;
    assert!(
        !is_marked(&*cache).await,
        "it may have lost its last writes"
    );
}

#[tokio::test]
async fn a_master_that_was_a_replica_meanwhile_is_noticed() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    for (old, new) in [(0, MASTERS), (MASTERS, 0)] {
        let (old, new) = (&cluster.servers[old], &cluster.servers[new]);
        poll(COMEBACK, "the replica is connected", || {
            new.cli(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        assert_eq!(new.cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]), "OK");
        poll(COMEBACK, "they change places", || {
            new.is_master() && !old.is_master()
        });
    }
    // The same processes are masters as before, with the same epochs.
    assert!(!is_marked(&*open(&cluster.url())).await);
    until("the driver notices", || async {
        cache.ping().await.is_ok_and(|now| now > generation)
    })
    .await;
    assert!(!is_marked(&*cache).await);
}

#[tokio::test]
async fn slots_that_nobody_serves_are_away() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let generation = mark(&*cache).await;
    let slot = cluster.slot_of(&swarm(1));
    let owner = &cluster.servers[cluster.index_of(slot)];
    let number = slot.to_string();
    for server in &cluster.servers {
        assert_eq!(server.cli(&["CLUSTER", "DELSLOTS", &number]), "OK");
    }
    away(cache.peers(&[InfoHash([1; 20])]).await);
    until("it is found to be away", || async {
        cache.away_part().is_some()
    })
    .await;
    let problem = cache.away_part().unwrap();
    assert!(problem.contains("serves 1 of its slots"), "{problem}");
    cache
        .keep(generation, &[batch_of(1, 1..=40)])
        .await
        .unwrap();
    assert_eq!(owner.cli(&["CLUSTER", "ADDSLOTS", &number]), "OK");
    until("all is to be written again", || async {
        cache.ping().await.is_ok_and(|now| now > generation)
    })
    .await;
    assert_eq!(announces(&*cache, 1).await, None);
}

#[tokio::test]
async fn notices_survive_a_slot_that_moves() {
    let cluster = Cluster::start();
    let cache = open(&cluster.url());
    let start = cache.control_position().await.unwrap();
    cache.publish(&[Notice::User(UserId(1))]).await.unwrap();
    let slot = cluster.slot_of("t:control");
    let from = cluster.index_of(slot);
    let to = (from + 1) % MASTERS;
    let (from, to) = (&cluster.servers[from], &cluster.servers[to]);
    Cluster::open_slot(slot, from, to);
    Cluster::close_slot(slot, from, to);
    let (notices, next) = cache.control(Some(&start), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::User(UserId(1))]);
    cache.publish(&[Notice::Whitelist]).await.unwrap();
    let (notices, _) = cache.control(Some(&next), BOUND).await.unwrap();
    assert_eq!(notices, [Notice::Whitelist]);
}

#[tokio::test]
async fn a_check_names_what_a_cluster_lacks() {
    let mut cluster = Cluster::start();
    let cache = open(&cluster.url());
    let problems = async || {
        let findings = cache.check().await.unwrap();
        findings
            .into_iter()
            .map(|it| it.problem)
            .collect::<Vec<String>>()
            .join("\n")
    };
    let found = problems().await;
    for word in [
        "no replica",
        "a part of the cluster",
        "full-coverage",
        "Redis Cluster",
    ] {
        assert!(!found.contains(word), "{found}");
    }
    assert!(
        found.contains(&format!(
            "{}: appendonly is off",
            cluster.servers[0].address()
        )),
        "{found}"
    );
    for server in &cluster.servers {
        server.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    }
    cluster.servers[MASTERS].kill9();
    poll(COMEBACK, "the master sees it", || {
        cluster.servers[0]
            .cli(&["INFO", "replication"])
            .contains("connected_slaves:0")
    });
    let found = problems().await;
    assert!(
        found.contains("has no replica") && found.contains("full-coverage"),
        "{found}"
    );
    let alone = open(&format!("redis://{}", cluster.servers[0].address()));
    let found = alone.check().await.unwrap();
    assert!(
        found.iter().any(|it| it.hint.contains("redis+cluster://")),
        "{found:?}"
    );
    let swarms = members_of(&batch_of(1, 1..=9));
    match alone.put_peers(&swarms).await {
        Err(CacheError::Broken(text)) => assert!(text.contains("redis+cluster://"), "{text}"),
        other => panic!("a single connection can't serve a cluster: {other:?}"),
    }
}
