//! Tables as sites have them, and statements of their own.

use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::storage::{CreditRules, NewUser, StorageError};

use super::{Fixture, problems, try_open};
use crate::harness::postgres::Postgres;
use crate::mysql::batch;
use crate::mysql::setups::user;
use crate::mysql::sites::{apply_an_older_record_last, settle_against_a_base};

#[tokio::test]
async fn strict_tables_with_extra_columns_take_credit() {
    let it = Fixture::empty(&[]).await;
    it.sql(
        "ALTER TABLE users ADD email text NOT NULL, ADD born int NOT NULL, ALTER uploaded DROP NOT NULL,
             ALTER seed_time TYPE numeric(20, 0), ALTER seed_time DROP NOT NULL;
         ALTER TABLE torrents ADD size bigint NOT NULL, ALTER snatches DROP NOT NULL;
         INSERT INTO users (id, passkey, username, enabled, can_leech, uploaded, seed_time, email, born)
         VALUES (7, 'passkey-7', 'seven', true, true, NULL, NULL, '', 0),
             (8, 'passkey-8', 'eight', false, false, 0, 0, '', 0);
         INSERT INTO torrents (id, info_hash, size, snatches)
         VALUES (3, decode(repeat('01', 20), 'hex'), 0, NULL), (4, decode(repeat('02', 20), 'hex'), 0, 0)",
    );
    for number in 1..=2 {
        it.storage
            .apply(&[batch(number, 0..10)], &CreditRules::default())
            .await
            .unwrap();
    }
    assert_eq!((it.uploaded(7).await, it.uploaded(8).await), (10, 10));
    let users = it.storage.users(None, 10).await.unwrap().rows;
    let flags: Vec<_> = users
        .iter()
        .map(|it| (it.user.enabled, it.user.can_leech))
        .collect();
    assert_eq!(flags, [(true, true), (false, false)]);
    let found = problems(&*it.storage).await;
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(
        found.contains("the columns `email`, `born` of `users` have no default"),
        "{found}"
    );
    // A site fills its own columns by a statement.
    let user = user("nine", "passkey-9");
    let error = it.storage.add_user(&user).await.unwrap_err().to_string();
    assert!(
        error.contains("`email`") && error.contains("storage.statements"),
        "{error}"
    );
    let add_user = "INSERT INTO users (passkey, username, email, born) \
        VALUES (:passkey, :username, :username || '@example.org', 2000)";
    let storage = try_open(&it.server.url("mika"), &[("add_user", add_user)]).unwrap();
    let with_id = NewUser {
        id: Some(UserId(4711)),
        ..user.clone()
    };
    let error = storage.add_user(&with_id).await.unwrap_err().to_string();
    assert!(error.contains("storage.statements.add_user"), "{error}");
    let id = storage.add_user(&user).await.unwrap();
    assert_eq!(
        it.sql(&format!("SELECT email FROM users WHERE id = {}", id.0)),
        "nine@example.org"
    );
}

#[tokio::test]
async fn another_application_is_read_by_its_own_statements() {
    let server = Postgres::start();
    let url = server.database("site");
    let sql = |text: &str| server.sql("site", text);
    sql(
        "CREATE TABLE files (fid int PRIMARY KEY, hash char(40) NOT NULL, title text);
         INSERT INTO files VALUES (3, repeat('01', 20), 'three')",
    );
    let columns = "SELECT fid, decode(hash, 'hex'), NULL, title, true, NULL, 1, 1, 0, 0, 0, 0, 0, 0 FROM files";
    let (page, one) = (
        format!("{columns} WHERE fid > :after ORDER BY fid LIMIT :limit"),
        format!("{columns} WHERE fid = :id"),
    );
    let statements = [
        ("torrents", page.as_str()),
        ("torrent", one.as_str()),
        (
            "torrents_of_hashes",
            "SELECT fid, decode(hash, 'hex'), NULL
             FROM {rows} AS wanted JOIN files ON hash = encode(wanted.info_hash, 'hex')",
        ),
        ("feed", ""),
    ];
    // They do not go with the others of the schema.
    let storage = try_open(&url, &statements).unwrap();
    storage.migrate().await.unwrap();
    let known = "the statement torrents_known does not find the torrent 3, which torrents gives";
    assert_eq!(problems(&*storage).await, known);
    let known = (
        "torrents_known",
        "SELECT fid FROM {rows} AS wanted JOIN files ON fid = wanted.id",
    );
    let statements = [statements.as_slice(), &[known]].concat();
    let storage = try_open(&url, &statements).unwrap();
    assert_eq!(problems(&*storage).await, "");
    let stored = storage.torrent(InfoHash([1; 20])).await.unwrap().unwrap();
    assert_eq!(
        (stored.torrent.id, stored.name.as_str()),
        (TorrentId(3), "three")
    );
    assert_eq!(storage.torrents(None, 10).await.unwrap().rows, [stored]);
    // Without a feed nothing ever changes.
    let position = storage.feed_position().await.unwrap();
    sql("INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')");
    assert_eq!(storage.feed_position().await.unwrap(), position);
    assert_eq!(position.0, 0);
    let triggers =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('users'::regclass, 'files'::regclass)";
    assert_eq!(sql(triggers), "0");
}

#[tokio::test]
async fn the_check_reports_what_is_missing() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE users DROP can_leech; ALTER TABLE history DROP announces; DROP TABLE whitelist");
    let found = problems(&*it.storage).await;
    for expected in [
        "the table history has no column announces",
        "the table `whitelist` is missing",
        "the table `users` lacks the column can_leech",
    ] {
        assert!(found.contains(expected), "{expected}:\n{found}");
    }
    assert_eq!(found.lines().count(), 3, "{found}");
    let error = it.storage.users(None, 1).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StorageError::Broken(_)));
    assert!(
        text.contains("can_leech") && text.contains("mika-manage migrate"),
        "{text}"
    );
}

#[tokio::test]
async fn an_older_record_does_not_replace_a_newer_one() {
    let it = Fixture::new().await;
    apply_an_older_record_last(&*it.storage).await;
    assert_eq!(it.uploaded(7).await, 2, "both are credited");
}

#[tokio::test]
async fn a_row_of_an_earlier_version_is_settled_against_by_its_base() {
    let it = Fixture::new().await;
    settle_against_a_base(&*it.storage, |sql| it.sql(sql)).await;
    assert_eq!(it.uploaded(7).await, 1 + 500);
}
