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
