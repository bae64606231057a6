//! Columns of a site that are too small, or of another type.

use std::sync::Arc;

use mika::base::ids::{InfoHash, UserId};
use mika::change::{Change, Credit};
use mika::storage::{CreditRules, NewTorrent, StorageError, UserPatch};

use super::setups::{problem, problems, server_with, torrent};
use super::{Fixture, batch, open};

fn snatch_of(info_hash: InfoHash) -> Change {
    Change::Snatches {
        info_hash,
        count: 1,
    }
}

#[tokio::test]
async fn a_total_too_large_for_its_column_does_not_stop_others() {
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
    it.storage
        .apply(&[Arc::new(big.clone())], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
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
    it.storage
        .apply(&[Arc::new(big)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(totals(8), "500\t35");
    assert_eq!(totals(7), "2147483647\t70");
    it.storage
        .apply(&[batch(3, 0..2)], &CreditRules::default())
        .await
        .unwrap();
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
async fn refused_snatches_do_not_stop_others() {
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
        snatches.changes.push(snatch_of(info_hash));
    }
    storage
        .apply(&[Arc::new(snatches)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(storage.last_applied("a").await.unwrap(), 1);
    assert_eq!(
        server.sql("SELECT HEX(info_hash), snatches FROM mika.torrents"),
        format!("{}\t2", "01".repeat(20))
    );
}

/// A hash with special bytes: quotes, blanks at the end, all of 0x80 to 0x9f by turns.
pub fn hash(start: u8) -> InfoHash {
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
        let snatches = [hash(250), hashes[4]].map(snatch_of);
        snatch.changes.extend(snatches);
        let rules = CreditRules::default();
        let applied = it.storage.apply(&[Arc::new(snatch)], &rules).await;
        assert_eq!(applied.unwrap().torrents.len(), 2);
        let stored = it.storage.torrent(hash(250)).await.unwrap().unwrap();
        assert_eq!(stored.torrent.snatches, 1, "{name}");
        assert_eq!(problems(&*it.storage).await, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn hashes_in_other_character_sets_get_a_hint_to_convert() {
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
