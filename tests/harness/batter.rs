//! A batter site on PostgreSQL: its tables as its migrations make them, and the rows that it writes.

use mika::wire::bencode::{self, Node, Value};
use serde_json::json;

/// Django's accounts, the profiles with the passkeys, and the torrents with their uploads.
pub const TABLES: &str = "
    CREATE TABLE auth_user (
        id           serial       NOT NULL PRIMARY KEY,
        password     varchar(128) NOT NULL,
        last_login   timestamptz  NOT NULL,
        is_superuser boolean      NOT NULL,
        username     varchar(30)  NOT NULL UNIQUE,
        first_name   varchar(30)  NOT NULL,
        last_name    varchar(30)  NOT NULL,
        email        varchar(75)  NOT NULL,
        is_staff     boolean      NOT NULL,
        is_active    boolean      NOT NULL,
        date_joined  timestamptz  NOT NULL
    );
    CREATE TABLE profiles_profile (
        id        serial  NOT NULL PRIMARY KEY,
        user_id   integer NOT NULL UNIQUE REFERENCES auth_user (id) DEFERRABLE INITIALLY DEFERRED,
        trackerid varchar(32)
    );
    CREATE TABLE torrents_torrent (
        id            serial       NOT NULL PRIMARY KEY,
        announce      varchar(200) NOT NULL,
        announce_list text,
        creation_date integer      CHECK (creation_date >= 0),
        comment       text,
        created_by    text,
        encoding      text,
        piece_length  integer      CHECK (piece_length >= 0),
        pieces        text         NOT NULL UNIQUE,
        is_private    boolean      NOT NULL,
        name          text         NOT NULL,
        length        integer      CHECK (length >= 0),
        md5sum        varchar(32),
        files         text
    );
    CREATE TABLE torrents_upload (
        id                     serial       NOT NULL PRIMARY KEY,
        created                timestamptz  NOT NULL,
        modified               timestamptz  NOT NULL,
        _subclass_name         varchar(100) NOT NULL,
        torrent_id             integer      NOT NULL UNIQUE
            REFERENCES torrents_torrent (id) DEFERRABLE INITIALLY DEFERRED,
        uploader_id            integer      NOT NULL REFERENCES auth_user (id) DEFERRABLE INITIALLY DEFERRED,
        parent_content_type_id integer,
        parent_object_id       integer,
        upload_group_id        integer
    );";

/// What a site needs for torrents of more than 67 pieces: an entry of an index has 2,704 bytes at most.
pub const LARGE_TORRENTS: &str = "
    ALTER TABLE torrents_torrent DROP CONSTRAINT torrents_torrent_pieces_key;
    CREATE UNIQUE INDEX torrents_torrent_pieces ON torrents_torrent (md5(pieces));";

/// A user signs up and gets a profile.
pub fn sign_up(name: &str, passkey: &str) -> String {
    format!(
        "WITH fresh AS (
             INSERT INTO auth_user (password, last_login, is_superuser, username, first_name, last_name, email,
                 is_staff, is_active, date_joined)
             VALUES ('!', now(), false, '{name}', '', '', '', false, true, now()) RETURNING id)
         INSERT INTO profiles_profile (user_id, trackerid) SELECT id, '{passkey}' FROM fresh"
    )
}

/// Someone uploads a .torrent file: what the site keeps of it, and nothing else.
pub fn upload(file: &[u8]) -> String {
    let root = bencode::parse_lenient(file).expect("a .torrent file");
    let info = root.get(b"info").expect("an info dictionary");
    let number = |key: &str| match info.get(key.as_bytes()).and_then(Node::as_int) {
        Some(number) => number.to_string(),
        None => "NULL".into(),
    };
    let text = |key: &str| match info.get(key.as_bytes()).and_then(Node::as_bytes) {
        Some(text) => quoted(&String::from_utf8_lossy(text)),
        None => "NULL".into(),
    };
    let pieces = info.get(b"pieces").and_then(Node::as_bytes);
    let pieces = data_encoding::HEXLOWER.encode(pieces.expect("pieces"));
    let files = match info.get(b"files") {
        Some(files) => quoted(&in_json(files).to_string()),
        None => "NULL".into(),
    };
    format!(
        "INSERT INTO torrents_torrent (announce, piece_length, pieces, is_private, name, length, md5sum, files)
         VALUES ('http://test.com/announce', {}, '{pieces}', {}, {}, {}, {}, {files})",
        number("piece length"),
        number("private") == "1",
        text("name"),
        number("length"),
        text("md5sum"),
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn in_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Int(number) => json!(number),
        Value::Bytes(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::List(items) => items.iter().map(in_json).collect(),
        Value::Dict(entries) => entries
            .iter()
            .map(|(key, node)| (String::from_utf8_lossy(key).into_owned(), in_json(node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
