//! Tables as sites have them, and statements of their own.

use std::sync::Arc;

use mika::accounting::sessions::{Point, Stretch};
use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::change::{Batch, Change, Report};
use mika::storage::{
    CreditRules, Find, NewUser, Storage, StorageError, TorrentKey, TorrentPatch, UserKey, UserPatch,
};

use super::setups::user;
use super::{Fixture, SITE_2015, batch, open, problems, try_open};
use crate::harness::mariadb::MariaDb;

#[tokio::test]
async fn strict_tables_with_extra_columns_take_credit() {
    let it = Fixture::with(&["--sql-mode=TRADITIONAL,ANSI_QUOTES,NO_BACKSLASH_ESCAPES"]).await;
    it.sql(
        "ALTER TABLE users ADD email VARCHAR(99) NOT NULL, ADD born INT NOT NULL,
             MODIFY uploaded BIGINT NULL, MODIFY seed_time DECIMAL(20, 0) NULL,
             MODIFY enabled ENUM('0', '1') NOT NULL DEFAULT '1', MODIFY can_leech BIT(1) NULL;
         ALTER TABLE torrents ADD size BIGINT NOT NULL, MODIFY snatches BIGINT NULL;
         UPDATE users SET enabled = '1', uploaded = NULL, seed_time = NULL WHERE id = 7;
         UPDATE users SET enabled = '0', can_leech = b'0' WHERE id = 8",
    );
    let add_user = "INSERT INTO users (passkey, username, email, born) \
        VALUES (:passkey, :username, CONCAT(:username, '@example.org'), 2000)";
    let url = it.server.url("mika");
    let own = try_open(&url, "mika", &[("add_user", add_user)]).unwrap();
    take_credit_beside_columns_of_the_site(&*it.storage, &*own, |sql| it.sql(sql)).await;
}

/// Of the users 7 and 8, the second is disabled. Their table wants an `email` and `born` of each user, to which the
/// statements of `own` give values.
pub async fn take_credit_beside_columns_of_the_site(
    storage: &dyn Storage,
    own: &dyn Storage,
    run: impl Fn(&str) -> String,
) {
    for number in 1..=2 {
        let rules = CreditRules::default();
        storage
            .apply(&[batch(number, 0..10)], &rules)
            .await
            .unwrap();
    }
    let users = storage.users(None, 10).await.unwrap().rows;
    let found: Vec<_> = users
        .iter()
        .map(|it| (it.totals.uploaded, it.user.enabled, it.user.can_leech))
        .collect();
    assert_eq!(found, [(10, true, true), (10, false, false)]);
    let found = problems(storage).await;
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(
        found.contains("the columns `email`, `born` of `users` have no default"),
        "{found}"
    );
    // A site fills its own columns by a statement.
    let user = user("nine", "passkey-9");
    let error = storage.add_user(&user).await.unwrap_err().to_string();
    assert!(
        error.contains("email") && error.contains("storage.statements"),
        "{error}"
    );
    let with_id = NewUser {
        id: Some(UserId(4711)),
        ..user.clone()
    };
    let error = own.add_user(&with_id).await.unwrap_err().to_string();
    assert!(error.contains("storage.statements.add_user"), "{error}");
    let id = own.add_user(&user).await.unwrap();
    assert_eq!(
        run(&format!("SELECT email FROM users WHERE id = {}", id.0)),
        "nine@example.org"
    );
}

/// A site's own rows joined with Mika's.
async fn look_ups_and_edits_reach_both_tables(storage: &dyn Storage) {
    let patch = UserPatch {
        username: Some("ate".into()),
        can_leech: Some(false),
        ..UserPatch::default()
    };
    storage.update_user(UserId(8), &patch).await.unwrap();
    let find = Find {
        text: Some("E".into()),
        enabled: Some(true),
        sort: UserKey::Uploaded,
        descending: true,
        offset: 0,
        limit: 10,
    };
    let found = storage.find_users(&find).await.unwrap();
    let names: Vec<_> = found
        .rows
        .iter()
        .map(|row| row.user.username.as_str())
        .collect();
    assert_eq!((names, found.total), (vec!["ate"], 1), "seven is disabled");
    assert!(!found.rows[0].user.can_leech);
    let patch = TorrentPatch {
        name: Some("IV".into()),
        ..TorrentPatch::default()
    };
    storage.update_torrent(TorrentId(4), &patch).await.unwrap();
    let find = Find {
        text: None,
        enabled: None,
        sort: TorrentKey::Name,
        descending: false,
        offset: 0,
        limit: 1,
    };
    let found = storage.find_torrents(&find).await.unwrap();
    assert_eq!((found.rows[0].name.as_str(), found.total), ("IV", 2));
}

#[tokio::test]
async fn tables_of_2015_stay_as_they_are() {
    let server = MariaDb::start();
    let url = server.database("site");
    let sql = |text: &str| server.sql(&format!("USE site; {text}"));
    sql(SITE_2015);
    sql("INSERT INTO users VALUES (7, 'passkey-7', 'seven'), (8, 'passkey-8', 'eight');
         INSERT INTO torrents VALUES (3, UNHEX(REPEAT('01', 20)), 'three'), (4, UNHEX(REPEAT('02', 20)), 'four');
         INSERT INTO xbt_client_whitelist VALUES ('-TR', 'Transmission')");
    let before = sql("SHOW CREATE TABLE users; SHOW CREATE TABLE torrents");
    let storage = open(&url, "mika-2015");
    storage.migrate().await.unwrap();
    assert_eq!(problems(&*storage).await, "");
    let position = storage.feed_position().await.unwrap();
    storage
        .apply(&[batch(1, 0..10)], &CreditRules::default())
        .await
        .unwrap();
    let patch = UserPatch {
        enabled: Some(false),
        ..UserPatch::default()
    };
    storage.update_user(UserId(7), &patch).await.unwrap();
    let patch = TorrentPatch {
        reason: Some(Some("a duplicate".into())),
        ..TorrentPatch::default()
    };
    storage.update_torrent(TorrentId(4), &patch).await.unwrap();
    look_ups_and_edits_reach_both_tables(&*storage).await;
    let user = storage.user(UserId(7)).await.unwrap().unwrap();
    assert_eq!(
        (user.user.enabled, user.user.can_leech, user.totals.uploaded),
        (false, true, 5)
    );
    let torrent = storage.torrent(InfoHash([2; 20])).await.unwrap().unwrap();
    assert_eq!(torrent.torrent.reason.as_deref(), Some("a duplicate"));
    let mika::storage::Feed::Changes(changes, _) = storage.feed(position, 10).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!(changes.len(), 3, "{changes:?}");
    // A snatch of a torrent that the site does not have is its own business.
    let mut snatch = (*batch(2, 0..0)).clone();
    snatch.changes.push(Change::Snatch {
        info_hash: InfoHash([9; 20]),
    });
    storage
        .apply(&[Arc::new(snatch)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(sql("SELECT COUNT(*) FROM torrents"), "2");
    assert_eq!(
        sql("SHOW CREATE TABLE users; SHOW CREATE TABLE torrents"),
        before
    );
    sql("INSERT INTO users VALUES (9, 'passkey-8', 'nine'), (10, 'secret!secret', 'ten')");
    let found = problems(&*storage).await;
    assert!(found.contains("users: 2 rows") && found.contains("9 (its passkey is also that of 8)"));
    assert!(
        !found.contains("secret") && !found.contains("passkey-8"),
        "{found}"
    );
}

#[tokio::test]
async fn another_application_is_read_by_its_own_statements() {
    let server = MariaDb::start();
    let url = server.database("site");
    let sql = |text: &str| server.sql(&format!("USE site; {text}"));
    sql(SITE_2015);
    sql(
        "CREATE TABLE files (fid INT PRIMARY KEY, hash CHAR(40) NOT NULL, title TEXT);
         INSERT INTO files VALUES (3, REPEAT('01', 20), 'three')",
    );
    let columns =
        "SELECT fid, UNHEX(hash), NULL, title, 1, NULL, 1, 1, 0, 0, 0, 0, 0, 0 FROM files";
    let (page, one) = (
        format!("{columns} WHERE fid > :after ORDER BY fid LIMIT :limit"),
        format!("{columns} WHERE fid = :id"),
    );
    let statements = [
        ("torrents", page.as_str()),
        ("torrent", one.as_str()),
        (
            "torrents_of_hashes",
            "SELECT fid, UNHEX(hash), NULL FROM {rows} AS wanted JOIN files ON hash = HEX(wanted.info_hash)",
        ),
        ("feed", ""),
    ];
    let open = |statements: &[(&str, &str)]| try_open(&url, "mika-2015", statements).unwrap();
    read_another_application(&statements, open, || {
        sql("INSERT INTO users VALUES (7, 'passkey-7', 'seven')");
    })
    .await;
    assert_eq!(sql("SHOW TRIGGERS"), "");
}

/// The torrent 3 of another application is read by these statements, and a user whom `edit` adds is not noticed.
pub async fn read_another_application(
    statements: &[(&str, &str)],
    open: impl Fn(&[(&str, &str)]) -> Arc<dyn Storage>,
    edit: impl Fn(),
) {
    // They do not go with the others of the schema.
    let storage = open(statements);
    storage.migrate().await.unwrap();
    let known = "the statement torrents_known does not find the torrent 3, which torrents gives";
    assert_eq!(problems(&*storage).await, known);
    let known = (
        "torrents_known",
        "SELECT fid FROM {rows} AS wanted JOIN files ON fid = wanted.id",
    );
    let storage = open(&[statements, &[known]].concat());
    assert_eq!(problems(&*storage).await, "");
    let stored = storage.torrent(InfoHash([1; 20])).await.unwrap().unwrap();
    assert_eq!(
        (stored.torrent.id, stored.name.as_str()),
        (TorrentId(3), "three")
    );
    assert_eq!(storage.torrents(None, 10).await.unwrap().rows, [stored]);
    // Without a feed nothing ever changes.
    let position = storage.feed_position().await.unwrap();
    edit();
    assert_eq!(storage.feed_position().await.unwrap(), position);
    assert_eq!(position.0, 0);
}

#[tokio::test]
async fn unknown_schemas_and_statements_are_refused() {
    let error = |schema, statements: &[(&str, &str)]| {
        let opened = try_open("mysql://host/db", schema, statements);
        opened.err().unwrap().to_string()
    };
    assert!(error("gazelle", &[]).contains("there are: mika, mika-2015"));
    assert!(error("mika", &[("user_names", "x")]).contains("\"users_named\""));
    assert!(error("mika", &[("users", "SELECT :pasta")]).contains(":pasta"));
}

#[tokio::test]
async fn the_check_reports_what_is_missing() {
    let it = Fixture::new().await;
    name_what_is_missing(&*it.storage, |sql| it.sql(sql)).await;
}

/// Columns and a table are dropped, and named.
pub async fn name_what_is_missing(storage: &dyn Storage, run: impl Fn(&str) -> String) {
    run(
        "ALTER TABLE users DROP can_leech; ALTER TABLE history DROP announces; DROP TABLE whitelist",
    );
    let found = problems(storage).await;
    for expected in [
        "the table history has no column announces",
        "the table `whitelist` is missing",
        "the table `users` lacks the column can_leech",
    ] {
        assert!(found.contains(expected), "{expected}:\n{found}");
    }
    assert_eq!(found.lines().count(), 3, "{found}");
    let error = storage.users(None, 1).await.unwrap_err();
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

/// Applies two records of a peer, the older one last; the newer one stays.
pub async fn apply_an_older_record_last(storage: &dyn Storage) {
    let mut second = (*batch(1, 0..1)).clone();
    second.journal = "b".into();
    let Change::Peer(change) = &mut second.changes[0] else {
        unreachable!()
    };
    change.record.last_announce -= 60;
    change.record.announces -= 1;
    change.record.base_up = 5;
    let rules = CreditRules::default();
    storage.apply(&[batch(1, 0..1)], &rules).await.unwrap();
    storage.apply(&[Arc::new(second)], &rules).await.unwrap();
    let peers = storage.peers(0, None, 10).await.unwrap().rows;
    assert_eq!(peers[0].record, super::record());
}

#[tokio::test]
async fn a_row_of_an_earlier_version_is_settled_against_by_its_base() {
    let it = Fixture::new().await;
    settle_against_a_base(&*it.storage, |sql| it.sql(sql)).await;
    assert_eq!(it.uploaded(7).await, 1 + 500);
}

/// Rows that an earlier version wrote have their bases only. The same 500 bytes are reported twice.
pub async fn settle_against_a_base(storage: &dyn Storage, run: impl Fn(&str) -> String) {
    let rules = CreditRules::default();
    storage.apply(&[batch(1, 0..1)], &rules).await.unwrap();
    run("UPDATE peers SET sessions = NULL");
    for number in [2, 3] {
        let mut next = (*batch(number, 0..1)).clone();
        report(&mut next, 500);
        storage.apply(&[Arc::new(next)], &rules).await.unwrap();
    }
}

/// Makes it the next reports of its peers: `more` bytes above their bases, seven seconds later.
fn report(batch: &mut Batch, more: u64) {
    let point = |total, after: i64| Point {
        total,
        at: 1_800_000_000 + after,
    };
    let report = Report {
        up: Some(Stretch {
            from: point(1 << 40, 0),
            to: point((1 << 40) + more, 7),
            started: false,
        }),
        down: None,
        machine: None,
        at: 1_800_000_007,
        seeding_since: None,
        announces: 1,
        completed: false,
        left: false,
        multi_up: 1000,
        multi_down: 1000,
    };
    for change in &mut batch.changes {
        if let Change::Peer(change) = change {
            change.report = Some(report);
        }
    }
}
