//! The simulated servers, and what the driver does while a part of a cluster is away.

use mika::base::ids::{InfoHash, PeerId};
use mika::cache::{CacheError, Generation};
use mika::change::{Batch, Change, GuestChange, GuestRecord};

use super::*;
use crate::network;
use crate::world::on_jumping_clock as run;

const PARTS: usize = 3;

fn dialer(parts: usize) -> Dialer {
    Dialer {
        redis: Arc::new(Redis::new(true, false, parts, 1)),
        network: Arc::new(Network::new(1, parts)),
        host: Host::begin(1, 0),
        story: Story::begin(),
    }
}

/// The part that serves a key at the beginning.
fn part_of(key: &str) -> usize {
    slots::first_owner(slot_of(key), PARTS)
}

/// A batch with an announce in a swarm of each part.
fn batch(number: u64, journal: &str) -> Arc<Batch> {
    let swarm_in = |part: usize| {
        let mut all = (0..=u8::MAX).map(|byte| InfoHash([byte; 20]));
        all.find(|hash| part_of(&format!("t:p:{hash}")) == part)
    };
    let changes = (0..PARTS).filter_map(swarm_in).map(|info_hash| {
        Change::from(GuestChange {
            info_hash,
            address: "10.0.0.1:6881".parse().unwrap(),
            record: GuestRecord {
                peer_id: PeerId([1; 20]),
                key: None,
                seeder: true,
                paused: false,
                counted: false,
                last_announce: network::now(),
                active: true,
            },
        })
    });
    batch_of(number, journal, changes.collect())
}

fn batch_of(number: u64, journal: &str, changes: Vec<Change>) -> Arc<Batch> {
    Arc::new(Batch::new(journal.into(), number, changes))
}

/// Waits until the generation is another one.
async fn until_restarted(cache: &dyn Cache, before: Generation) -> Generation {
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Ok(generation) = cache.ping().await
            && generation > before
        {
            return generation;
        }
    }
    panic!("it is not noticed that a part has missed something");
}

async fn swarms(cache: &dyn Cache) -> usize {
    let (mut found, mut cursor) = (0, Some(0));
    while let Some(at) = cursor {
        let scan = cache.swarms(at).await.unwrap();
        (found, cursor) = (found + scan.rows.len(), scan.next);
    }
    found
}

#[test]
fn one_server_passes_the_contract_of_caches() {
    run(mika::cache::contract::run(async || dialer(1).open()));
}

#[test]
fn a_cluster_passes_the_contract_of_caches() {
    run(mika::cache::contract::run(async || dialer(PARTS).open()));
}

#[test]
fn keys_are_in_the_slots_of_redis() {
    for (key, slot) in [
        ("123456789", 12739),
        ("foo", 12182),
        ("t:{foo}:x", 12182),
        ("foo{}{bar}", 8363),
    ] {
        assert_eq!(slot_of(key), slot, "{key}");
    }
}

/// Whichever part it is; the mark is on one of them.
#[test]
fn what_a_part_missed_is_not_taken_as_complete() {
    for part in 0..PARTS {
        run(async move {
            let dialer = dialer(PARTS);
            let journals = ["a#1.0", "a#1.1", "a#1.2", "a#1.3", "a#1.4", "a#1.5"];
            let mut elsewhere = journals.into_iter();
            let is_elsewhere = |name: &&str| part_of(&format!("t:journal:{name}")) != part;
            let journal = elsewhere.find(is_elsewhere).unwrap();
            let cache = dialer.clone().open();
            let generation = cache.begin_epoch().await.unwrap();
            let first = batch_of(1, journal, Vec::new());
            cache.keep(generation, &[first]).await.unwrap();
            cache.set_has_all_peers(generation).await.unwrap();
            assert!(cache.has_all_peers().await.unwrap());

            let away = [Place::Cache(part)];
            dialer.network.set_up(&away, false);
            assert_eq!(cache.ping().await.unwrap(), generation);
            for number in 2..=4 {
                let kept = cache.keep(generation, &[batch(number, journal)]).await;
                assert!(kept.is_ok(), "part {part}, batch {number}: {kept:?}");
                tokio::time::sleep(Duration::from_secs(2)).await;
                let now = cache.ping().await.unwrap();
                assert_eq!(now, generation, "it takes no part as emptied");
            }
            dialer.network.set_up(&away, true);

            // A process that starts now, and never heard of it.
            let other = dialer.clone().open();
            other.ping().await.unwrap();
            assert!(!other.has_all_peers().await.unwrap(), "part {part}");
            let generation = until_restarted(&*cache, generation).await;
            assert_eq!(swarms(&*cache).await, PARTS - 1, "part {part}");
            let again = [batch(2, journal), batch(3, journal), batch(4, journal)];
            cache.keep(generation, &again).await.unwrap();
            assert_eq!(swarms(&*cache).await, PARTS, "part {part}");
            cache.set_has_all_peers(generation).await.unwrap();
            assert!(dialer.open().has_all_peers().await.unwrap());
        });
    }
}

/// The mark is on its way while a batch misses a part, and the mark's removal overtakes it.
#[test]
fn a_mark_is_not_valid_if_a_part_missed_something_while_it_was_written() {
    run(async {
        let dialer = dialer(PARTS);
        let marks = part_of("t:registry");
        let away = (marks + 1) % PARTS;
        let mut journals = (0..100).map(|number| format!("a#1.{number}"));
        let is_elsewhere = |name: &String| {
            let part = part_of(&format!("t:journal:{name}"));
            part != marks && part != away
        };
        let journal = journals.find(is_elsewhere).unwrap();
        let cache = dialer.clone().open();
        let generation = cache.begin_epoch().await.unwrap();
        let begin = batch_of(1, &journal, Vec::new());
        cache.keep(generation, &[begin]).await.unwrap();
        let change = batch(2, &journal).changes[away].clone();
        let missed = batch_of(2, &journal, vec![change]);

        let slow = Duration::from_millis(500);
        dialer.network.set_slow(&[Place::Cache(marks)], slow);
        let (set, kept) = tokio::join!(cache.set_has_all_peers(generation), async {
            // It has compared the epochs, and reads them once more.
            tokio::time::sleep(Duration::from_millis(1300)).await;
            dialer.network.set_up(&[Place::Cache(away)], false);
            cache.keep(generation, &[missed]).await
        });
        kept.unwrap();
        assert!(matches!(set, Err(CacheError::Away(_))), "{set:?}");
        dialer.network.heal();
        let other = dialer.open();
        other.ping().await.unwrap();
        assert!(!other.has_all_peers().await.unwrap());
    });
}
