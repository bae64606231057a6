-- Schema mika for SQLite: the tables of migrations/sqlite. What is not said here is as in mysql.sql. See
-- docs/sql.md. A statement for rows is run for each of them: its parameters are the columns of the row. One with
-- {rows} gets many at a time, as a table.

-- name: users
-- A page of users, by id. Columns:
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
-- The id of the user with :passkey.
SELECT id FROM users WHERE passkey = :passkey

-- name: users_known
-- The id, if it has a user. Row: id. Columns: id
SELECT id FROM users WHERE id = :id

-- name: torrents
-- A page of torrents, by id. Columns:
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
-- The torrents whose first or second info hash is this one. Row: info_hash.
-- Columns: id, info_hash, info_hash_v2
SELECT id, info_hash, info_hash_v2 FROM torrents WHERE info_hash = :info_hash OR info_hash_v2 = :info_hash

-- name: torrents_known
-- The id, if it has a torrent. Row: id. Columns: id
SELECT id FROM torrents WHERE id = :id

-- name: whitelist
-- All allowed clients. Columns: peer_id, vstring
SELECT peer_id, vstring FROM whitelist ORDER BY peer_id

-- name: feed
-- What changed after the position :after, in order, at most :limit entries. There is one writer, so no entry
-- appears before one that was read: a gap needs no age. Columns: seq, kind, key, age
SELECT seq, kind, key, NULL AS age FROM mika_feed WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: find_users
-- Users whose name is like :pattern or whose id is :id. Mika puts ORDER BY … LIMIT … behind it. A flag
-- of the site's may be any integer.
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users
WHERE (:pattern IS NULL OR username LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR (enabled <> 0) = :enabled)

-- name: count_users
-- How many there are of `find_users`.
SELECT COUNT(*) FROM users
WHERE (:pattern IS NULL OR username LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR (enabled <> 0) = :enabled)

-- name: find_torrents
-- The same for torrents, with the columns of `torrents`.
SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
    snatches, announces, uploaded, downloaded
FROM torrents
WHERE (:pattern IS NULL OR release_name LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR (enabled <> 0) = :enabled)

-- name: count_torrents
-- How many there are of `find_torrents`.
SELECT COUNT(*) FROM torrents
WHERE (:pattern IS NULL OR release_name LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR (enabled <> 0) = :enabled)

-- name: add_user
-- Adds a user. Parameters: :id (NULL: the database chooses), :passkey, :username
INSERT INTO users (id, passkey, username) VALUES (:id, :passkey, :username)

-- name: update_user
-- Changes what is not NULL of the parameters of the user :id.
UPDATE users SET passkey = IFNULL(:passkey, passkey), username = IFNULL(:username, username),
    enabled = IFNULL(:enabled, enabled), can_leech = IFNULL(:can_leech, can_leech),
    uploaded = IFNULL(:uploaded, uploaded), downloaded = IFNULL(:downloaded, downloaded)
WHERE id = :id

-- name: add_torrent
-- Adds a torrent. Parameters: :id (NULL: the database chooses), :info_hash, :info_hash_v2 (or NULL),
-- :release_name
INSERT INTO torrents (id, info_hash, info_hash_v2, release_name)
VALUES (:id, :info_hash, :info_hash_v2, :release_name)

-- name: update_torrent
-- Changes what is not NULL of the parameters of the torrent :id, and its reason if :has_reason is 1.
UPDATE torrents SET release_name = IFNULL(:release_name, release_name),
    enabled = IFNULL(:enabled, enabled), reason = iif(:has_reason, :reason, reason),
    multi_up = IFNULL(:multi_up, multi_up), multi_dn = IFNULL(:multi_dn, multi_dn)
WHERE id = :id

-- name: move_torrent
-- Gives the torrent :id the id :new_id, which no other has.
UPDATE torrents SET id = :new_id WHERE id = :id

-- name: remove_torrents
-- Removes a torrent: in any case if `unused` is below 0. Row: id, unused.
DELETE FROM torrents
WHERE id = :id
    AND (:unused < 0 OR (release_name = '' AND enabled = 1 AND snatches <= :unused))

-- name: add_client
-- Adds the client :peer_id, or renames it to :vstring.
INSERT INTO whitelist (peer_id, vstring) VALUES (:peer_id, :vstring)
ON CONFLICT (peer_id) DO UPDATE SET vstring = excluded.vstring

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
-- Sets those totals of a user to 0 that can't be: below 0, above 2^62 or no number. Row: id
UPDATE users SET
    uploaded = iif(uploaded BETWEEN 0 AND 4611686018427387904, uploaded, 0),
    downloaded = iif(downloaded BETWEEN 0 AND 4611686018427387904, downloaded, 0),
    snatches = iif(snatches BETWEEN 0 AND 4611686018427387904, snatches, 0),
    announces = iif(announces BETWEEN 0 AND 4611686018427387904, announces, 0),
    seed_time = iif(seed_time BETWEEN 0 AND 4611686018427387904, seed_time, 0)
WHERE id = :id

-- name: mend_torrents
-- The same for a torrent. Row: id
UPDATE torrents SET
    uploaded = iif(uploaded BETWEEN 0 AND 4611686018427387904, uploaded, 0),
    downloaded = iif(downloaded BETWEEN 0 AND 4611686018427387904, downloaded, 0),
    snatches = iif(snatches BETWEEN 0 AND 4611686018427387904, snatches, 0),
    announces = iif(announces BETWEEN 0 AND 4611686018427387904, announces, 0),
    seeders = iif(seeders BETWEEN 0 AND 4611686018427387904, seeders, 0),
    leechers = iif(leechers BETWEEN 0 AND 4611686018427387904, leechers, 0)
WHERE id = :id

-- name: credit_users
-- Adds to totals, which stop at 2^63-1. Row: id, uploaded, downloaded, snatches, announces, seed_time
UPDATE users SET
    uploaded = MIN(9223372036854775807 - :uploaded, IFNULL(CAST(uploaded AS INTEGER), 0)) + :uploaded,
    downloaded = MIN(9223372036854775807 - :downloaded, IFNULL(CAST(downloaded AS INTEGER), 0)) + :downloaded,
    snatches = MIN(9223372036854775807 - :snatches, IFNULL(CAST(snatches AS INTEGER), 0)) + :snatches,
    announces = MIN(9223372036854775807 - :announces, IFNULL(CAST(announces AS INTEGER), 0)) + :announces,
    seed_time = MIN(9223372036854775807 - :seed_time, IFNULL(CAST(seed_time AS INTEGER), 0)) + :seed_time
WHERE id = :id

-- name: credit_torrents
-- Adds to totals and sets counters. Row: id, uploaded, downloaded, snatches, announces, seeders, leechers
UPDATE torrents SET
    uploaded = MIN(9223372036854775807 - :uploaded, IFNULL(CAST(uploaded AS INTEGER), 0)) + :uploaded,
    downloaded = MIN(9223372036854775807 - :downloaded, IFNULL(CAST(downloaded AS INTEGER), 0)) + :downloaded,
    snatches = MIN(9223372036854775807 - :snatches, IFNULL(CAST(snatches AS INTEGER), 0)) + :snatches,
    announces = MIN(9223372036854775807 - :announces, IFNULL(CAST(announces AS INTEGER), 0)) + :announces,
    seeders = :seeders, leechers = :leechers
WHERE id = :id

-- name: credit_snatches
-- Adds to the snatches of a public torrent. Row: id, snatches
UPDATE torrents SET snatches = MIN(9223372036854775807 - :snatches, IFNULL(CAST(snatches AS INTEGER), 0)) + :snatches
WHERE id = :id

-- name: add_snatched
-- Adds a public torrent that was snatched and not known. Row: info_hash, snatches.
INSERT INTO torrents (info_hash, snatches) VALUES (:info_hash, :snatches)
