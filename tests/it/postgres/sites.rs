//! Tables as sites have them, and statements of their own.

use super::{Fixture, try_open};
use crate::harness::postgres::Postgres;
use crate::mysql::sites::{
    apply_an_older_record_last, name_what_is_missing, read_another_application,
    settle_against_a_base, take_credit_beside_columns_of_the_site,
};

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
    let add_user = "INSERT INTO users (passkey, username, email, born) \
        VALUES (:passkey, :username, :username || '@example.org', 2000)";
    let own = try_open(&it.server.url("mika"), &[("add_user", add_user)]).unwrap();
    take_credit_beside_columns_of_the_site(&*it.storage, &*own, |sql| it.sql(sql)).await;
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
    let open = |statements: &[(&str, &str)]| try_open(&url, statements).unwrap();
    read_another_application(&statements, open, || {
        sql("INSERT INTO users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')");
    })
    .await;
    let triggers =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('users'::regclass, 'files'::regclass)";
    assert_eq!(sql(triggers), "0");
}

#[tokio::test]
async fn the_check_reports_what_is_missing() {
    let it = Fixture::new().await;
    name_what_is_missing(&*it.storage, |sql| it.sql(sql)).await;
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
