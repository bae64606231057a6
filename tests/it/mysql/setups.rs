//! Databases that are set up the wrong way, as sites have them: nothing is written wrongly, and nothing is
//! skipped silently.

use mika::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use mika::registry::ClientPrefix;
use mika::storage::{
    Feed, FeedPosition, Find, Finding, NewTorrent, NewUser, Severity, Storage, StorageError,
    StoredUser, UserKey, UserPatch,
};

use super::{Fixture, SITE_2015, open};
use crate::harness::mariadb::MariaDb;

/// What a my.cnf of long ago has.
const OLD_OPTIONS: &[&str] = &[
    "--skip-character-set-client-handshake",
    "--character-set-server=latin1",
    "--sql-mode=",
    "--init-connect=SET NAMES latin1, autocommit = 0, sql_auto_is_null = 1, sql_select_limit = 1, \
     sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES', completion_type = 1, \
     time_zone = '+05:00', foreign_key_checks = 0, sql_safe_updates = 1, timestamp = 1000000000",
];

/// What the account of docs/sql.md may do.
pub const PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";

/// A server with the database `mika` and the account `mika` for it, and its URL.
pub fn server_with(options: &[&str]) -> (MariaDb, String) {
    let server = MariaDb::start_with(options);
    server.database("mika");
    server.sql(&format!(
        "CREATE USER mika IDENTIFIED BY 'p'; GRANT {PRIVILEGES} ON mika.* TO mika"
    ));
    let url = format!("mysql://mika:p@{}/mika", server.address());
    (server, url)
}

pub fn user(name: &str, passkey: &str) -> NewUser {
    NewUser {
        id: None,
        username: name.into(),
        passkey: passkey.parse().unwrap(),
        can_leech: true,
    }
}

pub fn torrent(info_hash: InfoHash) -> NewTorrent {
    NewTorrent {
        id: None,
        info_hash,
        info_hash_v2: None,
        name: "a torrent".into(),
    }
}

pub fn client(prefix: &str) -> ClientPrefix {
    ClientPrefix {
        prefix: prefix.into(),
        name: String::new(),
    }
}

pub async fn named(storage: &dyn Storage, text: &str) -> Vec<StoredUser> {
    let find = Find {
        text: Some(text.into()),
        enabled: None,
        sort: UserKey::Id,
        descending: false,
        offset: 0,
        limit: 10,
    };
    let found = storage.find_users(&find).await.unwrap();
    assert_eq!(found.total, found.rows.len() as u64);
    found.rows
}

/// The findings of a severity, each with its hint.
pub fn those(findings: &[Finding], severity: Severity) -> Vec<String> {
    let those = findings.iter().filter(|it| it.severity == severity);
    those
        .map(|it| format!("{} → {}", it.problem, it.hint))
        .collect()
}

pub async fn problems(storage: &dyn Storage) -> Vec<String> {
    let findings = storage.check().await.unwrap();
    let mut all = those(&findings, Severity::Fatal);
    all.extend(those(&findings, Severity::Problem));
    for text in &all {
        let (_, hint) = text.rsplit_once('→').unwrap();
        let hint = hint.replace("GRANT DELETE", "").replace("_delete ON", "");
        assert!(
            !hint.to_lowercase().contains("delete"),
            "unsafe advice: {text}"
        );
    }
    all
}

/// The one problem that the check finds.
pub async fn problem(storage: &dyn Storage) -> String {
    let problems = problems(storage).await;
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

pub async fn notes(storage: &dyn Storage) -> Vec<String> {
    assert_eq!(problems(storage).await, [""; 0]);
    those(&storage.check().await.unwrap(), Severity::Note)
}

#[tokio::test]
async fn an_old_options_file_changes_nothing() {
    let (server, url) = server_with(OLD_OPTIONS);
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    assert_eq!(problems(&*storage).await, [""; 0]);
    let users = [
        user("José", "passkey-1"),
        user("用户 🙂 \\ \"x\"", "passkey-2"),
    ];
    let ids = storage.add_users(&users).await.unwrap();
    assert!(ids.iter().all(|id| matches!(id, Ok(Some(_)))), "{ids:?}");
    // More than one row, by a connection that was used before, and by new ones next to it.
    let (first, second, third) = tokio::join!(
        storage.users(None, 10),
        storage.users(None, 10),
        storage.users(None, 10)
    );
    for page in [first, second, third] {
        let names: Vec<String> = page
            .unwrap()
            .rows
            .into_iter()
            .map(|it| it.user.username)
            .collect();
        assert_eq!(names, ["José", "用户 🙂 \\ \"x\""]);
    }
    assert_eq!(named(&*storage, "用户").await.len(), 1);
    let stored = "SELECT HEX(username) FROM mika.users WHERE passkey = 'passkey-1'";
    assert_eq!(server.sql(stored), "4A6F73C3A9");
    // An edit is committed though autocommit was off, and the clock advances.
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
    let age = "SELECT MAX(ABS(TIMESTAMPDIFF(SECOND, noted_at, NOW()))) < 600 FROM mika.mika_feed";
    assert_eq!(server.sql(age), "1");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_without_strict_mode_too() {
    let (server, url) = server_with(&["--sql-mode="]);
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    server.sql(
        "USE mika; ALTER TABLE users MODIFY passkey VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
             MODIFY username VARCHAR(8) NOT NULL;
         ALTER TABLE whitelist MODIFY peer_id VARCHAR(8) NOT NULL;
         INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')",
    );
    let found = problem(&*storage).await;
    assert!(
        found.contains("`passkey` of `users` holds 20 characters"),
        "{found}"
    );
    assert!(
        found.contains("ALTER TABLE `users` MODIFY `passkey` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"),
        "{found}"
    );
    let long: Passkey = "0123456789abcdefghijklmnopqrstuv".parse().unwrap();
    let patch = UserPatch {
        passkey: Some(long.clone()),
        ..UserPatch::default()
    };
    let error = storage.update_user(UserId(7), &patch).await.unwrap_err();
    assert!(matches!(error, StorageError::Invalid(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the column `passkey` of `users` holds 20 characters, this has 32"
    );
    let error = storage
        .add_user(&user("eight", long.expose()))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("holds 20 characters, this has 32"),
        "{error}"
    );
    let clients = [client("-qB4"), client("-TR4050-abcdefghijkl")];
    let error = storage.add_clients(&clients).await.unwrap_err();
    assert!(
        error.to_string().contains("`peer_id`") && error.to_string().contains("20"),
        "{error}"
    );
    assert_eq!(server.sql("SELECT COUNT(*) FROM mika.whitelist"), "0");
    assert_eq!(server.sql("SELECT passkey FROM mika.users"), "passkey-7");
}

#[tokio::test]
async fn a_refused_row_does_not_stop_the_others() {
    let it = Fixture::new().await;
    it.sql(
        "ALTER TABLE users MODIFY username VARCHAR(10) CHARACTER SET latin1 NOT NULL,
             ADD UNIQUE KEY one_name (username);
         ALTER TABLE torrents MODIFY release_name VARCHAR(5) CHARACTER SET latin1 NOT NULL",
    );
    let mut users: Vec<NewUser> = (0..500)
        .map(|number| user(&format!("u{number}"), &format!("passkey-of-{number}")))
        .collect();
    users[3].username = "用户".into();
    users[100].username = "a name too long".into();
    users[200].username = "SEVEN".into();
    users[201].can_leech = false;
    let results = it.storage.add_users(&users).await.unwrap();
    let refused: Vec<(usize, String)> = (0..)
        .zip(&results)
        .filter_map(|(at, result)| Some((at, result.clone().err()?)))
        .collect();
    assert_eq!(
        refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [3, 100, 200]
    );
    assert!(
        refused[0]
            .1
            .contains("`username` of `users` has the character set latin1"),
        "{refused:?}"
    );
    assert!(
        refused[1].1.contains("holds 10 characters, this has 15"),
        "{refused:?}"
    );
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
        username: Some("eight".into()),
        ..UserPatch::default()
    };
    let error = it.storage.update_user(UserId(7), &patch).await.unwrap_err();
    assert!(
        matches!(error, StorageError::Duplicate(_)) && error.to_string().contains("one_name"),
        "{error}"
    );
}

#[tokio::test]
async fn characters_that_the_column_lacks_find_no_rows() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015} INSERT INTO users VALUES (7, 'passkey-7', 'Jos\u{e9}')"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    assert_eq!(named(&*storage, "jos\u{e9}").await.len(), 1);
    assert_eq!(named(&*storage, "用户").await.len(), 0);
    assert_eq!(storage.users_named("🙂").await.unwrap().len(), 0);
    let error = storage
        .add_user(&user("用户", "passkey-8"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StorageError::Invalid(text) if text.contains("latin1")),
        "{error}"
    );
    assert_eq!(server.sql("SELECT COUNT(*) FROM site.users"), "1");
}

/// In a whitelist whose key takes no second prefix that differs in case only.
pub async fn refuse_the_second_prefix(storage: &dyn Storage) {
    let lower = ClientPrefix {
        name: "lower".into(),
        ..client("-lt0D60-")
    };
    storage
        .add_clients(std::slice::from_ref(&lower))
        .await
        .unwrap();
    let both = [client("-qB"), client("-LT0D60-")];
    let error = storage.add_clients(&both).await.unwrap_err();
    assert!(matches!(error, StorageError::Duplicate(_)), "{error:?}");
    assert!(
        error.to_string().contains("-LT0D60-") && error.to_string().contains("peer_id"),
        "{error}"
    );
    assert_eq!(storage.whitelist().await.unwrap(), [lower]);
}

#[tokio::test]
async fn a_case_insensitive_key_refuses_the_second_prefix() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE whitelist MODIFY peer_id VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL");
    refuse_the_second_prefix(&*it.storage).await;
    let notes = notes(&*it.storage).await;
    assert!(
        notes[0].contains("ALTER TABLE `whitelist` MODIFY `peer_id` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"),
        "{notes:?}"
    );
}

/// Of the users 1, 2 and 7, and of the torrents 1, 2 and 3, the last is finished.
pub async fn count_unfinished(storage: &dyn Storage) {
    let users = storage.users(None, 1).await.unwrap();
    let counts = (users.rows.len(), users.unfinished, users.bad.len());
    assert_eq!(counts, (1, 2, 0));
    let torrents = storage.torrents(None, 10).await.unwrap();
    let counts = (torrents.rows.len(), torrents.unfinished, torrents.bad.len());
    assert_eq!(counts, (1, 2, 0));
    assert_eq!(torrents.rows[0].torrent.id, TorrentId(3));
    assert_eq!(storage.user(UserId(1)).await.unwrap(), None);
    let notes = notes(storage).await;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("2 users have no passkey yet")
            && notes[1].starts_with("2 torrents have no info hash yet"),
        "{notes:?}"
    );
}

/// After `position` the site has given the user 1 a passkey, and the user 2 one that can't be used.
pub async fn follow_the_finished(storage: &dyn Storage, position: FeedPosition) {
    let Feed::Changes(changes, _) = storage.feed(position, 10).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!(changes.len(), 2);
    let found = problem(storage).await;
    assert!(
        found.contains("users: 1 row can't be used: 2 (its passkey"),
        "{found}"
    );
}

#[tokio::test]
async fn unfinished_rows_are_counted_and_not_a_problem() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015}
         ALTER TABLE users MODIFY passkey VARCHAR(255) NULL;
         INSERT INTO users VALUES (1, NULL, 'one'), (2, '', 'two'), (7, 'passkey-7', 'seven');
         INSERT INTO torrents VALUES (1, '', 'draft'), (2, '', 'draft'), (3, REPEAT('a', 20), 'three')"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    let error = storage.add_user(&user("seven", "passkey-8")).await;
    assert!(error.is_ok(), "names need not be unique: {error:?}");
    count_unfinished(&*storage).await;
    // Once the site has written it, it takes effect.
    let position = storage.feed_position().await.unwrap();
    server.sql("UPDATE site.users SET passkey = 'passkey-1' WHERE id = 1; UPDATE site.users SET passkey = 'bad!' WHERE id = 2");
    follow_the_finished(&*storage, position).await;
    assert_eq!(storage.torrent(InfoHash([0; 20])).await.unwrap(), None);
    assert_eq!(
        storage.torrents(None, 10).await.unwrap().rows[0].torrent.id,
        TorrentId(3)
    );
}

/// In a whitelist of `-DE`, `-TR30-` and `-qB4` with blanks around them, `-UT` with and without, and blanks alone.
pub async fn trim_blanks(storage: &dyn Storage) {
    let clients = storage.whitelist().await.unwrap();
    let prefixes: Vec<&str> = clients.iter().map(|it| it.prefix.as_str()).collect();
    assert_eq!(prefixes, ["-DE", "-TR30-", "-UT", "-qB4"]);
    assert_eq!(clients[2].name, "exact");
    let findings = storage.check().await.unwrap();
    let notes = those(&findings, Severity::Note).join("\n");
    assert!(
        notes.contains("4 prefixes have blanks") && notes.contains(r#""-TR30-\r\n""#),
        "{notes}"
    );
    storage.remove_client("-TR30-").await.unwrap();
    storage.remove_client("-UT").await.unwrap();
    assert_eq!(storage.whitelist().await.unwrap().len(), 2);
}

#[tokio::test]
async fn blanks_around_a_prefix_are_trimmed() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015}
         INSERT INTO xbt_client_whitelist VALUES ('-TR30-\r\n', 'x'), (' -qB4', 'y'), ('-UT\t', 'z'),
             (CONCAT('-DE', CHAR(0xa0)), 'nbsp'), ('-UT', 'exact'), ('  ', 'nobody')"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    trim_blanks(&*storage).await;
    assert_eq!(
        server.sql("SELECT COUNT(*) FROM site.xbt_client_whitelist"),
        "3"
    );
}
