-- Schema mika for PostgreSQL: the tables of migrations/postgres. See docs/sql.md.
-- Totals are added to rows that are there, never by an upsert, and stop at 2^63-1.
-- {rows} is a table, whose rows are looked up one after the other: writers lock rows in the same order. A
-- parameter gets its type from where it first stands, or from a cast there.

-- name: users
-- A page of users, by id. :after is the last id of the page before. Columns:
-- id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users WHERE id > :after ORDER BY id LIMIT :limit

-- name: user
-- The user of :id. Columns as of `users`.
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users WHERE id = :id

-- name: users_named
-- All users whose name is :username. Columns as of `users`.
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users WHERE username = :username ORDER BY id

-- name: user_of_passkey
-- The id of the user with :passkey. Case matters.
SELECT id FROM users WHERE passkey = :passkey

-- name: users_known
-- Those ids of {rows} that have a user. {rows}: id. Columns: id
SELECT users.id FROM {rows} AS wanted JOIN users ON users.id = wanted.id

-- name: torrents
-- A page of torrents, by id. :after is the last id of the page before. Columns:
-- id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
-- snatches, announces, uploaded, downloaded
SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
    snatches, announces, uploaded, downloaded
FROM torrents WHERE id > :after ORDER BY id LIMIT :limit

-- name: torrent
-- The torrent of :id. Columns as of `torrents`.
SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
    snatches, announces, uploaded, downloaded
FROM torrents WHERE id = :id

-- name: torrents_of_hashes
-- The torrents whose first or second info hash is among {rows}. {rows}: info_hash.
-- Columns: id, info_hash, info_hash_v2
SELECT torrents.id, torrents.info_hash, torrents.info_hash_v2
FROM {rows} AS wanted JOIN torrents ON torrents.info_hash = wanted.info_hash
UNION
SELECT torrents.id, torrents.info_hash, torrents.info_hash_v2
FROM {rows} AS wanted JOIN torrents ON torrents.info_hash_v2 = wanted.info_hash

-- name: torrents_known
-- Those ids of {rows} that have a torrent. {rows}: id. Columns: id
SELECT torrents.id FROM {rows} AS wanted JOIN torrents ON torrents.id = wanted.id

-- name: whitelist
-- All allowed clients. Columns: peer_id, vstring
SELECT peer_id, vstring FROM whitelist ORDER BY peer_id

-- name: feed
-- What changed after the position :after, in order, at most :limit entries. Empty: changes are not
-- followed. Columns: seq, kind (user, torrent, whitelist), key (an id), age (seconds)
SELECT seq, kind, key, floor(EXTRACT(EPOCH FROM clock_timestamp() - noted_at))::bigint AS age
FROM mika_feed WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: find_users
-- Users whose name is like :pattern or whose id is :id; all if :pattern is NULL. Only those that
-- are enabled, or not, if :enabled is not NULL. Mika puts ORDER BY … LIMIT … behind it, by the names
-- of the columns, which are those of `users`.
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users
WHERE (username ILIKE :pattern ESCAPE '!' OR id = :id OR :pattern IS NULL)
    AND (enabled = :enabled OR :enabled IS NULL)

-- name: count_users
-- How many there are of `find_users`.
SELECT COUNT(*) FROM users
WHERE (username ILIKE :pattern ESCAPE '!' OR id = :id OR :pattern IS NULL)
    AND (enabled = :enabled OR :enabled IS NULL)

-- name: find_torrents
-- The same for torrents, with the columns of `torrents`.
SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
    snatches, announces, uploaded, downloaded
FROM torrents
WHERE (release_name ILIKE :pattern ESCAPE '!' OR id = :id OR :pattern IS NULL)
    AND (enabled = :enabled OR :enabled IS NULL)

-- name: count_torrents
-- How many there are of `find_torrents`.
SELECT COUNT(*) FROM torrents
WHERE (release_name ILIKE :pattern ESCAPE '!' OR id = :id OR :pattern IS NULL)
    AND (enabled = :enabled OR :enabled IS NULL)

-- name: add_user
-- Adds a user. Parameters: :id (NULL: the database chooses), :passkey, :username. The database must not
-- choose a given id later.
INSERT INTO users (id, passkey, username)
VALUES (COALESCE(:id, nextval(pg_get_serial_sequence('users', 'id'))), :passkey, :username);
SELECT setval(pg_get_serial_sequence('users', 'id'), :id)
WHERE :id > COALESCE(pg_sequence_last_value(pg_get_serial_sequence('users', 'id')), 0)

-- name: update_user
-- Changes what is not NULL of :passkey, :username, :enabled, :can_leech, :uploaded, :downloaded of the
-- user :id.
UPDATE users SET passkey = COALESCE(:passkey, passkey), username = COALESCE(:username, username),
    enabled = COALESCE(:enabled, enabled), can_leech = COALESCE(:can_leech, can_leech),
    uploaded = COALESCE(:uploaded, uploaded), downloaded = COALESCE(:downloaded, downloaded)
WHERE id = :id

-- name: add_torrent
-- Adds a torrent. Parameters: :id (NULL: the database chooses), :info_hash, :info_hash_v2 (or NULL),
-- :release_name. The database must not choose a given id later.
INSERT INTO torrents (id, info_hash, info_hash_v2, release_name)
VALUES (COALESCE(:id, nextval(pg_get_serial_sequence('torrents', 'id'))), :info_hash, :info_hash_v2,
    :release_name);
SELECT setval(pg_get_serial_sequence('torrents', 'id'), :id)
WHERE :id > COALESCE(pg_sequence_last_value(pg_get_serial_sequence('torrents', 'id')), 0)

-- name: update_torrent
-- Changes what is not NULL of :release_name, :enabled, :multi_up, :multi_dn of the torrent :id,
-- and its reason to :reason (or NULL) if :has_reason is true.
UPDATE torrents SET release_name = COALESCE(:release_name, release_name),
    enabled = COALESCE(:enabled, enabled), reason = CASE WHEN :has_reason THEN :reason ELSE reason END,
    multi_up = COALESCE(:multi_up, multi_up), multi_dn = COALESCE(:multi_dn, multi_dn)
WHERE id = :id

-- name: move_torrent
-- Gives the torrent :id the id :new_id, which no other has. Empty: ids are not changed.
UPDATE torrents SET id = :new_id WHERE id = :id;
SELECT setval(pg_get_serial_sequence('torrents', 'id'), :new_id)
WHERE :new_id > COALESCE(pg_sequence_last_value(pg_get_serial_sequence('torrents', 'id')), 0)

-- name: remove_torrents
-- Removes the torrents in {rows}: those with `unused` below 0 in any case, others if clients registered
-- them (see add_snatched) and they have no more snatches than `unused`. {rows}: id, unused. Empty:
-- none can be removed.
DELETE FROM torrents USING {rows} AS gone
WHERE torrents.id = gone.id AND (gone.unused < 0
    OR (torrents.release_name = '' AND torrents.enabled AND torrents.snatches <= gone.unused))

-- name: add_client
-- Adds the client :peer_id, or renames it to :vstring.
INSERT INTO whitelist (peer_id, vstring) VALUES (:peer_id, :vstring)
ON CONFLICT (peer_id) DO UPDATE SET vstring = EXCLUDED.vstring

-- name: remove_client
-- Removes the client :peer_id.
DELETE FROM whitelist WHERE peer_id = :peer_id

-- name: wipe_users
-- Sets the totals of the users above :after up to :last to 0.
UPDATE users SET uploaded = 0, downloaded = 0, snatches = 0, announces = 0, seed_time = 0
WHERE id > :after AND id <= :last

-- name: wipe_torrents
-- Sets the totals of the torrents above :after up to :last to 0.
UPDATE torrents SET uploaded = 0, downloaded = 0, snatches = 0, announces = 0
WHERE id > :after AND id <= :last

-- name: mend_users
-- Sets those totals of the users in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE users SET
    uploaded = CASE WHEN uploaded BETWEEN 0 AND 4611686018427387904 THEN uploaded ELSE 0 END,
    downloaded = CASE WHEN downloaded BETWEEN 0 AND 4611686018427387904 THEN downloaded ELSE 0 END,
    snatches = CASE WHEN snatches BETWEEN 0 AND 4611686018427387904 THEN snatches ELSE 0 END,
    announces = CASE WHEN announces BETWEEN 0 AND 4611686018427387904 THEN announces ELSE 0 END,
    seed_time = CASE WHEN seed_time BETWEEN 0 AND 4611686018427387904 THEN seed_time ELSE 0 END
FROM {rows} AS wanted WHERE users.id = wanted.id

-- name: mend_torrents
-- Sets those totals of the torrents in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE torrents SET
    uploaded = CASE WHEN uploaded BETWEEN 0 AND 4611686018427387904 THEN uploaded ELSE 0 END,
    downloaded = CASE WHEN downloaded BETWEEN 0 AND 4611686018427387904 THEN downloaded ELSE 0 END,
    snatches = CASE WHEN snatches BETWEEN 0 AND 4611686018427387904 THEN snatches ELSE 0 END,
    announces = CASE WHEN announces BETWEEN 0 AND 4611686018427387904 THEN announces ELSE 0 END,
    seeders = CASE WHEN seeders BETWEEN 0 AND 4611686018427387904 THEN seeders ELSE 0 END,
    leechers = CASE WHEN leechers BETWEEN 0 AND 4611686018427387904 THEN leechers ELSE 0 END
FROM {rows} AS wanted WHERE torrents.id = wanted.id

-- name: credit_users
-- Adds to totals. {rows}: id, uploaded, downloaded, snatches, announces, seed_time
UPDATE users SET
    uploaded = LEAST(COALESCE(users.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    downloaded = LEAST(COALESCE(users.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    snatches = LEAST(COALESCE(users.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    announces = LEAST(COALESCE(users.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    seed_time = LEAST(COALESCE(users.seed_time, 0), 9223372036854775807 - credit.seed_time) + credit.seed_time
FROM {rows} AS credit WHERE users.id = credit.id

-- name: credit_torrents
-- Adds to totals and sets counters. {rows}: id, uploaded, downloaded, snatches, announces,
-- seeders, leechers
UPDATE torrents SET
    uploaded = LEAST(COALESCE(torrents.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    downloaded = LEAST(COALESCE(torrents.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    snatches = LEAST(COALESCE(torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    announces = LEAST(COALESCE(torrents.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    seeders = credit.seeders,
    leechers = credit.leechers
FROM {rows} AS credit WHERE torrents.id = credit.id

-- name: credit_snatches
-- Adds to the snatches of public torrents. {rows}: id, snatches
UPDATE torrents SET
    snatches = LEAST(COALESCE(torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches
FROM {rows} AS credit WHERE torrents.id = credit.id

-- name: add_snatched
-- Adds public torrents that were snatched and not known. {rows}: info_hash, snatches. Empty: they
-- are passed over.
INSERT INTO torrents (info_hash, snatches) SELECT fresh.info_hash, fresh.snatches FROM {rows} AS fresh
