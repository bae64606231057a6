//! What every cache driver has to do, as tests (feature `contract`).
//!
//! [`run`] and [`run_core`] run them, each on a cache of its own, which `open` makes reachable and empty.
//! A test panics where the driver is at fault.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Cache, CacheError, CacheKey, CacheLeftover, Generation, KeySet, Mirrored, NodeStats, Notice,
    RegistryCursor, Replayed, RowKey, Rows, STOPPED, Scan, SharedPeer, Write, owner,
};
use crate::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use crate::change::sums::{Credited, Sum};
use crate::change::{
    Batch, Change, Credit, GuestChange, GuestRecord, Member, PeerChange, PeerKey, PeerRecord,
    Standing, SwarmCounts,
};
use crate::registry::{
    ClientPrefix, Permille, StoredTorrent, StoredUser, Torrent, User, UserTotals, Wipe,
};

/// The largest number that totals reach (rule A8).
const TOTAL_MAX: u64 = i64::MAX.cast_unsigned();
/// When the peers of these tests announce.
const NOW: i64 = 1_800_000_000;
const NODE: &str = "node-a";
/// Longer than a test may take: whoever waits for that long has missed what it waited for.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// All tests, on caches that `open` makes.
pub async fn run<F: Future<Output = Arc<dyn Cache>>>(open: impl Fn() -> F) {
    run_core(&open).await;
    counts_are_those_of_the_swarms(&*open().await).await;
    leftovers_are_found_and_cleaned(&*open().await).await;
    it_belongs_to_one_database(&*open().await).await;
    what_another_database_left_goes(&*open().await).await;
    a_cache_that_another_database_uses_is_refused(open().await).await;
    notes_of_replayed_journals_stay_until_these_leave(&*open().await).await;
}

/// All tests but those of methods that have a default: what web applications read, leftovers, to which database
/// the cache belongs, and notes of replayed journals.
pub async fn run_core<F: Future<Output = Arc<dyn Cache>>>(open: impl Fn() -> F) {
    batches_are_kept_until_they_are_applied(&*open().await).await;
    packed_batches_are_kept_whole(&*open().await).await;
    a_batch_is_kept_once(&*open().await).await;
    batches_of_another_generation_are_refused(&*open().await).await;
    followers_are_woken(open().await).await;
    batches_make_swarms(&*open().await).await;
    what_storage_credits_is_added(&*open().await).await;
    what_is_not_registered_is_not_counted(&*open().await).await;
    totals_that_are_full_stop_nothing(&*open().await).await;
    peers_are_written_and_removed(&*open().await).await;
    newer_peers_are_left(&*open().await).await;
    late_batches_leave_newer_peers(&*open().await).await;
    peers_of_several_batches_are_written_at_once(&*open().await).await;
    old_peers_are_pruned(&*open().await).await;
    users_are_written_and_removed(&*open().await).await;
    torrents_are_written_and_removed(&*open().await).await;
    counters_that_are_there_stay(&*open().await).await;
    an_empty_cache_is_filled(&*open().await).await;
    scans_find_every_row(&*open().await).await;
    keys_and_passkeys_are_found(&*open().await).await;
    passkeys_are_removed(&*open().await).await;
    totals_are_wiped(&*open().await).await;
    totals_are_set(&*open().await).await;
    the_whitelist_is_replaced(&*open().await).await;
    the_registry_is_complete_once_it_says_so(&*open().await).await;
    notices_reach_who_was_there_before(&*open().await).await;
    readers_of_notices_are_woken(open().await).await;
    nodes_come_and_go(&*open().await).await;
    a_lease_has_one_holder(&*open().await).await;
    stats_are_taken(&*open().await).await;
}

async fn batches_are_kept_until_they_are_applied(cache: &dyn Cache) {
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
    assert_eq!(kept(cache, NODE, 0, 10).await, []);
    let batches: Vec<_> = (1..=40)
        .map(|number| batch(number, all_kinds(number)))
        .collect();
    keep(cache, &batches).await;
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 40);
    assert_eq!(cache.last_kept("node-b").await.unwrap(), 0);
    let expected: Vec<Batch> = batches.iter().map(|batch| (**batch).clone()).collect();
    assert_eq!(kept(cache, NODE, 0, 100).await, expected);
    assert_eq!(kept(cache, NODE, 37, 100).await, expected[37..]);
    assert_eq!(kept(cache, NODE, 2, 20).await, expected[2..22]);
    assert_eq!(kept(cache, "node-b", 0, 10).await, []);

    cache.trim_journal(NODE, Some(38)).await.unwrap();
    assert_eq!(kept(cache, NODE, 0, 100).await, expected[38..]);
    cache.trim_journal(NODE, Some(40)).await.unwrap();
    cache.trim_journal(NODE, Some(40)).await.unwrap();
    cache.trim_journal("node-b", Some(7)).await.unwrap();
    assert_eq!(kept(cache, NODE, 0, 100).await, []);
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 40, "it is remembered");
}

async fn packed_batches_are_kept_whole(cache: &dyn Cache) {
    for (number, is_read_by_all) in [(1, true), (2, false)] {
        cache.pack_guests(is_read_by_all);
        keep(cache, &[batch(number, all_kinds(number))]).await;
        let mut kept = kept(cache, NODE, number - 1, 10).await;
        let changes = kept.pop().map(|batch| batch.changes).unwrap_or_default();
        let given = all_kinds(number);
        assert_eq!(changes.len(), given.len());
        assert!(given.iter().all(|change| changes.contains(change)));
    }
}

async fn a_batch_is_kept_once(cache: &dyn Cache) {
    put_pair(cache).await;
    let first = batch(1, vec![Change::from(change(1, 1, 1, 100))]);
    let second = batch(2, vec![Change::from(change(1, 1, 1, 1000))]);
    for batches in [
        vec![first.clone()],
        vec![first.clone(), second.clone()],
        vec![first, second],
    ] {
        keep(cache, &batches).await;
    }
    assert_eq!(kept(cache, NODE, 0, 10).await.len(), 2);
    let totals = user(cache, 1).await.totals;
    assert_eq!(totals, UserTotals::default(), "storage decides on credit");
    assert_eq!(torrent(cache, 1).await.uploaded, 0);
    cache.trim_journal(NODE, Some(2)).await.unwrap();
    keep(cache, &[batch(1, all_kinds(1))]).await;
    assert_eq!(kept(cache, NODE, 0, 10).await, []);
}

async fn batches_of_another_generation_are_refused(cache: &dyn Cache) {
    let generation = cache.ping().await.unwrap();
    assert_eq!(generation, Generation(1));
    assert_eq!(cache.ping().await.unwrap(), generation);
    let batches = [batch(1, all_kinds(1))];
    for other in [0, 2] {
        let refused = cache.keep(Generation(other), &batches).await;
        assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == generation));
        let sums = credited(&[change(1, 1, 1, 10)]);
        let refused = cache.add_totals(Generation(other), &sums).await;
        assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == generation));
    }
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
    assert_eq!(all_swarms(cache).await, []);
}

async fn followers_are_woken(cache: Arc<dyn Cache>) {
    let batches = [batch(1, all_kinds(1)), batch(2, all_kinds(2))];
    assert_eq!(cache.kept(NODE, 0, 10, SHORT).await.unwrap(), []);
    keep(&*cache, &batches[..1]).await;
    let kept = cache.kept(NODE, 0, 10, LONG).await.unwrap();
    assert_eq!(kept, [(*batches[0]).clone()]);

    let follower = cache.clone();
    let follow = tokio::spawn(async move { follower.kept(NODE, 1, 10, LONG).await });
    // A call that waits must not hold up others.
    for _ in 0..10 {
        cache.ping().await.unwrap();
    }
    keep(&*cache, &batches[1..]).await;
    let kept = follow.await.unwrap().unwrap();
    assert_eq!(kept, [(*batches[1]).clone()]);
}

async fn batches_make_swarms(cache: &dyn Cache) {
    let (first, mut second) = (change(1, 1, 1, 10), change(2, 1, 2, 20));
    second.record.active = false;
    let guest = guest(true);
    let address: SocketAddr = "[2001:db8::1]:6881".parse().unwrap();
    let changes = vec![
        Change::from(change(1, 1, 1, 5)),
        Change::from(second.clone()),
        Change::from(first.clone()),
        guest_change(address, guest),
    ];
    keep(cache, &[batch(1, changes)]).await;
    let mut members = peers(cache, 1).await;
    members.sort_by_key(|peer| match peer {
        SharedPeer::Member(member) => member.user.0,
        SharedPeer::Guest { .. } => 0,
    });
    assert_eq!(members, [member(&first), member(&second)], "tombstones too");
    let record = guest;
    assert_eq!(
        peers(cache, 2).await,
        [SharedPeer::Guest { address, record }]
    );
    assert_eq!(all_swarms(cache).await, [hash(1), hash(2)]);

    let gone = guest_change(
        address,
        GuestRecord {
            active: false,
            ..guest
        },
    );
    keep(cache, &[batch(2, vec![gone])]).await;
    assert_eq!(peers(cache, 2).await, []);
    assert_eq!(all_swarms(cache).await, [hash(1)]);
}

async fn what_storage_credits_is_added(cache: &dyn Cache) {
    put_pair(cache).await;
    let mut snatch = change(1, 1, 1, 100);
    snatch.credit.snatched = true;
    credit(cache, &[snatch, change(1, 1, 1, 10)]).await;
    let mut public = Credited::default();
    public.torrents.entry(hash(1)).or_default().snatches = 1;
    let generation = cache.ping().await.unwrap();
    cache.add_totals(generation, &public).await.unwrap();
    keep(cache, &[batch(1, vec![Change::from(change(1, 1, 1, 10))])]).await;
    let totals = user(cache, 1).await.totals;
    assert_eq!((totals.uploaded, totals.downloaded), (220, 55));
    assert_eq!(
        (totals.snatches, totals.announces, totals.seed_time),
        (1, 2, 120)
    );
    let row = torrent(cache, 1).await;
    assert_eq!((row.uploaded, row.downloaded, row.announces), (110, 110, 2));
    assert_eq!((row.seeders, row.leechers, row.torrent.snatches), (3, 4, 2));
}

/// Half a row would come back as a user or a torrent that was never added.
async fn what_is_not_registered_is_not_counted(cache: &dyn Cache) {
    keep(cache, &[batch(1, vec![Change::from(change(1, 1, 1, 10))])]).await;
    credit(cache, &[change(1, 1, 1, 100)]).await;
    assert_eq!(cache.user(UserId(1)).await.unwrap(), None);
    assert_eq!(cache.torrent(hash(1)).await.unwrap(), None);
    let (users, bad) = all(|cursor| cache.users(cursor)).await;
    assert_eq!((users, bad), (vec![], 0));
    let (torrents, bad) = all(|cursor| cache.torrents(cursor)).await;
    assert_eq!((torrents, bad), (vec![], 0));
    put_pair(cache).await;
    assert_eq!(user(cache, 1).await.totals, UserTotals::default());
}

async fn totals_that_are_full_stop_nothing(cache: &dyn Cache) {
    let mut row = stored_user(1);
    row.totals.uploaded = TOTAL_MAX - 1;
    put_users(cache, &[row], Write::Edit).await;
    let torrents = [stored_torrent(1)];
    put_torrents(cache, &torrents, Write::Edit).await;
    for _ in 1..=2 {
        credit(cache, &[change(1, 1, 1, u64::MAX)]).await;
    }
    assert!(user(cache, 1).await.totals.uploaded >= TOTAL_MAX - 1);
    assert_eq!(user(cache, 1).await.totals.announces, 2);
}

async fn peers_are_written_and_removed(cache: &dyn Cache) {
    let (member, address) = (member(&change(1, 1, 1, 10)), "10.0.0.1:6881");
    let guest = SharedPeer::Guest {
        address: address.parse().unwrap(),
        record: guest(false),
    };
    let swarms = [
        (hash(1), vec![member.clone()]),
        (hash(2), vec![guest.clone()]),
    ];
    cache.put_peers(&swarms).await.unwrap();
    cache.put_peers(&swarms).await.unwrap();
    let mut found = cache.peers(&[hash(1), hash(2), hash(3)]).await.unwrap();
    found.retain(|(_, peers)| !peers.is_empty());
    found.sort_by_key(|(hash, _)| *hash);
    assert_eq!(found, swarms);
    cache
        .remove(&[CacheKey::Swarm(hash(1)), CacheKey::Swarm(hash(3))])
        .await
        .unwrap();
    assert_eq!(all_swarms(cache).await, [hash(2)]);
    assert_eq!(peers(cache, 1).await, []);
    assert_eq!(peers(cache, 2).await, [guest]);
    assert_eq!(cache.peers(&[]).await.unwrap(), []);
}

async fn counts_are_those_of_the_swarms(cache: &dyn Cache) {
    put_pair(cache).await;
    let counts = SwarmCounts {
        seeders: 5,
        leechers: 6,
    };
    let all = [(hash(1), counts), (hash(99), counts)];
    cache.put_counts(&all).await.unwrap();
    let row = torrent(cache, 1).await;
    assert_eq!((row.seeders, row.leechers), (5, 6));
    let unregistered = cache.torrent(hash(99)).await.unwrap();
    assert_eq!(unregistered, None, "it is not registered");
}

async fn newer_peers_are_left(cache: &dyn Cache) {
    let at = |announces, last_announce| {
        let mut change = change(1, 1, 1, u64::from(announces));
        change.record.announces = announces;
        change.record.last_announce = last_announce;
        member(&change)
    };
    let newest = at(7, NOW);
    // Fewer announces at about the same time; an earlier time. Neither takes its place.
    for (given, expected) in [
        (&newest, &newest),
        (&at(6, NOW + 2), &newest),
        (&at(6, NOW - 3600), &newest),
        (&at(8, NOW - 1), &at(8, NOW - 1)),
        (&at(1, NOW + 3600), &at(1, NOW + 3600)),
    ] {
        let swarms = [(hash(1), vec![given.clone()])];
        let written = cache.put_peers(&swarms).await.unwrap();
        assert_eq!(&peers(cache, 1).await[0], expected);
        let SharedPeer::Member(member) = given else {
            unreachable!("it is a member");
        };
        let given_one = (hash(1), member.user, member.peer_id);
        let is_written = given == expected;
        assert_eq!(written, if is_written { vec![given_one] } else { vec![] });
    }
}

async fn late_batches_leave_newer_peers(cache: &dyn Cache) {
    let at = |announces, first_announce, last_announce, active| {
        let mut change = change(1, 1, 1, u64::from(announces));
        let record = &mut change.record;
        (record.announces, record.active) = (announces, active);
        (record.first_announce, record.last_announce) = (first_announce, last_announce);
        change
    };
    let newest = at(7, NOW, NOW + 100, true);
    let left = at(7, NOW, NOW + 100, false);
    let begun_again = at(1, NOW + 900, NOW + 900, true);
    for (number, (given, expected)) in [
        (&newest, &newest),
        (&at(6, NOW, NOW + 90, true), &newest),
        (&left, &left),
        (&newest, &left),
        (&begun_again, &begun_again),
        (&newest, &begun_again),
        (&at(60, NOW - 900, NOW + 90, true), &begun_again),
    ]
    .into_iter()
    .enumerate()
    {
        let batches = [batch(
            number as u64 + 1,
            vec![
                Change::from(given.clone()),
                Change::from(change(1, 1, 2, 1)),
            ],
        )];
        keep(cache, &batches).await;
        let found = peers(cache, 1).await;
        assert!(found.contains(&member(expected)), "{number}: {found:?}");
        assert_eq!(found.len(), 2);
    }
}

async fn peers_of_several_batches_are_written_at_once(cache: &dyn Cache) {
    put_pair(cache).await;
    let at = |announces, active| {
        let mut change = change(1, 1, 1, 100);
        change.record.announces = announces;
        change.record.active = active;
        change
    };
    let (last, other) = (at(3, false), change(1, 1, 2, 1));
    let batches = [
        vec![Change::from(at(1, true)), Change::from(other.clone())],
        vec![Change::from(at(2, true))],
        vec![Change::from(last.clone())],
    ];
    let batches: Vec<Batch> = (1..)
        .zip(batches)
        .map(|(number, changes)| (*batch(number, changes)).clone())
        .collect();
    for batches in [&batches[..], &batches[..1], &[]] {
        cache.put_peers_of(batches).await.unwrap();
        let found = peers(cache, 1).await;
        assert_eq!(found.len(), 2, "{found:?}");
        for change in [&last, &other] {
            assert!(found.contains(&member(change)), "{found:?}");
        }
    }
    assert_eq!(
        kept(cache, NODE, 0, 10).await,
        [],
        "peers alone are written"
    );
}

async fn old_peers_are_pruned(cache: &dyn Cache) {
    let mut old = change(1, 1, 1, 10);
    old.record.last_announce = NOW - 1;
    let young = member(&change(1, 1, 2, 10));
    let guest_at = |port, last_announce| SharedPeer::Guest {
        address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(),
        record: GuestRecord {
            last_announce,
            ..guest(true)
        },
    };
    let swarms = [
        (hash(1), vec![member(&old), young.clone()]),
        (hash(2), vec![guest_at(1, NOW), guest_at(2, NOW + 5)]),
    ];
    cache.put_peers(&swarms).await.unwrap();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = cache.prune(at, NOW, NOW + 5).await.unwrap();
    }
    assert_eq!(peers(cache, 1).await, [young]);
    assert_eq!(peers(cache, 2).await, [guest_at(2, NOW + 5)]);
}

async fn users_are_written_and_removed(cache: &dyn Cache) {
    assert_eq!(cache.user(UserId(1)).await.unwrap(), None);
    let rows = [stored_user(1), stored_user(2)];
    put_users(cache, &rows, Write::Warmup).await;
    assert_eq!(user(cache, 1).await, rows[0]);

    let mut changed = rows[0].clone();
    changed.user.passkey = "passkey-new".parse().unwrap();
    changed.user.username = String::new();
    changed.user.enabled = false;
    changed.user.can_leech = false;
    for _ in 0..2 {
        let rows = [changed.clone()];
        put_users(cache, &rows, Write::Edit).await;
        assert_eq!(user(cache, 1).await, changed);
    }
    let unknown = UserId(99);
    cache
        .remove(&[CacheKey::User(UserId(1)), CacheKey::User(unknown)])
        .await
        .unwrap();
    assert_eq!(cache.user(UserId(1)).await.unwrap(), None);
    assert_eq!(user(cache, 2).await, rows[1]);
    put_users(cache, &[], Write::Edit).await;
}

async fn torrents_are_written_and_removed(cache: &dyn Cache) {
    assert_eq!(cache.torrent(hash(1)).await.unwrap(), None);
    let mut row = stored_torrent(1);
    row.torrent.info_hash_v2 = Some(hash(99));
    row.torrent.reason = Some("a duplicate of \"Läufer\"".into());
    row.torrent.enabled = false;
    row.torrent.multi_up = Permille(1500);
    row.torrent.multi_down = Permille(0);
    let rows = [row.clone(), stored_torrent(2)];
    put_torrents(cache, &rows, Write::Warmup).await;
    assert_eq!(torrent(cache, 1).await, row);

    row.torrent.info_hash_v2 = None;
    row.torrent.reason = None;
    row.torrent.enabled = true;
    row.name = "another name".into();
    let rows = [row.clone()];
    put_torrents(cache, &rows, Write::Edit).await;
    assert_eq!(torrent(cache, 1).await, row);

    let swarm = (hash(1), vec![member(&change(1, 1, 1, 10))]);
    cache.put_peers(&[swarm]).await.unwrap();
    cache
        .remove(&[CacheKey::Torrent(hash(1)), CacheKey::Torrent(hash(9))])
        .await
        .unwrap();
    assert_eq!(cache.torrent(hash(1)).await.unwrap(), None);
    assert_eq!(peers(cache, 1).await, [], "its peers go with it");
    assert_eq!(torrent(cache, 2).await, stored_torrent(2));
}

async fn counters_that_are_there_stay(cache: &dyn Cache) {
    let (mut user_row, mut torrent_row) = (stored_user(1), stored_torrent(1));
    user_row.totals = UserTotals {
        uploaded: 1000,
        downloaded: 2000,
        snatches: 3,
        announces: 4,
        seed_time: 5,
    };
    torrent_row.uploaded = 1000;
    torrent_row.seeders = 7;
    torrent_row.torrent.snatches = 9;
    let (users, torrents) = ([user_row.clone()], [torrent_row.clone()]);
    put_users(cache, &users, Write::Warmup).await;
    put_torrents(cache, &torrents, Write::Warmup).await;
    assert_eq!(user(cache, 1).await, user_row, "new rows come with theirs");
    assert_eq!(torrent(cache, 1).await, torrent_row);

    keep(cache, &[batch(1, vec![Change::from(change(1, 1, 1, 10))])]).await;
    credit(cache, &[change(1, 1, 1, 10)]).await;
    for write in [Write::Edit, Write::Warmup] {
        put_users(cache, &users, write).await;
        put_torrents(cache, &torrents, write).await;
        assert_eq!(user(cache, 1).await.totals.uploaded, 1020);
        let row = torrent(cache, 1).await;
        assert_eq!(
            (row.uploaded, row.seeders, row.torrent.snatches),
            (1010, 3, 9)
        );
    }
}

async fn an_empty_cache_is_filled(cache: &dyn Cache) {
    let (mut user_row, mut torrent_row) = (stored_user(1), stored_torrent(1));
    user_row.totals.uploaded = 1000;
    torrent_row.torrent.snatches = 9;
    let (users, torrents) = ([user_row.clone()], [torrent_row.clone()]);
    put_users(cache, &users, Write::Fill).await;
    put_torrents(cache, &torrents, Write::Fill).await;
    assert_eq!(user(cache, 1).await, user_row);
    assert_eq!(torrent(cache, 1).await, torrent_row);
}

async fn scans_find_every_row(cache: &dyn Cache) {
    const ROWS: u32 = 5000;
    let users: Vec<_> = (1..=ROWS).map(stored_user).collect();
    let torrents: Vec<_> = (1..=ROWS).map(stored_torrent).collect();
    put_users(cache, &users, Write::Warmup).await;
    put_torrents(cache, &torrents, Write::Warmup).await;
    keep(cache, &[batch(1, all_kinds(1))]).await;
    let (mut found, bad) = all(|cursor| cache.users(cursor)).await;
    found.sort_by_key(|row| row.user.id);
    found.dedup();
    assert_eq!((found.len(), bad), (users.len(), 0));
    assert_eq!(found[1..], users[1..]);
    let (mut found, bad) = all(|cursor| cache.torrents(cursor)).await;
    found.sort_by_key(|row| row.torrent.id);
    found.dedup();
    assert_eq!((found.len(), bad), (torrents.len(), 0));
    assert_eq!(found[2..], torrents[2..]);
    the_registry_is(cache, &users, &torrents).await;
    if let Some(reader) = cache.reader() {
        the_registry_is(&*reader, &users, &torrents).await;
    }
}

/// The scan of a start finds users and torrents as announces need them.
async fn the_registry_is(cache: &dyn Cache, users: &[StoredUser], torrents: &[StoredTorrent]) {
    let (mut found_users, mut found_torrents) = (HashMap::new(), HashMap::new());
    let mut cursor = Some(RegistryCursor::START);
    while let Some(at) = cursor {
        let scan = cache.registry(at).await.unwrap();
        assert_eq!(scan.bad.len(), 0);
        found_users.extend(scan.users.into_iter().map(|user| (user.id, user)));
        found_torrents.extend(scan.torrents.into_iter().map(|row| (row.id, row)));
        cursor = scan.next;
    }
    assert_eq!(
        (found_users.len(), found_torrents.len()),
        (users.len(), torrents.len())
    );
    for StoredUser { user, .. } in users {
        let found = &found_users[&user.id];
        let access = |user: &User| (user.passkey.clone(), user.enabled, user.can_leech);
        assert_eq!(access(found), access(user));
    }
    // Batches have counted snatches of the first ones.
    for StoredTorrent { torrent, .. } in &torrents[2..] {
        assert_eq!(&found_torrents[&torrent.id], torrent);
    }
}

async fn keys_and_passkeys_are_found(cache: &dyn Cache) {
    put_pair(cache).await;
    let (user, torrent) = (stored_user(1).user, stored_torrent(1).torrent);
    let (keys, bad) = all(|cursor| cache.keys(KeySet::Registry, cursor)).await;
    assert_eq!((keys.len(), bad), (3, 0));
    for key in [
        CacheKey::User(user.id),
        CacheKey::Passkey(user.passkey.clone(), None),
        CacheKey::Torrent(torrent.info_hash),
    ] {
        assert!(keys.contains(&key), "{key:?}");
    }
    let (passkeys, bad) = all(|cursor| cache.keys(KeySet::Passkeys, cursor)).await;
    let expected = CacheKey::Passkey(user.passkey, Some(user.id));
    assert_eq!((passkeys, bad), (vec![expected], 0));
}

async fn passkeys_are_removed(cache: &dyn Cache) {
    let user = stored_user(1).user;
    let passkeys = async || {
        all(|cursor| cache.keys(KeySet::Passkeys, cursor))
            .await
            .0
            .len()
    };
    put_pair(cache).await;
    let remove = async |of| {
        let key = CacheKey::Passkey(user.passkey.clone(), of);
        cache.remove(&[key]).await.unwrap();
    };
    remove(Some(UserId(user.id.0 + 1))).await;
    assert_eq!(passkeys().await, 1, "it is not theirs");
    for of in [Some(user.id), None] {
        put_pair(cache).await;
        remove(of).await;
        assert_eq!(passkeys().await, 0);
    }
}

async fn totals_are_wiped(cache: &dyn Cache) {
    put_pair(cache).await;
    let mut change = change(1, 1, 1, 10);
    change.credit.snatched = true;
    credit(cache, std::slice::from_ref(&change)).await;
    keep(cache, &[batch(1, vec![Change::from(change)])]).await;
    let before = torrent(cache, 1).await;
    assert!(before.torrent.snatches > 0);
    for (what, rows) in [(Wipe::Users, 1), (Wipe::Torrents, 1)] {
        let (mut cursor, mut wiped) = (Some(0), 0);
        while let Some(at) = cursor {
            let part = cache.wipe(what, at).await.unwrap();
            (cursor, wiped) = (part.next, wiped + part.rows);
        }
        assert_eq!(wiped, rows);
    }
    assert_eq!(user(cache, 1).await, stored_user(1));
    let row = torrent(cache, 1).await;
    assert_eq!((row.uploaded, row.downloaded, row.announces), (0, 0, 0));
    assert_eq!(row.torrent.snatches, 0);
    assert_eq!(row.seeders, before.seeders, "peers that are present");
}

async fn totals_are_set(cache: &dyn Cache) {
    cache.set_totals(UserId(1), Some(7), None).await.unwrap();
    assert_eq!(
        cache.user(UserId(1)).await.unwrap(),
        None,
        "no user is made up"
    );
    put_pair(cache).await;
    credit(cache, &[change(1, 1, 1, 10)]).await;
    let before = user(cache, 1).await.totals;
    cache.set_totals(UserId(1), Some(7), None).await.unwrap();
    let after = user(cache, 1).await.totals;
    assert_eq!((after.uploaded, after.downloaded), (7, before.downloaded));
    cache.set_totals(UserId(1), None, Some(0)).await.unwrap();
    let after = user(cache, 1).await.totals;
    assert_eq!((after.uploaded, after.downloaded), (7, 0));
    assert_eq!(after.announces, before.announces);
}

async fn leftovers_are_found_and_cleaned(cache: &dyn Cache) {
    put_pair(cache).await;
    let leftovers = async |since| all(|cursor| cache.leftovers(since, cursor)).await.0;
    assert_eq!(leftovers(NOW).await, []);
    keep(cache, &[batch(1, vec![Change::from(change(1, 1, 1, 10))])]).await;
    assert_eq!(leftovers(NOW).await, []);
    let old = leftovers(NOW + 1).await;
    assert!(
        matches!(&old[..], [CacheLeftover::Peers { fields, .. }] if fields.len() == 1),
        "{old:?}"
    );
    cache.clean(&old).await.unwrap();
    assert_eq!(leftovers(NOW + 1).await, []);
    let info_hash = stored_torrent(1).torrent.info_hash;
    let peers = cache.peers(&[info_hash]).await.unwrap();
    assert!(peers.iter().all(|(_, peers)| peers.is_empty()));

    let mut full = stored_user(2);
    full.totals.uploaded = TOTAL_MAX;
    put_users(cache, &[full], Write::Fill).await;
    let found = leftovers(NOW).await;
    let row = RowKey::User(UserId(2));
    let field = "uploaded".to_owned();
    assert_eq!(found, [CacheLeftover::Counter { row, field }]);
    cache.clean(&found).await.unwrap();
    assert_eq!(user(cache, 2).await, stored_user(2));
    cache.clean(&[CacheLeftover::Row(row)]).await.unwrap();
    assert_eq!(cache.user(UserId(2)).await.unwrap(), None);
}

async fn the_whitelist_is_replaced(cache: &dyn Cache) {
    assert_eq!(cache.whitelist().await.unwrap(), []);
    for clients in [
        vec![client("-TR", "A"), client("-qB", "B")],
        vec![client("-TR", "Transmission"), client("-DE", "Deluge")],
        vec![client("-TR", "")],
        vec![],
    ] {
        cache
            .put(Rows::Whitelist(&clients), Write::Edit)
            .await
            .unwrap();
        let mut expected = clients;
        let mut found = cache.whitelist().await.unwrap();
        for list in [&mut expected, &mut found] {
            list.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        }
        assert_eq!(found, expected);
    }
}

async fn the_registry_is_complete_once_it_says_so(cache: &dyn Cache) {
    assert_eq!(cache.mirrored().await.unwrap(), None);
    put_pair(cache).await;
    assert_eq!(cache.mirrored().await.unwrap(), None);
    let generation = cache.ping().await.unwrap();
    for position in [0, 17, u64::MAX] {
        let mirrored = mirrored(position);
        cache
            .set_mirrored(generation, mirrored.clone())
            .await
            .unwrap();
        assert_eq!(cache.mirrored().await.unwrap(), Some(mirrored));
    }
    assert!(!cache.has_all_peers().await.unwrap());
    cache.set_has_all_peers(generation).await.unwrap();
    assert!(cache.has_all_peers().await.unwrap());

    let other = Generation(generation.0 + 1);
    for refused in [
        cache.set_mirrored(other, mirrored(5)).await,
        cache.set_has_all_peers(other).await,
    ] {
        assert!(matches!(refused, Err(CacheError::Restarted(it)) if it == generation));
    }
    let position = u64::MAX;
    assert_eq!(cache.mirrored().await.unwrap(), Some(mirrored(position)));
    cache.forget_mirrored().await.unwrap();
    assert_eq!(cache.mirrored().await.unwrap(), None);
    assert!(cache.has_all_peers().await.unwrap());
    cache.forget_peers().await.unwrap();
    assert!(!cache.has_all_peers().await.unwrap());
}

async fn it_belongs_to_one_database(cache: &dyn Cache) {
    let database = async || cache.database().await.unwrap();
    let set = async |id, former| cache.set_database(id, former).await.unwrap();
    assert_eq!(database().await, None);
    assert_eq!(set("one", None).await, "one");
    assert_eq!(set("one", None).await, "one");
    assert_eq!(set("two", None).await, "one");
    assert_eq!(set("two", Some("three")).await, "one");
    assert_eq!(database().await.as_deref(), Some("one"));
    assert!(owner::refuse_foreign(cache, "one").await.is_ok());
    assert_eq!(owner::explain(cache, "one").await.unwrap(), None);
    let refused = owner::refuse_foreign(cache, "two").await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("one") && said.contains("two"), "{said}");
    assert_eq!(set("two", Some("one")).await, "two");
    assert_eq!(database().await.as_deref(), Some("two"));
}

async fn what_another_database_left_goes(cache: &dyn Cache) {
    owner::take(cache, "one").await.unwrap();
    put_pair(cache).await;
    keep(cache, &[batch(1, vec![Change::from(change(1, 1, 1, 100))])]).await;
    cache.beat(NODE, "host 1").await.unwrap();
    let generation = cache.ping().await.unwrap();
    cache.set_mirrored(generation, mirrored(5)).await.unwrap();
    cache.set_has_all_peers(generation).await.unwrap();

    let said = owner::take(cache, "two").await.unwrap_err().to_string();
    assert!(said.contains("left batches"), "{said}");
    let in_use = async || owner::explain(cache, "two").await.unwrap().unwrap();
    assert!(in_use().await.contains("left batches"));
    for saved_by in [NODE, "node-a#1.00000000"] {
        cache.beat(saved_by, STOPPED).await.unwrap();
        assert!(!in_use().await.contains("left batches"), "{saved_by}");
        cache.leave(saved_by).await.unwrap();
        cache.beat(NODE, "host 1").await.unwrap();
    }
    assert_eq!(cache.database().await.unwrap().as_deref(), Some("one"));
    assert_eq!(kept(cache, NODE, 0, 10).await.len(), 1);

    cache.trim_journal(NODE, Some(1)).await.unwrap();
    owner::take(cache, "two").await.unwrap();
    assert_eq!(cache.database().await.unwrap().as_deref(), Some("two"));
    assert_eq!(cache.nodes().await.unwrap(), []);
    assert_eq!(cache.last_kept(NODE).await.unwrap(), 0);
    assert_eq!(cache.mirrored().await.unwrap(), None);
    assert!(!cache.has_all_peers().await.unwrap());
    assert!(cache.users(0).await.unwrap().rows.is_empty());
    assert!(cache.torrents(0).await.unwrap().rows.is_empty());
    assert!(
        cache
            .keys(KeySet::Passkeys, 0)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(cache.swarms(0).await.unwrap().rows.is_empty());
}

async fn a_cache_that_another_database_uses_is_refused(cache: Arc<dyn Cache>) {
    owner::take(&*cache, "one").await.unwrap();
    cache.beat(NODE, "host 0").await.unwrap();
    let beating = async {
        for count in 1.. {
            tokio::time::sleep(SHORT).await;
            cache.beat(NODE, &format!("host {count}")).await.unwrap();
        }
    };
    let refused = tokio::select! {
        taken = owner::take(&*cache, "two") => taken.unwrap_err().to_string(),
        () = beating => unreachable!("it beats all the time"),
    };
    for part in [
        "one",
        "two",
        "node \"node-a\" of it runs on host",
        "cache.url",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
}

fn mirrored(position: u64) -> Mirrored {
    Mirrored {
        position,
        storage: "0123abcd".into(),
        evicted: 3,
    }
}

async fn notices_reach_who_was_there_before(cache: &dyn Cache) {
    let all = notices();
    let start = cache.control_position().await.unwrap();
    cache.publish(&all[..2]).await.unwrap();
    cache.publish(&[]).await.unwrap();
    let later = cache.control_position().await.unwrap();
    cache.publish(&all[2..]).await.unwrap();
    let (found, end) = cache.control(Some(&start), LONG).await.unwrap();
    assert_eq!(found, all);
    assert_eq!(cache.control(Some(&later), LONG).await.unwrap().0, all[2..]);
    let (found, same) = cache.control(Some(&end), SHORT).await.unwrap();
    assert_eq!((found, same), (vec![], end.clone()));
    assert_eq!(cache.control_position().await.unwrap(), end);
}

async fn readers_of_notices_are_woken(cache: Arc<dyn Cache>) {
    let start = cache.control_position().await.unwrap();
    let reader = cache.clone();
    let read = tokio::spawn(async move { reader.control(Some(&start), LONG).await });
    for _ in 0..10 {
        cache.ping().await.unwrap();
    }
    cache.publish(&[Notice::Whitelist]).await.unwrap();
    assert_eq!(read.await.unwrap().unwrap().0, [Notice::Whitelist]);
}

async fn nodes_come_and_go(cache: &dyn Cache) {
    let nodes = async || {
        let mut nodes = cache.nodes().await.unwrap();
        nodes.sort();
        nodes
    };
    let node = |name: &str, sign: &str| (name.to_owned(), sign.to_owned());
    assert_eq!(nodes().await, []);
    for (name, sign) in [("a", "1"), ("b", "1"), ("a", "2")] {
        cache.beat(name, sign).await.unwrap();
    }
    assert_eq!(nodes().await, [node("a", "2"), node("b", "1")]);
    cache.leave("b").await.unwrap();
    cache.leave("c").await.unwrap();
    assert_eq!(nodes().await, [node("a", "2")]);
    cache.forget_journal("a").await.unwrap();
    cache.forget_journal("c").await.unwrap();
    assert_eq!(nodes().await, []);
    assert_eq!(cache.last_kept("a").await.unwrap(), 0);
}

async fn notes_of_replayed_journals_stay_until_these_leave(cache: &dyn Cache) {
    let replayed = async || {
        let mut replayed = cache.replayed().await.unwrap();
        replayed.sort_by(|(one, _), (other, _)| one.cmp(other));
        replayed
    };
    let note = |number, at| Replayed { number, at };
    assert_eq!(replayed().await, []);
    for (journal, number, at) in [("a#1.x", 1, 5), ("b#1.x", u64::MAX, 6), ("a#1.x", 2, 7)] {
        cache.beat(journal, "1").await.unwrap();
        let set = cache.set_replayed(journal, note(number, at)).await;
        set.unwrap();
    }
    let [a, b] = [("a#1.x", note(2, 7)), ("b#1.x", note(u64::MAX, 6))]
        .map(|(journal, note)| (journal.to_owned(), note));
    assert_eq!(replayed().await, [a, b.clone()]);
    cache.beat("a#1.x", "2").await.unwrap();
    cache.leave("a#1.x").await.unwrap();
    assert_eq!(replayed().await, [b]);
    cache.forget_journal("b#1.x").await.unwrap();
    assert_eq!(replayed().await, []);
}

async fn a_lease_has_one_holder(cache: &dyn Cache) {
    let lease = async |name, holder, time| cache.lease(name, holder, time).await.unwrap();
    assert!(lease("x", "a", LONG).await);
    assert!(!lease("x", "b", LONG).await);
    assert!(lease("y", "b", LONG).await);
    assert!(lease("x", "a", SHORT).await, "renewed, for a shorter time");
    let ended = async {
        while !lease("x", "b", LONG).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.unwrap();
    assert!(!lease("x", "a", LONG).await);
}

async fn stats_are_taken(cache: &dyn Cache) {
    let stats = NodeStats {
        announces: 1,
        scrapes: 2,
        seeders: 3,
        leechers: 4,
    };
    cache.add_stats(stats).await.unwrap();
    cache.add_stats(NodeStats::default()).await.unwrap();
}

// --- what the tests are made of ---

async fn keep(cache: &dyn Cache, batches: &[Arc<Batch>]) {
    let generation = cache.ping().await.unwrap();
    cache.keep(generation, batches).await.unwrap();
}

async fn kept(cache: &dyn Cache, journal: &str, after: u64, limit: u32) -> Vec<Batch> {
    let kept = cache.kept(journal, after, limit, Duration::ZERO);
    kept.await.unwrap()
}

async fn put_users(cache: &dyn Cache, users: &[StoredUser], write: Write) {
    cache.put(Rows::Users(users), write).await.unwrap();
}

async fn put_torrents(cache: &dyn Cache, torrents: &[StoredTorrent], write: Write) {
    cache.put(Rows::Torrents(torrents), write).await.unwrap();
}

/// Adds the credit of announces to the totals.
async fn credit(cache: &dyn Cache, changes: &[PeerChange]) {
    let generation = cache.ping().await.unwrap();
    let credited = credited(changes);
    cache.add_totals(generation, &credited).await.unwrap();
}

fn credited(changes: &[PeerChange]) -> Credited {
    let mut credited = Credited::default();
    for PeerChange {
        key,
        info_hash,
        credit,
        ..
    } in changes
    {
        let sum = Sum {
            up: credit.up,
            down: credit.down,
            raw_up: credit.raw_up,
            raw_down: credit.raw_down,
            seed_time: credit.seed_time.into(),
            announces: credit.announces.into(),
            snatches: credit.snatched.into(),
        };
        credited.users.entry(key.user).or_default().add(&sum);
        let torrent = credited.torrents.entry(*info_hash).or_default();
        torrent.add(&sum);
    }
    credited
}

async fn put_pair(cache: &dyn Cache) {
    let users = [stored_user(1)];
    put_users(cache, &users, Write::Edit).await;
    let torrents = [stored_torrent(1)];
    put_torrents(cache, &torrents, Write::Edit).await;
}

async fn user(cache: &dyn Cache, id: u32) -> StoredUser {
    cache.user(UserId(id)).await.unwrap().unwrap()
}

async fn torrent(cache: &dyn Cache, id: u32) -> StoredTorrent {
    cache.torrent(hash(id)).await.unwrap().unwrap()
}

async fn peers(cache: &dyn Cache, torrent: u32) -> Vec<SharedPeer> {
    let swarms = cache.peers(&[hash(torrent)]).await.unwrap();
    swarms.into_iter().flat_map(|(_, peers)| peers).collect()
}

async fn all_swarms(cache: &dyn Cache) -> Vec<InfoHash> {
    let (found, _) = all(|cursor| cache.swarms(cursor)).await;
    let found: HashSet<InfoHash> = found.into_iter().collect();
    let mut found: Vec<InfoHash> = found.into_iter().collect();
    found.sort();
    found
}

/// All rows of a scan, and how many could not be used.
async fn all<T, F>(read: impl Fn(u64) -> F) -> (Vec<T>, usize)
where
    F: Future<Output = Result<Scan<T>, CacheError>>,
{
    let (mut rows, mut bad) = (Vec::new(), 0);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let scan = read(at).await.unwrap();
        rows.extend(scan.rows);
        bad += scan.bad.len();
        cursor = scan.next;
    }
    (rows, bad)
}

fn hash(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    InfoHash(bytes)
}

fn batch(number: u64, changes: Vec<Change>) -> Arc<Batch> {
    Arc::new(Batch::new(NODE.into(), number, changes))
}

/// One change of each kind.
fn all_kinds(number: u64) -> Vec<Change> {
    let change = change(1, 1, 1, number);
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6881).into();
    vec![
        Change::Snatches {
            info_hash: hash(2),
            count: 3,
        },
        guest_change(address, guest(true)),
        Change::from(change),
    ]
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::User(UserId(u32::MAX)),
        Notice::Torrent(hash(7)),
        Notice::Whitelist,
        Notice::Registry,
        Notice::Peers,
        Notice::PeersBy(NODE.into()),
        Notice::SnatchesWiped,
        Notice::Node,
    ]
}

fn stored_user(id: u32) -> StoredUser {
    StoredUser {
        user: User {
            id: UserId(id),
            passkey: format!("passkey-{id}").parse().unwrap(),
            username: format!("user {id}"),
            enabled: true,
            can_leech: true,
        },
        totals: UserTotals::default(),
    }
}

fn stored_torrent(id: u32) -> StoredTorrent {
    StoredTorrent {
        torrent: Torrent {
            id: TorrentId(id),
            info_hash: hash(id),
            info_hash_v2: None,
            enabled: true,
            reason: None,
            multi_up: Permille::ONE,
            multi_down: Permille::ONE,
            snatches: 0,
        },
        name: format!("torrent {id}"),
        seeders: 0,
        leechers: 0,
        announces: 0,
        uploaded: 0,
        downloaded: 0,
    }
}

fn client(prefix: &str, name: &str) -> ClientPrefix {
    ClientPrefix {
        prefix: prefix.into(),
        name: name.into(),
    }
}

fn guest(active: bool) -> GuestRecord {
    GuestRecord {
        peer_id: PeerId(*b"-TR3000-\0\xff 123456789"),
        key: Some(17),
        seeder: true,
        paused: false,
        counted: true,
        last_announce: NOW,
        active,
    }
}

fn guest_change(address: SocketAddr, record: GuestRecord) -> Change {
    Change::from(GuestChange {
        info_hash: hash(2),
        address,
        record,
    })
}

fn member(change: &PeerChange) -> SharedPeer {
    SharedPeer::Member(Member {
        user: change.key.user,
        peer_id: change.key.peer_id,
        record: change.record.clone(),
        standing: change.standing,
    })
}

/// An announce that counts `bytes` both ways on a torrent with double upload and half download.
fn change(user: u32, torrent: u32, peer: u8, bytes: u64) -> PeerChange {
    PeerChange {
        key: PeerKey {
            user: UserId(user),
            torrent: TorrentId(torrent),
            peer_id: PeerId([peer; 20]),
        },
        info_hash: hash(torrent),
        record: PeerRecord {
            base_up: bytes,
            base_down: bytes,
            start_up: None,
            start_down: None,
            dip_up: Some(NOW - 5),
            dip_down: None,
            base_at: NOW - 60,
            uploaded: bytes,
            downloaded: bytes,
            left: Some(16384),
            v4: Some(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, peer), 6881)),
            v6: Some(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 65535, 0, 0)),
            v4_at: None,
            v6_at: None,
            speed_up: 1,
            speed_down: 2,
            seed_time: 60,
            announces: 1,
            first_announce: NOW - 60,
            last_announce: NOW,
            active: true,
            paused: true,
        },
        credit: Credit {
            up: bytes.saturating_mul(2),
            down: bytes / 2,
            raw_up: bytes,
            raw_down: bytes,
            seed_time: 60,
            announces: 1,
            snatched: false,
        },
        standing: Standing::default(),
        counts: SwarmCounts {
            seeders: 3,
            leechers: 4,
        },
        report: None,
    }
}
