-- Mika's own schema for SQLite. docs/sql.md explains each table and column.

-- AUTOINCREMENT: the id of a deleted user or torrent is never given out again,
-- so nobody inherits the history of somebody else.
CREATE TABLE users (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    passkey    TEXT    NOT NULL UNIQUE,
    username   TEXT    NOT NULL,
    enabled    INTEGER NOT NULL DEFAULT 1,
    can_leech  INTEGER NOT NULL DEFAULT 1,
    uploaded   INTEGER NOT NULL DEFAULT 0,
    downloaded INTEGER NOT NULL DEFAULT 0,
    snatches   INTEGER NOT NULL DEFAULT 0,
    announces  INTEGER NOT NULL DEFAULT 0,
    seed_time  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX users_by_name ON users (username);

CREATE TABLE torrents (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    info_hash    BLOB    NOT NULL UNIQUE,
    info_hash_v2 BLOB    UNIQUE,
    release_name TEXT    NOT NULL DEFAULT '',
    enabled      INTEGER NOT NULL DEFAULT 1,
    reason       TEXT,
    multi_up     REAL    NOT NULL DEFAULT 1,
    multi_dn     REAL    NOT NULL DEFAULT 1,
    seeders      INTEGER NOT NULL DEFAULT 0,
    leechers     INTEGER NOT NULL DEFAULT 0,
    snatches     INTEGER NOT NULL DEFAULT 0,
    announces    INTEGER NOT NULL DEFAULT 0,
    uploaded     INTEGER NOT NULL DEFAULT 0,
    downloaded   INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE whitelist (
    peer_id TEXT PRIMARY KEY NOT NULL,
    vstring TEXT NOT NULL DEFAULT ''
);

CREATE TABLE peers (
    user_id        INTEGER NOT NULL,
    torrent_id     INTEGER NOT NULL,
    peer_id        BLOB    NOT NULL,
    base_up        INTEGER NOT NULL,
    base_down      INTEGER NOT NULL,
    base_at        INTEGER NOT NULL,
    dip_up         INTEGER,
    dip_down       INTEGER,
    uploaded       INTEGER NOT NULL,
    downloaded     INTEGER NOT NULL,
    left_bytes     INTEGER,
    ip4            TEXT,
    port4          INTEGER,
    ip6            TEXT,
    port6          INTEGER,
    speed_up       INTEGER NOT NULL,
    speed_down     INTEGER NOT NULL,
    seed_time      INTEGER NOT NULL,
    announces      INTEGER NOT NULL,
    first_announce INTEGER NOT NULL,
    last_announce  INTEGER NOT NULL,
    active         INTEGER NOT NULL,
    paused         INTEGER NOT NULL,
    completed_at   INTEGER,
    hnr            INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, torrent_id, peer_id)
) WITHOUT ROWID;
CREATE INDEX peers_by_torrent ON peers (torrent_id);
-- What may be pruned. Partial, so that the announces of active peers leave it alone.
CREATE INDEX peers_inactive ON peers (last_announce) WHERE active = 0;

CREATE TABLE history (
    torrent_id     INTEGER NOT NULL,
    user_id        INTEGER NOT NULL,
    uploaded       INTEGER NOT NULL DEFAULT 0,
    downloaded     INTEGER NOT NULL DEFAULT 0,
    seed_time      INTEGER NOT NULL DEFAULT 0,
    announces      INTEGER NOT NULL DEFAULT 0,
    completed_at   INTEGER,
    hnr            INTEGER NOT NULL DEFAULT 0,
    first_announce INTEGER NOT NULL DEFAULT 0,
    last_announce  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (torrent_id, user_id)
) WITHOUT ROWID;
CREATE INDEX history_by_user ON history (user_id);

CREATE TABLE mika_journal (
    node    TEXT PRIMARY KEY NOT NULL,
    applied INTEGER NOT NULL
) WITHOUT ROWID;

-- What changed in users, torrents and whitelist, whoever changed it. The triggers name
-- the columns that the tracker decides by: credit and counters leave the feed alone.
CREATE TABLE mika_feed (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT    NOT NULL,
    key  INTEGER NOT NULL
);

CREATE TRIGGER mika_users_insert AFTER INSERT ON users BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('user', new.id);
END;

CREATE TRIGGER mika_users_update
AFTER UPDATE OF id, passkey, username, enabled, can_leech ON users
WHEN old.id IS NOT new.id OR old.passkey IS NOT new.passkey OR old.username IS NOT new.username
    OR old.enabled IS NOT new.enabled OR old.can_leech IS NOT new.can_leech
BEGIN
    INSERT INTO mika_feed (kind, key) SELECT 'user', old.id WHERE old.id IS NOT new.id;
    INSERT INTO mika_feed (kind, key) VALUES ('user', new.id);
END;

-- Peers go with their user or torrent; what was counted of them stays in history.
CREATE TRIGGER mika_users_delete AFTER DELETE ON users BEGIN
    DELETE FROM peers WHERE user_id = old.id;
    INSERT INTO mika_feed (kind, key) VALUES ('user', old.id);
END;

CREATE TRIGGER mika_torrents_insert AFTER INSERT ON torrents BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('torrent', new.id);
END;

CREATE TRIGGER mika_torrents_update
AFTER UPDATE OF id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn
ON torrents
WHEN old.id IS NOT new.id OR old.info_hash IS NOT new.info_hash
    OR old.info_hash_v2 IS NOT new.info_hash_v2 OR old.release_name IS NOT new.release_name
    OR old.enabled IS NOT new.enabled OR old.reason IS NOT new.reason
    OR old.multi_up IS NOT new.multi_up OR old.multi_dn IS NOT new.multi_dn
BEGIN
    INSERT INTO mika_feed (kind, key) SELECT 'torrent', old.id WHERE old.id IS NOT new.id;
    INSERT INTO mika_feed (kind, key) VALUES ('torrent', new.id);
END;

CREATE TRIGGER mika_torrents_delete AFTER DELETE ON torrents BEGIN
    DELETE FROM peers WHERE torrent_id = old.id;
    INSERT INTO mika_feed (kind, key) VALUES ('torrent', old.id);
END;

CREATE TRIGGER mika_whitelist_insert AFTER INSERT ON whitelist BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('whitelist', 0);
END;

CREATE TRIGGER mika_whitelist_update AFTER UPDATE ON whitelist BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('whitelist', 0);
END;

CREATE TRIGGER mika_whitelist_delete AFTER DELETE ON whitelist BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('whitelist', 0);
END;
