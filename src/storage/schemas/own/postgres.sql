-- Mika's own tables on PostgreSQL. {peers} and {history} stand for their names, which have a prefix in
-- some schemas. Rows that are written are there and locked, or known to be new. Numbers in {rows} are bigint,
-- so that flags are compared with 0.

-- name: peers_page
-- A page of peers, by key: those after the key (:user_id, :torrent_id, :peer_id), that are active or were
-- announced since :since.
SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, dip_down, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce,
    last_announce, active, paused
FROM {peers}
WHERE (user_id, torrent_id, peer_id) > (:user_id, :torrent_id, :peer_id)
    AND (active OR last_announce >= :since)
ORDER BY user_id, torrent_id, peer_id LIMIT :limit

-- name: histories_page
-- A page of histories, by key: those after (:torrent_id, :user_id).
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
-- Those torrents of {rows} that have a history or a peer. {rows}: torrent_id
SELECT wanted.torrent_id FROM {rows} AS wanted
WHERE EXISTS (SELECT FROM {history} AS history WHERE history.torrent_id = wanted.torrent_id)
UNION
SELECT wanted.torrent_id FROM {rows} AS wanted
WHERE EXISTS (SELECT FROM {peers} AS peer WHERE peer.torrent_id = wanted.torrent_id)

-- name: peers_of_user
-- The torrents in whose swarm the user :user_id is, and whether that peer has all of it.
SELECT torrent_id, left_bytes IS NOT DISTINCT FROM 0 FROM {peers} WHERE user_id = :user_id AND active

-- name: histories_of_user
-- The torrents of which the user :user_id has a history, whether it was snatched, and hit and run.
SELECT torrent_id, completed_at IS NOT NULL, hnr FROM {history} WHERE user_id = :user_id

-- name: newest_announce
SELECT MAX(last_announce) FROM {peers}

-- name: last_gone
-- The newest announce of an inactive peer before :before.
SELECT MAX(inactive_since) FROM {peers} WHERE inactive_since < :before

-- name: prune_peers
-- Deletes at most :limit inactive peers that were last announced before :before. A row that is locked is about to
-- change, so it is passed over.
DELETE FROM {peers}
WHERE inactive_since < :before AND ctid = ANY (ARRAY(
    SELECT ctid FROM {peers} WHERE inactive_since < :before
    ORDER BY inactive_since LIMIT :limit FOR UPDATE SKIP LOCKED))

-- name: move_records
-- Moves all records of the torrent :id to :new_id.
UPDATE {history} SET torrent_id = :new_id WHERE torrent_id = :id;
UPDATE {peers} SET torrent_id = :new_id WHERE torrent_id = :id

-- name: held
-- The peers in {rows} and their histories, locked, each in a row of its own; NULL for the other. {rows}: place,
-- user_id, torrent_id, peer_id. All peers are locked in the order of their keys, then all histories.
WITH wanted AS MATERIALIZED (SELECT * FROM {rows} AS row),
peer AS MATERIALIZED (
    SELECT wanted.place, peer.announces, peer.last_announce, peer.active, peer.first_announce, peer.sessions,
        peer.uploaded, peer.downloaded
    FROM wanted JOIN {peers} AS peer ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id
        AND peer.peer_id = wanted.peer_id
    ORDER BY peer.user_id, peer.torrent_id, peer.peer_id FOR UPDATE OF peer
),
history AS MATERIALIZED (
    SELECT wanted.place, history.announces, history.uploaded, history.downloaded, history.seed_time,
        history.last_announce, history.completed_at, history.hnr, history.seeded_floor, history.seeded_from,
        history.seeded_until
    FROM (SELECT MIN(place) AS place, torrent_id, user_id FROM wanted GROUP BY torrent_id, user_id) AS wanted
    JOIN {history} AS history ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id
    ORDER BY history.torrent_id, history.user_id FOR UPDATE OF history
)
SELECT place, announces, last_announce, active, first_announce, sessions, uploaded, downloaded, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint,
    NULL::bigint
FROM peer
UNION ALL
SELECT place, NULL, NULL, NULL, NULL, NULL, NULL, NULL, announces, uploaded, downloaded, seed_time,
    last_announce, completed_at, hnr, seeded_floor, seeded_from, seeded_until
FROM history

-- name: held_bases
-- What rows of an earlier version have in place of `sessions`. {rows} as of `held`.
SELECT wanted.place, peer.base_up, peer.base_down, peer.base_at, peer.dip_up, peer.dip_down
FROM {rows} AS wanted
JOIN {peers} AS peer ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id
    AND peer.peer_id = wanted.peer_id

-- name: insert_peers
INSERT INTO {peers} (user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active,
    paused, last_announce, dip_up, dip_down, hnr, inactive_since, completed_at)
SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, sessions, uploaded, downloaded,
    left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, seed_time, announces, first_announce, active <> 0,
    paused <> 0, last_announce, dip_up, dip_down, hnr <> 0, inactive_since, completed_at
FROM {rows} AS new

-- name: update_peers
UPDATE {peers} AS peer SET
    base_up = new.base_up, base_down = new.base_down, base_at = new.base_at, sessions = new.sessions,
    uploaded = new.uploaded, downloaded = new.downloaded, left_bytes = new.left_bytes, ip4 = new.ip4,
    port4 = new.port4, ip6 = new.ip6, port6 = new.port6, speed_up = new.speed_up,
    speed_down = new.speed_down, seed_time = new.seed_time, announces = new.announces,
    first_announce = new.first_announce, active = new.active <> 0, paused = new.paused <> 0,
    last_announce = new.last_announce, dip_up = new.dip_up, dip_down = new.dip_down, hnr = new.hnr <> 0,
    inactive_since = new.inactive_since, completed_at = new.completed_at
FROM {rows} AS new
WHERE peer.user_id = new.user_id AND peer.torrent_id = new.torrent_id AND peer.peer_id = new.peer_id

-- name: update_peers_often
-- The same for the columns that each announce changes.
UPDATE {peers} AS peer SET
    base_up = new.base_up, base_down = new.base_down, base_at = new.base_at, sessions = new.sessions,
    uploaded = new.uploaded, downloaded = new.downloaded, left_bytes = new.left_bytes, ip4 = new.ip4,
    port4 = new.port4, ip6 = new.ip6, port6 = new.port6, speed_up = new.speed_up,
    speed_down = new.speed_down, seed_time = new.seed_time, announces = new.announces,
    first_announce = new.first_announce, active = new.active <> 0, paused = new.paused <> 0,
    last_announce = new.last_announce
FROM {rows} AS new
WHERE peer.user_id = new.user_id AND peer.torrent_id = new.torrent_id AND peer.peer_id = new.peer_id

-- name: update_sessions
-- What reports are settled against, of peers whose record is newer than the reports.
UPDATE {peers} AS peer SET
    base_up = new.base_up, base_down = new.base_down, base_at = new.base_at, sessions = new.sessions,
    uploaded = new.uploaded, downloaded = new.downloaded, dip_up = new.dip_up, dip_down = new.dip_down
FROM {rows} AS new
WHERE peer.user_id = new.user_id AND peer.torrent_id = new.torrent_id AND peer.peer_id = new.peer_id

-- name: delete_peers
DELETE FROM {peers} AS peer USING {rows} AS gone
WHERE peer.user_id = gone.user_id AND peer.torrent_id = gone.torrent_id AND peer.peer_id = gone.peer_id

-- name: insert_histories
INSERT INTO {history} (torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until, completed_at, hnr, seeded_floor, seeded_from, first_announce)
SELECT torrent_id, user_id, uploaded, downloaded, seed_time, announces, last_announce,
    seeded_until, completed_at, hnr <> 0, seeded_floor, seeded_from, first_announce
FROM {rows} AS new

-- name: update_histories
UPDATE {history} AS history SET
    uploaded = new.uploaded, downloaded = new.downloaded, seed_time = new.seed_time,
    announces = new.announces, last_announce = new.last_announce, seeded_until = new.seeded_until,
    completed_at = new.completed_at, hnr = new.hnr <> 0, seeded_floor = new.seeded_floor,
    seeded_from = new.seeded_from
FROM {rows} AS new
WHERE history.torrent_id = new.torrent_id AND history.user_id = new.user_id

-- name: update_histories_often
-- The same for the columns that each announce changes.
UPDATE {history} AS history SET
    uploaded = new.uploaded, downloaded = new.downloaded, seed_time = new.seed_time,
    announces = new.announces, last_announce = new.last_announce, seeded_until = new.seeded_until
FROM {rows} AS new
WHERE history.torrent_id = new.torrent_id AND history.user_id = new.user_id

-- name: update_standing
-- Copies what changed of a history to all peers of that user and torrent.
UPDATE {peers} AS peer SET hnr = standing.hnr <> 0, completed_at = standing.completed_at
FROM {rows} AS standing
WHERE peer.user_id = standing.user_id AND peer.torrent_id = standing.torrent_id

-- name: journals
-- Every journal, with the number of its last applied batch.
SELECT node, applied FROM mika_journal ORDER BY node

-- name: applied
-- That number of the journal :node, locked: it waits for an open transaction of the same journal.
SELECT applied FROM mika_journal WHERE node = :node FOR UPDATE

-- name: insert_journal
-- A row for the journal :node if there is none: a missing one can't be locked, so two first batches would both
-- count.
INSERT INTO mika_journal (node, applied) VALUES (:node, 0) ON CONFLICT DO NOTHING

-- name: set_applied
UPDATE mika_journal SET applied = :applied WHERE node = :node

-- name: raise_applied
-- Sets the number to :applied unless it is higher.
INSERT INTO mika_journal AS journal (node, applied) VALUES (:node, :applied)
ON CONFLICT (node) DO UPDATE SET applied = GREATEST(journal.applied, EXCLUDED.applied)

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
UPDATE mika_identity SET id = replace(gen_random_uuid()::text, '-', '')

-- name: time
-- The server's clock (Unix time).
SELECT floor(EXTRACT(EPOCH FROM clock_timestamp()))::bigint

-- name: migrations
-- The migrations that were applied.
SELECT name FROM mika_migrations ORDER BY name

-- name: create_migrations
CREATE TABLE mika_migrations (
    name       text        COLLATE "C" NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: add_migration
INSERT INTO mika_migrations (name) VALUES (:name)

-- name: add_reload
INSERT INTO mika_feed (kind, key) VALUES (:kind, 0)

-- name: tables
-- The tables and views that are found without naming their schema, with the engine of one that has no transactions,
-- and whether a crash empties it. Tables of other servers are as views.
SELECT relname, relkind IN ('v', 'm', 'f'), NULL, relpersistence = 'u' FROM pg_class
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(oid) AND relnamespace <> 'pg_catalog'::regnamespace

-- name: columns
-- The columns of the table :table, which may be in another schema (:schema). Only texts have a character set. A
-- domain is as the type that it is based on; the number that describes a type counts 4 bytes before its characters.
SELECT a.attname, format_type(base.oid, form.modifier), NOT a.attnotnull, NULL,
    CASE WHEN base.typcategory = 'S' AND form.modifier > 4 THEN form.modifier - 4 END,
    CASE WHEN base.typcategory IN ('S', 'E') THEN current_setting('server_encoding') END, NULL
FROM pg_attribute AS a JOIN pg_type AS given ON given.oid = a.atttypid
JOIN pg_type AS base ON base.oid = COALESCE(NULLIF(given.typbasetype, 0), given.oid)
CROSS JOIN LATERAL (
    SELECT CASE WHEN given.typbasetype = 0 THEN a.atttypmod ELSE given.typtypmod END AS modifier
) AS form
WHERE a.attrelid = to_regclass(COALESCE(quote_ident(:schema) || '.' || quote_ident(:table), :table))
    AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: columns_named
-- The columns of that name, with the characters of a text and its character set, and the bits of a number.
SELECT c.relname, CASE WHEN t.typcategory = 'S' AND a.atttypmod > 4 THEN a.atttypmod - 4 END, NULL,
    CASE WHEN t.typcategory = 'N' THEN t.typlen * 8 END
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 JOIN pg_type AS t ON t.oid = a.atttypid
WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p', 'v') AND a.attname = :name

-- name: columns_to_fill
-- Columns that every new row must have a value for.
SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) AND a.attnum > 0
    AND c.relnamespace <> 'pg_catalog'::regnamespace
    AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
ORDER BY c.relname, a.attnum

-- name: table_privileges
-- What this account may do with the table :table, or with some of its columns.
SELECT has_any_column_privilege(to_regclass(:table), 'SELECT'), has_any_column_privilege(to_regclass(:table), 'INSERT'),
    has_any_column_privilege(to_regclass(:table), 'UPDATE'), has_table_privilege(to_regclass(:table), 'DELETE')
WHERE to_regclass(:table) IS NOT NULL

-- name: id_sequence
-- The sequences from which columns of :table take their values, and whether this account may take and set them. A table
-- that is missing is no error here.
SELECT ids.sequence, has_sequence_privilege(ids.sequence, 'USAGE'), has_sequence_privilege(ids.sequence, 'UPDATE')
FROM (
    SELECT pg_get_serial_sequence(attrelid::regclass::text, attname) AS sequence FROM pg_attribute
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
) AS ids
WHERE ids.sequence IS NOT NULL

-- name: key_sequence
-- If the unique key :key has one column that takes its values from a sequence: its table, the column, and the sequence.
SELECT i.indrelid::regclass::text, quote_ident(a.attname), pg_get_serial_sequence(i.indrelid::regclass::text, a.attname)
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE c.relname = :key AND i.indisunique AND i.indnkeyatts = 1 AND pg_table_is_visible(c.oid)
    AND pg_get_serial_sequence(i.indrelid::regclass::text, a.attname) IS NOT NULL

-- name: triggers
-- Mika's triggers, as statements that would make them, each with the text of its function, and what is wrong with them.
-- That of mika_feed needs no rights, and the others must not be fooled by the search_path of whoever changes a row.
SELECT t.tgname, c.relname, pg_get_triggerdef(t.oid) || E'\n' || p.prosrc, NULL,
    CASE WHEN t.tgenabled NOT IN ('O', 'A') THEN 'disabled'
        WHEN t.tgname LIKE 'mika\_feed\_%' THEN NULL
        WHEN p.prosecdef AND COALESCE(p.proconfig::text LIKE '%search\_path=%', false) THEN NULL
        ELSE 'with a function that has the rights of whoever changes a row' END
FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE t.tgname LIKE 'mika\_%' AND NOT t.tgisinternal AND t.tgparentid = 0 AND pg_table_is_visible(c.oid)

-- name: function
-- The text of the function :name of a trigger, which is empty if it has not the rights that it should have.
SELECT CASE WHEN prosecdef OR proname = 'mika_feed_entry' THEN prosrc ELSE '' END
FROM pg_proc WHERE oid = to_regprocedure(:name || '()')
