//! What every storage driver has to do, as tests (feature `contract`).
//!
//! [`run`] and [`run_without`] do them, each on a storage of its own that `open` makes: new, empty, and
//! without tables. A test panics where the driver is at fault.

mod reports;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use super::{
    CreditRules, Feed, FeedPosition, Find, InvalidTotals, NewTorrent, NewUser, Page, Storage,
    StorageError, StoredHistory, StoredTorrent, StoredUser, TorrentKey, TorrentPatch,
    TorrentRemoval, UserKey, UserPatch, UserTorrents, UserTotals, Wipe,
};
use crate::base::clock::Clock;
use crate::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use crate::change::{
    Batch, Change, Credit, PeerChange, PeerKey, PeerRecord, Standing, SwarmCounts,
};
use crate::registry::{ClientPrefix, Permille, RowChange};

/// The largest number of SQL, where totals stop (rule A8).
const TOTAL_MAX: u64 = i64::MAX.cast_unsigned();
/// When the peers of these tests announce.
const NOW: i64 = 1_800_000_000;
const NODE: &str = "node-a";

/// What a driver may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optional {
    /// [`Storage::migrate`] has something to do, and nothing works before it.
    Migrations,
    /// [`Storage::has_feed`].
    Feed,
    /// Changing users and torrents.
    Edits,
    /// Changing the whitelist.
    Whitelist,
    /// Lists of users, of torrents and of a user's torrents.
    Lists,
    /// [`Storage::with_records`] leaves out those without.
    WithRecords,
    /// Forgetting journals and peers, and when peers announced last.
    Upkeep,
    /// Wiping totals, and finding and fixing impossible ones.
    Totals,
    /// Registering torrents that are snatched, for public trackers.
    Snatches,
    /// Changing the id of a torrent.
    NewIds,
    /// Removing torrents.
    Removal,
}

/// All tests, on storages that `open` makes.
pub async fn run<F: Future<Output = Arc<dyn Storage>>>(open: impl Fn() -> F) {
    run_without(&[], open).await;
}

/// All tests but those of what a schema may leave to the site: to register torrents that are snatched, to remove
/// torrents, and to change their ids.
pub async fn run_private<F: Future<Output = Arc<dyn Storage>>>(open: impl Fn() -> F) {
    let missing = [Optional::Snatches, Optional::NewIds, Optional::Removal];
    run_without(&missing, open).await;
}

/// All tests but those of what a driver leaves out. They add their rows by `add_users` and `add_torrents`, which a driver for
/// a database that others fill may have for tests only.
pub async fn run_without<F: Future<Output = Arc<dyn Storage>>>(
    missing: &[Optional],
    open: impl Fn() -> F,
) {
    let has = |part| !missing.contains(&part);
    let new = async || migrated(open().await).await;
    run_core(&open).await;
    if has(Optional::Migrations) {
        migrations_are_applied_once(&*open().await).await;
    }
    if has(Optional::Feed) {
        the_feed_tells_of_new_rows(&*new().await).await;
        the_feed_is_read_in_portions(&*new().await).await;
    }
    if has(Optional::Edits) {
        users_are_changed(&*new().await).await;
        torrents_are_changed(&*new().await).await;
        totals_and_names_are_as_the_site_says(&*new().await).await;
    }
    if has(Optional::Whitelist) {
        clients_are_added_renamed_and_removed(&*new().await).await;
    }
    if has(Optional::Feed) && has(Optional::Edits) && has(Optional::Whitelist) {
        the_feed_tells_of_edits(&*new().await).await;
    }
    if has(Optional::Lists) {
        lists_are_searched_and_sorted(&*new().await).await;
        a_users_torrents_are_listed(&*new().await).await;
    }
    if has(Optional::WithRecords) {
        only_torrents_with_records_are_found(&*new().await).await;
    }
    if has(Optional::Upkeep) {
        an_ended_journal_is_forgotten(&*new().await).await;
        the_newest_announce_is_known(&*new().await).await;
        old_tombstones_are_pruned(&*new().await).await;
    }
    if has(Optional::Totals) {
        totals_are_wiped_in_portions(&*new().await).await;
        invalid_totals_are_found_and_fixed(&*new().await).await;
    }
    if has(Optional::Snatches) {
        a_public_snatch_registers_its_torrent(&*new().await).await;
    }
    if has(Optional::NewIds) {
        a_torrent_takes_its_records_along_to_another_id(&*new().await).await;
    }
    if has(Optional::Removal) {
        torrents_are_removed_with_their_peers(&*new().await).await;
    }
    if has(Optional::Removal) && has(Optional::Snatches) {
        only_unused_torrents_of_strangers_give_way(&*new().await).await;
    }
    what_is_missing_is_refused(missing, &*new().await).await;
}

/// What no driver may leave out.
async fn run_core<F: Future<Output = Arc<dyn Storage>>>(open: &impl Fn() -> F) {
    let new = async || migrated(open().await).await;
    users_are_added_and_found(&*new().await).await;
    torrents_are_added_and_found(&*new().await).await;
    ids_are_as_the_site_says(&*new().await).await;
    pages_of_any_size_hold_every_row_once(&*new().await).await;
    torrents_with_records_are_found(&*new().await).await;
    old_peers_are_read_while_they_are_active(&*new().await).await;
    a_database_has_a_name_that_stays(&*new().await).await;
    base_and_credit_arrive_together(&*new().await).await;
    reports::run(open).await;
    a_batch_counts_once(&*new().await).await;
    an_older_record_leaves_a_newer_one(&*new().await).await;
    a_peer_that_left_is_not_brought_back_by_its_last_announce(&*new().await).await;
    a_gap_is_refused(&*new().await).await;
    changes_of_one_batch_add_up(&*new().await).await;
    rows_that_are_gone_are_passed_over(&*new().await).await;
    totals_stop_at_the_largest_number(&*new().await).await;
    changes_of_a_torrent_under_a_former_id_are_its_own(&*new().await).await;
    a_torrent_is_completed_once(&*new().await).await;
}

/// A driver says so, and does not pretend.
async fn what_is_missing_is_refused(missing: &[Optional], storage: &dyn Storage) {
    let lists = Find {
        text: None,
        enabled: None,
        sort: UserKey::Id,
        descending: false,
        offset: 0,
        limit: 1,
    };
    for part in missing {
        let answer = match part {
            Optional::Edits => storage.update_user(UserId(1), &UserPatch::default()).await,
            Optional::Whitelist => storage.add_clients(&[client("-TR", "A")]).await,
            Optional::Lists => storage.find_users(&lists).await.map(drop),
            Optional::Totals => storage.wipe(Wipe::Users, None, 1).await.map(drop),
            Optional::Feed => {
                assert!(!storage.has_feed(), "it has no feed");
                continue;
            }
            _ => continue,
        };
        let is_refused = matches!(answer, Err(StorageError::Unsupported(_)));
        assert!(is_refused, "{part:?}: {answer:?}");
    }
}

async fn migrations_are_applied_once(storage: &dyn Storage) {
    assert!(
        storage
            .migrations()
            .await
            .unwrap()
            .iter()
            .all(|it| !it.applied)
    );
    assert!(
        !storage.check().await.unwrap().is_empty(),
        "tables are missing"
    );
    assert!(matches!(
        storage.users(None, 10).await,
        Err(StorageError::Broken(_))
    ));
    let done = storage.migrate().await.unwrap();
    assert_eq!(done.len(), storage.migrations().await.unwrap().len());
    assert!(
        storage
            .migrations()
            .await
            .unwrap()
            .iter()
            .all(|it| it.applied)
    );
    assert!(storage.migrate().await.unwrap().is_empty());
    assert_eq!(storage.check().await.unwrap(), []);
}

async fn users_are_added_and_found(storage: &dyn Storage) {
    let id = storage.add_user(&new_user(1)).await.unwrap();
    let same = NewUser {
        username: "somebody else".into(),
        ..new_user(1)
    };
    assert!(matches!(
        storage.add_user(&same).await,
        Err(StorageError::Duplicate(_))
    ));
    let other = storage.add_user(&new_user(2)).await.unwrap();
    assert_ne!(id, other);

    let stored = user(storage, id).await;
    assert_eq!(stored.user.passkey, new_user(1).passkey);
    assert_eq!(stored.user.username, "user 1");
    assert!(stored.user.enabled && stored.user.can_leech);
    assert_eq!(storage.users_named("user 1").await.unwrap(), [stored]);
    assert_eq!(storage.users_named("nobody").await.unwrap(), []);
    let unknown = UserId(other.0 + 1000);
    assert_eq!(storage.user(unknown).await.unwrap(), None);
}

async fn users_are_changed(storage: &dyn Storage) {
    let (id, _) = add_pair(storage, 1).await;
    let (other, _) = add_pair(storage, 2).await;
    let patch = UserPatch {
        enabled: Some(false),
        ..UserPatch::default()
    };
    storage.update_user(id, &patch).await.unwrap();
    let stored = user(storage, id).await;
    assert!(!stored.user.enabled && stored.user.can_leech);

    let patch = UserPatch {
        passkey: Some(new_user(2).passkey),
        ..UserPatch::default()
    };
    assert!(matches!(
        storage.update_user(id, &patch).await,
        Err(StorageError::Duplicate(_))
    ));
    let unknown = UserId(other.0 + 1000);
    assert!(matches!(
        storage.update_user(unknown, &patch).await,
        Err(StorageError::NotFound(_))
    ));
}

async fn torrents_are_added_and_found(storage: &dyn Storage) {
    let hybrid = NewTorrent {
        info_hash_v2: Some(InfoHash([99; 20])),
        ..new_torrent(1)
    };
    let second_as_first = new_torrent(99);
    let ids = storage
        .add_torrents(&[hybrid, new_torrent(2), new_torrent(1), second_as_first])
        .await
        .unwrap();
    let [Ok(Some(first)), Ok(Some(_)), Ok(None), Ok(None)] = ids[..] else {
        panic!("known info hashes must be left out: {ids:?}");
    };
    for hash in [InfoHash([1; 20]), InfoHash([99; 20])] {
        let stored = storage.torrent(hash).await.unwrap().unwrap();
        assert_eq!(
            (stored.torrent.id, stored.name.as_str()),
            (first, "torrent 1")
        );
        assert!(stored.torrent.enabled);
        assert_eq!(stored.torrent.multi_up, Permille::ONE);
    }
    assert_eq!(storage.torrent(InfoHash([77; 20])).await.unwrap(), None);
}

async fn torrents_are_changed(storage: &dyn Storage) {
    let (_, first) = add_pair(storage, 1).await;
    let patch = TorrentPatch {
        id: None,
        enabled: Some(false),
        reason: Some(Some("a duplicate".into())),
        multi_up: Some(Permille(1500)),
        multi_down: Some(Permille(0)),
        name: None,
    };
    storage.update_torrent(first, &patch).await.unwrap();
    let stored = torrent(storage, 1).await.torrent;
    assert_eq!(
        (stored.enabled, stored.reason.as_deref()),
        (false, Some("a duplicate"))
    );
    assert_eq!(
        (stored.multi_up, stored.multi_down),
        (Permille(1500), Permille(0))
    );

    let patch = TorrentPatch {
        reason: Some(None),
        ..TorrentPatch::default()
    };
    storage.update_torrent(first, &patch).await.unwrap();
    let stored = torrent(storage, 1).await.torrent;
    assert_eq!((stored.enabled, stored.reason), (false, None));
    let nothing = TorrentId(first.0 + 1000);
    let missing = storage.update_torrent(nothing, &patch).await;
    assert!(matches!(missing, Err(StorageError::NotFound(_))));
}

async fn ids_are_as_the_site_says(storage: &dyn Storage) {
    let of_site = NewUser {
        id: Some(UserId(4711)),
        can_leech: false,
        ..new_user(1)
    };
    assert_eq!(storage.add_user(&of_site).await.unwrap(), UserId(4711));
    assert!(!user(storage, UserId(4711)).await.user.can_leech);
    let same_id = NewUser {
        passkey: new_user(2).passkey,
        ..of_site
    };
    let refused = storage.add_user(&same_id).await;
    assert!(
        matches!(refused, Err(StorageError::Duplicate(_))),
        "{refused:?}"
    );
    let with_id = |id, byte| NewTorrent {
        id: Some(TorrentId(id)),
        ..new_torrent(byte)
    };
    let torrents = [with_id(815, 1), with_id(815, 2)];
    let ids = storage.add_torrents(&torrents).await.unwrap();
    assert_eq!(ids, [Ok(Some(TorrentId(815))), Ok(None)]);
}

async fn totals_and_names_are_as_the_site_says(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let patch = UserPatch {
        username: Some("renamed".into()),
        uploaded: Some(1000),
        ..UserPatch::default()
    };
    storage.update_user(id, &patch).await.unwrap();
    let patch = UserPatch {
        downloaded: Some(u64::MAX),
        ..UserPatch::default()
    };
    storage.update_user(id, &patch).await.unwrap();
    let stored = user(storage, id).await;
    assert_eq!(stored.user.username, "renamed");
    assert_eq!(
        (stored.totals.uploaded, stored.totals.downloaded),
        (1000, TOTAL_MAX)
    );
    assert!(stored.user.enabled && stored.user.can_leech);

    let patch = TorrentPatch {
        name: Some("renamed".into()),
        ..TorrentPatch::default()
    };
    storage.update_torrent(torrent_id, &patch).await.unwrap();
    assert_eq!(torrent(storage, 1).await.name, "renamed");
}

async fn lists_are_searched_and_sorted(storage: &dyn Storage) {
    let mut ids = Vec::new();
    for (number, uploaded) in [(1, 30), (2, 10), (3, 20), (11, 40)] {
        let (id, torrent) = add_pair(storage, number).await;
        let patch = UserPatch {
            uploaded: Some(uploaded),
            enabled: Some(number != 3),
            ..UserPatch::default()
        };
        storage.update_user(id, &patch).await.unwrap();
        ids.push((id, torrent));
    }
    let all = Find {
        text: None,
        enabled: None,
        sort: UserKey::Uploaded,
        descending: true,
        offset: 0,
        limit: 10,
    };
    let users = async |find: Find<UserKey>| {
        let found = storage.find_users(&find).await.unwrap();
        let uploaded: Vec<u64> = found.rows.iter().map(|row| row.totals.uploaded).collect();
        (uploaded, found.total)
    };
    assert_eq!(users(all.clone()).await, (vec![40, 30, 20, 10], 4));
    let part = Find {
        offset: 1,
        limit: 2,
        ..all.clone()
    };
    assert_eq!(users(part).await, (vec![30, 20], 4));
    let enabled = Find {
        enabled: Some(true),
        descending: false,
        ..all.clone()
    };
    assert_eq!(users(enabled).await, (vec![10, 30, 40], 3));
    let named = Find {
        text: Some("ser 1".into()),
        ..all.clone()
    };
    assert_eq!(users(named).await, (vec![40, 30], 2));
    let by_id = Find {
        text: Some(ids[2].0.0.to_string()),
        ..all.clone()
    };
    assert!(users(by_id).await.0.contains(&20));
    let no_pattern = Find {
        text: Some("%".into()),
        ..all
    };
    assert_eq!(users(no_pattern).await, (vec![], 0));

    let torrents = Find {
        text: Some("torrent 1".into()),
        enabled: None,
        sort: TorrentKey::Name,
        descending: true,
        offset: 0,
        limit: 1,
    };
    let found = storage.find_torrents(&torrents).await.unwrap();
    assert_eq!((found.rows[0].torrent.id, found.total), (ids[3].1, 2));
}

async fn a_users_torrents_are_listed(storage: &dyn Storage) {
    let (id, seeded) = add_pair(storage, 1).await;
    let (other, left) = add_pair(storage, 2).await;
    let mut seeding = change(id, seeded, 1, 1);
    seeding.record.left = Some(0);
    let mut leaving = change(id, left, 1, 1);
    leaving.record.active = false;
    leaving.standing.hnr = true;
    let stranger = change(other, seeded, 2, 1);
    let changes = [seeding, leaving, stranger].map(Change::from).to_vec();
    apply(storage, 1, changes).await;
    let torrents = storage.torrents_of(id).await.unwrap();
    assert_eq!(
        (torrents.active, torrents.complete),
        (vec![seeded], vec![seeded])
    );
    assert_eq!((torrents.incomplete, torrents.hnr), (vec![], vec![left]));
    let unknown = storage.torrents_of(UserId(99)).await.unwrap();
    assert_eq!(unknown, UserTorrents::default());
}

async fn clients_are_added_renamed_and_removed(storage: &dyn Storage) {
    storage
        .add_clients(&[client("-TR", "A"), client("-qB", "B")])
        .await
        .unwrap();
    storage
        .add_clients(&[client("-TR", "Transmission")])
        .await
        .unwrap();
    let mut list = storage.whitelist().await.unwrap();
    list.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    assert_eq!(list, [client("-TR", "Transmission"), client("-qB", "B")]);
    storage.remove_client("-TR").await.unwrap();
    assert_eq!(storage.whitelist().await.unwrap(), [client("-qB", "B")]);
    assert!(matches!(
        storage.remove_client("-TR").await,
        Err(StorageError::NotFound(_))
    ));
}

async fn pages_of_any_size_hold_every_row_once(storage: &dyn Storage) {
    let mut changes = Vec::new();
    let mut users = Vec::new();
    for number in 1..=5 {
        let (user, torrent) = add_pair(storage, number).await;
        users.push(user);
        for user in &users {
            changes.push(change(*user, torrent, number, 100));
        }
    }
    let expected = changes.len();
    apply(storage, 1, changes.into_iter().map(Change::from).collect()).await;
    every_row_is_read_once(storage, expected).await;
    if let Some(reader) = storage.reader() {
        assert_eq!(
            reader.identity().await.unwrap(),
            storage.identity().await.unwrap()
        );
        every_row_is_read_once(&*reader, expected).await;
    }
}

async fn every_row_is_read_once(storage: &dyn Storage, expected: usize) {
    for limit in [1, 2, 7, 1000] {
        let users = keys(|after| storage.users(after, limit), |row| row.user.id).await;
        assert_rising(&users, 5);
        let torrents = keys(|after| storage.torrents(after, limit), |row| row.torrent.id).await;
        assert_rising(&torrents, 5);
        let peers = keys(|after| storage.peers(NOW, after, limit), |row| row.key).await;
        assert_rising(&peers, expected);
        let key = |row: &StoredHistory| (row.torrent, row.user);
        let histories = keys(|after| storage.histories(after, limit), key).await;
        assert_rising(&histories, expected);
    }
}

async fn torrents_with_records_are_found(storage: &dyn Storage) {
    let torrents = add_three_one_used(storage).await;
    let found = storage.with_records(&torrents).await.unwrap();
    assert!(found.contains(&torrents[1]), "{found:?}");
    assert_eq!(storage.with_records(&[]).await.unwrap(), []);
    let (histories, peers) = storage.records_of(torrents[1]).await.unwrap();
    assert_eq!((histories.len(), peers.len()), (1, 1));
}

async fn only_torrents_with_records_are_found(storage: &dyn Storage) {
    let torrents = add_three_one_used(storage).await;
    let found = storage.with_records(&torrents).await.unwrap();
    assert_eq!(found, torrents[1..2]);
}

/// Adds three torrents, of which the second has a peer.
async fn add_three_one_used(storage: &dyn Storage) -> Vec<TorrentId> {
    let mut torrents = Vec::new();
    for number in 1..=3 {
        let (user, torrent) = add_pair(storage, number).await;
        torrents.push(torrent);
        if number == 2 {
            let change = change(user, torrent, number, 1);
            apply(storage, 1, vec![Change::from(change)]).await;
        }
    }
    torrents
}

async fn old_peers_are_read_while_they_are_active(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let active = change(id, torrent_id, 1, 1);
    let mut left = change(id, torrent_id, 2, 1);
    left.record.active = false;
    let key = active.key;
    apply(storage, 1, [active, left].map(Change::from).to_vec()).await;
    assert_eq!(storage.peers(NOW, None, 10).await.unwrap().rows.len(), 2);
    let later = storage.peers(NOW + 1, None, 10).await.unwrap();
    let keys: Vec<PeerKey> = later.rows.iter().map(|row| row.key).collect();
    assert_eq!(keys, [key], "the other left before");
    assert!(later.last);
}

async fn a_database_has_a_name_that_stays(storage: &dyn Storage) {
    let name = storage.identity().await.unwrap();
    add_pair(storage, 1).await;
    storage.migrate().await.unwrap();
    assert_eq!(storage.identity().await.unwrap(), name);
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    assert!((1..=64).contains(&name.len()) && is_plain(&name), "{name}");
    if let Some(time) = storage.time().await.unwrap() {
        let own = Clock::start().now().unix;
        assert!((time - own).abs() < 60, "{time}, and here {own}");
    }
}

async fn the_feed_tells_of_new_rows(storage: &dyn Storage) {
    assert!(storage.has_feed());
    let start = storage.feed_position().await.unwrap();
    let (changes, same) = feed(storage, start).await;
    assert_eq!((changes, same), (vec![], start));

    let (id, torrent_id) = add_pair(storage, 1).await;
    let (changes, position) = feed(storage, start).await;
    assert_eq!(changes.len(), 2);
    assert!(changes.contains(&RowChange::User(user(storage, id).await)));
    assert!(changes.contains(&RowChange::Torrent(torrent(storage, 1).await)));
    assert_eq!(position, storage.feed_position().await.unwrap());

    // Credit and counters are no changes of the registry.
    apply(storage, 1, vec![Change::from(change(id, torrent_id, 1, 5))]).await;
    assert_eq!(feed(storage, position).await, (vec![], position));
}

async fn the_feed_tells_of_edits(storage: &dyn Storage) {
    let (_, torrent_id) = add_pair(storage, 1).await;
    let start = storage.feed_position().await.unwrap();
    storage.add_clients(&[client("-TR", "A")]).await.unwrap();
    let (changes, position) = feed(storage, start).await;
    let list = vec![client("-TR", "A")];
    assert_eq!(changes, [RowChange::Whitelist(list)]);

    // Several edits of one row are one change, to what the row is now.
    for enabled in [false, true, false] {
        let patch = TorrentPatch {
            enabled: Some(enabled),
            ..TorrentPatch::default()
        };
        storage.update_torrent(torrent_id, &patch).await.unwrap();
    }
    let (changes, _) = feed(storage, position).await;
    let [RowChange::Torrent(only)] = &changes[..] else {
        panic!("one change expected: {changes:?}");
    };
    assert!(!only.torrent.enabled);
}

async fn the_feed_is_read_in_portions(storage: &dyn Storage) {
    let mut position = storage.feed_position().await.unwrap();
    let mut added = Vec::new();
    for number in 1..=5 {
        added.push(storage.add_user(&new_user(number)).await.unwrap());
    }
    let mut followed = Vec::new();
    loop {
        let Feed::Changes(changes, reached) = storage.feed(position, 2).await.unwrap() else {
            panic!("the feed is lost at {position:?}");
        };
        assert!(changes.len() <= 2);
        if reached == position {
            break;
        }
        position = reached;
        followed.extend(changes.into_iter().map(|change| match change {
            RowChange::User(row) => row.user.id,
            other => panic!("a user expected: {other:?}"),
        }));
    }
    assert_eq!(followed, added);
    // A position that this database never had: it was replaced by an older one.
    let ahead = FeedPosition(position.0 + 1000);
    assert!(matches!(storage.feed(ahead, 10).await.unwrap(), Feed::Lost));
}

async fn base_and_credit_arrive_together(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 0);
    let mut first = change(id, torrent_id, 1, 1000);
    first.credit.snatched = true;
    first.standing.completed_at = Some(NOW);
    first.standing.hnr = true;
    apply(storage, 1, vec![Change::from(first.clone())]).await;
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 1);
    assert_eq!(storage.last_applied("node-b").await.unwrap(), 0);

    let peers = storage.peers(NOW, None, 10).await.unwrap();
    assert_eq!((peers.rows.len(), peers.bad.len()), (1, 0));
    assert_eq!(
        (peers.rows[0].key, &peers.rows[0].record),
        (first.key, &first.record)
    );
    let totals = user(storage, id).await.totals;
    assert_eq!((totals.uploaded, totals.downloaded), (2000, 500));
    assert_eq!(
        (totals.snatches, totals.announces, totals.seed_time),
        (1, 1, 60)
    );
    let stored = torrent(storage, 1).await;
    assert_eq!(
        (stored.uploaded, stored.downloaded, stored.announces),
        (1000, 1000, 1)
    );
    assert_eq!(
        (stored.seeders, stored.leechers, stored.torrent.snatches),
        (3, 4, 1)
    );
    let expected = StoredHistory {
        user: id,
        torrent: torrent_id,
        uploaded: 1000,
        downloaded: 1000,
        seed_time: 60,
        completed_at: Some(NOW),
        hnr: true,
    };
    assert_eq!(storage.histories(None, 10).await.unwrap().rows, [expected]);

    // Everything that a record may lack.
    let mut second = first.clone();
    second.record = PeerRecord {
        left: None,
        v4: None,
        v6: None,
        dip_up: None,
        active: false,
        ..first.record
    };
    second.standing.hnr = false;
    apply(storage, 2, vec![Change::from(second.clone())]).await;
    let peers = storage.peers(NOW, None, 10).await.unwrap();
    assert_eq!(peers.rows[0].record, second.record);
    assert!(!storage.histories(None, 10).await.unwrap().rows[0].hnr);
    assert_eq!(user(storage, id).await.totals.uploaded, 4000);
}

async fn a_batch_counts_once(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let changes = vec![Change::from(change(id, torrent_id, 1, 10))];
    for _ in 0..3 {
        apply(storage, 1, changes.clone()).await;
    }
    apply(storage, 2, changes.clone()).await;
    apply(storage, 1, changes.clone()).await;
    assert_eq!(user(storage, id).await.totals.uploaded, 40);
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 2);

    // Several at once, some of which are known.
    let several: Vec<_> = (1..=4)
        .map(|number| batch(number, changes.clone()))
        .collect();
    storage
        .apply(&several, &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(user(storage, id).await.totals.uploaded, 80);
    assert_eq!(storage.journals().await.unwrap(), [(NODE.into(), 4)]);
}

async fn an_ended_journal_is_forgotten(storage: &dyn Storage) {
    for number in 1..=4 {
        apply(storage, number, Vec::new()).await;
    }
    assert!(!storage.forget_journal(NODE, 3).await.unwrap());
    assert!(!storage.forget_journal("another", 4).await.unwrap());
    assert_eq!(storage.last_applied(NODE).await.unwrap(), 4);
    assert!(storage.forget_journal(NODE, 4).await.unwrap());
    assert_eq!(storage.journals().await.unwrap(), []);
}

async fn totals_are_wiped_in_portions(storage: &dyn Storage) {
    let mut changes = Vec::new();
    for number in 1..=3 {
        let (user, torrent) = add_pair(storage, number).await;
        let mut change = change(user, torrent, number, 10);
        change.credit.snatched = true;
        changes.push(Change::from(change));
    }
    apply(storage, 1, changes).await;
    let position = storage.feed_position().await.unwrap();
    for (what, calls) in [(Wipe::Users, 3), (Wipe::Torrents, 3)] {
        let (mut after, mut done) = (None, 0);
        loop {
            after = storage.wipe(what, after, 2).await.unwrap();
            done += 1;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(done, calls, "two rows, one row, none");
    }
    for row in storage.users(None, 10).await.unwrap().rows {
        assert_eq!(row.totals, UserTotals::default());
    }
    for row in storage.torrents(None, 10).await.unwrap().rows {
        assert_eq!((row.uploaded, row.downloaded, row.announces), (0, 0, 0));
        assert_eq!((row.torrent.snatches, row.seeders), (0, 3));
    }
    assert_eq!(
        storage.histories(None, 10).await.unwrap().rows[0].uploaded,
        10
    );
    assert_eq!(feed(storage, position).await.0, vec![]);
}

async fn invalid_totals_are_found_and_fixed(storage: &dyn Storage) {
    let (first, _) = add_pair(storage, 1).await;
    let (user_id, torrent) = add_pair(storage, 2).await;
    let mut change = change(user_id, torrent, 2, 10);
    change.credit.up = TOTAL_MAX;
    change.credit.raw_down = TOTAL_MAX;
    apply(storage, 1, vec![Change::from(change)]).await;
    for (what, id, field) in [
        (Wipe::Users, user_id.0, "uploaded"),
        (Wipe::Torrents, torrent.0, "downloaded"),
    ] {
        let found = storage.invalid_totals(what, None, 1).await.unwrap();
        assert!(found.0.is_empty(), "it looks at one row: {found:?}");
        let (found, last) = storage.invalid_totals(what, found.1, 10).await.unwrap();
        let fields = vec![field];
        assert_eq!(found, [InvalidTotals { id, fields }]);
        assert_eq!(last, Some(id));
        let end = storage.invalid_totals(what, last, 10).await.unwrap();
        assert_eq!(end, (vec![], None));
        storage.fix_totals(what, &[first.0, id]).await.unwrap();
        assert_eq!(storage.invalid_totals(what, None, 10).await.unwrap().0, []);
    }
    let totals = user(storage, user_id).await.totals;
    assert_eq!(totals.uploaded, 0);
    assert_eq!(totals.downloaded, 5, "the others stay");
}

/// One node journals a peer's announce, another one that the peer left after it: the peer is gone, whichever
/// comes first.
async fn a_peer_that_left_is_not_brought_back_by_its_last_announce(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let there = change(id, torrent_id, 1, 10);
    // Their clocks need not agree.
    let mut gone = there.clone();
    (gone.record.active, gone.record.last_announce) = (false, there.record.last_announce - 1);
    apply(storage, 1, vec![Change::from(there.clone())]).await;
    apply(storage, 2, vec![Change::from(gone)]).await;
    apply(storage, 3, vec![Change::from(there.clone())]).await;
    let is_active = async || {
        let page = storage.peers(0, None, 10).await.unwrap();
        page.rows[0].record.active
    };
    assert!(!is_active().await);
    let mut back = there;
    back.record.announces += 1;
    apply(storage, 4, vec![Change::from(back)]).await;
    assert!(is_active().await);
}

async fn an_older_record_leaves_a_newer_one(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let mut newer = change(id, torrent_id, 1, 10);
    newer.record.announces = 7;
    newer.record.base_up = 700;
    apply(storage, 1, vec![Change::from(newer.clone())]).await;
    // A late batch of another node: the credit counts, the record is outdated.
    let mut older = newer.clone();
    older.record.announces = 6;
    older.record.last_announce = NOW + 2;
    older.record.base_up = 600;
    apply(storage, 2, vec![Change::from(older)]).await;
    let record = |page: Page<super::StoredPeer>| page.rows[0].record.clone();
    let found = record(storage.peers(0, None, 10).await.unwrap());
    assert_eq!(found, newer.record);
    assert_eq!(user(storage, id).await.totals.uploaded, 40);

    // A record that began again counts its announces from 1.
    let mut again = newer.clone();
    again.record.announces = 1;
    again.record.first_announce = NOW + 3600;
    again.record.last_announce = NOW + 3600;
    again.record.base_up = 5;
    apply(storage, 3, vec![Change::from(again.clone())]).await;
    let found = record(storage.peers(0, None, 10).await.unwrap());
    assert_eq!(found, again.record);
    again.record.announces = 2;
    again.record.base_up = 6;
    apply(storage, 4, vec![Change::from(again.clone())]).await;
    let found = record(storage.peers(0, None, 10).await.unwrap());
    assert_eq!(found, again.record);

    // A late change of the record before it, which had more announces, does not replace it.
    let mut former = newer;
    former.record.announces = 60;
    former.record.last_announce = NOW + 1800;
    apply(storage, 5, vec![Change::from(former)]).await;
    let found = record(storage.peers(0, None, 10).await.unwrap());
    assert_eq!(found, again.record);
}

async fn the_newest_announce_is_known(storage: &dyn Storage) {
    assert_eq!(storage.newest_announce().await.unwrap(), None);
    let (id, torrent_id) = add_pair(storage, 1).await;
    let change = change(id, torrent_id, 1, 10);
    apply(storage, 1, vec![Change::from(change)]).await;
    assert_eq!(storage.newest_announce().await.unwrap(), Some(NOW));
}

async fn a_gap_is_refused(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let late = batch(2, vec![Change::from(change(id, torrent_id, 1, 10))]);
    let refused = storage
        .apply(&[Arc::clone(&late)], &CreditRules::default())
        .await;
    let Err(StorageError::Behind { applied, first, .. }) = refused else {
        panic!("a batch was applied whose forerunner is missing")
    };
    assert_eq!((applied, first), (0, 2));
    assert_eq!(user(storage, id).await.totals.uploaded, 0);
    assert!(storage.peers(0, None, 10).await.unwrap().rows.is_empty());

    // Whoever gives up what is missing goes on after it.
    storage.begin_at(&late.journal, 1).await.unwrap();
    assert_eq!(storage.last_applied(&late.journal).await.unwrap(), 1);
    storage
        .apply(&[Arc::clone(&late)], &CreditRules::default())
        .await
        .unwrap();
    storage.begin_at(&late.journal, 1).await.unwrap();
    assert_eq!(storage.last_applied(&late.journal).await.unwrap(), 2);
    assert_eq!(storage.peers(0, None, 10).await.unwrap().rows.len(), 1);
}

async fn changes_of_one_batch_add_up(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let (other, _) = add_pair(storage, 2).await;
    let mut last = change(id, torrent_id, 1, 30);
    last.record.base_up = 12345;
    last.counts.seeders = 9;
    let changes = [
        change(id, torrent_id, 1, 10),
        change(id, torrent_id, 2, 20),
        change(other, torrent_id, 3, 5),
        last.clone(),
    ];
    apply(storage, 1, changes.into_iter().map(Change::from).collect()).await;
    let totals = user(storage, id).await.totals;
    assert_eq!((totals.uploaded, totals.announces), (120, 3));
    assert_eq!(user(storage, other).await.totals.uploaded, 10);
    let stored = torrent(storage, 1).await;
    assert_eq!((stored.uploaded, stored.seeders), (65, 9));
    let peers = storage.peers(0, None, 10).await.unwrap().rows;
    assert_eq!(peers.len(), 3);
    assert_eq!(peers[0].record, last.record, "the latest record stands");
    let histories = storage.histories(None, 10).await.unwrap().rows;
    assert_eq!(
        histories.iter().map(|it| it.uploaded).collect::<Vec<_>>(),
        [60, 5]
    );
}

async fn rows_that_are_gone_are_passed_over(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let changes = [
        change(UserId(id.0 + 1000), torrent_id, 1, 10),
        PeerChange {
            info_hash: InfoHash([77; 20]),
            ..change(id, TorrentId(torrent_id.0 + 1000), 1, 10)
        },
        change(id, torrent_id, 1, 7),
    ];
    apply(storage, 1, changes.into_iter().map(Change::from).collect()).await;
    assert_eq!(user(storage, id).await.totals.uploaded, 14);
    assert_eq!(torrent(storage, 1).await.uploaded, 7);
    assert_eq!(storage.peers(0, None, 10).await.unwrap().rows.len(), 1);
    assert_eq!(storage.histories(None, 10).await.unwrap().rows.len(), 1);
}

/// A batch may have been made before the torrent got another id.
async fn changes_of_a_torrent_under_a_former_id_are_its_own(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let former = TorrentId(torrent_id.0 + 1000);
    let change = Change::from(change(id, former, 1, 10));
    apply(storage, 1, vec![change]).await;
    assert_eq!(user(storage, id).await.totals.uploaded, 20);
    assert_eq!(torrent(storage, 1).await.uploaded, 10);
    let peers = storage.peers(0, None, 10).await.unwrap().rows;
    assert_eq!(peers[0].key.torrent, torrent_id);
    let histories = storage.histories(None, 10).await.unwrap().rows;
    assert_eq!(
        (histories[0].torrent, histories[0].uploaded),
        (torrent_id, 10)
    );
}

async fn a_torrent_takes_its_records_along_to_another_id(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let (_, other) = add_pair(storage, 2).await;
    apply(
        storage,
        1,
        vec![Change::from(change(id, torrent_id, 1, 10))],
    )
    .await;
    let (_, position) = feed(storage, FeedPosition(0)).await;
    let new_id = TorrentId(other.0 + 1000);
    let to = |id| TorrentPatch {
        id: Some(id),
        name: Some("moved".into()),
        ..TorrentPatch::default()
    };
    assert!(matches!(
        storage.update_torrent(torrent_id, &to(other)).await,
        Err(StorageError::Duplicate(_))
    ));
    assert_eq!(torrent(storage, 1).await.name, new_torrent(1).name);
    storage
        .update_torrent(torrent_id, &to(new_id))
        .await
        .unwrap();

    let stored = torrent(storage, 1).await;
    assert_eq!((stored.torrent.id, &stored.name[..]), (new_id, "moved"));
    let (histories, peers) = storage.records_of(new_id).await.unwrap();
    assert_eq!((histories.len(), peers.len()), (1, 1));
    assert_eq!((histories[0].uploaded, peers[0].key.user), (10, id));
    let (histories, peers) = storage.records_of(torrent_id).await.unwrap();
    assert_eq!((histories.len(), peers.len()), (0, 0));
    let (changes, _) = feed(storage, position).await;
    assert!(
        changes.contains(&RowChange::TorrentGone(torrent_id)),
        "{changes:?}"
    );
    assert!(
        changes
            .iter()
            .any(|it| matches!(it, RowChange::Torrent(row) if row.torrent.id == new_id)),
        "{changes:?}"
    );
    // What was on its way under the old id follows, and a torrent that is added next gets an id above the new one.
    apply(storage, 2, vec![Change::from(change(id, torrent_id, 1, 5))]).await;
    let (histories, _) = storage.records_of(new_id).await.unwrap();
    assert_eq!(histories[0].uploaded, 15);
    let added = storage.add_torrents(&[new_torrent(3)]).await.unwrap();
    assert!(
        added[0].as_ref().is_ok_and(|added| *added > Some(new_id)),
        "{added:?}"
    );
    // The former id is free, unless records are left under it.
    storage
        .update_torrent(new_id, &to(torrent_id))
        .await
        .unwrap();
    assert_eq!(torrent(storage, 1).await.torrent.id, torrent_id);
}

async fn totals_stop_at_the_largest_number(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let mut huge = change(id, torrent_id, 1, u64::MAX);
    huge.record.left = Some(u64::MAX);
    huge.credit.down = TOTAL_MAX - 1;
    for number in 1..=3 {
        apply(storage, number, vec![Change::from(huge.clone())]).await;
    }
    let totals = user(storage, id).await.totals;
    assert_eq!((totals.uploaded, totals.downloaded), (TOTAL_MAX, TOTAL_MAX));
    assert_eq!(torrent(storage, 1).await.uploaded, TOTAL_MAX);
    assert_eq!(
        storage.histories(None, 1).await.unwrap().rows[0].uploaded,
        TOTAL_MAX
    );
    let record = &storage.peers(0, None, 1).await.unwrap().rows[0].record;
    assert_eq!((record.base_up, record.left), (TOTAL_MAX, Some(TOTAL_MAX)));
}

async fn a_torrent_is_completed_once(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    for (number, at) in [(1, None), (2, Some(NOW)), (3, Some(NOW + 99)), (4, None)] {
        let mut change = change(id, torrent_id, 1, 1);
        change.standing.completed_at = at;
        apply(storage, number, vec![Change::from(change)]).await;
    }
    assert_eq!(
        storage.histories(None, 1).await.unwrap().rows[0].completed_at,
        Some(NOW)
    );
}

async fn a_public_snatch_registers_its_torrent(storage: &dyn Storage) {
    let hybrid = NewTorrent {
        info_hash_v2: Some(InfoHash([99; 20])),
        ..new_torrent(1)
    };
    storage.add_torrents(&[hybrid]).await.unwrap();
    let snatches = |byte, count| Change::Snatches {
        info_hash: InfoHash([byte; 20]),
        count,
    };
    let new = [(1, 1), (99, 1), (5, 1), (5, 70_000)].map(|(byte, count)| snatches(byte, count));
    apply(storage, 1, new.to_vec()).await;
    apply(storage, 2, vec![snatches(5, 1)]).await;
    assert_eq!(torrent(storage, 1).await.torrent.snatches, 2);
    assert_eq!(torrent(storage, 5).await.torrent.snatches, 70_002);
}

async fn torrents_are_removed_with_their_peers(storage: &dyn Storage) {
    let (user, torrent_id) = add_pair(storage, 1).await;
    add_pair(storage, 2).await;
    let peer = change(user, torrent_id, 1, 1);
    apply(storage, 1, vec![Change::from(peer)]).await;
    let position = storage.feed_position().await.unwrap();
    let removal = |byte| TorrentRemoval {
        info_hash: InfoHash([byte; 20]),
        unused: None,
    };
    let all = [removal(1), removal(99)];
    assert_eq!(storage.remove_torrents(&all).await.unwrap(), 1);
    assert_eq!(storage.remove_torrents(&all).await.unwrap(), 0);
    assert!(storage.torrent(InfoHash([1; 20])).await.unwrap().is_none());
    assert!(storage.peers(0, None, 10).await.unwrap().rows.is_empty());
    torrent(storage, 2).await;
    let (changes, _) = feed(storage, position).await;
    assert!(
        changes.contains(&RowChange::TorrentGone(torrent_id)),
        "{changes:?}"
    );
}

async fn only_unused_torrents_of_strangers_give_way(storage: &dyn Storage) {
    add_pair(storage, 1).await;
    let snatch = |byte| Change::Snatches {
        info_hash: InfoHash([byte; 20]),
        count: 1,
    };
    apply(storage, 1, [1, 2, 3, 3, 4].map(snatch).to_vec()).await;
    let disabled = TorrentPatch {
        enabled: Some(false),
        ..TorrentPatch::default()
    };
    let id = torrent(storage, 4).await.torrent.id;
    storage.update_torrent(id, &disabled).await.unwrap();
    let unused = |byte, most| TorrentRemoval {
        info_hash: InfoHash([byte; 20]),
        unused: Some(most),
    };
    // One with a name, one that is unused, one that was used since, one that is disabled.
    let wanted = [unused(1, 9), unused(2, 1), unused(3, 1), unused(4, 9)];
    assert_eq!(storage.remove_torrents(&wanted).await.unwrap(), 1);
    for (byte, is_there) in [(1, true), (2, false), (3, true), (4, true)] {
        let found = storage.torrent(InfoHash([byte; 20])).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{byte}");
    }
    assert_eq!(storage.remove_torrents(&[unused(3, 2)]).await.unwrap(), 1);
    apply(storage, 2, vec![snatch(3)]).await;
    assert_eq!(
        torrent(storage, 3).await.torrent.snatches,
        1,
        "registered again"
    );
}

async fn old_tombstones_are_pruned(storage: &dyn Storage) {
    let (id, torrent_id) = add_pair(storage, 1).await;
    let mut changes = Vec::new();
    for (byte, last_announce, active) in [
        (1, NOW, false),
        (2, NOW, false),
        (3, NOW, true),
        (4, NOW + 10, false),
    ] {
        let mut change = change(id, torrent_id, byte, 1);
        change.record.last_announce = last_announce;
        change.record.active = active;
        changes.push(Change::from(change));
    }
    apply(storage, 1, changes).await;
    for (before, found) in [
        (NOW, None),
        (NOW + 10, Some(NOW)),
        (NOW + 11, Some(NOW + 10)),
    ] {
        assert_eq!(storage.last_gone(before).await.unwrap(), found, "{before}");
    }
    assert_eq!(storage.prune(NOW, 10).await.unwrap(), 0);
    assert_eq!(storage.prune(NOW + 10, 1).await.unwrap(), 1);
    assert_eq!(storage.prune(NOW + 10, 10).await.unwrap(), 1);
    let left = storage.peers(0, None, 10).await.unwrap().rows;
    let left: Vec<u8> = left.iter().map(|row| row.key.peer_id.0[0]).collect();
    assert_eq!(left, [3, 4]);
    assert_eq!(
        storage.histories(None, 10).await.unwrap().rows.len(),
        1,
        "history is never deleted"
    );
    let position = storage.feed_position().await.unwrap();
    assert_eq!(feed(storage, position).await.1, position);
}

// --- what the tests are made of ---

async fn migrated(storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
    storage.migrate().await.unwrap();
    storage
}

async fn add_pair(storage: &dyn Storage, number: u8) -> (UserId, TorrentId) {
    let user = storage.add_user(&new_user(number)).await.unwrap();
    let torrents = storage.add_torrents(&[new_torrent(number)]).await.unwrap();
    (user, torrents[0].clone().unwrap().unwrap())
}

async fn user(storage: &dyn Storage, id: UserId) -> StoredUser {
    storage.user(id).await.unwrap().unwrap()
}

async fn torrent(storage: &dyn Storage, byte: u8) -> StoredTorrent {
    storage
        .torrent(InfoHash([byte; 20]))
        .await
        .unwrap()
        .unwrap()
}

async fn apply(storage: &dyn Storage, number: u64, changes: Vec<Change>) {
    storage
        .apply(&[batch(number, changes)], &CreditRules::default())
        .await
        .unwrap();
}

async fn feed(storage: &dyn Storage, after: FeedPosition) -> (Vec<RowChange>, FeedPosition) {
    match storage.feed(after, 1000).await.unwrap() {
        Feed::Changes(changes, position) => (changes, position),
        Feed::Lost => panic!("the feed is lost at {after:?}"),
    }
}

/// The keys of all rows, page after page.
async fn keys<T, K: Copy, F>(read: impl Fn(Option<K>) -> F, key: impl Fn(&T) -> K) -> Vec<K>
where
    F: Future<Output = Result<Page<T>, StorageError>>,
{
    let mut keys = Vec::new();
    loop {
        let page = read(keys.last().copied()).await.unwrap();
        assert!(page.bad.is_empty());
        keys.extend(page.rows.iter().map(&key));
        if page.last {
            return keys;
        }
    }
}

fn assert_rising<K: Ord + std::fmt::Debug>(keys: &[K], expected: usize) {
    assert_eq!(keys.len(), expected);
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
}

fn batch(number: u64, changes: Vec<Change>) -> Arc<Batch> {
    Arc::new(Batch::new(NODE.into(), number, changes))
}

fn new_user(number: u8) -> NewUser {
    NewUser {
        id: None,
        username: format!("user {number}"),
        passkey: format!("passkey-{number}").parse().unwrap(),
        can_leech: true,
    }
}

fn new_torrent(byte: u8) -> NewTorrent {
    NewTorrent {
        id: None,
        info_hash: InfoHash([byte; 20]),
        info_hash_v2: None,
        name: format!("torrent {byte}"),
    }
}

fn client(prefix: &str, name: &str) -> ClientPrefix {
    ClientPrefix {
        prefix: prefix.into(),
        name: name.into(),
    }
}

/// An announce that counts `bytes` both ways on a torrent with double upload and half download.
fn change(user: UserId, torrent: TorrentId, peer: u8, bytes: u64) -> PeerChange {
    PeerChange {
        key: PeerKey {
            user,
            torrent,
            peer_id: PeerId([peer; 20]),
        },
        info_hash: InfoHash([1; 20]),
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
