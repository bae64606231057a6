//! Databases that are set up the wrong way, as sites have them: nothing is written wrongly, and nothing is
//! passed over in silence.

use std::sync::Arc;

use mika::change::{Change, Credit};
use mika::ids::{InfoHash, Passkey, TorrentId, UserId};
use mika::registry::Client;
use mika::storage::{
    Feed, Find, Finding, NewTorrent, NewUser, Severity, Storage, StorageError, StoredUser, UserKey,
    UserPatch,
};

use super::{Fixture, SITE_2015, batch, open, try_open};
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
const PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";

/// A server with the database `mika` and the account `mika` for it, and its URL.
fn server_with(options: &[&str]) -> (MariaDb, String) {
    let server = MariaDb::start_with(options);
    server.database("mika");
    server.sql(&format!(
        "CREATE USER mika IDENTIFIED BY 'p'; GRANT {PRIVILEGES} ON mika.* TO mika"
    ));
    let url = format!("mysql://mika:p@{}/mika", server.address());
    (server, url)
}

fn user(name: &str, passkey: &str) -> NewUser {
    NewUser {
        id: None,
        username: name.into(),
        passkey: passkey.parse().unwrap(),
        can_leech: true,
    }
}

fn torrent(info_hash: InfoHash) -> NewTorrent {
    NewTorrent {
        id: None,
        info_hash,
        info_hash_v2: None,
        name: "a torrent".into(),
    }
}

fn client(prefix: &str) -> Client {
    Client {
        prefix: prefix.into(),
        name: String::new(),
    }
}

async fn named(storage: &dyn Storage, text: &str) -> Vec<StoredUser> {
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
fn those(findings: &[Finding], severity: Severity) -> Vec<String> {
    let those = findings.iter().filter(|it| it.severity == severity);
    those
        .map(|it| format!("{} → {}", it.problem, it.hint))
        .collect()
}

async fn problems(storage: &dyn Storage) -> Vec<String> {
    let findings = storage.check().await.unwrap();
    let mut all = those(&findings, Severity::Fatal);
    all.extend(those(&findings, Severity::Problem));
    for text in &all {
        let (_, hint) = text.rsplit_once('→').unwrap();
        assert!(
            !hint.to_lowercase().contains("delete"),
            "unsafe advice: {text}"
        );
    }
    all
}

/// The one problem that the check finds.
async fn problem(storage: &dyn Storage) -> String {
    let problems = problems(storage).await;
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

async fn notes(storage: &dyn Storage) -> Vec<String> {
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
    // An edit is committed though autocommit was off, and the clock goes.
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
async fn a_row_that_the_database_refuses_leaves_the_others_in() {
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
async fn nobody_is_found_by_characters_that_the_column_lacks() {
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

#[tokio::test]
async fn a_key_that_takes_capitals_for_small_letters_refuses_the_second_prefix() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE whitelist MODIFY peer_id VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL");
    let lower = Client {
        name: "lower".into(),
        ..client("-lt0D60-")
    };
    it.storage
        .add_clients(std::slice::from_ref(&lower))
        .await
        .unwrap();
    let error = it
        .storage
        .add_clients(&[client("-qB"), client("-LT0D60-")])
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Duplicate(_)), "{error:?}");
    assert!(
        error.to_string().contains("-LT0D60-") && error.to_string().contains("peer_id"),
        "{error}"
    );
    assert_eq!(it.storage.whitelist().await.unwrap(), [lower]);
    let notes = notes(&*it.storage).await;
    assert!(
        notes[0].contains("ALTER TABLE `whitelist` MODIFY `peer_id` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"),
        "{notes:?}"
    );
}

#[tokio::test]
async fn triggers_that_a_renamed_table_took_along_are_made_again() {
    let it = Fixture::new().await;
    it.sql(
        "CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB;
         CREATE TABLE _users_gho LIKE users; INSERT INTO _users_gho SELECT * FROM users;
         RENAME TABLE users TO _users_del, _users_gho TO users;
         CREATE TRIGGER site_users_update AFTER UPDATE ON users FOR EACH ROW INSERT INTO audit () VALUES ()",
    );
    let found = problem(&*it.storage).await;
    assert!(
        found.contains(
            "mika_users_update, mika_users_delete: on the table _users_del and not on users"
        ) && found.contains("run mika-manage migrate"),
        "{found}"
    );
    assert_eq!(
        those(&it.storage.inspect().await.unwrap(), Severity::Problem).len(),
        1
    );
    let position = it.storage.feed_position().await.unwrap();
    it.sql("UPDATE users SET enabled = 0 WHERE id = 7");
    let made = it.storage.migrate().await.unwrap();
    assert_eq!(made.len(), 3, "{made:?}");
    assert_eq!(problems(&*it.storage).await, [""; 0]);
    assert_eq!(it.storage.migrate().await.unwrap(), [""; 0]);
    // What nobody noted is loaded again, once.
    let feed = it.storage.feed(position, 10).await.unwrap();
    assert!(matches!(feed, Feed::Lost), "{feed:?}");
    let position = it.storage.feed_position().await.unwrap();
    it.sql("UPDATE users SET enabled = 0 WHERE id = 8");
    let Feed::Changes(changes, _) = it.storage.feed(position, 10).await.unwrap() else {
        panic!("lost again");
    };
    assert_eq!(changes.len(), 1);
    let of_the_site =
        "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name = 'site_users_update'";
    assert_eq!(it.sql(of_the_site), "1");
}

#[tokio::test]
async fn triggers_that_are_missing_or_changed_are_made_again() {
    let it = Fixture::new().await;
    it.sql(
        "DROP TRIGGER mika_torrents_delete; DROP TRIGGER mika_users_insert;
         CREATE TRIGGER mika_users_insert BEFORE INSERT ON users FOR EACH ROW SET NEW.enabled = 1;
         DROP TRIGGER mika_whitelist_insert;
         CREATE TRIGGER mika_whitelist_insert AFTER INSERT ON whitelist FOR EACH ROW SET @x = 1",
    );
    let found = problem(&*it.storage).await;
    for expected in [
        "mika_torrents_delete: missing from the table torrents",
        "mika_users_insert: BEFORE INSERT and not AFTER INSERT",
        "mika_whitelist_insert: with another body",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert_eq!(it.storage.migrate().await.unwrap().len(), 3);
    assert_eq!(problems(&*it.storage).await, [""; 0]);
}

#[tokio::test]
async fn triggers_of_an_account_that_is_gone_are_made_again() {
    let (server, url) = server_with(&[]);
    server.sql("CREATE USER old IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO old");
    let old = open(&url.replace("mika:p", "old:p"), "mika");
    old.migrate().await.unwrap();
    server.sql("INSERT INTO mika.users (id, passkey, username) VALUES (7, 'passkey-7', 'x'), (8, 'passkey-8', 'y');
        INSERT INTO mika.torrents (id, info_hash) VALUES (3, REPEAT('a', 20)), (4, REPEAT('b', 20))");
    let storage = open(&url, "mika");
    // As long as the account is there, all is well.
    assert_eq!(problems(&*storage).await, [""; 0]);
    server.sql("REVOKE ALL ON mika.* FROM old; FLUSH PRIVILEGES");
    let found = problem(&*storage).await;
    assert!(found.contains("as old@%, which can't do it"), "{found}");
    server.sql("DROP USER old");
    let found = problem(&*storage).await;
    assert!(
        found.contains("as old@%, an account that is gone"),
        "{found}"
    );
    let error = storage
        .apply(&[batch(1, 0..10)])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("an account that is gone: run mika-manage migrate"),
        "{error}"
    );
    // Of triggers that credit does not run, nobody can see whether their account is there.
    server.sql("CREATE USER old IDENTIFIED BY 'p'; GRANT ALL ON mika.* TO old");
    let old = open(&url.replace("mika:p", "old:p"), "mika");
    assert_eq!(storage.migrate().await.unwrap().len(), 0);
    assert_eq!(problems(&*old).await, [""; 0]);
    server.sql("DROP USER old");
    assert_eq!(storage.migrate().await.unwrap().len(), 9);
    server.sql("DROP TRIGGER mika.mika_whitelist_insert; CREATE DEFINER = nobody TRIGGER mika.mika_whitelist_insert
        AFTER INSERT ON mika.whitelist FOR EACH ROW INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0)");
    let found = problem(&*storage).await;
    assert!(
        found.contains("mika_whitelist_insert: as nobody@%, and not as Mika's account"),
        "{found}"
    );
    assert_eq!(
        storage.migrate().await.unwrap(),
        ["trigger mika_whitelist_insert"]
    );
    assert_eq!(problems(&*storage).await, [""; 0]);
    storage.apply(&[batch(1, 0..10)]).await.unwrap();
    assert_eq!(
        server.sql("SELECT uploaded FROM mika.users WHERE id = 7"),
        "5"
    );
}

#[tokio::test]
async fn privileges_that_are_missing_are_named() {
    let (server, url) = server_with(&[]);
    open(&url, "mika").migrate().await.unwrap();
    server.sql("REVOKE TRIGGER ON mika.* FROM mika");
    let found = problem(&*open(&url, "mika")).await;
    assert!(
        found.contains("lacks the privilege TRIGGER") && found.contains("GRANT TRIGGER"),
        "{found}"
    );
    server.sql("GRANT TRIGGER ON mika.* TO mika; REVOKE DELETE, UPDATE ON mika.* FROM mika");
    let found = problems(&*open(&url, "mika")).await.join("\n");
    for expected in [
        "UPDATE command denied",
        "`mika`.`peers`",
        "`mika`.`mika_journal`",
        "the statement credit_users does not work",
        "docs/sql.md",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // By a role, and by a name with a wildcard, is as good.
    server.sql(&format!(
        "REVOKE ALL ON mika.* FROM mika; CREATE ROLE tracker; GRANT {PRIVILEGES} ON `mik_`.* TO tracker;
         GRANT tracker TO mika; SET DEFAULT ROLE tracker FOR mika"
    ));
    assert_eq!(problems(&*open(&url, "mika")).await, [""; 0]);
}

#[tokio::test]
async fn a_view_is_told_and_works_without_a_feed() {
    let (server, url) = server_with(&[]);
    server.sql(&format!("GRANT CREATE VIEW ON mika.* TO mika; USE mika; {SITE_2015}
        INSERT INTO users VALUES (7, 'passkey-7', 'seven');
        RENAME TABLE users TO members; CREATE VIEW users AS SELECT id, passkey, username FROM members"));
    let error = open(&url, "mika-2015")
        .migrate()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("users is a view, which can't have triggers")
            && error.contains("storage.statements.feed to \"\""),
        "{error}"
    );
    assert_eq!(
        server.sql("SHOW TABLES FROM mika LIKE 'mika%'"),
        "",
        "nothing was made"
    );
    let storage = try_open(&url, "mika-2015", &[("feed", "")]).unwrap();
    storage.migrate().await.unwrap();
    assert_eq!(problems(&*storage).await, [""; 0]);
    assert_eq!(storage.users(None, 10).await.unwrap().rows.len(), 1);
    // A table that became a view later.
    let it = Fixture::new().await;
    it.sql("RENAME TABLE users TO members; CREATE VIEW users AS SELECT * FROM members");
    let found = problems(&*it.storage).await.join("\n");
    assert!(
        found.contains("users is a view") && found.contains("storage.statements.feed"),
        "{found}"
    );
}

#[tokio::test]
async fn tables_without_transactions_are_told() {
    let it = Fixture::new().await;
    it.sql("ALTER TABLE users ENGINE = MyISAM; ALTER TABLE mika_journal ENGINE = Aria");
    let findings = it.storage.inspect().await.unwrap();
    let fatal = those(&findings, Severity::Fatal).join("\n");
    for expected in [
        "the table users has the engine MyISAM, which has no transactions: credit could count twice \
         → ALTER TABLE `users` ENGINE = InnoDB",
        "ALTER TABLE `mika_journal` ENGINE = InnoDB",
    ] {
        assert!(fatal.contains(expected), "{expected}: {fatal}");
    }
    // Where Mika only edits, it is worth a note.
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE users ENGINE = MyISAM"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    let notes = notes(&*storage).await.join("\n");
    assert!(notes.contains("users has the engine MyISAM"), "{notes}");
}

#[tokio::test]
async fn columns_too_small_for_totals_stop_nobody_else() {
    let it = Fixture::new().await;
    it.sql(
        "ALTER TABLE users MODIFY uploaded INT NOT NULL DEFAULT 0;
         UPDATE users SET uploaded = 2147483640 WHERE id = 7",
    );
    let found = problem(&*it.storage).await;
    assert!(
        found.contains("`uploaded` of `users` is int(11)")
            && found.contains("ALTER TABLE `users` MODIFY `uploaded` BIGINT NOT NULL DEFAULT 0"),
        "{found}"
    );
    let mut big = (*batch(1, 0..10)).clone();
    for change in &mut big.changes {
        let Change::Peer(change) = change else {
            unreachable!()
        };
        change.credit = Credit {
            up: 100,
            down: 7,
            announces: 1,
            ..Credit::default()
        };
    }
    it.storage.apply(&[Arc::new(big.clone())]).await.unwrap();
    assert_eq!(it.storage.applied("a").await.unwrap(), 1);
    let totals = |id: u32| {
        it.sql(&format!(
            "SELECT uploaded, downloaded FROM users WHERE id = {id}"
        ))
    };
    assert_eq!(totals(7), "2147483647\t35", "as far as the column goes");
    assert_eq!(totals(8), "500\t35");
    // A rule of the site's that nothing satisfies: that row is left out.
    it.sql(
        "ALTER TABLE users ADD CONSTRAINT no_more CHECK (username <> 'eight' OR uploaded <= 500)",
    );
    big.number = 2;
    it.storage.apply(&[Arc::new(big)]).await.unwrap();
    assert_eq!(totals(8), "500\t35");
    assert_eq!(totals(7), "2147483647\t70");
    it.storage.apply(&[batch(3, 0..2)]).await.unwrap();
    // The session is strict again.
    let patch = UserPatch {
        uploaded: Some(1 << 40),
        ..UserPatch::default()
    };
    let error = it.storage.update_user(UserId(7), &patch).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Invalid(text) if text.contains("`uploaded`")),
        "{error}"
    );
}

#[tokio::test]
async fn snatches_that_a_key_or_column_of_the_site_refuses_stop_nobody_else() {
    let (server, url) = server_with(&["--sql-mode="]);
    let storage = open(&url, "mika");
    storage.migrate().await.unwrap();
    server.sql(
        "USE mika; ALTER TABLE torrents ADD UNIQUE KEY one_name (release_name),
             ADD category INT NOT NULL, MODIFY release_name VARCHAR(1000) NOT NULL DEFAULT ''",
    );
    let mut snatches = (*batch(1, 0..0)).clone();
    for byte in [1, 2, 1] {
        let info_hash = InfoHash([byte; 20]);
        snatches.changes.push(Change::Snatch { info_hash });
    }
    storage.apply(&[Arc::new(snatches)]).await.unwrap();
    assert_eq!(storage.applied("a").await.unwrap(), 1);
    assert_eq!(
        server.sql("SELECT HEX(info_hash), snatches FROM mika.torrents"),
        format!("{}\t2", "01".repeat(20))
    );
}

/// A hash with bytes that mean something to somebody: quotes, blanks at the end, all of 0x80 to 0x9f by turns.
fn hash(start: u8) -> InfoHash {
    let mut bytes: [u8; 20] = std::array::from_fn(|at| start.wrapping_add(13 * at as u8));
    bytes[19] = b' ';
    InfoHash(bytes)
}

#[tokio::test]
async fn hashes_in_text_columns_are_read_and_written() {
    for (name, column) in [
        (
            "latin1",
            "VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
        ),
        ("padded", "CHAR(20) CHARACTER SET latin1 COLLATE latin1_bin"),
        ("digits", "CHAR(40) CHARACTER SET latin1 COLLATE latin1_bin"),
        (
            "folded",
            "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        ),
        (
            "unicode",
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        ),
    ] {
        let it = Fixture::new().await;
        let is_hex = column.contains("40");
        it.sql(&format!(
            "DELETE FROM torrents; ALTER TABLE torrents DROP KEY torrents_by_hash,
             MODIFY info_hash {column} NOT NULL, ADD UNIQUE KEY by_hash (info_hash)"
        ));
        let hashes: Vec<InfoHash> = (0..10).map(|number| hash(number * 25)).collect();
        // By the site, as it writes.
        let first = hashes[0];
        let written = if is_hex {
            format!("'{}'", first.to_string().to_uppercase())
        } else {
            format!("CONVERT(X'{first}' USING latin1)")
        };
        it.sql(&format!(
            "INSERT INTO torrents (id, info_hash, release_name) VALUES (3, {written}, 'three')"
        ));
        // By Mika.
        let torrents: Vec<NewTorrent> = hashes.iter().map(|hash| torrent(*hash)).collect();
        let results = it.storage.add_torrents(&torrents).await.unwrap();
        assert_eq!(results[0], Ok(None), "{name}: the site's is known");
        assert!(
            results[1..].iter().all(|it| matches!(it, Ok(Some(_)))),
            "{name}: {results:?}"
        );
        let page = it.storage.torrents(None, 100).await.unwrap();
        assert!(page.bad.is_empty(), "{name}: {:?}", page.bad);
        let read: Vec<InfoHash> = page.rows.iter().map(|row| row.torrent.info_hash).collect();
        assert_eq!(read, hashes, "{name}");
        for hash in &hashes {
            let found = it.storage.torrent(*hash).await.unwrap();
            assert_eq!(
                found.map(|row| row.torrent.info_hash),
                Some(*hash),
                "{name}"
            );
        }
        if !is_hex && name != "unicode" {
            let bytes = format!(
                "SELECT COUNT(*) FROM torrents WHERE HEX(RPAD(info_hash, 20, ' ')) = '{}'",
                hashes[7]
            );
            assert_eq!(it.sql(&bytes), "1", "{name}: as the site would write it");
        }
        let mut snatch = (*batch(1, 0..0)).clone();
        snatch.changes.push(Change::Snatch {
            info_hash: hash(250),
        });
        snatch.changes.push(Change::Snatch {
            info_hash: hashes[4],
        });
        it.storage.apply(&[Arc::new(snatch)]).await.unwrap();
        let stored = it.storage.torrent(hash(250)).await.unwrap().unwrap();
        assert_eq!(stored.torrent.snatches, 1, "{name}");
        assert_eq!(problems(&*it.storage).await, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn hashes_in_other_characters_are_told_how_to_convert() {
    let it = Fixture::new().await;
    it.sql(
        "DELETE FROM torrents; ALTER TABLE torrents MODIFY info_hash VARCHAR(20) CHARACTER SET cp1251 NOT NULL;
         INSERT INTO torrents (id, info_hash) VALUES (3, CONVERT(X'e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3' USING cp1251))",
    );
    let found = problems(&*it.storage).await.join("\n");
    let advice = "ALTER TABLE `torrents` MODIFY `info_hash` BINARY(20) NOT NULL";
    assert!(
        found.contains("is text in cp1251") && found.contains(advice),
        "{found}"
    );
    it.sql(advice);
    assert_eq!(problems(&*it.storage).await, [""; 0]);
    let hash = "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3".parse().unwrap();
    assert!(it.storage.torrent(hash).await.unwrap().is_some());
}

#[tokio::test]
async fn rows_that_are_not_ready_are_counted_and_no_problem() {
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
    let users = storage.users(None, 1).await.unwrap();
    assert_eq!(
        (users.rows.len(), users.unfinished, users.bad.len()),
        (1, 2, 0)
    );
    let torrents = storage.torrents(None, 10).await.unwrap();
    assert_eq!(
        (torrents.rows.len(), torrents.unfinished, torrents.bad.len()),
        (1, 2, 0)
    );
    assert_eq!(storage.user(UserId(1)).await.unwrap(), None);
    let error = storage.add_user(&user("seven", "passkey-8")).await;
    assert!(error.is_ok(), "names need not be unique: {error:?}");
    let notes = notes(&*storage).await;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("2 users have no passkey yet")
            && notes[1].starts_with("2 torrents have no info hash yet"),
        "{notes:?}"
    );
    // Once the site has written it, it takes effect.
    let position = storage.feed_position().await.unwrap();
    server.sql("UPDATE site.users SET passkey = 'passkey-1' WHERE id = 1; UPDATE site.users SET passkey = 'bad!' WHERE id = 2");
    let Feed::Changes(changes, _) = storage.feed(position, 10).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!(changes.len(), 2);
    let found = problem(&*storage).await;
    assert!(
        found.contains("users: 1 rows can't be used: 2 (its passkey"),
        "{found}"
    );
    assert_eq!(storage.torrent(InfoHash([0; 20])).await.unwrap(), None);
    assert_eq!(
        storage.torrents(None, 10).await.unwrap().rows[0].torrent.id,
        TorrentId(3)
    );
}

#[tokio::test]
async fn blanks_around_a_prefix_do_not_count() {
    let server = MariaDb::start();
    let url = server.database("site");
    server.sql(&format!(
        "USE site; {SITE_2015}
         INSERT INTO xbt_client_whitelist VALUES ('-TR30-\r\n', 'x'), (' -qB4', 'y'), ('-UT\t', 'z'),
             (CONCAT('-DE', CHAR(0xa0)), 'nbsp'), ('-UT', 'exact'), ('  ', 'nobody')"
    ));
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
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
    assert_eq!(
        server.sql("SELECT COUNT(*) FROM site.xbt_client_whitelist"),
        "3"
    );
}
