//! What a site does to its tables: rules of its own, tables made again, rows that are not ready.

use super::tests::{Fixture, SITE, batch};
use super::*;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::ids::{InfoHash, UserId};
use crate::change::{Batch, Change, Report};
use crate::storage::{CreditRules, Feed, NewUser, Severity, StorageError, UserPatch};

fn user(name: &str, passkey: &str) -> NewUser {
    NewUser {
        id: None,
        username: name.into(),
        passkey: passkey.parse().unwrap(),
        can_leech: true,
    }
}

async fn found(storage: &dyn Storage, severity: Severity) -> Vec<String> {
    let findings = storage.check().await.unwrap();
    let those = findings.into_iter().filter(|it| it.severity == severity);
    those
        .map(|it| format!("{} → {}", it.problem, it.hint))
        .collect()
}

#[tokio::test]
async fn a_row_that_a_rule_of_the_site_refuses_leaves_the_others_in() {
    let it = Fixture::new().await;
    it.site
        .execute_batch(
            "CREATE UNIQUE INDEX one_name ON users (username);
             CREATE TRIGGER short BEFORE INSERT ON users WHEN length(new.username) > 5
             BEGIN SELECT RAISE(ABORT, 'too long'); END;",
        )
        .unwrap();
    let users = [
        user("one", "passkey-1"),
        user("one", "passkey-2"),
        user("much too long", "passkey-3"),
        user("four", "passkey-1"),
        user("five", "passkey-5"),
    ];
    let results = it.storage.add_users(&users).await.unwrap();
    assert!(
        results[1].clone().unwrap_err().contains("users.username"),
        "{results:?}"
    );
    assert!(
        results[2].clone().unwrap_err().contains("trigger"),
        "{results:?}"
    );
    assert_eq!(
        (&results[3], results.iter().flatten().flatten().count()),
        (&Ok(None), 2)
    );
    let patch = UserPatch {
        username: Some("five".into()),
        ..UserPatch::default()
    };
    let id = results[0].clone().unwrap().unwrap();
    let error = it.storage.update_user(id, &patch).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Duplicate(text) if text.contains("users.username")),
        "{error}"
    );
}

#[tokio::test]
async fn credit_that_a_rule_of_the_site_refuses_stops_nobody_else() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site
        .execute_batch(
            "CREATE TRIGGER no_more BEFORE UPDATE ON users WHEN new.id = 8
             BEGIN SELECT RAISE(ABORT, 'no more'); END;",
        )
        .unwrap();
    it.storage
        .apply(&[Arc::new(batch(1, 0..6))], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
    let uploaded = |id: u32| -> i64 {
        let sql = "SELECT uploaded FROM users WHERE id = ?1";
        it.site.query_row(sql, [id], |row| row.get(0)).unwrap()
    };
    assert!(uploaded(7) > 0);
    assert_eq!(uploaded(8), 0);
    // One that ends the transaction would leave half of a batch behind: that is refused as a whole.
    it.site
        .execute_batch(
            "DROP TRIGGER no_more; CREATE TRIGGER no_more BEFORE UPDATE ON users WHEN new.id = 8
             BEGIN SELECT RAISE(ROLLBACK, 'no more'); END;",
        )
        .unwrap();
    let before = uploaded(7);
    let error = it
        .storage
        .apply(&[Arc::new(batch(2, 0..6))], &CreditRules::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("RAISE(ABORT"), "{error}");
    assert_eq!(
        (uploaded(7), it.storage.last_applied("a").await.unwrap()),
        (before, 1)
    );
}

#[tokio::test]
async fn triggers_that_went_with_a_table_are_made_again() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let position = it.storage.feed_position().await.unwrap();
    it.site
        .execute_batch(
            "CREATE TABLE new_users AS SELECT * FROM users; DROP TABLE users;
             ALTER TABLE new_users RENAME TO users;
             CREATE TRIGGER site_own AFTER INSERT ON users BEGIN SELECT 1; END;",
        )
        .unwrap();
    let problems = found(&it.storage, Severity::Problem).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("mika_users_update") && problems[0].contains("mika-manage migrate")
    );
    let made = it.storage.migrate().await.unwrap();
    assert_eq!(made.len(), 3, "{made:?}");
    assert!(it.storage.migrate().await.unwrap().is_empty());
    assert!(it.storage.inspect().await.unwrap().is_empty());
    assert!(matches!(
        it.storage.feed(position, 10).await.unwrap(),
        Feed::Lost
    ));
    let position = it.storage.feed_position().await.unwrap();
    it.site
        .execute_batch("UPDATE users SET enabled = 0 WHERE id = 7")
        .unwrap();
    let feed = it.storage.feed(position, 10).await.unwrap();
    assert!(
        matches!(&feed, Feed::Changes(changes, _) if changes.len() == 1),
        "{feed:?}"
    );
    let own = "SELECT 1 FROM sqlite_schema WHERE name = 'site_own'";
    assert!(it.site.prepare(own).unwrap().exists([]).unwrap());
}

#[tokio::test]
async fn rows_that_are_not_ready_and_text_hashes_are_told_apart() {
    let it = Fixture::new().await;
    it.site
        .execute_batch(
            "INSERT INTO users (id, passkey, username) VALUES (1, '', 'a'), (7, 'passkey-7', 'b');
             INSERT INTO torrents (id, info_hash) VALUES (1, X''), (2, '  '),
                 (3, '0123456789abcdef0123456789abcdef01234567'), (4, '01234567890123456789');
             INSERT INTO whitelist (peer_id) VALUES ('-TR' || char(13, 10)), (' -qB4');",
        )
        .unwrap();
    let users = it.storage.users(None, 10).await.unwrap();
    assert_eq!((users.rows.len(), users.unfinished), (1, 1));
    let torrents = it.storage.torrents(None, 10).await.unwrap();
    assert_eq!(
        (torrents.rows.len(), torrents.unfinished, torrents.bad.len()),
        (0, 2, 2)
    );
    assert_eq!(it.storage.user(UserId(1)).await.unwrap(), None);
    let notes = found(&it.storage, Severity::Note).await;
    assert_eq!(notes.len(), 3, "{notes:?}");
    let problems = found(&it.storage, Severity::Problem).await;
    let updates: Vec<&str> = problems
        .iter()
        .filter_map(|text| text.split_once("→ UPDATE"))
        .map(|(_, sql)| sql)
        .collect();
    assert_eq!(updates.len(), 2, "{problems:?}");
    for sql in updates {
        it.site.execute_batch(&format!("UPDATE{sql}")).unwrap();
    }
    assert_eq!(found(&it.storage, Severity::Problem).await, [""; 0]);
    let torrents = it.storage.torrents(None, 10).await.unwrap();
    assert_eq!(
        torrents.rows[1].torrent.info_hash,
        InfoHash(*b"01234567890123456789")
    );
    let clients = it.storage.whitelist().await.unwrap();
    let prefixes: Vec<&str> = clients.iter().map(|it| it.prefix.as_str()).collect();
    assert_eq!(prefixes, ["-TR", "-qB4"]);
    it.storage.remove_client("-TR").await.unwrap();
    assert_eq!(it.storage.whitelist().await.unwrap().len(), 1);
}

/// The same peer's next report: `more` bytes above its base, seven seconds later.
fn next_report(mut batch: Batch, more: u64) -> Batch {
    for change in &mut batch.changes {
        let Change::Peer(change) = change else {
            continue;
        };
        let point = |total, after: i64| Point {
            total,
            at: 1_800_000_000 + after,
        };
        change.report = Some(Report {
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
        });
    }
    batch
}

/// Rows that an earlier version wrote have their bases only.
#[tokio::test]
async fn a_row_of_an_earlier_version_is_settled_against_by_its_base() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    let rules = CreditRules::default();
    let first = Arc::new(batch(1, 0..1));
    it.storage.apply(&[first], &rules).await.unwrap();
    it.site
        .execute_batch("UPDATE peers SET sessions = NULL")
        .unwrap();
    for number in [2, 3] {
        let next = Arc::new(next_report(batch(number, 0..1), 500));
        it.storage.apply(&[next], &rules).await.unwrap();
    }
    let uploaded: i64 = it
        .site
        .query_row("SELECT uploaded FROM users WHERE id = 7", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(uploaded, 1 + 500);
}

#[tokio::test]
async fn statements_of_the_config_are_used() {
    let it = Fixture::new().await;
    it.site.execute_batch(SITE).unwrap();
    it.site
        .execute_batch(
            "CREATE TABLE members (uid INTEGER PRIMARY KEY, secret TEXT, nick TEXT, up INTEGER);
             INSERT INTO members VALUES (1, 'passkey-1', 'one', 5), (2, 'passkey-2', 'two', NULL);",
        )
        .unwrap();
    let member = "SELECT uid, secret, nick, 1, 1, up, 0, 0, 0, 0 FROM members";
    let storage = it.with_statements(&[
        (
            "users",
            &format!("{member} WHERE uid > :after ORDER BY uid LIMIT :limit"),
        ),
        ("user", &format!("{member} WHERE uid = :id")),
        ("users_named", &format!("{member} WHERE nick = :username")),
        (
            "user_of_passkey",
            "SELECT uid FROM members WHERE secret = :passkey",
        ),
        (
            "users_known",
            "SELECT uid FROM {rows} AS wanted JOIN members ON uid = wanted.id",
        ),
        (
            "add_torrent",
            "INSERT INTO torrents (id, info_hash) VALUES (:id, :info_hash)",
        ),
        (
            "add_snatched",
            "INSERT INTO torrents (info_hash, snatches) SELECT info_hash, snatches FROM {rows}",
        ),
    ]);
    assert_eq!(found(&*storage, Severity::Problem).await, [""; 0]);
    let users = storage.users(None, 10).await.unwrap().rows;
    let uploaded: Vec<u64> = users.iter().map(|it| it.totals.uploaded).collect();
    assert_eq!(uploaded, [5, 0]);
    let snatch = |byte| Change::Snatches {
        info_hash: InfoHash([byte; 20]),
        count: 1,
    };
    let batch = Batch::new(
        "a".into(),
        1,
        vec![snatch(9), snatch(8), snatch(9), snatch(1)],
    );
    let rules = CreditRules::default();
    storage.apply(&[Arc::new(batch)], &rules).await.unwrap();
    let torrents = storage.torrents(None, 10).await.unwrap().rows;
    let snatches: Vec<u32> = torrents.iter().map(|it| it.torrent.snatches).collect();
    assert_eq!(snatches, [1, 0, 1, 2]);
}

#[tokio::test]
async fn statements_that_do_not_work_are_found() {
    let it = Fixture::new().await;
    let storage = it.with_statements(&[
        ("user", "SELECT motto FROM users WHERE id = :id"),
        (
            "users_named",
            "SELECT id FROM users WHERE username = :username",
        ),
        ("whitelist", "SELECT peer_id FROM WHERE"),
    ]);
    let problems = found(&*storage, Severity::Problem).await;
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, expected) in problems.iter().zip([
        "the statement user does not work: no such column: motto → ",
        "the statement users_named does not work: it gives 1 columns and not 10: id, passkey, ",
        "the statement whitelist does not work: near \"WHERE\": syntax error → ",
    ]) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    assert!(problems[0].ends_with("storage.statements.user"));
}
