-- Mika's own tables on SQLite. What is not said here is as in mysql.sql. Rows are written one by one: the columns
-- of each are parameters. Nothing is locked row by row: a transaction that writes is the only one.

-- name: peers_page
-- A page of peers, by key, that are active or were announced since :since.
SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, dip_down, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce,
    last_announce, active, paused
FROM {peers}
WHERE (user_id, torrent_id, peer_id) > (:user_id, :torrent_id, :peer_id)
    AND (active = 1 OR last_announce >= :since)
ORDER BY user_id, torrent_id, peer_id LIMIT :limit

-- name: histories_page
-- A page of histories, by key.
SELECT torrent_id, user_id, uploaded, downloaded, seed_time, completed_at, hnr
FROM {history}
WHERE (torrent_id, user_id) > (:torrent_id, :user_id)
ORDER BY torrent_id, user_id LIMIT :limit

-- name: peers_of
-- All peers of the torrent :torrent_id. Columns as of `peers_page`.
SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, dip_down, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce,
    last_announce, active, paused
FROM {peers} WHERE torrent_id = :torrent_id

-- name: histories_of
-- All histories of the torrent :torrent_id. Columns as of `histories_page`.
SELECT torrent_id, user_id, uploaded, downloaded, seed_time, completed_at, hnr
FROM {history} WHERE torrent_id = :torrent_id

-- name: with_records
-- The torrent, if it has a history or a peer.
SELECT :torrent_id
WHERE EXISTS (SELECT 1 FROM {history} WHERE torrent_id = :torrent_id)
    OR EXISTS (SELECT 1 FROM {peers} WHERE torrent_id = :torrent_id)

-- name: peers_of_user
-- The torrents in whose swarm the user :user_id is, and whether that peer has all of it.
SELECT torrent_id, left_bytes IS 0 FROM {peers} WHERE user_id = :user_id AND active <> 0

-- name: histories_of_user
-- The torrents of which the user :user_id has a history, whether it was snatched, and hit and run.
SELECT torrent_id, completed_at IS NOT NULL, hnr <> 0 FROM {history} WHERE user_id = :user_id

-- name: newest_announce
SELECT MAX(last_announce) FROM {peers}

-- name: last_gone
-- The newest announce of an inactive peer before :before.
SELECT MAX(last_announce) FROM {peers} WHERE active = 0 AND last_announce < :before

-- name: prune_peers
-- Deletes at most :limit inactive peers that were last announced before :before.
DELETE FROM {peers} WHERE (user_id, torrent_id, peer_id) IN (
    SELECT user_id, torrent_id, peer_id FROM {peers}
    WHERE active = 0 AND last_announce < :before ORDER BY last_announce LIMIT :limit)

-- name: move_records
-- Moves all records of the torrent :id to :new_id.
UPDATE {history} SET torrent_id = :new_id WHERE torrent_id = :id;
UPDATE {peers} SET torrent_id = :new_id WHERE torrent_id = :id

-- name: held
-- The peers in {rows} and their histories; NULL where there is none. By the primary keys: SQLite would choose
-- the shorter index of torrents, and then seek back and forth. Many rows at a time, because starting and
-- ending a statement takes longer than finding a row.
SELECT wanted.place, peer.announces, peer.last_announce, peer.active, peer.first_announce, peer.sessions,
    peer.uploaded, peer.downloaded, history.announces, history.uploaded, history.downloaded,
    history.seed_time, history.last_announce, history.completed_at, history.hnr, history.seeded_floor,
    history.seeded_from, history.seeded_until
FROM {rows} AS wanted
LEFT JOIN {peers} AS peer INDEXED BY sqlite_autoindex_{peers}_1 ON peer.user_id = wanted.user_id
    AND peer.torrent_id = wanted.torrent_id AND peer.peer_id = wanted.peer_id
LEFT JOIN {history} AS history INDEXED BY sqlite_autoindex_{history}_1
    ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id

-- name: held_bases
-- What rows of an earlier version have in place of `sessions`.
SELECT :place, base_up, base_down, base_at, dip_up, dip_down FROM {peers}
WHERE user_id = :user_id AND torrent_id = :torrent_id AND peer_id = :peer_id

-- name: insert_peers
INSERT INTO {peers} (user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active,
    paused, last_announce, dip_up, dip_down, hnr, completed_at)
VALUES (:user_id, :torrent_id, :peer_id, :base_up, :base_down, :base_at, :sessions, :uploaded, :downloaded,
    :left_bytes, :ip4, :port4, :ip6, :port6, :speed_up, :speed_down, :seed_time, :announces, :first_announce,
    :active, :paused, :last_announce, :dip_up, :dip_down, :hnr, :completed_at)

-- name: update_peers
UPDATE {peers} SET base_up = :base_up, base_down = :base_down, base_at = :base_at, sessions = :sessions,
    uploaded = :uploaded, downloaded = :downloaded, left_bytes = :left_bytes, ip4 = :ip4, port4 = :port4,
    ip6 = :ip6, port6 = :port6, speed_up = :speed_up, speed_down = :speed_down, seed_time = :seed_time,
    announces = :announces, first_announce = :first_announce, active = :active, paused = :paused,
    last_announce = :last_announce,
    dip_up = :dip_up, dip_down = :dip_down, hnr = :hnr, completed_at = :completed_at
WHERE user_id = :user_id AND torrent_id = :torrent_id AND peer_id = :peer_id

-- name: update_peers_often
-- The same for the columns that each announce changes.
UPDATE {peers} SET base_up = :base_up, base_down = :base_down, base_at = :base_at, sessions = :sessions,
    uploaded = :uploaded, downloaded = :downloaded, left_bytes = :left_bytes, ip4 = :ip4, port4 = :port4,
    ip6 = :ip6, port6 = :port6, speed_up = :speed_up, speed_down = :speed_down, seed_time = :seed_time,
    announces = :announces, first_announce = :first_announce, active = :active, paused = :paused,
    last_announce = :last_announce
WHERE user_id = :user_id AND torrent_id = :torrent_id AND peer_id = :peer_id

-- name: update_sessions
-- What reports are settled against, of peers whose record is newer than the reports.
UPDATE {peers} SET base_up = :base_up, base_down = :base_down, base_at = :base_at, sessions = :sessions,
    uploaded = :uploaded, downloaded = :downloaded, dip_up = :dip_up, dip_down = :dip_down
WHERE user_id = :user_id AND torrent_id = :torrent_id AND peer_id = :peer_id

-- name: delete_peers
DELETE FROM {peers} WHERE user_id = :user_id AND torrent_id = :torrent_id AND peer_id = :peer_id

-- name: insert_histories
INSERT INTO {history} (torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until, completed_at, hnr, seeded_floor, seeded_from, first_announce)
VALUES (:torrent_id, :user_id, :uploaded, :downloaded, :seed_time, :announces, :last_announce,
    :seeded_until, :completed_at, :hnr, :seeded_floor, :seeded_from, :first_announce)

-- name: update_histories
UPDATE {history} SET uploaded = :uploaded, downloaded = :downloaded, seed_time = :seed_time,
    announces = :announces, last_announce = :last_announce, seeded_until = :seeded_until,
    completed_at = :completed_at, hnr = :hnr, seeded_floor = :seeded_floor, seeded_from = :seeded_from
WHERE torrent_id = :torrent_id AND user_id = :user_id

-- name: update_histories_often
-- The same for the columns that each announce changes.
UPDATE {history} SET uploaded = :uploaded, downloaded = :downloaded, seed_time = :seed_time,
    announces = :announces, last_announce = :last_announce, seeded_until = :seeded_until
WHERE torrent_id = :torrent_id AND user_id = :user_id

-- name: update_standing
-- Copies what changed of a history to all peers of that user and torrent.
UPDATE {peers} SET hnr = :hnr, completed_at = :completed_at
WHERE torrent_id = :torrent_id AND user_id = :user_id

-- name: journals
-- Every journal, with the number of its last applied batch.
SELECT node, applied FROM mika_journal ORDER BY node

-- name: applied
-- That number of the journal :node.
SELECT applied FROM mika_journal WHERE node = :node

-- name: insert_journal
-- A row for the journal :node if there is none.
INSERT OR IGNORE INTO mika_journal (node, applied) VALUES (:node, 0)

-- name: set_applied
UPDATE mika_journal SET applied = :applied WHERE node = :node

-- name: raise_applied
-- Sets the number to :applied unless it is higher.
INSERT INTO mika_journal (node, applied) VALUES (:node, :applied)
ON CONFLICT (node) DO UPDATE SET applied = MAX(applied, excluded.applied)

-- name: forget_journal
-- Deletes the journal's row if its number is still :applied.
DELETE FROM mika_journal WHERE node = :node AND applied = :applied

-- name: feed_bounds
-- The first and the last number of the feed. SQLite remembers the last even if all entries are deleted; the
-- first is then the next.
SELECT IFNULL((SELECT MIN(seq) FROM mika_feed), newest + 1), newest
FROM (SELECT IFNULL((SELECT seq FROM sqlite_sequence WHERE name = 'mika_feed'), 0) AS newest)

-- name: trim_feed
-- Deletes the feed up to the number :last.
DELETE FROM mika_feed WHERE seq <= :last

-- name: identity
SELECT id FROM mika_identity

-- name: renew_identity
UPDATE mika_identity SET id = lower(hex(randomblob(16)))

-- name: time
-- Empty: this host's clock.

-- name: migrations
-- The migrations that were applied.
SELECT name FROM mika_migrations ORDER BY name

-- name: create_migrations
CREATE TABLE IF NOT EXISTS mika_migrations (
    name TEXT PRIMARY KEY NOT NULL,
    applied_at INTEGER NOT NULL DEFAULT (unixepoch())
)

-- name: add_migration
INSERT INTO mika_migrations (name) VALUES (:name)

-- name: add_reload
INSERT INTO mika_feed (kind, key) VALUES (:kind, 0)

-- name: tables
-- The tables and views, with the engine of one that has no transactions, and whether a crash empties it.
SELECT name, type = 'view', NULL, 0 FROM sqlite_schema WHERE type IN ('table', 'view')

-- name: columns
-- The columns of the table :table. They hold values of any type and length.
SELECT name, type, "notnull" = 0, dflt_value, NULL, NULL, NULL FROM pragma_table_info(:table)

-- name: columns_named
-- Empty: any column holds any value.

-- name: columns_to_fill
-- Columns that every new row must have a value for.
SELECT tables.name, columns.name FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
WHERE tables.type = 'table' AND columns."notnull" AND columns.dflt_value IS NULL AND columns.pk = 0
ORDER BY tables.name, columns.cid

-- name: table_privileges
-- Empty: there are no accounts.

-- name: id_sequence
-- Empty: there are no accounts.

-- name: key_sequence
-- Empty: an id that the database chooses is above all others.

-- name: triggers
-- The triggers, as statements that would make them.
SELECT name, tbl_name, sql, NULL, NULL FROM sqlite_schema WHERE type = 'trigger'

-- name: function
-- Empty: triggers have no functions.
