//! The statements of a site that stores no info hashes are run, too.

use mika::wire::bencode;

use super::Server;
use crate::harness::batter::{TABLES, upload};
use crate::harness::postgres::Postgres;

/// Line 4 has the first name.
const HEAD: &str = "-- Our batter.\n-- based on: batter\n\n";

/// Each with what is said of it.
const WRONG: [(&str, &str); 4] = [
    (
        "-- name: hashes_wanted\nSELECT id, 1 FROM torrents_torrent WHERE id > :after AND :noted::boolean IS NOT NULL OR :limit::int < 0\n\
         UNION ALL SELECT id, 1 FROM generate_series(10, 99) AS id\n",
        "the statement hashes_wanted (./site.sql:4) must give at most :limit rows",
    ),
    (
        "-- name: hash_sources\nSELECT t.id, NULL::bytea, false, false, piece_length, pieces, is_private, name, length, md5sum, files\n\
         FROM {rows} AS wanted JOIN torrents_torrent AS t ON t.id = wanted.id + 1\n",
        "the statement hash_sources (./site.sql:4) does not find the torrent 1, which hashes_wanted (./site.sql) gives",
    ),
    (
        "-- name: hash_sources\nSELECT t.id, NULL::bytea, false, false, piece_length, 'xyz', is_private, name, length, md5sum, files\n\
         FROM {rows} AS wanted JOIN torrents_torrent AS t ON t.id = wanted.id\n",
        "the statement hash_sources (./site.sql:4) gives no row from which an info hash can be rebuilt: ",
    ),
    (
        "-- name: store_hashes\nINSERT INTO mika_torrents (id, info_hash, hash_is_lossy) SELECT id, info_hash, NULL FROM {rows} AS built\n",
        "what the statement store_hashes (./site.sql:4) writes would be refused: the column `hash_is_lossy` of `mika_torrents` must not be empty",
    ),
];

#[test]
fn statements_for_rebuilt_hashes_that_do_not_work_are_found() {
    let server = Server::Postgres(Postgres::start());
    let info = b"d6:lengthi16000e4:name9:Lied.flac12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1ee";
    bencode::parse(info).expect("canonical bencode");
    let file = [b"d8:announce3:url4:info".as_slice(), info, b"e"].concat();
    let mut site = server.site("site", TABLES, HEAD);
    site.sql(&upload(&file));
    site.use_file();
    site.mika.managed(&["migrate"]);
    site.sql("INSERT INTO mika_whitelist VALUES ('-MK', 'Mika')");
    let (is_right, said) = site.says(&["check"]);
    assert!(is_right, "{said}");
    // They are rebuilt by the check; without a hash, the torrent is wanted again.
    for (statement, wanted) in WRONG {
        site.write(&format!("{HEAD}{statement}"));
        site.sql("DELETE FROM mika_torrents");
        let (_, said) = site.says(&["schema", "test", "site.sql"]);
        assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
        assert_eq!(site.sql("SELECT count(*) FROM mika_torrents"), "0");
    }
}
