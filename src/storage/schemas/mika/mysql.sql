-- Schema mika for MySQL and MariaDB: the tables of migrations/mysql. See docs/sql.md.
-- Totals are added to rows that are there, never by an upsert, and stop at 2^63-1.

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
SELECT users.id FROM {rows} AS wanted STRAIGHT_JOIN users ON users.id = wanted.id

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
FROM {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.info_hash = wanted.info_hash
UNION
SELECT torrents.id, torrents.info_hash, torrents.info_hash_v2
FROM {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.info_hash_v2 = wanted.info_hash

-- name: torrents_known
-- Those ids of {rows} that have a torrent. {rows}: id. Columns: id
SELECT torrents.id FROM {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.id = wanted.id

-- name: whitelist
-- All allowed clients. Columns: peer_id, vstring
SELECT peer_id, vstring FROM whitelist ORDER BY peer_id

-- name: feed
-- What changed after the position :after, in order, at most :limit entries. Empty: changes are not
-- followed. Columns: seq, kind (user, torrent, whitelist), key (an id), age (seconds)
SELECT seq, kind, `key`, TIMESTAMPDIFF(SECOND, noted_at, CURRENT_TIMESTAMP) AS age
FROM mika_feed WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: find_users
-- Users whose name is like :pattern or whose id is :id; all if :pattern is NULL. Only those that
-- are enabled, or not, if :enabled is not NULL. Mika puts ORDER BY … LIMIT … behind it, by the names
-- of the columns, which are those of `users`.
SELECT id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
FROM users
WHERE (:pattern IS NULL OR username LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR enabled = :enabled)

-- name: count_users
-- How many there are of `find_users`.
SELECT COUNT(*) FROM users
WHERE (:pattern IS NULL OR username LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR enabled = :enabled)

-- name: find_torrents
-- The same for torrents, with the columns of `torrents`.
SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
    snatches, announces, uploaded, downloaded
FROM torrents
WHERE (:pattern IS NULL OR release_name LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR enabled = :enabled)

-- name: count_torrents
-- How many there are of `find_torrents`.
SELECT COUNT(*) FROM torrents
WHERE (:pattern IS NULL OR release_name LIKE :pattern ESCAPE '!' OR id = :id)
    AND (:enabled IS NULL OR enabled = :enabled)

-- name: add_user
-- Adds a user. Parameters: :id (NULL: the database chooses), :passkey, :username
INSERT INTO users (id, passkey, username) VALUES (:id, :passkey, :username)

-- name: update_user
-- Changes what is not NULL of :passkey, :username, :enabled, :can_leech, :uploaded, :downloaded of the
-- user :id.
UPDATE users SET passkey = COALESCE(:passkey, passkey), username = COALESCE(:username, username),
    enabled = COALESCE(:enabled, enabled), can_leech = COALESCE(:can_leech, can_leech),
    uploaded = COALESCE(:uploaded, uploaded), downloaded = COALESCE(:downloaded, downloaded)
WHERE id = :id

-- name: add_torrent
-- Adds a torrent. Parameters: :id (NULL: the database chooses), :info_hash, :info_hash_v2 (or NULL),
-- :release_name
INSERT INTO torrents (id, info_hash, info_hash_v2, release_name)
VALUES (:id, :info_hash, :info_hash_v2, :release_name)

-- name: update_torrent
-- Changes what is not NULL of :release_name, :enabled, :multi_up, :multi_dn of the torrent :id,
-- and its reason to :reason (or NULL) if :has_reason is 1.
UPDATE torrents SET release_name = COALESCE(:release_name, release_name),
    enabled = COALESCE(:enabled, enabled), reason = IF(:has_reason, :reason, reason),
    multi_up = COALESCE(:multi_up, multi_up), multi_dn = COALESCE(:multi_dn, multi_dn)
WHERE id = :id

-- name: move_torrent
-- Gives the torrent :id the id :new_id, which no other has. Empty: ids are not changed.
UPDATE torrents SET id = :new_id WHERE id = :id

-- name: remove_torrents
-- Removes the torrents in {rows}: those with `unused` below 0 in any case, others if clients registered
-- them (see add_snatched) and they have no more snatches than `unused`. {rows}: id, unused. Empty:
-- none can be removed.
DELETE torrents FROM {rows} AS gone STRAIGHT_JOIN torrents ON torrents.id = gone.id
WHERE gone.unused < 0
    OR (torrents.release_name = '' AND torrents.enabled = 1 AND torrents.snatches <= gone.unused)

-- name: add_client
-- Adds the client :peer_id, or renames it to :vstring.
INSERT INTO whitelist (peer_id, vstring) VALUES (:peer_id, :vstring)
ON DUPLICATE KEY UPDATE vstring = :vstring

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
UPDATE {rows} AS wanted STRAIGHT_JOIN users ON users.id = wanted.id SET
    users.uploaded = IF(users.uploaded BETWEEN 0 AND 4611686018427387904, users.uploaded, 0),
    users.downloaded = IF(users.downloaded BETWEEN 0 AND 4611686018427387904, users.downloaded, 0),
    users.snatches = IF(users.snatches BETWEEN 0 AND 4611686018427387904, users.snatches, 0),
    users.announces = IF(users.announces BETWEEN 0 AND 4611686018427387904, users.announces, 0),
    users.seed_time = IF(users.seed_time BETWEEN 0 AND 4611686018427387904, users.seed_time, 0)

-- name: mend_torrents
-- Sets those totals of the torrents in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.id = wanted.id SET
    torrents.uploaded = IF(torrents.uploaded BETWEEN 0 AND 4611686018427387904, torrents.uploaded, 0),
    torrents.downloaded = IF(torrents.downloaded BETWEEN 0 AND 4611686018427387904, torrents.downloaded, 0),
    torrents.snatches = IF(torrents.snatches BETWEEN 0 AND 4611686018427387904, torrents.snatches, 0),
    torrents.announces = IF(torrents.announces BETWEEN 0 AND 4611686018427387904, torrents.announces, 0),
    torrents.seeders = IF(torrents.seeders BETWEEN 0 AND 4611686018427387904, torrents.seeders, 0),
    torrents.leechers = IF(torrents.leechers BETWEEN 0 AND 4611686018427387904, torrents.leechers, 0)

-- name: credit_users
-- Adds to totals. {rows}: id, uploaded, downloaded, snatches, announces, seed_time
UPDATE {rows} AS credit STRAIGHT_JOIN users ON users.id = credit.id SET
    users.uploaded = LEAST(IFNULL(users.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    users.downloaded = LEAST(IFNULL(users.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    users.snatches = LEAST(IFNULL(users.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    users.announces = LEAST(IFNULL(users.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    users.seed_time = LEAST(IFNULL(users.seed_time, 0), 9223372036854775807 - credit.seed_time) + credit.seed_time

-- name: credit_torrents
-- Adds to totals and sets counters. {rows}: id, uploaded, downloaded, snatches, announces,
-- seeders, leechers
UPDATE {rows} AS credit STRAIGHT_JOIN torrents ON torrents.id = credit.id SET
    torrents.uploaded = LEAST(IFNULL(torrents.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    torrents.downloaded = LEAST(IFNULL(torrents.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    torrents.snatches = LEAST(IFNULL(torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    torrents.announces = LEAST(IFNULL(torrents.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    torrents.seeders = credit.seeders,
    torrents.leechers = credit.leechers

-- name: credit_snatches
-- Adds to the snatches of public torrents. {rows}: id, snatches
UPDATE {rows} AS credit STRAIGHT_JOIN torrents ON torrents.id = credit.id SET
    torrents.snatches = LEAST(IFNULL(torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches

-- name: add_snatched
-- Adds public torrents that were snatched and not known. {rows}: info_hash, snatches. Empty: they
-- are passed over.
INSERT INTO torrents (info_hash, snatches) SELECT fresh.info_hash, fresh.snatches FROM {rows} AS fresh
