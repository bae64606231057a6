-- Mika's own tables on MySQL and MariaDB. {peers} and {history} stand for their names, which have a prefix in
-- some schemas. Rows that are written are there and locked, or known to be new.

-- name: peers_page
-- A page of peers, by key: those after the key (:user_id, :torrent_id, :peer_id), that are active or were
-- announced since :since. The condition on the key is written out: servers don't use an index for row
-- comparisons.
SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, dip_down, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce,
    last_announce, active, paused
FROM {peers} FORCE INDEX (PRIMARY)
WHERE user_id >= :user_id AND (user_id > :user_id OR torrent_id > :torrent_id
        OR (torrent_id = :torrent_id AND peer_id > :peer_id))
    AND (active = 1 OR last_announce >= :since)
ORDER BY user_id, torrent_id, peer_id LIMIT :limit

-- name: histories_page
-- A page of histories, by key: those after (:torrent_id, :user_id).
SELECT torrent_id, user_id, uploaded, downloaded, seed_time, completed_at, hnr
FROM {history} FORCE INDEX (PRIMARY)
WHERE torrent_id >= :torrent_id AND (torrent_id > :torrent_id OR user_id > :user_id)
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
-- Those torrents of {rows} that have a history or a peer. {rows}: torrent_id
SELECT history.torrent_id FROM {rows} AS wanted
    STRAIGHT_JOIN {history} AS history ON history.torrent_id = wanted.torrent_id
UNION
SELECT peer.torrent_id FROM {rows} AS wanted
    STRAIGHT_JOIN {peers} AS peer ON peer.torrent_id = wanted.torrent_id

-- name: peers_of_user
-- The torrents in whose swarm the user :user_id is, and whether that peer has all of it.
SELECT torrent_id, left_bytes <=> 0 FROM {peers} WHERE user_id = :user_id AND active = 1

-- name: histories_of_user
-- The torrents of which the user :user_id has a history, whether it was snatched, and hit and run.
SELECT torrent_id, completed_at IS NOT NULL, hnr <> 0 FROM {history} WHERE user_id = :user_id

-- name: newest_announce
SELECT MAX(last_announce) FROM {peers}

-- name: last_gone
-- The newest announce of an inactive peer before :before.
SELECT MAX(inactive_since) FROM {peers} WHERE inactive_since < :before

-- name: prune_peers
-- Deletes at most :limit inactive peers that were last announced before :before.
DELETE FROM {peers} WHERE inactive_since < :before ORDER BY inactive_since LIMIT :limit

-- name: move_records
-- Moves all records of the torrent :id to :new_id.
UPDATE {history} SET torrent_id = :new_id WHERE torrent_id = :id;
UPDATE {peers} SET torrent_id = :new_id WHERE torrent_id = :id

-- name: held
-- The peers in {rows} and their histories, locked; NULL where there is none. {rows}: place, user_id,
-- torrent_id, peer_id
SELECT wanted.place, peer.announces, peer.last_announce, peer.active, peer.first_announce, peer.sessions,
    peer.uploaded, peer.downloaded, history.announces, history.uploaded, history.downloaded,
    history.seed_time, history.last_announce, history.completed_at, history.hnr, history.seeded_floor,
    history.seeded_from, history.seeded_until
FROM {rows} AS wanted
LEFT JOIN {peers} AS peer ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id
    AND peer.peer_id = wanted.peer_id
LEFT JOIN {history} AS history ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id
FOR UPDATE

-- name: held_bases
-- What rows of an earlier version have in place of `sessions`. {rows} as of `held`.
SELECT wanted.place, peer.base_up, peer.base_down, peer.base_at, peer.dip_up, peer.dip_down
FROM {rows} AS wanted
STRAIGHT_JOIN {peers} AS peer ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id
    AND peer.peer_id = wanted.peer_id

-- name: insert_peers
INSERT INTO {peers} (user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active,
    paused, last_announce, dip_up, dip_down, hnr, inactive_since, completed_at)
VALUES {values}

-- name: update_peers
-- By an upsert, which takes many rows as a plain list.
INSERT INTO {peers} (user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active,
    paused, last_announce, dip_up, dip_down, hnr, inactive_since, completed_at)
VALUES {values} ON DUPLICATE KEY UPDATE
    base_up = VALUES(base_up), base_down = VALUES(base_down), base_at = VALUES(base_at),
    sessions = VALUES(sessions), uploaded = VALUES(uploaded), downloaded = VALUES(downloaded),
    left_bytes = VALUES(left_bytes), ip4 = VALUES(ip4), port4 = VALUES(port4), ip6 = VALUES(ip6),
    port6 = VALUES(port6), speed_up = VALUES(speed_up), speed_down = VALUES(speed_down),
    seed_time = VALUES(seed_time), announces = VALUES(announces), first_announce = VALUES(first_announce),
    active = VALUES(active), paused = VALUES(paused), last_announce = VALUES(last_announce),
    dip_up = VALUES(dip_up), dip_down = VALUES(dip_down), hnr = VALUES(hnr),
    inactive_since = VALUES(inactive_since), completed_at = VALUES(completed_at)

-- name: update_peers_often
-- The same for the columns that each announce changes.
INSERT INTO {peers} (user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active,
    paused, last_announce)
VALUES {values} ON DUPLICATE KEY UPDATE
    base_up = VALUES(base_up), base_down = VALUES(base_down), base_at = VALUES(base_at),
    sessions = VALUES(sessions), uploaded = VALUES(uploaded), downloaded = VALUES(downloaded),
    left_bytes = VALUES(left_bytes), ip4 = VALUES(ip4), port4 = VALUES(port4), ip6 = VALUES(ip6),
    port6 = VALUES(port6), speed_up = VALUES(speed_up), speed_down = VALUES(speed_down),
    seed_time = VALUES(seed_time), announces = VALUES(announces), first_announce = VALUES(first_announce),
    active = VALUES(active), paused = VALUES(paused), last_announce = VALUES(last_announce)

-- name: update_sessions
-- What reports are settled against, of peers whose record is newer than the reports.
UPDATE {rows} AS new STRAIGHT_JOIN {peers} AS peer ON peer.user_id = new.user_id
    AND peer.torrent_id = new.torrent_id AND peer.peer_id = new.peer_id
SET peer.base_up = new.base_up, peer.base_down = new.base_down, peer.base_at = new.base_at,
    peer.sessions = new.sessions, peer.uploaded = new.uploaded, peer.downloaded = new.downloaded,
    peer.dip_up = new.dip_up, peer.dip_down = new.dip_down

-- name: delete_peers
DELETE peer FROM {rows} AS gone STRAIGHT_JOIN {peers} AS peer ON peer.user_id = gone.user_id
    AND peer.torrent_id = gone.torrent_id AND peer.peer_id = gone.peer_id

-- name: insert_histories
INSERT INTO {history} (torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until, completed_at, hnr, seeded_floor, seeded_from, first_announce)
VALUES {values}

-- name: update_histories
INSERT INTO {history} (torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until, completed_at, hnr, seeded_floor, seeded_from)
VALUES {values} ON DUPLICATE KEY UPDATE
    uploaded = VALUES(uploaded), downloaded = VALUES(downloaded), seed_time = VALUES(seed_time),
    announces = VALUES(announces), last_announce = VALUES(last_announce),
    seeded_until = VALUES(seeded_until), completed_at = VALUES(completed_at), hnr = VALUES(hnr),
    seeded_floor = VALUES(seeded_floor), seeded_from = VALUES(seeded_from)

-- name: update_histories_often
-- The same for the columns that each announce changes.
INSERT INTO {history} (torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until)
VALUES {values} ON DUPLICATE KEY UPDATE
    uploaded = VALUES(uploaded), downloaded = VALUES(downloaded), seed_time = VALUES(seed_time),
    announces = VALUES(announces), last_announce = VALUES(last_announce),
    seeded_until = VALUES(seeded_until)

-- name: update_standing
-- Copies what changed of a history to all peers of that user and torrent.
UPDATE {rows} AS standing STRAIGHT_JOIN {peers} AS peer ON peer.user_id = standing.user_id
    AND peer.torrent_id = standing.torrent_id
SET peer.hnr = standing.hnr, peer.completed_at = standing.completed_at

-- name: journals
-- Every journal, with the number of its last applied batch.
SELECT node, applied FROM mika_journal ORDER BY node

-- name: applied
-- That number of the journal :node, locked: it waits for an open transaction of the same journal.
SELECT applied FROM mika_journal WHERE node = :node FOR UPDATE

-- name: insert_journal
-- A row for the journal :node if there is none: a missing one can't be locked, so two first batches would both
-- count.
INSERT IGNORE INTO mika_journal (node, applied) VALUES (:node, 0)

-- name: set_applied
UPDATE mika_journal SET applied = :applied WHERE node = :node

-- name: raise_applied
-- Sets the number to :applied unless it is higher.
INSERT INTO mika_journal (node, applied) VALUES (:node, :applied)
ON DUPLICATE KEY UPDATE applied = GREATEST(applied, VALUES(applied))

-- name: forget_journal
-- Deletes the journal's row if its number is still :applied.
DELETE FROM mika_journal WHERE node = :node AND applied = :applied

-- name: feed_bounds
-- The first and the last number of the feed that can be seen.
SELECT MIN(seq), MAX(seq) FROM mika_feed

-- name: trim_feed
-- Deletes the feed up to the number :last.
DELETE FROM mika_feed WHERE seq <= :last

-- name: identity
SELECT id FROM mika_identity

-- name: renew_identity
UPDATE mika_identity SET id = MD5(CONCAT(UUID(), RAND()))

-- name: time
-- The server's clock (Unix time).
SELECT UNIX_TIMESTAMP()

-- name: migrations
-- The migrations that were applied.
SELECT name FROM mika_migrations ORDER BY name

-- name: create_migrations
CREATE TABLE IF NOT EXISTS mika_migrations (
    name VARCHAR(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4

-- name: add_migration
INSERT INTO mika_migrations (name) VALUES (:name)

-- name: add_reload
INSERT INTO mika_feed (kind, `key`) VALUES (:kind, 0)

-- name: tables
-- The tables and views, with the engine of one that has no transactions, and whether a crash empties it.
SELECT t.table_name, t.table_type LIKE '%VIEW%', IF(e.transactions = 'YES', NULL, t.engine), 0
FROM information_schema.tables AS t LEFT JOIN information_schema.engines AS e ON e.engine = t.engine
WHERE t.table_schema = DATABASE()

-- name: without_transactions
-- The tables whose engine has no transactions, with the database of those that are in another one.
SELECT t.table_name, t.engine, IF(t.table_schema = DATABASE(), NULL, t.table_schema)
FROM information_schema.tables AS t JOIN information_schema.engines AS e ON e.engine = t.engine
WHERE t.table_type = 'BASE TABLE' AND COALESCE(e.transactions, 'NO') <> 'YES'
    AND t.table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')

-- name: columns
-- The columns of the table :table, which may be in another database (:schema). Only texts have a character set.
SELECT column_name, column_type, is_nullable = 'YES', column_default, character_maximum_length,
    character_set_name, collation_name
FROM information_schema.columns
WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table ORDER BY ordinal_position

-- name: columns_named
-- The columns of that name, with the characters of a text and its character set, and the bits of a number.
SELECT table_name, character_maximum_length, character_set_name, NULL
FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = :name

-- name: columns_to_fill
-- Columns that every new row must have a value for. An ENUM without a default gets its first value.
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = DATABASE() AND is_nullable = 'NO' AND column_default IS NULL
    AND extra NOT LIKE '%auto_increment%' AND COALESCE(generation_expression, '') = '' AND data_type <> 'enum'
ORDER BY table_name, ordinal_position

-- name: table_privileges
-- Empty: a denial names the privilege.

-- name: id_sequence
-- Empty: an id needs no privilege.

-- name: key_sequence
-- Empty: an id that the database chooses is above all others.

-- name: triggers
-- The triggers, as statements that would make them, and the accounts that they run as.
SELECT trigger_name, event_object_table,
    CONCAT('CREATE TRIGGER t ', action_timing, ' ', event_manipulation, ' ON t FOR EACH ROW ', action_statement),
    definer, NULL
FROM information_schema.triggers WHERE trigger_schema = DATABASE()

-- name: function
-- Empty: triggers have no functions.
