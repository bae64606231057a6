//! Columns of a site that are too small, or of another type.

use std::sync::Arc;

use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::change::{Change, Credit};
use mika::storage::{CreditRules, NewTorrent, StorageError, UserPatch};

use super::{Fixture, open};
use crate::mysql::batch;
use crate::mysql::columns::hash;
use crate::mysql::setups::{problem, problems, torrent};

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
        "ALTER TABLE users ALTER uploaded TYPE integer;
         UPDATE users SET uploaded = 2147483640 WHERE id = 7",
    );
    let found = problem(&*it.storage).await;
    assert!(
        found.contains("`uploaded` of `users` is integer") && found.contains("TYPE bigint"),
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
    let rules = CreditRules::default();
    let first = Arc::new(big.clone());
    it.storage.apply(&[first], &rules).await.unwrap();
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
    let totals = |id: u32| {
        it.sql(&format!(
            "SELECT uploaded, downloaded FROM users WHERE id = {id}"
        ))
    };
    // PostgreSQL has no way to store as much as fits: that row is left out.
    assert_eq!(totals(7), "2147483640\t0");
    assert_eq!(totals(8), "500\t35");
    it.sql("ALTER TABLE users ADD CHECK (username <> 'eight' OR uploaded <= 500)");
    big.number = 2;
    it.storage.apply(&[Arc::new(big)], &rules).await.unwrap();
    assert_eq!(totals(8), "500\t35");
    it.storage.apply(&[batch(3, 0..2)], &rules).await.unwrap();
    assert_eq!(totals(7), "2147483641\t0");
    let patch = UserPatch {
        uploaded: Some(1 << 40),
        ..UserPatch::default()
    };
    let error = it.storage.update_user(UserId(7), &patch).await.unwrap_err();
    assert!(matches!(&error, StorageError::Invalid(_)), "{error:?}");
}

#[tokio::test]
async fn refused_snatches_do_not_stop_others() {
    let it = Fixture::empty(&[]).await;
    it.sql("ALTER TABLE torrents ADD UNIQUE (release_name)");
    let mut snatches = (*batch(1, 0..0)).clone();
    for byte in [1, 2, 1] {
        let info_hash = InfoHash([byte; 20]);
        snatches.changes.push(snatch_of(info_hash));
    }
    it.storage
        .apply(&[Arc::new(snatches)], &CreditRules::default())
        .await
        .unwrap();
    assert_eq!(it.storage.last_applied("a").await.unwrap(), 1);
    assert_eq!(
        it.sql("SELECT encode(info_hash, 'hex'), snatches FROM torrents"),
        format!("{}\t2", "01".repeat(20))
    );
}

#[tokio::test]
async fn hashes_in_text_columns_are_read_and_written() {
    for column in ["text", "char(40)", "varchar(40) COLLATE \"C\""] {
        let it = Fixture::new().await;
        it.sql(&format!(
            "DELETE FROM torrents;
             ALTER TABLE torrents ALTER info_hash TYPE {column} USING encode(info_hash, 'hex'),
                 ALTER info_hash_v2 TYPE text USING encode(info_hash_v2, 'hex')"
        ));
        let hashes: Vec<InfoHash> = (0..10).map(|number| hash(number * 25)).collect();
        // By the site, as it writes.
        let first = hashes[0].to_string().to_uppercase();
        it.sql(&format!(
            "INSERT INTO torrents (id, info_hash, release_name) VALUES (300, '{first}', 'three')"
        ));
        // By Mika.
        let torrents: Vec<NewTorrent> = hashes.iter().map(|hash| torrent(*hash)).collect();
        let results = it.storage.add_torrents(&torrents).await.unwrap();
        assert_eq!(results[0], Ok(None), "{column}: the site's is known");
        assert!(
            results[1..].iter().all(|it| matches!(it, Ok(Some(_)))),
            "{column}: {results:?}"
        );
        let page = it.storage.torrents(None, 100).await.unwrap();
        assert!(page.bad.is_empty(), "{column}: {:?}", page.bad);
        let mut read: Vec<InfoHash> = page.rows.iter().map(|row| row.torrent.info_hash).collect();
        let mut expected = hashes.clone();
        read.sort_unstable();
        expected.sort_unstable();
        assert_eq!(read, expected, "{column}");
        for hash in &hashes {
            let found = it.storage.torrent(*hash).await.unwrap();
            let found = found.map(|row| row.torrent.info_hash);
            assert_eq!(found, Some(*hash), "{column}");
        }
        let mut snatch = (*batch(1, 0..0)).clone();
        let snatches = [hash(250), hashes[4]].map(snatch_of);
        snatch.changes.extend(snatches);
        let rules = CreditRules::default();
        let applied = it.storage.apply(&[Arc::new(snatch)], &rules).await;
        assert_eq!(applied.unwrap().torrents.len(), 2);
        let stored = it.storage.torrent(hash(250)).await.unwrap().unwrap();
        assert_eq!(stored.torrent.snatches, 1, "{column}");
        assert_eq!(problems(&*it.storage).await, [""; 0], "{column}");
    }
}

#[tokio::test]
async fn hashes_that_can_not_be_stored_get_a_hint_to_convert() {
    let it = Fixture::new().await;
    it.sql(
        "ALTER TABLE torrents ALTER info_hash TYPE varchar(20) USING substr(encode(info_hash, 'hex'), 21),
             ALTER info_hash_v2 TYPE text USING encode(info_hash_v2, 'hex')",
    );
    let found = problems(&*it.storage).await.join("\n");
    assert!(
        found.contains("holds 20 characters, and an info hash has 40 hexadecimal digits")
            && found.contains("TYPE char(40)"),
        "{found}"
    );
}

#[tokio::test]
async fn hashes_that_are_text_in_one_column_and_bytes_in_the_other_are_reported() {
    for (text, bytes) in [("info_hash", "info_hash_v2"), ("info_hash_v2", "info_hash")] {
        let it = Fixture::new().await;
        it.sql(&format!(
            "ALTER TABLE torrents ALTER {text} TYPE char(40) USING encode({text}, 'hex')"
        ));
        let found = problem(&*it.storage).await;
        assert!(
            found.contains(&format!(
                "the column `{text}` of `torrents` is text and the column `{bytes}` of `torrents` is bytes"
            )),
            "{found}"
        );
        let (_, hint) = found.split_once(" → ").expect("a hint");
        it.sql(hint);
        let storage = open(&it.server.url("mika"));
        assert_eq!(problems(&*storage).await, [""; 0]);
        let torrent = storage.torrent(InfoHash([1; 20])).await.unwrap();
        assert_eq!(torrent.unwrap().torrent.id, TorrentId(3));
    }
}
