//! Databases that are set up the wrong way, as sites have them: nothing is written wrongly, and nothing is
//! skipped silently.

use mika::base::ids::{InfoHash, Passkey, UserId};
use mika::storage::{Feed, NewUser, StorageError, UserPatch};

use super::{Fixture, open};
use crate::harness::postgres::Postgres;
use crate::mysql::setups::{
    client, count_unfinished, follow_the_finished, named, problems, refuse_the_second_prefix,
    torrent, trim_blanks, user,
};

/// What an administrator of long ago has set for all connections.
const OLD_DEFAULTS: [&str; 9] = [
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "client_encoding = 'LATIN1'",
    "TimeZone = 'Asia/Karachi'",
    "DateStyle = 'SQL, DMY'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
];

#[tokio::test]
async fn old_defaults_change_nothing() {
    let server = Postgres::start();
    let url = server.database("mika");
    for default in OLD_DEFAULTS {
        server.sql("postgres", &format!("ALTER DATABASE mika SET {default}"));
    }
    let storage = open(&url);
    storage.migrate().await.unwrap();
    assert_eq!(problems(&*storage).await, [""; 0]);
    let users = [
        user("José", "passkey-1"),
        user("用户 🙂 \\ \"x\"", "passkey-2"),
    ];
    let ids = storage.add_users(&users).await.unwrap();
    assert!(ids.iter().all(|id| matches!(id, Ok(Some(_)))), "{ids:?}");
    let rows = storage.users(None, 10).await.unwrap().rows;
    let names: Vec<&str> = rows.iter().map(|it| it.user.username.as_str()).collect();
    assert_eq!(names, ["José", "用户 🙂 \\ \"x\""]);
    assert_eq!(named(&*storage, "用户").await.len(), 1);
    let patch = UserPatch {
        enabled: Some(false),
        ..UserPatch::default()
    };
    let id = ids[0].clone().unwrap().unwrap();
    let position = storage.feed_position().await.unwrap();
    storage.update_user(id, &patch).await.unwrap();
    let Feed::Changes(changes, _) = storage.feed(position, 10).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!(changes.len(), 1);
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused() {
    let it = Fixture::new().await;
    let storage = &*it.storage;
    it.sql(
        "ALTER TABLE users ALTER passkey TYPE varchar(20), ALTER username TYPE varchar(8);
         ALTER TABLE whitelist ALTER peer_id TYPE varchar(8)",
    );
    let found = problems(storage).await.join("\n");
    assert!(
        found.contains("`passkey` of `users` holds 20 characters"),
        "{found}"
    );
    let long: Passkey = "0123456789abcdefghijklmnopqrstuv".parse().unwrap();
    let passkey = UserPatch {
        passkey: Some(long.clone()),
        ..UserPatch::default()
    };
    let username = UserPatch {
        username: Some("a long name".into()),
        ..UserPatch::default()
    };
    for (patch, column, limit, has) in [(passkey, "passkey", 20, 32), (username, "username", 8, 11)]
    {
        let error = storage.update_user(UserId(7), &patch).await.unwrap_err();
        let text =
            format!("the column `{column}` of `users` holds {limit} characters, this has {has}");
        assert!(
            matches!(&error, StorageError::Invalid(found) if *found == text),
            "{error:?}"
        );
    }
    let added = storage.add_user(&user("nine", long.expose())).await;
    let text = added.unwrap_err().to_string();
    assert!(text.contains("holds 20 characters, this has 32"), "{text}");
    let clients = [client("-qB4"), client("-TR4050-abcdefghijkl")];
    let text = storage.add_clients(&clients).await.unwrap_err().to_string();
    assert!(text.contains("`peer_id`") && text.contains("20"), "{text}");
    assert_eq!(it.sql("SELECT COUNT(*) FROM whitelist"), "0");
    let user = it.sql("SELECT passkey, username FROM users WHERE id = 7");
    assert_eq!(user, "passkey-7\tseven");
}

#[tokio::test]
async fn a_refused_row_does_not_stop_the_others() {
    let it = Fixture::new().await;
    it.sql(
        "ALTER TABLE users ALTER username TYPE varchar(10), ALTER id RESTART WITH 100;
         CREATE UNIQUE INDEX one_name ON users (lower(username));
         ALTER TABLE torrents ALTER release_name TYPE varchar(5)",
    );
    let mut users: Vec<NewUser> = (0..500)
        .map(|number| user(&format!("u{number}"), &format!("passkey-of-{number}")))
        .collect();
    users[3].username = "nul \0".into();
    users[100].username = "a name too long".into();
    users[200].username = "SEVEN".into();
    users[201].can_leech = false;
    let results = it.storage.add_users(&users).await.unwrap();
    let refused: Vec<(usize, String)> = (0..)
        .zip(&results)
        .filter_map(|(at, result)| Some((at, result.clone().err()?)))
        .collect();
    let numbers: Vec<usize> = refused.iter().map(|(at, _)| *at).collect();
    assert_eq!(numbers, [3, 100, 200], "{refused:?}");
    assert!(refused[2].1.contains("`one_name`"), "{refused:?}");
    assert_eq!(it.sql("SELECT COUNT(*) FROM users"), "499");
    let mut torrents = [5, 6, 7].map(|byte| torrent(InfoHash([byte; 20])));
    torrents[0].name = "short".into();
    torrents[2].name = "x".into();
    let results = it.storage.add_torrents(&torrents).await.unwrap();
    let is_in: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(is_in, [true, false, true], "{results:?}");
    // A key of the site's own, in an edit.
    let patch = UserPatch {
        username: Some("EIGHT".into()),
        ..UserPatch::default()
    };
    let error = it.storage.update_user(UserId(7), &patch).await.unwrap_err();
    assert!(
        matches!(error, StorageError::Duplicate(_)) && error.to_string().contains("one_name"),
        "{error}"
    );
}

#[tokio::test]
async fn characters_that_the_database_lacks_find_no_rows() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        "CREATE DATABASE mika ENCODING 'LATIN1' TEMPLATE template0",
    );
    let storage = open(&server.url("mika"));
    storage.migrate().await.unwrap();
    storage.add_user(&user("José", "passkey-7")).await.unwrap();
    assert_eq!(named(&*storage, "jos").await.len(), 1);
    assert_eq!(named(&*storage, "用户").await.len(), 0);
    assert_eq!(storage.users_named("🙂").await.unwrap().len(), 0);
    let added = storage.add_user(&user("用户", "passkey-8")).await;
    assert!(matches!(added, Err(StorageError::Invalid(_))), "{added:?}");
    assert_eq!(server.sql("mika", "SELECT COUNT(*) FROM users"), "1");
}

#[tokio::test]
async fn a_case_insensitive_key_refuses_the_second_prefix() {
    let it = Fixture::new().await;
    it.sql("CREATE UNIQUE INDEX one_case ON whitelist (lower(peer_id))");
    refuse_the_second_prefix(&*it.storage).await;
}

#[tokio::test]
async fn unfinished_rows_are_counted_and_not_a_problem() {
    let it = Fixture::empty(&[]).await;
    it.sql(
        "ALTER TABLE users ALTER passkey DROP NOT NULL; ALTER TABLE torrents ALTER info_hash DROP NOT NULL;
         INSERT INTO users (id, passkey, username) VALUES (1, NULL, 'one'), (2, '', 'two'), (7, 'passkey-7', 'x');
         INSERT INTO torrents (id, info_hash)
             VALUES (1, ''), (2, NULL), (3, decode(repeat('61', 20), 'hex'))",
    );
    let storage = &*it.storage;
    count_unfinished(storage).await;
    // Once the site has written it, it takes effect.
    let position = storage.feed_position().await.unwrap();
    it.sql(
        "UPDATE users SET passkey = 'passkey-1' WHERE id = 1; UPDATE users SET passkey = 'bad!' WHERE id = 2",
    );
    follow_the_finished(storage, position).await;
}

#[tokio::test]
async fn blanks_around_a_prefix_are_trimmed() {
    let it = Fixture::empty(&[]).await;
    it.sql(
        "INSERT INTO whitelist VALUES (E'-TR30-\\r\\n', 'x'), (' -qB4', 'y'), (E'-UT\\t', 'z'),
             ('-DE' || chr(160), 'nbsp'), ('-UT', 'exact'), ('  ', 'nobody')",
    );
    trim_blanks(&*it.storage).await;
    assert_eq!(it.sql("SELECT COUNT(*) FROM whitelist"), "3");
}
